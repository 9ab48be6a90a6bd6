//! Which names a cgroup may have.

use ktstr_scenario::ports::CgroupError;

/// Longest file name that kernfs takes, bytes.
const MAX_COMPONENT: usize = 255;

/// Interface files of a cgroup begin with one of these, so a directory may not.
const RESERVED: [&str; 10] =
    ["cgroup.", "cpu.", "cpuset.", "memory.", "io.", "pids.", "hugetlb.", "rdma.", "misc.", "irq."];

/// Checks a relative, possibly nested cgroup name.
pub(crate) fn check(name: &str) -> Result<(), CgroupError> {
    let refuse = |why| Err(CgroupError::Name { name: name.to_string(), why });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name.starts_with('/') || name.ends_with('/') {
        return refuse("it begins or ends with '/'");
    }
    for part in name.split('/') {
        match part {
            "" => return refuse("it has an empty part between two '/'"),
            "." | ".." => return refuse("'.' and '..' would leave the test's own cgroups"),
            _ if part.len() > MAX_COMPONENT => return refuse("a part of it is longer than 255 bytes"),
            _ if part.chars().any(char::is_control) => return refuse("it has a control character"),
            _ if RESERVED.iter().any(|r| part.starts_with(r)) => {
                return refuse("a part of it looks like an interface file such as cgroup.procs");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The name and those above it, outermost first: `a`, `a/b`, `a/b/c`.
pub(crate) fn prefixes(name: &str) -> impl Iterator<Item = &str> {
    let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
    ends.map(move |end| &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_and_nested_names_pass() {
        for good in ["cg_0", "outer/inner", "a.b", "cpu0", "memory"] {
            assert!(check(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn names_that_leave_or_collide_are_refused() {
        for bad in
            ["", "/", "/a", "a/", "a//b", "..", "a/../b", ".", "a\nb", "a\0", "cgroup.procs", "x/cpu.max"]
        {
            assert!(matches!(check(bad), Err(CgroupError::Name { .. })), "{bad:?}");
        }
        assert!(check(&"x".repeat(256)).is_err());
    }

    #[test]
    fn prefixes_go_outside_in() {
        assert_eq!(prefixes("a/b/c").collect::<Vec<_>>(), ["a", "a/b", "a/b/c"]);
    }

    proptest! {
        #[test]
        fn an_accepted_name_never_leaves_its_directory(name in ".{0,40}") {
            if check(&name).is_ok() {
                let path = std::path::Path::new("/base").join(&name);
                prop_assert!(path.starts_with("/base"));
                prop_assert!(path.components().all(|c| c != std::path::Component::ParentDir));
            }
        }
    }
}
