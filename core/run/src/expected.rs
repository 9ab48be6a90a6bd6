//! How a test that is meant to fail expects its scheduler to end, and whether that can be told from other ends at all.

use crate::spec::TestSpec;
use regex_lite::Regex;

/// Characters of an end that are quoted.
const QUOTED: usize = 600;

/// Texts that have nothing to do with each other or with any scheduler: what fits one of them says nothing. Single
/// characters come on top.
const UNRELATED: [&str; 4] = [
    "",
    "Zqj xvw kpfg: hzb[48] mlk-7 0x1f (12.5s), \"Wvq\" #3 = 9%; 'u' <t> | 64/128",
    "qwvzjxkqpfyghmbdzlrqvx",
    "\n\n   \t 0\n",
];

/// Ends of schedulers, of four kinds: what fits all of them tells none from another.
const ENDS: [&str; 4] = [
    "runnable task stall: stress[71] failed to run for 2.001s",
    "scx_bpf_error: the weight of a group is 0",
    "runtime error: SCX_DSQ_LOCAL[_ON] verdict target cpu 1 not allowed for bash[9]",
    "disabled by sysrq-S",
];

/// What a scheduler's end must look like.
#[derive(Debug)]
pub(crate) struct Expected {
    contains: Option<&'static str>,
    matches: Option<Regex>,
}

impl Expected {
    /// What a test declares.
    ///
    /// # Errors
    /// What is wrong with it, in words: no regular expression, or one that (almost) any text fits.
    pub(crate) fn of(spec: &TestSpec) -> Result<Self, String> {
        if let Some(part) = spec.scx_error_contains
            && let Some(text) = vacuous(|text| text.contains(part))
        {
            return Err(says_nothing("expect_scx_bpf_error_contains", part, &text));
        }
        let pattern = spec.scx_error_matches;
        let matches = pattern.map(Regex::new).transpose().map_err(|e| {
            let pattern = pattern.unwrap_or_default();
            format!("`expect_scx_bpf_error_matches = {pattern:?}` is no regular expression: {e}")
        })?;
        if let (Some(pattern), Some(regex)) = (pattern, &matches)
            && let Some(text) = vacuous(|text| regex.is_match(text))
        {
            return Err(says_nothing("expect_scx_bpf_error_matches", pattern, &text));
        }
        Ok(Self { contains: spec.scx_error_contains, matches })
    }

    /// True if any failure of the scheduler will do.
    pub(crate) fn is_any(&self) -> bool {
        self.contains.is_none() && self.matches.is_none()
    }

    /// Why none of these texts is the end that was expected; `None` if one of them is. What was written line by line
    /// also counts line by line.
    pub(crate) fn misses(&self, said: &[String]) -> Option<String> {
        let fits = |text: &str| {
            self.contains.is_none_or(|part| text.contains(part))
                && self.matches.as_ref().is_none_or(|regex| regex.is_match(text))
        };
        if said.iter().any(|text| fits(text) || text.lines().any(fits)) {
            return None;
        }
        let mut wanted = Vec::new();
        wanted.extend(self.contains.map(|part| format!("contain {part:?}")));
        wanted.extend(self.matches.as_ref().map(|regex| format!("match {:?}", regex.as_str())));
        let all = said.join("\n");
        let seen = match all.trim().is_empty() {
            true => "neither the kernel nor the scheduler said anything of it".to_string(),
            false => format!("it is {:?}", end_of(&all)),
        };
        Some(format!("the scheduler's error was expected to {}, but {seen}", wanted.join(" and to ")))
    }
}

/// A text that fits although it says nothing; `None` if there is none.
fn vacuous(fits: impl Fn(&str) -> bool) -> Option<String> {
    let single = (' '..='~').map(|c| c.to_string());
    if let Some(text) = single.chain(UNRELATED.map(String::from)).find(|text| fits(text)) {
        return Some(format!("{text:?}"));
    }
    ENDS.iter().all(|text| fits(text)).then(|| "any end of a scheduler".to_string())
}

fn says_nothing(attribute: &str, pattern: &str, text: &str) -> String {
    format!(
        "`{attribute} = {pattern:?}` fits {text}, so it would prove nothing: say what only this error has"
    )
}

fn end_of(text: &str) -> &str {
    let from = text.len().saturating_sub(QUOTED);
    &text[text.ceil_char_boundary(from)..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(contains: Option<&'static str>, matches: Option<&'static str>) -> Result<Expected, String> {
        Expected::of(&TestSpec {
            scx_error_contains: contains,
            scx_error_matches: matches,
            ..TestSpec::DEFAULT
        })
    }

    #[test]
    fn what_fits_any_text_is_refused() {
        for pattern in [
            "",
            ".",
            ".*",
            ".+",
            "x|",
            r"\w",
            r"\w+",
            r"[a-z]+\[\d+\]",
            r"^.{3,}$",
            r"(?s).*",
            r"\d+\.\d+s",
            "a",
            ": ",
            "stall|error|sysrq",
            "^[^$]*$",
            r"\s",
        ] {
            let problem = of(None, Some(pattern)).unwrap_err();
            assert!(problem.contains("would prove nothing"), "{pattern}: {problem}");
        }
        for part in ["", " ", ":", "e", ": ", "[", "\n"] {
            let problem = of(Some(part), None).unwrap_err();
            assert!(problem.contains("expect_scx_bpf_error_contains"), "{part}: {problem}");
        }
        assert!(of(None, Some("(")).unwrap_err().contains("is no regular expression"));
    }

    #[test]
    fn what_tells_one_end_from_another_is_taken() {
        for pattern in [
            "^scx_bpf_error: weight [0-9]+ is off",
            "stall",
            "(?i)RUNTIME ERROR",
            r"not allowed for \w+\[\d+\]$",
        ] {
            assert!(of(None, Some(pattern)).is_ok(), "{pattern}");
        }
        for part in ["weight 7", "stall", "scx_bpf_error", "cpu 1"] {
            assert!(of(Some(part), None).is_ok(), "{part}");
        }
        assert!(of(None, None).unwrap().is_any());
    }

    #[test]
    fn both_must_fit_the_same_end() {
        let said =
            ["runnable task stall: a[7] failed to run for 2.0s".to_string(), "one\ntwo b[8]\n".to_string()];
        let misses = |contains, matches| of(contains, matches).unwrap().misses(&said);
        assert_eq!(misses(Some("stall"), Some(r"a\[7\] failed")), None);
        assert_eq!(misses(None, Some("^two b")), None, "lines of a log count by themselves");
        let text = misses(Some("stall"), Some("^two b")).unwrap();
        assert!(text.contains("to contain \"stall\" and to match \"^two b\", but it is "), "{text}");
        let silent = of(Some("stall"), None).unwrap().misses(&[]).unwrap();
        assert!(silent.ends_with("neither the kernel nor the scheduler said anything of it"), "{silent}");
    }

    proptest! {
        #[test]
        fn any_text_can_be_quoted(text in "\\PC{0,1500}") {
            prop_assert!(end_of(&text).len() <= QUOTED && text.ends_with(end_of(&text)));
        }
    }
}
