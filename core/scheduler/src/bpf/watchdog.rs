//! The two programs that set the timeout of the kernel's watchdog and ask for it.
//!
//! Why not simply write the kernel's variable: the watchdog looks at waiting tasks when its work is due, every half of
//! the timeout that held when the work was last queued (`scx_watchdog_workfn`, kernel/sched/ext.c, 6.12). Make the timeout
//! shorter after the scheduler was enabled, and `scx_tick` finds a watchdog that "failed to check in". So it is set where
//! the kernel reads it: in the `struct sched_ext_ops` that a scheduler's program hands over when it attaches.

use super::assemble::Code;
use super::assemble::Reg::{R0, R1, R2, R3, R6, R7, R8, R9, R10};
use crate::WatchdogOrder;
use crate::ports::KernelTypes;

/// `BPF_MAP_UPDATE_ELEM` of `enum bpf_cmd`.
const MAP_UPDATE_ELEM: i32 = 2;
/// `BPF_MAP_TYPE_STRUCT_OPS` of `enum bpf_map_type`.
const STRUCT_OPS: i32 = 26;

/// Numbers of `enum bpf_func_id`.
const GET_CURRENT_PID_TGID: i32 = 14;
const GET_CURRENT_TASK: i32 = 35;
const PROBE_WRITE_USER: i32 = 36;
const KALLSYMS_LOOKUP_NAME: i32 = 179;

/// What [`effective_timeout`] returns when the number can't be read.
const UNREAD: i32 = -1;

/// Where things are in the structures of one kernel, in bytes, and what type a scheduler's map has there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// `struct pt_regs`: the first two arguments of a system call.
    arguments: [i32; 2],
    files: i32,
    fdt: i32,
    max_fds: i32,
    fd: i32,
    private_data: i32,
    map_type: i32,
    value_type: i32,
    /// The type of such a map's value.
    ops_type: i32,
    /// In that value, `sched_ext_ops.timeout_ms`.
    timeout: i32,
    /// Up to 7.0 the timeout is a variable; later a member of `struct scx_sched`.
    in_scheduler: Option<i32>,
}

/// What a scheduler's map holds: `struct bpf_struct_ops_sched_ext_ops`.
pub const OPS: &str = "bpf_struct_ops_sched_ext_ops";

impl Places {
    /// By the types of that kernel.
    ///
    /// # Errors
    /// What it lacks, in words.
    pub fn of(types: &dyn KernelTypes) -> Result<Self, String> {
        let find = |of: &str, path: &str| -> Option<i32> {
            match types.member(of, path)?.offsets[..] {
                [offset] => i32::try_from(offset).ok(),
                _ => None,
            }
        };
        let at = |of: &str, path: &str| {
            find(of, path).ok_or_else(|| format!("the kernel's types (BTF) have no member {of}.{path}"))
        };
        // x86-64's names, else arm64's.
        let argument = |name: &str, number: usize| {
            find("pt_regs", name).map_or_else(|| at("pt_regs", &format!("regs[{number}]")), Ok)
        };
        let ops_type = types.id(OPS).and_then(|id| i32::try_from(id).ok());
        Ok(Self {
            arguments: [argument("di", 0)?, argument("si", 1)?],
            files: at("task_struct", "files")?,
            fdt: at("files_struct", "fdt")?,
            max_fds: at("fdtable", "max_fds")?,
            fd: at("fdtable", "fd")?,
            private_data: at("file", "private_data")?,
            map_type: at("bpf_map", "map_type")?,
            value_type: at("bpf_map", "btf_vmlinux_value_type_id")?,
            ops_type: ops_type.ok_or_else(|| {
                format!("the kernel's types (BTF) have no struct {OPS}: it has no sched_ext")
            })?,
            timeout: at(OPS, "data.timeout_ms")?,
            in_scheduler: find("scx_sched", "watchdog_timeout"),
        })
    }
}

/// What [`override_timeout`] leaves in its map, an array of one such element.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WatchdogRecord {
    /// Schedulers that were handed over.
    pub seen: u32,
    /// `timeout_ms` of the last, as its program had it; 0 stands for the kernel's most.
    pub own_ms: u32,
    /// 0 if it was overwritten, 1 if it was left alone, else a negative errno.
    pub result: i32,
    /// The process that handed it over.
    pub pid: u32,
}

impl WatchdogRecord {
    /// Bytes of one in the map.
    pub const LEN: usize = 16;

    /// From the map's bytes.
    pub fn parse(bytes: [u8; Self::LEN]) -> Self {
        let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { seen: word(0), own_ms: word(4), result: word(8) as i32, pid: word(12) }
    }
}

/// A program for the raw tracepoint `sys_enter` that overwrites `timeout_ms` of a scheduler that some process is about to
/// hand over, in that process's memory: `bpf` is the number of bpf(2), `record` the descriptor of the array it tells of
/// itself in.
///
/// It goes by the kind of the map that is updated, not by the process: nothing but a scheduler that is being attached
/// updates such a map, and its program may be a child of a child of the one that was started.
pub fn override_timeout(places: &Places, order: WatchdogOrder, bpf: i32, record: i32) -> Vec<u64> {
    // On the stack: a number, the key of the record, the beginning of `union bpf_attr`.
    const NUMBER: i16 = -8;
    const KEY: i16 = -12;
    const ATTR: i16 = -40;
    const ATTR_LEN: i32 = 24;
    const VALUE: i16 = ATTR + 16;
    let mut code = Code::new();
    let (out, told) = (code.label(), code.label());
    code.load(R7, R1, 8);
    code.jump_unless_equal(R7, bpf, out);
    code.load(R7, R1, 0);
    code.read_kernel(NUMBER, 8, R7, places.arguments[0]);
    code.load_u32(R1, R10, NUMBER);
    code.jump_unless_equal(R1, MAP_UPDATE_ELEM, out);
    code.read_kernel(NUMBER, 8, R7, places.arguments[1]);
    code.load(R6, R10, NUMBER);
    code.read_user(ATTR, ATTR_LEN, R6, 0);
    code.jump_unless_equal(R0, 0, out);
    // The map behind the descriptor: current->files->fdt->fd[map_fd]->private_data
    code.call(GET_CURRENT_TASK);
    code.copy(R7, R0);
    for offset in [places.files, places.fdt] {
        code.read_kernel(NUMBER, 8, R7, offset);
        code.load(R7, R10, NUMBER);
    }
    code.read_kernel(NUMBER, 4, R7, places.max_fds);
    code.load_u32(R6, R10, ATTR);
    code.load_u32(R1, R10, NUMBER);
    code.jump_unless_below(R6, R1, out);
    code.read_kernel(NUMBER, 8, R7, places.fd);
    code.load(R7, R10, NUMBER);
    code.shift_left(R6, 3);
    code.add_reg(R7, R6);
    for offset in [0, places.private_data] {
        code.read_kernel(NUMBER, 8, R7, offset);
        code.load(R7, R10, NUMBER);
    }
    for (offset, wanted) in [(places.map_type, STRUCT_OPS), (places.value_type, places.ops_type)] {
        code.read_kernel(NUMBER, 4, R7, offset);
        code.load_u32(R1, R10, NUMBER);
        code.jump_unless_equal(R1, wanted, out);
    }
    // A scheduler. R8 is the record.
    code.element(record, KEY, out);
    code.copy(R8, R0);
    code.load_u32(R1, R8, 0);
    code.add(R1, 1);
    code.store_u32(R8, 0, R1);
    code.call(GET_CURRENT_PID_TGID);
    code.shift_right(R0, 32, false);
    code.store_u32(R8, 12, R0);
    code.load(R9, R10, VALUE);
    code.add(R9, places.timeout);
    code.read_user(NUMBER, 4, R9, 0);
    code.jump_unless_equal(R0, 0, told);
    code.load_u32(R1, R10, NUMBER);
    code.store_u32(R8, 4, R1);
    if !order.even_if_declared {
        code.set(R0, 1);
        code.jump_unless_equal(R1, 0, told);
    }
    code.store_u32_value(R10, NUMBER, order.timeout_ms as i32);
    code.copy(R1, R9);
    code.stack(R2, NUMBER);
    code.set(R3, 4);
    code.call(PROBE_WRITE_USER);
    code.here(told);
    code.store_u32(R8, 8, R0);
    code.here(out);
    code.set(R0, 0);
    code.exit();
    code.finish()
}

/// A program of type `syscall` that returns the watchdog's timeout as the kernel has it, in jiffies; all ones when it
/// can't be read.
pub fn effective_timeout(places: &Places) -> Vec<u64> {
    const NUMBER: i16 = -8;
    const NAME: i16 = -32;
    let name: &[u8] = match places.in_scheduler {
        None => b"scx_watchdog_timeout\0",
        Some(_) => b"scx_root\0",
    };
    let mut code = Code::new();
    let unread = code.label();
    for (at, part) in name.chunks(4).enumerate() {
        let mut word = [0; 4];
        word[..part.len()].copy_from_slice(part);
        code.store_u32_value(R10, NAME + 4 * at as i16, i32::from_le_bytes(word));
    }
    code.store_value(R10, NUMBER, 0);
    code.stack(R1, NAME);
    code.set(R2, name.len() as i32);
    code.set(R3, 0);
    code.stack(super::Reg::R4, NUMBER);
    code.call(KALLSYMS_LOOKUP_NAME);
    code.jump_unless_equal(R0, 0, unread);
    // The variable's value, then what it points to.
    for offset in [Some(0), places.in_scheduler].into_iter().flatten() {
        code.load(R6, R10, NUMBER);
        code.read_kernel(NUMBER, 8, R6, offset);
        code.jump_unless_equal(R0, 0, unread);
    }
    code.load(R0, R10, NUMBER);
    code.exit();
    code.here(unread);
    code.set(R0, UNREAD);
    code.exit();
    code.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{MemberPlace, MockKernelTypes, ValueType};

    fn types(lacks: &'static str) -> MockKernelTypes {
        let mut types = MockKernelTypes::new();
        types.expect_member().returning(move |of, path| {
            let known = !path.starts_with("regs") && of != "scx_sched" && path != lacks;
            known.then(|| MemberPlace { offsets: vec![path.len() as u64], bits: None, ty: ValueType::Other })
        });
        types.expect_id().returning(|_| Some(77));
        types
    }

    #[test]
    fn what_a_kernel_lacks_is_named() {
        assert!(Places::of(&types("")).is_ok());
        let why = Places::of(&types("fdt")).unwrap_err();
        assert_eq!(why, "the kernel's types (BTF) have no member files_struct.fdt");
        // The other processor's name is the last that was looked for.
        assert!(Places::of(&types("di")).unwrap_err().contains("pt_regs.regs[0]"));
        let mut none = MockKernelTypes::new();
        none.expect_member()
            .returning(|_, _| Some(MemberPlace { offsets: vec![8], bits: None, ty: ValueType::Other }));
        none.expect_id().returning(|_| None);
        assert!(Places::of(&none).unwrap_err().contains("no sched_ext"));
    }

    /// Every jump of a program leads to one of its instructions, none into the middle of one, and every way ends.
    fn is_sound(words: &[u64]) {
        assert_eq!(words.last().unwrap() & 0xff, 0x95, "the last instruction ends it");
        let wide: Vec<usize> = (0..words.len()).filter(|at| words[*at] & 0xff == 0x18).collect();
        for (at, word) in words.iter().enumerate().filter(|(at, _)| !wide.contains(&at.wrapping_sub(1))) {
            let (opcode, offset) = ((word & 0xff) as u8, (word >> 16) as u16 as i16);
            if opcode & 7 == 5 && !matches!(opcode, 0x85 | 0x95) {
                let to = (at as i64 + 1 + i64::from(offset)) as usize;
                assert!(to > at && to < words.len() && !wide.contains(&(to - 1)), "{at} to {to}");
            }
        }
    }

    #[test]
    fn programs_are_sound() {
        let places = Places::of(&types("")).unwrap();
        let later = Places { in_scheduler: Some(64), ..places.clone() };
        for order in
            [false, true].map(|even_if_declared| WatchdogOrder { timeout_ms: 4000, even_if_declared })
        {
            is_sound(&override_timeout(&places, order, 321, 5));
        }
        is_sound(&effective_timeout(&places));
        assert!(effective_timeout(&later).len() > effective_timeout(&places).len() - 3);
        is_sound(&effective_timeout(&later));
    }

    #[test]
    fn a_record_is_four_numbers() {
        let bytes: Vec<u8> = [1u32, 1000, -14i32 as u32, 7].iter().flat_map(|w| w.to_ne_bytes()).collect();
        let record = WatchdogRecord::parse(bytes.try_into().unwrap());
        assert_eq!(record, WatchdogRecord { seen: 1, own_ms: 1000, result: -14, pid: 7 });
    }
}
