//! Workers that wake each other: futex pairs, pipe pairs, one to many.
//!
//! The waker writes the time into shared memory right before it wakes; the time from
//! there to the wakee's first look at the clock is the wake-up latency.

use crate::meter::Meter;
use crate::setup::{StepError, StepKind};
use crate::shm::GroupBlock;
use crate::sys;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::time::Duration;

/// How long a messenger waits for receivers before it goes on without those that
/// did not answer (they may have been killed).
const ACK_LIMIT: Duration = Duration::from_millis(100);

/// Waits until `word` is as wanted. False when the worker should stop instead.
fn wait_until(meter: &Meter<'_>, word: &AtomicU32, wanted: impl Fn(u32) -> bool) -> bool {
    loop {
        let seen = word.load(Acquire);
        if wanted(seen) {
            return true;
        }
        if meter.stop_requested() {
            return false;
        }
        // The parent keeps signalling until we are gone, so a stop between the check
        // above and this call is not lost.
        sys::futex_wait(word, seen, None);
    }
}

/// Two workers that pass the turn to each other.
pub(super) fn ping_pong(meter: &Meter<'_>, group: &GroupBlock, member: usize, rounds: u64) {
    let (mine, other) = if member == 0 { (0, 1) } else { (1, 0) };
    while !meter.stop_requested() {
        let began = meter.about_to_wait();
        if !wait_until(meter, &group.word, |turn| turn == mine) {
            meter.resume();
            return;
        }
        meter.resume_from(began, group.stamps[1 - member].load(Relaxed));
        meter.spin(rounds);
        meter.add_work(1);
        meter.add_iteration();
        group.stamps[member].store(sys::now_ns(), Relaxed);
        group.word.store(other, Release);
        sys::futex_wake(&group.word, 1);
    }
}

/// The messenger: wakes all receivers, then waits until all have answered.
pub(super) fn fan_out(meter: &Meter<'_>, group: &GroupBlock, receivers: usize, rounds: u64) {
    let receivers = u32::try_from(receivers).unwrap_or(u32::MAX);
    while !meter.stop_requested() {
        meter.spin(rounds);
        group.acks.store(0, Relaxed);
        group.stamps[0].store(sys::now_ns(), Relaxed);
        group.word.fetch_add(1, Release);
        sys::futex_wake(&group.word, i32::MAX);
        meter.add_work(1);
        meter.add_iteration();
        let began = meter.about_to_wait();
        let give_up = began.saturating_add(ACK_LIMIT.as_nanos() as u64);
        loop {
            let acks = group.acks.load(Acquire);
            if acks >= receivers || meter.stop_requested() || sys::now_ns() >= give_up {
                break;
            }
            sys::futex_wait(&group.acks, acks, Some(ACK_LIMIT));
        }
        meter.resume();
    }
}

/// A receiver: waits for the next message, works on it, answers.
pub(super) fn receive(meter: &Meter<'_>, group: &GroupBlock, rounds: u64) {
    let mut seen = 0;
    while !meter.stop_requested() {
        let began = meter.about_to_wait();
        if !wait_until(meter, &group.word, |message| message != seen) {
            meter.resume();
            return;
        }
        meter.resume_from(began, group.stamps[0].load(Relaxed));
        seen = group.word.load(Acquire);
        meter.spin(rounds);
        meter.add_work(1);
        meter.add_iteration();
        group.acks.fetch_add(1, AcqRel);
        sys::futex_wake(&group.acks, 1);
    }
}

/// Two pipes, one in each direction between the members of a pair.
pub(crate) struct Channel {
    /// Read end and write end; pipe 0 leads from member 0 to member 1.
    pipes: [(OwnedFd, OwnedFd); 2],
}

impl Channel {
    /// Makes both pipes.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { pipes: [pipe()?, pipe()?] })
    }
}

fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut ends = [0; 2];
    // SAFETY: `ends` has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are fresh descriptors that nobody else owns.
    Ok(unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) })
}

/// One member's ends of a [`Channel`].
pub(super) struct PipeEnd<'a> {
    group: &'a GroupBlock,
    member: usize,
    receive: RawFd,
    send: RawFd,
}

impl<'a> PipeEnd<'a> {
    pub(super) fn new(channel: &Channel, group: &'a GroupBlock, member: usize) -> Self {
        let [first, second] = &channel.pipes;
        let (incoming, outgoing) = if member == 0 { (second, first) } else { (first, second) };
        Self { group, member, receive: incoming.0.as_raw_fd(), send: outgoing.1.as_raw_fd() }
    }

    /// Member 0 sends and waits for the answer, member 1 waits and answers; `work`
    /// is done with the byte in hand. False when the worker should stop.
    pub(super) fn exchange(&self, meter: &Meter<'_>, work: impl Fn()) -> Result<bool, StepError> {
        if self.member == 0 {
            work();
            Ok(self.send(meter)? && self.receive(meter)?)
        } else {
            if !self.receive(meter)? {
                return Ok(false);
            }
            work();
            self.send(meter)
        }
    }

    fn send(&self, meter: &Meter<'_>) -> Result<bool, StepError> {
        self.group.stamps[self.member].store(sys::now_ns(), Relaxed);
        let byte = 1u8;
        // SAFETY: one readable byte.
        self.transfer(meter, || unsafe { libc::write(self.send, (&raw const byte).cast(), 1) })
    }

    fn receive(&self, meter: &Meter<'_>) -> Result<bool, StepError> {
        let began = meter.about_to_wait();
        let mut byte = 0u8;
        // SAFETY: one writable byte.
        let got = self.transfer(meter, || unsafe { libc::read(self.receive, (&raw mut byte).cast(), 1) });
        if got == Ok(true) {
            meter.resume_from(began, self.group.stamps[1 - self.member].load(Relaxed));
        } else {
            meter.resume();
        }
        got
    }

    /// Repeats a call that a signal interrupted until it moved its byte. False when
    /// the worker should stop, or the other end is closed.
    fn transfer(&self, meter: &Meter<'_>, mut call: impl FnMut() -> isize) -> Result<bool, StepError> {
        loop {
            match call() {
                1 => return Ok(true),
                0 => return Ok(false),
                _ if meter.stop_requested() => return Ok(false),
                _ if sys::errno() == libc::EINTR => {}
                _ => return Err(StepError { kind: StepKind::Pipe, errno: sys::errno() }),
            }
        }
    }
}

/// Two workers that pass a byte to and fro.
pub(super) fn pipe_io(meter: &Meter<'_>, pipe: &PipeEnd<'_>, rounds: u64) -> Result<(), StepError> {
    while !meter.stop_requested() && pipe.exchange(meter, || meter.spin(rounds))? {
        meter.add_work(1);
        meter.add_iteration();
    }
    Ok(())
}
