//! `json!`: JSON written as Rust tokens, checked and compacted at compile time.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use std::collections::HashSet;
use std::fmt::Write;
use syn::parse::{ParseStream, Parser};
use syn::{Error, Ident, Lit, LitStr, Result, Token, braced, bracketed, token};

/// The string literal that `json!(input)` stands for.
pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let text = text(input)?;
    Ok(quote!(#text))
}

fn text(input: TokenStream) -> Result<String> {
    if input.is_empty() {
        return Err(Error::new(Span::call_site(), "json! needs a value, such as json!({ \"key\": 1 })"));
    }
    let parse = |input: ParseStream<'_>| {
        let mut out = String::new();
        value(input, &mut out)?;
        if input.is_empty() { Ok(out) } else { Err(input.error("expected the end after one JSON value")) }
    };
    parse.parse2(input)
}

fn value(input: ParseStream<'_>, out: &mut String) -> Result<()> {
    if input.peek(token::Brace) {
        object(input, out)
    } else if input.peek(token::Bracket) {
        array(input, out)
    } else if input.peek(Token![-]) {
        input.parse::<Token![-]>()?;
        out.push('-');
        match input.parse::<Lit>()? {
            lit @ (Lit::Int(_) | Lit::Float(_)) => literal(&lit, out),
            other => Err(Error::new(other.span(), "expected a number after `-`")),
        }
    } else if input.peek(syn::Lit) {
        literal(&input.parse()?, out)
    } else if input.peek(Ident) {
        let word: Ident = input.parse()?;
        if word != "null" {
            return Err(Error::new(
                word.span(),
                "expected a JSON value: `null`, `true`, `false`, a number, \"text\", [..] or {..}; \
                 json! can't take values of variables, they don't exist at compile time",
            ));
        }
        out.push_str("null");
        Ok(())
    } else {
        Err(input.error("expected a JSON value: `null`, `true`, `false`, a number, \"text\", [..] or {..}"))
    }
}

fn object(input: ParseStream<'_>, out: &mut String) -> Result<()> {
    let inside;
    braced!(inside in input);
    let mut seen = HashSet::new();
    out.push('{');
    while !inside.is_empty() {
        let key: LitStr =
            inside.parse().map_err(|e| Error::new(e.span(), "expected a key in double quotes"))?;
        if !seen.insert(key.value()) {
            return Err(Error::new(key.span(), format!("key {:?} is given twice", key.value())));
        }
        if seen.len() > 1 {
            out.push(',');
        }
        string(&key.value(), out);
        inside.parse::<Token![:]>()?;
        out.push(':');
        value(&inside, out)?;
        comma(&inside, "}")?;
    }
    out.push('}');
    Ok(())
}

fn array(input: ParseStream<'_>, out: &mut String) -> Result<()> {
    let inside;
    bracketed!(inside in input);
    out.push('[');
    let mut first = true;
    while !inside.is_empty() {
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        value(&inside, out)?;
        comma(&inside, "]")?;
    }
    out.push(']');
    Ok(())
}

/// A comma, or the end of what is inside the brackets.
fn comma(inside: ParseStream<'_>, end: &str) -> Result<()> {
    if inside.is_empty() {
        return Ok(());
    }
    inside
        .parse::<Token![,]>()
        .map(drop)
        .map_err(|e| Error::new(e.span(), format!("expected `,` or `{end}`")))
}

fn literal(lit: &Lit, out: &mut String) -> Result<()> {
    let fail = |why: &str| Err(Error::new(lit.span(), why));
    match lit {
        Lit::Str(text) => string(&text.value(), out),
        Lit::Bool(yes) => out.push_str(if yes.value { "true" } else { "false" }),
        Lit::Int(n) if !n.suffix().is_empty() => return fail("JSON numbers have no type: drop the suffix"),
        Lit::Int(n) => out.push_str(n.base10_digits()),
        Lit::Float(n) if !n.suffix().is_empty() => return fail("JSON numbers have no type: drop the suffix"),
        Lit::Float(n) if n.base10_digits().ends_with('.') => {
            return fail("JSON needs a digit after the point: write it as `1.0`");
        }
        Lit::Float(n) => out.push_str(n.base10_digits()),
        _ => return fail("expected a JSON value: a number or \"text\""),
    }
    Ok(())
}

/// A JSON string (RFC 8259, section 7).
fn string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(source: &str) -> Result<String> {
        text(source.parse().map_err(|e| Error::new(Span::call_site(), format!("{e}")))?)
    }

    fn error_at(source: &str) -> (String, usize) {
        let error = json(source).unwrap_err();
        (error.to_string(), error.span().start().column)
    }

    #[test]
    fn values_nest() {
        let source = r#"{ "a": [1, -2, 3.5e2, -0.25, 0x10, 1_000,], "b": { "c": null }, "d": [true, false], "e": {} , }"#;
        assert_eq!(
            json(source).unwrap(),
            r#"{"a":[1,-2,3.5e2,-0.25,16,1000],"b":{"c":null},"d":[true,false],"e":{}}"#
        );
    }

    #[test]
    fn a_value_need_not_be_an_object() {
        assert_eq!(json("[]").unwrap(), "[]");
        assert_eq!(json("-7").unwrap(), "-7");
        assert_eq!(json("\"x\"").unwrap(), "\"x\"");
    }

    #[test]
    fn raw_strings_and_control_characters_are_escaped() {
        assert_eq!(json(r##"r#"say "hi" \ "#"##).unwrap(), r#""say \"hi\" \\ ""#);
        assert_eq!(json(r#""a\n\t\u{1}é""#).unwrap(), "\"a\\n\\t\\u0001é\"");
    }

    #[test]
    fn errors_point_at_the_offending_tokens() {
        for (source, what, column) in [
            ("{ \"a\": nope }", "expected a JSON value", 7),
            ("{ a: 1 }", "key in double quotes", 2),
            ("{ \"a\": 1, \"a\": 2 }", "given twice", 10),
            ("[1 2]", "expected `,` or `]`", 3),
            ("[1,,2]", "expected a JSON value", 3),
            ("[1u32]", "drop the suffix", 1),
            ("[-\"a\"]", "number after `-`", 2),
            ("[1.]", "after the point", 1),
            ("['c']", "number or \"text\"", 1),
            ("1 2", "expected the end", 2),
            ("{ \"a\" 1 }", "expected `:`", 6),
        ] {
            let (text, at) = error_at(source);
            assert!(text.contains(what) && at == column, "{source}: {text} at {at}");
        }
        assert!(json("").unwrap_err().to_string().contains("needs a value"));
    }

    proptest! {
        #[test]
        fn any_string_survives_the_round_trip(s in any::<String>()) {
            let mut out = String::new();
            string(&s, &mut out);
            prop_assert_eq!(serde_json::from_str::<String>(&out).unwrap(), s);
        }
    }
}
