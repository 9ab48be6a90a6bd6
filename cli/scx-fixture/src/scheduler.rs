//! The kernel half: loading, attaching, looking at it.

use crate::args::{Args, Ops};
use crate::config::{Fault, ops_head, text};
use crate::error::FixtureError;
use crate::output::LibbpfLog;
use libbpf_rs::{Link, MapCore, MapFlags, MapMut, Object, ObjectBuilder, OpenObject};
use std::fmt;
use std::path::Path;

/// bpf/fixture.bpf.c, compiled by bpf/build.sh.
pub(crate) const OBJECT: &[u8] = include_bytes!("../bpf/fixture.bpf.o");

/// Where a kernel with sched_ext speaks of it.
const SCHED_EXT: &str = "/sys/kernel/sched_ext";
/// The name of the scheduler that the kernel has; absent without one.
const ROOT_OPS: &str = "/sys/kernel/sched_ext/root/ops";

/// `SCX_EXIT_UNREG`, kernel/sched/ext.c: user space closed the link.
const KIND_UNREG: i32 = 64;

/// A loaded scheduler; detached when dropped.
pub(crate) struct Scheduler {
    // Before the object: the link goes first.
    link: Option<Link>,
    object: Object,
    ops: Ops,
}

/// Why a scheduler is no longer the kernel's.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    kind: i32,
    code: i64,
    reason: String,
    message: String,
}

/// The first task that the fault was done to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    pid: i32,
    cpu: i32,
    comm: String,
}

impl Scheduler {
    /// Opens, configures and loads it. What libbpf said of a failure is printed.
    pub(crate) fn load(args: &Args) -> Result<Self, FixtureError> {
        let log = LibbpfLog::capture(args.verifier_log.is_some());
        let ops = args.ops();
        let mut open = open()?;
        configure(&mut open, args)?;
        if let Some(level) = args.verifier_log {
            for mut program in open.progs_mut() {
                program.set_log_level(level);
            }
        }
        let loaded = open.load();
        log.print(loaded.is_err());
        match loaded {
            Ok(object) => Ok(Self { link: None, object, ops }),
            Err(error) if !Path::new(SCHED_EXT).exists() => Err(FixtureError::NoSchedExt(error)),
            Err(error) => Err(FixtureError::Load(error)),
        }
    }

    /// Makes it the kernel's scheduler.
    pub(crate) fn attach(&mut self) -> Result<(), FixtureError> {
        let attached = self.map(self.ops.map())?.attach_struct_ops();
        match attached {
            Ok(link) => self.link = Some(link),
            Err(source) => {
                let said = self.ended()?.map(|ended| ended.to_string());
                let other = std::fs::read_to_string(ROOT_OPS).ok().map(|name| name.trim().to_string());
                return Err(FixtureError::Attach { source, said, other });
            }
        }
        Ok(())
    }

    /// Gives the CPUs back. `ops.exit` has been called when this returns.
    pub(crate) fn detach(&mut self) {
        self.link = None;
    }

    /// Lets the fault happen.
    pub(crate) fn arm(&mut self) -> Result<(), FixtureError> {
        const PART: &str = ".data.control";
        let map = self.map(PART)?;
        map.update(&0u32.to_ne_bytes(), &1u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| FixtureError::Data { doing: "writing", part: PART, why: error.to_string() })
    }

    /// Once a task has suffered.
    pub(crate) fn victim(&mut self) -> Result<Option<Victim>, FixtureError> {
        Ok(Victim::parse(&self.read(".data.victim")?))
    }

    /// How often the fault was done to a task.
    pub(crate) fn victims(&self) -> Result<u32, FixtureError> {
        let bytes = self.read(".data.victim")?;
        Ok(bytes.get(8..).and_then(|rest| rest.first_chunk()).map_or(0, |count| u32::from_ne_bytes(*count)))
    }

    /// Once the kernel has called `ops.exit`.
    pub(crate) fn ended(&self) -> Result<Option<Ended>, FixtureError> {
        Ok(Ended::parse(&self.read(".data.ended")?))
    }

    /// The kernel's debug dump, if it made one.
    pub(crate) fn dump(&self) -> Result<String, FixtureError> {
        Ok(string(&self.read(".bss.dump")?))
    }

    fn map(&mut self, part: &'static str) -> Result<MapMut<'_>, FixtureError> {
        self.object
            .maps_mut()
            .find(|map| map.name() == part)
            .ok_or(FixtureError::Object { part, why: "no such map".into() })
    }

    fn read(&self, part: &'static str) -> Result<Vec<u8>, FixtureError> {
        let failed = |why| FixtureError::Data { doing: "reading", part, why };
        let map = self
            .object
            .maps()
            .find(|map| map.name() == part)
            .ok_or(FixtureError::Object { part, why: "no such map".into() })?;
        map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY)
            .map_err(|error| failed(error.to_string()))?
            .ok_or_else(|| failed("the map has no first entry".into()))
    }
}

/// Named, or libbpf would name object and maps after an address in memory.
fn open() -> Result<OpenObject, FixtureError> {
    ObjectBuilder::default()
        .name("fixture")
        .and_then(|builder| builder.open_memory(OBJECT))
        .map_err(FixtureError::Open)
}

fn configure(open: &mut OpenObject, args: &Args) -> Result<(), FixtureError> {
    let config = args.config().bytes();
    data_of(open, ".rodata.config", |data| {
        if data.len() != config.len() {
            return Err(format!("it has {} bytes, expected {}", data.len(), config.len()));
        }
        data.copy_from_slice(&config);
        Ok(())
    })?;
    let chosen = args.ops();
    for ops in Ops::ALL {
        let mut maps = open.maps_mut();
        let map = maps.find(|map| map.name() == ops.map());
        let failed = |why| FixtureError::Object { part: ops.map(), why };
        let mut map = map.ok_or_else(|| failed("no such map".into()))?;
        map.set_autocreate(ops == chosen).map_err(|error| failed(error.to_string()))?;
    }
    data_of(open, chosen.map(), |data| {
        let len = data.len();
        let mut set = |range: std::ops::Range<usize>, bytes: &[u8]| match data.get_mut(range) {
            Some(place) => {
                place.copy_from_slice(bytes);
                Ok(())
            }
            None => Err(format!("it has only {len} bytes")),
        };
        set(ops_head::NAME, &text::<128>(&args.name))?;
        // So that a task alone on the stalled CPU goes through the queue too.
        let enq_last = if args.kernel_fault() == Fault::StallCpu { ops_head::ENQ_LAST } else { 0 };
        let partial = if args.partial { ops_head::SWITCH_PARTIAL } else { 0 };
        set(ops_head::FLAGS, &(enq_last | partial).to_ne_bytes())?;
        match args.timeout_ms {
            Some(ms) => set(ops_head::TIMEOUT_MS, &ms.to_ne_bytes()),
            None => Ok(()),
        }
    })
}

/// Changes what a map will hold when it is made.
fn data_of(
    open: &mut OpenObject,
    part: &'static str,
    change: impl FnOnce(&mut [u8]) -> Result<(), String>,
) -> Result<(), FixtureError> {
    let failed = |why| FixtureError::Object { part, why };
    let mut map =
        open.maps_mut().find(|map| map.name() == part).ok_or_else(|| failed("no such map".into()))?;
    let data = map.initial_value_mut().ok_or_else(|| failed("it has no initial value".into()))?;
    change(data).map_err(failed)
}

impl Ended {
    /// `ended` of bpf/fixture.bpf.c.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let kind = i32::from_ne_bytes(*bytes.get(8..)?.first_chunk()?);
        (kind != 0).then_some(Self {
            kind,
            code: i64::from_ne_bytes(*bytes.first_chunk()?),
            reason: string(bytes.get(12..76)?),
            message: string(bytes.get(76..1100)?),
        })
    }

    /// Someone closed the link, or the process that held it ended.
    pub(crate) fn by_user(&self) -> bool {
        self.kind == KIND_UNREG
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)?;
        if !self.message.is_empty() {
            write!(f, " ({})", self.message)?;
        }
        if self.code != 0 {
            write!(f, ", code {:#x}", self.code)?;
        }
        write!(f, " [kind {}]", self.kind)
    }
}

impl Victim {
    /// `victim` of bpf/fixture.bpf.c.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let pid = i32::from_ne_bytes(*bytes.first_chunk()?);
        (pid != 0).then_some(Self {
            pid,
            cpu: i32::from_ne_bytes(*bytes.get(4..)?.first_chunk()?),
            comm: string(bytes.get(12..28)?),
        })
    }
}

impl fmt::Display for Victim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}] on CPU {}", self.comm, self.pid, self.cpu)
    }
}

/// Up to the first zero.
fn string(bytes: &[u8]) -> String {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

#[cfg(test)]
mod tests;
