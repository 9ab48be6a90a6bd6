//! Doing what a guest asks for while it waits.

use crate::instants::idle_is_halted;
use crate::ports::HostClock;
use crate::watch::{PATIENCE, Watch, Watched};
use ktstr_machine::{MachineError, Vm};
use ktstr_monitor::{KernelState, Observer, SampleError, Snapshot, SnapshotCause, Value};
use ktstr_wire::{ANSWER_BODY_AT, Answer, Call, Request};
use std::time::Duration;

/// Bytes of a name or path, and process ids, that are kept.
const MAX_TEXT: usize = 256;
const MAX_PIDS: usize = 1 << 16;
/// What a debug register watches at least, of a word that is aligned.
const WATCHED_BYTES: usize = 4;
/// Writes to a variable after which it is left alone: each costs the guest a stop.
const MAX_HITS: usize = 100;

/// How often a machine may be not stopped in time until no more snapshots are taken by the clock.
const MAX_UNSTOPPED: usize = 2;
const GIVEN_UP: &str =
    "no more snapshots are taken by the clock, since the machine could not be stopped in time twice";

/// How long a guest that has asked may take until it stands still at its bell: it does so at
/// once, but its host may be swamped.
const BELL: Duration = Duration::from_secs(60);

impl Watch<'_> {
    /// Does what the guest asks for and answers. The guest stands still meanwhile where that
    /// is part of it, or where it chose to (its bell); otherwise it may go on.
    ///
    /// # Errors
    /// When a machine that was stopped can't be let go on. One that is gone needs no answer; of one that can't be
    /// stopped in time, the answer says so.
    pub(crate) fn serve(
        &mut self,
        vm: &mut dyn Vm,
        request: &Request,
        clock: &dyn HostClock,
    ) -> Result<(), MachineError> {
        match self.try_serve(vm, request, clock) {
            Err(MachineError::Gone { .. }) => Ok(()),
            other => other,
        }
    }

    fn try_serve(
        &mut self,
        vm: &mut dyn Vm,
        request: &Request,
        clock: &dyn HostClock,
    ) -> Result<(), MachineError> {
        let held = vm.await_bell(BELL)?;
        // One that was asked before has only moved the page for its answer.
        let known = self.answered.take().filter(|(id, _)| *id == request.id);
        let stop = !held && known.is_none() && stands_still(&request.call);
        let given_up = stop && self.is_given_up(&request.call);
        let stopped = (stop && !given_up).then(|| vm.pause());
        if let Some(Err(MachineError::Gone { doing })) = &stopped {
            return Err(MachineError::Gone { doing: doing.clone() });
        }
        let paused = matches!(stopped, Some(Ok(())));
        let answer = match (known, &stopped) {
            (Some((_, answer)), _) => answer,
            (None, _) if given_up => Answer(Err(GIVEN_UP.to_string())),
            (None, Some(Err(e))) => Answer(Err(format!("the machine could not be stopped: {e}"))),
            (None, _) => Answer(self.call(vm, request, paused || held, clock)),
        };
        let written = vm
            .write_memory(request.answer_at.wrapping_add(ANSWER_BODY_AT as u64), &answer.body())
            .and_then(|()| vm.write_memory(request.answer_at, &request.id.to_le_bytes()));
        self.answered = Some((request.id, answer));
        if let Err(e) = written {
            self.complain(format!("answering the guest: {e}"));
        }
        if let Some(stopped) = stopped {
            self.go_on(vm, stopped.err(), "stopping the machine as the guest had asked")?;
        }
        vm.let_go()
    }

    /// Whether it is one of a series that was given up.
    const fn is_given_up(&self, call: &Call) -> bool {
        matches!(call, Call::Capture { periodic: true, .. }) && self.unstopped >= MAX_UNSTOPPED
    }

    fn call(
        &mut self,
        vm: &mut dyn Vm,
        request: &Request,
        still: bool,
        clock: &dyn HostClock,
    ) -> Result<u64, String> {
        let (at, step) = (request.elapsed_ms, request.step);
        check_length(&request.call)?;
        match &request.call {
            Call::Capture { name, periodic } => {
                let cause = if *periodic { SnapshotCause::Periodic } else { SnapshotCause::Op };
                let snapshot = self.capture(vm, Snapshot::new(name, at, step, cause), still)?;
                self.snapshots.push(snapshot);
                Ok(0)
            }
            Call::WorkloadEnds => {
                let mut state = self.look_at(vm, still)?;
                state.moment = format!("+{at} ms, at the end of the workload:");
                self.monitor.left_frozen(&state.cgroups);
                // The first end is the workload's; by the next, all of it may be gone.
                self.ending.get_or_insert(state);
                Ok(0)
            }
            Call::LastLook { when } => {
                let state = self.look_at(vm, still)?;
                if self.wrong.is_none() {
                    self.wrong = self.dated(Some(state), &format!("+{at} ms, {when}"));
                }
                Ok(0)
            }
            Call::ReadKernel { tag, path, .. } => {
                let value = self.read(vm, path)?;
                // What is no number goes to the record only.
                let number = value.as_u64().or_else(|_| value.as_i64().map(|n| n as u64)).unwrap_or(0);
                let mut snapshot = Snapshot::new(tag, at, step, SnapshotCause::Op);
                snapshot.values.insert(path.clone(), value);
                self.snapshots.push(snapshot);
                Ok(number)
            }
            Call::WriteKernel { path, value, .. } => self.write(vm, path, *value).map(|()| 0),
            Call::KeepPids { tag, pids } => {
                let mut snapshot = Snapshot::new(tag, at, step, SnapshotCause::Op);
                let pids = pids.iter().map(|pid| Value::Signed(i64::from(*pid))).collect();
                snapshot.values.insert("pids".to_string(), Value::List(pids));
                self.snapshots.push(snapshot);
                Ok(0)
            }
            Call::Watch { symbol } => self.watch(vm, symbol).map(|()| 0),
            Call::Sample { tid, switches } => {
                let observer = Observer { pid: *tid, switches: *switches };
                self.sample(vm, at, &observer, clock).map(|()| 0)
            }
            other => Err(format!("{other:?} is unknown to this host")),
        }
    }

    /// Has the machine stop at writes to a variable.
    fn watch(&mut self, vm: &mut dyn Vm, symbol: &str) -> Result<(), String> {
        if self.watched.iter().any(|w| w.symbol == symbol) {
            return Ok(());
        }
        let place = self.inspector_of(vm)?.locate(symbol).map_err(text)?;
        if place.bytes < WATCHED_BYTES || !place.address.is_multiple_of(WATCHED_BYTES as u64) {
            return Err(format!(
                "{symbol} has {} bytes at {:#x}: expected {WATCHED_BYTES} bytes or more, aligned to as many",
                place.bytes, place.address
            ));
        }
        vm.watch(place.address, WATCHED_BYTES).map_err(|e| e.to_string())?;
        self.watched.push(Watched { symbol: symbol.to_string(), address: place.address, hits: 0 });
        Ok(())
    }

    /// A watched variable was written, upon which the machine stands still.
    ///
    /// # Errors
    /// When the machine can't be let go on.
    pub(crate) fn written(
        &mut self,
        vm: &mut dyn Vm,
        address: u64,
        at: Duration,
        step: u16,
    ) -> Result<(), MachineError> {
        let found = self.watched.iter_mut().find(|w| w.address == address);
        if let Some((symbol, hits)) = found.map(|w| {
            w.hits += 1;
            (w.symbol.clone(), w.hits)
        }) {
            let snapshot = Snapshot::new(&symbol, at.as_millis() as u64, step, SnapshotCause::Watch);
            match self.capture(vm, snapshot, true) {
                Ok(snapshot) => self.snapshots.push(snapshot),
                Err(why) => self.complain(format!("a snapshot as {symbol} was written: {why}")),
            }
            if hits >= MAX_HITS {
                self.complain(format!("{symbol} was written {hits} times; it is not watched any more"));
                match vm.unwatch(address, WATCHED_BYTES) {
                    Ok(()) | Err(MachineError::Gone { .. }) => {}
                    Err(e) => self.complain(e.to_string()),
                }
            }
        }
        self.go_on(vm, None, "")
    }

    /// Everything that a snapshot holds.
    fn capture(&mut self, vm: &mut dyn Vm, mut snapshot: Snapshot, still: bool) -> Result<Snapshot, String> {
        snapshot.state = Some(self.look_at(vm, still)?);
        let paths = self.paths;
        let inspector = self.inspector_of(vm)?;
        // Its time is the guest's, so that the host's does not get into the record.
        snapshot.sample = inspector.sample(Duration::from_millis(snapshot.at_ms)).ok();
        for (path, value) in inspector.values(paths).map_err(text)? {
            match value {
                Ok(value) => drop(snapshot.values.insert(path, value)),
                Err(why) => drop(snapshot.unavailable.insert(path, why)),
            }
        }
        Ok(snapshot)
    }

    /// The kernel's state, with registers where the machine stands still.
    fn look_at(&mut self, vm: &mut dyn Vm, still: bool) -> Result<KernelState, String> {
        self.inspector_of(vm)?.wait_ready(PATIENCE).map_err(text)?;
        let own = self.own_instants;
        let (registers, problem) = match still.then(|| vm.registers()) {
            None => (Vec::new(), None),
            Some(Ok(registers)) => (registers, None),
            // At its bell a guest may have none to tell; the rest is worth as much.
            Some(Err(e)) if own => (Vec::new(), Some(format!("registers: {e}"))),
            Some(Err(e)) => return Err(e.to_string()),
        };
        let mut state = self.inspector_of(vm)?.state(&registers).map_err(text)?;
        state.problems.extend(problem);
        if own {
            idle_is_halted(&mut state);
        }
        Ok(state)
    }

    fn read(&mut self, vm: &mut dyn Vm, path: &str) -> Result<Value, String> {
        let readings = self.inspector_of(vm)?.values(&[path]).map_err(text)?;
        match readings.into_iter().next() {
            Some((_, value)) => value,
            None => Err(format!("{path} stands for no value")),
        }
    }

    fn write(&mut self, vm: &mut dyn Vm, path: &str, value: u64) -> Result<(), String> {
        let place = self.inspector_of(vm)?.locate(path).map_err(text)?;
        let bytes = value.to_le_bytes();
        let (kept, lost) = bytes.split_at(place.bytes.min(8));
        // The sign of a negative number may go.
        if lost.iter().any(|b| *b != 0) && lost.iter().any(|b| *b != 0xff) {
            return Err(format!("{value} does not fit {path}, which has {} bytes", place.bytes));
        }
        vm.write_memory(place.physical, kept).map_err(|e| e.to_string())
    }
}

/// What is kept of a request must not fill the host's memory.
fn check_length(call: &Call) -> Result<(), String> {
    let (texts, pids): (&[&String], usize) = match call {
        Call::Capture { name: text, .. } | Call::LastLook { when: text } => (&[text], 0),
        Call::ReadKernel { tag, path, .. } => (&[tag, path], 0),
        Call::WriteKernel { path, .. } => (&[path], 0),
        Call::Watch { symbol } => (&[symbol], 0),
        Call::KeepPids { tag, pids } => (&[tag], pids.len()),
        _ => (&[], 0),
    };
    match texts.iter().map(|text| text.len()).max() {
        Some(length) if length > MAX_TEXT => {
            Err(format!("a name or path has {length} bytes: expected at most {MAX_TEXT}"))
        }
        _ if pids > MAX_PIDS => Err(format!("{pids} process ids: expected at most {MAX_PIDS}")),
        _ => Ok(()),
    }
}

fn stands_still(call: &Call) -> bool {
    match call {
        Call::Capture { .. } | Call::WorkloadEnds | Call::LastLook { .. } | Call::Watch { .. } => true,
        Call::ReadKernel { frozen, .. } | Call::WriteKernel { frozen, .. } => *frozen,
        _ => false,
    }
}

fn text(error: SampleError) -> String {
    error.to_string()
}
