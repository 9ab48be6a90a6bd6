//! Mistakes in `#[ktstr_test]`, `derive(Claim)` and `json!` are compile errors that
//! point at the mistake and say what was expected.

#[test]
fn mistakes_are_compile_errors_that_point_at_them() {
    let cases = trybuild::TestCases::new();
    cases.compile_fail("tests/compile_fail/*.rs");
}
