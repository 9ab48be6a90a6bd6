//! Phases in order, over and over.

use crate::meter::Meter;
use crate::setup::{StepError, StepKind};
use crate::sys;
use ktstr_workload::WorkPhase;
use std::os::fd::RawFd;
use std::time::Duration;

/// Bytes of one write of the Io phase.
const BLOCK: usize = 4096;

/// Runs the phases until the worker should stop.
pub(super) fn run(
    meter: &Meter<'_>,
    first: WorkPhase,
    rest: &[WorkPhase],
    file: Option<RawFd>,
) -> Result<(), StepError> {
    while !meter.stop_requested() {
        phase(meter, first, file)?;
        for &next in rest {
            if meter.stop_requested() {
                return Ok(());
            }
            phase(meter, next, file)?;
        }
        meter.add_iteration();
    }
    Ok(())
}

fn phase(meter: &Meter<'_>, phase: WorkPhase, file: Option<RawFd>) -> Result<(), StepError> {
    match phase {
        WorkPhase::Sleep(time) => meter.sleep(time),
        WorkPhase::Spin(time) => during(meter, time, || meter.spin_chunk()),
        WorkPhase::Yield(time) => during(meter, time, || {
            meter.yield_cpu();
            meter.add_work(1);
            meter.tick()
        }),
        WorkPhase::Io(time) => {
            let mut failed = None;
            during(meter, time, || match file.map_or(Err(libc::EBADF), |fd| write_and_sync(meter, fd)) {
                Ok(now) => now,
                Err(errno) => {
                    failed = Some(StepError { kind: StepKind::FileWrite, errno });
                    u64::MAX
                }
            });
            return failed.map_or(Ok(()), Err);
        }
    }
    Ok(())
}

/// Repeats `step`, which returns the time, until `time` is over.
fn during(meter: &Meter<'_>, time: Duration, mut step: impl FnMut() -> u64) {
    let end = meter.tick().saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    while !meter.stop_requested() && step() < end {}
}

/// Writes the file's first block and waits until it is on the device.
fn write_and_sync(meter: &Meter<'_>, file: RawFd) -> Result<u64, i32> {
    let block = [0x5a_u8; BLOCK];
    meter.about_to_wait();
    // SAFETY: the block has as many readable bytes as it says.
    let written = unsafe { libc::pwrite(file, block.as_ptr().cast(), BLOCK, 0) };
    // SAFETY: takes a descriptor.
    let synced = written >= 0 && unsafe { libc::fdatasync(file) } == 0;
    let errno = sys::errno();
    let now = meter.resume();
    if !synced && errno != libc::EINTR {
        return Err(errno);
    }
    meter.add_work(1);
    Ok(now)
}
