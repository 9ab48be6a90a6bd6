//! Comparing what a fragment wants with what a `.config` ended up with.

use crate::parse::{Fragment, ParseError, Value};

/// An option that the user's fragment sets differently from the baked one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    /// The option without `CONFIG_`.
    pub option: String,
    /// What the baked fragment says.
    pub baked: Value,
    /// What the user says, and gets.
    pub extra: Value,
}

/// An option that did not stick: kconfig changed or dropped it because a
/// dependency is missing or the kernel has no such option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The option without `CONFIG_`.
    pub option: String,
    /// What the fragment asked for.
    pub wanted: Value,
    /// What the `.config` holds.
    pub seen: Value,
}

/// An option without which tests can't run or checks can't see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Required {
    /// The option without `CONFIG_`; it must be `y`.
    pub option: &'static str,
    /// The only architecture it exists on (Rust's name), if not all.
    pub only_on: Option<&'static str>,
    /// One sentence: what to do when it is off.
    pub remedy: &'static str,
}

/// Options that the user's fragment changes, in the order of their names, for
/// a warning each.
///
/// # Errors
/// Bad lines in either text.
pub fn overrides(baked: &str, extra: &str) -> Result<Vec<Override>, ParseError> {
    let (baked, extra) = (Fragment::parse(baked)?, Fragment::parse(extra)?);
    let (baked, extra) = (baked.effective(), extra.effective());
    Ok(extra
        .into_iter()
        .filter_map(|(option, user)| {
            let ours = *baked.get(option)?;
            (ours != user).then(|| Override {
                option: option.to_owned(),
                baked: ours.clone(),
                extra: user.clone(),
            })
        })
        .collect())
}

/// Options of `fragment` whose value in `dot_config` is another one, in the
/// order of their names. `=n`, `is not set` and absence are the same.
///
/// # Errors
/// Bad lines in either text.
pub fn missing_options(fragment: &str, dot_config: &str) -> Result<Vec<Missing>, ParseError> {
    let (fragment, config) = (Fragment::parse(fragment)?, Fragment::parse(dot_config)?);
    let config = config.effective();
    Ok(fragment
        .effective()
        .into_iter()
        .filter_map(|(option, wanted)| {
            let seen = config.get(option).map_or(Value::No, |v| (*v).clone());
            (seen != *wanted).then(|| Missing { option: option.to_owned(), wanted: wanted.clone(), seen })
        })
        .collect())
}

/// Is `CONFIG_{option}` built in (`=y`)? Lines that can't be read are passed
/// over: this answers a question about one option of someone else's kernel.
#[must_use]
pub fn is_enabled(dot_config: &str, option: &str) -> bool {
    let mut enabled = false;
    for line in dot_config.lines() {
        let set = line.strip_prefix("CONFIG_").and_then(|rest| rest.split_once('='));
        let unset = line.strip_prefix("# CONFIG_").and_then(|rest| rest.strip_suffix(" is not set"));
        match (set, unset) {
            (Some((name, value)), _) if name == option => enabled = value == "y",
            (_, Some(name)) if name == option => enabled = false,
            _ => {}
        }
    }
    enabled
}

/// What every kernel built for tests must have, with one remedy each.
#[must_use]
pub fn required_options() -> &'static [Required] {
    REQUIRED
}

/// The required options of `arch` (Rust's name, `x86_64`, `aarch64`) that
/// `dot_config` doesn't have built in.
#[must_use]
pub fn unmet_requirements(dot_config: &str, arch: &str) -> Vec<&'static Required> {
    required_options()
        .iter()
        .filter(|r| r.only_on.is_none_or(|only| only == arch))
        .filter(|r| !is_enabled(dot_config, r.option))
        .collect()
}

const fn required(option: &'static str, remedy: &'static str) -> Required {
    Required { option, only_on: None, remedy }
}

const REQUIRED: &[Required] = &[
    required(
        "SCHED_CLASS_EXT",
        "use Linux 6.12 or newer, and install pahole (package dwarves), which it depends on through BTF",
    ),
    required(
        "DEBUG_INFO_BTF",
        "install pahole (package dwarves) 1.22 or newer and keep CONFIG_DEBUG_INFO_DWARF5 or another DWARF option on",
    ),
    required(
        "BPF_SYSCALL",
        "remove the line that turns CONFIG_BPF_SYSCALL off: BPF schedulers load through it",
    ),
    required("FTRACE", "turn CONFIG_FTRACE on (it needs CONFIG_TRACING_SUPPORT): probes hang on it"),
    required(
        "KPROBE_EVENTS",
        "turn CONFIG_KPROBES and CONFIG_KPROBE_EVENTS on: failure traces attach to kernel functions",
    ),
    required(
        "BPF_EVENTS",
        "turn CONFIG_PERF_EVENTS, CONFIG_KPROBE_EVENTS and CONFIG_BPF_EVENTS on: BPF programs attach to trace events through it",
    ),
    required(
        "VIRTIO_BLK",
        "turn CONFIG_BLOCK, CONFIG_BLK_DEV and CONFIG_VIRTIO_BLK on, built in (=y): test files reach the guest on such a disk",
    ),
    required(
        "ACPI",
        "turn CONFIG_ACPI on: CPUs, caches and NUMA nodes of the guest are described in ACPI tables",
    ),
    required("PCI", "turn CONFIG_PCI on: the guest's devices sit on a PCI bus"),
    required(
        "VIRTIO_PCI",
        "turn CONFIG_VIRTIO_MENU and CONFIG_VIRTIO_PCI on, built in (=y): it drives the guest's devices",
    ),
    Required {
        option: "PCI_MMCONFIG",
        only_on: Some("x86_64"),
        remedy: "turn CONFIG_PCI_MMCONFIG on (it needs CONFIG_ACPI and CONFIG_PCI): PCI configuration space is memory mapped in the guest",
    },
];
