//! `cargo xtask bench`: how long things take, as ratios measured in one run.
//!
//! Benchmarks print and never judge: machines are noisy, and what is noise on one
//! is a regression on another.

mod boot;
mod introspect;
mod monitor;
mod overhead;
mod peer;
mod start;

use crate::args::{Args, UsageError};
use crate::child::Child;
use crate::project::Project;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const HELP: &str = "\
cargo xtask bench NAME [--rounds N]

  overhead   the quick-start test minus its hold, beside what QEMU alone needs to boot
             the same kernel to an init that powers off (tcg, 2 CPUs, interleaved)
  boot       to the guest's init, and memory beyond guest RAM: our monitor beside QEMU's microvm,
             same KVM, kernel and initramfs, interleaved, in the KVM lab (vmm/LAB.md)
  introspect reading a guest kernel out of a core, beside drgn on the same core: a sample of
             4 CPUs, opening symbols and types, the same from the index (needs python3, gcc)
  monitor    what a guest gets done while its runqueues are sampled from outside, beside
             the same guest unwatched (tcg and deterministic, 2 CPUs, interleaved)
  start      from the start of a test's process to the first line of its function: booted
             beside resumed, tcg and deterministic, 2 and 16 CPUs; and a whole run of the
             quick-start test under virtme-ng, where that can be had (its kernel is built
             first, for some minutes; --alone leaves it out)

All sides run in turn, N times (5); medians and ratios are printed.";

const KERNEL: &str = "apt:6.12";

pub(crate) fn command(project: &Project, mut args: Args) -> Result<bool> {
    let rounds = match args.values("--rounds")?.as_slice() {
        [] => 5,
        [one] => match one.parse() {
            Ok(n) if (1..=100).contains(&n) => n,
            _ => return Err(UsageError(format!("--rounds takes 1 to 100, not {one:?}")).into()),
        },
        _ => return Err(UsageError("--rounds is given twice".into()).into()),
    };
    match args.word().as_deref() {
        Some("overhead") => {
            args.finish()?;
            overhead::run(project, rounds)?;
            Ok(true)
        }
        Some("boot") => {
            args.finish()?;
            boot::run(project, rounds)?;
            Ok(true)
        }
        Some("introspect") => {
            args.finish()?;
            introspect::run(project, rounds)?;
            Ok(true)
        }
        Some("monitor") => {
            args.finish()?;
            monitor::run(project, rounds)?;
            Ok(true)
        }
        Some("start") => {
            let alone = args.flag("--alone");
            args.finish()?;
            start::run(project, rounds, alone)?;
            Ok(true)
        }
        Some(other) => Err(UsageError(format!(
            "there is no bench {other:?}; there are: overhead, boot, introspect, monitor, start"
        ))
        .into()),
        None => {
            Err(UsageError("which bench? there are: overhead, boot, introspect, monitor, start".into())
                .into())
        }
    }
}

fn kernel_image(project: &Project) -> Result<PathBuf> {
    if let Some(image) = std::env::var_os("KTSTR_TEST_KERNEL") {
        return Ok(PathBuf::from(image));
    }
    let command = project.ktstr(&["kernel", "path", KERNEL]);
    let found = Child::new(&project.logs, "bench: kernel", command).keep_stdout().check()?;
    found.last_line().map(PathBuf::from).context("asking for the kernel's path: no answer")
}

/// Builds test binaries of the facade, which the same-named files in `cli/tests` make.
fn test_binaries<const N: usize>(project: &Project, names: [&str; N]) -> Result<[PathBuf; N]> {
    let mut words = vec!["test", "-p", "ktstr", "--no-run", "--message-format", "json"];
    words.extend(names.iter().flat_map(|name| ["--test", name]));
    let built =
        Child::new(&project.logs, "bench: building tests", project.cargo(words)).keep_stdout().check()?;
    let messages: Vec<serde_json::Value> =
        built.stdout.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut found = names.map(|_| PathBuf::new());
    for (path, name) in found.iter_mut().zip(names) {
        *path = messages
            .iter()
            .filter(|message| message["target"]["name"] == name)
            .find_map(|message| message["executable"].as_str().map(PathBuf::from))
            .with_context(|| format!("building the test {name}: cargo named no executable"))?;
    }
    Ok(found)
}

/// The middle one; of an even number the upper of the two.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        let ms = |list: &[u64]| median(list.iter().map(|m| Duration::from_millis(*m)).collect());
        assert_eq!(ms(&[30, 10, 20]), Duration::from_millis(20));
        assert_eq!(ms(&[10, 20]), Duration::from_millis(20));
        assert_eq!(ms(&[]), Duration::ZERO);
    }
}
