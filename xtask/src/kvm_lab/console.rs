//! What the lab's console says: how far it came, and which tests passed.

use crate::suite::Tally;

const RUNNING: &str = "lab: running ";
/// A test that passed and says that it shows nothing here; the lab tells of it at the end of its program.
const SKIPPED: &str = "lab: skipped ";
const EXIT_CODE: &str = "lab: exit code ";

/// What the console says of one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// The program's path in the lab.
    program: String,
    /// What was printed from its start to its end.
    pub(super) output: String,
    /// How it ended: exit code (-1 for a signal, -2 when it left processes behind) and time;
    /// `None` if the lab was gone before.
    pub(super) end: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    pub(super) code: i32,
    /// As the lab put it, such as `12.5 s`.
    pub(super) took: String,
}

/// The commands that were started, in order.
pub(super) fn sections(output: &str) -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for line in output.lines() {
        if let Some(program) = line.strip_prefix(RUNNING) {
            sections.push(Section { program: program.to_owned(), output: String::new(), end: None });
        } else if let Some(section) = sections.last_mut() {
            // The program may print such a line too; the lab's own is the last.
            section.end = line.strip_prefix(EXIT_CODE).and_then(End::read).or(section.end.take());
            section.output.push_str(line);
            section.output.push('\n');
        }
    }
    sections
}

impl End {
    fn read(text: &str) -> Option<Self> {
        let (code, took) = text.split_once(" after ").unwrap_or((text, ""));
        Some(Self { code: code.trim().parse().ok()?, took: took.trim().to_owned() })
    }
}

/// How far a lab came that was gone before its last command ended.
pub(super) fn stage(output: &str) -> String {
    if let Some(why) = output.lines().find_map(|line| line.strip_prefix("lab: failed: ")) {
        return format!("starting a program: {why}");
    }
    let sections = sections(output);
    let Some(section) = sections.last() else {
        return "booting the lab's own kernel".to_owned();
    };
    let program = &section.program;
    if section.end.is_some() {
        return format!("going on after {program}");
    }
    match section.output.lines().rfind(|line| verdict(line).is_some()) {
        Some(last) => format!("running {program}, after `{last}`"),
        None => format!("running {program}"),
    }
}

/// Tests by their own lines: `test NAME ... ok in 1.2 s`.
pub(super) fn count_tests(output: &str) -> Tally {
    let mut tally = Tally::default();
    for passed in output.lines().filter_map(verdict) {
        tally += Tally { passed: u64::from(passed), failed: u64::from(!passed), skipped: 0 };
    }
    tally.set_apart(output.lines().filter(|line| line.starts_with(SKIPPED)).count() as u64);
    tally
}

fn verdict(line: &str) -> Option<bool> {
    let (_, verdict) = line.strip_prefix("test ")?.split_once(" ... ")?;
    match verdict.split_whitespace().next()? {
        "ok" => Some(true),
        "FAILED" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = "SeaBIOS\n\nlab: running /bin/a\none\nlab: exit code 7\nlab: exit code 0 after 1.5 s\n\
        \nlab: running /bin/b\ntest x ... ok\ntest y ... FAILED\nwhy\n";

    #[test]
    fn each_command_has_its_own_output_and_its_last_exit_code() {
        let [a, b] = &sections(TWO)[..] else { panic!("{:?}", sections(TWO)) };
        assert_eq!((a.program.as_str(), a.end.as_ref().unwrap().code), ("/bin/a", 0));
        assert_eq!(a.end.as_ref().unwrap().took, "1.5 s");
        assert!(a.output.starts_with("one\n") && !a.output.contains("test x"));
        assert_eq!((b.program.as_str(), &b.end), ("/bin/b", &None));
        let signal = format!("{TWO}lab: exit code -1 after 2.0 s\nlab: done\n[ 1.0] reboot: Power down\n");
        assert_eq!(sections(&signal)[1].end.as_ref().unwrap().code, -1);
    }

    #[test]
    fn a_stage_is_named_by_the_last_thing_seen() {
        assert_eq!(stage("SeaBIOS\n"), "booting the lab's own kernel");
        assert_eq!(stage("lab: running /bin/linux\n"), "running /bin/linux");
        assert_eq!(stage(TWO), "running /bin/b, after `test y ... FAILED`");
        assert_eq!(stage("lab: running /bin/a\nlab: exit code 0 after 1 s\n"), "going on after /bin/a");
        assert_eq!(stage("lab: failed: no file\n"), "starting a program: no file");
    }

    #[test]
    fn tests_are_counted_by_their_lines() {
        let output = "test a ... ok in 1.0 s\ntest b ... FAILED in 1.0 s\ntesting ... ok\ntest c ... ok\n\
            test d ... ignored\n";
        assert_eq!(count_tests(output), Tally { passed: 2, failed: 1, skipped: 0 });
        let skipped = format!("{output}\nlab: skipped a: no such thing here\n");
        assert_eq!(count_tests(&skipped), Tally { passed: 1, failed: 1, skipped: 1 });
    }
}
