//! The monitor's public names are of no processor, except in its modules `arch`.

use super::Finding;
use super::paths::shipped;
use super::tokens::{Kind, Token, tokens};
use super::tree::{SourceFile, Tree};

/// Words that only x86 has; a name has one of them as a part (`has_lapic`, `LapicState`), alone or in the plural.
const WORDS: [&str; 66] = [
    "x86", "x64", "amd64", "ia32", "cpuid", "msr", "rdmsr", "wrmsr", "apic", "lapic", "ioapic", "x2apic",
    "pic", "pit", "i8259", "i8254", "i8042", "hpet", "tsc", "rdtsc", "mtrr", "pat", "gdt", "idt", "ldt",
    "tss", "efer", "cr0", "cr2", "cr3", "cr4", "cr8", "xcr0", "dr6", "dr7", "rip", "rsp", "rbp", "rax",
    "rbx", "rcx", "rdx", "rsi", "rdi", "eax", "ebx", "ecx", "edx", "eip", "esp", "rflags", "eflags", "xsave",
    "sipi", "int3", "vmx", "svm", "vmcb", "vmcs", "smi", "smm", "pvh", "bzimage", "e820", "ebda", "mptable",
];

/// Names that may have one all the same: the file, the name, and why.
const ALLOWED: [(&str, &str, &str); 0] = [];

/// Checks what the monitor's crates ship.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust().filter(|file| is_neutral(&file.path)).flat_map(|file| check_file(file, &ALLOWED)).collect()
}

/// `vmm/*/src/…`, and neither `arch.rs` nor below a folder `arch`.
fn is_neutral(path: &str) -> bool {
    let mut parts = path.split('/');
    let of_monitor = parts.next() == Some("vmm") && parts.nth(1) == Some("src");
    of_monitor && parts.all(|part| part.trim_end_matches(".rs") != "arch")
}

fn check_file(file: &SourceFile, allowed: &[(&str, &str, &str)]) -> Vec<Finding> {
    let tokens = shipped(&tokens(&file.text)).tokens;
    let mut findings = Vec::new();
    for name in public_names(&tokens) {
        let is_allowed = allowed.iter().any(|(path, it, _)| *path == file.path && *it == name.text);
        if let Some(word) = foreign_word(name.text).filter(|_| !is_allowed) {
            let text = format!(
                "`{}` is public and has x86's own {word:?}; name what it is on any processor, or move it to the \
                 crate's module `arch`",
                name.text
            );
            findings.push(Finding { path: file.path.clone(), line: name.line, rule: "arch-names", text });
        }
    }
    findings
}

/// The first of [`WORDS`] in a name.
fn foreign_word(name: &str) -> Option<&'static str> {
    let parts = parts(name);
    // `CpuId` is how others spell one of them; `cpu_id` is a CPU's number.
    let joined = parts.windows(2).filter(|_| !name.contains('_')).map(<[String]>::concat);
    let has = |word: &str| {
        parts.iter().any(|part| part == word || part.strip_suffix('s') == Some(word))
            || joined.clone().any(|pair| pair == word)
    };
    WORDS.into_iter().find(|word| has(word))
}

/// The words of a name in snake, screaming or camel case, in lower case; digits go with what is before them.
fn parts(name: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut before_is_small = false;
    for character in name.chars() {
        let begins = character == '_' || (character.is_uppercase() && before_is_small);
        if begins {
            parts.push(String::new());
        }
        if let Some(part) = parts.last_mut().filter(|_| character != '_') {
            part.extend(character.to_lowercase());
        }
        before_is_small = character.is_lowercase() || character.is_ascii_digit();
    }
    parts.retain(|part| !part.is_empty());
    parts
}

/// What stands between `pub` and a name.
const BEFORE_NAME: [&str; 14] = [
    "async", "auto", "const", "enum", "extern", "fn", "mod", "mut", "static", "struct", "trait", "type",
    "union", "unsafe",
];

/// Items and fields that are `pub`, what is re-exported, variants and their fields, and what a trait has.
fn public_names<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut names = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let rest = &tokens[at + 1..];
        // `pub(crate)` is nobody else's.
        if !token.is("pub") || rest.first().is_some_and(|next| next.is("(")) {
            continue;
        }
        if rest.first().is_some_and(|next| next.is("use")) {
            names.extend(exported(rest));
            continue;
        }
        let is_before =
            |it: &&Token<'_>| it.kind == Kind::Literal || BEFORE_NAME.iter().any(|word| it.is(word));
        let before = rest.iter().take_while(is_before).count();
        names.extend(rest.get(before).filter(|name| name.kind == Kind::Word));
        let body = body(&rest[before..]);
        if rest[..before].iter().any(|word| word.is("enum")) {
            names.extend(variants(body));
        } else if rest[..before].iter().any(|word| word.is("trait")) {
            names.extend(members(body));
        }
    }
    names
}

/// The names that a `use` brings: the last of each path, or what it is renamed to.
fn exported<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let end = tokens.iter().position(|token| token.is(";")).unwrap_or(tokens.len());
    let ends =
        |next: Option<&Token<'_>>| next.is_none_or(|next| [",", "}", ";"].iter().any(|it| next.is(it)));
    let last = |(at, token): &(usize, &Token<'_>)| token.kind == Kind::Word && ends(tokens.get(at + 1));
    tokens[..end].iter().enumerate().filter(last).map(|(_, token)| *token).collect()
}

/// What stands in the first braces, if they come before the end of the item.
fn body<'a, 'b>(tokens: &'b [Token<'a>]) -> &'b [Token<'a>] {
    let begin = tokens.iter().position(|token| token.is("{") || token.is(";")).unwrap_or(tokens.len());
    if tokens.get(begin).is_none_or(|token| token.is(";")) {
        return &[];
    }
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(begin) {
        depth += usize::from(token.is("{"));
        if token.is("}") {
            depth -= 1;
            if depth == 0 {
                return &tokens[begin + 1..at];
            }
        }
    }
    &tokens[begin + 1..]
}

/// Variants of an enum, and the fields that they name.
fn variants<'a>(body: &[Token<'a>]) -> Vec<Token<'a>> {
    let (mut names, mut depth, mut fresh) = (Vec::new(), 0usize, true);
    for (at, token) in body.iter().enumerate() {
        if ["{", "(", "["].iter().any(|open| token.is(open)) {
            depth += 1;
            fresh = token.is("{");
        } else if ["}", ")", "]"].iter().any(|close| token.is(close)) {
            depth = depth.saturating_sub(1);
            // After an attribute comes what it is on.
            fresh = token.is("]");
        } else if token.is(",") {
            fresh = true;
        } else if !token.is("#") {
            let is_field = depth == 1 && body.get(at + 1).is_some_and(|next| next.is(":"));
            if fresh && token.kind == Kind::Word && (depth == 0 || is_field) {
                names.push(*token);
            }
            fresh = false;
        }
    }
    names
}

/// Functions, types and constants of a trait.
fn members<'a>(body: &[Token<'a>]) -> Vec<Token<'a>> {
    let mut depth = 0usize;
    let mut names = Vec::new();
    for pair in body.windows(2) {
        depth += usize::from(pair[0].is("{"));
        depth = depth.saturating_sub(usize::from(pair[0].is("}")));
        let declares = ["fn", "type", "const"].iter().any(|word| pair[0].is(word));
        if depth == 0 && declares && pair[1].kind == Kind::Word {
            names.push(pair[1]);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(usize, String)> {
        let file = SourceFile { path: "vmm/vm/src/bus.rs".to_owned(), text: source.to_owned() };
        let of = |it: Finding| (it.line, it.text.split('`').nth(1).unwrap_or_default().to_owned());
        check_file(&file, &[]).into_iter().map(of).collect()
    }

    fn names(source: &str) -> Vec<String> {
        found(source).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn every_kind_of_public_name_is_looked_at() {
        for (source, name) in [
            ("pub struct Lapic;", "Lapic"),
            ("pub const unsafe fn write_msr() {}", "write_msr"),
            ("pub unsafe extern \"C\" fn rip() {}", "rip"),
            ("pub static GDT_BASE: u64 = 0;", "GDT_BASE"),
            ("pub const CR3: u64 = 0;", "CR3"),
            ("pub mod x86_64;", "x86_64"),
            ("pub type CpuId = u32;", "CpuId"),
            ("pub struct S { pub a: u32, pub msrs: Vec<u64> }", "msrs"),
            ("pub enum E { A, #[error(\"x {msr}\")] NoApic(u32), B { a: u32 } }", "NoApic"),
            ("pub enum E { A(Vec<u8>), B { why: String, rflags: u64 }, C = 3 }", "rflags"),
            ("pub trait T { type A; fn a(&self) { fn msr() {} } fn has_tsc(&self) -> bool; }", "has_tsc"),
            ("pub use crate::x::{A, b::{C as Ioapic}};", "Ioapic"),
            ("pub use crate::pvh;", "pvh"),
        ] {
            assert_eq!(names(source), [name], "{source}");
        }
        assert_eq!(found("pub struct S {\n    pub a: u8,\n    pub tss: u8,\n}"), [(3, "tss".to_owned())]);
    }

    #[test]
    fn what_is_private_or_no_name_is_free() {
        for source in [
            "fn read_msr() {} struct Apic { rip: u64 } enum E { Msr } trait T { fn cpuid(); }",
            "pub(crate) fn read_msr() {} pub(super) struct Apic;",
            "pub fn f(msr: u32) -> arch::Msr { let cr3 = 0; cpuid() }",
            "pub struct S(pub arch::Cpuid); pub struct T { pub a: arch::Msrs }",
            "// pub struct Msr;\n/// Reads an MSR.\npub fn f() -> &'static str { \"msr\" }",
            "pub use crate::arch::x86_64::{Ids, load};",
            "pub enum E { A(arch::Msr), B { a: arch::Apic } }",
            "#[cfg(test)] mod tests { pub struct Msr; }",
            "pub struct CpuIds { pub cpu_ids: Vec<u32>, pub description: u8, pub topic: u8, pub ripple: u8 }",
        ] {
            assert_eq!(names(source), [""; 0], "{source}");
        }
    }

    #[test]
    fn words_are_found_in_any_case_and_in_the_plural_and_not_inside_others() {
        let words = |names: &[&str]| names.iter().filter_map(|name| foreign_word(name)).collect::<Vec<_>>();
        assert_eq!(
            words(&["LapicState", "IOAPIC_BASE", "has_tsc", "Msrs", "msrs"]),
            ["lapic", "ioapic", "tsc", "msr", "msr"]
        );
        assert_eq!(
            words(&["X86", "x86_64", "BzImage", "bzimage_header", "CpuId", "E820Table"]),
            ["x86", "x86", "bzimage", "bzimage", "cpuid", "e820"]
        );
        assert!(words(&["trip", "Description", "cpu_id", "CpuIds", "apical", "spits", "Picture"]).is_empty());
    }

    #[test]
    fn modules_for_a_processor_and_other_crates_are_free() {
        let source = "pub struct Msr;";
        let tree = Tree::from([
            ("vmm/cpu/src/arch/x86_64/registers.rs", source),
            ("vmm/cpu/src/arch.rs", source),
            ("vmm/cpu/src/archive.rs", source),
            ("vmm/cpu/tests/t.rs", source),
            ("adapters/kvm/src/lib.rs", source),
        ]);
        let paths: Vec<_> = check(&tree).into_iter().map(|it| it.path).collect();
        assert_eq!(paths, ["vmm/cpu/src/archive.rs"]);
    }

    #[test]
    fn a_name_with_a_reason_is_allowed_in_its_file() {
        let file = SourceFile { path: "vmm/a/src/b.rs".to_owned(), text: "pub struct Msr;".to_owned() };
        assert!(check_file(&file, &[("vmm/a/src/b.rs", "Msr", "why")]).is_empty());
        assert_eq!(check_file(&file, &[("vmm/a/src/c.rs", "Msr", "why")]).len(), 1);
        assert!(check_file(&file, &[])[0].text.contains("module `arch`"));
    }
}
