//! The shared libraries that a program needs, and theirs, found as ld.so(8) would.

use crate::InitramfsError;
use crate::elf::dynamic;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// Directories that every dynamic linker looks at by itself.
const BUILT_IN: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// A library and where it belongs in the guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Library {
    /// The file here.
    pub source: PathBuf,
    /// Its absolute path in the guest.
    pub destination: String,
}

/// Where to look for libraries besides a binary's own run paths.
#[derive(Debug, Clone)]
pub struct LibrarySearch {
    first: Vec<PathBuf>,
    last: Vec<PathBuf>,
}

impl LibrarySearch {
    /// The directories of `LD_LIBRARY_PATH` (given as it stands in the environment),
    /// those of `/etc/ld.so.conf` and the built-in ones.
    pub fn of_system(ld_library_path: Option<&str>) -> Self {
        let split = |s: &str| s.split(':').filter(|d| !d.is_empty()).map(PathBuf::from).collect();
        let first = ld_library_path.map(split).unwrap_or_default();
        let mut last = Vec::new();
        read_conf(Path::new("/etc/ld.so.conf"), &mut last, 0);
        last.extend(BUILT_IN.iter().map(PathBuf::from));
        Self { first, last }
    }

    fn find(&self, name: &str, run_paths: &[PathBuf]) -> Option<PathBuf> {
        let dirs = self.first.iter().chain(run_paths).chain(&self.last);
        dirs.map(|d| d.join(name)).find(|p| p.is_file())
    }

    fn describe(&self, run_paths: &[PathBuf]) -> String {
        let dirs = self.first.iter().chain(run_paths).chain(&self.last);
        dirs.map(|d| d.display().to_string()).collect::<Vec<_>>().join(":")
    }
}

/// Reads `ld.so.conf` with its includes (`include /etc/ld.so.conf.d/*.conf`), two
/// levels deep; what can't be read holds no directory.
fn read_conf(path: &Path, dirs: &mut Vec<PathBuf>, depth: u32) {
    let Ok(text) = std::fs::read_to_string(path) else { return };
    for line in text.lines().map(|l| l.split('#').next().unwrap_or_default().trim()) {
        if let Some(pattern) = line.strip_prefix("include ") {
            if depth < 2 {
                include(Path::new(pattern.trim()), dirs, depth);
            }
        } else if line.starts_with('/') {
            dirs.push(PathBuf::from(line));
        }
    }
}

fn include(pattern: &Path, dirs: &mut Vec<PathBuf>, depth: u32) {
    let (Some(dir), Some(name)) = (pattern.parent(), pattern.file_name().and_then(|n| n.to_str())) else {
        return;
    };
    let Some((prefix, suffix)) = name.split_once('*') else {
        return read_conf(pattern, dirs, depth + 1);
    };
    let Ok(entries) = std::fs::read_dir(dir) else { return };
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
    files.sort();
    for file in files {
        let name = file.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with(prefix) && name.ends_with(suffix) {
            read_conf(&file, dirs, depth + 1);
        }
    }
}

/// The libraries that `binary` needs, directly or through others, with the
/// dynamic linker; sorted, each once. A static binary needs none.
pub fn closure(binary: &Path, search: &LibrarySearch) -> Result<Vec<Library>, InitramfsError> {
    let mut found: BTreeMap<String, Library> = BTreeMap::new();
    let mut queue = VecDeque::from([binary.to_path_buf()]);
    let mut inherited: Vec<PathBuf> = Vec::new();
    while let Some(path) = queue.pop_front() {
        let wants = dynamic(&path)?;
        if let Some(interpreter) = wants.interpreter {
            let library = Library { source: PathBuf::from(&interpreter), destination: interpreter.clone() };
            found.insert(interpreter, library);
        }
        let origin = path.parent().unwrap_or(Path::new("/"));
        // DT_RPATH also serves what a library needs in turn; looking at RUNPATH of
        // an ancestor too finds at most more than ld.so would.
        inherited.extend(wants.run_paths.iter().map(|p| resolve_origin(p, origin)));
        for name in wants.needed {
            if found.contains_key(&name)
                || found.values().any(|l| l.destination.ends_with(&format!("/{name}")))
            {
                continue;
            }
            let source = search.find(&name, &inherited).ok_or_else(|| InitramfsError::Library {
                name: name.clone(),
                by: path.clone(),
                searched: search.describe(&inherited),
            })?;
            queue.push_back(source.clone());
            let destination = source.display().to_string();
            found.insert(name, Library { source, destination });
        }
    }
    Ok(place(found))
}

/// Libraries outside the built-in directories and run paths would need an
/// `ld.so.cache` in the guest: they go beside the C library instead.
fn place(found: BTreeMap<String, Library>) -> Vec<Library> {
    let home = found.get("libc.so.6").and_then(|l| l.source.parent().map(Path::to_path_buf));
    let mut all: Vec<Library> = found
        .into_iter()
        .map(|(name, mut library)| {
            let dir = library.source.parent().unwrap_or(Path::new("/"));
            let built_in = BUILT_IN.iter().any(|b| dir == Path::new(b));
            if let (false, true, Some(home)) = (built_in, name.contains(".so") && !name.contains('/'), &home)
            {
                library.destination = home.join(&name).display().to_string();
            }
            library
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

fn resolve_origin(run_path: &str, origin: &Path) -> PathBuf {
    let origin = origin.display().to_string();
    PathBuf::from(run_path.replace("$ORIGIN", &origin).replace("${ORIGIN}", &origin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// `ldd` runs the dynamic linker itself: an oracle that we did not write.
    #[test]
    fn the_closure_is_what_ldd_says() {
        let binary = std::env::current_exe().unwrap();
        let ours = closure(&binary, &LibrarySearch::of_system(None)).unwrap();
        let Ok(output) = Command::new("ldd").arg(&binary).output() else { return };
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let theirs: Vec<&str> =
            text.lines().filter_map(|l| l.split_whitespace().find(|w| w.starts_with('/'))).collect();
        assert_eq!(ours.len(), theirs.len(), "{ours:?}\n{text}");
        for path in theirs {
            let name = Path::new(path).file_name().unwrap();
            assert!(ours.iter().any(|l| Path::new(&l.destination).file_name() == Some(name)), "{name:?}");
        }
    }

    #[test]
    fn a_missing_library_is_named_with_who_needs_it() {
        let binary = std::env::current_exe().unwrap();
        let nowhere = LibrarySearch { first: vec!["/nonexistent".into()], last: vec![] };
        let text = closure(&binary, &nowhere).unwrap_err().to_string();
        assert!(text.contains("needed by") && text.contains("/nonexistent"), "{text}");
    }

    #[test]
    fn the_origin_is_the_binarys_directory() {
        assert_eq!(resolve_origin("$ORIGIN/../lib", Path::new("/a/bin")), Path::new("/a/bin/../lib"));
    }

    #[test]
    fn includes_are_followed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let conf = dir.path().join("ld.so.conf");
        std::fs::write(&conf, format!("include {}/d/*.conf # more\n/last\n", dir.path().display())).unwrap();
        std::fs::create_dir(dir.path().join("d")).unwrap();
        std::fs::write(dir.path().join("d/b.conf"), "/b\n").unwrap();
        std::fs::write(dir.path().join("d/a.conf"), "/a\n# no\n").unwrap();
        std::fs::write(dir.path().join("d/a.txt"), "/no\n").unwrap();
        let mut dirs = Vec::new();
        read_conf(&conf, &mut dirs, 0);
        assert_eq!(dirs, ["/a", "/b", "/last"].map(PathBuf::from));
    }
}
