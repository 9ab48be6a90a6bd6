//! What `declare_scheduler!` declares.

use ktstr_assert::Assert;
use ktstr_topology::ShapeBounds;

/// Where a scheduler comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchedulerSpec {
    /// The kernel's own (EEVDF): nothing is started.
    Eevdf,
    /// A program of this name: an override, a cargo package of the declaring workspace, or
    /// one on `$PATH`.
    Discover(&'static str),
    /// The program at this path; a relative one is relative to the declaring package.
    Path(&'static str),
    /// Part of the kernel: shell commands that switch it on and off, run in the guest.
    KernelBuiltin {
        /// Run before the test.
        enable: &'static [&'static str],
        /// Run after it.
        disable: &'static [&'static str],
    },
}

/// A kernel setting that is written before the scheduler starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sysctl {
    /// Its name with dots, such as `kernel.sched_schedstats`.
    pub key: &'static str,
    /// What is written.
    pub value: &'static str,
}

impl Sysctl {
    /// `key = value`.
    pub const fn new(key: &'static str, value: &'static str) -> Self {
        Self { key, value }
    }
}

/// A scheduler and what its tests have in common.
#[derive(Debug, Clone, Copy)]
pub struct Scheduler {
    /// What reports and variables call it.
    pub name: &'static str,
    /// Where it comes from.
    pub spec: SchedulerSpec,
    /// How the kernel must name it (`/sys/kernel/sched_ext/root/ops`), or how that name
    /// begins; `None` takes any.
    pub ops: Option<&'static str>,
    /// Machine of tests that declare none: NUMA nodes, LLCs of the whole machine, cores of an
    /// LLC, threads of a core.
    pub topology: (u32, u32, u32, u32),
    /// Arguments of every start.
    pub sched_args: &'static [&'static str],
    /// Kernel arguments of every machine.
    pub kargs: &'static [&'static str],
    /// Kernel settings of every machine.
    pub sysctls: &'static [Sysctl],
    /// How long the kernel lets a task wait before it drops the scheduler, s; a test's own wins. `None`: what the scheduler
    /// itself says.
    pub watchdog_timeout_s: Option<u32>,
    /// Machines of the gauntlet that it is made for. The verifier sweep keeps to minima, to `requires_smt` and to maxima
    /// that differ from the default's.
    pub constraints: ShapeBounds,
    /// The cgroup, from the root, that it looks after; tests' cgroups are made below it.
    pub cgroup_parent: Option<&'static str>,
    /// A file that it reads, relative to the declaring package; a test's own `config` replaces its content.
    pub config_file: Option<&'static str>,
    /// How it is told of the file: an argument with `{file}` in it, and the file's path in the
    /// guest. Without it: `--config`, and `/include-files/` with the file's own name. Without a `config_file`,
    /// tests that have a `config` are started with it, others without the argument.
    pub config_file_def: Option<(&'static str, &'static str)>,
    /// Checks that differ from the defaults; a test's own win.
    pub assert: Assert,
    /// Kernels that the verifier sweep loads it on, in the words of `--kernel`: without that option these, with it those
    /// given that are among these. Empty means every kernel given, or the one found. Tests run on any kernel.
    pub kernels: &'static [&'static str],
    /// Machines that the verifier sweep leaves out, by preset name.
    pub verifier_exclude_topologies: &'static [&'static str],
    /// Whether the verifier sweep loads it; one that is left out is still swept when it is asked for by name.
    pub verifier: bool,
    /// Directory of the declaring package (`CARGO_MANIFEST_DIR`).
    pub declared_in: &'static str,
}

impl Scheduler {
    /// The kernel's own scheduler.
    pub const EEVDF: Self = Self::new("eevdf", SchedulerSpec::Eevdf);

    /// A scheduler with the defaults: a machine of two CPUs, no arguments, no overrides.
    pub const fn new(name: &'static str, spec: SchedulerSpec) -> Self {
        Self {
            name,
            spec,
            ops: None,
            topology: (1, 1, 2, 1),
            sched_args: &[],
            kargs: &[],
            sysctls: &[],
            watchdog_timeout_s: None,
            constraints: ShapeBounds::DEFAULT,
            cgroup_parent: None,
            config_file: None,
            config_file_def: None,
            assert: Assert::NO_OVERRIDES,
            kernels: &[],
            verifier_exclude_topologies: &[],
            verifier: true,
            declared_in: "",
        }
    }

    /// A scheduler whose program has the scheduler's name.
    pub const fn named(name: &'static str) -> Self {
        Self::new(name, SchedulerSpec::Discover(name))
    }

    /// True for the kernel's own.
    pub const fn is_eevdf(&self) -> bool {
        matches!(self.spec, SchedulerSpec::Eevdf)
    }

    /// True if it is a program of its own.
    pub const fn has_program(&self) -> bool {
        matches!(self.spec, SchedulerSpec::Discover(_) | SchedulerSpec::Path(_))
    }

    /// Whether the declaration says where a configuration belongs.
    pub const fn takes_config(&self) -> bool {
        self.config_file.is_some() || self.config_file_def.is_some()
    }

    /// Where its configuration file lies in the guest, and the arguments that say so; `None` if it takes none.
    pub fn config_in_guest(&self) -> Option<(String, Vec<String>)> {
        match (self.config_file_def, self.config_file) {
            (Some((argument, path)), _) => Some((path.to_string(), vec![argument.replace("{file}", path)])),
            (None, Some(file)) => {
                let name = file.rsplit('/').next().unwrap_or(file);
                let path = format!("/include-files/{name}");
                Some((path.clone(), vec!["--config".to_string(), path]))
            }
            (None, None) => None,
        }
    }

    /// All arguments of a start, in order: the configuration file's if the scheduler is given one (its declaration's,
    /// or the test's `config`), the declaration's, the test's.
    pub fn arguments(&self, config: Option<&str>, extra: &[&str]) -> Vec<String> {
        let given = self.config_file.or(config).and_then(|_| self.config_in_guest());
        let config = given.map(|(_, args)| args).unwrap_or_default();
        let own = self.sched_args.iter().chain(extra).map(ToString::to_string);
        config.into_iter().chain(own).collect()
    }

    /// What is wrong with the declaration, if anything.
    pub fn problem(&self) -> Option<String> {
        let wrong = |what: String| Some(format!("declaring scheduler {:?}: {what}", self.name));
        if self.name.is_empty() {
            return wrong("its name is empty".to_string());
        }
        if let Some(parent) = self.cgroup_parent
            && (!parent.starts_with('/') || parent == "/" || parent.split('/').any(|part| part == ".."))
        {
            return wrong(format!(
                "cgroup_parent {parent:?}: expected a path from the cgroup root, such as \"/workload\""
            ));
        }
        if let Some((argument, path)) = self.config_file_def
            && (!argument.contains("{file}") || !path.starts_with('/'))
        {
            return wrong(format!(
                "config_file_def ({argument:?}, {path:?}): expected an argument with {{file}} in it and a path \
                     from the root, such as (\"--config={{file}}\", \"/etc/my.json\")"
            ));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_come_in_order() {
        let scheduler = Scheduler {
            sched_args: &["-v"],
            config_file: Some("conf/layers.json"),
            ..Scheduler::named("scx_layered")
        };
        assert_eq!(
            scheduler.arguments(None, &["-x"]),
            ["--config", "/include-files/layers.json", "-v", "-x"]
        );
        let own = Scheduler { config_file_def: Some(("f:{file}", "/etc/l.json")), ..scheduler };
        assert_eq!(own.arguments(None, &[]), ["f:/etc/l.json", "-v"]);
        assert_eq!(own.config_in_guest().unwrap().0, "/etc/l.json");
        let tests_own = Scheduler { config_file: None, ..own };
        assert_eq!(tests_own.arguments(None, &[]), ["-v"], "no file, so no argument that names one");
        assert_eq!(tests_own.arguments(Some("{}"), &[]), ["f:/etc/l.json", "-v"]);
        let none = Scheduler { config_file_def: None, ..tests_own };
        assert!(tests_own.takes_config() && scheduler.takes_config() && !none.takes_config());
        assert_eq!(none.arguments(Some("{}"), &[]), ["-v"]);
    }

    #[test]
    fn a_declaration_that_makes_no_sense_is_named() {
        let of = |s: Scheduler| s.problem().unwrap_or_default();
        assert_eq!(of(Scheduler::named("a")), "");
        assert!(of(Scheduler::named("")).contains("name is empty"));
        assert!(
            of(Scheduler { cgroup_parent: Some("/"), ..Scheduler::named("a") }).contains("cgroup_parent")
        );
        assert!(
            of(Scheduler { cgroup_parent: Some("w"), ..Scheduler::named("a") }).contains("cgroup_parent")
        );
        let def = Scheduler { config_file_def: Some(("--c", "/x")), ..Scheduler::named("a") };
        assert!(of(def).contains("{file}"));
        assert!(of(Scheduler { config_file: Some("x"), ..def }).contains("{file}"));
    }
}
