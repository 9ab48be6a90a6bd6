//! Tasks as the kernel prints them, `comm[pid]`.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A task's name and number.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskName {
    /// `task_struct.comm`; may have any character.
    pub comm: String,
    /// `task_struct.pid`: the thread.
    pub pid: i32,
}

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}[{}]", self.comm, self.pid)
    }
}

impl TaskName {
    /// A task at the beginning of `text`, and what follows it. The name may have blanks and
    /// brackets itself, so the first bracket with a number in it ends it.
    pub(crate) fn head(text: &str) -> Option<(Self, &str)> {
        text.match_indices('[').find_map(|(at, _)| {
            let (number, rest) = text[at + 1..].split_once(']')?;
            let pid = number.parse().ok().filter(|_| !number.starts_with('+'))?;
            Some((Self { comm: text[..at].to_string(), pid }, rest))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_look_like_anything() {
        for (text, comm, pid, rest) in [
            ("kworker/u16:1[40] triggered", "kworker/u16:1", 40, " triggered"),
            ("a [b] c[7]", "a [b] c", 7, ""),
            ("[1]", "", 1, ""),
        ] {
            let (task, left) = TaskName::head(text).unwrap();
            assert_eq!((task.comm.as_str(), task.pid, left), (comm, pid, rest));
        }
        for text in ["", "comm", "comm[x]", "comm[1", "[]", "a[99999999999]"] {
            assert_eq!(TaskName::head(text), None, "{text}");
        }
    }
}
