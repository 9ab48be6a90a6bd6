//! Names of test cases and of what they leave behind.

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
    // FNV-1a, 64 bit (Fowler, Noll, Vo): short, stable, and no secret is at stake.
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for part in variant {
        for byte in part.bytes().chain([0]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
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
