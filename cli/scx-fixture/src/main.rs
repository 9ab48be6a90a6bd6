//! A sched_ext scheduler to test ktstr with: healthy, or with one fault planted.
//!
//! The scheduler itself is bpf/fixture.bpf.c, compiled and committed; this is its user
//! half. What each fault does and what Linux 6.12 says of it: README.md.
//!
//! Exit codes: 0 asked to end, and detached in order; 1 could not be loaded or attached;
//! 2 usage; 3 ended by the kernel; with `--exit-user`, that one.

mod args;
mod config;
mod error;
mod output;
mod scheduler;
mod signals;
mod stats;

use args::{Args, Drill};
use clap::Parser;
use error::FixtureError;
use output::say;
use scheduler::{Ended, Scheduler};
use signals::{Signals, Wait};
use stats::{Figures, Server};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often the user half looks at the kernel half.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The kernel ended the scheduler.
const EJECTED: u8 = 3;

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            say(&format!("scx-fixture: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<u8, FixtureError> {
    if args.daemonize {
        signals::daemonize()?;
    }
    let signals = Signals::take(args.ignore_sigterm)?;
    let delay = Duration::from_millis(args.fault_after_ms);
    if delay.is_zero()
        && let Some(end) = drill(args)
    {
        return end;
    }
    let mut scheduler = Scheduler::load(args)?;
    if delay.is_zero() {
        scheduler.arm()?;
    }
    scheduler.attach()?;
    let fault_at = Instant::now() + delay;
    say(&format!("scx-fixture: attached as {}", args.name));
    if output::spam(args.spam_mib, || matches!(signals.wait(Duration::ZERO), Ok(Wait::Asked)))? {
        return end(scheduler);
    }
    watch(args, &signals, scheduler, fault_at)
}

/// Until someone asks it to end, the kernel ends it, or a drill is due.
fn watch(
    args: &Args,
    signals: &Signals,
    mut scheduler: Scheduler,
    fault_at: Instant,
) -> Result<u8, FixtureError> {
    let mut armed = false;
    let mut told = false;
    let stats = args.stats.then(Server::start).transpose()?;
    loop {
        if let Some(stats) = &stats {
            stats.show(Figures { armed, victims: scheduler.victims()? });
        }
        if signals::asked_for_state() {
            let victim = scheduler.victim()?.map_or_else(|| "none".to_string(), |v| v.to_string());
            say(&format!("scx-fixture: SIGUSR2: fault armed: {armed}, first victim: {victim}"));
        }
        if !armed && Instant::now() >= fault_at {
            armed = true;
            scheduler.arm()?;
            if let Some(fault) = args.fault() {
                say(&format!("scx-fixture: fault armed: {fault}"));
            }
            if let Some(end) = drill(args) {
                return end;
            }
        }
        if !told && let Some(victim) = scheduler.victim()? {
            told = true;
            say(&format!("scx-fixture: first victim: {victim}"));
        }
        if let Some(ended) = scheduler.ended()? {
            return report(&scheduler, &ended);
        }
        if signals.wait(LOOK_EVERY)? == Wait::Asked {
            return end(scheduler);
        }
    }
}

/// What the user half does to itself, if it is to.
fn drill(args: &Args) -> Option<Result<u8, FixtureError>> {
    Some(match args.drill()? {
        Drill::Exit(code) => Ok(code),
        Drill::Signal(number) => Err(signals::die_of(number)),
        #[allow(clippy::panic, reason = "that it panics is what was asked for")]
        Drill::Panic(text) => panic!("{text}"),
    })
}

fn end(mut scheduler: Scheduler) -> Result<u8, FixtureError> {
    scheduler.detach();
    match scheduler.ended()? {
        Some(ended) => report(&scheduler, &ended),
        None => Err(FixtureError::StillAttached),
    }
}

/// The end in the words that schedulers of the scx project use.
fn report(scheduler: &Scheduler, ended: &Ended) -> Result<u8, FixtureError> {
    let dump = scheduler.dump()?;
    if !dump.is_empty() {
        let line = "=".repeat(80);
        say(&format!("DEBUG DUMP\n{line}\n\n{}\n\n{line}\n", dump.trim_end()));
    }
    say(&format!("EXIT: {ended}"));
    Ok(if ended.by_user() { 0 } else { EJECTED })
}
