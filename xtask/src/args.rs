//! Command-line words, taken one option at a time.

use anyhow::Result;

/// The words after a command's name. Take what is known, then [`Args::finish`].
#[derive(Debug)]
pub(crate) struct Args {
    words: Vec<String>,
}

/// The command line makes no sense; its own exit code (2).
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(pub(crate) String);

impl std::fmt::Display for UsageError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; see `cargo xtask --help`", self.0)
    }
}

impl std::error::Error for UsageError {}

impl Args {
    pub(crate) fn new(words: Vec<String>) -> Self {
        Self { words }
    }

    /// Takes `--name`; true if it was there.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let before = self.words.len();
        self.words.retain(|word| word != name);
        self.words.len() < before
    }

    /// Takes every `--name VALUE` and `--name=VALUE`.
    pub(crate) fn values(&mut self, name: &str) -> Result<Vec<String>> {
        let (mut taken, mut left) = (Vec::new(), Vec::new());
        let mut words = std::mem::take(&mut self.words).into_iter();
        while let Some(word) = words.next() {
            if word == name {
                match words.next().filter(|value| !value.starts_with("--")) {
                    Some(value) => taken.push(value),
                    None => return Err(UsageError(format!("{name} needs a value")).into()),
                }
            } else if let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('=')) {
                taken.push(value.to_owned());
            } else {
                left.push(word);
            }
        }
        self.words = left;
        Ok(taken)
    }

    /// Takes the first word that is no option.
    pub(crate) fn word(&mut self) -> Option<String> {
        let at = self.words.iter().position(|word| !word.starts_with('-'))?;
        Some(self.words.remove(at))
    }

    /// Takes `--` and all words after it, if there is one. Call it first: those words
    /// are another program's.
    pub(crate) fn after_dashes(&mut self) -> Option<Vec<String>> {
        let at = self.words.iter().position(|word| word == "--")?;
        let rest = self.words.split_off(at);
        Some(rest[1..].to_vec())
    }

    /// Errors if a word is left that nobody took.
    pub(crate) fn finish(self) -> Result<()> {
        match self.words.first() {
            Some(word) => Err(UsageError(format!("{word:?} is not known here")).into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(line: &str) -> Args {
        Args::new(line.split_whitespace().map(str::to_owned).collect())
    }

    #[test]
    fn options_are_taken_in_any_order_and_spelling() {
        let mut args = args("--only lint --quick --only=unit");
        assert!(args.flag("--quick"));
        assert!(!args.flag("--quick"));
        assert_eq!(args.values("--only").unwrap(), ["lint", "unit"]);
        args.finish().unwrap();
    }

    #[test]
    fn words_after_dashes_are_left_alone() {
        let mut args = args("--all -- linux --all -- x");
        assert_eq!(args.after_dashes().unwrap(), ["linux", "--all", "--", "x"]);
        assert!(args.flag("--all"));
        assert_eq!(args.after_dashes(), None);
        args.finish().unwrap();
    }

    #[test]
    fn what_nobody_takes_is_named() {
        let error = args("--kwick").finish().unwrap_err();
        assert!(error.is::<UsageError>());
        assert!(error.to_string().contains("--kwick"), "{error}");
    }

    #[test]
    fn a_missing_value_is_an_error_even_when_an_option_follows() {
        assert!(args("--only").values("--only").is_err());
        assert!(args("--only --quick").values("--only").is_err());
    }
}
