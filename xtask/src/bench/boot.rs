//! How soon a guest's init runs under our monitor and under QEMU's microvm, and what each takes
//! of memory beyond guest RAM: same KVM, kernel, initramfs and RAM, in turn, in the KVM lab.
//! `vmm/vm/examples/boot_bench.rs` is what runs there.

use super::median;
use crate::kvm_lab;
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::time::Duration;

/// An uncompressed kernel is entered at once (PVH) by both; a bzImage unpacks itself first.
const KERNELS: [&str; 2] = ["vmlinux", "bzImage"];
/// The RAM is the benchmark's memfd, so that it can be told from the rest.
const MICROVM: [&str; 2] = ["-M", "microvm,memory-backend=ram"];
const GOAL_KIB: u64 = 5 << 10;

pub(super) fn run(project: &Project, rounds: usize) -> Result<()> {
    say::heading("What is measured");
    println!("  from the start of the monitor's process to the first line of the guest's init");
    println!("  QEMU {}", MICROVM.join(" "));
    println!("  outside the kernel: less what the kernel's own clock says at that line");
    println!("  the lab's processor is emulated: ratios count, times are many times those of hardware");
    let outputs = kvm_lab::boot_bench(project, rounds, &KERNELS, &MICROVM)?;
    for (kernel, output) in KERNELS.iter().zip(&outputs) {
        report(kernel, &read(output)?)?;
    }
    Ok(())
}

/// What was seen of one machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Boot {
    init: Duration,
    kernel: Duration,
    beyond_kib: u64,
}

impl Boot {
    fn outside(&self) -> Duration {
        self.init.saturating_sub(self.kernel)
    }
}

#[derive(Debug, Default)]
struct Seen {
    boots: BTreeMap<String, Vec<Boot>>,
    /// Parts of our monitor's set-up, in order.
    setup: Vec<(String, Vec<Duration>)>,
}

/// Reads the benchmark's lines; those of the warm-up don't count.
fn read(output: &str) -> Result<Seen> {
    let mut seen = Seen::default();
    for line in output.lines().filter_map(|line| line.strip_prefix("bench: ")) {
        let (side, rest) = line.split_once(' ').with_context(|| format!("reading {line:?}: no side"))?;
        if side.starts_with("warm-up") {
            continue;
        }
        match rest.strip_prefix("setup_us=").and_then(|rest| rest.split_once(' ')) {
            Some((us, what)) => {
                let took = Duration::from_micros(us.parse().with_context(|| format!("reading {line:?}"))?);
                match seen.setup.iter_mut().find(|(name, _)| name == what) {
                    Some((_, times)) => times.push(took),
                    None => seen.setup.push((what.to_owned(), vec![took])),
                }
            }
            None => seen.boots.entry(side.to_owned()).or_default().push(boot(rest)?),
        }
    }
    Ok(seen)
}

fn boot(text: &str) -> Result<Boot> {
    let field = |name: &str| -> Result<u64> {
        let value = text.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        value.and_then(|v| v.parse().ok()).with_context(|| format!("reading {text:?}: no number {name}"))
    };
    Ok(Boot {
        init: Duration::from_micros(field("init_us")?),
        kernel: Duration::from_micros(field("kernel_us")?),
        beyond_kib: field("beyond_kib")?,
    })
}

fn report(kernel: &str, seen: &Seen) -> Result<()> {
    say::heading(&format!("{kernel}: medians (and the least and the most of them)"));
    let side = |name: &str| seen.boots.get(name).map_or(&[][..], Vec::as_slice);
    let (ours, qemu) = (side("ktstr"), side("qemu"));
    ensure!(!ours.is_empty() && !qemu.is_empty(), "one side did not boot: {seen:?}");
    let of = |boots: &[Boot], what: fn(&Boot) -> Duration| boots.iter().map(what).collect::<Vec<_>>();
    let kib = |boots: &[Boot]| {
        let mut all: Vec<u64> = boots.iter().map(|boot| boot.beyond_kib).collect();
        all.sort_unstable();
        all[all.len() / 2]
    };
    // The time in which a bzImage unpacks itself is neither monitor's.
    let (outside, goal) = match kernel {
        "bzImage" => ("the rest, with the unpacking", ""),
        _ => ("outside the kernel", "at most 0.50"),
    };
    let row = |name: &str, what: fn(&Boot) -> Duration, goal: &str| {
        let (a, b) = (of(ours, what), of(qemu, what));
        let ratio = median(a.clone()).as_secs_f64() / median(b.clone()).as_secs_f64();
        [name.to_owned(), spread(&a), spread(&b), format!("{ratio:.2}"), goal.to_owned()]
    };
    let (our_kib, their_kib) = (kib(ours), kib(qemu));
    println!(
        "{}",
        say::table(&[
            ["", "ktstr", "QEMU microvm", "ratio", "goal"].map(String::from),
            row("to the guest's init", |boot| boot.init, ""),
            row("in the kernel", |boot| boot.kernel, ""),
            row(outside, Boot::outside, goal),
            [
                "memory beyond guest RAM".into(),
                mib(our_kib),
                mib(their_kib),
                format!("{:.2}", our_kib as f64 / their_kib as f64),
                format!("under {}", mib(GOAL_KIB)),
            ],
        ])
    );
    println!("\n  our monitor, from the start of its process to the first KVM_RUN");
    let mut rows: Vec<_> = seen.setup.iter().map(|(what, times)| [spread(times), what.clone()]).collect();
    let total: Duration = seen.setup.iter().map(|(_, times)| median(times.clone())).sum();
    rows.push([format!("{:.2} ms", total.as_secs_f64() * 1e3), "in all".to_owned()]);
    println!("{}", say::table(&rows));
    Ok(())
}

fn mib(kib: u64) -> String {
    format!("{:.1} MiB", kib as f64 / 1024.0)
}

fn spread(times: &[Duration]) -> String {
    let ms = |d: Duration| {
        format!("{:.*}", usize::from(d < Duration::from_millis(100)) * 2, d.as_secs_f64() * 1e3)
    };
    let least = times.iter().min().copied().unwrap_or_default();
    let most = times.iter().max().copied().unwrap_or_default();
    format!("{} ms ({}–{})", ms(median(times.to_vec())), ms(least), ms(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_boots_and_parts() {
        let output = "bench: warm-up-ktstr init_us=9 kernel_us=1 beyond_kib=1 ram_kib=2\nnoise\n\
            bench: ktstr init_us=3000 kernel_us=1000 beyond_kib=4000 ram_kib=2\n\
            bench: ktstr setup_us=20 mapping RAM\nbench: ktstr setup_us=30 mapping RAM\n";
        let seen = read(output).unwrap();
        assert_eq!(seen.boots["ktstr"].len(), 1);
        assert_eq!(seen.boots["ktstr"][0].outside(), Duration::from_millis(2));
        assert_eq!(
            seen.setup,
            [("mapping RAM".to_owned(), vec![Duration::from_micros(20), Duration::from_micros(30)])]
        );
        assert!(read("bench: ktstr init_us=x\n").is_err());
        assert!(report("vmlinux", &seen).is_err());
    }
}
