//! Programs that tell of the calls of a scheduler's own callbacks, in the words of a kprobe event.
//!
//! A kprobe can't be put on a BPF program, but another program can be attached to its entry and its exit
//! (`BPF_TRACE_FENTRY`, `BPF_TRACE_FEXIT`). It prints what a kprobe event would have held into the same trace buffer, so
//! that whoever reads that needs to know of one kind of event only.

use super::assemble::Code;
use super::assemble::Reg::{R0, R1, R2, R3, R4, R6, R7, R10};
use crate::repro::Probe;

/// Numbers of `enum bpf_func_id`.
const TRACE_VPRINTK: i32 = 177;
const GET_FUNC_RET: i32 = 184;

/// Values of one line (`MAX_BPRINTF_VARARGS`, `include/linux/bpf.h`).
pub const MOST_VALUES: usize = 12;
/// On the stack: a number, the values of a line above it, the line's format.
const NUMBER: i16 = -8;
const VALUES: i16 = NUMBER - 8 * MOST_VALUES as i16;
/// Bytes of the format; the stack has 512.
const FORMAT_LEN: usize = 320;
const FORMAT: i16 = VALUES - FORMAT_LEN as i16;

/// Holds what the program itself was given.
const CONTEXT: super::Reg = super::Reg::R8;

/// How a value is fetched, out of the syntax of kprobe events: `+0x8(+0x48($arg1)):u64`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Fetch {
    /// From 0.
    argument: u8,
    /// Followed as pointers, one after the other.
    offsets: Vec<i32>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number { bytes: u8, signed: bool, hex: bool },
    Bits { bytes: u8, shift: u8, bits: u8 },
    Text,
}

impl Fetch {
    fn parse(text: &str) -> Option<Self> {
        let (mut place, kind) = text.rsplit_once(':')?;
        let mut offsets = Vec::new();
        while let Some(inner) = place.strip_prefix('+') {
            let (offset, rest) = inner.split_once('(')?;
            let offset = match offset.strip_prefix("0x") {
                Some(hex) => i32::from_str_radix(hex, 16).ok()?,
                None => offset.parse().ok()?,
            };
            offsets.insert(0, offset);
            place = rest.strip_suffix(')')?;
        }
        let argument: u8 = place.strip_prefix("$arg")?.parse().ok()?;
        Some(Self { argument: argument.checked_sub(1)?, offsets, kind: Kind::parse(kind)? })
    }
}

impl Kind {
    fn parse(text: &str) -> Option<Self> {
        if text == "string" {
            return Some(Self::Text);
        }
        let bytes = |bits: &str| match bits {
            "8" => Some(1),
            "16" => Some(2),
            "32" => Some(4),
            "64" => Some(8),
            _ => None,
        };
        let (letter, rest) = text.split_at_checked(1)?;
        if letter == "b" {
            let (width, rest) = rest.split_once('@')?;
            let (shift, container) = rest.split_once('/')?;
            let (bits, shift) = (width.parse().ok()?, shift.parse().ok()?);
            let bytes = bytes(container)?;
            let fits = bits > 0 && u32::from(bits) + u32::from(shift) <= 8 * u32::from(bytes);
            return fits.then_some(Self::Bits { bytes, shift, bits });
        }
        let (signed, hex) = match letter {
            "u" => (false, false),
            "s" => (true, false),
            "x" => (false, true),
            _ => return None,
        };
        Some(Self::Number { bytes: bytes(rest)?, signed, hex })
    }

    fn format(self) -> &'static str {
        match self {
            Self::Text => "\"%s\"",
            Self::Number { signed: true, .. } => "%lld",
            Self::Number { hex: true, .. } => "0x%llx",
            Self::Number { .. } | Self::Bits { .. } => "%llu",
        }
    }

    /// Makes a number of `R7`, whose upper bits hold anything.
    fn cut(self, code: &mut Code) {
        let (left, right, signed) = match self {
            Self::Text => return,
            Self::Number { bytes, signed, .. } => (64 - 8 * bytes, 64 - 8 * bytes, signed),
            Self::Bits { shift, bits, .. } => (64 - bits - shift, 64 - bits, false),
        };
        if right != 0 {
            code.shift_left(R7, left);
            code.shift_right(R7, right, signed);
        }
    }

    fn bytes(self) -> u8 {
        match self {
            Self::Number { bytes, .. } | Self::Bits { bytes, .. } => bytes,
            Self::Text => 8,
        }
    }
}

/// A line being put together.
struct Line {
    code: Code,
    format: String,
    values: usize,
}

impl Line {
    /// Of a program that has the address of the callback's arguments for its own first one.
    fn new(name: char, number: usize, probe: &Probe) -> Self {
        let mut code = Code::new();
        code.copy(CONTEXT, R1);
        code.load(R6, R1, 0);
        Self { code, format: format!("{name}{number}: ({})", probe.function), values: 0 }
    }

    fn has_room(&self, more: &str) -> bool {
        self.values < MOST_VALUES && self.format.len() + more.len() < FORMAT_LEN
    }

    /// Adds the value in R7.
    fn value(&mut self, text: &str) {
        self.code.store(R10, VALUES + 8 * self.values as i16, R7);
        self.format.push_str(text);
        self.values += 1;
    }

    fn field(&mut self, at: usize, fetch: &Fetch) {
        let text = format!(" a{at}={}", fetch.kind.format());
        if !self.has_room(&text) {
            return;
        }
        let code = &mut self.code;
        let argument = 8 * i32::from(fetch.argument);
        let is_text = fetch.kind == Kind::Text;
        code.read_kernel(NUMBER, 8, R6, argument);
        for (step, offset) in fetch.offsets.iter().enumerate() {
            code.load(R7, R10, NUMBER);
            let last = step + 1 == fetch.offsets.len();
            if last && is_text {
                // The text itself lies there; what prints it reads it.
                code.add(R7, *offset);
                break;
            }
            let bytes = if last { fetch.kind.bytes() } else { 8 };
            code.store_value(R10, NUMBER, 0);
            code.read_kernel(NUMBER, bytes.into(), R7, *offset);
        }
        if !is_text || fetch.offsets.is_empty() {
            code.load(R7, R10, NUMBER);
        }
        fetch.kind.cut(code);
        self.value(&text);
    }

    fn finish(mut self) -> Vec<u64> {
        let code = &mut self.code;
        let mut format = self.format.into_bytes();
        format.push(0);
        for (at, part) in format.chunks(4).enumerate() {
            let mut word = [0; 4];
            word[..part.len()].copy_from_slice(part);
            code.store_u32_value(R10, FORMAT + 4 * at as i16, i32::from_le_bytes(word));
        }
        code.stack(R1, FORMAT);
        code.set(R2, format.len() as i32);
        code.stack(R3, VALUES);
        code.set(R4, 8 * self.values as i32);
        code.call(TRACE_VPRINTK);
        code.set(R0, 0);
        code.exit();
        self.code.finish()
    }
}

/// For the entry of a callback: a line `e<number>: (…) a0=… a1=…` with the probe's fields, as many as there is room for.
pub fn at_entry(probe: &Probe, number: usize) -> Vec<u64> {
    let mut line = Line::new('e', number, probe);
    for (at, field) in probe.fields.iter().enumerate() {
        if let Some(fetch) = Fetch::parse(&field.fetch) {
            line.field(at, &fetch);
        }
    }
    line.finish()
}

/// For its exit: a line `x<number>: (…) ret=…` with what is fetched again.
pub fn at_exit(probe: &Probe, number: usize) -> Vec<u64> {
    let mut line = Line::new('x', number, probe);
    let returned = probe.returns.as_ref().and_then(|(fetch, _)| Kind::parse(fetch.rsplit_once(':')?.1));
    if let Some(kind) = returned {
        line.code.store_value(R10, NUMBER, 0);
        line.code.copy(R1, CONTEXT);
        line.code.stack(R2, NUMBER);
        line.code.call(GET_FUNC_RET);
        line.code.load(R7, R10, NUMBER);
        kind.cut(&mut line.code);
        line.value(&format!(" ret={}", kind.format()));
    }
    for (at, field) in probe.fields.iter().enumerate().filter(|(_, field)| field.again) {
        if let Some(fetch) = Fetch::parse(&field.fetch) {
            line.field(at, &fetch);
        }
    }
    line.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repro::{Field, Part, Show};
    use proptest::prelude::*;

    #[test]
    fn what_a_kprobe_event_fetches_is_understood() {
        let number = |bytes, signed, hex| Kind::Number { bytes, signed, hex };
        for (text, argument, offsets, kind) in [
            ("$arg1:x64", 0, vec![], number(8, false, true)),
            ("+0x10($arg1):s32", 0, vec![0x10], number(4, true, false)),
            ("+0x8(+0x48($arg2)):u64", 1, vec![0x48, 8], number(8, false, false)),
            ("+0x50($arg1):b7@3/16", 0, vec![0x50], Kind::Bits { bytes: 2, shift: 3, bits: 7 }),
            ("+0x20($arg1):string", 0, vec![0x20], Kind::Text),
            ("+0($arg3):string", 2, vec![0], Kind::Text),
        ] {
            assert_eq!(Fetch::parse(text), Some(Fetch { argument, offsets, kind }), "{text}");
        }
        for bad in ["$retval:u64", "+8($arg1:u64", "$arg0:u64", "$arg1", "$arg1:b9@0/8", "$arg1:q64"] {
            assert_eq!(Fetch::parse(bad), None, "{bad}");
        }
    }

    fn probe(fetches: &[&str]) -> Probe {
        let field = |fetch: &&str| Field {
            argument: "p".to_string(),
            member: "m".to_string(),
            fetch: (*fetch).to_string(),
            show: Show::Decimal,
            part: Part::Member,
            guard: None,
            again: true,
        };
        let returns = Some(("$retval:s32".to_string(), Show::Decimal));
        let fields = fetches.iter().map(field).collect();
        Probe { function: "demo_enqueue".to_string(), fields, returns, ..Probe::default() }
    }

    /// The format, read back from the instructions that put it on the stack.
    fn format_of(words: &[u64]) -> String {
        let is_format = |word: &u64| word & 0xff == 0x62 && ((word >> 16) as u16 as i16) < VALUES;
        let bytes: Vec<u8> =
            words.iter().filter(|w| is_format(w)).flat_map(|w| ((w >> 32) as u32).to_le_bytes()).collect();
        let end = bytes.iter().position(|b| *b == 0).expect("a zero at its end");
        String::from_utf8(bytes[..end].to_vec()).unwrap()
    }

    #[test]
    fn a_line_is_that_of_a_kprobe_event() {
        let probe = probe(&["$arg1:x64", "+0x10($arg1):s32", "+0x20($arg1):string"]);
        let entry = at_entry(&probe, 7);
        assert_eq!(format_of(&entry), "e7: (demo_enqueue) a0=0x%llx a1=%lld a2=\"%s\"");
        let exit = at_exit(&probe, 7);
        assert_eq!(format_of(&exit), "x7: (demo_enqueue) ret=%lld a0=0x%llx a1=%lld a2=\"%s\"");
    }

    proptest! {
        /// Whatever the fields, the program fits the stack and what one line may hold.
        #[test]
        fn there_is_room_for_what_is_printed(count in 0usize..40, name in "[a-z_]{1,128}") {
            let fetches = vec!["+0x10(+0x8($arg1)):u64"; count];
            let probe = Probe { function: name, ..probe(&fetches) };
            for words in [at_entry(&probe, 40), at_exit(&probe, 40)] {
                let format = format_of(&words);
                prop_assert!(format.len() < FORMAT_LEN && format.matches('%').count() <= MOST_VALUES);
                prop_assert!(words.len() < 1000);
            }
        }
    }
}
