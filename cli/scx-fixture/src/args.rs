//! The command line.

use crate::config::{Config, Fault, text};
use clap::{ArgGroup, Parser};
use std::fmt;

/// Characters of `ops.name` besides letters and digits: `bpf_obj_name_cpy`, kernel/bpf/syscall.c.
const NAME_CHARACTERS: [char; 2] = ['_', '.'];
/// `SCX_OPS_NAME_LEN` less the terminating zero.
const NAME_LEN: usize = 127;

/// A sched_ext scheduler to test ktstr with: one queue for all CPUs, ordered by weighted
/// run time. At most one fault can be planted. It runs until SIGTERM or SIGINT.
#[derive(Debug, Parser)]
#[command(version, group = ArgGroup::new("fault").multiple(false))]
pub(crate) struct Args {
    /// What /sys/kernel/sched_ext/root/ops shall say
    #[arg(long, default_value = "fixture", value_parser = ops_name)]
    pub(crate) name: String,
    /// How long a task runs in one go, in microseconds
    #[arg(long, value_name = "US", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    slice_us: u64,
    /// The kernel's watchdog ends the scheduler after a task has waited this long (kernel's default: 30000)
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(1..=30_000))]
    pub(crate) timeout_ms: Option<u32>,
    /// Let the fault rest for so long after the scheduler has attached; with 0 --exit-user and --crash-user don't load it at all
    #[arg(long, value_name = "MS", default_value_t = 500)]
    pub(crate) fault_after_ms: u64,
    /// Only tasks of this name suffer from the fault (never kernel threads, PID 1 or this program)
    #[arg(long, value_name = "COMM", value_parser = comm)]
    victim: Option<String>,

    /// Tasks that become runnable on this CPU are never run
    #[arg(long, value_name = "CPU", group = "fault")]
    stall_cpu: Option<u32>,
    /// One task is put in no queue
    #[arg(long, group = "fault")]
    drop_task: bool,
    /// While others want to run, tasks directly in the cgroup of this name (last part of its path) or id
    /// get a millisecond in a thousand
    #[arg(long, value_name = "NAME|ID", group = "fault", value_parser = cgroup)]
    starve_cgroup: Option<String>,
    /// How many milliseconds there are to each of --starve-cgroup
    #[arg(long, value_name = "N", default_value_t = 1000, requires = "starve_cgroup")]
    starve_factor: u32,
    /// Tasks with an affinity are sent to a CPU outside it
    #[arg(long, group = "fault")]
    ignore_affinity: bool,
    /// ops.dispatch takes so long each time, in microseconds
    #[arg(long, value_name = "US", group = "fault", num_args = 0..=1, default_missing_value = "2000",
          value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    burn_dispatch: Option<u64>,
    /// Calls scx_bpf_error with this text
    #[arg(long, value_name = "TEXT", group = "fault", num_args = 0..=1,
          default_missing_value = "a planted error", value_parser = message)]
    scx_error: Option<String>,
    /// One more task goes to a queue that nothing takes from, each time so many milliseconds have passed
    #[arg(long, value_name = "MS", group = "fault", num_args = 0..=1, default_missing_value = "100",
          value_parser = clap::value_parser!(u64).range(0..=60_000))]
    leak_dsq: Option<u64>,
    /// A task whose CPUs change is sent to the one it had lost
    #[arg(long, group = "fault")]
    cpuset_change: bool,
    /// A part of the tasks stays in the queue of a CPU that went offline
    #[arg(long, group = "fault")]
    ignore_hotplug: bool,
    /// ops.running is a program that the verifier rejects
    #[arg(long, group = "fault")]
    fail_verify: bool,
    /// The same, after a loop of so many rounds
    #[arg(long, value_name = "ROUNDS", group = "fault", num_args = 0..=1, default_missing_value = "250",
          value_parser = clap::value_parser!(u32).range(1..=5000))]
    verify_loop: Option<u32>,
    /// This program dies of this signal
    #[arg(long, value_name = "SIGNAL", group = "fault", num_args = 0..=1, default_missing_value = "11",
          value_parser = clap::value_parser!(i32).range(1..=31))]
    crash_user: Option<i32>,
    /// This program ends with this code
    #[arg(long, value_name = "CODE", group = "fault")]
    exit_user: Option<u8>,
    /// This program panics with this text
    #[arg(long, value_name = "TEXT", group = "fault", num_args = 0..=1, default_missing_value = "a planted panic")]
    panic_user: Option<String>,

    /// Take only tasks of policy SCHED_EXT
    #[arg(long)]
    pub(crate) partial: bool,
    /// Offer scx_stats at /var/run/scx/root/stats
    #[arg(long)]
    pub(crate) stats: bool,
    /// Go to the background first
    #[arg(long)]
    pub(crate) daemonize: bool,
    /// Don't end on SIGTERM
    #[arg(long)]
    pub(crate) ignore_sigterm: bool,
    /// Print so many MiB to standard error once attached
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) spam_mib: u64,
    /// Print the verifier's log of every program, at this level: 1 log, 2 all states, 4 statistics
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u32).range(1..=7))]
    pub(crate) verifier_log: Option<u32>,
}

/// What the user half does to itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Drill {
    Exit(u8),
    Signal(i32),
    Panic(String),
}

/// The scheduler that is loaded: a map of bpf/fixture.bpf.c.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ops {
    Sound,
    Unverifiable,
    Looping,
}

impl Ops {
    pub(crate) const ALL: [Self; 3] = [Self::Sound, Self::Unverifiable, Self::Looping];

    pub(crate) const fn map(self) -> &'static str {
        match self {
            Self::Sound => "fixture_ops",
            Self::Unverifiable => "unverifiable_ops",
            Self::Looping => "looping_ops",
        }
    }
}

impl Args {
    pub(crate) fn ops(&self) -> Ops {
        match (self.fail_verify, self.verify_loop) {
            (true, _) => Ops::Unverifiable,
            (_, Some(_)) => Ops::Looping,
            _ => Ops::Sound,
        }
    }

    pub(crate) fn drill(&self) -> Option<Drill> {
        let panic = || self.panic_user.clone().map(Drill::Panic);
        self.exit_user.map(Drill::Exit).or(self.crash_user.map(Drill::Signal)).or_else(panic)
    }

    /// The kernel half's fault.
    pub(crate) fn kernel_fault(&self) -> Fault {
        [
            (self.stall_cpu.is_some(), Fault::StallCpu),
            (self.drop_task, Fault::DropTask),
            (self.starve_cgroup.is_some(), Fault::StarveCgroup),
            (self.ignore_affinity, Fault::IgnoreAffinity),
            (self.burn_dispatch.is_some(), Fault::BurnDispatch),
            (self.scx_error.is_some(), Fault::ScxError),
            (self.leak_dsq.is_some(), Fault::LeakDsq),
            (self.cpuset_change, Fault::CpusetChange),
            (self.ignore_hotplug, Fault::IgnoreHotplug),
        ]
        .into_iter()
        .find_map(|(asked, fault)| asked.then_some(fault))
        .unwrap_or(Fault::None)
    }

    /// What is planted, for people to read.
    pub(crate) fn fault(&self) -> Option<impl fmt::Display> {
        let words = match (self.kernel_fault(), self.drill()) {
            (Fault::None, Some(Drill::Exit(code))) => format!("exit-user {code}"),
            (Fault::None, Some(Drill::Signal(number))) => format!("crash-user {number}"),
            (Fault::None, Some(Drill::Panic(_))) => "panic-user".to_string(),
            (Fault::None, None) => return None,
            (Fault::StallCpu, _) => format!("stall-cpu {}", self.stall_cpu.unwrap_or_default()),
            (Fault::StarveCgroup, _) => {
                format!("starve-cgroup {}", self.starve_cgroup.as_deref().unwrap_or_default())
            }
            (fault, _) => fault.name().to_string(),
        };
        Some(words)
    }

    /// The read-only data of the kernel half.
    pub(crate) fn config(&self) -> Config {
        let starve = self.starve_cgroup.as_deref().unwrap_or_default();
        let starve_id = starve.parse().unwrap_or(0);
        Config {
            slice_ns: self.slice_us * 1000,
            burn_ns: self.burn_dispatch.unwrap_or(0) * 1000,
            leak_every_ns: self.leak_dsq.unwrap_or(0) * 1_000_000,
            starve_id,
            fault: self.kernel_fault() as u32,
            cpu: self.stall_cpu.unwrap_or(0),
            starve_factor: self.starve_factor,
            loops: self.verify_loop.unwrap_or(0),
            // Positive and below 2^22 on Linux.
            user_tgid: std::process::id() as i32,
            victim_comm: text(self.victim.as_deref().unwrap_or_default()),
            starve_name: text(if starve_id == 0 { starve } else { "" }),
            message: text(self.scx_error.as_deref().unwrap_or_default()),
        }
    }
}

fn ops_name(name: &str) -> Result<String, String> {
    let good = |c: char| c.is_ascii_alphanumeric() || NAME_CHARACTERS.contains(&c);
    if (1..=NAME_LEN).contains(&name.len()) && name.chars().all(good) {
        Ok(name.to_string())
    } else {
        Err(format!("expected 1 to {NAME_LEN} letters, digits, `_` and `.`: the kernel takes no other"))
    }
}

/// `TASK_COMM_LEN` less the terminating zero.
fn comm(name: &str) -> Result<String, String> {
    bounded(name, 15)
}

fn cgroup(name: &str) -> Result<String, String> {
    if name.contains('/') {
        return Err("expected the last part of the cgroup's path, or its id".into());
    }
    bounded(name, 63)
}

fn message(words: &str) -> Result<String, String> {
    bounded(words, 127)
}

fn bounded(words: &str, limit: usize) -> Result<String, String> {
    if (1..=limit).contains(&words.len()) {
        Ok(words.to_string())
    } else {
        Err(format!("expected 1 to {limit} bytes, not {}", words.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("scx-fixture").chain(words.split_whitespace()))
    }

    #[test]
    fn without_a_fault_there_is_none() {
        let args = parse("").unwrap();
        assert_eq!((args.kernel_fault(), args.ops(), args.drill()), (Fault::None, Ops::Sound, None));
        assert!(args.fault().is_none());
        assert_eq!(args.config().slice_ns, 20_000_000);
    }

    #[test]
    fn each_fault_is_told_to_the_kernel_half() {
        for (words, fault) in [
            ("--stall-cpu 0", Fault::StallCpu),
            ("--drop-task", Fault::DropTask),
            ("--starve-cgroup cg_1", Fault::StarveCgroup),
            ("--ignore-affinity", Fault::IgnoreAffinity),
            ("--burn-dispatch", Fault::BurnDispatch),
            ("--scx-error", Fault::ScxError),
            ("--leak-dsq", Fault::LeakDsq),
            ("--cpuset-change", Fault::CpusetChange),
            ("--ignore-hotplug", Fault::IgnoreHotplug),
        ] {
            let args = parse(words).unwrap();
            assert_eq!(args.config().fault, fault as u32, "{words}");
            let shown = args.fault().unwrap().to_string();
            assert!(words[2..].starts_with(&shown), "{shown}");
        }
    }

    #[test]
    fn two_faults_at_once_are_refused() {
        assert!(parse("--drop-task --stall-cpu 1").is_err());
        assert!(parse("--exit-user 3 --fail-verify").is_err());
    }

    #[test]
    fn a_cgroup_is_named_or_numbered() {
        let named = parse("--starve-cgroup cg_1").unwrap().config();
        assert_eq!((named.starve_id, &named.starve_name[..5]), (0, &b"cg_1\0"[..]));
        let numbered = parse("--starve-cgroup 4711").unwrap().config();
        assert_eq!((numbered.starve_id, numbered.starve_name[0]), (4711, 0));
        assert!(parse("--starve-cgroup a/b").is_err());
    }

    #[test]
    fn names_that_the_kernel_refuses_are_refused_first() {
        assert!(parse("--name fixture_1.0").is_ok());
        for bad in ["--name=", "--name=a-b", "--name=a/b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse(&format!("--name {}", "x".repeat(128))).is_err());
    }

    #[test]
    fn drills_and_programs_are_chosen() {
        assert_eq!(parse("--crash-user").unwrap().drill(), Some(Drill::Signal(11)));
        assert_eq!(parse("--exit-user 0").unwrap().drill(), Some(Drill::Exit(0)));
        assert_eq!(parse("--panic-user=no").unwrap().drill(), Some(Drill::Panic("no".to_string())));
        assert_eq!(parse("--fail-verify").unwrap().ops(), Ops::Unverifiable);
        let looping = parse("--verify-loop").unwrap();
        assert_eq!((looping.ops(), looping.config().loops), (Ops::Looping, 250));
    }
}
