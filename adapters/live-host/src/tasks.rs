//! All threads, by /proc (Documentation/filesystems/proc.rst).

use ktstr_monitor::TaskState;
use std::path::{Path, PathBuf};

/// Threads that are listed.
const MAX_TASKS: usize = 4096;
/// `PF_KTHREAD` of include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;
/// `MAX_RT_PRIO`, which `stat` takes off a priority, and what a nice level of 0 is.
const MAX_RT_PRIO: i64 = 100;
const NICE_ZERO: i64 = 120;

/// The threads of the system whose /proc is below `root`, by number, and how many more there are. Of a thread that ends
/// meanwhile nothing is told.
///
/// # Errors
/// When /proc can't be read at all.
pub fn task_states(root: &Path) -> std::io::Result<(Vec<TaskState>, usize)> {
    // SAFETY: sysconf(3) has no preconditions.
    let ticks = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|hz| *hz > 0);
    let proc = root.join("proc");
    let mut processes = numbers(&proc)?;
    processes.sort_unstable();
    let (mut found, mut more) = (Vec::new(), 0);
    for process in processes {
        let folder = proc.join(process.to_string()).join("task");
        let mut threads = numbers(&folder).unwrap_or_default();
        threads.sort_unstable();
        for thread in threads {
            if found.len() >= MAX_TASKS {
                more += 1;
            } else if let Some(task) = Files(folder.join(thread.to_string())).task(process, ticks) {
                found.push(task);
            }
        }
    }
    Ok((found, more))
}

/// Entries of a directory that are numbers.
fn numbers(folder: &Path) -> std::io::Result<Vec<i64>> {
    let entries = std::fs::read_dir(folder)?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The files of one thread.
struct Files(PathBuf);

impl Files {
    fn text(&self, name: &str) -> Option<String> {
        std::fs::read_to_string(self.0.join(name)).ok()
    }

    fn task(&self, tgid: i64, ticks: Option<u64>) -> Option<TaskState> {
        let stat = self.text("stat")?;
        let Stat { pid, comm, state, fields } = Stat::parse(&stat)?;
        // Numbered from 1 in proc(5), where the state is 3.
        let field = |number: usize| fields.get(number.checked_sub(4)?)?.parse::<i64>().ok();
        let count = |number| field(number).and_then(|n| u64::try_from(n).ok());
        let time = |number| count(number)?.checked_mul(1_000_000_000u64.checked_div(ticks?)?);
        let status = self.text("status").unwrap_or_default();
        let told = |name: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse().ok())
        };
        let prio = field(18).map_or(-1, |prio| prio + MAX_RT_PRIO);
        Some(TaskState {
            pid,
            tgid,
            comm,
            class: self.class(count(41), prio),
            // A deadline task's is -101 here.
            prio,
            state: bits(state),
            runtime_ns: self.text("schedstat").and_then(|text| first_number(&text)).unwrap_or_default(),
            cpu: count(39),
            kernel_thread: count(9).is_some_and(|flags| flags & KERNEL_THREAD != 0),
            parent: field(4),
            pgid: field(5),
            sid: field(6),
            static_prio: field(19).map(|nice| nice + NICE_ZERO),
            rt_priority: count(40),
            nvcsw: told("voluntary_ctxt_switches"),
            nivcsw: told("nonvoluntary_ctxt_switches"),
            utime_ns: time(14),
            stime_ns: time(15),
            ..TaskState::default()
        })
    }

    /// By policy and effective priority; whether it is sched_ext's only `sched` tells, on kernels with
    /// `CONFIG_SCHED_DEBUG`.
    fn class(&self, policy: Option<u64>, prio: i64) -> String {
        let by_scx = || {
            let sched = self.text("sched").unwrap_or_default();
            let line = sched.lines().find_map(|line| line.trim().strip_prefix("ext.enabled"));
            line.and_then(|rest| rest.trim_start_matches([' ', ':']).trim().parse::<u64>().ok()) == Some(1)
        };
        match policy {
            Some(6) => "dl",
            Some(1 | 2) => "rt",
            _ if (0..MAX_RT_PRIO).contains(&prio) => "rt",
            _ if by_scx() => "ext",
            Some(_) => "fair",
            None => "?",
        }
        .to_string()
    }
}

/// A line of `stat`: what is in parentheses may hold anything, parentheses too.
struct Stat<'a> {
    pid: i64,
    comm: String,
    state: char,
    fields: Vec<&'a str>,
}

impl<'a> Stat<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (head, rest) = text.rsplit_once(')')?;
        let (pid, comm) = head.split_once('(')?;
        let mut words = rest.split_ascii_whitespace();
        let state = words.next()?.chars().next()?;
        Some(Self { pid: pid.trim().parse().ok()?, comm: comm.to_string(), state, fields: words.collect() })
    }
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// `TASK_*` bits of a letter (include/linux/sched.h); an idle kernel thread sleeps uninterruptibly and adds no load.
fn bits(letter: char) -> u64 {
    match letter {
        'S' => 0x1,
        'D' => 0x2,
        'T' => 0x4,
        't' => 0x8,
        'X' => 0x10,
        'Z' => 0x20,
        'P' => 0x40,
        'I' => 0x402,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread(stat: &str, files: &[(&str, &str)]) -> TaskState {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("proc/12/task/13");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        std::fs::write(folder.join("stat"), stat).unwrap();
        files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        let (found, more) = task_states(dir.path()).unwrap();
        assert_eq!((found.len(), more), (1, 0));
        found.into_iter().next().unwrap()
    }

    /// As of a busy thread of a shell.
    fn stat(comm: &str, state: char, prio: i64, policy: u64) -> String {
        let zeros = "0 ".repeat(18);
        format!(
            "13 ({comm}) {state} 1 10 11 0 -1 4194304 0 0 0 0 150 50 0 0 {prio} -5 1 {zeros}3 0 {policy} 0 0\n"
        )
    }

    #[test]
    fn each_figure_is_taken_from_its_place() {
        let files = [
            ("schedstat", "123456 789 4\n"),
            ("status", "Name:\tx\nvoluntary_ctxt_switches:\t31\nnonvoluntary_ctxt_switches:\t42\n"),
            (
                "sched",
                "x (13, #threads: 1)\npolicy                                       :                    0\next.enabled                                  :                    1\n",
            ),
        ];
        let task = thread(&stat("a) (b", 'D', 15, 0), &files);
        assert_eq!((task.pid, task.tgid, task.comm.as_str()), (13, 12, "a) (b"));
        assert_eq!((task.class.as_str(), task.state_letter(), task.prio), ("ext", 'D', 115));
        assert_eq!((task.parent, task.pgid, task.sid), (Some(1), Some(10), Some(11)));
        assert_eq!((task.runtime_ns, task.cpu, task.static_prio), (123_456, Some(3), Some(115)));
        assert_eq!((task.nvcsw, task.nivcsw), (Some(31), Some(42)));
        // CLK_TCK is 100 on x86.
        assert_eq!((task.utime_ns, task.stime_ns), (Some(1_500_000_000), Some(500_000_000)));
        assert!(!task.kernel_thread);
    }

    #[test]
    fn classes_follow_policy_and_priority() {
        let class = |prio, policy| thread(&stat("x", 'R', prio, policy), &[]).class;
        assert_eq!([class(20, 0), class(-2, 1), class(-101, 6)], ["fair", "rt", "dl"]);
        // A priority lent by a PI lock.
        assert_eq!(class(-10, 0), "rt");
    }

    #[test]
    fn this_very_process_is_among_all() {
        let (all, _) = task_states(Path::new("/")).unwrap();
        let own = all.iter().find(|task| task.pid == i64::from(std::process::id())).expect("ourselves");
        assert!(own.tgid == own.pid && !own.comm.is_empty() && !own.kernel_thread);
    }
}
