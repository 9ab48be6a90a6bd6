//! Logs of every shape, real ones in tests/logs among them.

use super::*;
use proptest::prelude::*;

const REFUSAL: &str = "\
libbpf: prog 'a': BPF program load failed: -EACCES
libbpf: prog 'a': -- BEGIN PROG LOAD LOG --
0: R1=ctx() R10=fp0
; *x = 1; @ a.bpf.c:3
0: (7b) *(u64 *)(r0 +0) = r6
R0 invalid mem access 'map_value_or_null'
processed 7 insns (limit 1000000) max_states_per_insn 0 total_states 2 peak_states 1 mark_read 0
-- END PROG LOAD LOG --
libbpf: prog 'a': failed to load: -EACCES
libbpf: failed to load object 'fixture'
";

fn rejected(reason: &str, source: &str, errno: Option<&str>) -> Verdict {
    Verdict::Rejected {
        reason: Some(reason.into()),
        source: Some(source.into()),
        errno: errno.map(str::to_string),
    }
}

#[test]
fn a_refusal_says_why_where_and_with_which_error() {
    let log = VerifierLog::parse(REFUSAL);
    assert_eq!(log.programs.len(), 1, "{log:?}");
    let program = log.rejected().unwrap();
    let verdict =
        rejected("R0 invalid mem access 'map_value_or_null'", "*x = 1; @ a.bpf.c:3", Some("-EACCES"));
    assert_eq!((program.name.as_str(), &program.verdict), ("a", &verdict));
    assert_eq!(program.summary().verified_insns, Some(7));
    assert_eq!(log.others, ["libbpf: failed to load object 'fixture'"]);
}

#[test]
fn accepted_programs_have_totals_only() {
    let text = "libbpf: prog 'x': -- BEGIN PROG LOAD LOG --\nstack depth 8\nprocessed 5 insns (limit 9)\n\
                -- END PROG LOAD LOG --\nlibbpf: prog 'y': -- BEGIN PROG LOAD LOG --\nprocessed 6 insns (limit 9)\n\
                -- END PROG LOAD LOG --\n";
    let log = VerifierLog::parse(text);
    let seen: Vec<_> = log.programs.iter().map(|it| (it.name.as_str(), &it.verdict)).collect();
    assert_eq!(seen, [("x", &Verdict::Accepted), ("y", &Verdict::Accepted)]);
    assert!(log.rejected().is_none() && log.others.is_empty());
}

#[test]
fn a_log_that_breaks_off_is_no_acceptance() {
    let cut = REFUSAL.find("processed").unwrap();
    let program = &VerifierLog::parse(&REFUSAL[..cut]).programs[0];
    assert!(matches!(&program.verdict, Verdict::Rejected { errno: Some(errno), .. } if errno == "-EACCES"));
    let head = "libbpf: prog 'x': -- BEGIN PROG LOAD LOG --\n";
    for text in
        [head.to_string(), format!("{head}0: (95) exit\n"), format!("{head}processed 3 insns (limit 9)\n")]
    {
        assert_eq!(VerifierLog::parse(&text).programs[0].verdict, Verdict::Unknown, "{text}");
    }
}

#[test]
fn a_refusal_without_a_log_is_one() {
    let log = VerifierLog::parse("libbpf: prog 'x': BPF program load failed: Permission denied\n");
    let verdict = Verdict::Rejected { reason: None, source: None, errno: Some("Permission denied".into()) };
    assert_eq!(log.programs[0].verdict, verdict);
}

#[test]
fn the_kernels_words_alone_are_read_too() {
    let words: String = REFUSAL.lines().skip(2).take(5).map(|line| format!("{line}\n")).collect();
    let program = &VerifierLog::parse(&words).programs[0];
    let verdict = rejected("R0 invalid mem access 'map_value_or_null'", "*x = 1; @ a.bpf.c:3", None);
    assert_eq!((program.name.as_str(), &program.verdict), ("", &verdict));
    let accepted = VerifierLog::parse("0: (95) exit\nprocessed 1 insns (limit 9)\n");
    assert_eq!(accepted.programs[0].verdict, Verdict::Accepted);
    assert!(VerifierLog::parse("nothing of the kind\n").programs.is_empty());
}

#[test]
fn an_end_without_a_line_of_its_own_is_seen() {
    let text =
        "prog 'x': -- BEGIN PROG LOAD LOG --\nprocessed 3 insns (limit 9)-- END PROG LOAD LOG --\nafter\n";
    let log = VerifierLog::parse(text);
    assert_eq!(
        (log.programs[0].stats.as_ref().unwrap().processed, log.others),
        (3, vec!["after".to_string()])
    );
}

#[test]
fn the_schedulers_output_is_between_its_marks() {
    let text = format!("boot\n===SCHED_OUTPUT_START===\n{REFUSAL}===SCHED_OUTPUT_END===\nmore\n");
    assert_eq!(scheduler_output(&text), Some(REFUSAL.trim_end()));
    assert_eq!(scheduler_output("===SCHED_OUTPUT_START===\ncut"), Some("cut"));
    assert_eq!(scheduler_output("nothing"), None);
}

proptest! {
    #[test]
    fn any_text_is_parsed(text in "\\PC{0,200}", cut in 0..700usize) {
        VerifierLog::parse(&text);
        let cut = cut.min(REFUSAL.len());
        VerifierLog::parse(&format!("{}{text}{}", &REFUSAL[..cut], &REFUSAL[cut..]));
    }

    #[test]
    fn no_line_of_a_log_is_lost(lines in proptest::collection::vec("[ -~]{0,30}", 0..30)) {
        let text = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        prop_assume!(!text.contains("PROG LOAD LOG") && !text.contains("load"));
        let framed = format!("prog 'x': -- BEGIN PROG LOAD LOG --\n{text}-- END PROG LOAD LOG --\n");
        prop_assert_eq!(&VerifierLog::parse(&framed).programs[0].lines, &lines);
    }
}
