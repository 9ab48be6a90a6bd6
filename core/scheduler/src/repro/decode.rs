//! Values in the kernel's words.

use super::probe::Show;
use std::fmt::Write;

/// `enum scx_enq_flags` with `ENQUEUE_*` of `kernel/sched/sched.h` where it takes those over (6.12).
const ENQUEUE: [(u32, &str); 12] = [
    (0, "WAKEUP"),
    (1, "RESTORE"),
    (2, "MOVE"),
    (3, "NOCLOCK"),
    (4, "HEAD"),
    (6, "MIGRATED"),
    (10, "CPU_SELECTED"),
    (32, "PREEMPT"),
    (40, "REENQ"),
    (41, "LAST"),
    (56, "CLEAR_OPSS"),
    (57, "DSQ_PRIQ"),
];
/// `DEQUEUE_*` of `kernel/sched/sched.h`, and what `enum scx_deq_flags` adds (6.12).
const DEQUEUE: [(u32, &str); 8] = [
    (0, "SLEEP"),
    (1, "SAVE"),
    (2, "MOVE"),
    (3, "NOCLOCK"),
    (4, "SPECIAL"),
    (8, "MIGRATING"),
    (9, "DELAYED"),
    (32, "CORE_SCHED_EXEC"),
];
/// `WF_*` of `kernel/sched/sched.h` (6.12).
const WAKE: [(u32, &str); 6] =
    [(1, "EXEC"), (2, "FORK"), (3, "TTWU"), (4, "SYNC"), (5, "MIGRATED"), (6, "CURRENT_CPU")];
/// `enum scx_kick_flags` of `kernel/sched/ext.c` (6.12).
const KICK: [(u32, &str); 3] = [(0, "IDLE"), (1, "PREEMPT"), (2, "WAIT")];
/// `enum scx_ops_state`, likewise; a sequence number stands above its two bits (`SCX_OPSS_QSEQ_SHIFT`).
const OPS_STATES: [&str; 4] = ["NONE", "QUEUEING", "QUEUED", "DISPATCHING"];
const OPS_STATE_BITS: u32 = 2;
/// `enum scx_ent_flags` of `include/linux/sched/ext.h` (6.12); the state is a number of two bits.
const ENTITY: [(u32, &str); 4] =
    [(0, "QUEUED"), (2, "RESET_RUNNABLE_AT"), (3, "DEQD_FOR_SLEEP"), (31, "CURSOR")];
const STATES: [&str; 4] = ["NONE", "INIT", "READY", "ENABLED"];
const STATE_SHIFT: u32 = 8;

/// `enum scx_dsq_id_flags` (6.12).
const BUILTIN: u64 = 1 << 63;
const LOCAL_ON: u64 = 1 << 62;

/// What the kernel printed, in words; as it is where it is no number.
pub(super) fn decode(text: &str, show: &Show) -> String {
    let Some(value) = number(text) else { return text.to_string() };
    match show {
        Show::Text => text.to_string(),
        Show::Decimal => value.to_string(),
        Show::Hex => format!("{:#x}", value as u64),
        Show::Truth => (value != 0).to_string(),
        Show::Cpus => cpus(value as u64),
        Show::Queue => queue(value as u64),
        Show::EnqueueFlags => flags(value as u64, &ENQUEUE),
        Show::DequeueFlags => flags(value as u64, &DEQUEUE),
        Show::WakeFlags => flags(value as u64, &WAKE),
        Show::KickFlags => flags(value as u64, &KICK),
        Show::OpsState => ops_state(value as u64),
        Show::EntityFlags => entity(value as u64),
        Show::Names(names) => {
            let name = names.iter().find(|(of, _)| i128::from(*of) == value).map(|(_, name)| name.clone());
            name.unwrap_or_else(|| value.to_string())
        }
    }
}

fn number(text: &str) -> Option<i128> {
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok().map(i128::from),
        None => text.parse().ok(),
    }
}

fn queue(id: u64) -> String {
    match (id & BUILTIN != 0, id & LOCAL_ON != 0, id & u64::from(u32::MAX)) {
        (false, _, _) => format!("{id:#x}"),
        (true, true, cpu) => format!("SCX_DSQ_LOCAL_ON|{cpu}"),
        (true, false, 0) => "SCX_DSQ_INVALID".to_string(),
        (true, false, 1) => "SCX_DSQ_GLOBAL".to_string(),
        (true, false, 2) => "SCX_DSQ_LOCAL".to_string(),
        // 6.13 and later.
        (true, false, 3) => "SCX_DSQ_BYPASS".to_string(),
        (true, false, _) => format!("{id:#x}"),
    }
}

fn flags(value: u64, names: &[(u32, &str)]) -> String {
    let mut rest = value;
    let mut words: Vec<String> = Vec::new();
    for (bit, name) in names {
        if rest & 1 << bit != 0 {
            rest &= !(1 << bit);
            words.push((*name).to_string());
        }
    }
    if rest != 0 || words.is_empty() {
        words.push(format!("{rest:#x}"));
    }
    words.join("|")
}

/// `QUEUED#17`; without a number where there is none.
fn ops_state(value: u64) -> String {
    let state = OPS_STATES[(value & 3) as usize];
    match value >> OPS_STATE_BITS {
        0 => state.to_string(),
        number => format!("{state}#{number}"),
    }
}

fn entity(value: u64) -> String {
    let state = (value >> STATE_SHIFT & 3) as usize;
    let rest = value & !(3 << STATE_SHIFT);
    let mut text = STATES[state].to_string();
    if rest != 0 {
        text = format!("{text}|{}", flags(rest, &ENTITY));
    }
    text
}

/// `0xf(0-3)`.
fn cpus(mask: u64) -> String {
    let mut text = format!("{mask:#x}(");
    let mut cpu = 0;
    while cpu < 64 {
        let ones = (mask >> cpu).trailing_ones();
        if ones == 0 {
            cpu += 1;
            continue;
        }
        let comma = if text.ends_with('(') { "" } else { "," };
        // Writing to a string can't fail.
        let _ = match ones {
            1 => write!(text, "{comma}{cpu}"),
            _ => write!(text, "{comma}{cpu}-{}", cpu + ones - 1),
        };
        cpu += ones;
    }
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_speak_the_kernels_language() {
        let of = |text: &str, show: Show| decode(text, &show);
        assert_eq!(of("9223372036854775810", Show::Queue), "SCX_DSQ_LOCAL");
        assert_eq!(of("0x8000000000000001", Show::Queue), "SCX_DSQ_GLOBAL");
        assert_eq!(of("13835058055282163715", Show::Queue), "SCX_DSQ_LOCAL_ON|3");
        assert_eq!(of("358929", Show::Queue), "0x57a11");
        assert_eq!(of("0xf0005", Show::Cpus), "0xf0005(0,2,16-19)");
        assert_eq!(of("0xffffffffffffffff", Show::Cpus), "0xffffffffffffffff(0-63)");
        assert_eq!(of("769", Show::EntityFlags), "ENABLED|QUEUED");
        assert_eq!(of("144115188075855873", Show::EnqueueFlags), "WAKEUP|DSQ_PRIQ");
        assert_eq!(of("32", Show::EnqueueFlags), "0x20");
        assert_eq!(of("9", Show::DequeueFlags), "SLEEP|NOCLOCK");
        assert_eq!(of("24", Show::WakeFlags), "TTWU|SYNC");
        assert_eq!(of("3", Show::KickFlags), "IDLE|PREEMPT");
        assert_eq!(of("0", Show::KickFlags), "0x0");
        assert_eq!(of("70", Show::OpsState), "QUEUED#17");
        assert_eq!(of("0", Show::OpsState), "NONE");
        assert_eq!(of("-1", Show::Decimal), "-1");
        assert_eq!(of("2", Show::Names(vec![(2, "TWO".to_string())])), "TWO");
        assert_eq!(of("(fault)", Show::Hex), "(fault)");
    }

    proptest! {
        #[test]
        fn a_mask_names_its_cpus(mask in any::<u64>()) {
            let text = cpus(mask);
            let inside = text.split_once('(').unwrap().1.trim_end_matches(')').to_string();
            let mut back = 0u64;
            for part in inside.split(',').filter(|p| !p.is_empty()) {
                let (first, last) = part.split_once('-').unwrap_or((part, part));
                for cpu in first.parse::<u32>().unwrap()..=last.parse::<u32>().unwrap() {
                    back |= 1 << cpu;
                }
            }
            prop_assert_eq!(back, mask);
        }
    }
}
