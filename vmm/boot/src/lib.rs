//! Loading a Linux kernel into guest memory and describing the machine to it.
