//! What holds for every log, and examples to read.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;

fn texts(collapsed: &Collapsed<'_>) -> Vec<String> {
    collapsed.lines.iter().map(ToString::to_string).collect()
}

fn refs(lines: &[String]) -> Vec<&str> {
    lines.iter().map(String::as_str).collect()
}

fn owned(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|&line| line.to_owned()).collect()
}

/// `rounds` rounds of `body`, with another register state in each.
fn looped(body: &[&str], rounds: usize) -> Vec<String> {
    let number = |round: usize| body.iter().map(move |line| format!("{line} ; R1_w={round}"));
    (0..rounds).flat_map(number).collect()
}

const BODY: [&str; 5] = ["1: (b7) a", "2: (b7) b", "3: (b7) c", "4: (b7) d", "5: (b7) e"];

#[test]
fn first_and_last_round_stay_and_the_others_are_counted() {
    let mut lines = vec!["; start".to_string()];
    lines.extend(looped(&BODY, 10));
    lines.push("6: (95) exit".to_string());
    let collapsed = collapse(&refs(&lines));
    let mut expected = lines[..6].to_vec();
    expected.push("... 8 identical iterations omitted (5 lines each) ...".into());
    expected.extend_from_slice(&lines[46..]);
    assert_eq!(texts(&collapsed), expected);
    assert_eq!((collapsed.passes, collapsed.omitted), (1, 39));
    assert!(expected.iter().any(|line| line.ends_with("R1_w=9")), "the last round's state stays");
}

#[test]
fn two_rounds_or_four_lines_are_left_alone() {
    let two = looped(&BODY, 2);
    assert_eq!(texts(&collapse(&refs(&two))), two);
    // Three times four lines are no three rounds of five.
    let short = looped(&BODY[..4], 3);
    assert_eq!(texts(&collapse(&refs(&short))), short);
    let three = looped(&BODY, 3);
    assert!(texts(&collapse(&refs(&three)))[5].contains("1 identical iteration omitted"));
}

#[test]
fn a_short_round_counts_with_its_multiples() {
    let lines = looped(&BODY[..2], 60);
    let collapsed = collapse(&refs(&lines));
    assert_eq!(collapsed.lines.len(), 13, "{:?}", collapsed.lines);
    assert!(collapsed.lines[6].contains("18 identical iterations omitted (6 lines each)"));
}

#[test]
fn a_loop_in_a_loop_takes_two_passes() {
    let mut lines = Vec::new();
    for _ in 0..7 {
        lines.extend(owned(&["10: (b7) outer", "11: (b7) outer"]));
        lines.extend(looped(&BODY, 9));
    }
    let collapsed = collapse(&refs(&lines));
    assert!(collapsed.lines.len() <= 2 * 13 + 1, "{:#?}", collapsed.lines);
    assert!(
        collapsed.lines.iter().any(|line| line.contains("5 identical iterations omitted (13 lines each)"))
    );
}

#[test]
fn a_round_that_has_a_line_twice_is_found() {
    let body = ["a", "x", "b", "x", "c", "x", "d"];
    let lines: Vec<_> = (0..50).flat_map(|_| owned(&body)).collect();
    assert_eq!(collapse(&refs(&lines)).lines.len(), 15);
}

#[test]
fn time_grows_like_the_log() {
    // Quadratic behaviour would take minutes here.
    let body: Vec<String> = (0..997).map(|n| format!("{n}: (b7) r{n}")).collect();
    let mut lines: Vec<String> = (0..200).flat_map(|_| body.clone()).collect();
    lines.extend((0..100_000).map(|n| format!("; other {n}")));
    assert_eq!(collapse(&refs(&lines)).lines.len(), 2 * 997 + 1 + 100_000);
}

/// Logs with loops in loops: few different lines, blocks of them repeated.
fn log() -> impl Strategy<Value = Vec<String>> {
    let line = prop_oneof![
        (0..12u8).prop_map(|n| format!("{n}: (b7) r{n} = 0")),
        (0..4u8, 0..9u8).prop_map(|(n, r)| format!("{n}: (b7) r{n} = 0 ; R{n}_w={r}")),
        (0..3u8).prop_map(|n| format!("; source {n}")),
        Just(String::new()),
        Just("3: R1=ctx()".to_string()),
    ];
    let block = vec(line, 0..9).boxed();
    let repeated = |inner: BoxedStrategy<Vec<String>>| {
        vec((inner, 1..8usize), 0..4)
            .prop_map(|parts| {
                parts.into_iter().flat_map(|(part, times)| vec![part; times].concat()).collect()
            })
            .boxed()
    };
    repeated(repeated(block))
}

proptest! {
    #[test]
    fn it_never_grows_and_keeps_both_ends(lines in log()) {
        let collapsed = collapse(&refs(&lines));
        let after = texts(&collapsed);
        prop_assert!(after.len() <= lines.len());
        prop_assert_eq!(after.first(), lines.first());
        prop_assert_eq!(after.last(), lines.last());
        prop_assert_eq!(collapsed.omitted, lines.len() - after.len());
    }

    #[test]
    fn what_is_left_was_there_in_that_order(lines in log()) {
        let after = texts(&collapse(&refs(&lines)));
        let mut rest = lines.iter();
        for line in after.iter().filter(|line| !line.contains(" omitted (")) {
            prop_assert!(rest.any(|known| known == line), "{} is new or out of order", line);
        }
    }

    #[test]
    fn a_second_time_changes_nothing(lines in log()) {
        let once = collapse(&refs(&lines));
        // With all passes used there may be more to find.
        prop_assume!(once.passes < MAX_PASSES);
        let after = texts(&once);
        let twice = collapse(&refs(&after));
        prop_assert_eq!((twice.passes, texts(&twice)), (0, after));
    }

    #[test]
    fn any_loop_is_collapsed(body in 5..40usize, rounds in 3..60usize, head in 0..9usize) {
        let mut lines: Vec<String> = (0..head).map(|n| format!("; head {n}")).collect();
        lines.extend((0..rounds).flat_map(|_| (0..body).map(|n| format!("{n}: (b7) x"))));
        prop_assert_eq!(collapse(&refs(&lines)).lines.len(), head + 2 * body + 1);
    }

    #[test]
    fn any_text_will_do(text in "(\\PC{0,12}\n){0,40}") {
        let lines: Vec<&str> = text.lines().collect();
        prop_assert!(collapse(&lines).lines.len() <= lines.len());
    }
}
