//! Names that were meant, suggestions for misspelt ones; what both macros say of one key.

/// "`x` is no …; did you mean `y`? Known: …"
pub(crate) fn unknown(name: &str, of: &str, known: &[&str]) -> String {
    let near = known.iter().min_by_key(|known| distance(name, known));
    let hint = match near.filter(|known| distance(name, known) <= 2.max(name.len() / 3)) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    };
    format!("`{name}` is no {of}{hint} Known: {}", known.join(", "))
}

/// `SCX_WATCHDOG_MAX_TIMEOUT` of kernel/sched/ext.c, s.
pub(crate) const WATCHDOG_MOST_S: u64 = 30;

/// What a timeout of the watchdog must be.
pub(crate) fn watchdog_timeout() -> String {
    format!(
        "`watchdog_timeout_s` takes whole seconds from 1 to {WATCHDOG_MOST_S}, the most that the kernel takes"
    )
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
