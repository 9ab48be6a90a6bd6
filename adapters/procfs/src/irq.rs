//! Which CPUs take which interrupt (Documentation/core-api/irq/irq-affinity.rst).

use ktstr_scenario::ports::{IrqError, IrqOps};
use ktstr_topology::CpuSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// What `/proc/irq` holds, or another directory like it.
#[derive(Debug, Clone)]
pub struct Irqs(PathBuf);

impl Irqs {
    /// Those of the running system.
    #[must_use]
    pub fn of_this_system() -> Self {
        Self::below(Path::new("/proc/irq"))
    }

    fn below(root: &Path) -> Self {
        Self(root.to_path_buf())
    }

    /// The numbers there are, as a list.
    fn known(&self) -> String {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        let numbers: CpuSet = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok()).collect();
        if numbers.is_empty() { format!("none in {}", self.0.display()) } else { numbers.to_string() }
    }
}

impl IrqOps for Irqs {
    fn steer(&self, irq: u32, cpus: &CpuSet) -> Result<(), IrqError> {
        let path = self.0.join(irq.to_string()).join("smp_affinity_list");
        let list = cpus.to_string();
        // Opened as it is: a file must not be made where there is no such interrupt.
        let written = std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| std::io::Write::write_all(&mut file, list.as_bytes()));
        written.map_err(|source| match source.kind() {
            ErrorKind::NotFound => IrqError::Unknown { irq, known: self.known() },
            _ => IrqError::Refused {
                cpus: list,
                path: path.display().to_string(),
                hint: hint(&source),
                source,
            },
        })
    }
}

/// What the kernel's answer means (`write_irq_affinity`, kernel/irq/proc.c).
fn hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidInput => "; is one of the CPUs online?",
        ErrorKind::PermissionDenied => "; only root may",
        // EIO, which has no kind of its own.
        _ if error.raw_os_error() == Some(5) => "; the kernel does not let this interrupt be moved",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpus_are_written_as_a_list() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("24/smp_affinity_list");
        std::fs::create_dir(dir.path().join("24")).unwrap();
        std::fs::write(&file, "0-3").unwrap();
        let irqs = Irqs::below(dir.path());
        irqs.steer(24, &CpuSet::from([1, 2, 3, 7])).unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "1-3,7");
    }

    #[test]
    fn an_interrupt_that_is_not_there_is_told_with_those_that_are() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["4", "24", "25", "default_smp_affinity"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let error = Irqs::below(dir.path()).steer(99, &CpuSet::from([0])).unwrap_err().to_string();
        assert_eq!(error, "there is no interrupt 99: expected one of 4,24-25 (see /proc/interrupts)");
        assert!(!dir.path().join("99").exists());
    }

    #[test]
    fn what_the_kernel_refuses_is_told_with_the_file() {
        let dir = tempfile::tempdir().unwrap();
        // Nothing can be written to a directory.
        std::fs::create_dir_all(dir.path().join("0/smp_affinity_list")).unwrap();
        let error = Irqs::below(dir.path()).steer(0, &CpuSet::from([1])).unwrap_err();
        assert!(matches!(error, IrqError::Refused { .. }), "{error}");
        let text = error.to_string();
        assert!(text.starts_with("writing \"1\" to ") && text.contains("/0/smp_affinity_list: "), "{text}");
        assert!(hint(&std::io::Error::from_raw_os_error(5)).contains("does not let"));
    }
}
