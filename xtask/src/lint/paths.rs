//! The paths that source names (`std::fs::read`), with `use` groups, renames and
//! imported modules resolved, and without test code.

use super::tokens::{Kind, Token};
use std::collections::BTreeMap;

/// A path in full, and the line it is named on.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) path: String,
    pub(super) line: usize,
}

/// Every path and lone name in `tokens`. A path that starts with an imported
/// name is given in full: after `use std::time;`, `time::Instant` is
/// `std::time::Instant`. A glob ends in `*`, a path before `!` in `!`.
pub(super) fn paths(tokens: &[Token<'_>]) -> Vec<Named> {
    let mut walk = Walk { tokens, found: Vec::new(), imports: BTreeMap::new() };
    let (mut at, mut in_use) = (0, false);
    while let Some(token) = tokens.get(at) {
        if token.is("use") {
            in_use = true;
            at += 1;
        } else if token.kind == Kind::Word {
            at = walk.path(at, "", in_use);
        } else {
            in_use &= !token.is(";");
            at += 1;
        }
    }
    let Walk { mut found, imports, .. } = walk;
    for named in &mut found {
        let (first, rest) = named.path.split_once("::").map_or((named.path.as_str(), ""), |parts| parts);
        if let Some(full) = imports.get(first).filter(|_| !rest.is_empty()) {
            named.path = format!("{full}::{rest}");
        }
    }
    found
}

struct Walk<'a> {
    tokens: &'a [Token<'a>],
    found: Vec<Named>,
    /// Short name to full path.
    imports: BTreeMap<String, String>,
}

impl Walk<'_> {
    /// Reads the path whose next word is at `at`; returns what follows it.
    fn path(&mut self, mut at: usize, before: &str, in_use: bool) -> usize {
        let line = self.tokens[at].line;
        let mut path = before.to_owned();
        loop {
            let word = self.tokens[at].text;
            // `use std::time::{self}` names the module itself.
            if word != "self" || path.is_empty() {
                push(&mut path, word);
            }
            at += 1;
            if !self.is(at, "::") {
                break;
            }
            match self.tokens.get(at + 1) {
                Some(next) if next.kind == Kind::Word => at += 1,
                Some(next) if next.is("{") => return self.group(at + 2, &path, in_use),
                Some(next) if next.is("*") => {
                    push(&mut path, "*");
                    at += 2;
                    break;
                }
                _ => break,
            }
        }
        if self.is(at, "!") && ["(", "[", "{"].iter().any(|open| self.is(at + 1, open)) {
            path.push('!');
        }
        if in_use {
            let mut name = path.rsplit("::").next().unwrap_or_default().to_owned();
            if self.is(at, "as") {
                name = self.tokens.get(at + 1).map_or(name, |alias| alias.text.to_owned());
                at += 2;
            }
            self.imports.insert(name, path.clone());
        }
        self.found.push(Named { path, line });
        at
    }

    /// Reads `a, b::c, *}` of a `use` group.
    fn group(&mut self, mut at: usize, before: &str, in_use: bool) -> usize {
        while let Some(token) = self.tokens.get(at) {
            if token.is("}") {
                return at + 1;
            }
            if token.kind == Kind::Word {
                at = self.path(at, before, in_use);
            } else {
                if token.is("*") {
                    self.found.push(Named { path: format!("{before}::*"), line: token.line });
                }
                at += 1;
            }
        }
        at
    }

    fn is(&self, at: usize, text: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is(text))
    }
}

fn push(path: &mut String, word: &str) {
    if !path.is_empty() {
        path.push_str("::");
    }
    path.push_str(word);
}

/// Code that ships, and the modules that are compiled for tests only.
#[derive(Debug)]
pub(super) struct Shipped<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    /// Names `x` of `#[cfg(test)] mod x;`.
    pub(super) test_modules: Vec<&'a str>,
}

/// Leaves out what `#[cfg(test)]` or `#[test]` is on, and the bodies of `quote!`:
/// they are somebody else's code.
pub(super) fn shipped<'a>(tokens: &[Token<'a>]) -> Shipped<'a> {
    let (mut kept, mut test_modules, mut at) = (Vec::new(), Vec::new(), 0);
    while at < tokens.len() {
        if is_test_attribute(&tokens[at..]) {
            let end = item_end(tokens, at);
            if let Some(pair) = tokens[at..end].windows(3).find(|it| it[0].is("mod") && it[2].is(";")) {
                test_modules.push(pair[1].text);
            }
            at = end;
        } else if is_quote(&tokens[at..]) {
            at = group_end(tokens, at + 2);
        } else {
            kept.push(tokens[at]);
            at += 1;
        }
    }
    Shipped { tokens: kept, test_modules }
}

/// `#[test]`, `#[cfg(test)]` or `#[cfg(all(test, …`, but not `any` or `not`.
fn is_test_attribute(tokens: &[Token<'_>]) -> bool {
    const STARTS: [&[&str]; 3] = [
        &["#", "[", "test", "]"],
        &["#", "[", "cfg", "(", "test", ")"],
        &["#", "[", "cfg", "(", "all", "(", "test"],
    ];
    STARTS.iter().any(|start| {
        tokens.len() >= start.len() && start.iter().zip(tokens).all(|(text, token)| token.is(text))
    })
}

fn is_quote(tokens: &[Token<'_>]) -> bool {
    const MACROS: [&str; 3] = ["quote", "quote_spanned", "parse_quote"];
    matches!(tokens, [name, bang, ..] if MACROS.iter().any(|it| name.is(it)) && bang.is("!"))
}

/// The end of the item at `at`, attributes included: a semicolon, or its body.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    while let Some(token) = tokens.get(at) {
        if token.is(";") {
            return at + 1;
        } else if token.is("{") {
            return group_end(tokens, at);
        } else if token.is("(") || token.is("[") {
            at = group_end(tokens, at);
        } else if token.is("}") {
            // A field or arm at the end of somebody's body.
            return at;
        } else {
            at += 1;
        }
    }
    at
}

/// Past the bracket that closes the one at `at`.
fn group_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    let mut depth = 0usize;
    while let Some(token) = tokens.get(at) {
        at += 1;
        if ["(", "[", "{"].iter().any(|open| token.is(open)) {
            depth += 1;
        } else if [")", "]", "}"].iter().any(|close| token.is(close)) {
            depth = depth.saturating_sub(1);
            if depth == 0 {
                break;
            }
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::super::tokens::tokens;
    use super::*;

    fn named(source: &str) -> Vec<String> {
        paths(&tokens(source)).into_iter().map(|it| it.path).filter(|it| it.contains("::")).collect()
    }

    #[test]
    fn use_groups_are_spelled_out() {
        let source = "use std::{fs, time::{self, Duration}, io::*};";
        assert_eq!(named(source), ["std::fs", "std::time", "std::time::Duration", "std::io::*"]);
        assert_eq!(named("use ::std::{*};"), ["std::*"]);
    }

    #[test]
    fn imported_and_renamed_modules_are_seen_through() {
        let all = named("use std::time; use std::env as e; fn f() { time::Instant::now(); e::var(x) }");
        assert_eq!(all, ["std::time", "std::env", "std::time::Instant::now", "std::env::var"]);
    }

    #[test]
    fn expressions_types_and_macros_count() {
        let source = "fn f(x: &std::fs::File) -> Vec<std::net::Ipv4Addr> { std::println!(\"\"); a != b }";
        assert_eq!(named(source), ["std::fs::File", "std::net::Ipv4Addr", "std::println!"]);
        let lone: Vec<_> = paths(&tokens("x!(y); a!=b")).into_iter().map(|it| it.path).collect();
        assert_eq!(lone, ["x!", "y", "a", "b"]);
    }

    fn kept(source: &str) -> String {
        let texts: Vec<_> = shipped(&tokens(source)).tokens.iter().map(|it| it.text).collect();
        texts.join(" ")
    }

    #[test]
    fn test_items_are_left_out_whole() {
        assert_eq!(kept("#[cfg(test)] mod tests { fn f() { g({}) } } struct A;"), "struct A ;");
        assert_eq!(
            kept("#[test] #[should_panic(expected = \"x\")] fn f() { g() } fn h() {}"),
            "fn h ( ) { }"
        );
        assert_eq!(kept("#[cfg(test)] const X: [u8; 2] = [0; 2]; fn h() {}"), "fn h ( ) { }");
        assert_eq!(kept("#[cfg(all(test, unix))] use a::b; c"), "c");
    }

    #[test]
    fn what_also_ships_stays() {
        for source in ["#[cfg(not(test))] fn f() { x }", "#[cfg(any(test, feature = \"t\"))] fn f() { x }"] {
            assert!(kept(source).contains('x'), "{source}");
        }
    }

    #[test]
    fn test_modules_in_files_of_their_own_are_named() {
        let tokens = tokens("#[cfg(test)]\nmod tests;\n#[cfg(test)] pub(crate) mod testing; mod real;");
        assert_eq!(shipped(&tokens).test_modules, ["tests", "testing"]);
    }

    #[test]
    fn generated_code_is_not_ours() {
        assert_eq!(kept("let x = quote! { ::std::process::exit(1) }; y"), "let x = ; y");
    }
}
