//! How many crates a user of `ktstr` builds.

use std::collections::BTreeSet;

/// A cold build of that many still takes about a minute on two cores.
const LIMIT: usize = 150;

/// Judges the output of `cargo tree --prefix none --format {p}`.
pub(super) fn judge(tree: &str) -> Result<String, String> {
    // Cargo marks what it showed before, and shows where a crate lies.
    let crates: BTreeSet<_> = tree
        .lines()
        .map(|line| line.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
        .filter(|line| !line.is_empty())
        .collect();
    match crates.len() {
        0 => Err("    cargo tree named no crate; expected at least ktstr itself".into()),
        count if count < LIMIT => Ok(format!(", {count} (limit {LIMIT})")),
        count => Err(format!(
            "    {count} crates in a build of ktstr, fewer than {LIMIT} are allowed; \
             `cargo tree -p ktstr -e normal,build` shows who brings them in"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_lines_count_once() {
        let note =
            judge("ktstr v0.1.0 (/somewhere)\nserde v1.0.0\nserde v1.0.0 (*)\nsyn v2.0.0\nsyn v3.0.0\n");
        assert_eq!(note, Ok(format!(", 4 (limit {LIMIT})")));
    }

    #[test]
    fn the_limit_itself_is_too_many() {
        let tree = |count: usize| (0..count).map(|n| format!("c{n} v1.0.0\n")).collect::<String>();
        assert!(judge(&tree(LIMIT - 1)).is_ok());
        assert!(judge(&tree(LIMIT)).unwrap_err().contains("150 crates"));
        assert!(judge("").is_err());
    }
}
