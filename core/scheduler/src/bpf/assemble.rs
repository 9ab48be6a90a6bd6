//! BPF's instructions (RFC 9669; `include/uapi/linux/bpf.h`), as many as are used here.

/// A register. The calling convention: [`R0`](Reg::R0) returns, R1 to R5 are arguments and lost in a call, R6 to R9 are
/// kept, R10 is the end of the stack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they have no names but these")]
pub enum Reg {
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
}

/// A place in the code to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label(usize);

/// Numbers of `enum bpf_func_id`.
mod helper {
    pub(super) const MAP_LOOKUP_ELEM: i32 = 1;
    pub(super) const PROBE_READ_USER: i32 = 112;
    pub(super) const PROBE_READ_KERNEL: i32 = 113;
}

const PSEUDO_MAP_FD: u8 = 1;

/// Instructions of a program.
#[derive(Debug, Clone, Default)]
pub struct Code {
    words: Vec<u64>,
    jumps: Vec<(usize, Label)>,
    labels: Vec<Option<usize>>,
}

impl Code {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The instructions, as the kernel takes them.
    ///
    /// # Panics
    /// When a label that is jumped to has no place, or lies too far off: both are mistakes of whoever wrote the program.
    pub fn finish(mut self) -> Vec<u64> {
        for (from, Label(label)) in std::mem::take(&mut self.jumps) {
            let to = self.labels[label].expect("every label has a place");
            let offset = to as i64 - from as i64 - 1;
            let offset = i16::try_from(offset).expect("programs are short");
            self.words[from] |= u64::from(offset as u16) << 16;
        }
        self.words
    }

    /// A label without a place.
    pub fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    /// Its place is here.
    pub fn here(&mut self, label: Label) {
        self.labels[label.0] = Some(self.words.len());
    }

    fn push(&mut self, opcode: u8, dst: u8, src: u8, offset: i16, value: i32) {
        let registers = dst | src << 4;
        let (offset, value) = (u64::from(offset as u16), u64::from(value as u32));
        self.words.push(u64::from(opcode) | u64::from(registers) << 8 | offset << 16 | value << 32);
    }

    /// `to = from`
    pub fn copy(&mut self, to: Reg, from: Reg) {
        self.push(0xbf, to as u8, from as u8, 0, 0);
    }

    /// `to = value`
    pub fn set(&mut self, to: Reg, value: i32) {
        self.push(0xb7, to as u8, 0, 0, value);
    }

    /// `to = value`, of 64 bits.
    pub fn set_wide(&mut self, to: Reg, value: u64) {
        self.push(0x18, to as u8, 0, 0, value as i32);
        self.push(0, 0, 0, 0, (value >> 32) as i32);
    }

    /// `to` is the map with that descriptor.
    pub fn set_map(&mut self, to: Reg, fd: i32) {
        self.push(0x18, to as u8, PSEUDO_MAP_FD, 0, fd);
        self.push(0, 0, 0, 0, 0);
    }

    /// `to += value`
    pub fn add(&mut self, to: Reg, value: i32) {
        self.push(0x07, to as u8, 0, 0, value);
    }

    /// `to += from`
    pub fn add_reg(&mut self, to: Reg, from: Reg) {
        self.push(0x0f, to as u8, from as u8, 0, 0);
    }

    /// `to <<= bits`
    pub fn shift_left(&mut self, to: Reg, bits: u8) {
        self.push(0x67, to as u8, 0, 0, bits.into());
    }

    /// `to >>= bits`, filled with zeros, or with the sign.
    pub fn shift_right(&mut self, to: Reg, bits: u8, signed: bool) {
        self.push(if signed { 0xc7 } else { 0x77 }, to as u8, 0, 0, bits.into());
    }

    /// `to = *(u64 *)(from + offset)`
    pub fn load(&mut self, to: Reg, from: Reg, offset: i16) {
        self.push(0x79, to as u8, from as u8, offset, 0);
    }

    /// `to = *(u32 *)(from + offset)`
    pub fn load_u32(&mut self, to: Reg, from: Reg, offset: i16) {
        self.push(0x61, to as u8, from as u8, offset, 0);
    }

    /// `*(u64 *)(to + offset) = from`
    pub fn store(&mut self, to: Reg, offset: i16, from: Reg) {
        self.push(0x7b, to as u8, from as u8, offset, 0);
    }

    /// `*(u32 *)(to + offset) = from`
    pub fn store_u32(&mut self, to: Reg, offset: i16, from: Reg) {
        self.push(0x63, to as u8, from as u8, offset, 0);
    }

    /// `*(u64 *)(to + offset) = value`
    pub fn store_value(&mut self, to: Reg, offset: i16, value: i32) {
        self.push(0x7a, to as u8, 0, offset, value);
    }

    /// `*(u32 *)(to + offset) = value`
    pub fn store_u32_value(&mut self, to: Reg, offset: i16, value: i32) {
        self.push(0x62, to as u8, 0, offset, value);
    }

    fn jump_by(&mut self, opcode: u8, dst: u8, src: u8, value: i32, to: Label) {
        self.jumps.push((self.words.len(), to));
        self.push(opcode, dst, src, 0, value);
    }

    /// Goes on there.
    pub fn jump(&mut self, to: Label) {
        self.jump_by(0x05, 0, 0, 0, to);
    }

    /// Goes on there if they are equal.
    pub fn jump_if_equal(&mut self, reg: Reg, value: i32, to: Label) {
        self.jump_by(0x15, reg as u8, 0, value, to);
    }

    /// Goes on there unless they are equal.
    pub fn jump_unless_equal(&mut self, reg: Reg, value: i32, to: Label) {
        self.jump_by(0x55, reg as u8, 0, value, to);
    }

    /// Goes on there if `reg >= other`, as unsigned numbers.
    pub fn jump_unless_below(&mut self, reg: Reg, other: Reg, to: Label) {
        self.jump_by(0x3d, reg as u8, other as u8, 0, to);
    }

    /// `r0 = helper(r1, …)`, by its number in `enum bpf_func_id`.
    pub fn call(&mut self, helper: i32) {
        self.push(0x85, 0, 0, 0, helper);
    }

    /// Ends the program; R0 is what it returns.
    pub fn exit(&mut self) {
        self.push(0x95, 0, 0, 0, 0);
    }

    /// `to` is the place on the stack, so many bytes below its end.
    pub fn stack(&mut self, to: Reg, at: i16) {
        self.copy(to, Reg::R10);
        self.add(to, at.into());
    }

    /// Reads `size` bytes of kernel memory at `from + offset` to the stack; R0 is 0 if it could, else they are zeros.
    pub fn read_kernel(&mut self, at: i16, size: i32, from: Reg, offset: i32) {
        self.read(helper::PROBE_READ_KERNEL, at, size, from, offset);
    }

    /// The same of the memory of the process that runs.
    pub fn read_user(&mut self, at: i16, size: i32, from: Reg, offset: i32) {
        self.read(helper::PROBE_READ_USER, at, size, from, offset);
    }

    fn read(&mut self, helper: i32, at: i16, size: i32, from: Reg, offset: i32) {
        self.copy(Reg::R3, from);
        if offset != 0 {
            self.add(Reg::R3, offset);
        }
        self.stack(Reg::R1, at);
        self.set(Reg::R2, size);
        self.call(helper);
    }

    /// R0 is the address of an array's only element; ends at `none` should there be none.
    pub fn element(&mut self, map: i32, scratch: i16, none: Label) {
        self.store_u32_value(Reg::R10, scratch, 0);
        self.set_map(Reg::R1, map);
        self.stack(Reg::R2, scratch);
        self.call(helper::MAP_LOOKUP_ELEM);
        self.jump_if_equal(Reg::R0, 0, none);
    }
}

#[cfg(test)]
mod tests {
    use super::Reg::{R0, R1, R2, R6, R10};
    use super::*;

    /// The bytes that `clang-19 -target bpf -mcpu=v3` and `llvm-objdump-19` give and show for the same instructions.
    #[test]
    fn instructions_are_a_compilers() {
        let mut code = Code::new();
        let end = code.label();
        code.copy(R6, R1);
        code.load(R2, R6, 8);
        code.jump_unless_equal(R2, 321, end);
        code.store_u32_value(R10, -4, -1);
        code.store(R10, -16, R2);
        code.shift_left(R2, 32);
        code.shift_right(R2, 32, true);
        code.add(R2, -8);
        code.set_wide(R1, 0x8000_0001_2345_6789);
        code.call(113);
        code.here(end);
        code.set(R0, 0);
        code.exit();
        let bytes: Vec<u8> = code.finish().iter().flat_map(|word| word.to_le_bytes()).collect();
        let expected: [[u8; 8]; 13] = [
            [0xbf, 0x16, 0, 0, 0, 0, 0, 0],
            [0x79, 0x62, 8, 0, 0, 0, 0, 0],
            [0x55, 0x02, 8, 0, 0x41, 1, 0, 0],
            [0x62, 0x0a, 0xfc, 0xff, 0xff, 0xff, 0xff, 0xff],
            [0x7b, 0x2a, 0xf0, 0xff, 0, 0, 0, 0],
            [0x67, 0x02, 0, 0, 32, 0, 0, 0],
            [0xc7, 0x02, 0, 0, 32, 0, 0, 0],
            [0x07, 0x02, 0, 0, 0xf8, 0xff, 0xff, 0xff],
            [0x18, 0x01, 0, 0, 0x89, 0x67, 0x45, 0x23],
            [0, 0, 0, 0, 1, 0, 0, 0x80],
            [0x85, 0, 0, 0, 113, 0, 0, 0],
            [0xb7, 0, 0, 0, 0, 0, 0, 0],
            [0x95, 0, 0, 0, 0, 0, 0, 0],
        ];
        assert_eq!(bytes, expected.concat());
    }

    #[test]
    fn a_jump_back_is_negative() {
        let mut code = Code::new();
        let start = code.label();
        code.here(start);
        code.set(R0, 0);
        code.jump(start);
        assert_eq!(code.finish()[1] >> 16 & 0xffff, 0xfffe);
    }
}
