//! sched_ext, by sysfs (Documentation/scheduler/sched-ext.rst).

use ktstr_monitor::SchedExtState;
use std::collections::BTreeMap;
use std::path::Path;

const FOLDER: &str = "sys/kernel/sched_ext";

/// What `/sys/kernel/sched_ext` below `root` says: state, name of the scheduler, how many were loaded, tasks refused,
/// events. What it doesn't say, or not in this kernel, is not there; queues, programs and maps are in no file.
///
/// # Errors
/// In words, where the kernel has no sched_ext.
pub fn scx_state(root: &Path) -> Result<SchedExtState, String> {
    let folder = root.join(FOLDER);
    let path = folder.join("state");
    let state = std::fs::read_to_string(&path).map_err(|e| {
        format!("sched_ext: {}: {e}; a kernel has it with CONFIG_SCHED_CLASS_EXT", path.display())
    })?;
    let word = |name: &str| {
        let text = std::fs::read_to_string(folder.join(name)).ok()?;
        Some(text.trim().to_string()).filter(|text| !text.is_empty())
    };
    let number = |name: &str| word(name)?.parse().ok();
    Ok(SchedExtState {
        state: state.trim().to_string(),
        // The directory is there only while a scheduler is.
        ops: word("root/ops"),
        enable_seq: number("enable_seq"),
        nr_rejected: number("nr_rejected"),
        events: word("root/events").map(|text| scx_events(&text)).unwrap_or_default(),
        ..SchedExtState::default()
    })
}

/// Event counters, `name value` a line; other lines are passed over.
#[must_use]
pub fn scx_events(text: &str) -> BTreeMap<String, i64> {
    let one = |line: &str| {
        let (name, value) = line.split_once(char::is_whitespace)?;
        Some((name.to_string(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(FOLDER).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn what_is_loaded_is_told() {
        let dir = system(&[
            ("state", "enabled\n"),
            ("root/ops", "demo\n"),
            ("root/events", "SCX_EV_A 3\nSCX_EV_B -4\nodd\n"),
            ("enable_seq", "7\n"),
            ("nr_rejected", "0\n"),
        ]);
        let state = scx_state(dir.path()).unwrap();
        assert_eq!((state.state.as_str(), state.ops.as_deref()), ("enabled", Some("demo")));
        assert_eq!((state.enable_seq, state.nr_rejected), (Some(7), Some(0)));
        assert_eq!(state.events, [("SCX_EV_A".to_string(), 3), ("SCX_EV_B".to_string(), -4)].into());
    }

    #[test]
    fn what_is_not_there_is_not_made_up() {
        let dir = system(&[("state", "disabled\n")]);
        let state = scx_state(dir.path()).unwrap();
        assert_eq!(state, SchedExtState { state: "disabled".into(), ..SchedExtState::default() });
        let why = scx_state(tempfile::tempdir().unwrap().path()).unwrap_err();
        assert!(why.contains("CONFIG_SCHED_CLASS_EXT"), "{why}");
    }
}
