//! Reading `.config` files and fragments line by line.

use std::collections::BTreeMap;
use std::fmt;

/// What an option is set to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `=y`
    Yes,
    /// `=m`
    Module,
    /// `=n`, `# CONFIG_X is not set`, or no line at all.
    No,
    /// A number, a `0x` number, or a string with its quotes, as written.
    Literal(String),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "y",
            Self::Module => "m",
            Self::No => "n",
            Self::Literal(text) => text,
        })
    }
}

/// One line that sets an option.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    /// The option without its `CONFIG_` prefix.
    pub option: String,
    /// What the line sets it to.
    pub value: Value,
    /// Line number, from 1.
    pub line: usize,
}

/// A line that kconfig would ignore or misread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Line number, from 1.
    pub line: usize,
    /// The line as it stands.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl fmt::Display for BadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {} in {:?}", self.line, self.reason, self.text)
    }
}

/// Every bad line of one text, so that the user can mend them in one go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reading kernel configuration: {}", join(.0))]
pub struct ParseError(pub Vec<BadLine>);

fn join(lines: &[BadLine]) -> String {
    let texts: Vec<String> = lines.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// A parsed fragment or `.config`: its assignments in the order written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragment {
    /// Every assignment, repeated options included.
    pub assignments: Vec<Assignment>,
}

impl Fragment {
    /// Parses a fragment or a `.config`.
    ///
    /// # Errors
    /// All lines that are neither blank, comment nor assignment.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut assignments = Vec::new();
        let mut bad = Vec::new();
        for (index, raw) in text.lines().enumerate() {
            let line = index + 1;
            match parse_line(raw) {
                Ok(None) => {}
                Ok(Some((option, value))) => {
                    assignments.push(Assignment { option: option.to_owned(), value, line });
                }
                Err(reason) => bad.push(BadLine { line, text: raw.to_owned(), reason }),
            }
        }
        if bad.is_empty() { Ok(Self { assignments }) } else { Err(ParseError(bad)) }
    }

    /// The value each option ends up with: the last line about it wins.
    #[must_use]
    pub fn effective(&self) -> BTreeMap<&str, &Value> {
        self.assignments.iter().map(|a| (a.option.as_str(), &a.value)).collect()
    }

    /// Options that are set on more than one line, each named once.
    #[must_use]
    pub fn duplicates(&self) -> Vec<&str> {
        let mut lines: BTreeMap<&str, usize> = BTreeMap::new();
        for assignment in &self.assignments {
            *lines.entry(&assignment.option).or_default() += 1;
        }
        lines.into_iter().filter_map(|(option, count)| (count > 1).then_some(option)).collect()
    }
}

/// `Ok(None)` for blank lines and comments.
fn parse_line(raw: &str) -> Result<Option<(&str, Value)>, &'static str> {
    if raw.trim().is_empty() {
        return Ok(None);
    }
    if let Some(option) = unset_comment(raw) {
        check_name(option)?;
        return Ok(Some((option, Value::No)));
    }
    if raw.starts_with('#') {
        return Ok(None);
    }
    let Some(rest) = raw.strip_prefix("CONFIG_") else {
        return Err("expected CONFIG_NAME=value at the start of the line");
    };
    let (option, value) = rest.split_once('=').ok_or("expected '=' after the name")?;
    check_name(option)?;
    Ok(Some((option, parse_value(value)?)))
}

/// The option of `# CONFIG_X is not set`. confdata.c reads this very spelling
/// as an assignment; any other comment is a comment.
fn unset_comment(raw: &str) -> Option<&str> {
    raw.strip_prefix("# CONFIG_")?.strip_suffix(" is not set")
}

fn check_name(option: &str) -> Result<(), &'static str> {
    let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if option.is_empty() {
        Err("expected a name after CONFIG_")
    } else if option.chars().all(valid) {
        Ok(())
    } else {
        Err("expected only letters, digits and '_' in the name")
    }
}

fn parse_value(text: &str) -> Result<Value, &'static str> {
    if text.is_empty() {
        return Err("expected a value after '='");
    }
    if text.trim() != text {
        return Err("expected no space around the value (kconfig rejects it)");
    }
    match text {
        "y" => Ok(Value::Yes),
        "m" => Ok(Value::Module),
        "n" => Ok(Value::No),
        _ if is_number(text) || is_quoted(text) => Ok(Value::Literal(text.to_owned())),
        _ => Err("expected y, m, n, a number or a string in double quotes"),
    }
}

fn is_number(text: &str) -> bool {
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return !hex.is_empty() && hex.chars().all(|c| c.is_ascii_hexdigit());
    }
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit())
}

/// A string with both quotes and no bare quote inside; `\"` and `\\` escape.
fn is_quoted(text: &str) -> bool {
    let Some(inner) = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return false;
    };
    let mut escaped = false;
    for c in inner.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped
}
