//! The macros of ktstr: `ktstr_test`, `derive(Claim)`, `json!`.
//!
//! Each macro has a module of its own that works on `proc_macro2` tokens, so that
//! its expansion and its errors are unit-tested without a compiler run.

mod claim;
mod json;

use proc_macro::TokenStream;

/// Adds a `claim_<field>` method for every `pub` field of a struct.
///
/// `stats.claim_max_gap_ms(&mut v)` opens a claim on a copy of that field, labelled
/// with the field's name, in the `Verdict` given. A field of type `Option<T>` opens
/// a claim on `T` that fails when the value is absent.
///
/// Attributes:
/// - `#[claim(skip)]` on a field: no method for it.
/// - `#[claim(zero_is_none)]` on a numeric field: 0 stands for "not measured", and a
///   claim on it is inconclusive.
/// - `#[claim(crate = "path")]` on the struct: where `Verdict` and `Claim` live, when
///   not at `::ktstr::assert`.
#[proc_macro_derive(Claim, attributes(claim))]
pub fn derive_claim(input: TokenStream) -> TokenStream {
    finish(syn::parse(input).and_then(|input| claim::expand(&input)))
}

/// Turns JSON-like tokens into a `&'static str` of compact JSON.
///
/// Objects with string-literal keys, arrays, strings, numbers (also negative), `true`,
/// `false` and `null`. A trailing comma is accepted and dropped; a key given twice, a
/// number with a type suffix and anything that is no JSON value are errors at that token.
#[proc_macro]
pub fn json(input: TokenStream) -> TokenStream {
    finish(json::expand(input.into()))
}

fn finish(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}
