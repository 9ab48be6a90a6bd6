//! `#[ktstr_test]`: a function of `&Ctx` becomes a registered test.
//!
//! The function keeps its body under a hidden name; in its place stands a `#[test]`
//! wrapper for libtest and a static entry in the distributed slice `KTSTR_TESTS`,
//! through which the host finds the declaration and the guest the body.

use crate::names;
use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::parse::Parser;
use syn::punctuated::Punctuated;
use syn::spanned::Spanned;
use syn::{Error, Expr, ExprLit, ItemFn, Lit, Meta, Result, ReturnType, Token};

/// What an attribute's value must be.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// Whole number of at least this.
    Count(u64),
    /// Number, not negative.
    Number,
    /// `true`, `false`, or nothing for true.
    Flag,
    /// List of string literals.
    Strings,
    /// A string literal that is not empty.
    Text,
    /// Text known at compile time: a literal, a constant by its path, or a macro such as `json!`.
    Content,
    /// A constant by its path.
    Constant,
    /// A function by its path.
    Function,
    /// List of constants by their paths.
    Constants,
    /// A constant by its path, or a list of them.
    OneOrMore,
}

/// How an attribute enters the declaration.
#[derive(Clone, Copy, PartialEq)]
enum Into {
    /// Collected for the topology.
    Shape,
    /// A `Duration` field, from seconds.
    Seconds(&'static str),
    /// A field of the declaration.
    Field(&'static str),
    /// A field of the declaration that is an `Option`.
    Optional(&'static str),
    /// The scheduler, from which an undeclared shape is inherited.
    Scheduler,
    /// A check on the host: a function's path, wrapped.
    Hook(&'static str),
    /// A check with an `Option` field of the same name.
    Check,
    /// Collected for the gauntlet's bounds.
    Gauntlet,
}

const ATTRIBUTES: &[(&str, Kind, Into)] = &[
    ("topology", Kind::Constant, Into::Shape),
    ("numa_nodes", Kind::Count(1), Into::Shape),
    ("llcs", Kind::Count(1), Into::Shape),
    ("cores", Kind::Count(1), Into::Shape),
    ("threads", Kind::Count(1), Into::Shape),
    ("memory_mib", Kind::Count(1), Into::Field("memory_mib")),
    ("duration_s", Kind::Count(1), Into::Seconds("duration")),
    ("timeout_s", Kind::Count(1), Into::Seconds("timeout")),
    ("workers_per_cgroup", Kind::Count(1), Into::Field("workers_per_cgroup")),
    ("host_only", Kind::Flag, Into::Field("host_only")),
    ("expect_err", Kind::Flag, Into::Field("expect_err")),
    ("performance_mode", Kind::Flag, Into::Field("performance_mode")),
    ("no_perf_mode", Kind::Flag, Into::Field("no_perf_mode")),
    ("cpu_budget", Kind::Count(1), Into::Optional("cpu_budget")),
    ("kaslr", Kind::Flag, Into::Field("kaslr")),
    ("auto_repro", Kind::Flag, Into::Field("auto_repro")),
    ("expect_auto_repro", Kind::Flag, Into::Field("expect_auto_repro")),
    ("ignore", Kind::Flag, Into::Field("ignored")),
    ("kargs", Kind::Strings, Into::Field("kargs")),
    ("num_snapshots", Kind::Count(1), Into::Field("num_snapshots")),
    ("snapshot_paths", Kind::Strings, Into::Field("snapshot_paths")),
    ("post_vm", Kind::Function, Into::Hook("post_vm")),
    ("post_vm_unconditional", Kind::Function, Into::Hook("post_vm_unconditional")),
    ("scheduler", Kind::Constant, Into::Scheduler),
    ("extra_sched_args", Kind::Strings, Into::Field("extra_sched_args")),
    ("config", Kind::Content, Into::Optional("config")),
    ("watchdog_timeout_s", Kind::Count(1), Into::Optional("watchdog_timeout_s")),
    ("baseline", Kind::Flag, Into::Field("baseline")),
    ("staged_schedulers", Kind::Constants, Into::Field("staged_schedulers")),
    ("bpf_map_write", Kind::OneOrMore, Into::Field("bpf_map_write")),
    ("expect_scx_bpf_error_contains", Kind::Text, Into::Optional("scx_error_contains")),
    ("expect_scx_bpf_error_matches", Kind::Text, Into::Optional("scx_error_matches")),
    ("not_starved", Kind::Flag, Into::Check),
    ("isolation", Kind::Flag, Into::Check),
    ("fail_on_stall", Kind::Flag, Into::Check),
    ("max_gap_ms", Kind::Count(1), Into::Check),
    ("max_p99_wake_latency_ns", Kind::Count(1), Into::Check),
    ("max_local_dsq_depth", Kind::Count(1), Into::Check),
    ("sustained_samples", Kind::Count(1), Into::Check),
    ("max_spread_pct", Kind::Number, Into::Check),
    ("max_throughput_cv", Kind::Number, Into::Check),
    ("min_work_rate", Kind::Number, Into::Check),
    ("min_iteration_rate", Kind::Number, Into::Check),
    ("max_wake_latency_cv", Kind::Number, Into::Check),
    ("max_migration_ratio", Kind::Number, Into::Check),
    ("max_imbalance_ratio", Kind::Number, Into::Check),
    ("max_fallback_rate", Kind::Number, Into::Check),
    ("max_keep_last_rate", Kind::Number, Into::Check),
    ("max_bypass_rate", Kind::Number, Into::Check),
    ("max_dsq_depth", Kind::Count(1), Into::Check),
    ("max_rejected_tasks", Kind::Count(0), Into::Check),
    ("max_callback_ns", Kind::Count(1), Into::Check),
    ("min_page_locality", Kind::Number, Into::Check),
    ("max_cross_node_migration_ratio", Kind::Number, Into::Check),
    ("max_slow_tier_ratio", Kind::Number, Into::Check),
    ("min_llcs", Kind::Count(1), Into::Gauntlet),
    ("max_llcs", Kind::Count(1), Into::Gauntlet),
    ("min_cpus", Kind::Count(1), Into::Gauntlet),
    ("max_cpus", Kind::Count(1), Into::Gauntlet),
    ("min_numa_nodes", Kind::Count(1), Into::Gauntlet),
    ("max_numa_nodes", Kind::Count(1), Into::Gauntlet),
    ("requires_smt", Kind::Flag, Into::Gauntlet),
];

/// One attribute as written.
struct Given {
    name: String,
    span: Span,
    value: TokenStream,
    /// Of a count.
    number: u64,
    /// Of a flag.
    flag: bool,
    into: Into,
}

pub(crate) fn expand(attributes: TokenStream, function: &ItemFn) -> Result<TokenStream> {
    let given = parse(attributes)?;
    check_signature(function)?;
    check_combinations(&given)?;
    let shape = shape(&given)?;
    let gauntlet = gauntlet(&given)?;
    let fields = given.iter().filter_map(field);
    let checks = given.iter().filter(|g| g.into == Into::Check).map(|g| {
        let (name, value) = (Ident::new(&g.name, g.span), &g.value);
        quote!(#name: ::core::option::Option::Some(#value))
    });
    let config = config(&given);
    let changes = quote! {
        #config
        spec.gauntlet = #gauntlet;
        spec.checks = ::ktstr::assert::Assert { #(#checks,)* ..::ktstr::assert::Assert::NO_OVERRIDES };
        #(#fields)*
    };
    Ok(entry(function, &shape, &changes, is_ignored(&given, function)))
}

/// Where the scheduler's declaration has no place for a configuration, the test doesn't compile.
fn config(given: &[Given]) -> Option<TokenStream> {
    let (config, scheduler) = (find(given, "config")?, &find(given, "scheduler")?.value);
    Some(quote_spanned! {config.span=>
        ::core::assert!(
            #scheduler.takes_config(),
            "`config` needs a scheduler whose declaration says where it belongs: give it a `config_file_def`"
        );
    })
}

fn is_ignored(given: &[Given], function: &ItemFn) -> bool {
    given.iter().any(|g| g.name == "ignore" && g.flag) || function.sig.ident.to_string().starts_with("demo_")
}

fn entry(function: &ItemFn, shape: &TokenStream, changes: &TokenStream, ignored: bool) -> TokenStream {
    let name = &function.sig.ident;
    let text = name.to_string();
    let body_name = format_ident!("__ktstr_body_{name}");
    let entry = format_ident!("__KTSTR_ENTRY_{}", text.to_uppercase());
    let mut body = function.clone();
    body.sig.ident = body_name.clone();
    body.attrs
        .retain(|a| a.path().is_ident("allow") || a.path().is_ident("expect") || a.path().is_ident("doc"));
    let kept: Vec<_> =
        function.attrs.iter().filter(|a| a.path().is_ident("cfg") || a.path().is_ident("ignore")).collect();
    let ignore = ignored.then(|| quote!(#[ignore = "runs when asked for by name"]));
    let span = name.span();
    let test = quote_spanned!(span=>
        #(#kept)*
        #ignore
        #[test]
        fn #name() {
            ::ktstr::test_support::run_under_libtest(&#entry);
        }
    );
    quote! {
        #[doc(hidden)]
        #body

        #[doc(hidden)]
        #[::ktstr::linkme::distributed_slice(::ktstr::test_support::KTSTR_TESTS)]
        #[linkme(crate = ::ktstr::linkme)]
        static #entry: ::ktstr::test_support::KtstrTestEntry = ::ktstr::test_support::KtstrTestEntry {
            spec: {
                let mut spec = ::ktstr::test_support::TestSpec::new(#text, ::core::module_path!(), #shape);
                #changes
                spec
            },
            func: #body_name,
        };

        #test
    }
}

fn check_signature(function: &ItemFn) -> Result<()> {
    let sig = &function.sig;
    let wants = "expected `fn name(ctx: &Ctx) -> Result<AssertResult>`";
    if let Some(token) = &sig.asyncness {
        return Err(Error::new(
            token.span(),
            format!("{wants}: a test runs as PID 1, without an async runtime"),
        ));
    }
    if !sig.generics.params.is_empty() {
        return Err(Error::new(sig.generics.span(), format!("{wants}, without generic parameters")));
    }
    if sig.inputs.len() != 1 {
        return Err(Error::new(sig.ident.span(), format!("{wants}, got {} parameters", sig.inputs.len())));
    }
    if matches!(sig.output, ReturnType::Default) {
        return Err(Error::new(sig.ident.span(), format!("{wants}: a test returns its verdict")));
    }
    Ok(())
}

fn parse(attributes: TokenStream) -> Result<Vec<Given>> {
    let metas = Punctuated::<Meta, Token![,]>::parse_terminated.parse2(attributes)?;
    let mut given: Vec<Given> = Vec::new();
    for meta in metas {
        let one = parse_one(&meta)?;
        if given.iter().any(|g| g.name == one.name) {
            return Err(Error::new(one.span, format!("`{}` is given twice", one.name)));
        }
        given.push(one);
    }
    Ok(given)
}

fn parse_one(meta: &Meta) -> Result<Given> {
    let path = meta.path();
    let name = path.get_ident().map(ToString::to_string).unwrap_or_default();
    let Some((_, kind, into)) = ATTRIBUTES.iter().find(|(known, ..)| *known == name) else {
        return Err(Error::new(path.span(), unknown(&name)));
    };
    let mut one = Given { name, span: path.span(), value: quote!(true), number: 0, flag: true, into: *into };
    match meta {
        Meta::Path(_) if *kind == Kind::Flag => {}
        Meta::NameValue(pair) => set_value(&mut one, *kind, &pair.value)?,
        _ => {
            let text = format!("expected `{} = …`", one.name);
            return Err(Error::new(meta.span(), text));
        }
    }
    Ok(one)
}

fn set_value(one: &mut Given, kind: Kind, value: &Expr) -> Result<()> {
    // A literal that comes out of a user's own macro is wrapped in an invisible group.
    if let Expr::Group(group) = value {
        return set_value(one, kind, &group.expr);
    }
    let bad = |what: &str| Err(Error::new(value.span(), format!("`{}` takes {what}", one.name)));
    if quote!(#value).to_string().starts_with('-') {
        return bad("no negative number");
    }
    let literal = match value {
        Expr::Lit(ExprLit { lit, .. }) => Some(lit),
        _ => None,
    };
    one.value = quote!(#value);
    match (kind, literal) {
        (Kind::Count(least), Some(Lit::Int(int))) => {
            one.number = int.base10_parse()?;
            if one.number < least {
                return bad(&format!("a whole number of at least {least}"));
            }
            if int.suffix().is_empty() && one.number > u64::from(u32::MAX) && one.into != Into::Check {
                return bad("a whole number below 2^32");
            }
        }
        (Kind::Count(least), _) => {
            return bad(&format!(
                "a whole number of at least {least}, such as `{} = {}`",
                one.name,
                least.max(2)
            ));
        }
        (Kind::Number, Some(Lit::Float(_))) => {}
        (Kind::Number, Some(Lit::Int(int))) => {
            let float = syn::LitFloat::new(&format!("{}.0", int.base10_digits()), int.span());
            one.value = quote!(#float);
        }
        (Kind::Number, _) => return bad(&format!("a number, such as `{} = 10.0`", one.name)),
        (Kind::Flag, Some(Lit::Bool(flag))) => one.flag = flag.value,
        (Kind::Flag, _) => return bad("`true` or `false`; the bare name means `true`"),
        (Kind::Text, Some(Lit::Str(text))) if text.value().trim().chars().count() > 1 => {}
        (Kind::Text, _) => {
            return bad(
                "a string literal of two characters or more, not empty or blank: that would match anything",
            );
        }
        (Kind::Content, Some(Lit::Str(_))) => {}
        (Kind::Content, _) if matches!(value, Expr::Path(_) | Expr::Macro(_)) => {}
        (Kind::Content, _) => {
            return bad(
                "text: a string literal, a constant, or a macro such as `json!({…})` or `include_str!(\"…\")`",
            );
        }
        (Kind::Constants, _) => match value {
            Expr::Array(array) if array.elems.iter().all(|e| matches!(e, Expr::Path(_))) => {
                let paths = array.elems.iter();
                one.value = quote!(&[#(&#paths),*]);
            }
            _ => return bad("a list of constants, such as `[MY_SCHED, OTHER_SCHED]`"),
        },
        (Kind::OneOrMore, _) => match value {
            Expr::Path(path) => one.value = quote!(&[#path]),
            Expr::Array(array) if array.elems.iter().all(|e| matches!(e, Expr::Path(_))) => {
                one.value = quote!(&#array);
            }
            _ => return bad("a constant or a list of them, such as `ARM_IT` or `[ARM_IT, SLOW_IT]`"),
        },
        (Kind::Constant | Kind::Function, _) if matches!(value, Expr::Path(_)) => {}
        (Kind::Function, _) => return bad("the path of a function, such as `check_the_run`"),
        (Kind::Constant, _) => return bad("the path of a constant, such as `UNEVEN_MACHINE`"),
        (Kind::Strings, _) => match value {
            Expr::Array(array) if array.elems.iter().all(is_string) => one.value = quote!(&#array),
            _ => {
                return bad(&format!("a list of string literals, such as `{} = [\"a=1\", \"b\"]`", one.name));
            }
        },
    }
    Ok(())
}

fn is_string(value: &Expr) -> bool {
    matches!(value, Expr::Lit(ExprLit { lit: Lit::Str(_), .. }))
}

fn unknown(name: &str) -> String {
    let all: Vec<&str> = ATTRIBUTES.iter().map(|(known, ..)| *known).collect();
    names::unknown(name, "attribute of ktstr_test", &all)
}

fn number(given: &[Given], name: &str, default: u64) -> u64 {
    given.iter().find(|g| g.name == name).map_or(default, |g| g.number)
}

fn find<'a>(given: &'a [Given], name: &str) -> Option<&'a Given> {
    given.iter().find(|g| g.name == name)
}

fn shape(given: &[Given]) -> Result<TokenStream> {
    if let Some(topology) = find(given, "topology") {
        return match given.iter().find(|g| g.into == Into::Shape && g.name != "topology") {
            Some(other) => {
                let text =
                    format!("`{}` speaks of the machine that `topology` already declares whole", other.name);
                Err(Error::new(other.span, text))
            }
            None => Ok(topology.value.clone()),
        };
    }
    if let Some(scheduler) = find(given, "scheduler")
        && !SHAPE.iter().all(|name| find(given, name).is_some())
    {
        return Ok(inherited(given, &scheduler.value));
    }
    let get = |name, default| number(given, name, default);
    let (nodes, llcs, cores, threads) =
        (get("numa_nodes", 1), get("llcs", 1), get("cores", 2), get("threads", 1));
    let span =
        |names: [&str; 2]| names.iter().find_map(|n| find(given, n)).map_or_else(Span::call_site, |g| g.span);
    if llcs % nodes != 0 {
        let text =
            format!("`llcs = {llcs}` can't be split evenly over `numa_nodes = {nodes}`: use a multiple");
        return Err(Error::new(span(["llcs", "numa_nodes"]), text));
    }
    let cpus = llcs.saturating_mul(cores).saturating_mul(threads);
    if cpus > 4096 || threads > 8 {
        let text =
            format!("a machine of {cpus} CPUs with {threads} threads a core: expected at most 4096 and 8");
        return Err(Error::new(span(["threads", "cores"]), text));
    }
    let [nodes, llcs, cores, threads] = [nodes, llcs, cores, threads].map(|n| n as u32);
    Ok(quote!(::ktstr::topology::Topology::uniform(#nodes, #llcs, #cores, #threads)))
}

/// The numbers of a uniform machine, in the order of a scheduler's topology.
const SHAPE: [&str; 4] = ["numa_nodes", "llcs", "cores", "threads"];

/// What the test does not say of its machine, the scheduler does.
fn inherited(given: &[Given], scheduler: &TokenStream) -> TokenStream {
    let parts = SHAPE.iter().enumerate().map(|(i, name)| match find(given, name) {
        Some(one) => {
            let number = one.number as u32;
            quote!(#number)
        }
        None => {
            let index = syn::Index::from(i);
            quote!(#scheduler.topology.#index)
        }
    });
    quote!(::ktstr::topology::Topology::uniform(#(#parts),*))
}

fn gauntlet(given: &[Given]) -> Result<TokenStream> {
    let mut parts = Vec::new();
    for (field, (least, most)) in [("llcs", (1, 12)), ("cpus", (1, 192)), ("numa_nodes", (1, 1))] {
        let (min_name, max_name) = (format!("min_{field}"), format!("max_{field}"));
        let low = number(given, &min_name, least);
        // A higher minimum alone raises a default maximum with it.
        let high = number(given, &max_name, most.max(low));
        if low > high {
            let span =
                find(given, &min_name).or(find(given, &max_name)).map_or_else(Span::call_site, |g| g.span);
            return Err(Error::new(span, format!("`{min_name} = {low}` is above `{max_name} = {high}`")));
        }
        let (field, low, high) = (Ident::new(field, Span::call_site()), low as u32, high as u32);
        parts.push(quote!(#field: (#low, #high)));
    }
    let smt = find(given, "requires_smt").is_some_and(|g| g.flag);
    Ok(quote!(::ktstr::test_support::ShapeBounds { #(#parts,)* requires_smt: #smt }))
}

fn field(given: &Given) -> Option<TokenStream> {
    let value = &given.value;
    match given.into {
        Into::Field(name) => {
            let name = Ident::new(name, given.span);
            Some(quote!(spec.#name = #value;))
        }
        Into::Optional(name) => {
            let name = Ident::new(name, given.span);
            Some(quote!(spec.#name = ::core::option::Option::Some(#value);))
        }
        Into::Hook(name) => {
            let name = Ident::new(name, given.span);
            Some(quote! {
                spec.#name = ::core::option::Option::Some(
                    |result: &::ktstr::snapshot::VmResult<'_>| ::ktstr::test_support::host_check(|| #value(result))
                );
            })
        }
        Into::Scheduler => Some(quote!(spec.scheduler = &#value;)),
        Into::Seconds(name) => {
            let name = Ident::new(name, given.span);
            Some(quote!(spec.#name = ::core::time::Duration::from_secs(#value);))
        }
        _ => None,
    }
}

fn check_combinations(given: &[Given]) -> Result<()> {
    let on = |name: &str| find(given, name).filter(|g| g.flag);
    if let (Some(_), Some(repro)) = (on("host_only"), on("auto_repro")) {
        let text = "`auto_repro` needs a machine, but the test is `host_only`";
        return Err(Error::new(repro.span, text));
    }
    if let (Some(_), Some(scheduler)) = (on("host_only"), find(given, "scheduler")) {
        let text = "`scheduler` needs a machine, but the test is `host_only`";
        return Err(Error::new(scheduler.span, text));
    }
    if let (Some(one), Some(_)) = (on("expect_auto_repro"), on("expect_err")) {
        return Err(Error::new(one.span, "`expect_err` turns off the run that `expect_auto_repro` is about"));
    }
    for name in ["expect_scx_bpf_error_contains", "expect_scx_bpf_error_matches"] {
        if let (None, Some(expected)) = (on("expect_err"), find(given, name)) {
            let text = format!("`{name}` says how the test fails, so it needs `expect_err`");
            return Err(Error::new(expected.span, text));
        }
    }
    for name in [
        "expect_auto_repro",
        "extra_sched_args",
        "config",
        "watchdog_timeout_s",
        "baseline",
        "staged_schedulers",
        "bpf_map_write",
        "expect_scx_bpf_error_contains",
        "expect_scx_bpf_error_matches",
    ] {
        if let (None, Some(one)) = (find(given, "scheduler"), find(given, name)) {
            return Err(Error::new(one.span, format!("`{name}` needs `scheduler = …`")));
        }
    }
    for name in ["performance_mode", "no_perf_mode", "cpu_budget", "kaslr"] {
        if let (Some(_), Some(one)) = (on("host_only"), on(name)) {
            let text = format!("`{name}` is about a machine, but the test is `host_only`");
            return Err(Error::new(one.span, text));
        }
    }
    if let (Some(_), Some(one)) = (on("performance_mode"), on("no_perf_mode")) {
        let text = "`no_perf_mode` and `performance_mode` contradict each other: leave one out";
        return Err(Error::new(one.span, text));
    }
    if let (None, Some(budget)) = (on("no_perf_mode"), find(given, "cpu_budget")) {
        let text = "`cpu_budget` is how much of the host a test without performance mode gets, so it needs `no_perf_mode`";
        return Err(Error::new(budget.span, text));
    }
    for name in ["num_snapshots", "snapshot_paths", "post_vm", "post_vm_unconditional"] {
        if let (Some(_), Some(one)) = (on("host_only"), find(given, name)) {
            let text = format!("`{name}` needs a machine, but the test is `host_only`");
            return Err(Error::new(one.span, text));
        }
    }
    if let Some(timeout) = find(given, "watchdog_timeout_s").filter(|g| g.number > names::WATCHDOG_MOST_S) {
        return Err(Error::new(timeout.span, names::watchdog_timeout()));
    }
    if let Some(snapshots) = find(given, "num_snapshots") {
        // As far apart as the monitor's samples, over the inner 80 % of the workload.
        let apart = number(given, "duration_s", 2).saturating_mul(800) / snapshots.number.saturating_add(1);
        if snapshots.number > 64 || apart < 100 {
            let text = format!(
                "`num_snapshots = {}` would lie {apart} ms apart: expected at most 64, at least 100 ms apart; \
                 take fewer or a longer `duration_s`",
                snapshots.number
            );
            return Err(Error::new(snapshots.span, text));
        }
    }
    if let (Some(_), Some(shape)) = (on("host_only"), given.iter().find(|g| g.into == Into::Shape)) {
        let text = format!("`{}` declares a machine, but the test is `host_only`", shape.name);
        return Err(Error::new(shape.span, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
