//! A scheduler's life and end, without a kernel that has sched_ext.

use super::*;

fn alive(process: Process) -> Live {
    let report = SchedulerReport { name: "s".to_string(), ..SchedulerReport::default() };
    let now = Instant::now();
    Live { process: Some(process), disable: Vec::new(), report, stats: None, started: now, since: now }
}

/// Whatever the test does meanwhile, and once.
#[test]
fn an_end_is_noticed_while_nobody_asks() {
    let sink: LogSink = Arc::new(|_: &[u8]| {});
    let log = || Ok(format!("before\n{MARK}s\nafter\n"));
    let schedulers = GuestSchedulers::new(Vec::new(), Err("none".to_string()), log, Arc::clone(&sink));
    let script = ["-c".to_string(), "sleep 0.3; exit 7".to_string()];
    *schedulers.live() = Some(alive(Process::start("/bin/sh", &script, &sink).unwrap()));
    let told: Mutex<Vec<(String, Duration)>> = Mutex::default();
    let hear = |why: &str, at: Duration| told.lock().unwrap().push((why.to_string(), at));
    schedulers.watched(&hear, || {
        let deadline = Instant::now() + Duration::from_secs(20);
        while told.lock().unwrap().is_empty() {
            assert!(Instant::now() < deadline, "nothing was told");
            std::thread::sleep(LOOK);
        }
        std::thread::sleep(Duration::from_millis(250));
    });
    let told = told.into_inner().unwrap();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].0.starts_with("its program ended with exit code 7 in the middle"), "{told:?}");
    assert!(told[0].1 >= Duration::from_millis(200), "{told:?}");
    let report = schedulers.finish().remove(0);
    assert!(report.failed_after_ms.is_some_and(|ms| ms < 20_000), "{report:?}");
    assert_eq!(report.kernel_log, format!("{MARK}s\nafter\n"));
}

/// On a kernel without sched_ext nothing but the program's end can be told; where the log can't
/// be read either, that is part of the story.
#[test]
fn a_kernel_log_that_cannot_be_read_is_part_of_the_failure() {
    let sink: LogSink = Arc::new(|_: &[u8]| {});
    let unreadable = || Err(std::io::Error::from_raw_os_error(libc::EPERM));
    let schedulers = GuestSchedulers::new(Vec::new(), Err("none".to_string()), unreadable, Arc::clone(&sink));
    let process = Process::start("/bin/false", &[], &sink).unwrap();
    *schedulers.live() = Some(alive(process));
    let deadline = Instant::now() + Duration::from_secs(20);
    let failure = loop {
        match schedulers.failure() {
            Some(failure) => break failure,
            None => assert!(Instant::now() < deadline, "it has not ended"),
        }
        std::thread::sleep(LOOK);
    };
    assert!(failure.starts_with("its program ended with exit code 1"), "{failure}");
    assert!(failure.contains("reading it failed: Operation not permitted"), "{failure}");
}

/// Who looks at a crash by probes must see the scheduler as it is.
#[test]
fn a_scheduler_is_not_asked_while_probes_look_at_it() {
    let sink: LogSink = Arc::new(|_: &[u8]| {});
    let mut schedulers =
        GuestSchedulers::new(Vec::new(), Err("none".to_string()), || Ok(String::new()), Arc::clone(&sink));
    let script = "trap 'echo asked' USR2; echo ready; while :; do sleep 0.05; done";
    let process = Process::start("/bin/sh", &["-c".to_string(), script.to_string()], &sink).unwrap();
    *schedulers.live() = Some(alive(process));
    let said = |schedulers: &GuestSchedulers| {
        schedulers.live().as_mut().and_then(|live| live.process.as_mut()).unwrap().log_text()
    };
    let hear = |schedulers: &GuestSchedulers, word: &str| {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !said(schedulers).contains(word) {
            assert!(Instant::now() < deadline, "{:?}", said(schedulers));
            std::thread::sleep(LOOK);
        }
    };
    hear(&schedulers, "ready");
    let dir = tempfile::tempdir().unwrap();
    schedulers.probes = Some(Probes::arm(dir.path(), Vec::new(), Callbacks::default()));
    assert_eq!(schedulers.prompt(), None);
    schedulers.probes = None;
    assert_eq!(schedulers.prompt().unwrap(), "SIGUSR2 sent to the program of \"s\"");
    hear(&schedulers, "asked");
    assert_eq!(said(&schedulers).matches("asked").count(), 1);
    let process = schedulers.live().take().unwrap().process.unwrap();
    process.signal(libc::SIGKILL);
}

#[test]
fn what_was_started_before_the_test_has_a_negative_time() {
    let begun = Instant::now();
    let at = |ms| begun + Duration::from_millis(ms);
    assert_eq!((ms_between(begun, at(7)), ms_between(at(7), begun)), (7, -7));
}
