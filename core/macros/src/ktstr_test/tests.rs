//! What an attribute becomes, and what is wrong with it.

use super::*;
use syn::parse_quote;

fn error(attributes: TokenStream) -> String {
    let function = parse_quote!(
        fn t(ctx: &Ctx) -> Result<AssertResult> {
            todo()
        }
    );
    expand(attributes, &function).unwrap_err().to_string()
}

fn expanded(attributes: TokenStream) -> String {
    let function = parse_quote!(
        fn t(ctx: &Ctx) -> Result<AssertResult> {
            go(ctx)
        }
    );
    expand(attributes, &function).unwrap().to_string()
}

#[test]
fn attributes_reach_the_declaration() {
    let code =
        expanded(quote!(llcs = 2, cores = 4, threads = 1, duration_s = 3, max_spread_pct = 20, isolation));
    assert!(code.contains("uniform (1u32 , 2u32 , 4u32 , 1u32)"), "{code}");
    assert!(code.contains("spec . duration = :: core :: time :: Duration :: from_secs (3)"), "{code}");
    assert!(code.contains("max_spread_pct : :: core :: option :: Option :: Some (20.0)"), "{code}");
    assert!(code.contains("isolation : :: core :: option :: Option :: Some (true)"), "{code}");
}

#[test]
fn how_much_of_the_host_it_gets_reaches_the_declaration() {
    let code = expanded(quote!(no_perf_mode, cpu_budget = 3, kaslr));
    for part in
        ["no_perf_mode = true", "cpu_budget = :: core :: option :: Option :: Some (3)", "kaslr = true"]
    {
        assert!(code.contains(&format!("spec . {part}")), "{part}: {code}");
    }
    // Off, they contradict nothing.
    expanded(quote!(performance_mode, no_perf_mode = false));
    expanded(quote!(performance_mode = false, no_perf_mode));
}

#[test]
fn a_scheduler_lends_its_machine() {
    let code = expanded(quote!(scheduler = my::S, cores = 4));
    assert!(
        code.contains(
            "uniform (my :: S . topology . 0 , my :: S . topology . 1 , 4u32 , my :: S . topology . 3)"
        ),
        "{code}"
    );
    assert!(code.contains("spec . scheduler = & my :: S"), "{code}");
    for (given, one) in [(quote!(my::W), "& [my :: W]"), (quote!([W, my::V]), "& [W , my :: V]")] {
        let code = expanded(quote!(scheduler = S, bpf_map_write = #given));
        assert!(code.contains(&format!("spec . bpf_map_write = {one}")), "{code}");
    }
    let whole = expanded(quote!(scheduler = S, numa_nodes = 1, llcs = 1, cores = 4, threads = 1));
    assert!(whole.contains("uniform (1u32 , 1u32 , 4u32 , 1u32)"), "{whole}");
}

#[test]
fn a_configuration_is_any_text_known_at_compile_time() {
    for (given, one) in [
        (quote!("a=1"), "\"a=1\""),
        (quote!(my::CONFIG), "my :: CONFIG"),
        (quote!(json!({"a": 1})), "json ! ({ \"a\" : 1 })"),
    ] {
        let code = expanded(quote!(scheduler = S, config = #given));
        assert!(
            code.contains(&format!("spec . config = :: core :: option :: Option :: Some ({one})")),
            "{code}"
        );
        assert!(code.contains("S . takes_config ()"), "{code}");
    }
    assert!(error(quote!(scheduler = S, config = 3)).contains("takes text"));
    assert!(error(quote!(config = "a=1")).contains("needs `scheduler = …`"));
}

#[test]
fn mistakes_are_named() {
    assert!(error(quote!(llc = 2)).contains("did you mean `llcs`?"));
    assert!(error(quote!(llcs = 2, llcs = 3)).contains("given twice"));
    assert!(error(quote!(llcs = "2")).contains("whole number"));
    assert!(error(quote!(llcs = 0)).contains("at least 1"));
    assert!(error(quote!(scheduler = S, watchdog_timeout_s = 0)).contains("at least 1"));
    assert!(error(quote!(scheduler = S, watchdog_timeout_s = 31)).contains("whole seconds from 1 to 30"));
    assert!(error(quote!(watchdog_timeout_s = 4)).contains("needs `scheduler = …`"));
    assert!(error(quote!(cores = -1)).contains("no negative number"));
    assert!(error(quote!(llcs)).contains("expected `llcs = …`"));
    assert!(error(quote!(isolation = 1)).contains("`true` or `false`"));
    assert!(error(quote!(llcs = 3, numa_nodes = 2)).contains("can't be split evenly"));
    assert!(error(quote!(min_cpus = 8, max_cpus = 4)).contains("is above"));
    assert!(error(quote!(host_only, llcs = 2)).contains("host_only"));
    assert!(error(quote!(kargs = "x")).contains("list of string literals"));
    assert!(error(quote!(scheduler = "x")).contains("path of a constant"));
    assert!(error(quote!(host_only, scheduler = S)).contains("needs a machine"));
    assert!(
        error(quote!(scheduler = S, expect_scx_bpf_error_contains = "xy")).contains("needs `expect_err`")
    );
    assert!(
        error(quote!(scheduler = S, expect_err, expect_scx_bpf_error_matches = "")).contains("not empty")
            && error(quote!(scheduler = S, expect_err, expect_scx_bpf_error_contains = " "))
                .contains("match anything")
    );
    assert!(error(quote!(extra_sched_args = ["x"])).contains("needs `scheduler"));
    assert!(error(quote!(scheduler = S, staged_schedulers = [1])).contains("list of constants"));
    assert!(error(quote!(scheduler = S, bpf_map_write = 3)).contains("a constant or a list of them"));
    assert!(error(quote!(bpf_map_write = W)).contains("needs `scheduler"));
    assert!(error(quote!(topology = 3)).contains("path of a constant"));
    assert!(error(quote!(post_vm = "f")).contains("path of a function"));
    assert!(error(quote!(num_snapshots = 65, duration_s = 60)).contains("at most 64"));
    assert!(error(quote!(num_snapshots = 16)).contains("94 ms apart"));
    assert!(error(quote!(host_only, num_snapshots = 2)).contains("needs a machine"));
    assert!(error(quote!(host_only, performance_mode)).contains("is about a machine"));
    assert!(error(quote!(host_only, no_perf_mode)).contains("is about a machine"));
    assert!(error(quote!(host_only, kaslr)).contains("is about a machine"));
    assert!(error(quote!(performance_mode, no_perf_mode)).contains("contradict each other"));
    assert!(error(quote!(cpu_budget = 2)).contains("needs `no_perf_mode`"));
    assert!(error(quote!(no_perf_mode = false, cpu_budget = 2)).contains("needs `no_perf_mode`"));
    assert!(error(quote!(no_perf_mode, cpu_budget = 0)).contains("at least 1"));
    assert!(error(quote!(topology = M, llcs = 2)).contains("already declares whole"));
}

#[test]
fn the_signature_is_checked() {
    let bad = |function: ItemFn| expand(TokenStream::new(), &function).unwrap_err().to_string();
    assert!(
        bad(parse_quote!(
            fn t() -> Result<AssertResult> {}
        ))
        .contains("got 0 parameters")
    );
    assert!(
        bad(parse_quote!(
            fn t(ctx: &Ctx) {}
        ))
        .contains("returns its verdict")
    );
    assert!(
        bad(parse_quote!(
            async fn t(ctx: &Ctx) -> R {}
        ))
        .contains("async")
    );
    assert!(
        bad(parse_quote!(
            fn t<T>(ctx: &Ctx) -> R {}
        ))
        .contains("generic")
    );
}

#[test]
fn demo_tests_are_ignored() {
    let function = parse_quote!(
        fn demo_x(ctx: &Ctx) -> Result<AssertResult> {
            go(ctx)
        }
    );
    assert!(expand(TokenStream::new(), &function).unwrap().to_string().contains("# [ignore ="));
    assert!(!expanded(TokenStream::new()).contains("ignore"));
}
