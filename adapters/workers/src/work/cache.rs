//! Writing over a working set, and where its pages lie.

use super::exchange::PipeEnd;
use crate::meter::Meter;
use crate::setup::{StepError, StepKind, at};
use crate::sys::{self, Region};

/// Writes between two looks at the clock.
const WRITES_PER_LOOK: usize = 1024;

/// Bytes between writes of `CachePipe`: a cache line.
const LINE: usize = 64;

/// Pages that are looked up at most; more would only repeat the picture.
const MAX_SAMPLED_PAGES: usize = 4096;

/// Pages looked up in one call.
const BATCH: usize = 64;

/// Passes over a working set, with or without a yield after each.
pub(super) fn pressure(
    meter: &Meter<'_>,
    size_kib: usize,
    stride: usize,
    yields: bool,
) -> Result<(), StepError> {
    let region = working_set(size_kib)?;
    while !meter.stop_requested() {
        pass(meter, &region, stride);
        if yields {
            meter.yield_cpu();
        }
        meter.add_iteration();
    }
    count_pages(meter, &region);
    Ok(())
}

/// A pass over a working set, work, and an exchange with the other of the pair.
pub(super) fn with_pipe(
    meter: &Meter<'_>,
    pipe: &PipeEnd<'_>,
    size_kib: usize,
    rounds: u64,
) -> Result<(), StepError> {
    let region = working_set(size_kib)?;
    let work = || {
        pass(meter, &region, LINE);
        meter.spin(rounds);
    };
    while !meter.stop_requested() && pipe.exchange(meter, work)? {
        meter.add_iteration();
    }
    count_pages(meter, &region);
    Ok(())
}

/// Mapped after the release, so that its pages are charged to the worker's cgroup.
fn working_set(size_kib: usize) -> Result<Region, StepError> {
    at(StepKind::WorkingSet, Region::map(size_kib.saturating_mul(1024)))
}

fn pass(meter: &Meter<'_>, region: &Region, stride: usize) {
    let mut writes = 0;
    for offset in (0..region.len()).step_by(stride.max(1)) {
        region.touch(offset);
        writes += 1;
        if writes == WRITES_PER_LOOK {
            meter.add_work(writes as u64);
            writes = 0;
            meter.tick();
            if meter.stop_requested() {
                return;
            }
        }
    }
    meter.add_work(writes as u64);
    meter.tick();
}

/// Counts on which NUMA node the pages of a region lie, at most
/// [`MAX_SAMPLED_PAGES`] of them evenly spread. A kernel without `move_pages(2)`
/// leaves the counts empty.
pub(super) fn count_pages(meter: &Meter<'_>, region: &Region) {
    const PAGE: usize = 4096;
    let pages = region.len().div_ceil(PAGE);
    let step = pages.div_ceil(MAX_SAMPLED_PAGES).max(1);
    let mut next = 0;
    while next < pages {
        let mut addresses = [std::ptr::null_mut(); BATCH];
        let mut nodes = [-1; BATCH];
        let mut count = 0;
        while count < BATCH && next < pages {
            addresses[count] = region.address(next * PAGE);
            count += 1;
            next += step;
        }
        if sys::page_nodes(&addresses[..count], &mut nodes[..count]).is_err() {
            return;
        }
        // A page that was never touched has a negative number.
        nodes[..count]
            .iter()
            .filter_map(|&node| usize::try_from(node).ok())
            .for_each(|node| meter.add_page_on(node));
    }
}
