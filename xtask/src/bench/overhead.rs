//! What the harness costs on top of a bare boot.

use super::{kernel_image, median, test_binaries};
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tests of cli/tests/schedulers.rs that hold for a second.
const EEVDF: &str = "ktstr/one_second_under_eevdf";
const FIXTURE: &str = "ktstr/one_second_under_the_fixture";
const SECOND: Duration = Duration::from_secs(1);
/// The hold of the quick-start test.
const HOLD: Duration = Duration::from_secs(2);

/// An init that does nothing but `reboot(RB_POWER_OFF)`, on no library.
const INIT: &str = "\
.globl _start
_start:
    mov $169, %eax          # reboot(2)
    mov $0xfee1dead, %edi   # LINUX_REBOOT_MAGIC1
    mov $0x28121969, %esi   # LINUX_REBOOT_MAGIC2
    mov $0x4321fedc, %edx   # LINUX_REBOOT_CMD_POWER_OFF
    syscall
";

/// The plainest way to boot a kernel under QEMU that a person would type.
const PLAIN: &str = "console=ttyS0 quiet panic=-1";
/// What ktstr passes for the machine, so that the harness alone makes the difference.
const SAME: &str = "console=ttyS0 rdinit=/init panic=-1 reboot=t tsc=reliable no_timer_check mitigations=off nokaslr loglevel=1";

pub(super) fn run(project: &Project, rounds: usize) -> Result<()> {
    say::heading("What is measured");
    let image = kernel_image(project)?;
    let [test, schedulers] = test_binaries(project, ["seeds", "schedulers"])?;
    let dir = project.logs.join("bench-overhead");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    let initramfs = minimal_initramfs(&dir)?;
    println!("  kernel {}", image.display());
    let (mut harness, mut plain, mut same) = (Vec::new(), Vec::new(), Vec::new());
    let (mut eevdf, mut fixture) = (Vec::new(), Vec::new());
    // Builds the scheduler, so that no round does.
    timed(case(&schedulers, FIXTURE, &image))?;
    for round in 1..=rounds {
        let whole = timed(case(&test, "ktstr/my_scheduler_test", &image))?;
        harness.push(whole.saturating_sub(HOLD));
        plain.push(timed(bare_qemu(&image, &initramfs, PLAIN))?);
        same.push(timed(bare_qemu(&image, &initramfs, SAME))?);
        eevdf.push(timed(case(&schedulers, EEVDF, &image))?.saturating_sub(SECOND));
        fixture.push(timed(case(&schedulers, FIXTURE, &image))?.saturating_sub(SECOND));
        println!("  round {round} of {rounds} done");
    }
    say::heading("Medians");
    let (harness, plain, same) = (median(harness), median(plain), median(same));
    let ratio = |base: Duration| format!("{:.2}", harness.as_secs_f64() / base.as_secs_f64());
    let row = |what: &str, time: Duration, ratio: String| [what.to_string(), say::duration(time), ratio];
    println!(
        "{}",
        say::table(&[
            ["".into(), "time".into(), "test / this".into()],
            row("quick-start test minus its 2 s hold", harness, "1".into()),
            row("QEMU alone, as a person would type it", plain, ratio(plain)),
            row("QEMU alone, with ktstr's kernel arguments", same, ratio(same)),
        ])
    );
    println!("  goal: at most 1.50 times QEMU alone");
    let (eevdf, fixture) = (median(eevdf), median(fixture));
    let times = format!("{:.2}", fixture.as_secs_f64() / eevdf.as_secs_f64());
    println!(
        "{}",
        say::table(&[
            ["".into(), "time".into(), "this / EEVDF".into()],
            row("a 1 s test under EEVDF minus its hold", eevdf, "1".into()),
            row("the same under scx-fixture: find, start, attach, detach", fixture, times),
        ])
    );
    Ok(())
}

/// Assembles the init and packs it; binutils and cpio come with the kernel's build tools.
fn minimal_initramfs(dir: &Path) -> Result<PathBuf> {
    std::fs::write(dir.join("init.s"), INIT).context("writing the bare init")?;
    let script =
        "as -o init.o init.s && ld -static -o init init.o && echo init | cpio --quiet -o -H newc > initramfs";
    let status = Command::new("sh").args(["-ec", script]).current_dir(dir).status().context("running sh")?;
    if !status.success() {
        bail!("assembling the bare init failed: it needs as, ld (binutils) and cpio");
    }
    Ok(dir.join("initramfs"))
}

fn case(test: &Path, name: &str, image: &Path) -> Command {
    let mut command = Command::new(test);
    command
        .args(["--exact", name])
        .env("NEXTEST", "1")
        .env("KTSTR_ACCEL", "tcg")
        .env("KTSTR_TEST_KERNEL", image)
        .env_remove("KTSTR_DURATION_S")
        // Symbols for back-traces make the guest's binary larger; measured is the default.
        .env_remove("RUST_BACKTRACE");
    command
}

fn bare_qemu(image: &Path, initramfs: &Path, arguments: &str) -> Command {
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-M", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "512"])
        .args(["-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio"])
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", arguments]);
    command
}

fn timed(mut command: Command) -> Result<Duration> {
    let program = command.get_program().to_owned();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let begin = Instant::now();
    let output = command.stderr(Stdio::piped()).output();
    let took = begin.elapsed();
    let output = output.with_context(|| format!("running {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}",
            program.display(),
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(took)
}
