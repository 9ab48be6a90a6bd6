//! BPF programs of our own, by bpf(2): loaded, attached, run, and the arrays that they write to.

use crate::bpf::{bpf, bpf_fd};
use std::ffi::CStr;
use std::io::{Error, Result};
use std::os::fd::{AsRawFd, OwnedFd};

/// `enum bpf_cmd` of include/uapi/linux/bpf.h.
const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_PROG_TEST_RUN: libc::c_long = 10;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
/// `enum bpf_map_type`.
const ARRAY: u32 = 2;
/// `BPF_F_SLEEPABLE`.
const SLEEPABLE: u32 = 1 << 4;
/// It calls helpers that are for GPL-compatible programs only.
const LICENSE: &CStr = c"Dual MIT/GPL";
/// Of the verifier's log.
const LOG_BYTES: usize = 64 << 10;

/// What a program is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind<'a> {
    /// A raw tracepoint.
    RawTracepoint,
    /// Being run by [`Program::run`].
    Syscall,
    /// The entry of another program.
    Entry(Target<'a>),
    /// Its exit.
    Exit(Target<'a>),
}

/// A program that another is attached to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target<'a> {
    pub(crate) program: &'a OwnedFd,
    /// The type of its function, by number, in its own BTF.
    pub(crate) function: u32,
}

impl Kind<'_> {
    /// `enum bpf_prog_type`, `prog_flags`, `enum bpf_attach_type`.
    fn numbers(self) -> (u32, u32, u32) {
        match self {
            Self::RawTracepoint => (17, 0, 0),
            Self::Syscall => (31, SLEEPABLE, 0),
            Self::Entry(_) => (26, 0, 24),
            Self::Exit(_) => (26, 0, 25),
        }
    }

    fn target(self) -> Option<(u32, u32)> {
        match self {
            Self::RawTracepoint | Self::Syscall => None,
            Self::Entry(target) | Self::Exit(target) => {
                Some((target.function, target.program.as_raw_fd() as u32))
            }
        }
    }
}

/// A loaded program; unloaded when dropped, unless something holds it still.
pub(crate) struct Program(OwnedFd);

/// Where a program is attached, until dropped.
pub(crate) struct Link {
    _link: OwnedFd,
}

/// `union bpf_attr` of `BPF_PROG_LOAD`, up to what it is attached to.
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    _device: u32,
    attach_type: u32,
    _types: [u32; 9],
    attach_function: u32,
    attach_program: u32,
    _zero: u32,
}

/// Of `BPF_RAW_TRACEPOINT_OPEN`.
#[repr(C)]
struct Open {
    name: u64,
    program: u32,
    _zero: u32,
}

/// Of `BPF_MAP_LOOKUP_ELEM`.
#[repr(C)]
struct Lookup {
    map: u32,
    _zero: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Of `BPF_PROG_TEST_RUN`.
#[repr(C)]
struct Run {
    program: u32,
    returned: u32,
    _zeros: [u64; 9],
}

impl Program {
    /// Has the kernel verify and compile the program.
    ///
    /// # Errors
    /// In words, with the verifier's last.
    pub(crate) fn load(
        kind: Kind<'_>,
        name: &str,
        instructions: &[u64],
    ) -> std::result::Result<Self, String> {
        let failed = match Self::try_load(kind, name, instructions, &mut []) {
            Ok(program) => return Ok(program),
            Err(e) => e,
        };
        let mut log = vec![0; LOG_BYTES];
        // For its words on what went wrong; should it go well this time, so much the better.
        if let Ok(program) = Self::try_load(kind, name, instructions, &mut log) {
            return Ok(program);
        }
        let said = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy();
        let last = said.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed "));
        let last = last.map(|last| format!("; the verifier said {last:?}")).unwrap_or_default();
        Err(format!("loading the BPF program {name}: {failed}{last}"))
    }

    fn try_load(kind: Kind<'_>, name: &str, instructions: &[u64], log: &mut [u8]) -> Result<Self> {
        let (number, flags, attach_type) = kind.numbers();
        let (attach_function, attach_program) = kind.target().unwrap_or_default();
        let mut attr = Load {
            kind: number,
            count: instructions.len() as u32,
            instructions: instructions.as_ptr() as u64,
            license: LICENSE.as_ptr() as u64,
            log_level: u32::from(!log.is_empty()),
            log_size: log.len() as u32,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr() as u64 },
            kernel_version: 0,
            flags,
            name: short(name),
            _device: 0,
            attach_type,
            _types: [0; 9],
            attach_function,
            attach_program,
            _zero: 0,
        };
        bpf_fd(BPF_PROG_LOAD, &mut attr).map(Self)
    }

    /// Attaches it to that raw tracepoint; without one, to the program that it was loaded for.
    pub(crate) fn attach(&self, tracepoint: Option<&CStr>) -> Result<Link> {
        let name = tracepoint.map_or(0, |name| name.as_ptr() as u64);
        let mut attr = Open { name, program: self.0.as_raw_fd() as u32, _zero: 0 };
        bpf_fd(BPF_RAW_TRACEPOINT_OPEN, &mut attr).map(|link| Link { _link: link })
    }

    /// Runs it once, here and now; what it returned.
    pub(crate) fn run(&self) -> Result<u32> {
        let mut attr = Run { program: self.0.as_raw_fd() as u32, returned: 0, _zeros: [0; 9] };
        bpf(BPF_PROG_TEST_RUN, &mut attr)?;
        Ok(attr.returned)
    }
}

/// An array of one element, which a program writes to.
pub(crate) struct Element<const LEN: usize>(OwnedFd);

impl<const LEN: usize> Element<LEN> {
    /// All zeros.
    pub(crate) fn new() -> Result<Self> {
        // map_type, key_size, value_size, max_entries
        bpf_fd(BPF_MAP_CREATE, &mut [ARRAY, 4, LEN as u32, 1]).map(Self)
    }

    /// For the program's instructions.
    pub(crate) fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }

    /// What it holds now.
    pub(crate) fn read(&self) -> Result<[u8; LEN]> {
        let mut value = [0; LEN];
        first_value(&self.0, &mut value)?;
        Ok(value)
    }
}

/// The value of key 0 of a map whose values are as long as `value`.
pub(crate) fn first_value(map: &OwnedFd, value: &mut [u8]) -> Result<()> {
    let key = 0u32;
    let mut attr = Lookup {
        map: map.as_raw_fd() as u32,
        _zero: 0,
        key: (&raw const key) as u64,
        value: value.as_mut_ptr() as u64,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attr).map(drop)
}

/// As much of a name as the kernel keeps, with a zero at its end.
fn short(name: &str) -> [u8; 16] {
    let mut bytes = [0; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    bytes
}

/// For errors that say what was being done.
pub(crate) fn doing(what: &str) -> impl Fn(Error) -> String {
    move |e| format!("{what}: {e}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_the_kernels() {
        assert_eq!((std::mem::offset_of!(Load, log), std::mem::offset_of!(Load, name)), (32, 48));
        let attach = (std::mem::offset_of!(Load, attach_type), std::mem::offset_of!(Load, attach_function));
        assert_eq!((attach, std::mem::offset_of!(Load, attach_program)), ((68, 108), 112));
        assert_eq!((size_of::<Load>(), size_of::<Run>(), size_of::<Lookup>()), (120, 80, 32));
        assert_eq!(&short("a_name_that_is_too_long"), b"a_name_that_is_\0");
    }
}
