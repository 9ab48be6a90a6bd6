//! What the environment says. Read once, here; nothing below reads it again.

use anyhow::{Context, Result, bail};
use ktstr_machine::AccelChoice;
use std::path::PathBuf;
use std::time::Duration;

/// Name of the variable with the program of every scheduler that is found by name.
pub const KTSTR_SCHEDULER_ENV: &str = "KTSTR_SCHEDULER";
/// Name of the variable with the cargo profile that schedulers are built with.
pub const KTSTR_SCHEDULER_PROFILE_ENV: &str = "KTSTR_SCHEDULER_PROFILE";
/// Name of the variable that, when it is not empty, lets an older program do after a failed build.
pub const KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK_ENV: &str = "KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK";

/// The settings of a run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Settings {
    /// `KTSTR_ACCEL`.
    pub(crate) accel: AccelChoice,
    /// `KTSTR_QEMU`: this QEMU and no other.
    pub(crate) qemu: Option<PathBuf>,
    /// `KTSTR_SEED`: decides everything random.
    pub(crate) seed: u64,
    /// `KTSTR_DURATION_S`: replaces every test's duration.
    pub(crate) duration: Option<Duration>,
    /// `KTSTR_LOG_PASSES`: also say what held.
    pub(crate) log_passes: bool,
    /// `KTSTR_VERBOSE=1`: kernel messages on the console, diagnostics always.
    pub(crate) verbose: bool,
    /// `RUST_BACKTRACE`, passed on to the guest.
    pub(crate) backtrace: Option<String>,
    /// `KTSTR_WORK_TYPE`: replaces the work type of swappable cgroups.
    pub(crate) work_type: Option<String>,
    /// `KTSTR_SIDECAR_DIR`.
    pub(crate) sidecar_dir: Option<PathBuf>,
    /// `KTSTR_NO_SKIP_MODE`: a skip is a failure.
    pub(crate) no_skip: bool,
    /// `KTSTR_PROJECT_COMMIT`.
    pub(crate) project_commit: Option<String>,
    /// `KTSTR_NO_TEMPLATE`: boot every machine afresh.
    pub(crate) no_template: bool,
    /// `KTSTR_TEMPLATE_DIR`: where saved machines are kept.
    pub(crate) template_dir: Option<PathBuf>,
    /// `KTSTR_TEMPLATE_MAX_MIB`: how much room they may take, bytes.
    pub(crate) template_max_bytes: u64,
    /// `KTSTR_SCHEDULER`, `KTSTR_SCHEDULER_PROFILE`, `KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK`.
    pub(crate) scheduler: ktstr_scheduler::Wanted,
    /// `KTSTR_MONITOR_MS`: how far apart samples of the kernel are; `None` takes none.
    pub(crate) monitor_period: Option<Duration>,
    /// `KTSTR_STALL_POLL_MS`: how far apart looks at the workers of a test on the host are; `None` takes none.
    pub(crate) stall_poll: Option<Duration>,
    /// `KTSTR_HOST_CGROUP_PARENT`.
    pub(crate) host_cgroup_parent: Option<String>,
    /// `KTSTR_NO_PERF_MODE`: tests in performance mode are skipped, others run on a part of the host.
    pub(crate) no_perf_mode: bool,
    /// `KTSTR_REQUIRE_PERF_MODE`: tests in performance mode fail where the host can't give all of it.
    pub(crate) require_perf_mode: bool,
    /// `KTSTR_CPU_CAP`: the most CPUs of the host that a machine or a kernel's build uses.
    pub(crate) cpu_cap: Option<usize>,
    /// `KTSTR_BYPASS_LLC_LOCKS`: locks on the host's CPUs are neither taken nor looked at.
    pub(crate) bypass_llc_locks: bool,
    /// `KTSTR_LOCK_DIR`: where processes find each other's locks on CPUs.
    pub(crate) lock_dir: PathBuf,
}

impl Settings {
    /// Reads the environment of this process. An empty variable counts as unset.
    pub(crate) fn from_env() -> Result<Self> {
        Self::from_lookup(&|name| std::env::var(name).ok())
    }

    /// These, with a cap that was given as `--cpu-cap`.
    ///
    /// # Errors
    /// A cap beside locks that are left alone.
    #[cfg(feature = "cli-bins")]
    pub(crate) fn capped(self, cap: Option<std::num::NonZeroUsize>) -> Result<Self> {
        let cpu_cap = cap.map(std::num::NonZeroUsize::get).or(self.cpu_cap);
        if let Some(cap) = cpu_cap.filter(|_| self.bypass_llc_locks) {
            bail!(no_contract(cap));
        }
        Ok(Self { cpu_cap, ..self })
    }

    fn from_lookup(lookup: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| lookup(name).filter(|v| !v.is_empty());
        let seed = match get("KTSTR_SEED") {
            Some(text) => text.parse().with_context(|| {
                format!("reading KTSTR_SEED={text:?}: expected a whole number from 0 to 2^64-1")
            })?,
            None => 0,
        };
        let accel = match get("KTSTR_ACCEL") {
            Some(text) => text.parse().context("reading KTSTR_ACCEL")?,
            None => AccelChoice::Auto,
        };
        Ok(Self {
            accel,
            seed,
            qemu: get("KTSTR_QEMU").map(PathBuf::from),
            duration: get("KTSTR_DURATION_S").map(|t| duration(&t)).transpose()?,
            log_passes: get("KTSTR_LOG_PASSES").is_some_and(|v| v != "0"),
            verbose: get("KTSTR_VERBOSE").is_some_and(|v| v == "1"),
            backtrace: get("RUST_BACKTRACE"),
            work_type: get("KTSTR_WORK_TYPE"),
            sidecar_dir: get("KTSTR_SIDECAR_DIR").map(PathBuf::from),
            no_skip: lookup("KTSTR_NO_SKIP_MODE").is_some(),
            project_commit: get("KTSTR_PROJECT_COMMIT"),
            no_template: get("KTSTR_NO_TEMPLATE").is_some_and(|v| v != "0"),
            template_dir: get("KTSTR_TEMPLATE_DIR").map(PathBuf::from),
            template_max_bytes: template_max_mib(get("KTSTR_TEMPLATE_MAX_MIB").as_deref())? << 20,
            scheduler: ktstr_scheduler::Wanted {
                by_name: None,
                for_all: get(KTSTR_SCHEDULER_ENV).map(PathBuf::from),
                profile: get(KTSTR_SCHEDULER_PROFILE_ENV),
                allow_stale: get(KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK_ENV).is_some(),
            },
            monitor_period: period("KTSTR_MONITOR_MS", &get, ktstr_monitor::DEFAULT_PERIOD)?,
            stall_poll: period("KTSTR_STALL_POLL_MS", &get, STALL_POLL)?,
            host_cgroup_parent: get("KTSTR_HOST_CGROUP_PARENT"),
            no_perf_mode: get("KTSTR_NO_PERF_MODE").is_some_and(|v| v != "0"),
            require_perf_mode: get("KTSTR_REQUIRE_PERF_MODE").is_some_and(|v| v != "0"),
            cpu_cap: cpu_cap(&get)?,
            bypass_llc_locks: get(BYPASS_LLC_LOCKS).is_some(),
            lock_dir: get("KTSTR_LOCK_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from),
        })
    }
}

/// The variable that has locks left alone.
pub(crate) const BYPASS_LLC_LOCKS: &str = "KTSTR_BYPASS_LLC_LOCKS";

fn cpu_cap(get: &dyn Fn(&str) -> Option<String>) -> Result<Option<usize>> {
    let Some(text) = get("KTSTR_CPU_CAP") else { return Ok(None) };
    match text.parse() {
        Ok(cap) if cap > 0 && get(BYPASS_LLC_LOCKS).is_some() => bail!(no_contract(cap)),
        Ok(cap) if cap > 0 => Ok(Some(cap)),
        _ => bail!("reading KTSTR_CPU_CAP={text:?}: expected a number of CPUs, at least 1"),
    }
}

/// Why a cap and locks that are left alone don't go together.
fn no_contract(cap: usize) -> String {
    format!(
        "a cap of {cap} CPUs (KTSTR_CPU_CAP, `--cpu-cap`) is a resource contract with all who lock the CPUs that they use, \
         and {BYPASS_LLC_LOCKS} (`--bypass-llc-locks`) leaves these locks alone: drop one of the two"
    )
}

/// Between two looks at the workers of a test on the host.
const STALL_POLL: Duration = Duration::from_millis(500);

/// The milliseconds of that variable; 0 is never.
fn period(name: &str, get: &dyn Fn(&str) -> Option<String>, default: Duration) -> Result<Option<Duration>> {
    let Some(text) = get(name) else { return Ok(Some(default)) };
    match text.parse::<u64>() {
        Ok(0) => Ok(None),
        Ok(ms) if ms <= 60_000 => Ok(Some(Duration::from_millis(ms))),
        _ => bail!("reading {name}={text:?}: expected milliseconds up to 60000, or 0 for never"),
    }
}

/// Where files about running machines are: below `XDG_RUNTIME_DIR`, else in a directory of this
/// user's for temporary files.
pub(crate) fn machines_dir() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let base = runtime.map_or_else(
        // SAFETY: getuid(2) can't fail and touches no memory.
        || std::env::temp_dir().join(format!("ktstr-{}", unsafe { libc::getuid() })),
        |dir| PathBuf::from(dir).join("ktstr"),
    );
    base.join("machines")
}

/// 8 GiB unless told otherwise.
fn template_max_mib(text: Option<&str>) -> Result<u64> {
    let Some(text) = text else { return Ok(8 << 10) };
    match text.parse::<u64>() {
        Ok(mib) if mib < 1 << 40 => Ok(mib),
        _ => bail!("reading KTSTR_TEMPLATE_MAX_MIB={text:?}: expected MiB, such as 8192"),
    }
}

fn duration(text: &str) -> Result<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds.is_finite() && seconds > 0.0 && seconds < 1e6 => {
            Ok(Duration::from_secs_f64(seconds))
        }
        _ => bail!("reading KTSTR_DURATION_S={text:?}: expected seconds above 0, such as 2 or 0.5"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<Settings> {
        Settings::from_lookup(&|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_string()))
    }

    #[test]
    fn an_empty_variable_is_an_unset_one() {
        let settings = with(&[("KTSTR_SEED", ""), ("KTSTR_ACCEL", ""), ("KTSTR_LOG_PASSES", "")]).unwrap();
        assert_eq!((settings.seed, settings.accel), (0, AccelChoice::Auto));
        assert!(!settings.log_passes);
        assert!(!with(&[("KTSTR_LOG_PASSES", "0")]).unwrap().log_passes);
        assert!(with(&[("KTSTR_NO_SKIP_MODE", "")]).unwrap().no_skip);
    }

    #[test]
    fn bad_values_are_named() {
        for (name, value) in [
            ("KTSTR_SEED", "x"),
            ("KTSTR_ACCEL", "fast"),
            ("KTSTR_DURATION_S", "0"),
            ("KTSTR_MONITOR_MS", "often"),
            ("KTSTR_STALL_POLL_MS", "-1"),
            ("KTSTR_TEMPLATE_MAX_MIB", "1G"),
            ("KTSTR_CPU_CAP", "0"),
            ("KTSTR_CPU_CAP", "all"),
        ] {
            let text = format!("{:#}", with(&[(name, value)]).unwrap_err());
            assert!(text.contains(name) && text.contains(value), "{text}");
        }
    }

    #[test]
    fn a_cap_that_nobody_keeps_to_is_refused() {
        assert_eq!(with(&[("KTSTR_CPU_CAP", "3")]).unwrap().cpu_cap, Some(3));
        assert!(with(&[(BYPASS_LLC_LOCKS, "1")]).unwrap().bypass_llc_locks);
        let both = [("KTSTR_CPU_CAP", "3"), (BYPASS_LLC_LOCKS, "1")];
        let text = with(&both).unwrap_err().to_string();
        assert!(text.contains("resource contract") && text.contains("--bypass-llc-locks"), "{text}");
        #[cfg(feature = "cli-bins")]
        {
            let cap = std::num::NonZeroUsize::new(4);
            assert_eq!(with(&[("KTSTR_CPU_CAP", "3")]).unwrap().capped(cap).unwrap().cpu_cap, Some(4));
            assert_eq!(with(&[("KTSTR_CPU_CAP", "3")]).unwrap().capped(None).unwrap().cpu_cap, Some(3));
            let text = with(&both[1..]).unwrap().capped(cap).unwrap_err().to_string();
            assert!(text.contains("resource contract"), "{text}");
        }
    }
}
