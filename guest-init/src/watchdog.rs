//! A thread that ends the machine when the test takes too long or the process
//! crashes.
//!
//! It sleeps on an eventfd under the highest real-time priority, so that a test
//! that hogs every CPU can't keep it from speaking. Signal handlers may only make
//! async-signal-safe calls: they write to the eventfd and this thread does the rest.

use crate::{Channel, InitError, last_look, power_off, read_kmsg};
use ktstr_wire::Message;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::Duration;

/// `CLOCK_MONOTONIC` ms at which time is up; 0 means never.
static DEADLINE_MS: AtomicU64 = AtomicU64::new(0);
static GIVEN_MS: AtomicU64 = AtomicU64::new(0);
static EVENT: AtomicI32 = AtomicI32::new(-1);

pub(crate) fn arm(after: Duration) {
    let after = after.as_millis() as u64;
    GIVEN_MS.store(after, Ordering::SeqCst);
    DEADLINE_MS.store(now_ms() + after.max(1), Ordering::SeqCst);
    wake();
}

pub(crate) fn disarm() {
    DEADLINE_MS.store(0, Ordering::SeqCst);
    wake();
}

/// Has the thread look again. Async-signal-safe.
pub(crate) fn wake() {
    let one = 1u64;
    // SAFETY: writes 8 bytes from a live variable to an eventfd; a bad descriptor is
    // an error that changes nothing.
    unsafe { libc::write(EVENT.load(Ordering::SeqCst), (&raw const one).cast(), 8) };
}

/// Starts the thread; `crashed` is asked at every wake-up for a message that ends
/// the machine.
pub(crate) fn start(channel: Arc<Channel>, crashed: fn() -> Option<Message>) -> Result<(), InitError> {
    // SAFETY: eventfd(2) takes no pointers.
    let event = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if event < 0 {
        return Err(InitError::os("making the watchdog's eventfd")(std::io::Error::last_os_error()));
    }
    EVENT.store(event, Ordering::SeqCst);
    std::thread::Builder::new()
        .name("ktstr-watchdog".to_string())
        .spawn(move || watch(&channel, event, crashed))
        .map(drop)
        .map_err(InitError::os("starting the watchdog thread"))
}

fn watch(channel: &Channel, event: i32, crashed: fn() -> Option<Message>) {
    raise_priority();
    loop {
        wait(event);
        if let Some(message) = crashed() {
            end(channel, &message);
        }
        let deadline = DEADLINE_MS.load(Ordering::SeqCst);
        if deadline != 0 && now_ms() >= deadline {
            let after_ms = GIVEN_MS.load(Ordering::SeqCst);
            end(channel, &Message::TimedOut { after_ms, detail: whereabouts() });
        }
    }
}

fn end(channel: &Channel, message: &Message) -> ! {
    last_look::take(match message {
        Message::TimedOut { .. } => "when the test's time was up",
        _ => "when the test process was hit by a deadly signal",
    });
    // The machine ends whether or not the host hears why.
    let _ = channel.send(message);
    if let Ok(log) = read_kmsg() {
        let _ = channel.send_kmsg(log.as_bytes());
    }
    let _ = channel.send(&Message::Goodbye);
    power_off()
}

/// Sleeps until the eventfd is written or the deadline comes.
fn wait(event: i32) {
    let deadline = DEADLINE_MS.load(Ordering::SeqCst);
    let timeout = match deadline {
        0 => -1,
        d => i32::try_from(d.saturating_sub(now_ms())).unwrap_or(i32::MAX),
    };
    let mut fd = libc::pollfd { fd: event, events: libc::POLLIN, revents: 0 };
    let mut count = 0u64;
    // SAFETY: one pollfd and eight bytes, both live; an interrupted call returns early
    // and the caller looks at the clock again.
    unsafe {
        if libc::poll(&raw mut fd, 1, timeout) > 0 {
            libc::read(event, (&raw mut count).cast(), 8);
        }
    }
}

fn raise_priority() {
    let param = libc::sched_param { sched_priority: 99 };
    // SAFETY: sched_setscheduler(2) on the calling thread with a live parameter. Without
    // real-time scheduling the thread still works, only later under load.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const param) };
}

fn now_ms() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

/// What the kernel says of the main thread: state, CPU, system call, kernel stack.
fn whereabouts() -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/1/task/1/{name}")).unwrap_or_default();
    let stat = read("stat");
    // After the command name in parentheses: state is field 3, processor field 39 (proc(5)).
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split_whitespace().collect();
    let state = match fields.first().copied() {
        Some("R") => "running",
        Some("S") => "sleeping",
        Some("D") => "in uninterruptible sleep",
        Some(other) => other,
        None => "unknown",
    };
    let cpu = fields.get(36).copied().unwrap_or("?");
    let mut text = format!("the test function's thread is {state} (cpu{cpu})");
    let call = read("syscall");
    match call.split_whitespace().next() {
        Some("running") | None => {}
        Some(number) => text.push_str(&format!(", in system call {number}")),
    }
    let stack: Vec<String> = read("stack").lines().take(6).map(|l| format!("\n    {}", l.trim())).collect();
    text.push_str(&stack.concat());
    text
}
