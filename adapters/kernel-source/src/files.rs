//! A look at the host's files.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use ktstr_kernel::ports::{HostFiles, Probe, ReadError};

/// The longest file that [`OsFiles`] reads: a `.config` has 300 KB at most.
const MAX_READ: u64 = 1 << 20;

/// The files of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsFiles;

impl HostFiles for OsFiles {
    fn probe(&self, path: &Path) -> Probe {
        let found = match fs::metadata(path) {
            Ok(found) => found,
            Err(error) if absent(&error) => return Probe::Missing,
            Err(error) => return Probe::Unreadable(error.to_string()),
        };
        if found.is_dir() {
            return Probe::Directory;
        }
        match File::open(path) {
            Ok(_) => Probe::File,
            Err(error) => Probe::Unreadable(error.to_string()),
        }
    }

    fn read(&self, path: &Path) -> Result<Option<String>, ReadError> {
        let fail = |reason: String| ReadError { path: path.to_owned(), reason };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if absent(&error) => return Ok(None),
            Err(error) => return Err(fail(error.to_string())),
        };
        let mut text = String::new();
        let read = file.take(MAX_READ + 1).read_to_string(&mut text);
        match read {
            Err(error) => Err(fail(error.to_string())),
            Ok(length) if length as u64 > MAX_READ => {
                Err(fail(format!("expected a text of at most {MAX_READ} bytes, found more")))
            }
            Ok(_) => Ok(Some(text)),
        }
    }
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn probe_tells_files_directories_and_nothing() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "x").expect("written");
        symlink("file", at("link")).expect("linked");
        symlink("absent", at("dangling")).expect("linked");
        assert_eq!(OsFiles.probe(&at("file")), Probe::File);
        assert_eq!(OsFiles.probe(&at("link")), Probe::File);
        assert_eq!(OsFiles.probe(dir.path()), Probe::Directory);
        for absent in ["absent", "dangling", "file/below"] {
            assert_eq!(OsFiles.probe(&at(absent)), Probe::Missing, "{absent}");
        }
        symlink("loop", at("loop")).expect("linked");
        assert!(matches!(OsFiles.probe(&at("loop")), Probe::Unreadable(_)));
    }

    #[test]
    fn read_takes_small_texts_only() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config");
        assert!(OsFiles.read(&path).expect("no error").is_none());
        fs::write(&path, "CONFIG_A=y\n").expect("written");
        let text = OsFiles.read(&path).expect("readable");
        assert_eq!(text.as_deref(), Some("CONFIG_A=y\n"));
        fs::write(&path, vec![b' '; (1 << 20) + 1]).expect("written");
        let error = OsFiles.read(&path).expect_err("too long").to_string();
        assert!(error.contains("config"), "{error}");
    }
}
