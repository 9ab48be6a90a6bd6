//! Any text is parsed and rendered; collapsing keeps both ends and never adds a line.
//!
//! Random text has no loops, so each line of the input is also repeated as often as its first
//! byte says, and blocks of eight lines as often as their number says.

#![no_main]

use ktstr_verifier::{MAX_PASSES, Mode, VerifierLog, collapse, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    check(&text);
    let lines: Vec<&str> = text.lines().collect();
    let mut looped = Vec::new();
    for (number, block) in lines.chunks(8).enumerate() {
        for _ in 0..number % 7 {
            for line in block {
                let times = usize::from(line.bytes().next().unwrap_or(0) % 4);
                looped.extend(std::iter::repeat_n(*line, times));
            }
        }
    }
    check(&looped.join("\n"));
});

fn check(text: &str) {
    let _ = render(text, Mode::Readable);
    let log = VerifierLog::parse(text);
    for program in &log.programs {
        let _ = program.summary();
    }
    let lines: Vec<&str> = text.lines().collect();
    let once = collapse(&lines);
    assert!(once.lines.len() + once.omitted == lines.len());
    assert_eq!(once.lines.first().map(AsRef::as_ref), lines.first().copied());
    assert_eq!(once.lines.last().map(AsRef::as_ref), lines.last().copied());
    if once.passes < MAX_PASSES {
        let after: Vec<&str> = once.lines.iter().map(AsRef::as_ref).collect();
        assert_eq!(collapse(&after).omitted, 0);
    }
}
