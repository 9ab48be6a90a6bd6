//! The macros of ktstr: ktstr_test, derive(Claim), json!.
