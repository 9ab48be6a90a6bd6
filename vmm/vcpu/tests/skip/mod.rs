//! How a test says that this host can't show what it is for. Test runners count it as passed; `cargo xtask` tells how
//! many there were.

use std::fs::OpenOptions;
use std::io::Write;

/// Says that `test` shows nothing here, and why: on standard error, and as a line of the file that `KTSTR_SKIP_LOG`
/// names, if it does.
pub(crate) fn skip(test: &str, why: &str) {
    eprintln!("skipped {test}: {why}");
    if let Some(path) = std::env::var_os("KTSTR_SKIP_LOG") {
        let line = format!("{test}: {why}\n");
        let written = OpenOptions::new().create(true).append(true).open(&path);
        written.and_then(|mut file| file.write_all(line.as_bytes())).expect("writing to KTSTR_SKIP_LOG");
    }
}
