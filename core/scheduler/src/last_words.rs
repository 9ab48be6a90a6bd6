//! What a program said before it ended.

use crate::without_colours;

/// Bytes of a line that are quoted.
const MOST: usize = 240;
/// What Rust's panic handler adds for whoever debugs.
const ADVICE: &str = "note: run with `RUST_BACKTRACE=";

/// What in its log tells most of a program's unexpected end: where and why it panicked, else its last line.
pub fn last_words(log: &str) -> Option<String> {
    let log = without_colours(log);
    let lines: Vec<&str> = log.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let panicked = lines.iter().position(|line| is_panic(line));
    if let Some(at) = panicked {
        // `thread 'main' panicked at src/main.rs:7:5:`, and what it said in the next line.
        let said = lines.get(at + 1).filter(|_| lines[at].ends_with(':'));
        return Some(match said {
            Some(said) => format!("{} {}", lines[at], cut(said)),
            None => cut(lines[at]).to_string(),
        });
    }
    let last = lines.iter().rev().find(|line| !line.starts_with(ADVICE))?;
    Some(format!("its last words: {:?}", cut(last)))
}

/// As Rust's standard library says it, with the thread's id since 1.91.
fn is_panic(line: &str) -> bool {
    line.find("thread '").is_some_and(|at| line[at..].contains("panicked at "))
}

fn cut(line: &str) -> &str {
    &line[..line.floor_char_boundary(MOST)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_panic_tells_more_than_what_follows_it() {
        let log = "attached\n\nthread 'main' panicked at src/main.rs:7:5:\nindex out of bounds: the len is 3\n\
                   note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\ngoodbye\n";
        assert_eq!(
            last_words(log).unwrap(),
            "thread 'main' panicked at src/main.rs:7:5: index out of bounds: the len is 3"
        );
        let with_id = "thread 'stats' (42) panicked at a.rs:1:1:\n\x1b[31mno\x1b[0m\n";
        assert_eq!(last_words(with_id).unwrap(), "thread 'stats' (42) panicked at a.rs:1:1: no");
        let old = "thread 'main' panicked at 'no', src/main.rs:7:5\n";
        assert_eq!(last_words(old).unwrap(), "thread 'main' panicked at 'no', src/main.rs:7:5");
        assert_eq!(
            last_words("thread 'main' panicked at a.rs:1:1:").unwrap(),
            "thread 'main' panicked at a.rs:1:1:"
        );
    }

    #[test]
    fn without_a_panic_it_is_the_last_line() {
        assert_eq!(
            last_words("a\nError: no such map\n\n").unwrap(),
            "its last words: \"Error: no such map\""
        );
        assert_eq!(last_words("\n \n"), None);
    }

    proptest! {
        #[test]
        fn it_is_short_whatever_the_log(log in "(\\PC{0,400}|\n){0,6}") {
            if let Some(words) = last_words(&log) {
                prop_assert!(words.chars().count() < 4 * MOST, "{}", words);
            }
        }
    }
}
