//! Configures and builds a kernel tree with make.
