//! Names of test cases and of what they leave behind.

use ktstr_machine::Digest;

/// Cases of a test on its own machine are called `ktstr/<test>`.
pub const CASE_PREFIX: &str = "ktstr/";

/// The case of a test on its own machine.
pub fn case_name(test: &str) -> String {
    format!("{CASE_PREFIX}{test}")
}

/// The test that a case belongs to, if it is one of ours.
pub fn test_of_case(case: &str) -> Option<&str> {
    case.strip_prefix(CASE_PREFIX).filter(|t| !t.is_empty())
}

/// The file name, without extension, of a variant's sidecar: the test and a hash
/// (16 hex digits) over what tells its variants apart.
pub fn file_stem(test: &str, variant: &[&str]) -> String {
    let mut hash = Digest::default();
    for part in variant {
        hash.push(part.as_bytes());
        hash.push(&[0]);
    }
    let hash = hash.value();
    let safe: String = test.chars().map(|c| if c.is_alphanumeric() || c == '_' { c } else { '-' }).collect();
    format!("{safe}-{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_names_its_test() {
        assert_eq!(test_of_case(&case_name("a")), Some("a"));
        assert_eq!(test_of_case("ktstr/"), None);
        assert_eq!(test_of_case("a"), None);
    }

    #[test]
    fn variants_have_files_of_their_own() {
        let stem = |v: &[&str]| file_stem("a::b", v);
        assert_eq!(stem(&["tcg", "1n1l2c1t"]), stem(&["tcg", "1n1l2c1t"]));
        assert_ne!(stem(&["tcg", "1n1l2c1t"]), stem(&["tcg1n1l2c1t", ""]));
        assert!(stem(&[]).starts_with("a--b-"));
    }
}
