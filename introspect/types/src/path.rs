//! The syntax of paths: `type.member[3]->member`.

/// A step of a path after its first name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// `.name` or `->name`; both follow a pointer if there is one.
    Member(&'a str),
    /// `[index]`
    Index(u32),
}

/// Splits `path` into its first name and the steps; nothing when it isn't a path.
pub(crate) fn parse(path: &str) -> Option<(&str, Vec<Step<'_>>)> {
    let (root, mut rest) = name(path)?;
    let mut steps = Vec::new();
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (index, after) = after.split_once(']')?;
            steps.push(Step::Index(index.parse().ok()?));
            rest = after;
        } else {
            let (member, after) = name(rest.strip_prefix("->").or_else(|| rest.strip_prefix('.'))?)?;
            steps.push(Step::Member(member));
            rest = after;
        }
    }
    Some((root, steps))
}

fn name(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_pointers_and_indexes_are_steps() {
        let (root, steps) = parse("rq.curr->comm[3]").unwrap();
        assert_eq!(root, "rq");
        assert_eq!(steps, [Step::Member("curr"), Step::Member("comm"), Step::Index(3)]);
        assert_eq!(parse("rq"), Some(("rq", vec![])));
    }

    #[test]
    fn what_isnt_a_path_is_none() {
        for text in ["", ".a", "a..b", "a.", "a[x]", "a[1", "a b", "a->", "a[99999999999]"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
