//! Scheduling events, traced by the kernel (Documentation/trace/ftrace.rst, events.rst).
//!
//! A recorder has a trace instance of its own: buffers, filters and switches that nobody else's tracing sees. The buffers
//! are rings, so they hold what happened last; nothing is read while it records, so recording costs no more than the
//! events themselves.

mod guard;
mod instance;

use guard::Guard;
use instance::Instance;
use ktstr_live::{Decoder, DecoderError, Lost, Timeline, TracePoint};
use ktstr_topology::CpuSet;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Where tracefs may be.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
/// The smallest and the largest ring that is asked for, KiB a CPU.
const BUFFER_KIB: std::ops::RangeInclusive<u32> = 16..=1 << 18;
/// A page of the ring is never larger: `subbuf_size_kb` is at most 8 pages of 64 KiB.
const LARGEST_PAGE: usize = 1 << 20;

/// Larger than any text that comes in one piece.
const PIECE: usize = 64 << 10;

/// What is to be recorded, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceRequest {
    /// The kinds of event; what this kernel doesn't have is told in the timeline.
    pub points: Vec<TracePoint>,
    /// The CPUs; all without.
    pub cpus: Option<CpuSet>,
    /// Only what these threads do or is done to them, and their children from birth on; all with none. The kernel looks
    /// at who runs (`set_event_pid`): a lock waited for by a thread that is not named is not recorded.
    pub pids: Vec<i32>,
    /// Size of each CPU's ring, KiB: a record takes some 50 bytes.
    pub buffer_kib: u32,
    /// Most records in the timeline: the last.
    pub max_records: usize,
}

impl Default for TraceRequest {
    /// All kinds, on all CPUs, of all threads, in 2 MiB a CPU, at most a million records.
    fn default() -> Self {
        Self {
            points: TracePoint::ALL.to_vec(),
            cpus: None,
            pids: Vec::new(),
            buffer_kib: 2048,
            max_records: 1 << 20,
        }
    }
}

/// Events can't be recorded.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// No tracefs.
    #[error(
        "recording scheduling events: no tracefs at {} or {}; mount it there (`mount -t tracefs nodev {}`), as root, on a \
         kernel with CONFIG_TRACING", TRACEFS[0], TRACEFS[1], TRACEFS[0]
    )]
    NoTracefs,
    /// A file of tracefs does not do as it should.
    #[error("recording scheduling events: {doing} ({}): {source}", path.display())]
    File {
        /// What was tried.
        doing: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// None of the events that were asked for is there.
    #[error(
        "recording scheduling events: this kernel has none of those asked for; it takes CONFIG_EVENT_TRACING"
    )]
    NoEvents,
    /// The events are not understood.
    #[error("recording scheduling events: {0}")]
    Format(#[from] DecoderError),
    /// The process that is to clean up can't be started.
    #[error("recording scheduling events: starting the process that takes the trace instance away: {0}")]
    Guard(io::Error),
    /// The request can't be fulfilled.
    #[error(
        "recording scheduling events: expected a buffer of {least} to {most} KiB a CPU, got {kib}",
        least = BUFFER_KIB.start(), most = BUFFER_KIB.end()
    )]
    Buffer {
        /// What was asked for.
        kib: u32,
    },
}

/// Records until it is told to finish. The trace instance goes when this does; where the process dies, even by SIGKILL, a
/// process that waits for nothing else takes it away; and what both left behind, the next recorder does.
#[derive(Debug)]
pub struct Recorder {
    // Its process is stopped before the instance goes.
    guard: Guard,
    instance: Instance,
    decoder: Decoder,
    missing: Vec<String>,
    max_records: usize,
}

impl Recorder {
    /// Begins to record.
    ///
    /// # Errors
    /// [`TraceError`]; nothing is left behind then.
    pub fn start(request: &TraceRequest) -> Result<Self, TraceError> {
        let is_there = |path: &&str| Path::new(path).join("instances").is_dir();
        let tracefs = TRACEFS.iter().find(|path| is_there(path)).ok_or(TraceError::NoTracefs)?;
        Self::at(Path::new(tracefs), request)
    }

    fn at(tracefs: &Path, request: &TraceRequest) -> Result<Self, TraceError> {
        if !BUFFER_KIB.contains(&request.buffer_kib) {
            return Err(TraceError::Buffer { kib: request.buffer_kib });
        }
        instance::sweep(tracefs);
        // The guard is there first: this process may be killed at any instant.
        let place = instance::place(tracefs);
        let guard = Guard::start(&place).map_err(TraceError::Guard)?;
        let instance = Instance::create(place)?;
        instance.write("tracing_on", "0")?;
        // Nanoseconds of CLOCK_MONOTONIC, alike on all CPUs and for user space.
        instance.write("trace_clock", "mono")?;
        instance.write("buffer_size_kb", &request.buffer_kib.to_string())?;
        instance.write("options/overwrite", "1")?;
        if let Some(cpus) = &request.cpus {
            instance.write("tracing_cpumask", &mask(cpus))?;
        }
        if !request.pids.is_empty() {
            let pids: Vec<String> = request.pids.iter().map(ToString::to_string).collect();
            instance.write("set_event_pid", &pids.join(" "))?;
            instance.write("options/event-fork", "1")?;
        }
        let (mut formats, mut missing) = (Vec::new(), Vec::new());
        for point in &request.points {
            let (system, event) = point.path();
            let folder = format!("events/{system}/{event}");
            match instance.read(&format!("{folder}/format")) {
                Ok(format) => {
                    instance.write(&format!("{folder}/enable"), "1")?;
                    formats.push((*point, format));
                }
                Err(TraceError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    missing.push(format!("this kernel has no event {system}:{event}"));
                }
                Err(e) => return Err(e),
            }
        }
        if formats.is_empty() {
            return Err(TraceError::NoEvents);
        }
        let header = instance.read("events/header_page").or_else(|_| read(tracefs, "events/header_page"))?;
        let decoder = Decoder::new(&header, formats.iter().map(|(point, text)| (*point, text.as_str())))?;
        instance.write("tracing_on", "1")?;
        Ok(Self { guard, instance, decoder, missing, max_records: request.max_records })
    }

    /// The trace instance's directory, for who wants to look at it meanwhile.
    #[must_use]
    pub fn instance(&self) -> &Path {
        self.instance.path()
    }

    /// Records nothing more, until [`Recorder::resume`].
    ///
    /// # Errors
    /// [`TraceError::File`]
    pub fn pause(&self) -> Result<(), TraceError> {
        self.instance.write("tracing_on", "0")
    }

    /// Goes on.
    ///
    /// # Errors
    /// [`TraceError::File`]
    pub fn resume(&self) -> Result<(), TraceError> {
        self.instance.write("tracing_on", "1")
    }

    /// Ends it: what was recorded, with what was lost.
    ///
    /// # Errors
    /// [`TraceError::File`]
    pub fn finish(self) -> Result<Timeline, TraceError> {
        self.pause()?;
        let mut timeline = Timeline::default();
        for cpu in self.instance.cpus()? {
            timeline.merge(self.of_cpu(cpu)?);
        }
        timeline.keep_latest(self.max_records);
        timeline.problems.extend(self.missing.iter().cloned());
        // The guard goes first: what it would take away is going.
        let Self { guard, instance, .. } = self;
        guard.stop();
        instance.remove()?;
        Ok(timeline)
    }

    fn of_cpu(&self, cpu: u32) -> Result<Timeline, TraceError> {
        let folder = format!("per_cpu/cpu{cpu}");
        let stats = Stats::parse(&self.instance.read(&format!("{folder}/stats"))?);
        let (bytes, page_size) = self.raw(&format!("{folder}/trace_pipe_raw"))?;
        let mut timeline = self.decoder.pages(cpu, &bytes, page_size);
        // The kernel's own count is of all that was lost, also where the pages tell of a part.
        if let Some(lost) = stats.lost(cpu) {
            timeline.lost = vec![lost];
        }
        let read = timeline.records.len() as u64;
        if stats.entries > read && timeline.problems.is_empty() {
            let missing = stats.entries - read;
            timeline.problems.push(format!("the trace of cpu{cpu}: {missing} events came in no page of it"));
        }
        Ok(timeline)
    }

    /// All that a CPU's ring holds, in pages of that size.
    fn raw(&self, name: &str) -> Result<(Vec<u8>, usize), TraceError> {
        let path = self.instance.path().join(name);
        let failed =
            |source| TraceError::File { doing: "reading a CPU's events", path: path.clone(), source };
        let mut pipe = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .map_err(failed)?;
        let (mut all, mut page_size, mut buffer) = (Vec::new(), 0, vec![0; LARGEST_PAGE]);
        loop {
            // A read gives at most one page.
            match pipe.read(&mut buffer) {
                Ok(0) => return Ok((all, page_size)),
                Ok(length) => {
                    page_size = length;
                    all.extend_from_slice(&buffer[..length]);
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok((all, page_size)),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(e)),
            }
        }
    }
}

/// `per_cpu/cpuN/stats`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stats {
    /// Events in the ring that were not read.
    entries: u64,
    /// Overwritten by later ones.
    overrun: u64,
    /// Not written, as an interrupt came while another was writing.
    refused: u64,
}

impl Stats {
    fn parse(text: &str) -> Self {
        let of = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<u64>().ok()).unwrap_or(0)
        };
        let refused = of("commit overrun").saturating_add(of("dropped events"));
        Self { entries: of("entries"), overrun: of("overrun"), refused }
    }

    fn lost(&self, cpu: u32) -> Option<Lost> {
        let records = self.overrun.saturating_add(self.refused);
        let why = match (self.overrun, self.refused) {
            (0, 0) => return None,
            (_, 0) => "overwritten by later ones: a larger buffer holds more".to_string(),
            (over, refused) => format!("{over} overwritten by later ones, {refused} not written in time"),
        };
        Some(Lost { cpu, records: Some(records), why })
    }
}

/// As the kernel reads it: hexadecimal groups of 32 CPUs, the highest first (`bitmap_parse`).
fn mask(cpus: &CpuSet) -> String {
    let last = cpus.iter().max().unwrap_or(0);
    let mut groups = vec![0u32; last as usize / 32 + 1];
    cpus.iter().for_each(|cpu| groups[cpu as usize / 32] |= 1 << (cpu % 32));
    groups.iter().rev().map(|group| format!("{group:08x}")).collect::<Vec<_>>().join(",")
}

/// Whole, as far as the kernel gives it in pieces that are not small: some files of tracefs give their text to the first
/// read alone (`show_header`, kernel/trace/trace_events.c), and what that has no room for is lost.
fn read(folder: &Path, name: &str) -> Result<String, TraceError> {
    let path = folder.join(name);
    let failed = |source| TraceError::File { doing: "reading a file of tracefs", path: path.clone(), source };
    let mut file = std::fs::File::open(&path).map_err(failed)?;
    let (mut all, mut buffer) = (Vec::new(), vec![0; PIECE]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(String::from_utf8_lossy(&all).into_owned()),
            Ok(length) => all.extend_from_slice(&buffer[..length]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_a_mask_in_groups() {
        assert_eq!(mask(&CpuSet::from([0, 1, 3])), "0000000b");
        assert_eq!(mask(&CpuSet::from([0, 33])), "00000002,00000001");
    }

    #[test]
    fn what_was_lost_is_the_sum_of_the_kernels_counts() {
        let text = "entries: 129\noverrun: 7\ncommit overrun: 2\nbytes: 4224\noldest event ts: 1.5\nnow ts: 2.5\n\
                    dropped events: 1\nread events: 0\n";
        let stats = Stats::parse(text);
        assert_eq!(stats, Stats { entries: 129, overrun: 7, refused: 3 });
        let lost = stats.lost(4).unwrap();
        assert_eq!((lost.cpu, lost.records), (4, Some(10)));
        assert_eq!(Stats::parse("entries: 5\n").lost(0), None);
    }

    #[test]
    fn a_system_that_traces_nothing_says_so() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("instances")).unwrap();
        let why = |request: &TraceRequest| Recorder::at(dir.path(), request).unwrap_err().to_string();
        // A plain directory has no files in it, and is gone again.
        assert!(why(&TraceRequest::default()).contains("tracing_on"));
        assert_eq!(std::fs::read_dir(dir.path().join("instances")).unwrap().count(), 0);
        let small = TraceRequest { buffer_kib: 1, ..TraceRequest::default() };
        assert!(why(&small).contains("expected a buffer of 16 to 262144 KiB a CPU, got 1"));
    }
}
