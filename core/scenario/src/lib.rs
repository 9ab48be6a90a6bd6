//! Scenarios as data and the engine that plays them over ports.
