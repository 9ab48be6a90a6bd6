//! Words for people: headings, durations, tables.

use std::time::Duration;

/// A heading with an empty line before it.
pub(crate) fn heading(text: &str) {
    println!("\n── {text} {}", "─".repeat(72usize.saturating_sub(text.chars().count())));
}

/// `0.4 s`, `42 s`, `7 min 05 s`: as exact as it matters.
pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 9.95 {
        format!("{seconds:.1} s")
    } else if seconds < 99.5 {
        format!("{seconds:.0} s")
    } else {
        let whole = seconds.round() as u64;
        format!("{} min {:02} s", whole / 60, whole % 60)
    }
}

/// Left-aligned columns, two blanks apart, no rules.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; N]| {
        let cells: Vec<_> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        format!("  {}", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_as_exact_as_it_matters() {
        let text = |ms| duration(Duration::from_millis(ms));
        assert_eq!(text(420), "0.4 s");
        assert_eq!(text(9_960), "10 s");
        assert_eq!(text(99_400), "99 s");
        assert_eq!(text(99_600), "1 min 40 s");
        assert_eq!(text(425_400), "7 min 05 s");
    }

    #[test]
    fn table_columns_line_up() {
        let rows = [["a".into(), "bb".into()], ["ccc".into(), "d".into()]];
        assert_eq!(table(&rows), "  a    bb\n  ccc  d");
    }
}
