//! Tells without reading a file whether it is as it was (stat(2)).

use crate::TemplateError;
use serde::{Deserialize, Serialize};
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A change so soon after another may leave the same times: the kernel takes them from a
/// clock that ticks every few milliseconds, some file systems from one of two seconds.
const SETTLED: Duration = Duration::from_secs(2);

/// What differs once somebody has written to a file, or put another in its place. The time
/// of change is the kernel's own: nobody can set it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(crate) fn of(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }
    }

    /// True if the last change is long enough ago that a later one shows.
    fn is_settled(&self, now: SystemTime) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or_default();
        now.duration_since(UNIX_EPOCH).is_ok_and(|now| now > Duration::from_secs(changed) + SETTLED)
    }
}

/// What is remembered of a file elsewhere on this machine.
#[derive(Serialize, Deserialize)]
struct Remembered {
    stamp: Stamp,
    sum: String,
}

/// The sum of the file at `path` that `note` remembers, if the file is as it was then;
/// else what `sum_up` makes of it, which is remembered unless the file changed just `now`.
pub(crate) fn remembered<E>(
    note: &Path,
    path: &Path,
    now: SystemTime,
    sum_up: impl FnOnce() -> Result<String, E>,
) -> Result<String, E> {
    let found = std::fs::metadata(path).ok().map(|m| Stamp::of(&m));
    let known = std::fs::read(note).ok().and_then(|b| serde_json::from_slice::<Remembered>(&b).ok());
    if let (Some(found), Some(known)) = (found, known)
        && found == known.stamp
    {
        return Ok(known.sum);
    }
    let sum = sum_up()?;
    if let Some(stamp) = found.filter(|stamp| stamp.is_settled(now)) {
        // Without the note, it is summed up again next time.
        let _ = write_note(note, &Remembered { stamp, sum: sum.clone() });
    }
    Ok(sum)
}

fn write_note(note: &Path, remembered: &Remembered) -> Result<(), TemplateError> {
    let json = serde_json::to_vec(remembered)
        .map_err(|e| TemplateError::io("writing", note)(std::io::Error::other(e)))?;
    replace(note, &json)
}

/// Puts a file in place of another, whole or not at all.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), TemplateError> {
    let dir = path.parent().unwrap_or(path);
    std::fs::create_dir_all(dir).map_err(TemplateError::io("making", dir))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let staged = dir.join(format!(".{name}-{}-{}", std::process::id(), crate::serial()));
    let written = std::fs::write(&staged, content).and_then(|()| std::fs::rename(&staged, path));
    written.map_err(|error| {
        // Nothing more can be done about it than to say the first error.
        let _ = std::fs::remove_file(&staged);
        TemplateError::io("writing", path)(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_sum_is_remembered_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, note) = (dir.path().join("bzImage"), dir.path().join("notes/note"));
        let now = SystemTime::now();
        let later = now + Duration::from_secs(60);
        let sum = |now, answer: &str| {
            remembered(&note, &path, now, || Ok::<_, std::io::Error>(answer.to_string())).unwrap()
        };
        std::fs::write(&path, "one").unwrap();
        // A file that changed a moment ago may change again within the same tick of the clock.
        assert_eq!((sum(now, "1").as_str(), sum(now, "2").as_str()), ("1", "2"));
        assert_eq!((sum(later, "3").as_str(), sum(later, "4").as_str()), ("3", "3"));
        let before = std::fs::metadata(&path).unwrap().modified().unwrap();
        // The same length, and the time of modification set back.
        std::thread::sleep(Duration::from_millis(20));
        std::fs::write(&path, "two").unwrap();
        File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
        assert_eq!(sum(later, "5"), "5");
        std::fs::remove_file(&path).unwrap();
        let gone = remembered(&note, &path, later, || Err::<String, _>(std::io::Error::other("gone")));
        assert_eq!(gone.unwrap_err().to_string(), "gone");
    }
}
