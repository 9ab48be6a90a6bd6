//! Registers of a guest that stands still at its bell.
//!
//! QEMU itself can't be asked for them then: its lock is held by the thread that carries out the guest's write. To stop
//! the machine a moment later would end the vCPUs' turns at an instant of the host's choosing, after which the guest is
//! another one. But all vCPUs share that one thread, so the state of each lies in QEMU's memory as it was when its turn
//! ended, and that of the one that rings as it is at the write.
//!
//! Where it lies is found out once, while the machine is stopped before its first instruction: QEMU says what the
//! registers are, and they are looked for in its memory. They stand there in the order of the instruction set's numbers,
//! followed by the instruction pointer, with control registers 0 to 4 some way behind (`CPUX86State`, target/i386/cpu.h).
//! Nothing is taken on trust: a vCPU whose numbers are in no place, or in two, makes the whole search fail.

use ktstr_machine::VcpuRegisters;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// In the order of their numbers in instructions, the instruction pointer last.
const NAMES: [&str; REGISTERS] = [
    "RAX", "RCX", "RDX", "RBX", "RSP", "RBP", "RSI", "RDI", "R8", "R9", "R10", "R11", "R12", "R13", "R14",
    "R15", "RIP",
];
const REGISTERS: usize = 17;
const SP: usize = 4;
const IP: usize = 16;
/// Bytes behind the registers in which control registers are looked for.
const CONTROL_WITHIN: usize = 4096;
/// A mapping that is larger is no heap.
const MAX_MAPPING: u64 = 256 << 20;
const CHUNK: usize = 1 << 20;
const ZEROS: [u8; 4096] = [0; 4096];
/// Bytes of all that is looked for, which a chunk of memory has beyond its own.
const BEYOND: usize = REGISTERS * 8 + CONTROL_WITHIN;

/// Where QEMU keeps the state of each vCPU, by vCPU number.
#[derive(Debug)]
pub(crate) struct VcpuPlaces {
    memory: File,
    places: Vec<Place>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    /// Address of the first register.
    registers: u64,
    /// Address of the page table's.
    cr3: u64,
}

/// What QEMU says of one vCPU.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Told {
    registers: [u64; REGISTERS],
    /// Control registers 0, 2, 3 and 4.
    control: [u64; 4],
}

impl VcpuPlaces {
    /// Looks in the memory of process `pid` for what it says itself (`info registers -a`).
    ///
    /// # Errors
    /// Why they are not known, in words.
    pub(crate) fn find(pid: u32, said: &str) -> Result<Self, String> {
        let told = told(said).ok_or("QEMU's words on registers are not understood")?;
        let of = |file: &str| format!("/proc/{pid}/{file}");
        let failed = |path: String| move |e: std::io::Error| format!("reading {path}: {e}");
        let maps = std::fs::read_to_string(of("maps")).map_err(failed(of("maps")))?;
        let memory = File::open(of("mem")).map_err(failed(of("mem")))?;
        let mut found = vec![Vec::new(); told.len()];
        let mut buffer = vec![0; CHUNK + BEYOND];
        for (start, end) in heaps(&maps) {
            for at in (start..end).step_by(CHUNK) {
                let wanted = buffer.len().min((end - at) as usize);
                // What is gone meanwhile held no vCPU.
                if memory.read_exact_at(&mut buffer[..wanted], at).is_ok() {
                    search(&buffer[..wanted], at, &told, &mut found);
                }
            }
        }
        let place = |(cpu, places): (usize, Vec<Place>)| match places[..] {
            [place] => Ok(place),
            [] => Err(format!("the registers of vCPU {cpu} are nowhere in QEMU's memory")),
            _ => Err(format!("the registers of vCPU {cpu} are in {} places of QEMU's memory", places.len())),
        };
        let places = found.into_iter().enumerate().map(place).collect::<Result<_, _>>()?;
        Ok(Self { memory, places })
    }

    /// What they are now. None is said to be halted: that has no place here.
    pub(crate) fn read(&self) -> std::io::Result<Vec<VcpuRegisters>> {
        let word = |at: u64| {
            let mut bytes = [0; 8];
            self.memory.read_exact_at(&mut bytes, at).map(|()| u64::from_le_bytes(bytes))
        };
        let one = |(cpu, place): (u32, &Place)| {
            Ok(VcpuRegisters {
                cpu,
                ip: word(place.registers + 8 * IP as u64)?,
                sp: word(place.registers + 8 * SP as u64)?,
                page_table: word(place.cr3)?,
                halted: false,
            })
        };
        (0..).zip(&self.places).map(one).collect()
    }
}

/// Private memory that can be written and not run, from `/proc/PID/maps`: what is run is translated code.
fn heaps(maps: &str) -> Vec<(u64, u64)> {
    let heap = |line: &str| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let range = (u64::from_str_radix(start, 16).ok()?, u64::from_str_radix(end, 16).ok()?);
        let private = fields.next()? == "rw-p" && range.1.checked_sub(range.0)? <= MAX_MAPPING;
        private.then_some(range)
    };
    maps.lines().filter_map(heap).collect()
}

/// Adds where in `bytes`, which lie at address `at`, the registers of each vCPU stand. What begins beyond a chunk is the
/// next one's.
fn search(bytes: &[u8], at: u64, told: &[Told], found: &mut [Vec<Place>]) {
    let word = |offset: usize| -> Option<u64> {
        Some(u64::from_le_bytes(bytes.get(offset..offset + 8)?.try_into().ok()?))
    };
    let mut next = 0;
    while next < bytes.len().min(CHUNK) {
        // Much of it was never written to. No stack pointer is zero, so only what begins right before the next page
        // may be in one that is.
        if next.is_multiple_of(ZEROS.len()) && bytes.get(next..next + ZEROS.len()) == Some(&ZEROS) {
            next += ZEROS.len() - 8 * SP;
        }
        let offset = next;
        next += 8;
        let Some(first) = word(offset) else { return };
        for (one, places) in told.iter().zip(&mut *found) {
            let same = |(n, value): (usize, &u64)| word(offset + 8 * n) == Some(*value);
            if first != one.registers[0] || !one.registers.iter().enumerate().all(same) {
                continue;
            }
            // Of cr[5], number 1 is not used.
            let control = |o: &usize| {
                [0usize, 2, 3, 4].iter().zip(&one.control).all(|(n, value)| word(o + 8 * n) == Some(*value))
            };
            let behind = offset + 8 * REGISTERS;
            let place = |o: usize| Place { registers: at + offset as u64, cr3: at + o as u64 + 8 * 3 };
            places.extend((behind..behind + CONTROL_WITHIN).step_by(8).find(control).map(place));
        }
    }
}

/// Entries in the order of their vCPUs' numbers; `None` where a number is missing, or no stack pointer tells vCPUs apart
/// from memory that is all zero.
fn told(said: &str) -> Option<Vec<Told>> {
    let mut all = Vec::new();
    let mut parts = said.split("CPU#");
    parts.next();
    for (expected, part) in parts.enumerate() {
        let number = part.split_whitespace().next()?;
        if number.parse() != Ok(expected) {
            return None;
        }
        let mut one = Told::default();
        for (value, name) in one.registers.iter_mut().zip(NAMES) {
            *value = number_of(part, name)?;
        }
        for (value, name) in one.control.iter_mut().zip(["CR0", "CR2", "CR3", "CR4"]) {
            *value = number_of(part, name)?;
        }
        if one.registers[SP] == 0 {
            return None;
        }
        all.push(one);
    }
    (!all.is_empty()).then_some(all)
}

/// The number of `NAME=…`, which short names have a space before.
fn number_of(text: &str, name: &str) -> Option<u64> {
    let at = text.match_indices(name).map(|(at, _)| &text[at + name.len()..]);
    let value = at.filter_map(|rest| rest.trim_start_matches(' ').strip_prefix('=')).next()?;
    let digits = value.split(|c: char| !c.is_ascii_hexdigit()).next()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// As QEMU 7.2 prints it.
    fn said(cpu: usize, one: &Told) -> String {
        let r = |n: usize| one.registers[n];
        format!(
            "\r\nCPU#{cpu}\r\nRAX={:016x} RBX={:016x} RCX={:016x} RDX={:016x}\r\n\
             RSI={:016x} RDI={:016x} RBP={:016x} RSP={:016x}\r\nR8 ={:016x} R9 ={:016x} R10={:016x} R11={:016x}\r\n\
             R12={:016x} R13={:016x} R14={:016x} R15={:016x}\r\nRIP={:016x} RFL=00000246 [---Z-P-] CPL=0 HLT=1\r\n\
             CR0={:08x} CR2={:016x} CR3={:016x} CR4={:08x}\r\nDR0=0000000000000000\r\nEFER=0000000000000d01\r\n",
            r(0),
            r(3),
            r(1),
            r(2),
            r(6),
            r(7),
            r(5),
            r(4),
            r(8),
            r(9),
            r(10),
            r(11),
            r(12),
            r(13),
            r(14),
            r(15),
            r(16),
            one.control[0],
            one.control[1],
            one.control[2],
            one.control[3]
        )
    }

    /// As it lies in memory, with so many bytes between registers and control registers.
    fn laid_out(one: &Told, between: usize) -> Vec<u8> {
        let mut bytes: Vec<u8> = one.registers.iter().flat_map(|r| r.to_le_bytes()).collect();
        bytes.resize(bytes.len() + between, 0x5a);
        let [cr0, cr2, cr3, cr4] = one.control;
        bytes.extend([cr0, 0, cr2, cr3, cr4].iter().flat_map(|r| r.to_le_bytes()));
        bytes
    }

    fn some(seed: u64) -> Told {
        let number = |n: usize| seed.wrapping_add(n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        Told {
            registers: std::array::from_fn(number),
            control: [0x8005_0033, number(50), 0x2a1_0000 + (seed << 12), 0x6f0],
        }
    }

    #[test]
    fn what_qemu_says_is_read() {
        let vcpus = [some(1), some(2)];
        let text = [said(0, &vcpus[0]), said(1, &vcpus[1])].concat();
        assert_eq!(told(&text), Some(vcpus.to_vec()));
        for broken in [text.replace("R9 =", "X9 ="), text.replace("CPU#1", "CPU#3"), String::new()] {
            assert_eq!(told(&broken), None, "{broken}");
        }
        let zero = Told { control: [1; 4], ..Told::default() };
        assert_eq!(told(&said(0, &zero)), None, "that would be found everywhere");
    }

    #[test]
    fn only_private_writable_memory_of_some_size_is_searched() {
        let maps = "55d0-55f0 rw-p 00000000 00:00 0   [heap]\n7f00-8f00 rwxp 00000000 00:00 0\n\
                    9f00-af00 rw-s 00000000 00:01 5 /memfd:ram (deleted)\n100000000-900000000 rw-p 0 00:00 0\nnonsense\n";
        assert_eq!(heaps(maps), [(0x55d0, 0x55f0)]);
    }

    /// In this process's own memory, which changes are seen in.
    #[test]
    fn registers_are_found_and_then_followed() {
        let vcpus = [some(11), some(12)];
        let mut kept: Vec<Vec<u64>> = vcpus
            .iter()
            .map(|one| {
                let bytes = laid_out(one, 640);
                bytes.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap())).collect()
            })
            .collect();
        let text = [said(0, &vcpus[0]), said(1, &vcpus[1])].concat();
        // Copies made to lay them out are in memory, too, until it is used again.
        let start = kept.iter().map(|one| one.as_ptr() as u64).collect::<Vec<_>>();
        let mut places = VcpuPlaces { memory: File::open("/proc/self/mem").unwrap(), places: Vec::new() };
        let mut found = vec![Vec::new(); 2];
        for (at, words) in start.iter().zip(&kept) {
            let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
            search(&bytes, *at, &told(&text).unwrap(), &mut found);
        }
        places.places = found.iter().map(|of| of[0]).collect();
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [1, 1]);
        kept[1][IP] = 0xffff_ffff_8100_0000;
        let read = places.read().unwrap();
        let expected = |cpu: u32, ip: u64| VcpuRegisters {
            cpu,
            ip,
            sp: vcpus[cpu as usize].registers[SP],
            page_table: vcpus[cpu as usize].control[2],
            halted: false,
        };
        assert_eq!(
            read,
            [expected(0, vcpus[0].registers[IP]), expected(1, std::hint::black_box(&kept)[1][IP])]
        );
    }

    #[test]
    fn a_process_that_does_not_hold_them_is_told() {
        let error =
            VcpuPlaces::find(std::process::id(), &said(0, &some(99)).replace("CR0=", "CR0=1")).unwrap_err();
        assert_eq!(error, "the registers of vCPU 0 are nowhere in QEMU's memory");
        assert!(VcpuPlaces::find(u32::MAX, &said(0, &some(1))).unwrap_err().starts_with("reading /proc/"));
    }

    proptest! {
        #[test]
        fn they_are_found_wherever_they_begin(
            before in 0usize..1200, between in 0usize..500, fill in prop::sample::select(vec![0u8, 0xa5]), zeros in 0..SP
        ) {
            let mut one = some(7);
            one.registers[..zeros].fill(0);
            let mut bytes = vec![fill; before * 8];
            bytes.extend(laid_out(&one, between * 8));
            bytes.resize(bytes.len() + 64, 0);
            let mut found = vec![Vec::new()];
            search(&bytes, 0x1000, std::slice::from_ref(&one), &mut found);
            let registers = 0x1000 + before as u64 * 8;
            let cr3 = registers + (REGISTERS + between + 3) as u64 * 8;
            prop_assert_eq!(&found[0], &vec![Place { registers, cr3 }]);
        }

        #[test]
        fn any_words_are_borne(text in "(CPU#[0-2]\n)?([A-Z0-9 =]{0,40}\n){0,6}", maps in "[0-9a-f-]{0,20} [rwxps-]{4}") {
            let _ = told(&text);
            let _ = heaps(&maps);
        }
    }
}
