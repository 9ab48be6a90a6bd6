//! What the host's kernel counts of threads: `perf_event_open(2)`, include/uapi/linux/perf_event.h.

use ktstr_machine::VcpuThreads;
use ktstr_monitor::{HostCounters, VcpuCounters};
use std::fs::File;
use std::io::{Error, Read};
use std::os::fd::FromRawFd;
use std::path::Path;

/// Threads of which something is counted: each takes a file descriptor a counter.
const MAX_THREADS: usize = 32;
const PARANOID: &str = "/proc/sys/kernel/perf_event_paranoid";

/// `perf_event_attr` as it was at first (`PERF_ATTR_SIZE_VER0`), which every kernel takes.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    kind: u32,
    size: u32,
    config: u64,
    sample_period: u64,
    sample_type: u64,
    read_format: u64,
    flags: u64,
    wakeup_events: u32,
    breakpoint: u32,
    config1: u64,
}

/// `PERF_FORMAT_TOTAL_TIME_ENABLED` and `_RUNNING`.
const WITH_TIMES: u64 = 1 | 2;
/// `exclude_host`, the 20th flag: guest code alone is counted.
const EXCLUDE_HOST: u64 = 1 << 19;
/// `PERF_FLAG_FD_CLOEXEC`.
const CLOSE_ON_EXEC: libc::c_ulong = 8;
const HARDWARE: u32 = 0;
const SOFTWARE: u32 = 1;

struct Event {
    name: &'static str,
    kind: u32,
    config: u64,
    place: fn(&mut VcpuCounters) -> &mut Option<u64>,
}

/// `enum perf_hw_id` and `enum perf_sw_ids`.
const EVENTS: [Event; 8] = [
    Event { name: "cycles", kind: HARDWARE, config: 0, place: |c| &mut c.cycles },
    Event { name: "instructions", kind: HARDWARE, config: 1, place: |c| &mut c.instructions },
    Event { name: "cache misses", kind: HARDWARE, config: 3, place: |c| &mut c.cache_misses },
    Event { name: "branch misses", kind: HARDWARE, config: 5, place: |c| &mut c.branch_misses },
    Event { name: "time", kind: SOFTWARE, config: 1, place: |c| &mut c.task_clock_ns },
    Event { name: "page faults", kind: SOFTWARE, config: 2, place: |c| &mut c.page_faults },
    Event { name: "context switches", kind: SOFTWARE, config: 3, place: |c| &mut c.context_switches },
    Event { name: "migrations", kind: SOFTWARE, config: 4, place: |c| &mut c.cpu_migrations },
];

/// Counters of a machine's vCPU threads. They are opened by whoever holds this, not by the threads themselves.
#[derive(Debug, Default)]
pub struct PerfCounters {
    /// By thread, those that could be opened: number in [`EVENTS`], and the counter.
    threads: Vec<Vec<(usize, File)>>,
    left_out: Vec<String>,
}

impl HostCounters for PerfCounters {
    fn open(&mut self, threads: &VcpuThreads) {
        *self = Self::default();
        let most = threads.ids.len().min(MAX_THREADS);
        self.threads.resize_with(most, Vec::new);
        let mut refused: Vec<(String, Vec<&str>)> = Vec::new();
        for (number, event) in EVENTS.iter().enumerate() {
            if let Err(why) = self.open_event(number, &threads.ids[..most], threads.guest_mode) {
                match refused.iter_mut().find(|(known, _)| *known == why) {
                    Some((_, names)) => names.push(event.name),
                    None => refused.push((why, vec![event.name])),
                }
            }
        }
        let told = |(why, names): (String, Vec<&str>)| {
            format!("performance counters of the vCPUs ({}): {why}", names.join(", "))
        };
        self.left_out.extend(refused.into_iter().map(told));
        if most < threads.ids.len() {
            let all = threads.ids.len();
            self.left_out
                .push(format!("performance counters: those of the first {most} of {all} vCPUs are read"));
        }
    }

    fn read(&mut self) -> Vec<VcpuCounters> {
        if self.threads.iter().all(Vec::is_empty) {
            return Vec::new();
        }
        let one = |events: &mut Vec<(usize, File)>| {
            let mut counters = VcpuCounters::default();
            for (number, file) in events {
                *(EVENTS[*number].place)(&mut counters) = value(file);
            }
            counters
        };
        self.threads.iter_mut().map(one).collect()
    }

    fn left_out(&self) -> Vec<String> {
        self.left_out.clone()
    }
}

impl PerfCounters {
    /// Opens one counter for each thread; none where one of them can't be had, with the reason.
    fn open_event(&mut self, number: usize, ids: &[u32], guest_mode: bool) -> Result<(), String> {
        let event = &EVENTS[number];
        let open = |id: &u32| open(event, *id, guest_mode).map_err(|e| reason(event, &e));
        let files: Vec<File> = ids.iter().map(open).collect::<Result<_, _>>()?;
        for (events, file) in self.threads.iter_mut().zip(files) {
            events.push((number, file));
        }
        Ok(())
    }
}

fn open(event: &Event, thread: u32, guest_mode: bool) -> Result<File, Error> {
    let only_guest = guest_mode && event.kind == HARDWARE;
    let attributes = Attributes {
        kind: event.kind,
        size: size_of::<Attributes>() as u32,
        config: event.config,
        read_format: WITH_TIMES,
        flags: if only_guest { EXCLUDE_HOST } else { 0 },
        ..Attributes::default()
    };
    let thread = i32::try_from(thread).map_err(|_| Error::from_raw_os_error(libc::ESRCH))?;
    let (any_cpu, no_group) = (-1, -1);
    // SAFETY: the attributes are as long as they say, and live until the call returns.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            &raw const attributes,
            thread,
            any_cpu,
            no_group,
            CLOSE_ON_EXEC,
        )
    };
    match i32::try_from(fd) {
        // SAFETY: the kernel has just opened it for us, and nobody else knows it.
        Ok(fd) if fd >= 0 => Ok(unsafe { File::from_raw_fd(fd) }),
        _ => Err(Error::last_os_error()),
    }
}

/// Why a counter can't be had, in words for whoever reads a report.
fn reason(event: &Event, error: &Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::EOPNOTSUPP | libc::ENOSYS) if event.kind == HARDWARE => {
            "the host's CPUs, as its kernel sees them, count no such thing".to_string()
        }
        Some(libc::EACCES | libc::EPERM) => {
            let level = std::fs::read_to_string(Path::new(PARANOID)).unwrap_or_default();
            let level = level.trim();
            let level = if level.is_empty() { "not known" } else { level };
            format!(
                "the host refuses them (kernel.perf_event_paranoid is {level}: 1 or less, or CAP_PERFMON, allows them)"
            )
        }
        _ => error.to_string(),
    }
}

/// A counter's value; scaled up where it had to share the CPU's counters with others (perf_event_open(2)). `None` where it
/// never got one, or can't be read.
fn value(file: &mut File) -> Option<u64> {
    let mut bytes = [0; 24];
    file.read_exact(&mut bytes).ok()?;
    let [value, enabled, running] =
        [0, 8, 16].map(|at: usize| bytes[at..].first_chunk().map_or(0, |word| u64::from_ne_bytes(*word)));
    scaled(value, enabled, running)
}

fn scaled(value: u64, enabled: u64, running: u64) -> Option<u64> {
    match (enabled, running) {
        (0, _) => Some(value),
        (_, 0) => None,
        _ if running >= enabled => Some(value),
        _ => u64::try_from(u128::from(value) * u128::from(enabled) / u128::from(running)).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn a_shared_counter_is_scaled_and_one_that_never_ran_says_nothing() {
        assert_eq!(scaled(7, 0, 0), Some(7));
        assert_eq!(scaled(7, 10, 0), None);
        assert_eq!(scaled(7, 10, 10), Some(7));
        assert_eq!(scaled(7, 10, 5), Some(14));
        assert_eq!(scaled(u64::MAX, 10, 5), None);
    }

    #[test]
    fn reasons_say_what_would_help() {
        let of = |event: usize, code| reason(&EVENTS[event], &Error::from_raw_os_error(code));
        assert!(of(0, libc::ENOENT).contains("count no such thing"));
        assert!(of(4, libc::EACCES).contains("perf_event_paranoid is"));
        assert!(of(4, libc::EMFILE).contains("open files"));
    }

    /// Of this host's: what it counts grows with what a thread does, and what it doesn't has a reason.
    #[test]
    fn what_a_thread_does_is_counted_or_has_a_reason() {
        let (tell, told) = channel();
        let (go, wait) = channel::<()>();
        let worker = std::thread::spawn(move || {
            // SAFETY: takes nothing and can't fail.
            let id = unsafe { libc::gettid() };
            tell.send(u32::try_from(id).unwrap()).unwrap();
            wait.recv().unwrap();
            let pages: Vec<u8> = vec![1; 8 << 20];
            let sum: u64 = pages.iter().map(|page| u64::from(*page)).sum();
            tell.send(u32::from(sum > 0)).unwrap();
            let _ = wait.recv();
        });
        let mut counters = PerfCounters::default();
        let ids = vec![told.recv().unwrap()];
        counters.open(&VcpuThreads { ids, guest_mode: false });
        go.send(()).unwrap();
        assert_eq!(told.recv().unwrap(), 1);
        let (read, left_out) = (counters.read(), counters.left_out());
        match read.first() {
            None => assert!(!left_out.is_empty(), "nothing is counted, for no reason"),
            Some(found) => {
                assert!(found.page_faults.is_none_or(|faults| faults > 100), "{found:?}");
                assert!(found.task_clock_ns.is_none_or(|ns| ns > 0), "{found:?}");
                let missing = found.cycles.is_none() || found.page_faults.is_none();
                assert_eq!(missing, !left_out.is_empty(), "{found:?} {left_out:?}");
            }
        }
        drop(go);
        worker.join().unwrap();
    }
}
