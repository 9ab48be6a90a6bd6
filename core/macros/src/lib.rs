//! The macros of ktstr: `ktstr_test`, `declare_scheduler!`, `derive(Claim)`, `json!`.
//!
//! Each macro has a module of its own that works on `proc_macro2` tokens, so that
//! its expansion and its errors are unit-tested without a compiler run.

mod claim;
mod declare_scheduler;
mod json;
mod ktstr_test;
mod names;

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

/// Registers a function as a test that runs inside a machine of its own.
///
/// The function is `fn name(ctx: &Ctx) -> Result<AssertResult>`. All attributes are
/// optional:
///
/// - the machine: `numa_nodes` = 1, `llcs` (of the whole machine) = 1, `cores` (per
///   LLC) = 2, `threads` (per core) = 1, or `topology = CONST` for nodes one by one;
///   `memory_mib` = 256, `kargs = ["…"]`;
/// - the scheduler: `scheduler = CONST` (see `declare_scheduler!`), whose machine is
///   inherited as far as the test declares none, `extra_sched_args = ["…"]`,
///   `config = json!({…})` (or a literal, a constant, `include_str!`: what the scheduler's configuration file holds,
///   see `config_file_def` of its declaration),
///   `watchdog_timeout_s` (1 to 30: how long the kernel lets a task wait before it drops the
///   scheduler; without it the declaration's, else the scheduler's own),
///   `baseline` to run under EEVDF first and compare (`ctx.baseline`),
///   `staged_schedulers = [CONST, …]` for ops that change the scheduler,
///   `bpf_map_write = CONST` (or a list) for variables that the host writes before the
///   scenario; with `expect_err`,
///   `expect_scx_bpf_error_contains` and `expect_scx_bpf_error_matches` (a regex) say what
///   the scheduler's own error must be;
/// - time: `duration_s` = 2, `timeout_s` (beyond the duration, guest time) = 30;
/// - load: `workers_per_cgroup` = 2;
/// - kind of test: `host_only`, `expect_err`, `ignore`,
///   `auto_repro` = true (a crash of the scheduler is run again with probes),
///   `expect_auto_repro` (a crash that comes again is a pass), `performance_mode` (the
///   machine has the host's CPUs to itself, as far as the host can; the report says what it
///   lacks, and with `KTSTR_REQUIRE_PERF_MODE=1` the test is skipped for it);
/// - checks, each replacing a default: `not_starved`, `isolation`, `max_gap_ms`,
///   `max_spread_pct`, `max_p99_wake_latency_ns` and the other fields of `Assert`;
/// - the gauntlet: `min_/max_llcs`, `min_/max_cpus`, `min_/max_numa_nodes`,
///   `requires_smt`.
///
/// Flags may be given bare. Tests whose name begins with `demo_` are ignored unless
/// asked for.
#[proc_macro_attribute]
pub fn ktstr_test(attributes: TokenStream, function: TokenStream) -> TokenStream {
    finish(syn::parse(function).and_then(|function| ktstr_test::expand(attributes.into(), &function)))
}

/// Declares a scheduler under test: a constant, registered for the verifier sweep.
///
/// `declare_scheduler!(NAME, { key = value, … })` with `name = "…"`, exactly one of
/// `binary = "…"` (found by name), `binary_path = "…"` and `kernel_builtin_enable = […]`
/// with `kernel_builtin_disable = […]`, and optionally:
///
/// - `ops = "…"`: how the kernel's name of it begins;
/// - `topology = (numa_nodes, llcs, cores, threads)`: the machine of tests that declare none;
/// - `sched_args`, `kargs`: lists of strings; `sysctls = [Sysctl::new("key", "value")]`;
/// - `config_file = "…"`, and `config_file_def = ("--config={file}", "/path/in/guest")`; with either, tests can have a
///   `config` of their own;
/// - `watchdog_timeout_s` = 1 to 30: how long the kernel lets a task wait, in tests that don't say;
/// - `cgroup_parent = "/…"`: tests' cgroups are made below it;
/// - `assert = …`: checks for all of its tests;
/// - `constraints`, `kernels = ["apt:6.12", "6.14"]` (in the words of `--kernel`), `verifier_exclude_topologies`,
///   `verifier = false`: where the verifier sweep takes it, or not at all.
#[proc_macro]
pub fn declare_scheduler(input: TokenStream) -> TokenStream {
    finish(declare_scheduler::expand(input.into()))
}

fn finish(expanded: syn::Result<proc_macro2::TokenStream>) -> TokenStream {
    expanded.unwrap_or_else(|error| error.to_compile_error()).into()
}
