//! `doctor`: what works here, what doesn't, and the command that mends it.

use crate::run::kernel::find_kernel;
use crate::settings::Settings;
use anyhow::Result;
use ktstr_kernel::Arch;
use ktstr_kernel::ports::{KernelBuilder, KernelStore};
use ktstr_kernel_build::MakeBuilder;
use ktstr_kernel_cache::KernelCache;
use ktstr_kvm::Kvm;
use ktstr_machine::{Accel, Hypervisor};
use ktstr_qemu::Qemu;
use std::fmt::Write;
use std::process::{Command, ExitCode};

/// One thing looked at.
struct Finding {
    what: &'static str,
    ok: bool,
    seen: String,
    remedy: Option<String>,
}

pub(super) fn run() -> Result<ExitCode> {
    let findings = [accel_kvm(), watches(), accel_qemu(), kernel(), cache(), nextest(), build_tools()];
    print!("{}", render(&findings));
    Ok(if usable(&findings) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A mode and a kernel are all that a test needs.
fn usable(findings: &[Finding]) -> bool {
    let works = |name: &str| findings.iter().any(|f| f.ok && f.what == name);
    (works("kvm") || works("tcg, deterministic")) && works("kernel")
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for f in findings {
        let mark = if f.ok { "ok " } else { "no " };
        // Writing to a String can't fail.
        let _ = writeln!(text, "{mark} {:<20} {}", f.what, f.seen);
        if let Some(remedy) = &f.remedy {
            let _ = writeln!(text, "    {:<20} → {remedy}", "");
        }
    }
    text
}

fn accel_kvm() -> Finding {
    match Kvm::probe() {
        Ok(()) => Finding { what: "kvm", ok: true, seen: ran(&Kvm::new()), remedy: None },
        Err(e) => Finding {
            what: "kvm",
            ok: false,
            seen: e.to_string(),
            remedy: Some("nothing that must be done: `auto` uses tcg here".to_string()),
        },
    }
}

/// What `WatchSnapshot` needs in the mode `kvm`.
fn watches() -> Finding {
    let what = "watched memory (kvm)";
    match Kvm::honours_watches() {
        Ok(()) => Finding { what, ok: true, seen: "a guest's write was seen".to_string(), remedy: None },
        Err(seen) => {
            let remedy = "for tests that watch memory: --accel tcg".to_string();
            Finding { what, ok: false, seen, remedy: Some(remedy) }
        }
    }
}

fn ran(kvm: &dyn Hypervisor) -> String {
    let mut text = "a guest ran kernel code as hardware does".to_string();
    if kvm.pace(Accel::Kvm) != Accel::Kvm.pace() {
        text.push_str("; the processor under it is emulated, so limits are as for tcg");
    }
    text
}

fn accel_qemu() -> Finding {
    let what = "tcg, deterministic";
    let chosen = Settings::from_env().ok().and_then(|s| s.qemu);
    let path = std::env::var("PATH").ok();
    let found = Qemu::find(chosen.as_deref(), path.as_deref());
    match found.and_then(|q| q.describe().map(|version| (version, q.program().display().to_string()))) {
        Ok((version, program)) => {
            Finding { what, ok: true, seen: format!("{version} ({program})"), remedy: None }
        }
        Err(e) => Finding {
            what,
            ok: false,
            seen: e.to_string(),
            remedy: Some("sudo apt-get install --no-install-recommends qemu-system-x86".to_string()),
        },
    }
}

fn kernel() -> Finding {
    let what = "kernel";
    match find_kernel() {
        Ok(Some(image)) => Finding { what, ok: true, seen: image.display().to_string(), remedy: None },
        Ok(None) => Finding {
            what,
            ok: false,
            seen: "none found".to_string(),
            remedy: Some(ktstr_kernel::KTSTR_KERNEL_HINT.to_string()),
        },
        Err(e) => Finding { what, ok: false, seen: format!("{e:#}"), remedy: None },
    }
}

fn cache() -> Finding {
    let what = "kernel cache";
    let listed = KernelCache::from_env().map_err(anyhow::Error::from).and_then(|c| Ok((c.list()?.len(), c)));
    match listed {
        Ok((count, cache)) => Finding {
            what,
            ok: true,
            seen: format!("{} ({count} kernels)", cache.root().display()),
            remedy: None,
        },
        Err(e) => Finding {
            what,
            ok: false,
            seen: format!("{e:#}"),
            remedy: Some("set KTSTR_CACHE_DIR".to_string()),
        },
    }
}

fn nextest() -> Finding {
    let what = "cargo-nextest";
    let output = Command::new("cargo").args(["nextest", "--version"]).output();
    match output {
        Ok(o) if o.status.success() => {
            let text = String::from_utf8_lossy(&o.stdout);
            Finding {
                what,
                ok: true,
                seen: text.lines().next().unwrap_or_default().to_string(),
                remedy: None,
            }
        }
        _ => Finding {
            what,
            ok: false,
            seen: "not installed; `cargo ktstr test` needs it, `cargo test` doesn't".to_string(),
            remedy: Some("cargo install --locked cargo-nextest".to_string()),
        },
    }
}

fn build_tools() -> Finding {
    let what = "kernel build tools";
    let builder = MakeBuilder::new(std::env::temp_dir());
    match Arch::host().map_err(anyhow::Error::from).and_then(|arch| Ok(builder.preflight(arch)?)) {
        Ok(()) => Finding { what, ok: true, seen: "complete".to_string(), remedy: None },
        Err(e) => {
            let seen = format!("{e:#} (only building kernels needs them)");
            Finding { what, ok: false, seen, remedy: None }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_mode_and_a_kernel_will_do() {
        let found = |kvm, tcg, kernel| {
            [("kvm", kvm), ("tcg, deterministic", tcg), ("kernel", kernel), ("cargo-nextest", false)]
                .map(|(what, ok)| Finding { what, ok, seen: String::new(), remedy: None })
        };
        assert!(usable(&found(false, true, true)) && usable(&found(true, false, true)));
        assert!(!usable(&found(false, false, true)) && !usable(&found(true, true, false)));
    }

    #[test]
    fn a_remedy_follows_what_is_missing() {
        let text = render(&[Finding {
            what: "kernel",
            ok: false,
            seen: "none found".to_string(),
            remedy: Some("build one".to_string()),
        }]);
        assert_eq!(text, "no  kernel               none found\n                         → build one\n");
    }
}
