//! What an event's bytes mean: the `format` files of tracefs.

use super::DecoderError;

/// A field of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    name: String,
    offset: usize,
    size: usize,
    signed: bool,
    /// `__data_loc`: the field is where the bytes are (length in the upper 16 bits, offset in the lower).
    elsewhere: bool,
}

/// An event's number and fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Format {
    pub(super) id: u16,
    name: String,
    fields: Vec<Field>,
}

impl Format {
    /// Reads a `format` file (Documentation/trace/events.rst).
    pub(super) fn parse(text: &str) -> Result<Self, DecoderError> {
        let after =
            |start: &str| text.lines().find_map(|line| line.trim().strip_prefix(start)).map(str::trim);
        let name = after("name:").unwrap_or("?").to_string();
        let bad = |what: &str| DecoderError::Format { event: name.clone(), what: what.to_string() };
        let id = after("ID:").and_then(|id| id.parse().ok()).ok_or_else(|| bad("no number after `ID:`"))?;
        let fields = fields(text).map_err(|line| bad(&format!("a field that can't be read: {line:?}")))?;
        Ok(Self { id, name, fields })
    }

    /// A number of an event; sign-extended where it is signed.
    pub(super) fn number(&self, field: &str, bytes: &[u8]) -> Result<i64, DecoderError> {
        let place = self.field(field)?;
        place.number(bytes).ok_or_else(|| self.missing(field))
    }

    /// A text of an event, up to its NUL.
    pub(super) fn text(&self, field: &str, bytes: &[u8]) -> Result<String, DecoderError> {
        let place = self.field(field)?;
        let range = match (place.elsewhere, place.number(bytes)) {
            (false, _) => Some(place.offset..place.offset.saturating_add(place.size)),
            (true, Some(at)) => {
                let (start, length) = ((at & 0xffff) as usize, (at >> 16 & 0xffff) as usize);
                Some(start..start + length)
            }
            (true, None) => None,
        };
        let raw = range.and_then(|range| bytes.get(range)).ok_or_else(|| self.missing(field))?;
        let end = raw.iter().position(|byte| *byte == 0).unwrap_or(raw.len());
        Ok(String::from_utf8_lossy(&raw[..end]).into_owned())
    }

    fn field(&self, name: &str) -> Result<&Field, DecoderError> {
        self.fields.iter().find(|field| field.name == name).ok_or_else(|| self.missing(name))
    }

    fn missing(&self, field: &str) -> DecoderError {
        DecoderError::NoField { event: self.name.clone(), field: field.to_string() }
    }
}

impl Field {
    fn number(&self, bytes: &[u8]) -> Option<i64> {
        let raw = bytes.get(self.offset..self.offset.checked_add(self.size)?)?;
        let mut word = [0; 8];
        word.get_mut(..self.size)?.copy_from_slice(raw);
        let unused = 64 - 8 * u32::try_from(self.size).ok().filter(|size| *size > 0)?;
        let word = u64::from_le_bytes(word);
        Some(if self.signed { ((word << unused) as i64) >> unused } else { word as i64 })
    }
}

/// Where the parts of a page of a trace buffer are: `events/header_page`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageLayout {
    pub(super) timestamp: usize,
    pub(super) commit: usize,
    pub(super) data: usize,
}

impl PageLayout {
    pub(super) fn parse(text: &str) -> Result<Self, DecoderError> {
        let bad = |what: String| DecoderError::Format { event: "header_page".to_string(), what };
        let fields = fields(text).map_err(|line| bad(format!("a field that can't be read: {line:?}")))?;
        let at = |name: &str| {
            let found = fields.iter().find(|field| field.name == name);
            found.map(|field| field.offset).ok_or_else(|| bad(format!("no field {name}")))
        };
        Ok(Self { timestamp: at("timestamp")?, commit: at("commit")?, data: at("data")? })
    }
}

/// All fields; the line of one that can't be read.
fn fields(text: &str) -> Result<Vec<Field>, &str> {
    let lines = text.lines().map(str::trim).filter(|line| line.starts_with("field"));
    lines.map(|line| field(line).ok_or(line)).collect()
}

/// `field:TYPE NAME[LENGTH]; offset:O; size:S; signed:B;`, in `header_page` with a blank before the type.
fn field(line: &str) -> Option<Field> {
    let mut parts = line.split(';').map(str::trim);
    let declared = parts.next()?.split_once(':')?.1.trim();
    let (mut offset, mut size, mut signed) = (None, None, false);
    for part in parts {
        match part.split_once(':') {
            Some(("offset", n)) => offset = Some(n.trim().parse().ok()?),
            Some(("size", n)) => size = Some(n.trim().parse().ok()?),
            Some(("signed", n)) => signed = n.trim() == "1",
            _ => {}
        }
    }
    let elsewhere = declared.starts_with("__data_loc");
    let (_, name) = declared.rsplit_once([' ', '*'])?;
    let name = name.split('[').next().unwrap_or(name).to_string();
    Some(Field { name, offset: offset?, size: size?, signed, elsewhere })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const SWITCH: &str = include_str!("testdata/sched_switch.format");

    #[test]
    fn numbers_and_texts_are_where_the_file_says() {
        let format = Format::parse(SWITCH).unwrap();
        let mut bytes = vec![0; 64];
        bytes[8..16].copy_from_slice(b"demo\0oth");
        bytes[24..28].copy_from_slice(&(-7i32).to_le_bytes());
        bytes[32..40].copy_from_slice(&0x101u64.to_le_bytes());
        assert_eq!(format.text("prev_comm", &bytes).unwrap(), "demo");
        assert_eq!(format.number("prev_pid", &bytes).unwrap(), -7);
        assert_eq!(format.number("prev_state", &bytes).unwrap(), 0x101);
        let why = format.number("prev_pid", &bytes[..26]).unwrap_err().to_string();
        assert!(why.contains("sched_switch") && why.contains("prev_pid"), "{why}");
        assert!(format.number("no_such", &bytes).is_err());
    }

    #[test]
    fn a_text_may_lie_behind_the_fields() {
        let format =
            Format::parse("name: x\nID: 7\nfield:__data_loc char[] comm;\toffset:8;\tsize:4;\tsigned:1;\n")
                .unwrap();
        let mut bytes = vec![0; 20];
        bytes[8..12].copy_from_slice(&(5u32 << 16 | 12).to_le_bytes());
        bytes[12..17].copy_from_slice(b"name\0");
        assert_eq!(format.text("comm", &bytes).unwrap(), "name");
        bytes[8..12].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(format.text("comm", &bytes).is_err());
    }

    #[test]
    fn what_is_no_format_is_named() {
        for (text, part) in [
            ("name: x\n", "after `ID:`"),
            ("ID: 70000\n", "after `ID:`"),
            ("ID: 7\nfield:int a; offset:x; size:4;\n", "a field that can't be read"),
        ] {
            let why = Format::parse(text).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        }
    }

    proptest! {
        #[test]
        fn no_file_and_no_bytes_do_harm(
            text in "(name|ID|field|offset|size|signed|char|int|[:; \n0-9\\[\\]*_])*", bytes: Vec<u8>
        ) {
            if let Ok(format) = Format::parse(&text) {
                for field in &format.fields {
                    let _ = (format.number(&field.name, &bytes), format.text(&field.name, &bytes));
                }
            }
            let _ = PageLayout::parse(&text);
        }
    }
}
