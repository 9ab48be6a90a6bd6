//! Holding a step while watching the scheduler.

use crate::engine::Scene;
use crate::engine::error::ScenarioError;
use crate::engine::stage::Stage;
use crate::{Ctx, HoldSpec};
use std::time::Duration;

/// How often the scheduler is asked whether it still lives, in guest time.
const SLICE: Duration = Duration::from_millis(100);

/// Why a hold ended.
pub(crate) enum Ended {
    /// Its time was over.
    InTime,
    /// The scheduler died or was ejected: why, and when that was noticed.
    SchedulerFailed(String, Duration),
}

/// Lets things settle, then holds as long as the step says; a loop applies the step's
/// ops again each interval.
pub(crate) fn hold(ctx: &Ctx<'_>, stage: &mut Stage<'_>, scene: &Scene) -> Result<Ended, ScenarioError> {
    let mut next = ctx.ports.clock.now();
    if !scene.defs.is_empty() {
        next = next.saturating_add(ctx.settle);
    }
    let HoldSpec::Loop { interval } = scene.hold else {
        return Ok(wait_until(ctx, stage, next.saturating_add(scene.hold.length(ctx.duration))));
    };
    // To the end of the test's duration, but two intervals at least: the rehearsal counts
    // on one repetition.
    let over = stage.timeline.begin().saturating_add(ctx.settle).saturating_add(ctx.duration);
    let end = over.max(next.saturating_add(interval).saturating_add(interval));
    let mut repeated = false;
    loop {
        // Ops that take longer than an interval put off the next round; none is made up for.
        next = next.saturating_add(interval).max(ctx.ports.clock.now()).min(end);
        if let failed @ Ended::SchedulerFailed(..) = wait_until(ctx, stage, next) {
            return Ok(failed);
        }
        if repeated && next >= end {
            return Ok(Ended::InTime);
        }
        for op in &scene.ops {
            stage.apply(scene.place, op)?;
        }
        repeated = true;
    }
}

/// How often a step's ops are repeated at most; 0 unless it loops.
pub(crate) fn most_repeats(ctx: &Ctx<'_>, hold: HoldSpec) -> u64 {
    let HoldSpec::Loop { interval } = hold else { return 0 };
    let rounds = ctx.duration.saturating_add(ctx.settle).as_nanos() / interval.as_nanos().max(1);
    u64::try_from(rounds).unwrap_or(u64::MAX).max(1)
}

fn wait_until(ctx: &Ctx<'_>, stage: &mut Stage<'_>, deadline: Duration) -> Ended {
    loop {
        let looked = ctx.ports.clock.now();
        if let Some(reason) = ctx.ports.scheduler.failure() {
            return Ended::SchedulerFailed(reason, looked);
        }
        stage.tell_of_stuck_workers();
        let now = ctx.ports.clock.now();
        if now >= deadline {
            return Ended::InTime;
        }
        ctx.ports.clock.sleep_until(deadline.min(now.saturating_add(SLICE)));
    }
}
