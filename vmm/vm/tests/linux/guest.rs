//! The guest: PID 1 of the machine under test.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Does what `guest_mode` on the kernel command line says, then powers off.
pub(crate) fn main() -> ! {
    for (kind, at) in [(c"proc", c"/proc"), (c"sysfs", c"/sys"), (c"devtmpfs", c"/dev")] {
        let _ = std::fs::create_dir(at.to_str().unwrap());
        // SAFETY: all pointers are terminated strings, data is none.
        unsafe { libc::mount(kind.as_ptr(), at.as_ptr(), kind.as_ptr(), 0, std::ptr::null()) };
    }
    let mode = std::env::var("guest_mode").unwrap_or_default();
    let mut data = port("ktstr.data");
    match mode.as_str() {
        "report" => data.write_all(report().as_bytes()).unwrap(),
        "echo" => echo(&mut data),
        "terminal" => terminal(&mut data),
        "spin" => spin(&mut data),
        "busy" => answer(&mut data, std::thread::available_parallelism().unwrap().get()),
        "idle" => answer(&mut data, 0),
        "clocks" => clocks(&mut data),
        "disk" => crate::disk::guest(&mut data, &mut port("ktstr.stdio")),
        // SAFETY: no pointers.
        "reboot" => unsafe {
            data.write_all(b"rebooting").unwrap();
            libc::reboot(libc::RB_AUTOBOOT);
        },
        "panic" => std::process::exit(1),
        other => println!("no such mode: {other:?}"),
    }
    // SAFETY: no pointers.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    unreachable!("powered off");
}

/// Opens a virtio console port by its name, once the driver has found it.
fn port(name: &str) -> File {
    let begin = Instant::now();
    loop {
        let ports = std::fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten();
        for port in ports {
            let named = std::fs::read_to_string(port.path().join("name")).unwrap_or_default();
            if named.trim() == name {
                let path = std::path::Path::new("/dev").join(port.file_name());
                return OpenOptions::new().read(true).write(true).open(path).unwrap();
            }
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "no port {name}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A megabyte out, a line in and back.
fn echo(data: &mut File) {
    let mut stdio = port("ktstr.stdio");
    let block: Vec<u8> = (0..1 << 20).map(|n| b'a' + (n % 26) as u8).collect();
    data.write_all(&block).unwrap();
    data.write_all(b"\nready\n").unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while stdio.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        line.extend(byte);
    }
    line.reverse();
    data.write_all(&line).unwrap();
}

/// Answers lines that are typed at the terminal, until one is `bye`.
fn terminal(data: &mut File) {
    let begin = Instant::now();
    let mut terminal = loop {
        match OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open("/dev/hvc0") {
            Ok(terminal) => break terminal,
            Err(e) => assert!(begin.elapsed() < Duration::from_secs(20), "no terminal: {e}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let mut line = [0; 100];
    loop {
        terminal.write_all(b"what? ").unwrap();
        // A terminal gives a line at a time.
        let length = terminal.read(&mut line).unwrap();
        let said = String::from_utf8_lossy(&line[..length]).trim().to_string();
        if said == "bye" {
            data.write_all(b"bye was said").unwrap();
            return;
        }
        let backwards: String = said.chars().rev().collect();
        terminal.write_all(format!("no: {backwards}\n").as_bytes()).unwrap();
    }
}

/// Keeps every CPU busy until the host sends something.
fn spin(data: &mut File) {
    let cpus = std::thread::available_parallelism().unwrap().get();
    for _ in 0..cpus {
        std::thread::spawn(|| {
            loop {
                std::hint::spin_loop();
            }
        });
    }
    data.write_all(b"spinning").unwrap();
    let mut stdio = port("ktstr.stdio");
    stdio.read_exact(&mut [0]).unwrap();
    data.write_all(b"done").unwrap();
}

/// Keeps so many CPUs busy with numbers in wide registers, and says how long it is up
/// whenever the host asks, once each of them has got on with right numbers.
fn answer(data: &mut File, cpus: usize) {
    let rounds: Arc<[AtomicU64]> = (0..cpus).map(|_| AtomicU64::new(0)).collect();
    for cpu in 0..cpus {
        let rounds = Arc::clone(&rounds);
        std::thread::spawn(move || {
            loop {
                let mut sums = [cpu as f64, 0.5, 0.25, 0.125];
                (0..1000).for_each(|n| sums.iter_mut().for_each(|sum| *sum += f64::from(n)));
                assert_eq!(sums, [cpu as f64, 0.5, 0.25, 0.125].map(|start| start + 499_500.0));
                rounds[cpu].fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    let mut stdio = port("ktstr.stdio");
    data.write_all(b"up and about\n").unwrap();
    let mut byte = [0];
    while stdio.read(&mut byte).unwrap() == 1 && byte != *b"." {
        let before: Vec<_> = rounds.iter().map(|r| r.load(Ordering::SeqCst)).collect();
        let begin = Instant::now();
        while rounds.iter().zip(&before).any(|(now, then)| now.load(Ordering::SeqCst) == *then) {
            assert!(begin.elapsed() < Duration::from_secs(20), "a CPU stands still");
            std::thread::sleep(Duration::from_millis(1));
        }
        let uptime = read("/proc/uptime").split_whitespace().next().unwrap_or("?").to_string();
        data.write_all(format!("up {uptime} s\n").as_bytes()).unwrap();
    }
}

/// Says what every clock shows on each CPU, one after the other, whenever the host asks.
fn clocks(data: &mut File) {
    let cpus = std::thread::available_parallelism().unwrap().get();
    let mut stdio = port("ktstr.stdio");
    data.write_all(b"up and about\n").unwrap();
    let mut byte = [0];
    while stdio.read(&mut byte).unwrap() == 1 && byte != *b"." {
        let mut line =
            format!("source {}", read("/sys/devices/system/clocksource/clocksource0/current_clocksource"));
        for cpu in 0..cpus {
            // SAFETY: an all-zero set is one, and as large as the call is told.
            unsafe {
                let mut set: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(cpu, &mut set);
                assert_eq!(libc::sched_setaffinity(0, size_of_val(&set), &raw const set), 0);
            }
            line.push_str(&format!(" monotonic {} scheduler {}", monotonic(), scheduler_clock()));
        }
        data.write_all(format!("{line} end of clocks\n").as_bytes()).unwrap();
    }
}

/// `CLOCK_MONOTONIC` in microseconds.
fn monotonic() -> i64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes a timespec.
    assert_eq!(unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) }, 0);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// The scheduler's clock in microseconds: what the kernel's log stamps a line with
/// (Documentation/ABI/testing/dev-kmsg).
fn scheduler_clock() -> i64 {
    // Without waiting: what was written is there.
    let mut log =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").unwrap();
    log.seek(SeekFrom::End(0)).unwrap();
    // Without the end of the line it could still be continued, and isn't there yet.
    log.write_all(b"<7>what time is it?\n").unwrap();
    let mut record = [0; 4096];
    let length = log.read(&mut record).unwrap();
    let record = String::from_utf8_lossy(&record[..length]).into_owned();
    record.split(',').nth(2).and_then(|stamp| stamp.parse().ok()).expect(&record)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map_or_else(|e| format!("({e})"), |text| text.trim().to_string())
}

/// What `/sys` tells of CPUs and nodes, one line each.
fn report() -> String {
    let mut text = format!("cpus {}\n", read("/sys/devices/system/cpu/online"));
    let mut cpu = 0;
    while std::fs::exists(format!("/sys/devices/system/cpu/cpu{cpu}")).unwrap_or(false) {
        let at = format!("/sys/devices/system/cpu/cpu{cpu}");
        let siblings = read(&format!("{at}/topology/thread_siblings_list"));
        let package = read(&format!("{at}/topology/package_cpus_list"));
        let llc = read(&format!("{at}/cache/index3/shared_cpu_list"));
        text.push_str(&format!("cpu {cpu} siblings {siblings} package {package} llc {llc}\n"));
        cpu += 1;
    }
    text.push_str(&format!("nodes {}\n", read("/sys/devices/system/node/online")));
    let mut node = 0;
    while std::fs::exists(format!("/sys/devices/system/node/node{node}")).unwrap_or(false) {
        let at = format!("/sys/devices/system/node/node{node}");
        let cpus = read(&format!("{at}/cpulist"));
        let distances = read(&format!("{at}/distance"));
        let total = read(&format!("{at}/meminfo"));
        let total = total.split_whitespace().nth(3).unwrap_or("?").to_string();
        text.push_str(&format!("node {node} cpus {cpus} distances {distances} kib {total}\n"));
        // As its nearest initiators see it (Documentation/admin-guide/mm/numaperf.rst).
        let speed = |name: &str| read(&format!("{at}/access0/initiators/{name}"));
        let speeds = ["read_latency", "write_latency", "read_bandwidth", "write_bandwidth"].map(speed);
        text.push_str(&format!("node {node} speeds {}\n", speeds.join(" ")));
        node += 1;
    }
    text.push_str("end of report\n");
    text
}
