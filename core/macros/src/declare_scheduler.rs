//! `declare_scheduler!`: a constant of type `Scheduler`, registered in `KTSTR_SCHEDULERS`.

use crate::names::{WATCHDOG_MOST_S, unknown, watchdog_timeout};
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote};
use syn::parse::{Parse, ParseStream};
use syn::{Error, Expr, ExprLit, Lit, Result, Token, braced};

/// What a key's value must be.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A string literal.
    Text,
    /// A list of string literals.
    Texts,
    /// `(nodes, llcs, cores, threads)`.
    Shape,
    /// `("--config={file}", "/path")`.
    Pair,
    /// A list of expressions.
    List,
    /// `true` or `false`.
    Flag,
    /// Seconds that the kernel's watchdog takes.
    Timeout,
    /// An expression.
    Value,
}

const KEYS: &[(&str, Kind)] = &[
    ("name", Kind::Text),
    ("binary", Kind::Text),
    ("binary_path", Kind::Text),
    ("kernel_builtin_enable", Kind::Texts),
    ("kernel_builtin_disable", Kind::Texts),
    ("ops", Kind::Text),
    ("topology", Kind::Shape),
    ("sched_args", Kind::Texts),
    ("kargs", Kind::Texts),
    ("sysctls", Kind::List),
    ("watchdog_timeout_s", Kind::Timeout),
    ("constraints", Kind::Value),
    ("cgroup_parent", Kind::Text),
    ("config_file", Kind::Text),
    ("config_file_def", Kind::Pair),
    ("assert", Kind::Value),
    ("kernels", Kind::Texts),
    ("verifier_exclude_topologies", Kind::Texts),
    ("verifier", Kind::Flag),
];

struct Given {
    key: Ident,
    value: Expr,
}

struct Declaration {
    name: Ident,
    given: Vec<Given>,
}

impl Parse for Declaration {
    fn parse(input: ParseStream<'_>) -> Result<Self> {
        let name = input.parse()?;
        input.parse::<Token![,]>()?;
        let body;
        braced!(body in input);
        input.parse::<Option<Token![,]>>()?;
        if !input.is_empty() {
            return Err(input.error("expected `declare_scheduler!(NAME, { key = value, … })`"));
        }
        let mut given: Vec<Given> = Vec::new();
        while !body.is_empty() {
            let key: Ident = body.parse()?;
            if given.iter().any(|g| g.key == key) {
                return Err(Error::new(key.span(), format!("`{key}` is given twice")));
            }
            body.parse::<Token![=]>()?;
            given.push(Given { key, value: body.parse()? });
            if !body.is_empty() {
                body.parse::<Token![,]>()?;
            }
        }
        Ok(Self { name, given })
    }
}

pub(crate) fn expand(input: TokenStream) -> Result<TokenStream> {
    let Declaration { name: constant, given } = syn::parse2(input)?;
    for one in &given {
        check(one)?;
    }
    let name = text(&given, "name")
        .ok_or_else(|| Error::new(constant.span(), "a scheduler needs a `name = \"…\"`"))?;
    let spec = spec(&given, constant.span())?;
    let fields = given.iter().filter_map(field);
    let entry = format_ident!("__KTSTR_SCHEDULER_{}", constant);
    Ok(quote! {
        #[doc = "A scheduler under test."]
        pub const #constant: ::ktstr::scheduler::Scheduler = ::ktstr::scheduler::Scheduler {
            #(#fields,)*
            declared_in: ::core::env!("CARGO_MANIFEST_DIR"),
            ..::ktstr::scheduler::Scheduler::new(#name, #spec)
        };

        #[doc(hidden)]
        #[::ktstr::linkme::distributed_slice(::ktstr::test_support::KTSTR_SCHEDULERS)]
        #[linkme(crate = ::ktstr::linkme)]
        static #entry: ::ktstr::scheduler::Scheduler = #constant;
    })
}

fn find<'a>(given: &'a [Given], key: &str) -> Option<&'a Given> {
    given.iter().find(|g| g.key == key)
}

fn text<'a>(given: &'a [Given], key: &str) -> Option<&'a Expr> {
    find(given, key).map(|g| &g.value)
}

/// Exactly one source of the program.
fn spec(given: &[Given], span: Span) -> Result<TokenStream> {
    let sources: Vec<&Given> = ["binary", "binary_path", "kernel_builtin_enable"]
        .iter()
        .filter_map(|key| find(given, key))
        .collect();
    let disable = find(given, "kernel_builtin_disable");
    let one = match sources[..] {
        [one] => one,
        [] => {
            let text =
                "expected one of `binary = \"…\"`, `binary_path = \"…\"`, `kernel_builtin_enable = […]`";
            return Err(Error::new(span, text));
        }
        [first, second, ..] => {
            let text = format!("`{}` beside `{}`: a scheduler has one source", second.key, first.key);
            return Err(Error::new(second.key.span(), text));
        }
    };
    let value = &one.value;
    match (one.key.to_string().as_str(), disable) {
        ("kernel_builtin_enable", Some(off)) => {
            let off = &off.value;
            Ok(quote!(::ktstr::scheduler::SchedulerSpec::KernelBuiltin { enable: &#value, disable: &#off }))
        }
        ("kernel_builtin_enable", None) => {
            let text = "`kernel_builtin_enable` needs `kernel_builtin_disable`: the test switches off what it switched on";
            Err(Error::new(one.key.span(), text))
        }
        (_, Some(off)) => {
            Err(Error::new(off.key.span(), "`kernel_builtin_disable` without `kernel_builtin_enable`"))
        }
        ("binary_path", None) => Ok(quote!(::ktstr::scheduler::SchedulerSpec::Path(#value))),
        _ => Ok(quote!(::ktstr::scheduler::SchedulerSpec::Discover(#value))),
    }
}

/// A key that is a field of its own.
fn field(given: &Given) -> Option<TokenStream> {
    let Given { key, value } = given;
    let kind = KEYS.iter().find(|(known, _)| key == known)?.1;
    match key.to_string().as_str() {
        "name" | "binary" | "binary_path" | "kernel_builtin_enable" | "kernel_builtin_disable" => None,
        _ => Some(match kind {
            Kind::Texts | Kind::List => quote!(#key: &#value),
            Kind::Text | Kind::Pair | Kind::Timeout => quote!(#key: ::core::option::Option::Some(#value)),
            Kind::Shape | Kind::Flag | Kind::Value => quote!(#key: #value),
        }),
    }
}

fn check(given: &Given) -> Result<()> {
    let Given { key, value } = given;
    let Some((_, kind)) = KEYS.iter().find(|(known, _)| key == known) else {
        let known: Vec<&str> = KEYS.iter().map(|(known, _)| *known).collect();
        return Err(Error::new(key.span(), unknown(&key.to_string(), "key of declare_scheduler", &known)));
    };
    let bad = |what: &str| Err(Error::new_spanned(value, format!("`{key}` takes {what}")));
    match kind {
        Kind::Text if string(value).is_none() => bad("a string literal"),
        Kind::Text if string(value).is_some_and(|text| text.is_empty()) => bad("a string that is not empty"),
        Kind::Texts => match value {
            Expr::Array(array) if array.elems.iter().all(|e| string(e).is_some()) => Ok(()),
            _ => bad("a list of string literals, such as [\"--verbose\"]"),
        },
        Kind::Flag if !matches!(value, Expr::Lit(ExprLit { lit: Lit::Bool(_), .. })) => {
            bad("`true` or `false`")
        }
        Kind::Timeout if !seconds(value).is_some_and(|seconds| (1..=WATCHDOG_MOST_S).contains(&seconds)) => {
            Err(Error::new_spanned(value, watchdog_timeout()))
        }
        Kind::List if !matches!(value, Expr::Array(_)) => {
            bad("a list, such as [Sysctl::new(\"kernel.x\", \"1\")]")
        }
        Kind::Pair => match value {
            Expr::Tuple(pair) if pair.elems.len() == 2 && pair.elems.iter().all(|e| string(e).is_some()) => {
                Ok(())
            }
            _ => bad("a pair of string literals, such as (\"--config={file}\", \"/etc/my.json\")"),
        },
        Kind::Shape => match shape(value) {
            Some([nodes, llcs, cores, threads]) if [nodes, llcs, cores, threads].iter().all(|n| *n > 0) => {
                if llcs % nodes == 0 {
                    Ok(())
                } else {
                    bad("LLCs that can be split evenly over the NUMA nodes")
                }
            }
            _ => bad(
                "four whole numbers of at least 1: (NUMA nodes, LLCs, cores of an LLC, threads of a core)",
            ),
        },
        _ => Ok(()),
    }
}

fn string(value: &Expr) -> Option<String> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Some(text.value()),
        _ => None,
    }
}

fn seconds(value: &Expr) -> Option<u64> {
    match value {
        Expr::Lit(ExprLit { lit: Lit::Int(int), .. }) => int.base10_parse().ok(),
        _ => None,
    }
}

fn shape(value: &Expr) -> Option<[u32; 4]> {
    let Expr::Tuple(tuple) = value else { return None };
    let numbers: Vec<u32> = tuple
        .elems
        .iter()
        .map(|e| match e {
            Expr::Lit(ExprLit { lit: Lit::Int(int), .. }) => int.base10_parse().ok(),
            _ => None,
        })
        .collect::<Option<_>>()?;
    numbers.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(input: TokenStream) -> String {
        expand(input).unwrap_err().to_string()
    }

    #[test]
    fn keys_reach_the_constant() {
        let code = expand(quote!(MY, {
            name = "my_sched",
            binary = "scx_my",
            topology = (1, 2, 4, 1),
            sched_args = ["-v"],
            config_file = "a.json",
            verifier = false,
            watchdog_timeout_s = 8,
        }))
        .unwrap()
        .to_string();
        assert!(code.contains("SchedulerSpec :: Discover (\"scx_my\")"), "{code}");
        assert!(code.contains("topology : (1 , 2 , 4 , 1)"), "{code}");
        assert!(code.contains("sched_args : & [\"-v\"]"), "{code}");
        assert!(code.contains("config_file : :: core :: option :: Option :: Some (\"a.json\")"), "{code}");
        assert!(code.contains("verifier : false"), "{code}");
        assert!(code.contains("watchdog_timeout_s : :: core :: option :: Option :: Some (8)"), "{code}");
        assert!(code.contains("CARGO_MANIFEST_DIR"), "{code}");
    }

    #[test]
    fn mistakes_are_named() {
        assert!(error(quote!(A, { name = "a" })).contains("expected one of `binary"));
        assert!(error(quote!(A, { binary = "a" })).contains("needs a `name"));
        assert!(error(quote!(A, { name = "a", binary = "a", binary_path = "b" })).contains("one source"));
        assert!(error(quote!(A, { name = "a", nam = "a" })).contains("did you mean `name`?"));
        assert!(error(quote!(A, { name = "a", name = "b" })).contains("given twice"));
        assert!(error(quote!(A, { name = 3, binary = "a" })).contains("string literal"));
        assert!(
            error(quote!(A, { name = "a", binary = "a", topology = (1, 2) })).contains("four whole numbers")
        );
        assert!(
            error(quote!(A, { name = "a", binary = "a", topology = (2, 3, 1, 1) })).contains("split evenly")
        );
        assert!(error(quote!(A, { name = "a", binary = "a", sched_args = "-v" })).contains("list of string"));
        assert!(
            error(quote!(A, { name = "a", kernel_builtin_enable = ["x"] }))
                .contains("needs `kernel_builtin_dis")
        );
        assert!(
            error(quote!(A, { name = "a", binary = "b", kernel_builtin_disable = ["x"] }))
                .contains("without")
        );
        assert!(error(quote!(A, { name = "a", binary = "b", config_file_def = "x" })).contains("pair"));
        assert!(error(quote!(A, { name = "a", binary = "b", verifier = 0 })).contains("`true` or `false`"));
        for bad in [quote!(0), quote!(31), quote!("8"), quote!(-1), quote!(2.5)] {
            assert!(
                error(quote!(A, { name = "a", binary = "b", watchdog_timeout_s = #bad }))
                    .contains("whole seconds from 1 to 30")
            );
        }
    }
}
