//! Variables of a small C program, built by the compiler that links the tests.

use std::path::{Path, PathBuf};
use std::process::Command;

use ktstr_introspect_symbols::Vmlinux;
use ktstr_introspect_types::{BtfBuilder, DecodeLimits, Leaf, Type, TypeId};

use super::*;

const PROGRAM: &str = r#"
struct pair { int a; int b; };
typedef struct pair pair_t;
struct local {
    struct pair inner;
    const char *name;
    unsigned low : 3, high : 5;
    short grid[2][3];
    struct local *next;
    union { long word; char bytes[8]; };
};
struct unknown;

struct pair shared = { 1, 2 };
pair_t renamed = { 3, 4 };
struct local mine = { .inner = { 5, 6 }, .low = 5, .high = 17, .grid = { { 1, 2, 3 }, { 4, 5, -6 } }, .bytes = "text" };
struct { char tag; enum { RED = 1, BLUE = -2 } colour; } nameless = { 'x', BLUE };
volatile unsigned long counter = 7;
extern const long declared;
const long declared = -8;
int (*handler)(struct pair *, ...) = 0;
struct unknown *opaque = 0;
_Bool truth = 1;
struct {} nothing;
extern int only_declared;

long used(void) {
    static int inside = 9;
    return nameless.tag + inside++ + only_declared;
}
"#;

/// The program as a shared object, with these options of the compiler.
fn program(dir: &Path, options: &[&str]) -> PathBuf {
    let (source, built) = (dir.join("program.c"), dir.join("program.so"));
    std::fs::write(&source, PROGRAM).unwrap();
    let mut command = Command::new("cc");
    command.args(["-g", "-O1", "-fno-zero-initialized-in-bss", "-fPIC", "-shared", "-nostdlib"]);
    let done = command.args(options).arg("-o").args([&built, &source]).status().unwrap();
    assert!(done.success(), "cc {options:?}");
    built
}

/// As a kernel's BTF: it has `pair` and some numbers, but neither `local` nor `short`.
fn kernels_types() -> Arc<Btf> {
    let mut build = BtfBuilder::new();
    let int = build.integer("int", 4, true);
    for (name, size) in [("long int", 8), ("char", 1)] {
        build.integer(name, size, true);
    }
    build.integer("long unsigned int", 8, false);
    build.integer("_Bool", 1, false);
    // One of the same name and another size, and one of the same size and other members.
    build.structure("pair", 16, &[("a", int, 0), ("b", int, 8)]);
    build.structure("pair", 8, &[("x", int, 0), ("y", int, 4)]);
    let pair = build.structure("pair", 8, &[("a", int, 0), ("b", int, 4)]);
    build.typedef("pair_t", pair);
    Arc::new(Btf::parse(build.bytes()).unwrap())
}

struct Opened {
    file: Vmlinux,
    found: VariableTypes,
}

impl Opened {
    fn new(path: &Path) -> Self {
        let file = Vmlinux::open(path).unwrap();
        let found = variable_types(&DebugSections::read(file.bytes()).unwrap(), &kernels_types()).unwrap();
        Self { file, found }
    }

    fn ty(&self, name: &str) -> Option<TypeId> {
        let at = self.file.symbols().unwrap().lookup(name)?.address;
        self.found.find(name, at)
    }

    /// The variable's value in the file.
    fn value(&self, name: &str) -> String {
        let ty = self.ty(name).unwrap_or_else(|| panic!("{name} has a type"));
        let at = self.file.symbols().unwrap().lookup(name).unwrap().address;
        let size = self.found.types().size_of(ty).unwrap() as usize;
        let bytes = &self.file.loaded_at(at).unwrap()[..size];
        self.found.types().decode(ty, bytes, DecodeLimits::default()).unwrap().to_string()
    }
}

#[test]
fn variables_are_read_by_their_types_however_these_are_written() {
    let dir = tempfile::tempdir().unwrap();
    for options in [&["-gdwarf-5"][..], &["-gdwarf-4"], &["-gdwarf-3", "-gstrict-dwarf"], &["-gz=zlib"]] {
        let opened = Opened::new(&program(dir.path(), options));
        assert_eq!(opened.found.left_out(), 0, "{options:?}");
        for (name, value) in [
            ("shared", "{a = 1, b = 2}"),
            ("renamed", "{a = 3, b = 4}"),
            ("counter", "7"),
            ("declared", "-8"),
            ("truth", "true"),
            ("handler", "NULL"),
            ("opaque", "NULL"),
            ("nameless", "{tag = 120, colour = BLUE}"),
        ] {
            assert_eq!(opened.value(name), value, "{name} with {options:?}");
        }
        let mine = opened.value("mine");
        for part in
            ["inner = {a = 5, b = 6}", "low = 5", "high = 17", "[[1, 2, 3], [4, 5, -6]]", "bytes = \"text\""]
        {
            assert!(mine.contains(part), "{mine} with {options:?}");
        }
        let ty = opened.ty("mine").unwrap();
        let high = opened.found.types().plan_from(ty, ".high").unwrap();
        assert_eq!(high.leaf(), Leaf::Bits { shift: 3, bits: 5, signed: false }, "{options:?}");
        // A list of its own kind, which leads back to where it began.
        assert!(opened.found.types().plan_from(ty, ".next->next->inner.b").is_ok());
    }
}

#[test]
fn what_the_kernel_has_is_not_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::new(&program(dir.path(), &[]));
    let base = opened.found.types().base().unwrap().clone();
    let pair = base.composite("pair_t").unwrap();
    assert_eq!(opened.ty("shared"), Some(pair), "the one of these members");
    assert_eq!(opened.ty("renamed"), base.named("pair_t").next());
    assert!(opened.ty("mine").is_some_and(|id| id.0 >= base.len()));
    let Type::Pointer(to) = opened.found.types().get(opened.ty("opaque").unwrap()).unwrap() else {
        panic!("a pointer")
    };
    assert!(matches!(opened.found.types().get(to), Ok(Type::Forward { name: "unknown", union: false })));
}

#[test]
fn what_lies_nowhere_or_in_a_function_is_no_variable() {
    let dir = tempfile::tempdir().unwrap();
    let opened = Opened::new(&program(dir.path(), &[]));
    let names: Vec<&str> = ["only_declared", "inside", "shared"]
        .into_iter()
        .filter(|name| {
            let is_variable = |id| matches!(opened.found.types().get(id), Ok(Type::Variable { .. }));
            opened.found.types().named(name).any(is_variable)
        })
        .collect();
    assert_eq!(names, ["shared"]);
}

#[test]
fn damaged_information_is_refused_or_answered() {
    let dir = tempfile::tempdir().unwrap();
    let whole = std::fs::read(program(dir.path(), &[])).unwrap();
    let (base, mut seed) = (kernels_types(), 0x9e37_79b9_7f4a_7c15u64);
    let mut answered = 0;
    for _ in 0..400 {
        let mut file = whole.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let place = 64 + (seed >> 16) as usize % (file.len() - 64);
            file[place] = seed as u8;
        }
        let Ok(sections) = DebugSections::read(&file) else { continue };
        if let Ok(found) = variable_types(&sections, &base) {
            answered += 1;
            for id in (0..found.types().len()).map(TypeId) {
                let _ = (found.types().size_of(id), found.types().plan_from(id, ".inner.b"));
            }
        }
    }
    assert!(answered > 0, "most damage leaves something to read");
}

#[test]
fn a_section_that_promises_too_much_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = std::fs::read(program(dir.path(), &["-gz=zlib"])).unwrap();
    assert!(DebugSections::read(&file).is_ok());
    // `ch_type` ELFCOMPRESS_ZLIB, reserved, `ch_size`, then `ch_addralign` 1 and zlib's own first byte.
    let is_header = |at: &[u8]| at[..8] == [1, 0, 0, 0, 0, 0, 0, 0] && at[16] == 1 && at[24] == 0x78;
    let headers: Vec<usize> = (0..file.len() - 25).filter(|at| is_header(&file[*at..*at + 25])).collect();
    assert!(!headers.is_empty());
    for at in headers {
        file[at + 8..at + 16].copy_from_slice(&(1u64 << 40).to_le_bytes());
    }
    let refused = DebugSections::read(&file).unwrap_err();
    assert!(matches!(refused, DwarfError::TooLarge { size, .. } if size == 1 << 40), "{refused}");
}
