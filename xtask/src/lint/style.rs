//! Every Rust file has a header and a bounded size; no leftovers of work.

use super::Finding;
use super::tokens::{Token, tokens};
use super::tree::{SourceFile, Tree};

/// One subject a file; 600 lines, tests included, hold one.
const LINES: usize = 600;

/// Files that may be longer: the path, up to how many lines, and why.
const LONGER: [(&str, usize, &str); 0] = [];

/// Macros of work in progress.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];

/// Checks all Rust files.
pub(super) fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust().flat_map(check_file).collect()
}

fn check_file(file: &SourceFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |line, rule, text| findings.push(Finding { path: file.path.clone(), line, rule, text });
    if !file.text.starts_with("//!") {
        find(1, "header", "the first line must be `//!` and say what the file is for".to_owned());
    }
    let (lines, limit) = (file.text.lines().count(), line_limit(&LONGER, &file.path));
    if lines > limit {
        let text = format!(
            "{lines} lines, at most {limit} are allowed; split it by subject, or give it a row with the reason in \
             xtask/src/lint/style.rs"
        );
        find(0, "size", text);
    }
    let tokens = tokens(&file.text);
    for window in tokens.windows(4) {
        if let [_, name, bang, open] = window
            && let Some(name) = unfinished(*name, *bang, *open)
        {
            let text = format!("{name}! is left over from work in progress; finish it or return an error");
            find(window[1].line, "unfinished", text);
        }
        if ["#", "[", "ignore", "]"].iter().zip(window).all(|(text, token)| token.is(text)) {
            let text = "an ignored test says why: #[ignore = \"needs …\"]".to_owned();
            find(window[0].line, "ignored", text);
        }
    }
    findings
}

fn line_limit(table: &[(&str, usize, &str)], path: &str) -> usize {
    table.iter().find(|(file, ..)| *file == path).map_or(LINES, |(_, lines, _)| *lines)
}

fn unfinished(name: Token<'_>, bang: Token<'_>, open: Token<'_>) -> Option<&'static str> {
    let called = bang.is("!") && (open.is("(") || open.is("[") || open.is("{"));
    UNFINISHED.into_iter().find(|it| called && name.is(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Vec<(usize, &'static str)> {
        check(&Tree::from([("cli/src/a.rs", text)])).iter().map(|it| (it.line, it.rule)).collect()
    }

    #[test]
    fn a_file_starts_with_its_header() {
        assert_eq!(rules("//! What it is.\nfn f() {}"), []);
        for text in ["", "// no\n", "\n//! late\n", "#![allow(x)]\n//! late\n"] {
            assert_eq!(rules(text), [(1, "header")], "{text:?}");
        }
    }

    #[test]
    fn a_file_of_the_limit_passes_and_one_line_more_does_not() {
        let file = |lines: usize| "//! x\n".repeat(lines);
        assert_eq!(rules(&file(LINES)), []);
        assert_eq!(rules(&file(LINES + 1)), [(0, "size")]);
        let table = [("cli/src/a.rs", 900, "a table")];
        assert_eq!(line_limit(&table, "cli/src/a.rs"), 900);
        assert_eq!(line_limit(&table, "cli/src/b.rs"), LINES);
    }

    #[test]
    fn leftovers_are_found_in_code_but_not_in_words() {
        assert_eq!(
            rules("//! x\nfn f() { todo!() }\nfn g() { dbg![1]; unimplemented!{} }"),
            [(2, "unfinished"), (3, "unfinished"), (3, "unfinished")]
        );
        assert_eq!(rules("//! todo!()\nconst X: &str = \"todo!()\"; fn f() { todo != dbg }"), []);
    }

    #[test]
    fn an_ignored_test_has_a_reason() {
        assert_eq!(rules("//! x\n#[ignore]\nfn f() {}"), [(2, "ignored")]);
        assert_eq!(rules("//! x\n#[ignore = \"boots a machine\"]\nfn f() {}"), []);
    }
}
