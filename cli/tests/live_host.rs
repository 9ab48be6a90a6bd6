//! The kernel that a test runs on, looked into from inside: a guest is a running system, and we are root in it. What is
//! read is held against what the kernel says elsewhere: fdinfo, the text of its own trace, syslog(2), /proc.

mod common;

use ktstr::live_host::{
    KmsgReader, LiveHost, Recorder, Timeline, TimelineEvent, TimelineRecord, TracePoint, TraceRequest,
    parse_kmsg_window,
};
use ktstr::prelude::*;
use ktstr::snapshot::EntryView;
use std::collections::BTreeMap;
use std::io::{Seek, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

// The verifier sweep takes the fixture out of tests/schedulers.rs, once.
declare_scheduler!(FIXTURE, {
    name = "fixture",
    binary = "scx-fixture",
    ops = "fixture",
    verifier = false,
});

/// What the kernel says of a descriptor: `name:\tvalue` a line.
fn fdinfo(path: &std::path::Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let pair = |line: &str| line.split_once(':').map(|(n, v)| (n.trim().to_string(), v.trim().to_string()));
    Ok(text.lines().filter_map(pair).collect())
}

/// What the scheduler's own descriptors are, by the kernel's word.
fn descriptors(pid: i32) -> Result<Vec<BTreeMap<String, String>>> {
    let entries =
        std::fs::read_dir(format!("/proc/{pid}/fdinfo")).context("listing the scheduler's descriptors")?;
    // One that is closed meanwhile is none; those that stay are counted below.
    Ok(entries.filter_map(|entry| fdinfo(&entry.ok()?.path()).ok()).collect())
}

fn number(info: &BTreeMap<String, String>, name: &str) -> Result<u64> {
    let text = info.get(name).with_context(|| format!("no {name} in {info:?}"))?;
    text.parse().with_context(|| format!("{name} in {info:?}"))
}

/// Programs, maps and variables of a scheduler by bpf(2), against fdinfo of its own process.
#[ktstr_test(scheduler = FIXTURE, duration_s = 2)]
fn a_scheduler_is_read_by_system_calls(ctx: &Ctx) -> Result<AssertResult> {
    let mut result = execute_defs(ctx, vec![CgroupDef::named("cg_0").workers(3)])?;
    let pid = ctx.sched_pid.context("the scheduler's process")?;
    let host = LiveHost::new();
    let before = descriptors(pid)?;
    let now = host.snapshot("now");
    let (programs, maps) = (host.programs()?, host.maps()?);
    let after = descriptors(pid)?;
    let mut v = ctx.assert.verdict();

    claim!(v, now.kernel()?.problems.clone()).eq(Vec::<String>::new());
    let scx = now.scx_sched_state()?;
    claim!(v, (scx.state.as_str(), scx.ops.as_deref())).eq(("enabled", Some("fixture")));
    claim!(v, scx.enable_seq).eq(Some(1));

    let of = |all: &[BTreeMap<String, String>], kind: &str, id: u64| {
        all.iter().find(|info| number(info, kind).is_ok_and(|seen| seen == id)).cloned()
    };
    let mut seen_maps = 0;
    // A link names its map, too.
    for info in before.iter().filter(|info| info.contains_key("map_type")) {
        let id = number(info, "map_id")?;
        let map = maps.iter().find(|map| map.id == id).with_context(|| format!("map {id} of {info:?}"))?;
        let sizes = (number(info, "key_size")?, number(info, "value_size")?, number(info, "max_entries")?);
        claim!(v, (map.key_size, map.value_size, map.max_entries)).eq(sizes);
        seen_maps += 1;
    }
    claim!(v, seen_maps).at_least(4);
    let mut seen_programs = 0;
    for info in before.iter().filter(|info| info.contains_key("prog_type")) {
        let id = number(info, "prog_id")?;
        let program = programs.iter().find(|p| p.id == id).with_context(|| format!("program {id}"))?;
        claim!(v, program.kind.as_str()).eq("struct_ops");
        claim!(v, program.verified_insns).eq(Some(number(info, "verified_insns")?));
        let later = of(&after, "prog_id", id).context("the program is there still")?;
        claim!(v, program.run_count).at_least(number(info, "run_cnt")?);
        claim!(v, program.run_count).at_most(number(&later, "run_cnt")?);
        // What it implements is what it is named after.
        if !program.implements.is_empty() {
            claim!(v, program.name.ends_with(&program.implements)).eq(true);
            seen_programs += 1;
        }
    }
    claim!(v, seen_programs).at_least(5);

    // The accessors of any snapshot.
    claim!(v, now.var("config.slice_ns")?.as_u64()?).eq(20_000_000);
    claim!(v, now.live_var("config.user_tgid")?.as_i64()?).eq(i64::from(pid));
    let tasks = now.active()?.map("tasks")?;
    let is_loader =
        |entry: &EntryView<'_>| entry.key().get("comm").is_ok_and(|comm| comm.as_str() == Ok("scx-fixture"));
    claim!(v, tasks.find(is_loader)?.key().get("pid")?.as_i64()?).eq(i64::from(pid));
    claim!(v, now.map("no_such").is_err()).eq(true);
    // A thread of the scheduler's class, by the kernel's word on it.
    let loader = now.kernel()?.tasks.iter().find(|task| task.pid == i64::from(pid)).context("its thread")?;
    claim!(v, (loader.comm.as_str(), loader.class.as_str())).eq(("scx-fixture", "ext"));
    result.merge(v.into_result());
    Ok(result)
}

/// This thread's number, and a line of its `status` or `sched`.
fn tid() -> i32 {
    // SAFETY: a system call without pointers.
    unsafe { libc::gettid() }
}

fn figure(file: &str, name: &str) -> Result<u64> {
    let path = format!("/proc/self/task/{}/{file}", tid());
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix(':'));
    let value = value.and_then(|value| value.trim().parse().ok());
    value.with_context(|| format!("no {name} in {path}:\n{text}"))
}

fn stay_on(cpu: usize) -> Result<()> {
    // SAFETY: a set of CPUs is plain bits; the call reads it.
    let result = unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set)
    };
    ensure!(result == 0, "going to CPU {cpu}: {}", std::io::Error::last_os_error());
    Ok(())
}

/// Sleeps and moves, so that both are known by number.
fn sleep_and_move(times: usize) -> Result<(u64, u64)> {
    stay_on(0)?;
    let before = (figure("status", "voluntary_ctxt_switches")?, figure("sched", "se.nr_migrations")?);
    for turn in 0..times {
        std::thread::sleep(Duration::from_millis(1));
        stay_on(1 - turn % 2)?;
    }
    let after = (figure("status", "voluntary_ctxt_switches")?, figure("sched", "se.nr_migrations")?);
    Ok((after.0 - before.0, after.1 - before.1))
}

/// One of a lower priority holds a lock that lends priorities, until one of a higher waits for it.
fn lend_a_priority(rt_priority: i32) -> Result<i32> {
    struct Shared(std::cell::UnsafeCell<libc::pthread_mutex_t>);
    // SAFETY: a mutex is there to be shared.
    unsafe impl Sync for Shared {}
    // SAFETY: initialized below before anybody uses it.
    let mutex = Shared(std::cell::UnsafeCell::new(unsafe { std::mem::zeroed() }));
    // SAFETY: attributes and mutex outlive the calls.
    let made = unsafe {
        let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
        libc::pthread_mutexattr_init(&raw mut attributes);
        libc::pthread_mutexattr_setprotocol(&raw mut attributes, libc::PTHREAD_PRIO_INHERIT);
        libc::pthread_mutex_init(mutex.0.get(), &raw const attributes)
    };
    ensure!(made == 0, "making a mutex that lends priorities: error {made}");
    let (held, waits) = (AtomicBool::new(false), AtomicBool::new(false));
    let mutex = &mutex;
    std::thread::scope(|scope| {
        let owner = scope.spawn(|| {
            // SAFETY: the mutex is initialized and outlives the scope.
            unsafe { libc::pthread_mutex_lock(mutex.0.get()) };
            held.store(true, Ordering::Release);
            let deadline = Instant::now() + Duration::from_secs(20);
            // Its own priority is the kernel's word that it was lent one.
            let lent = || figure("sched", "prio").is_ok_and(|prio| prio < 100);
            while !(waits.load(Ordering::Acquire) && lent()) && Instant::now() < deadline {
                std::thread::yield_now();
            }
            // SAFETY: as above, and this thread holds it.
            unsafe { libc::pthread_mutex_unlock(mutex.0.get()) };
            tid()
        });
        while !held.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let waiter = scope.spawn(|| {
            let parameter = libc::sched_param { sched_priority: rt_priority };
            waits.store(true, Ordering::Release);
            // SAFETY: the parameter outlives the call; the mutex as above.
            unsafe {
                libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameter);
                libc::pthread_mutex_lock(mutex.0.get());
                libc::pthread_mutex_unlock(mutex.0.get());
            }
        });
        waiter.join().map_err(|_| anyhow!("the waiting thread panicked"))?;
        owner.join().map_err(|_| anyhow!("the owning thread panicked"))
    })
}

/// Two threads write to one file until the kernel has said that one waited for the other: at most 20 s.
fn fight_for_a_file(trace: &std::path::Path) -> Result<()> {
    let path = "/tmp/fought_for";
    let over = AtomicBool::new(false);
    let write = |cpu| -> Result<()> {
        stay_on(cpu)?;
        let mut file = std::fs::File::create(path)?;
        let bytes = vec![7; 1 << 20];
        while !over.load(Ordering::Relaxed) {
            file.rewind()?;
            file.write_all(&bytes)?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let both = [scope.spawn(|| write(0)), scope.spawn(|| write(1))];
        let deadline = Instant::now() + Duration::from_secs(20);
        let seen = || {
            std::fs::read_to_string(trace.join("trace")).is_ok_and(|text| text.contains("contention_end:"))
        };
        while !seen() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        both.into_iter().try_for_each(|one| one.join().map_err(|_| anyhow!("a writing thread panicked"))?)
    })
}

/// As the text tells it: microseconds, rounded (`ns2usecs`), and addresses of locks disguised.
fn as_text(record: &TimelineRecord) -> TimelineRecord {
    let mut record = record.clone();
    record.at_ns = (record.at_ns + 500) / 1000 * 1000;
    match &mut record.event {
        TimelineEvent::LockBegin { lock, .. } | TimelineEvent::LockEnd { lock, .. } => *lock = 0,
        _ => {}
    }
    record
}

fn of_cpu(timeline: &Timeline, cpu: u32) -> Vec<TimelineRecord> {
    timeline.records.iter().filter(|record| record.cpu == cpu).map(as_text).collect()
}

/// Each kind of event happens, and is in the timeline as the kernel's own text of the same buffer has it.
#[ktstr_test(cores = 2, memory_mib = 512)]
fn what_a_scheduler_does_is_traced(ctx: &Ctx) -> Result<AssertResult> {
    let mut v = ctx.assert.verdict();
    let recorder = Recorder::start(&TraceRequest { buffer_kib: 8192, ..TraceRequest::default() })?;
    let instance = recorder.instance().to_path_buf();
    let begin = monotonic_ns();
    let (switches, migrations) = sleep_and_move(20)?;
    let owner = lend_a_priority(10)?;
    fight_for_a_file(&instance)?;
    let end = monotonic_ns();
    recorder.pause()?;
    let text = std::fs::read_to_string(instance.join("trace")).context("reading the trace as text")?;
    let timeline = recorder.finish()?;

    // The second source: what the kernel makes of its buffer itself.
    claim!(v, timeline.problems.clone()).eq(Vec::<String>::new());
    ensure!(timeline.lost.is_empty(), "8 MiB were too few: {:?}", timeline.lost);
    let by_kernel = Timeline::parse_text(&text);
    claim!(v, by_kernel.problems.clone()).eq(Vec::<String>::new());
    for cpu in 0..2 {
        let (ours, theirs) = (of_cpu(&timeline, cpu), of_cpu(&by_kernel, cpu));
        let first = ours.iter().zip(&theirs).find(|(a, b)| a != b);
        ensure!(first.is_none(), "cpu{cpu}: ours is the first of {first:#?}");
        claim!(v, ours.len()).eq(theirs.len());
    }
    let ordered = timeline.records.is_sorted_by_key(|record| record.at_ns);
    claim!(v, ordered).eq(true);
    // Its clock is the one that user space has.
    let times = timeline.records.iter().map(|record| record.at_ns);
    claim!(v, times.clone().filter(|at| (begin..=end).contains(at)).count())
        .at_least(timeline.records.len() / 2);

    // The third: counters of the thread.
    let own = tid();
    let slept = |record: &&TimelineRecord| {
        matches!(&record.event, TimelineEvent::Switch { prev, prev_state, .. }
            if prev.pid == own && !prev_state.starts_with('R'))
    };
    let counted = timeline.between(begin, end).records.iter().filter(slept).count() as u64;
    claim!(v, counted).at_least(switches);
    let moves = |record: &&TimelineRecord| matches!(&record.event, TimelineEvent::Migrate { task, .. } if task.pid == own);
    claim!(v, timeline.records.iter().filter(moves).count() as u64).at_least(migrations);
    claim!(v, migrations).at_least(20);
    // SCHED_FIFO 10 is priority 89 to the kernel.
    let lent = |record: &&TimelineRecord| matches!(&record.event, TimelineEvent::PiBoost { task, new_prio: 89 } if task.pid == owner);
    claim!(v, timeline.records.iter().filter(lent).count()).at_least(1);
    claim!(v, timeline.lock_waits().len()).at_least(1);
    claim!(v, timeline.wakeup_delays().iter().filter(|wait| wait.pid == own).count()).at_least(10);
    claim!(v, timeline.of_pid(own).records.len()).at_most(timeline.records.len());
    claim!(v, instance.exists()).eq(false);
    Ok(v.into_result())
}

fn monotonic_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a place for the time.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

fn instances() -> Result<Vec<String>> {
    let folder = std::fs::read_dir("/sys/kernel/tracing/instances").context("listing trace instances")?;
    folder.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

/// What a small ring does not hold is told; one CPU and one thread are recorded alone; a recorder that is killed leaves
/// nothing behind.
#[ktstr_test(cores = 2)]
fn a_trace_is_bounded_and_leaves_nothing_behind(ctx: &Ctx) -> Result<AssertResult> {
    let mut v = ctx.assert.verdict();
    let small = TraceRequest { buffer_kib: 16, max_records: 50, ..TraceRequest::default() };
    let recorder = Recorder::start(&small)?;
    let path = recorder.instance().to_path_buf();
    sleep_and_move(600)?;
    recorder.pause()?;
    let overrun = |cpu: u32| -> Result<u64> {
        let info = fdinfo(&path.join(format!("per_cpu/cpu{cpu}/stats")))?;
        Ok(number(&info, "overrun")? + number(&info, "commit overrun")? + number(&info, "dropped events")?)
    };
    let expected = overrun(0)? + overrun(1)?;
    let timeline = recorder.finish()?;
    claim!(v, expected).at_least(1);
    claim!(v, timeline.lost.iter().filter_map(|lost| lost.records).sum::<u64>()).eq(expected);
    claim!(v, (timeline.records.len(), timeline.left_out > 0)).eq((50, true));

    let own = tid();
    let narrow = TraceRequest {
        cpus: Some(CpuSet::from([1])),
        pids: vec![own],
        points: vec![TracePoint::Switch],
        ..TraceRequest::default()
    };
    let recorder = Recorder::start(&narrow)?;
    sleep_and_move(20)?;
    let timeline = recorder.finish()?;
    let fits = |record: &TimelineRecord| record.cpu == 1 && record.is_about(own);
    claim!(v, timeline.records.len()).at_least(10);
    claim!(v, timeline.records.iter().all(fits)).eq(true);
    claim!(v, timeline.count(TracePoint::Switch)).eq(timeline.records.len());

    // SAFETY: the child is the only thread of its process; it records until it is killed.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let recorder = Recorder::start(&TraceRequest::default());
        while recorder.is_ok() {
            std::thread::sleep(Duration::from_secs(1));
        }
        // SAFETY: the end of a child that could not record.
        unsafe { libc::_exit(1) };
    }
    wait_until("the child records", || Ok(!instances()?.is_empty()))?;
    // SAFETY: a child of ours, and no place for its status.
    unsafe {
        libc::kill(child, libc::SIGKILL);
        libc::waitpid(child, std::ptr::null_mut(), 0);
    }
    wait_until("its instance is gone", || Ok(instances()?.is_empty()))?;
    Ok(v.into_result())
}

fn wait_until(what: &str, is: impl Fn() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is()? {
        ensure!(Instant::now() < deadline, "20 s went by before {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// The log as syslog(2) gives it: `<level>[time] text`.
fn syslog() -> Result<String> {
    const SIZE: i32 = 1 << 20;
    let mut buffer = vec![0u8; SIZE as usize];
    // SAFETY: SYSLOG_ACTION_READ_ALL fills a buffer of that size.
    let read = unsafe { libc::klogctl(3, buffer.as_mut_ptr().cast(), SIZE) };
    ensure!(read >= 0, "syslog(2): {}", std::io::Error::last_os_error());
    buffer.truncate(read as usize);
    Ok(String::from_utf8_lossy(&buffer).into_owned())
}

fn say(text: &str) -> Result<()> {
    let mut device =
        std::fs::OpenOptions::new().write(true).open("/dev/kmsg").context("opening /dev/kmsg")?;
    // Without its end a line is not there for readers: more of it might come.
    device.write_all(format!("{text}\n").as_bytes()).context("writing to /dev/kmsg")
}

/// The device and syslog(2) tell the same, and a window holds what was said in it.
#[ktstr_test]
fn the_kernels_log_is_cut_to_a_window(ctx: &Ctx) -> Result<AssertResult> {
    let mut v = ctx.assert.verdict();
    let always = (Duration::ZERO, Duration::from_secs(u64::MAX));
    say("<6>live: before")?;
    let mut reader = KmsgReader::from_now()?;
    say("<4>live: first")?;
    say("<3>live: caf\u{e9} \\ and more")?;
    say("<5>live: last")?;
    let news = reader.read(1 << 20)?;
    let seen = parse_kmsg_window(&news.text, always.0, always.1);
    let texts: Vec<&str> = seen.containing("live: ").map(|record| record.text.as_str()).collect();
    claim!(v, texts.join("; ")).eq("live: first; live: caf\u{e9} \\ and more; live: last".to_string());
    let levels: Vec<&str> =
        seen.containing("live: ").filter_map(|r| r.level).map(ktstr::live_host::KmsgLevel::name).collect();
    claim!(v, levels.join(" ")).eq("warn err notice".to_string());
    claim!(v, seen.containing("live: ").all(|record| record.facility == Some(1))).eq(true);

    let all = KmsgReader::from_oldest()?.read(16 << 20)?;
    claim!(v, (all.gaps, all.truncated)).eq((0, false));
    let by_device = parse_kmsg_window(&all.text, always.0, always.1);
    let by_syslog = parse_kmsg_window(&syslog()?, always.0, always.1);
    let lines = |window: &ktstr::live_host::KmsgWindow| -> Vec<String> {
        let of = |record: &ktstr::live_host::KmsgRecord| {
            let head = format!("{:?} {:?} {:?}", record.at, record.level, record.facility);
            record.text.lines().map(move |line| format!("{head} {line}")).collect::<Vec<_>>()
        };
        window.records.iter().flat_map(of).collect()
    };
    let (ours, theirs) = (lines(&by_device), lines(&by_syslog));
    let first = ours.iter().zip(&theirs).find(|(a, b)| a != b);
    ensure!(first.is_none(), "the device's line, then syslog's: {first:#?}");
    // The kernel may have said more meanwhile.
    claim!(v, theirs.len()).at_least(ours.len());
    claim!(v, by_syslog.undated).eq(0);

    let at = |text: &str| {
        let found = by_device.containing(text).last().map(|record| record.at);
        found.with_context(|| format!("no {text:?} in the log:\n{}\n{}", all.text, news.text))
    };
    let window = parse_kmsg_window(&all.text, at("live: first")?, at("live: last")?);
    claim!(v, window.containing("live: ").count()).eq(3);
    claim!(v, window.containing("live: before").count()).eq(0);
    claim!(v, window.before + window.records.len() + window.after).eq(by_device.records.len());
    Ok(v.into_result())
}

/// What the kernel shows of itself, against uname(2); its memory, where it shows that, against /proc.
#[ktstr_test(cores = 2, memory_mib = 512)]
fn a_kernel_shows_its_sources_or_says_why_not(ctx: &Ctx) -> Result<AssertResult> {
    let mut v = ctx.assert.verdict();
    let host = LiveHost::new();
    let sources = host.sources();
    // SAFETY: a structure of plain characters, which the call fills.
    let release = unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        ensure!(libc::uname(&raw mut names) == 0);
        std::ffi::CStr::from_ptr(names.release.as_ptr()).to_string_lossy().into_owned()
    };
    claim!(v, sources.release.clone()?).eq(release);
    claim!(v, sources.types.clone()?.display().to_string()).eq("/sys/kernel/btf/vmlinux".to_string());
    claim!(v, sources.build_id.clone()?.len()).eq(40);
    let why = sources.vmlinux.as_ref().err().map(ToString::to_string).context("a guest has no vmlinux")?;
    claim!(v, why.contains("none of the usual places")).eq(true);
    claim!(v, sources.symbols.clone()?).at_least(10_000);
    claim!(v, host.symbol("schedule")? >> 63).eq(1);
    let shown = std::path::Path::new("/proc/kcore").exists();
    let mut result = match (host.memory(), shown) {
        (Ok(memory), true) => {
            let ctxt = || -> Result<u64> {
                let text = std::fs::read_to_string("/proc/stat")?;
                let line = text.lines().find_map(|line| line.strip_prefix("ctxt ")).context("switches")?;
                Ok(line.parse()?)
            };
            let before = ctxt()?;
            let values = memory.values(&["runqueues[*].nr_switches", "init_task.comm", "no_such_variable"]);
            let after = ctxt()?;
            let of = |path: &str| values.get(path).cloned().context("a reading")?.map_err(|why| anyhow!(why));
            let sum = of("runqueues[0].nr_switches")?.as_u64()? + of("runqueues[1].nr_switches")?.as_u64()?;
            claim!(v, sum).at_least(before);
            claim!(v, sum).at_most(after);
            claim!(v, of("init_task.comm")?.as_str()?).eq("swapper/0");
            claim!(v, of("no_such_variable").is_err()).eq(true);
            let snapshot = host.snapshot("now");
            let state = snapshot.kernel()?;
            claim!(v, state.runqueues.len()).eq(2);
            let own = state.tasks.iter().find(|task| task.pid == i64::from(tid())).context("this thread")?;
            claim!(v, own.tgid).eq(i64::from(std::process::id()));
            v.into_result()
        }
        (Ok(_), false) => bail!("memory was read that nobody shows"),
        (Err(why), true) => bail!("/proc/kcore is there: {why}"),
        (Err(why), false) => {
            claim!(v, why.to_string().contains("CONFIG_PROC_KCORE=y")).eq(true);
            let snapshot = host.snapshot("now");
            claim!(v, snapshot.kernel()?.left_out[0].contains("CONFIG_PROC_KCORE=y")).eq(true);
            v.into_result()
        }
    };
    result.note(format!("the kernel's memory was {}", if shown { "read" } else { "not shown" }));
    Ok(result)
}

/// The distribution's kernel shows its memory.
#[test]
fn the_stock_kernel_is_read_in_its_own_memory() {
    let image = common::stock_image();
    let name = "a_kernel_shows_its_sources_or_says_why_not";
    let output = common::run(name, &[("KTSTR_TEST_KERNEL", &image), ("KTSTR_LOG_PASSES", "1")]);
    assert_eq!(output.code, Some(0), "{}", output.text);
    assert!(output.text.contains("the kernel's memory was read"), "{}", output.text);
}

#[test]
fn inspect_tells_what_this_machine_shows_and_what_not() {
    let inspect = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_ktstr"));
        let output = command.args(["inspect", "--live"]).args(arguments).output().expect("running ktstr");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    let own = std::process::id().to_string();
    let (done, text) = inspect(&["--tasks"]);
    // Where memory can be read by us, all that it tells is tested in guests.
    if std::path::Path::new("/proc/kcore").exists() {
        return;
    }
    assert!(done && text.lines().any(|line| line.split_whitespace().nth(1) == Some(&own)), "{text}");
    let (done, text) = inspect(&["jiffies"]);
    assert!(!done && text.contains("jiffies: the kernel's memory can't be read"), "{text}");
    let (done, text) = inspect(&[]);
    assert!(done && text.contains("\nsched_ext ") && text.contains("CONFIG_PROC_KCORE=y"), "{text}");
    let (done, text) = inspect(&["--dsqs"]);
    assert!(!done && text.contains("--dsqs is read in the kernel's memory"), "{text}");
    let (done, text) = inspect(&["--list"]);
    assert!(!done && text.contains("cannot be used with"), "{text}");
}
