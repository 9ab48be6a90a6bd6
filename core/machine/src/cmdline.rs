//! The guest kernel's command line.

/// `COMMAND_LINE_SIZE` of x86 Linux less the terminating zero
/// (arch/x86/include/asm/setup.h).
const MAX: usize = 2047;

/// A command line that the kernel would misread.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandLineError {
    /// An argument with a character that ends or breaks it.
    #[error("adding kernel argument {0:?}: spaces, quotes and control characters would split or break it")]
    Character(String),
    /// Longer than the kernel reads.
    #[error("building the kernel command line: {0} bytes, but the kernel reads {MAX}; pass fewer kargs")]
    TooLong(usize),
}

/// Kernel arguments in order; a later one wins over an earlier one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct CommandLine(Vec<String>);

impl CommandLine {
    /// No arguments.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends arguments, each `key` or `key=value`.
    pub fn push(&mut self, arg: &str) -> Result<(), CommandLineError> {
        if arg.is_empty() || arg.chars().any(|c| c.is_whitespace() || c.is_control() || c == '"') {
            return Err(CommandLineError::Character(arg.to_string()));
        }
        self.0.push(arg.to_string());
        Ok(())
    }

    /// Appends several arguments.
    pub fn extend<'a>(&mut self, args: impl IntoIterator<Item = &'a str>) -> Result<(), CommandLineError> {
        args.into_iter().try_for_each(|a| self.push(a))
    }

    /// The line as the boot loader passes it.
    pub fn render(&self) -> Result<String, CommandLineError> {
        let line = self.0.join(" ");
        if line.len() > MAX { Err(CommandLineError::TooLong(line.len())) } else { Ok(line) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_joined_in_order() {
        let mut line = CommandLine::new();
        line.extend(["console=ttyS0", "quiet"]).unwrap();
        assert_eq!(line.render().unwrap(), "console=ttyS0 quiet");
    }

    #[test]
    fn an_argument_that_would_split_is_refused() {
        for bad in ["a b", "", "x=\"y", "a\nb"] {
            assert!(CommandLine::new().push(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_line_past_the_kernels_limit_is_refused() {
        let mut line = CommandLine::new();
        line.push(&"x".repeat(MAX)).unwrap();
        assert!(line.render().is_ok());
        line.push("y").unwrap();
        assert_eq!(line.render(), Err(CommandLineError::TooLong(MAX + 2)));
    }
}
