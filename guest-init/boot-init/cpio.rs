//! Unpacks `newc` cpio archives that lie in memory, one after the other
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use crate::{fail, sys};

const HEADER: usize = 110;

/// Fields of eight hexadecimal digits, by number, after the six of the magic.
const MODE: usize = 1;
const FILE_SIZE: usize = 6;
const DEVICE_MAJOR: usize = 9;
const DEVICE_MINOR: usize = 10;
const NAME_SIZE: usize = 11;

/// Makes everything in the archives below the working directory, `/`.
pub fn unpack(mut rest: &[u8]) {
    while let Some(entry) = next(&mut rest) {
        make(&entry);
    }
}

struct Entry<'a> {
    mode: u32,
    device: (u32, u32),
    /// With its terminating zero.
    name: &'a [u8],
    content: &'a [u8],
}

/// The next entry that is none of an archive's trailers; `None` at the end.
fn next<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    loop {
        // Archives are padded with zeroes to a block.
        while rest.first() == Some(&0) {
            *rest = rest.get(4..).unwrap_or_default();
        }
        if rest.is_empty() {
            return None;
        }
        let Some(entry) = parse(rest) else { fail("unpacking the payload: expected a newc cpio archive") };
        if entry.name != b"TRAILER!!!\0" {
            return Some(entry);
        }
    }
}

fn parse<'a>(rest: &mut &'a [u8]) -> Option<Entry<'a>> {
    let header = rest.get(..HEADER)?;
    if &header[..6] != b"070701" {
        return None;
    }
    let field = |n: usize| hex(header.get(6 + 8 * n..14 + 8 * n)?).map(|v| v as u32);
    let name_end = HEADER + field(NAME_SIZE)? as usize;
    let name = rest.get(HEADER..name_end)?;
    let begin = name_end.next_multiple_of(4);
    let end = begin + field(FILE_SIZE)? as usize;
    let content = rest.get(begin..end)?;
    let entry =
        Entry { mode: field(MODE)?, device: (field(DEVICE_MAJOR)?, field(DEVICE_MINOR)?), name, content };
    if entry.name.last() != Some(&0) {
        return None;
    }
    *rest = rest.get(end.next_multiple_of(4)..).unwrap_or_default();
    Some(entry)
}

fn make(entry: &Entry<'_>) {
    let path = entry.name.as_ptr();
    let permissions = entry.mode & 0o7777;
    let made = match entry.mode & 0o170_000 {
        0o040_000 => {
            sys::mkdir(path, permissions);
            true
        }
        0o100_000 => {
            sys::unlink(path);
            sys::new_file(path, permissions, entry.content)
        }
        0o120_000 => {
            let mut target = [0; 4096];
            let fits = entry.content.len() < target.len();
            if fits {
                target[..entry.content.len()].copy_from_slice(entry.content);
            }
            sys::unlink(path);
            fits && sys::symlink(target.as_ptr(), path)
        }
        // `/dev` is the kernel's own by now.
        _ => {
            sys::mknod(path, entry.mode, entry.device);
            true
        }
    };
    if !made {
        sys::say_bytes(&entry.name[..entry.name.len() - 1]);
        fail(" of the payload can't be written: out of memory? give the test more memory_mib");
    }
}

/// The number that hexadecimal digits stand for.
pub fn hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for digit in digits {
        let nibble = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            b'A'..=b'F' => digit - b'A' + 10,
            _ => return None,
        };
        value = value << 4 | u64::from(nibble);
    }
    Some(value)
}
