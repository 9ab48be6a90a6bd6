//! Names that were meant: suggestions for misspelt ones.

/// "`x` is no …; did you mean `y`? Known: …"
pub(crate) fn unknown(name: &str, of: &str, known: &[&str]) -> String {
    let near = known.iter().min_by_key(|known| distance(name, known));
    let hint = match near.filter(|known| distance(name, known) <= 2.max(name.len() / 3)) {
        Some(known) => format!("; did you mean `{known}`?"),
        None => String::new(),
    };
    format!("`{name}` is no {of}{hint} Known: {}", known.join(", "))
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
