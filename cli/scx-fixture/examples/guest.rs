//! PID 1 of the machine that `in_vm` boots: workers in two cgroups, scx-fixture, and what
//! the kernel says.
//!
//! `/plan` has one word a line: what to disturb (`nothing`, `cpuset`, `affinity`,
//! `hotplug`, `second` scheduler), for how many seconds to let it run, then the arguments of scx-fixture.

use std::fs;
use std::io::{self, Write};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

const STATE: &str = "/sys/kernel/sched_ext/state";
const CGROUPS: [&str; 2] = ["cg_0", "cg_1"];

fn main() {
    // The kernel passes on what it doesn't know of its command line.
    let args: Vec<_> = std::env::args().collect();
    if let [_, word, name] = args.as_slice()
        && word == "work"
    {
        work(name);
    }
    if let Err(error) = scenario() {
        println!("guest: {error}");
    }
    let _ = io::stdout().flush();
    // SAFETY: no arguments; as PID 1 this ends the machine.
    unsafe {
        libc::sync();
        libc::reboot(libc::RB_POWER_OFF);
    }
}

fn scenario() -> io::Result<()> {
    for (fs, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("cgroup2", "/sys/fs/cgroup"),
        ("tracefs", "/sys/kernel/tracing"),
    ] {
        mount(fs, at)?;
    }
    let plan = fs::read_to_string("/plan")?;
    let mut words = plan.lines();
    let disturb = words.next().unwrap_or_default();
    let seconds: u64 = words.next().and_then(|word| word.parse().ok()).unwrap_or(5);
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpuset +cpu")?;
    let dump_event = "/sys/kernel/tracing/events/sched_ext/sched_ext_dump/enable";
    println!("guest: sched_ext_dump event: {:?}", fs::write(dump_event, "1"));
    fs::write("/proc/sys/kernel/bpf_stats_enabled", "1")?;
    let mut workers = Vec::new();
    for cgroup in CGROUPS {
        fs::create_dir(format!("/sys/fs/cgroup/{cgroup}"))?;
        for number in 0..3 {
            workers.push(Command::new("/init").arg("work").arg(format!("{cgroup}/{number}")).spawn()?);
        }
    }
    let args: Vec<_> = words.collect();
    let stays = args.contains(&"--daemonize");
    let mut fixture = Command::new("/bin/scx-fixture").args(&args).spawn()?;
    let status = follow(&mut fixture, Duration::from_secs(seconds), stays, disturb, &workers)?;
    println!("guest: scx-fixture ended: {status}");
    tell(STATE);
    for cgroup in CGROUPS {
        let stat = fs::read_to_string(format!("/sys/fs/cgroup/{cgroup}/cpu.stat"))?;
        println!("guest: {cgroup}: {}", stat.lines().next().unwrap_or_default());
    }
    tell("/sys/kernel/sched_ext/nr_rejected");
    tell("/sys/kernel/sched_ext/enable_seq");
    println!("guest: trace:\n{}guest: end of trace", fs::read_to_string("/sys/kernel/tracing/trace")?);
    for mut worker in workers {
        worker.kill()?;
        worker.wait()?;
    }
    Ok(())
}

/// Until the scheduler ends (unless it `stays` in the background), or for so long and then
/// until it obeys SIGTERM.
fn follow(
    fixture: &mut Child,
    at_most: Duration,
    stays: bool,
    disturb: &str,
    workers: &[Child],
) -> io::Result<ExitStatus> {
    let started = Instant::now();
    let (mut seen, mut enabled_at) = (String::new(), None);
    let (mut disturbed, mut asked) = (false, None);
    loop {
        let state = fs::read_to_string(STATE).unwrap_or_else(|error| error.to_string());
        if state != seen {
            let ops = fs::read_to_string("/sys/kernel/sched_ext/root/ops").unwrap_or_default();
            println!("guest: {:>5} ms: {} {}", started.elapsed().as_millis(), state.trim(), ops.trim());
            if state.trim() == "enabled" {
                enabled_at = Some(Instant::now());
            }
            seen = state;
        }
        if let Some(status) = fixture.try_wait()?
            && (!stays || started.elapsed() > at_most)
        {
            return Ok(status);
        }
        if !disturbed && enabled_at.is_some_and(|at| at.elapsed() > Duration::from_millis(1000)) {
            disturbed = true;
            println!("guest: {:>5} ms: disturbing {disturb}", started.elapsed().as_millis());
            self::disturb(disturb, workers)?;
        }
        match asked {
            None if started.elapsed() > at_most => {
                programs(fixture.id());
                println!("guest: {:>5} ms: asking for the end", started.elapsed().as_millis());
                // SAFETY: a signal to a child that has not been waited for.
                unsafe { libc::kill(fixture.id() as i32, libc::SIGTERM) };
                asked = Some(Instant::now());
            }
            Some(at) if at.elapsed() > Duration::from_secs(5) => {
                println!("guest: it did not end within 5 s; killing it");
                fixture.kill()?;
                asked = Some(Instant::now());
            }
            _ => {}
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the kernel says of the scheduler's BPF programs: how much the verifier looked at,
/// how often they ran and for how long.
fn programs(pid: u32) {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
        let info = fs::read_to_string(entry.path()).unwrap_or_default();
        let value =
            |key: &str| info.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        if let (Some(id), Some(insns)) = (value("prog_id:"), value("verified_insns:")) {
            let (count, time) = (value("run_cnt:").unwrap_or(0), value("run_time_ns:").unwrap_or(0));
            println!("guest: program {id}: {insns} insns verified, ran {count} times, {time} ns");
        }
    }
}

fn disturb(what: &str, workers: &[Child]) -> io::Result<()> {
    match what {
        "cpuset" => {
            for cpu in ["0", "1", "0", "1"] {
                fs::write("/sys/fs/cgroup/cg_1/cpuset.cpus", cpu)?;
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        "affinity" => {
            // SAFETY: an all-zero cpu_set_t is an empty one.
            let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
            // SAFETY: CPU 1 is within the set.
            unsafe { libc::CPU_SET(1, &mut set) };
            for worker in workers {
                // SAFETY: the set lives through the call.
                unsafe { libc::sched_setaffinity(worker.id() as i32, size_of_val(&set), &set) };
            }
        }
        "hotplug" => {
            fs::write("/sys/devices/system/cpu/cpu1/online", "0")?;
            std::thread::sleep(Duration::from_millis(500));
            fs::write("/sys/devices/system/cpu/cpu2/online", "0")?;
            std::thread::sleep(Duration::from_millis(500));
            fs::write("/sys/devices/system/cpu/cpu2/online", "1")?;
        }
        "second" => {
            let second = Command::new("/bin/scx-fixture").args(["--name", "second"]).status()?;
            println!("guest: a second scheduler: {second}");
        }
        _ => {}
    }
    Ok(())
}

/// Computes and sleeps in turn, in its cgroup.
fn work(name: &str) -> ! {
    let cgroup = name.split('/').next().unwrap_or_default();
    if let Err(error) = fs::write(format!("/sys/fs/cgroup/{cgroup}/cgroup.procs"), "0") {
        println!("guest: {name}: {error}");
    }
    // exec gave all workers the name `init`.
    let comm = format!("w_{}\0", name.replace('/', "_"));
    // SAFETY: the name ends with a zero.
    unsafe { libc::prctl(libc::PR_SET_NAME, comm.as_ptr()) };
    loop {
        let until = Instant::now() + Duration::from_millis(60);
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn tell(path: &str) {
    let text = fs::read_to_string(path);
    println!("guest: {path}: {}", text.as_deref().map_or("unreadable", str::trim));
}

fn mount(fs: &str, at: &str) -> io::Result<()> {
    if !at.starts_with("/sys/") {
        fs::create_dir_all(at)?;
    }
    let (name, target) = (format!("{fs}\0"), format!("{at}\0"));
    // SAFETY: all texts end with a zero; no data.
    let result = unsafe {
        libc::mount(name.as_ptr().cast(), target.as_ptr().cast(), name.as_ptr().cast(), 0, std::ptr::null())
    };
    match result {
        0 => Ok(()),
        // devtmpfs may be mounted already.
        _ if io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY) => Ok(()),
        _ => Err(io::Error::other(format!("mounting {fs} on {at}: {}", io::Error::last_os_error()))),
    }
}
