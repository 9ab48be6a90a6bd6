//! Room on the disk. A full one shows as broken builds: linkers die of SIGBUS.

use std::path::Path;
use std::process::Command;

/// What a first run of all tests writes into the target folder, and some more.
const WANTED_MIB: u64 = 8 << 10;

/// Words about too little room for what is built in `folder`; `None` if there is enough, or if
/// `df` doesn't tell.
pub(super) fn warning(folder: &Path) -> Option<String> {
    let output = Command::new("df").args(["--output=avail", "-BM"]).arg(folder).output().ok()?;
    let free = free_mib(&String::from_utf8_lossy(&output.stdout))?;
    (free < WANTED_MIB).then(|| {
        format!(
            "only {:.1} GiB are free at {}; a first run needs about {} GiB. If a build ends in \"No space left on \
             device\" or a linker in a bus error, make room (target/debug/incremental can go) and run it again.",
            free as f64 / 1024.0,
            folder.display(),
            WANTED_MIB >> 10
        )
    })
}

/// The second line of `df`'s answer, such as `12345M`.
fn free_mib(answer: &str) -> Option<u64> {
    answer.lines().nth(1)?.trim().strip_suffix('M')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dfs_answer_is_read() {
        assert_eq!(free_mib("  Avail\n 52480M\n"), Some(52480));
        for other in ["", "Avail\n", "Avail\n12G\n", "df: no such file\n"] {
            assert_eq!(free_mib(other), None, "{other:?}");
        }
    }

    #[test]
    fn this_disk_is_looked_at() {
        // Whatever it says of a real folder, it says nothing of one that isn't there.
        assert_eq!(warning(Path::new("/no/such/folder")), None);
    }
}
