//! The cpulist syntax, accepted and refused.

use proptest::prelude::*;

use super::*;

fn cpus(text: &str) -> Vec<u32> {
    parse_cpu_list(text).unwrap_or_else(|error| panic!("{error}")).iter().collect()
}

#[test]
fn lists_as_the_kernel_prints_them() {
    assert!(cpus("").is_empty());
    assert!(cpus("\n").is_empty());
    assert_eq!(cpus("0\n"), [0]);
    assert_eq!(cpus("0-3,8"), [0, 1, 2, 3, 8]);
    assert_eq!(cpus("0-1,4-5\n"), [0, 1, 4, 5]);
    assert_eq!(cpus("8191"), [8191]);
}

#[test]
fn lists_as_people_write_them() {
    assert_eq!(cpus("8,0-3"), [0, 1, 2, 3, 8]);
    assert_eq!(cpus("0-2,1-3,2"), [0, 1, 2, 3]);
    assert_eq!(cpus("5-5"), [5]);
    assert_eq!(cpus("007"), [7]);
}

#[test]
fn strides_take_the_first_of_each_group() {
    assert_eq!(cpus("0-9:2/4"), [0, 1, 4, 5, 8, 9]);
    assert_eq!(cpus("1-10:1/3"), [1, 4, 7, 10]);
    assert_eq!(cpus("0-3:4/4,7"), [0, 1, 2, 3, 7]);
    assert!(cpus("0-3:0/2").is_empty());
    assert_eq!(cpus("2-8190:1/4294967295"), [2]);
    assert_eq!(cpus("0-8191:4294967295/4294967295").len(), 8192);
}

#[test]
fn refused_lists_say_where_and_why() {
    let cases = [
        (",", 0, "expected a CPU number at byte 0, found ','"),
        ("0,", 2, "expected a CPU number at byte 2, found the end"),
        ("0,,2", 2, "expected a CPU number at byte 2, found ','"),
        ("0, 2", 2, "expected a CPU number at byte 2, found ' '"),
        (" 0", 0, "expected a CPU number at byte 0, found ' '"),
        ("0\n\n", 1, r"expected a comma or the end at byte 1, found '\n'"),
        ("0-", 2, "expected the range's last CPU number at byte 2, found the end"),
        ("-3", 0, "expected a CPU number at byte 0, found '-'"),
        ("0-3-5", 3, "expected a comma or the end at byte 3, found '-'"),
        ("0x3", 1, "expected a comma or the end at byte 1, found 'x'"),
        ("3:1/2", 1, "expected a comma or the end at byte 1, found ':'"),
        ("0-3:", 4, "expected how many CPUs of each group to take at byte 4, found the end"),
        ("0-3:1", 5, "expected a slash and the group's size at byte 5, found the end"),
        ("0-3:1/", 6, "expected the group's size at byte 6, found the end"),
        ("all", 0, "expected a CPU number at byte 0, found 'a'"),
        ("0,é", 2, "expected a CPU number at byte 2, found 'é'"),
        ("5-3", 0, "the range 5-3 at byte 0 runs backwards; write 3-5"),
        ("0-3:1/0", 4, "the stride 1/0 at byte 4"),
        ("0-3:3/2", 4, "the stride 3/2 at byte 4"),
        ("0,8192", 2, "the number 8192 at byte 2 is larger than 8191"),
        ("0-99999999999999999999", 2, "the number 99999999999999999999 at byte 2"),
        ("0-3:1/4294967296", 6, "the number 4294967296 at byte 6 is larger than 4294967295"),
    ];
    for (text, position, message) in cases {
        let error = parse_cpu_list(text).expect_err(text);
        assert_eq!(error.position(), position, "{text:?}");
        assert!(error.to_string().contains(message), "{text:?}: {error}");
    }
}

#[test]
fn a_long_list_is_cut_in_the_message() {
    let text = format!("{}x", "0,".repeat(10_000));
    let message = parse_cpu_list(&text).expect_err("it ends in x").to_string();
    assert!(message.len() < 300, "{message}");
    assert!(message.contains("at byte 20000"), "{message}");
}

#[test]
fn lenient_skips_what_it_cannot_read() {
    let lenient = |text| parse_cpu_list_lenient(text).to_string();
    assert_eq!(lenient("0-3,x,8"), "0-3,8");
    assert_eq!(lenient(" 0 , 2-3\n"), "0,2-3");
    assert_eq!(lenient("5-3,1,9999999999,2-3x"), "1");
    assert_eq!(lenient("nothing"), "");
}

proptest! {
    #[test]
    fn a_stride_is_a_filter(start in 0u32..100, len in 0u32..100, used in 0u32..12, more in 0u32..12) {
        let group = (used + more).max(1);
        let (used, end) = (used.min(group), start + len);
        let expected: CpuSet = (start..=end).filter(|cpu| (cpu - start) % group < used).collect();
        prop_assert_eq!(parse_cpu_list(&format!("{start}-{end}:{used}/{group}")), Ok(expected));
    }

    #[test]
    fn lenient_agrees_with_strict(text in "[0-9,:/ x\n-]{0,24}") {
        if let Ok(cpus) = parse_cpu_list(&text) {
            prop_assert_eq!(parse_cpu_list_lenient(&text), cpus);
        }
    }

    #[test]
    fn any_text_is_a_set_or_an_error_inside_it(text in any::<String>()) {
        let _ = parse_cpu_list_lenient(&text);
        match parse_cpu_list(&text) {
            Ok(cpus) => prop_assert!(cpus.last() <= Some(MAX_CPU)),
            Err(error) => prop_assert!(text.is_char_boundary(error.position())),
        }
    }
}
