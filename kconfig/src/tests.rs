//! Unit and property tests of the fragment, the parser and the comparisons.

use std::borrow::Cow;

use proptest::prelude::*;

use super::*;

#[test]
fn embedded_fragment_is_well_formed_and_free_of_duplicates() {
    let fragment = Fragment::parse(EMBEDDED_KCONFIG).expect("every line parses");
    assert_eq!(fragment.duplicates(), Vec::<&str>::new());
    assert!(fragment.assignments.len() > 100);
}

#[test]
fn embedded_fragment_asks_for_every_required_option() {
    assert!(unmet_requirements(EMBEDDED_KCONFIG, "x86_64").is_empty());
    let mut names: Vec<_> = required_options().iter().map(|r| r.option).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "ACPI",
            "BPF_EVENTS",
            "BPF_SYSCALL",
            "DEBUG_INFO_BTF",
            "FTRACE",
            "KPROBE_EVENTS",
            "PCI",
            "PCI_MMCONFIG",
            "SCHED_CLASS_EXT",
            "VIRTIO_BLK",
            "VIRTIO_PCI",
        ]
    );
}

#[test]
fn pci_mmconfig_is_asked_of_x86_only() {
    let without = EMBEDDED_KCONFIG.replace("CONFIG_PCI_MMCONFIG=y", "");
    assert!(unmet_requirements(&without, "aarch64").is_empty());
    let unmet = unmet_requirements(&without, "x86_64");
    assert_eq!(unmet.len(), 1);
    assert_eq!(unmet[0].option, "PCI_MMCONFIG");
}

#[test]
fn a_module_does_not_meet_a_requirement() {
    let config = EMBEDDED_KCONFIG.replace("CONFIG_VIRTIO_BLK=y", "CONFIG_VIRTIO_BLK=m");
    let unmet = unmet_requirements(&config, "x86_64");
    assert_eq!(unmet[0].option, "VIRTIO_BLK");
}

#[test]
fn hashes_are_eight_hex_digits_and_verbatim() {
    // The CRC-32 (IEEE 802.3) check value of "123456789".
    assert_eq!(extra_kconfig_hash("123456789"), "cbf43926");
    assert_eq!(extra_kconfig_hash(""), "00000000");
    assert_ne!(extra_kconfig_hash("A"), extra_kconfig_hash("A\n"));
    assert_eq!(kconfig_hash(), extra_kconfig_hash(EMBEDDED_KCONFIG));
}

#[test]
fn suffix_has_a_second_segment_for_an_extra_fragment() {
    assert_eq!(cache_key_suffix(), kconfig_hash());
    assert_eq!(cache_key_suffix_with_extra(None), kconfig_hash());
    assert_eq!(cache_key_suffix_with_extra(Some("123456789")), format!("{}-xkccbf43926", kconfig_hash()));
}

#[test]
fn merge_borrows_without_an_extra_fragment() {
    assert!(matches!(merge_kconfig_fragments("A", None), Cow::Borrowed("A")));
    assert_eq!(merge_kconfig_fragments("A", Some("B")), "A\nB");
}

#[test]
fn overrides_name_only_real_changes() {
    let baked = "CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=n\n";
    let extra = "CONFIG_A=y\n# CONFIG_B is not set\n# CONFIG_C is not set\nCONFIG_D=7\n";
    let found = overrides(baked, extra).expect("both parse");
    assert_eq!(found, vec![Override { option: "B".into(), baked: Value::Yes, extra: Value::No }]);
}

#[test]
fn every_spelling_of_off_is_equal() {
    for dot_config in ["", "CONFIG_A=n", "# CONFIG_A is not set"] {
        for fragment in ["CONFIG_A=n", "# CONFIG_A is not set"] {
            assert_eq!(missing_options(fragment, dot_config), Ok(vec![]));
        }
    }
}

#[test]
fn missing_says_what_was_wanted_and_seen() {
    let missing = missing_options("CONFIG_A=y\nCONFIG_B=512\nCONFIG_C=y", "CONFIG_A=m\nCONFIG_B=64\n")
        .expect("both parse");
    let shown: Vec<String> =
        missing.iter().map(|m| format!("{} {} {}", m.option, m.wanted, m.seen)).collect();
    assert_eq!(shown, ["A y m", "B 512 64", "C y n"]);
}

#[test]
fn bad_lines_are_all_reported_with_their_numbers() {
    let text = "CONFIG_OK=y\nSCHED_EXT=y\n# fine\n CONFIG_B=y\nCONFIG_C=yes\nCONFIG_D=y \nCONFIG_=y\nCONFIG_E\nCONFIG_F=\nCONFIG_G=\"open\nCONFIG_H-I=y\n";
    let error = Fragment::parse(text).expect_err("has bad lines");
    let lines: Vec<usize> = error.0.iter().map(|b| b.line).collect();
    assert_eq!(lines, [2, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert!(error.to_string().contains("line 5"), "{error}");
}

#[test]
fn literals_are_kept_as_written() {
    let text = "CONFIG_A=-1\nCONFIG_B=0x1000\nCONFIG_C=\"a \\\"b\\\" # c\"\nCONFIG_D=\"\"";
    let fragment = Fragment::parse(text).expect("parses");
    let values: Vec<String> = fragment.assignments.iter().map(|a| a.value.to_string()).collect();
    assert_eq!(values, ["-1", "0x1000", "\"a \\\"b\\\" # c\"", "\"\""]);
}

#[test]
fn is_enabled_takes_the_last_line_and_the_whole_name() {
    assert!(is_enabled("# CONFIG_A is not set\nCONFIG_A=y\n", "A"));
    assert!(!is_enabled("CONFIG_A=y\n# CONFIG_A is not set\n", "A"));
    assert!(!is_enabled("CONFIG_AB=y\n", "A"));
    assert!(!is_enabled("CONFIG_A=m\n", "A"));
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Yes),
        Just(Value::Module),
        Just(Value::No),
        any::<i64>().prop_map(|n| Value::Literal(n.to_string())),
        any::<u32>().prop_map(|n| Value::Literal(format!("{n:#x}"))),
        "[a-zA-Z0-9 /=#.]{0,12}".prop_map(|s| Value::Literal(format!("\"{s}\""))),
    ]
}

fn lines() -> impl Strategy<Value = Vec<(String, Value)>> {
    prop::collection::vec(("[A-F][A-Z0-9_]{0,3}", value()), 0..20)
}

fn render(lines: &[(String, Value)]) -> String {
    lines.iter().map(|(option, value)| format!("CONFIG_{option}={value}\n")).collect()
}

proptest! {
    #[test]
    fn parse_returns_what_was_rendered(lines in lines()) {
        let fragment = Fragment::parse(&render(&lines)).expect("rendered lines parse");
        let parsed: Vec<_> = fragment
            .assignments
            .into_iter()
            .map(|a| (a.option, a.value))
            .collect();
        prop_assert_eq!(parsed, lines);
    }

    #[test]
    fn parse_never_panics(text in "(?s).{0,200}") {
        match Fragment::parse(&text) {
            Ok(fragment) => prop_assert!(fragment.assignments.len() <= text.lines().count()),
            Err(error) => prop_assert!(!error.0.is_empty()),
        }
    }

    #[test]
    fn a_fragment_misses_nothing_of_itself(lines in lines()) {
        let text = render(&lines);
        prop_assert_eq!(missing_options(&text, &text), Ok(vec![]));
    }

    #[test]
    fn the_user_wins_and_each_loss_is_an_override(baked in lines(), extra in lines()) {
        let (baked, extra) = (render(&baked), render(&extra));
        let merged = merge_kconfig_fragments(&baked, Some(&extra));
        prop_assert_eq!(missing_options(&extra, &merged), Ok(vec![]));
        let lost = missing_options(&baked, &merged).expect("parses");
        let overridden = overrides(&baked, &extra).expect("parses");
        let lost: Vec<_> = lost.into_iter().map(|m| m.option).collect();
        let overridden: Vec<_> = overridden.into_iter().map(|o| o.option).collect();
        prop_assert_eq!(lost, overridden);
    }

    #[test]
    fn is_enabled_agrees_with_the_parser(lines in lines(), option in "[A-F][A-Z0-9_]{0,3}") {
        let text = render(&lines);
        let fragment = Fragment::parse(&text).expect("parses");
        let expected = fragment.effective().get(option.as_str()) == Some(&&Value::Yes);
        prop_assert_eq!(is_enabled(&text, &option), expected);
    }
}
