//! `derive(Claim)`: one claim method a public field.

use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Data, DeriveInput, Error, Field, Fields, GenericArgument, LitStr, Path, PathArguments, Result, Type,
    Visibility, parse_quote,
};

/// The impl block of `#[derive(Claim)]`.
pub(crate) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let home = home(input)?;
    let fields = named_fields(input)?;
    let mut methods = Vec::new();
    for field in fields {
        let options = FieldOptions::of(field)?;
        let public = matches!(field.vis, Visibility::Public(_));
        if public && !options.skip {
            methods.push(method(field, &options, &home));
        }
    }
    if methods.is_empty() {
        return Err(Error::new(
            input.ident.span(),
            "derive(Claim) found no field to make a claim on: make one `pub` or drop the derive",
        ));
    }
    let name = &input.ident;
    let (generics, args, bounds) = input.generics.split_for_impl();
    Ok(quote! {
        #[automatically_derived]
        impl #generics #name #args #bounds {
            #(#methods)*
        }
    })
}

/// Where `Verdict` and `Claim` live.
fn home(input: &DeriveInput) -> Result<Path> {
    let mut home: Path = parse_quote!(::ktstr::assert);
    for attr in input.attrs.iter().filter(|a| a.path().is_ident("claim")) {
        attr.parse_nested_meta(|meta| {
            if meta.path.is_ident("crate") {
                let path: LitStr = meta.value()?.parse()?;
                home = path.parse_with(Path::parse_mod_style)?;
                Ok(())
            } else {
                Err(meta.error("unknown option of a struct: expected `crate = \"path\"`"))
            }
        })?;
    }
    Ok(home)
}

fn named_fields(input: &DeriveInput) -> Result<impl Iterator<Item = &Field>> {
    match &input.data {
        Data::Struct(data) => match &data.fields {
            Fields::Named(fields) => Ok(fields.named.iter()),
            other => Err(Error::new(
                if matches!(other, Fields::Unit) { input.ident.span() } else { other.span() },
                "derive(Claim) needs named fields: their names are the labels of the claims",
            )),
        },
        Data::Enum(data) => Err(Error::new(data.enum_token.span, "derive(Claim) works on structs only")),
        Data::Union(data) => Err(Error::new(data.union_token.span, "derive(Claim) works on structs only")),
    }
}

#[derive(Default)]
struct FieldOptions {
    skip: bool,
    zero_is_none: bool,
}

impl FieldOptions {
    fn of(field: &Field) -> Result<Self> {
        let mut options = Self::default();
        for attr in field.attrs.iter().filter(|a| a.path().is_ident("claim")) {
            attr.parse_nested_meta(|meta| {
                if meta.path.is_ident("skip") {
                    options.skip = true;
                } else if meta.path.is_ident("zero_is_none") {
                    options.zero_is_none = true;
                } else {
                    return Err(meta.error("unknown option of a field: expected `skip` or `zero_is_none`"));
                }
                Ok(())
            })?;
        }
        Ok(options)
    }
}

fn method(field: &Field, options: &FieldOptions, home: &Path) -> TokenStream {
    let Some(ident) = &field.ident else { return TokenStream::new() };
    let label = ident.unraw().to_string();
    let name = format_ident!("claim_{}", label, span = ident.span());
    let doc = format!("Opens a claim on `{label}`.");
    let (value_type, open) = match option_argument(&field.ty) {
        Some(inner) => (inner, quote!(__open_present)),
        None if options.zero_is_none => (&field.ty, quote!(__open_unless_zero)),
        None => (&field.ty, quote!(__open)),
    };
    // The field's own span, so that a type without `Clone` is reported there.
    let value = quote_spanned!(field.ty.span()=> ::core::clone::Clone::clone(&self.#ident));
    quote! {
        #[doc = #doc]
        pub fn #name<'verdict>(
            &self,
            verdict: &'verdict mut #home::Verdict,
        ) -> #home::Claim<'verdict, #value_type> {
            verdict.#open(#label, #value)
        }
    }
}

/// `T` of `Option<T>`, judged by the name as written.
fn option_argument(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|s| s.ident == "Option")?;
    match &last.arguments {
        PathArguments::AngleBracketed(args) => match args.args.first()? {
            GenericArgument::Type(inner) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str) -> Result<String> {
        let input: DeriveInput = syn::parse_str(text)?;
        expand(&input).map(|tokens| tokens.to_string())
    }

    /// The message and the column (0-based) that the error points at.
    fn error_at(text: &str) -> (String, usize) {
        let error = expanded(text).unwrap_err();
        (error.to_string(), error.span().start().column)
    }

    #[test]
    fn public_fields_get_a_method_and_others_do_not() {
        let text = expanded("struct S { pub a: u64, b: u64, pub(crate) c: u64, #[claim(skip)] pub d: u64 }")
            .unwrap();
        assert!(text.contains("claim_a"), "{text}");
        for absent in ["claim_b", "claim_c", "claim_d"] {
            assert!(!text.contains(absent), "{text}");
        }
    }

    #[test]
    fn the_default_home_is_the_facade() {
        let text = expanded("struct S { pub a: u64 }").unwrap();
        assert!(text.contains(":: ktstr :: assert :: Verdict"), "{text}");
        let text = expanded("#[claim(crate = \"crate\")] struct S { pub a: u64 }").unwrap();
        assert!(text.contains("crate :: Verdict") && !text.contains("ktstr"), "{text}");
    }

    #[test]
    fn an_optional_field_claims_what_is_inside() {
        let text = expanded("struct S { pub a: std::option::Option<f64> }").unwrap();
        assert!(text.contains("Claim < 'verdict , f64 >") && text.contains("__open_present"), "{text}");
    }

    #[test]
    fn a_raw_name_is_labelled_without_its_prefix() {
        let text = expanded("struct S { pub r#type: u64 }").unwrap();
        assert!(text.contains("claim_type") && text.contains("\"type\""), "{text}");
    }

    #[test]
    fn generics_are_carried_over() {
        let text = expanded("struct S<'a, T: Clone> where T: 'a { pub a: T, x: &'a T }").unwrap();
        assert!(text.contains("impl < 'a , T : Clone > S < 'a , T > where T : 'a"), "{text}");
    }

    #[test]
    fn errors_point_at_the_offending_tokens() {
        let (text, column) = error_at("enum E { A }");
        assert!(text.contains("structs only") && column == 0, "{text} at {column}");
        let (text, column) = error_at("struct S(pub u64);");
        assert!(text.contains("named fields") && column == 8, "{text} at {column}");
        let (text, column) = error_at("struct Plain { a: u64 }");
        assert!(text.contains("no field") && column == 7, "{text} at {column}");
        let (text, column) = error_at("struct S { #[claim(skpi)] pub a: u64 }");
        assert!(text.contains("`skip`") && column == 19, "{text} at {column}");
        let (text, column) = error_at("#[claim(krate = \"x\")] struct S { pub a: u64 }");
        assert!(text.contains("`crate = ") && column == 8, "{text} at {column}");
    }
}
