//! The kernel's debug dump of a scheduler that failed, as data.
//!
//! `scx_dump_state()` and `scx_dump_task()` of `kernel/sched/ext.c` (6.12) write it, a line
//! at a time, into the exit information and the trace event `sched_ext_dump`:
//!
//! ```text
//! kworker/u8:1[34] triggered exit kind 1026:
//!   runnable task stall (stress[71] failed to run for 2.001s)
//! …
//! CPU 1   : nr_run=1 flags=0x1 cpu_rel=0 ops_qseq=12 pnt_seq=40
//!           curr=swapper/1[0] class=idle_sched_class
//!
//!   R stress[71] -2001ms
//!       scx_state/flags=3/0x9 dsq_flags=0x0 ops_state/qseq=0/0
//!       sticky/holding_cpu=-1/-1 dsq_id=(n/a) dsq_vtime=0 slice=20000000 weight=100
//!       cpus=f
//! ```

use serde::{Deserialize, Serialize};

/// A task of the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpTask {
    /// Its name.
    pub comm: String,
    /// Its pid.
    pub pid: u32,
    /// `R`, `S` … as `task_state_to_char()` has it.
    pub state: char,
    /// True if it was on the CPU.
    pub current: bool,
    /// How long it had been runnable, ms.
    pub runnable_ms: i64,
    /// The dispatch queue it was on, as printed; `(n/a)` for none.
    pub dsq: String,
    /// The CPUs that it may use, as the kernel's hex mask.
    pub cpus: String,
}

/// A CPU of the dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DumpCpu {
    /// Its number.
    pub cpu: u32,
    /// Runnable tasks of sched_ext.
    pub nr_run: u32,
    /// What it ran, `comm[pid]`.
    pub curr: String,
    /// The scheduling class of that.
    pub class: String,
    /// Its runnable tasks.
    pub tasks: Vec<DumpTask>,
}

/// The whole dump.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScxDump {
    /// The first line: who triggered it.
    pub trigger: String,
    /// CPUs with runnable tasks, in the dump's order.
    pub cpus: Vec<DumpCpu>,
}

impl ScxDump {
    /// Reads a dump; `None` if the text holds none. Lines of other kinds are passed over, so
    /// that a kernel that prints more is understood as far as it goes.
    pub fn parse(text: &str) -> Option<Self> {
        let mut dump = Self::default();
        for line in text.lines() {
            if dump.trigger.is_empty() && line.contains("] triggered exit kind ") {
                dump.trigger = line.trim().trim_end_matches(':').to_string();
            } else if let Some(cpu) = cpu(line) {
                dump.cpus.push(cpu);
            } else if let Some(cpu) = dump.cpus.last_mut() {
                cpu.line(line);
            }
        }
        (!dump.trigger.is_empty() || !dump.cpus.is_empty()).then_some(dump)
    }

    /// The CPU whose queue a task was found on.
    pub fn cpu_of(&self, pid: u32) -> Option<u32> {
        self.cpus.iter().find(|cpu| cpu.tasks.iter().any(|t| t.pid == pid)).map(|cpu| cpu.cpu)
    }

    /// The task with that pid.
    pub fn task(&self, pid: u32) -> Option<&DumpTask> {
        self.cpus.iter().flat_map(|cpu| &cpu.tasks).find(|t| t.pid == pid)
    }
}

impl DumpCpu {
    fn line(&mut self, line: &str) {
        let text = line.trim();
        if let Some(rest) = text.strip_prefix("curr=") {
            if let Some((curr, class)) = rest.rsplit_once(" class=") {
                (self.curr, self.class) = (curr.to_string(), class.to_string());
            }
        } else if let Some(task) = task(line) {
            self.tasks.push(task);
        } else if let Some(task) = self.tasks.last_mut() {
            if let Some(dsq) = field(text, "dsq_id=") {
                task.dsq = dsq.to_string();
            }
            if let Some(cpus) = text.strip_prefix("cpus=") {
                task.cpus = cpus.split_whitespace().next().unwrap_or_default().to_string();
            }
        }
    }
}

/// `CPU 1   : nr_run=1 flags=…`
fn cpu(line: &str) -> Option<DumpCpu> {
    let (number, rest) = line.trim().strip_prefix("CPU ")?.split_once(':')?;
    let nr_run = field(rest, "nr_run=")?.parse().ok()?;
    Some(DumpCpu { cpu: number.trim().parse().ok()?, nr_run, ..DumpCpu::default() })
}

/// ` *R stress[71] -2001ms`; the star marks what is on the CPU.
fn task(line: &str) -> Option<DumpTask> {
    let text = line.trim_start();
    let current = text.starts_with('*');
    let text = text.trim_start_matches('*');
    let mut chars = text.chars();
    let state = chars.next().filter(char::is_ascii_alphabetic)?;
    let rest = chars.as_str().strip_prefix(' ')?;
    let (task, since) = rest.rsplit_once(' ')?;
    let since: i64 = since.strip_suffix("ms")?.parse().ok()?;
    let (comm, pid) = task.strip_suffix(']')?.rsplit_once('[')?;
    Some(DumpTask {
        comm: comm.to_string(),
        pid: pid.parse().ok()?,
        state,
        current,
        // The kernel prints the instant relative to the dump: in the past, so negative.
        runnable_ms: since.checked_neg()?,
        ..DumpTask::default()
    })
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let at = text.find(name)?;
    text[at + name.len()..].split_whitespace().next()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DUMP: &str = "kworker/u8:1[34] triggered exit kind 1026:\n  \
        runnable task stall (stress[71] failed to run for 2.001s)\n\nBacktrace:\n  scx_watchdog_workfn+0x1/0x2\n\n\
        CPU states\n----------\n\n\
        CPU 0   : nr_run=1 flags=0x1 cpu_rel=0 ops_qseq=12 pnt_seq=40\n          \
        curr=worker a[7] class=ext_sched_class\n\n \
        *R worker a[7] -3ms\n      scx_state/flags=3/0xd dsq_flags=0x0 ops_state/qseq=0/0\n      \
        sticky/holding_cpu=-1/-1 dsq_id=(n/a) dsq_vtime=0 slice=1 weight=100\n      cpus=1\n\n\
        CPU 1   : nr_run=1 flags=0x1 cpu_rel=0 ops_qseq=12 pnt_seq=40\n          \
        curr=swapper/1[0] class=idle_sched_class\n\n  \
        R stress[71] -2001ms\n      scx_state/flags=3/0x9 dsq_flags=0x1 ops_state/qseq=0/0\n      \
        sticky/holding_cpu=-1/-1 dsq_id=0x7 dsq_vtime=0 slice=20000000 weight=100\n      cpus=f\n";

    #[test]
    fn tasks_are_found_with_their_cpus() {
        let dump = ScxDump::parse(DUMP).unwrap();
        assert_eq!(dump.trigger, "kworker/u8:1[34] triggered exit kind 1026");
        assert_eq!(dump.cpu_of(71), Some(1));
        let task = dump.task(71).unwrap();
        assert_eq!((task.comm.as_str(), task.runnable_ms, task.state), ("stress", 2001, 'R'));
        assert_eq!((task.dsq.as_str(), task.cpus.as_str(), task.current), ("0x7", "f", false));
        assert!(dump.task(7).unwrap().current);
        assert_eq!(dump.cpus[1].class, "idle_sched_class");
        assert_eq!(dump.cpus[0].curr, "worker a[7]");
    }

    #[test]
    fn text_of_another_kind_is_no_dump() {
        assert_eq!(ScxDump::parse("nothing\nto see"), None);
    }

    proptest! {
        #[test]
        fn no_text_can_upset_the_reader(text in any::<String>(), pid in any::<u32>()) {
            let _ = ScxDump::parse(&text);
            let _ = ScxDump::parse(&format!("CPU {pid} : nr_run={pid}\n curr={text} class=\n R {text}[{pid}] -{pid}ms\n cpus={text}"));
        }
    }
}
