//! No operating system in core: what a core crate needs of the world is a port.

use super::Finding;
use super::paths::{Named, Shipped, paths, shipped};
use super::tokens::tokens;
use super::tree::{SourceFile, Tree};

/// What core may not name, and what to do instead. A prefix covers all below it.
/// `std::path`, `std::time::Duration`, `std::io::Error` and `std::sync` are fine.
const FORBIDDEN: [(&str, &str); 24] = [
    ("std::fs", "files are behind a port"),
    ("std::process", "processes are behind a port"),
    ("std::thread", "threads are behind a port"),
    ("std::net", "sockets are behind a port"),
    ("std::env", "the caller passes in what the environment says"),
    ("std::os", "the operating system is behind a port"),
    ("std::time::Instant", "the clock is a port; times are Duration"),
    ("std::time::SystemTime", "the clock is a port; times are Duration"),
    ("std::time::UNIX_EPOCH", "the clock is a port; times are Duration"),
    ("std::io::stdin", "the caller passes in a reader"),
    ("std::io::stdout", "return text or take a writer"),
    ("std::io::stderr", "return text or take a writer"),
    ("std::io::pipe", "pipes are behind a port"),
    ("libc", "system calls are behind a port"),
    ("nix", "system calls are behind a port"),
    ("rustix", "system calls are behind a port"),
    ("println!", "return text; the caller prints it"),
    ("eprintln!", "return text; the caller prints it"),
    ("print!", "return text; the caller prints it"),
    ("eprint!", "return text; the caller prints it"),
    ("std::println!", "return text; the caller prints it"),
    ("std::eprintln!", "return text; the caller prints it"),
    ("std::print!", "return text; the caller prints it"),
    ("std::eprint!", "return text; the caller prints it"),
];

/// Checks the code that core crates (and kconfig) ship.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    let files: Vec<_> = tree.rust().filter(|file| is_pure(&file.path)).collect();
    let read: Vec<(&SourceFile, Shipped<'_>)> =
        files.into_iter().map(|file| (file, shipped(&tokens(&file.text)))).collect();
    let for_tests: Vec<_> = read.iter().flat_map(|(file, shipped)| test_files(file, shipped)).collect();
    let mut findings = Vec::new();
    for (file, shipped) in &read {
        if for_tests
            .iter()
            .any(|it| file.path == format!("{it}.rs") || file.path.starts_with(&format!("{it}/")))
        {
            continue;
        }
        for named in paths(&shipped.tokens) {
            if let Some((what, instead)) = forbidden(&named) {
                let text = format!("{} is the world outside ({what}); {instead}", named.path);
                findings.push(Finding { path: file.path.clone(), line: named.line, rule: "no-os", text });
            }
        }
    }
    findings.dedup();
    findings
}

/// `core/*/src/…` and `kconfig/src/…`.
fn is_pure(path: &str) -> bool {
    path.starts_with("kconfig/src/")
        || path.strip_prefix("core/").and_then(|rest| rest.split('/').nth(1)) == Some("src")
}

/// The files of the test modules that `file` declares, without `.rs`.
fn test_files(file: &SourceFile, shipped: &Shipped<'_>) -> Vec<String> {
    let stem = file.path.trim_end_matches(".rs");
    let (parent, name) = stem.rsplit_once('/').unwrap_or(("", stem));
    let folder = if matches!(name, "lib" | "main" | "mod") { parent } else { stem };
    shipped.test_modules.iter().map(|module| format!("{folder}/{module}")).collect()
}

fn forbidden(named: &Named) -> Option<(&'static str, &'static str)> {
    let path = named.path.as_str();
    // A glob would bring in whatever is below it, a lone `std` all of it.
    if path == "std" || path == "std::*" {
        return Some(("std", "import what is used, by name"));
    }
    FORBIDDEN.into_iter().find(|(name, _)| {
        let below = path.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
        let within_glob = path.strip_suffix('*').is_some_and(|module| name.starts_with(module));
        below || within_glob
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(source: &str) -> Vec<usize> {
        check(&Tree::from([("core/x/src/lib.rs", source)])).iter().map(|it| it.line).collect()
    }

    #[test]
    fn every_spelling_of_the_world_is_found() {
        for source in [
            "use std::fs;",
            "use std::{fmt, fs::File};",
            "fn f() { ::std::process::exit(1) }",
            "fn f() -> std::thread::JoinHandle<()> { g() }",
            "use std::time::{Duration, Instant};",
            "use std::time; fn f() { time::SystemTime::now() }",
            "use std::time as t; fn f() { t::Instant::now() }",
            "use std::time::*;",
            "use std::io::*;",
            "use std::*;",
            "use std as s;",
            "use std::os::fd::AsRawFd;",
            "fn f() { std::env::var(\"X\") }",
            "fn f() { libc::getpid() }",
            "use nix::unistd;",
            "fn f() { println!(\"x\") }",
            "fn f() { std::eprintln!(\"x\") }",
            "fn f() { std::io::stdout() }",
            "#[cfg(not(test))] use std::net::TcpStream;",
        ] {
            assert_eq!(lines(source), [1], "{source}");
        }
    }

    #[test]
    fn what_is_pure_passes() {
        for source in [
            "use std::path::{Path, PathBuf};",
            "use std::time::Duration;",
            "use std::sync::{Arc, Mutex, atomic::AtomicU64};",
            "use std::io::{self, Read, Error}; fn f() -> io::Result<()> { Ok(()) }",
            "// std::fs\nconst X: &str = \"std::fs\";",
            "fn f(env: &Env, process: u32) { env.thread(process) }",
            "mod env { pub struct V; } fn f() -> env::V { env::V }",
            "const V: &str = env!(\"CARGO_PKG_VERSION\"); const W: &str = std::env!(\"X\");",
            "fn f() { let s = writeln!(out, \"println!\"); }",
            "#[cfg(test)] mod tests { use std::fs; }",
            "fn f() { quote! { ::std::process::exit(2) } }",
        ] {
            assert_eq!(lines(source), [0usize; 0], "{source}");
        }
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_free() {
        let declares = "#[cfg(test)] mod tests; #[cfg(test)] pub(crate) mod testing; mod real;";
        let tree = Tree::from([
            ("core/x/src/lib.rs", declares),
            ("core/x/src/tests.rs", "use std::fs;"),
            ("core/x/src/testing/files.rs", "use std::fs;"),
            ("core/x/src/deep.rs", "#[cfg(test)] mod tests;"),
            ("core/x/src/deep/tests.rs", "use std::fs;"),
            ("core/x/src/real.rs", "use std::fs;"),
            ("core/y/src/tests.rs", "use std::fs;"),
        ]);
        let found: Vec<_> = check(&tree).into_iter().map(|it| it.path).collect();
        assert_eq!(found, ["core/x/src/real.rs", "core/y/src/tests.rs"]);
    }

    #[test]
    fn only_what_core_ships_is_looked_at() {
        let source = "use std::fs;";
        let tree = Tree::from([
            ("adapters/x/src/lib.rs", source),
            ("core/x/examples/e.rs", source),
            ("core/x/tests/t.rs", source),
            ("core/x/fuzz/fuzz_targets/f.rs", source),
        ]);
        assert!(check(&tree).is_empty());
        assert_eq!(check(&Tree::from([("kconfig/src/lib.rs", source)])).len(), 1);
    }

    #[test]
    fn the_finding_says_what_to_do() {
        let tree = Tree::from([("core/x/src/lib.rs", "//! x\n\nuse std::fs::read;")]);
        let text = check(&tree)[0].to_string();
        assert!(
            text.starts_with("core/x/src/lib.rs:3: no-os: std::fs::read") && text.contains("port"),
            "{text}"
        );
    }
}
