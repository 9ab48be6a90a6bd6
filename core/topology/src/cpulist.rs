//! The kernel's cpulist syntax, `0-3,8`, as printed by `%*pbl` in sysfs and cgroupfs and read by
//! `bitmap_parselist()` in `lib/bitmap-str.c`.

use crate::CpuSet;

/// The largest CPU number a cpulist may hold: `CONFIG_NR_CPUS` is at most 8192 on x86
/// (`arch/x86/Kconfig`, `NR_CPUS_RANGE_END`).
pub const MAX_CPU: u32 = 8191;

/// How much of a bad list an error message repeats, in characters.
const EXCERPT_CHARS: usize = 64;

/// Why a text isn't a cpulist. Positions are byte offsets into the text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CpuListError {
    /// Something else stands where the syntax wants a number or a separator.
    #[error("can't read {list:?} as a cpulist: expected {expected} at byte {position}, found {found}")]
    Unexpected {
        /// The start of the text.
        list: String,
        /// Where the unexpected thing is.
        position: usize,
        /// What the syntax wants there.
        expected: &'static str,
        /// What is there: a quoted character, or `the end`.
        found: String,
    },
    /// A number is larger than the kernel could ever print.
    #[error(
        "can't read {list:?} as a cpulist: the number {number} at byte {position} is larger than {limit}"
    )]
    TooLarge {
        /// The start of the text.
        list: String,
        /// Where the number starts.
        position: usize,
        /// Its digits, cut when they are many.
        number: String,
        /// The largest number allowed there.
        limit: u32,
    },
    /// A range ends before it starts.
    #[error(
        "can't read {list:?} as a cpulist: the range {start}-{end} at byte {position} runs backwards; write {end}-{start}"
    )]
    Backwards {
        /// The start of the text.
        list: String,
        /// Where the range starts.
        position: usize,
        /// The range's first number.
        start: u32,
        /// The range's second number.
        end: u32,
    },
    /// The `:used/group` after a range makes no sense.
    #[error(
        "can't read {list:?} as a cpulist: the stride {used}/{group} at byte {position} \
         must take at most {group} CPUs of each group of at least 1"
    )]
    BadStride {
        /// The start of the text.
        list: String,
        /// Where the stride starts.
        position: usize,
        /// CPUs taken of each group.
        used: u32,
        /// CPUs in each group.
        group: u32,
    },
}

impl CpuListError {
    /// Byte offset into the text that the error is about.
    #[must_use]
    pub fn position(&self) -> usize {
        match self {
            Self::Unexpected { position, .. }
            | Self::TooLarge { position, .. }
            | Self::Backwards { position, .. }
            | Self::BadStride { position, .. } => *position,
        }
    }
}

/// Reads a cpulist: numbers and ranges separated by commas, `0-3,8`, ranges with an optional stride,
/// `0-9:2/4` (the first two of every four: `0-1,4-5,8-9`). An empty text is the empty set. One newline
/// at the end, as sysfs prints it, is fine; other white space isn't.
///
/// The words `all` and `N`, which `bitmap_parselist()` also takes, are refused: they mean nothing
/// without a machine.
///
/// # Errors
/// [`CpuListError`] with the byte position and what was expected there.
pub fn parse_cpu_list(text: &str) -> Result<CpuSet, CpuListError> {
    let mut cpus = CpuSet::new();
    let mut cursor = Cursor::new(text.strip_suffix('\n').unwrap_or(text));
    if cursor.peek().is_none() {
        return Ok(cpus);
    }
    loop {
        cursor.region()?.add_to(&mut cpus);
        match cursor.peek() {
            None => return Ok(cpus),
            Some(b',') => cursor.position += 1,
            Some(_) => return Err(cursor.unexpected("a comma or the end")),
        }
    }
}

/// Reads what it can of a cpulist and skips the rest: parts are separated by commas or white space,
/// and a part that [`parse_cpu_list`] would refuse adds nothing.
#[must_use]
pub fn parse_cpu_list_lenient(text: &str) -> CpuSet {
    let mut cpus = CpuSet::new();
    for part in text.split(|c: char| c == ',' || c.is_whitespace()) {
        let mut cursor = Cursor::new(part);
        if let Ok(region) = cursor.region()
            && cursor.peek().is_none()
        {
            region.add_to(&mut cpus);
        }
    }
    cpus
}

/// `start-end:used/group`; `struct region` in `lib/bitmap-str.c`.
struct Region {
    start: u32,
    end: u32,
    used: u32,
    group: u32,
}

impl Region {
    fn add_to(&self, cpus: &mut CpuSet) {
        let mut at = self.start;
        while at <= self.end {
            let stop = at.saturating_add(self.used).min(self.end + 1);
            cpus.extend(at..stop);
            at = at.saturating_add(self.group);
        }
    }
}

struct Cursor<'a> {
    text: &'a str,
    position: usize,
}

impl<'a> Cursor<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, position: 0 }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.position).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.position += usize::from(found);
        found
    }

    fn region(&mut self) -> Result<Region, CpuListError> {
        let position = self.position;
        let start = self.number("a CPU number", MAX_CPU)?;
        if !self.eat(b'-') {
            return Ok(Region { start, end: start, used: 1, group: 1 });
        }
        let end = self.number("the range's last CPU number", MAX_CPU)?;
        if end < start {
            let list = excerpt(self.text);
            return Err(CpuListError::Backwards { list, position, start, end });
        }
        if !self.eat(b':') {
            return Ok(Region { start, end, used: 1, group: 1 });
        }
        let (used, group) = self.stride()?;
        Ok(Region { start, end, used, group })
    }

    fn stride(&mut self) -> Result<(u32, u32), CpuListError> {
        let position = self.position;
        let used = self.number("how many CPUs of each group to take", u32::MAX)?;
        if !self.eat(b'/') {
            return Err(self.unexpected("a slash and the group's size"));
        }
        let group = self.number("the group's size", u32::MAX)?;
        if group == 0 || used > group {
            let list = excerpt(self.text);
            return Err(CpuListError::BadStride { list, position, used, group });
        }
        Ok((used, group))
    }

    fn number(&mut self, expected: &'static str, limit: u32) -> Result<u32, CpuListError> {
        let position = self.position;
        let mut value = 0u32;
        let mut fits = true;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            match value.checked_mul(10).and_then(|v| v.checked_add(u32::from(digit - b'0'))) {
                Some(next) => value = next,
                None => fits = false,
            }
            self.position += 1;
        }
        if self.position == position {
            return Err(self.unexpected(expected));
        }
        if !fits || value > limit {
            let number = excerpt(&self.text[position..self.position]);
            return Err(CpuListError::TooLarge { list: excerpt(self.text), position, number, limit });
        }
        Ok(value)
    }

    fn unexpected(&self, expected: &'static str) -> CpuListError {
        let found = match self.text[self.position..].chars().next() {
            Some(character) => format!("{character:?}"),
            None => "the end".to_owned(),
        };
        CpuListError::Unexpected { list: excerpt(self.text), position: self.position, expected, found }
    }
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(EXCERPT_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
