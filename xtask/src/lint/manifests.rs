//! Every crate says what it is and takes the workspace's lints.

use super::Finding;
use super::metadata::Package;
use super::tree::Tree;

/// Checks the manifests of all crates of the workspace.
pub(super) fn check(tree: &Tree, packages: &[Package]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for package in packages {
        let path = package.manifest();
        let mut find = |text: &str| {
            findings.push(Finding { path: path.clone(), line: 0, rule: "manifest", text: text.into() });
        };
        if package.description.as_deref().is_none_or(|text| text.trim().is_empty()) {
            find("no description; say in one sentence what the crate is for");
        }
        match tree.get(&path) {
            Some(file) if inherits_lints(&file.text) => {}
            Some(_) => find("it doesn't take the workspace's lints; add [lints] with workspace = true"),
            None => find("git doesn't know it; add it, or .gitignore hides it"),
        }
    }
    findings
}

/// `[lints]` with `workspace = true` in it, or `lints.workspace = true` at the top.
fn inherits_lints(manifest: &str) -> bool {
    let mut table = String::new();
    manifest.lines().any(|line| {
        let line: String = line.split('#').next().unwrap_or_default().split_whitespace().collect();
        if line.starts_with('[') {
            table = line;
            return false;
        }
        (table == "[lints]" && line == "workspace=true")
            || (table.is_empty() && line == "lints.workspace=true")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lints_are_inherited_in_either_spelling_only() {
        assert!(inherits_lints("[package]\nname = \"a\"\n[ lints ] # all\nworkspace=true\n"));
        assert!(inherits_lints("lints.workspace = true\n[package]\n"));
        assert!(!inherits_lints("[package]\nedition.workspace = true\n"));
        assert!(!inherits_lints("[lints]\n[dependencies]\nworkspace = true\n"));
        assert!(!inherits_lints("# [lints]\n# workspace = true\n"));
    }

    #[test]
    fn all_that_is_missing_is_told_at_once() {
        let mut package = Package::at("core/x");
        package.description = Some(" ".into());
        let findings = check(&Tree::from([("core/x/Cargo.toml", "[package]")]), &[package]);
        assert_eq!(findings.len(), 2, "{findings:?}");
        assert!(findings.iter().all(|it| it.path == "core/x/Cargo.toml"));
    }
}
