//! A real trace, told.
