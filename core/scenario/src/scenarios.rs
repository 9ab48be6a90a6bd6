//! Canned scenarios for common patterns.
