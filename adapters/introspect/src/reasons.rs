//! Why parts of a dump are missing.

use ktstr_introspect_kernel::{ErrorKind, KernelError};
use std::fmt::Display;

/// Problems that are listed; a kernel whose memory is gone has one a field.
const MAX_PROBLEMS: usize = 32;

/// Gathers what could not be read, and what is left out without a fault.
#[derive(Debug, Default)]
pub(crate) struct Reasons {
    problems: Vec<String>,
    more: usize,
    left_out: Vec<String>,
}

impl Reasons {
    /// Something could not be read.
    pub(crate) fn problem(&mut self, text: String) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(text);
        } else {
            self.more += 1;
        }
    }

    /// Something is missing as it has to be; said once.
    pub(crate) fn left_out(&mut self, text: String) {
        if !self.left_out.contains(&text) {
            self.left_out.push(text);
        }
    }

    /// The list shortened to `limit`, which is told.
    pub(crate) fn cut<T>(&mut self, what: &dyn Display, list: &mut Vec<T>, limit: usize) {
        if list.len() > limit {
            self.left_out(format!("{what}: {limit} of {} are listed", list.len()));
            list.truncate(limit);
        }
    }

    /// The value of `of`'s `what`. One that this kernel lacks is left out, said once for all of its kind; where a pointer
    /// on the way is null there is nothing to tell; all else is a problem.
    pub(crate) fn value<T>(
        &mut self,
        of: &dyn Display,
        what: &str,
        result: Result<T, KernelError>,
    ) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(e) => match e.kind() {
                ErrorKind::Absent => self.left_out(format!("{what}: {e}")),
                ErrorKind::Null => {}
                ErrorKind::Unmapped | ErrorKind::Torn | ErrorKind::Broken => {
                    self.problem(format!("{of}'s {what}: {e}"));
                }
            },
        }
        None
    }

    /// The same of a part whose absence another reason covers already.
    pub(crate) fn quiet<T>(
        &mut self,
        of: &dyn Display,
        what: &str,
        result: Result<T, KernelError>,
    ) -> Option<T> {
        match result {
            Err(e) if e.kind() == ErrorKind::Absent => None,
            other => self.value(of, what, other),
        }
    }

    /// Problems, with how many more there were, and what is left out.
    pub(crate) fn into_lists(mut self) -> (Vec<String>, Vec<String>) {
        if self.more > 0 {
            self.problems.push(format!("{} more parts, for reasons that are not listed", self.more));
        }
        (self.problems, self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_memory::VirtAddr;

    fn absent() -> KernelError {
        KernelError::NoSymbol { name: "it".into() }
    }

    fn torn() -> KernelError {
        KernelError::Torn { what: "a list", at: VirtAddr(1), expected: 1, seen: 2 }
    }

    #[test]
    fn what_a_kernel_lacks_is_said_once_and_is_no_problem() {
        let mut reasons = Reasons::default();
        for cpu in 0..3 {
            assert_eq!(reasons.value::<u64>(&format!("cpu{cpu}"), "irq util", Err(absent())), None);
            assert_eq!(reasons.quiet::<u64>(&"x", "y", Err(absent())), None);
        }
        assert_eq!(reasons.value(&"cpu0", "clock", Ok(7)), Some(7));
        let (problems, left_out) = reasons.into_lists();
        assert_eq!(
            (problems.len(), left_out),
            (0, vec!["irq util: this kernel has no symbol it".to_string()])
        );
    }

    #[test]
    fn problems_beyond_the_limit_are_counted() {
        let mut reasons = Reasons::default();
        for pid in 0..MAX_PROBLEMS + 5 {
            reasons.quiet::<u64>(&format!("pid {pid}"), "name", Err(torn()));
        }
        let (problems, _) = reasons.into_lists();
        assert!(problems[0].starts_with("pid 0's name: a list at 0x"), "{}", problems[0]);
        assert_eq!(problems[MAX_PROBLEMS], "5 more parts, for reasons that are not listed");
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
    }

    #[test]
    fn a_list_that_is_cut_says_how_much_of_it_is_there() {
        let (mut reasons, mut list) = (Reasons::default(), vec![1, 2, 3]);
        reasons.cut(&"the tasks", &mut list, 3);
        reasons.cut(&"the tasks", &mut list, 2);
        assert_eq!(
            (list.len(), reasons.into_lists().1),
            (2, vec!["the tasks: 2 of 3 are listed".to_string()])
        );
    }
}
