//! An answer over scx_stats, read.

use ktstr_scheduler::StatsSample;
use serde_json::Value;
use std::collections::BTreeMap;

/// Figures that are kept of an answer.
const MOST_FIGURES: usize = 512;
/// Bytes of a figure's name.
const LONGEST_NAME: usize = 120;
/// How deep an answer may be nested.
const DEEPEST: usize = 8;

/// The figures of an answer.
///
/// # Errors
/// What is wrong with it, as a fragment.
pub(super) fn parse_answer(line: &str, at_ms: u64) -> Result<StatsSample, String> {
    let shown = || &line[..line.floor_char_boundary(120)];
    let answer: Value =
        serde_json::from_str(line).map_err(|e| format!("expected a line of JSON: {e}, got {:?}", shown()))?;
    let errno = answer.get("errno").and_then(Value::as_i64);
    let said = answer.get("args").and_then(|args| args.get("resp"));
    match (errno, said) {
        (Some(0), Some(said)) => {
            let mut figures = BTreeMap::new();
            flatten(said, "", DEEPEST, &mut figures);
            Ok(StatsSample { at_ms, figures })
        }
        (Some(errno), said) if errno != 0 => {
            let said = said.map(|said| format!(": {said}")).unwrap_or_default();
            Err(format!("it answered with errno {errno}{said}"))
        }
        _ => Err(format!("expected `errno` and `args.resp` in the answer, got {:?}", shown())),
    }
}

fn flatten(value: &Value, path: &str, deeper: usize, figures: &mut BTreeMap<String, f64>) {
    let below = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match value {
        _ if figures.len() >= MOST_FIGURES || path.len() > LONGEST_NAME => {}
        Value::Number(number) => figures.extend(number.as_f64().map(|number| (path.to_string(), number))),
        Value::Bool(flag) => drop(figures.insert(path.to_string(), f64::from(u8::from(*flag)))),
        Value::Object(members) if deeper > 0 => {
            members.iter().for_each(|(name, value)| flatten(value, &below(name), deeper - 1, figures));
        }
        Value::Array(elements) if deeper > 0 => {
            let each = elements.iter().enumerate();
            each.for_each(|(at, value)| flatten(value, &format!("{path}[{at}]"), deeper - 1, figures));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_figures_have_paths() {
        let line = r#"{"errno":0,"args":{"resp":{"nr":7,"ok":true,"name":"x","layers":{"a":{"util":0.5}},"cpus":[1,2]}}}"#;
        let figures = parse_answer(line, 5).unwrap().figures;
        let told: Vec<(&str, f64)> = figures.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(
            told,
            [("cpus[0]", 1.0), ("cpus[1]", 2.0), ("layers.a.util", 0.5), ("nr", 7.0), ("ok", 1.0)]
        );
    }

    #[test]
    fn what_is_no_answer_is_told() {
        let why = |line: &str| parse_answer(line, 0).unwrap_err();
        assert!(why("hello").contains("expected a line of JSON"));
        assert_eq!(why(r#"{"errno":22,"args":{"resp":"no"}}"#), "it answered with errno 22: \"no\"");
        assert!(why(r#"{"args":{}}"#).contains("expected `errno`"));
        assert!(why(r#"{"errno":0}"#).contains("expected `errno`"));
    }

    #[test]
    fn whatever_comes_is_borne() {
        for depth in [0, 1, 7, 8, 9, 100, 100_000] {
            let deep =
                format!("{{\"errno\":0,\"args\":{{\"resp\":{}1{}}}}}", "[".repeat(depth), "]".repeat(depth));
            let _ = parse_answer(&deep, 0);
        }
        let many: Vec<String> = (0..2000).map(|n| format!("\"n{n}\":{n}")).collect();
        let many = format!("{{\"errno\":0,\"args\":{{\"resp\":{{{}}}}}}}", many.join(","));
        assert_eq!(parse_answer(&many, 0).unwrap().figures.len(), MOST_FIGURES);
        let whole = r#"{"errno":0,"args":{"resp":{"é":1}}}"#;
        for end in (0..whole.len()).filter(|end| whole.is_char_boundary(*end)) {
            assert!(parse_answer(&whole[..end], 0).is_err());
        }
    }
}
