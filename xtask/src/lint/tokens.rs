//! Rust source as tokens with line numbers: no comments, and literals that can't
//! be mistaken for code. Enough to find names; no parser.

/// A token and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind,
    pub(super) text: &'a str,
    /// From 1.
    pub(super) line: usize,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// An identifier or keyword; a raw one without its `r#`.
    Word,
    /// A string, character or number.
    Literal,
    Lifetime,
    /// `::`, or one other character.
    Sign,
}

impl Token<'_> {
    pub(super) fn is(self, text: &str) -> bool {
        self.text == text && matches!(self.kind, Kind::Word | Kind::Sign)
    }
}

/// Splits `source`. What isn't Rust still gives tokens: the compiler complains,
/// not we.
pub(super) fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut lexer = Lexer { source, at: 0, line: 1 };
    std::iter::from_fn(|| lexer.next()).collect()
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lexer<'a> {
    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks_and_comments();
        let rest = &self.source[self.at..];
        let first = rest.chars().next()?;
        let (kind, length, skipped) = if let Some(length) = string_length(rest) {
            (Kind::Literal, length, 0)
        } else if first == '\'' {
            let (kind, length) = quote_length(rest);
            (kind, length, 0)
        } else if first.is_ascii_digit() {
            (Kind::Literal, word_length(rest), 0)
        } else if rest.starts_with("r#") && rest[2..].starts_with(is_word_start) {
            (Kind::Word, 2 + word_length(&rest[2..]), 2)
        } else if is_word_start(first) {
            (Kind::Word, word_length(rest), 0)
        } else if rest.starts_with("::") {
            (Kind::Sign, 2, 0)
        } else {
            (Kind::Sign, first.len_utf8(), 0)
        };
        let token = Token { kind, text: &rest[skipped..length], line: self.line };
        self.advance(length);
        Some(token)
    }

    fn advance(&mut self, length: usize) {
        let passed = &self.source[self.at..self.at + length];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.at += length;
    }

    fn skip_blanks_and_comments(&mut self) {
        loop {
            let rest = &self.source[self.at..];
            let length = if rest.starts_with("//") {
                rest.find('\n').unwrap_or(rest.len())
            } else if rest.starts_with("/*") {
                block_comment_length(rest)
            } else {
                rest.len() - rest.trim_start().len()
            };
            if length == 0 {
                return;
            }
            self.advance(length);
        }
    }
}

fn is_word_start(character: char) -> bool {
    character.is_alphabetic() || character == '_'
}

fn word_length(text: &str) -> usize {
    text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len())
}

/// Block comments nest.
fn block_comment_length(text: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0);
    let bytes = text.as_bytes();
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// The length of a string literal of any kind, if one starts here.
fn string_length(text: &str) -> Option<usize> {
    let prefix = ["", "b", "c", "r", "br", "cr"]
        .into_iter()
        .find(|prefix| text.strip_prefix(prefix).is_some_and(|rest| rest.starts_with(['"', '#'])))?;
    let after = &text[prefix.len()..];
    let hashes = after.len() - after.trim_start_matches('#').len();
    if !after[hashes..].starts_with('"') || (hashes > 0 && !prefix.ends_with('r')) {
        return None;
    }
    let start = prefix.len() + hashes + 1;
    let body = &text[start..];
    if prefix.ends_with('r') {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(body.find(&end).map_or(text.len(), |at| start + at + end.len()));
    }
    Some(unescaped(body, '"').map_or(text.len(), |at| start + at + 1))
}

/// A character (`'x'`, `'\n'`) or a lifetime (`'a`).
fn quote_length(text: &str) -> (Kind, usize) {
    let body = &text[1..];
    let mut characters = body.chars();
    let first = characters.next();
    if first == Some('\\') {
        let length = unescaped(body, '\'').map_or(text.len(), |at| at + 2);
        (Kind::Literal, length)
    } else if let Some(first) = first.filter(|_| characters.next() == Some('\'')) {
        (Kind::Literal, first.len_utf8() + 2)
    } else {
        (Kind::Lifetime, 1 + word_length(body))
    }
}

/// Where `wanted` stands without a backslash before it.
fn unescaped(text: &str, wanted: char) -> Option<usize> {
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        if escaped {
            escaped = false;
        } else if character == '\\' {
            escaped = true;
        } else if character == wanted {
            return Some(at);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<&str> {
        tokens(source).into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_are_gone_and_lines_are_right() {
        let source = "a // std::fs\n/* b /* nested */\n */ c /// doc\nd";
        let seen: Vec<_> = tokens(source).iter().map(|token| (token.text, token.line)).collect();
        assert_eq!(seen, [("a", 1), ("c", 3), ("d", 4)]);
    }

    #[test]
    fn strings_of_all_kinds_are_one_literal() {
        for string in [r#""a\"b""#, r###"r#"a"b"#"###, r#"b"x""#, r#"c"x""#, r##"br#"x"#"##, "\"two\nlines\""]
        {
            let source = format!("x {string} y");
            assert_eq!(texts(&source), ["x", string, "y"], "{source}");
        }
    }

    #[test]
    fn characters_are_not_lifetimes() {
        let kinds = |source| tokens(source).into_iter().map(|token| token.kind).collect::<Vec<_>>();
        assert_eq!(kinds("'a'"), [Kind::Literal]);
        assert_eq!(kinds(r"'\''"), [Kind::Literal]);
        assert_eq!(kinds("'…'"), [Kind::Literal]);
        assert_eq!(kinds("b'x'"), [Kind::Word, Kind::Literal]);
        assert_eq!(kinds("'a, 'b"), [Kind::Lifetime, Kind::Sign, Kind::Lifetime]);
        assert_eq!(texts("'\"' x"), ["'\"'", "x"]);
    }

    #[test]
    fn paths_keep_their_double_colon_and_raw_words_lose_their_mark() {
        assert_eq!(texts("std::r#fs:x"), ["std", "::", "fs", ":", "x"]);
    }

    #[test]
    fn broken_source_ends() {
        for source in ["\"open", "/* open", "r#\"open", "'", "r#", "b"] {
            tokens(source);
        }
    }
}
