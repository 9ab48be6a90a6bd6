//! No file speaks of the machine it was written on.

use super::Finding;
use super::tree::Tree;
use std::path::Path;

/// Folders of people's machines. In pieces, so that this file passes.
const FOLDERS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];

/// Checks every text file for those folders, and for the folder of this checkout.
pub(super) fn check(tree: &Tree, root: &Path) -> Vec<Finding> {
    let mut unwanted: Vec<_> = FOLDERS.map(str::to_owned).into();
    // The last part alone may be any word; a whole path isn't.
    if let Some(root) = root.to_str().filter(|root| root.matches('/').count() > 1) {
        unwanted.push(root.to_owned());
    }
    let mut findings = Vec::new();
    for file in &tree.files {
        for (number, line) in file.text.lines().enumerate() {
            if let Some(folder) = unwanted.iter().find(|folder| mentions(line, folder)) {
                findings.push(Finding {
                    path: file.path.clone(),
                    line: number + 1,
                    rule: "machine-path",
                    text: format!(
                        "{folder} is a place on one machine; name it relatively or let it be passed in"
                    ),
                });
            }
        }
    }
    findings
}

/// Is the path in the line, from its root, not as the end of a longer one?
fn mentions(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        !line[..at].ends_with(|before: char| before.is_alphanumeric() || "._-/}~*".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> usize {
        check(&Tree::from([("doc.md", text)]), Path::new("/a/place/of/mine")).len()
    }

    #[test]
    fn places_on_one_machine_are_found_once_a_line() {
        let [work, root] = FOLDERS;
        assert_eq!(found(&format!("see `{work}x` and {work}y\n{root}z")), 2);
        assert_eq!(found("in \"/a/place/of/mine/file\""), 1);
    }

    #[test]
    fn ends_of_other_paths_are_not() {
        let [work, root] = FOLDERS;
        assert_eq!(found(&format!("core{work}x target{root} $DIR}}{root} a /rooting /work")), 0);
    }
}
