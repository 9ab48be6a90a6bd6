//! How a guest says what went wrong: to the host over the data port; where that fails, or isn't there yet, in words
//! over the second serial port; and where there is none either, on the console.

use crate::Channel;
use ktstr_wire::Message;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Arc, OnceLock};

/// The second serial port. Linux has files of ports that no machine has, too: those can't be opened.
const SECOND_SERIAL: &str = "/dev/ttyS1";
/// Bytes that are said at once. Each costs an exit of the guest, and what the host keeps is bounded, too.
const MOST: usize = 16 << 10;
/// `TCSBRK` with an argument waits until all was sent (tcdrain(3)), and sends no break.
const DRAIN: libc::c_int = 1;

static CHANNEL: OnceLock<Arc<Channel>> = OnceLock::new();

/// From here on the data port comes first.
pub(crate) fn connected(channel: &Arc<Channel>) {
    // Only the first call counts, and there is one.
    let _ = CHANNEL.set(Arc::clone(channel));
}

/// Tells the host over the data port, or says it in words.
pub(crate) fn report(message: &Message) {
    let sent = CHANNEL.get().is_some_and(|channel| channel.send(message).is_ok());
    if !sent && let Some(text) = in_words(message) {
        last_words(&text);
    }
}

/// Says it over the second serial port, or on the console, past standard output. To be used where the data port
/// has failed: the host shows it as the guest's last words.
pub fn last_words(text: &str) {
    let text = bounded(text);
    if !over_the_second_serial_port(text) {
        on_the_console(text);
    }
}

/// Says it on standard error, which goes through the same device as the data port, or in last words.
pub fn complain(text: &str) {
    // `eprintln!` would panic where standard error is gone.
    if writeln!(std::io::stderr(), "{text}").is_err() {
        last_words(text);
    }
}

/// False if there is no such port, or it takes nothing.
fn over_the_second_serial_port(text: &str) -> bool {
    let port = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open(SECOND_SERIAL);
    port.is_ok_and(|mut port| {
        let written = writeln!(port, "{text}").is_ok();
        // The machine may be powered off next; a port that can't wait has sent what it could.
        drain(&port);
        written
    })
}

fn on_the_console(text: &str) {
    if let Ok(mut console) = OpenOptions::new().write(true).custom_flags(libc::O_NOCTTY).open("/dev/console")
    {
        // Nobody is left to tell.
        let _ = writeln!(console, "{text}");
    }
}

fn drain(port: &File) {
    // SAFETY: an ioctl(2) on an open descriptor that takes a number.
    unsafe { libc::ioctl(port.as_raw_fd(), libc::TCSBRK, DRAIN) };
}

fn bounded(text: &str) -> &str {
    let end = (0..=MOST.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// What a report says, the most important last; `None` for what is no report.
fn in_words(message: &Message) -> Option<String> {
    match message {
        Message::Panic { message, location, backtrace } => {
            let place = location.as_deref().map(|at| format!(" at {at}")).unwrap_or_default();
            let trace = bounded(backtrace).trim_end();
            let trace = if trace.is_empty() { String::new() } else { format!("{trace}\n") };
            Some(format!("{trace}ktstr: the test process panicked{place}: {message}"))
        }
        Message::FatalSignal { signo, address, ip, thread } => Some(format!(
            "ktstr: the test process was hit by signal {signo} in thread {thread:?} at ip {ip:#x}, address \
             {address:#x}"
        )),
        Message::TimedOut { after_ms, detail } => Some(format!(
            "ktstr: the test function did not return within {after_ms} ms of guest time: {detail}"
        )),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_with_where_and_what() {
        let panic = |backtrace: &str| Message::Panic {
            message: "left: 1\nright: 2".into(),
            location: Some("t.rs:3:5".into()),
            backtrace: backtrace.into(),
        };
        let told = "ktstr: the test process panicked at t.rs:3:5: left: 1\nright: 2";
        assert_eq!(in_words(&panic("")).unwrap(), told);
        assert_eq!(in_words(&panic("0: main\n1: start\n")).unwrap(), format!("0: main\n1: start\n{told}"));
        let long = in_words(&panic(&"frame\n".repeat(100_000))).unwrap();
        assert!(long.ends_with(told) && long.len() < MOST + 200, "{} bytes", long.len());
    }

    #[test]
    fn signals_and_deadlines_are_told_and_stages_are_not() {
        let signal = Message::FatalSignal { signo: 11, address: 0x10, ip: 0x20, thread: "main".into() };
        let told = in_words(&signal).unwrap();
        assert!(told.contains("signal 11 in thread \"main\" at ip 0x20, address 0x10"), "{told}");
        let late = Message::TimedOut { after_ms: 1500, detail: "it sleeps (cpu0)".into() };
        assert!(in_words(&late).unwrap().contains("within 1500 ms of guest time: it sleeps (cpu0)"));
        assert_eq!(in_words(&Message::Goodbye), None);
        assert_eq!(in_words(&Message::Kmsg(b"x".to_vec())), None);
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        let long = "ä".repeat(MOST);
        assert!(bounded(&long).len() <= MOST && bounded(&long).chars().all(|c| c == 'ä'));
        assert_eq!(bounded("short"), "short");
    }
}
