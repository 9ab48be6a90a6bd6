//! The kernel command line under KVM.

use crate::arch::PLATFORM;
use ktstr_machine::{CommandLine, MachineError, MachineSpec};

/// Our own arguments, then the test's.
pub(crate) fn build(spec: &MachineSpec) -> Result<String, MachineError> {
    let mut line = CommandLine::new();
    line.extend(PLATFORM)?;
    line.extend(["rdinit=/init", "panic=-1"])?;
    // A test guest runs nothing that it must be protected from.
    line.push("mitigations=off")?;
    if !spec.kaslr {
        line.push("nokaslr")?;
    }
    if spec.verbose {
        line.extend(["loglevel=7", "earlyprintk=serial"])?;
    } else {
        // With 0 the kernel would say nothing when it panics (`console_verbose()`).
        line.push("loglevel=1")?;
    }
    let ours = line.render()?;
    let theirs = spec.cmdline.render()?;
    let whole = if theirs.is_empty() { ours } else { format!("{ours} {theirs}") };
    // Once more as a whole: two lines that fit may not fit together.
    let mut all = CommandLine::new();
    all.extend(whole.split(' '))?;
    Ok(all.render()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::Accel;

    fn spec(kargs: &[&str], verbose: bool) -> MachineSpec {
        let mut cmdline = CommandLine::new();
        cmdline.extend(kargs.iter().copied()).unwrap();
        MachineSpec {
            kernel: "/k".into(),
            initramfs: Vec::new(),
            cmdline,
            topology: ktstr_topology::Topology::DEFAULT,
            memory_mib: 256,
            accel: Accel::Kvm,
            seed: 0,
            verbose,
            kaslr: false,
            performance: None,
        }
    }

    #[test]
    fn the_tests_arguments_come_last_and_win() {
        let line = build(&spec(&["loglevel=4"], false)).unwrap();
        assert!(line.starts_with("console=ttyS0 ") && line.ends_with("loglevel=1 loglevel=4"), "{line}");
        assert!(build(&spec(&[], true)).unwrap().contains("earlyprintk=serial"));
        let moving = MachineSpec { kaslr: true, ..spec(&[], false) };
        assert!(line.contains(" nokaslr ") && !build(&moving).unwrap().contains("kaslr"));
    }

    #[test]
    fn lines_that_are_too_long_together_are_refused() {
        let long = "x".repeat(2000);
        assert!(build(&spec(&[&long], false)).is_err());
    }
}
