//! Mapping, touching and unmapping memory.

use super::cache::count_pages;
use crate::meter::Meter;
use crate::setup::{StepError, StepKind, at};
use crate::sys::Region;

const PAGE: usize = 4096;

/// Maps a region, touches pages of it spread evenly, works, unmaps it.
pub(super) fn churn(
    meter: &Meter<'_>,
    region_kib: usize,
    touches: usize,
    rounds: u64,
) -> Result<(), StepError> {
    while !meter.stop_requested() {
        let region = at(StepKind::WorkingSet, Region::map(region_kib.saturating_mul(1024)))?;
        let pages = (region.len() / PAGE).max(1);
        let step = (pages / touches.max(1)).max(1);
        for touch in 0..touches {
            region.touch(touch.wrapping_mul(step) % pages * PAGE);
            meter.tick();
            if meter.stop_requested() {
                break;
            }
        }
        meter.add_work(touches as u64);
        meter.spin(rounds);
        meter.add_iteration();
        if meter.stop_requested() {
            count_pages(meter, &region);
        }
    }
    Ok(())
}
