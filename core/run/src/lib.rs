//! How a declared test becomes a run and a run becomes a result.
