//! Files about the kernel that runs here, and which of them are really its own.

use crate::parse_kallsyms;
use ktstr_introspect_symbols::{SymbolTable, Vmlinux, gnu_build_id};
use ktstr_introspect_types::Btf;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where distributions and builds put the kernel's ELF file; `{}` is the release.
const VMLINUX: [&str; 6] = [
    "boot/vmlinux-{}",
    "usr/lib/debug/boot/vmlinux-{}",
    "usr/lib/debug/lib/modules/{}/vmlinux",
    "usr/lib/debug/lib/modules/{}/vmlinux.debug",
    "lib/modules/{}/build/vmlinux",
    "lib/modules/{}/vmlinux",
];
/// Types of modules that are read; a machine has some hundred.
const MAX_MODULES: usize = 1 << 14;

/// Something that is not there, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// What.
    pub what: &'static str,
    /// Why, and what would help.
    pub why: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)
    }
}

impl std::error::Error for Missing {}

/// Where types came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypesFrom {
    /// `/sys/kernel/btf/vmlinux`: the kernel's own word.
    Sysfs(PathBuf),
    /// A vmlinux of the same build.
    Vmlinux(PathBuf),
}

/// The files of the kernel that runs here. Every call looks again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningFiles {
    root: PathBuf,
}

impl Default for RunningFiles {
    fn default() -> Self {
        Self::below(Path::new("/"))
    }
}

impl RunningFiles {
    /// Those of a system whose root is mounted there.
    #[must_use]
    pub fn below(root: &Path) -> Self {
        Self { root: root.to_path_buf() }
    }

    /// Its release, as `uname -r` has it.
    ///
    /// # Errors
    /// [`Missing`]
    pub fn release(&self) -> Result<String, Missing> {
        let path = self.root.join("proc/sys/kernel/osrelease");
        let text = std::fs::read_to_string(&path).map_err(|e| missing("the kernel's release", &path, &e))?;
        Ok(text.trim().to_string())
    }

    /// Its build id, in hexadecimal, by its notes in sysfs.
    ///
    /// # Errors
    /// [`Missing`]
    pub fn build_id(&self) -> Result<String, Missing> {
        const WHAT: &str = "the kernel's build id";
        let path = self.root.join("sys/kernel/notes");
        let notes = std::fs::read(&path).map_err(|e| missing(WHAT, &path, &e))?;
        gnu_build_id(&notes).ok_or_else(|| Missing {
            what: WHAT,
            why: format!("{} has no GNU build id: the kernel was linked without one", path.display()),
        })
    }

    /// Its ELF file, of the usual places the first whose build id is the kernel's.
    ///
    /// # Errors
    /// [`Missing`], with what was wrong with each file that there is.
    pub fn vmlinux(&self) -> Result<Vmlinux, Missing> {
        const WHAT: &str = "the kernel's vmlinux";
        let (release, expected) = (self.release()?, self.build_id()?);
        let mut wrong = Vec::new();
        for place in VMLINUX {
            let path = self.root.join(place.replace("{}", &release));
            if !path.exists() {
                continue;
            }
            match Vmlinux::open(&path) {
                Ok(file) => match file.build_id() {
                    Some(seen) if seen == expected => return Ok(file),
                    Some(seen) => wrong.push(format!("{} is of build {seen}", path.display())),
                    None => wrong.push(format!("{} has no build id", path.display())),
                },
                Err(e) => wrong.push(e.to_string()),
            }
        }
        let why = match wrong.is_empty() {
            true => format!(
                "none of the usual places has one of {release}, such as {}; install the kernel's debug package",
                self.root.join(VMLINUX[1].replace("{}", &release)).display()
            ),
            false => format!("the running kernel is of build {expected}, but {}", wrong.join(", and ")),
        };
        Err(Missing { what: WHAT, why })
    }

    /// Its types: by sysfs, else out of its vmlinux.
    ///
    /// # Errors
    /// [`Missing`] with both reasons.
    pub fn types(&self) -> Result<(Arc<Btf>, TypesFrom), Missing> {
        const WHAT: &str = "the kernel's types (BTF)";
        let path = self.root.join("sys/kernel/btf/vmlinux");
        let own = std::fs::read(&path).map_err(|e| missing(WHAT, &path, &e).why);
        let own = own.and_then(|bytes| Btf::parse(bytes).map_err(|e| format!("{}: {e}", path.display())));
        let why = match own {
            Ok(types) => return Ok((Arc::new(types), TypesFrom::Sysfs(path))),
            Err(why) => why,
        };
        let file = self.vmlinux().map_err(|e| Missing { what: WHAT, why: format!("{why}; {e}") })?;
        let found = Btf::from_elf(file.bytes());
        found
            .map(|types| (Arc::new(types), TypesFrom::Vmlinux(file.path().to_path_buf())))
            .map_err(|e| Missing { what: WHAT, why: format!("{why}; {}: {e}", file.path().display()) })
    }

    /// The names of loaded modules that tell their types.
    ///
    /// # Errors
    /// [`Missing`] without the directory.
    pub fn modules(&self) -> Result<Vec<String>, Missing> {
        let path = self.root.join("sys/kernel/btf");
        let entries = std::fs::read_dir(&path).map_err(|e| missing("types of modules", &path, &e))?;
        let name = |entry: io::Result<std::fs::DirEntry>| entry.ok()?.file_name().into_string().ok();
        let mut found: Vec<String> =
            entries.filter_map(name).filter(|name| name != "vmlinux").take(MAX_MODULES).collect();
        found.sort();
        Ok(found)
    }

    /// The types of a loaded module, on top of the kernel's.
    ///
    /// # Errors
    /// [`Missing`]
    pub fn module_types(&self, module: &str, base: &Arc<Btf>) -> Result<Btf, Missing> {
        const WHAT: &str = "the types of a module";
        // A name is one file of that directory, never a way out of it.
        let plain =
            !module.is_empty() && module.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b));
        if !plain || module == "vmlinux" {
            return Err(Missing { what: WHAT, why: format!("{module:?} is no module's name") });
        }
        let path = self.root.join("sys/kernel/btf").join(module);
        let bytes = std::fs::read(&path).map_err(|e| missing(WHAT, &path, &e))?;
        Btf::parse_split(bytes, base.clone())
            .map_err(|e| Missing { what: WHAT, why: format!("{}: {e}", path.display()) })
    }

    /// Its own symbols, at their runtime addresses.
    ///
    /// # Errors
    /// [`Missing`], also where the kernel hides its addresses.
    pub fn symbols(&self) -> Result<SymbolTable, Missing> {
        const WHAT: &str = "the kernel's symbols";
        let path = self.root.join("proc/kallsyms");
        let text = std::fs::read_to_string(&path).map_err(|e| missing(WHAT, &path, &e))?;
        parse_kallsyms(&text).map_err(|e| Missing { what: WHAT, why: e.to_string() })
    }

    /// Where its memory would be.
    #[must_use]
    pub fn core(&self) -> PathBuf {
        self.root.join("proc/kcore")
    }
}

/// A file that can't be read, with what the kernel needs to have it.
fn missing(what: &'static str, path: &Path, error: &io::Error) -> Missing {
    let name = path.file_name().unwrap_or_default();
    let needs = match (error.kind(), name.to_str()) {
        (io::ErrorKind::PermissionDenied, _) => "; be root",
        (_, Some("vmlinux" | "btf")) => "; a kernel has it with CONFIG_DEBUG_INFO_BTF",
        (_, Some("kallsyms")) => "; a kernel has it with CONFIG_KALLSYMS",
        (_, Some("osrelease" | "notes")) => "; are /proc and /sys mounted?",
        _ => "",
    };
    Missing { what, why: format!("{}: {error}{needs}", path.display()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_types::BtfBuilder;
    use object::write::Object;
    use object::{Architecture, BinaryFormat, Endianness, SectionKind};

    /// ELF notes with one build id.
    fn notes(build_id: &[u8]) -> Vec<u8> {
        let words = [4u32, build_id.len() as u32, 3];
        let head: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        [head, b"GNU\0".to_vec(), build_id.to_vec()].concat()
    }

    /// An ELF file with `.notes` and, if any, `.BTF`.
    fn elf(build_id: &[u8], btf: Option<&[u8]>) -> Vec<u8> {
        let mut file = Object::new(BinaryFormat::Elf, Architecture::X86_64, Endianness::Little);
        let section = file.add_section(Vec::new(), b".notes".to_vec(), SectionKind::Note);
        file.append_section_data(section, &notes(build_id), 4);
        if let Some(btf) = btf {
            let section = file.add_section(Vec::new(), b".BTF".to_vec(), SectionKind::ReadOnlyData);
            file.append_section_data(section, btf, 4);
        }
        file.write().unwrap()
    }

    fn system(files: &[(&str, &[u8])]) -> (tempfile::TempDir, RunningFiles) {
        let dir = tempfile::tempdir().unwrap();
        for (path, bytes) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
        }
        let running = RunningFiles::below(dir.path());
        (dir, running)
    }

    fn types() -> Vec<u8> {
        let mut build = BtfBuilder::new();
        build.integer("int", 4, true);
        build.bytes()
    }

    const RELEASE: (&str, &[u8]) = ("proc/sys/kernel/osrelease", b"6.12.0-x\n");

    #[test]
    fn only_a_file_of_the_same_build_is_the_kernels() {
        let (own, other) = (notes(b"this"), elf(b"that", None));
        let mut files = vec![RELEASE, ("sys/kernel/notes", own.as_slice())];
        let why = |files: &[(&str, &[u8])]| system(files).1.vmlinux().unwrap_err().why;
        assert!(why(&files).contains("usr/lib/debug/boot/vmlinux-6.12.0-x; install"), "{}", why(&files));
        files.push(("boot/vmlinux-6.12.0-x", &other));
        files.push(("usr/lib/debug/boot/vmlinux-6.12.0-x", b"no ELF file"));
        let text = why(&files);
        for part in [
            "running kernel is of build 74686973",
            "boot/vmlinux-6.12.0-x is of build 74686174",
            "little-endian",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let own_file = elf(b"this", None);
        files.push(("lib/modules/6.12.0-x/vmlinux", &own_file));
        let (dir, running) = system(&files);
        assert_eq!(running.vmlinux().unwrap().path(), dir.path().join("lib/modules/6.12.0-x/vmlinux"));
    }

    #[test]
    fn types_come_from_the_kernel_before_any_file() {
        let (types, notes) = (types(), notes(b"this"));
        let file = elf(b"this", Some(&types));
        let mut files =
            vec![RELEASE, ("sys/kernel/notes", notes.as_slice()), ("boot/vmlinux-6.12.0-x", file.as_slice())];
        let (dir, running) = system(&files);
        let (found, from) = running.types().unwrap();
        assert_eq!(from, TypesFrom::Vmlinux(dir.path().join("boot/vmlinux-6.12.0-x")));
        assert!(found.named("int").next().is_some());
        files.push(("sys/kernel/btf/vmlinux", &types));
        let (dir, running) = system(&files);
        assert_eq!(running.types().unwrap().1, TypesFrom::Sysfs(dir.path().join("sys/kernel/btf/vmlinux")));
        let (_dir, none) = system(&[RELEASE]);
        let why = none.types().unwrap_err().to_string();
        for part in ["CONFIG_DEBUG_INFO_BTF", "the kernel's build id", "sys/kernel/notes"] {
            assert!(why.contains(part), "{part}: {why}");
        }
    }

    #[test]
    fn modules_stand_on_the_kernels_types_and_are_named_plainly() {
        let base = types();
        let kernel = Arc::new(Btf::parse(base.clone()).unwrap());
        let mut build = BtfBuilder::on(&kernel);
        build.integer("of_module", 8, false);
        let split = build.bytes();
        let (_dir, running) =
            system(&[("sys/kernel/btf/vmlinux", &base), ("sys/kernel/btf/some_mod", &split)]);
        assert_eq!(running.modules().unwrap(), ["some_mod"]);
        let module = running.module_types("some_mod", &kernel).unwrap();
        assert!(module.named("int").next().is_some() && module.named("of_module").next().is_some());
        for bad in ["", "vmlinux", "../notes", "a/b", "none"] {
            assert!(running.module_types(bad, &kernel).is_err(), "{bad}");
        }
    }

    #[test]
    fn hidden_symbols_are_missing_with_the_reason() {
        let (_dir, running) = system(&[("proc/kallsyms", b"0000000000000000 T _text\n")]);
        assert!(running.symbols().unwrap_err().to_string().contains("kptr_restrict"));
        let (_dir, none) = system(&[]);
        assert!(none.symbols().unwrap_err().to_string().contains("CONFIG_KALLSYMS"));
        assert!(none.modules().is_err() && none.release().is_err() && none.build_id().is_err());
    }
}
