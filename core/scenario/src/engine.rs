//! Playing a scenario: check, make, start, change, hold, judge, take down.
//!
//! - [`execute_defs`] is one step that holds the full duration.
//! - [`execute_steps`]: what a step makes lasts to the scenario's end, unless an op
//!   removes it. So a later step adds to what earlier ones started.
//! - [`execute_scenario`]: the backdrop lasts; what a step makes (cgroups, and workers
//!   in whichever cgroup) ends with the step. Workers that were moved into a cgroup of
//!   a step end with it.
//!
//! A step applies its ops in order, then makes its cgroups, starts all their workers
//! together once every one is placed, lets things settle, and holds. Everything that
//! can be known beforehand is checked before the first cgroup is made.

mod error;
mod hold;
mod judge;
mod layout;
mod model;
mod plan;
mod stage;
mod stuck;
mod timeline;

pub use error::{Place, ScenarioError};

use crate::{Backdrop, CgroupDef, Ctx, HoldSpec, Op, Step};
use hold::{Ended, hold};
use ktstr_assert::{Assert, AssertResult, Detail, DetailKind};
use plan::Planner;
use stage::Stage;

/// Starts these cgroups together and holds for the test's duration.
///
/// # Errors
/// [`ScenarioError`] when the definitions make no sense or the machine refuses them; all
/// that was made is taken down before.
pub fn execute_defs(ctx: &Ctx<'_>, defs: Vec<CgroupDef>) -> Result<AssertResult, ScenarioError> {
    execute_steps(ctx, vec![Step::with_defs(defs, HoldSpec::FULL)])
}

/// Plays steps in order; what a step makes lasts to the end unless an op removes it.
///
/// # Errors
/// As [`execute_defs`].
pub fn execute_steps(ctx: &Ctx<'_>, steps: Vec<Step>) -> Result<AssertResult, ScenarioError> {
    execute_steps_with(ctx, steps, None)
}

/// [`execute_steps`], judged by `assert` in place of the context's checks when given.
///
/// # Errors
/// As [`execute_defs`].
pub fn execute_steps_with(
    ctx: &Ctx<'_>,
    steps: Vec<Step>,
    assert: Option<&Assert>,
) -> Result<AssertResult, ScenarioError> {
    play(ctx, Backdrop::new(), steps, Lasting::ToTheEnd, assert)
}

/// Plays steps before a backdrop that lasts; what a step makes ends with the step.
///
/// # Errors
/// As [`execute_defs`].
pub fn execute_scenario(
    ctx: &Ctx<'_>,
    backdrop: Backdrop,
    steps: Vec<Step>,
) -> Result<AssertResult, ScenarioError> {
    execute_scenario_with(ctx, backdrop, steps, None)
}

/// [`execute_scenario`], judged by `assert` in place of the context's checks when given.
///
/// # Errors
/// As [`execute_defs`].
pub fn execute_scenario_with(
    ctx: &Ctx<'_>,
    backdrop: Backdrop,
    steps: Vec<Step>,
    assert: Option<&Assert>,
) -> Result<AssertResult, ScenarioError> {
    play(ctx, backdrop, steps, Lasting::WithTheStep, assert)
}

/// How long what a step makes lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lasting {
    ToTheEnd,
    WithTheStep,
}

/// A step whose cgroups are known.
struct Scene {
    place: Place,
    ops: Vec<Op>,
    defs: Vec<CgroupDef>,
    hold: HoldSpec,
}

fn play(
    ctx: &Ctx<'_>,
    backdrop: Backdrop,
    steps: Vec<Step>,
    lasting: Lasting,
    assert: Option<&Assert>,
) -> Result<AssertResult, ScenarioError> {
    let scenes = scenes(ctx, &steps)?;
    rehearse(ctx, &backdrop, &scenes, lasting)?;
    ctx.enter_step(Place::BACKDROP.index());
    let mut stage = Stage::new(ctx, assert.copied().unwrap_or(ctx.assert));
    stage.timeline.scenario_begin(scenes.len());
    match perform(ctx, &mut stage, &backdrop, &scenes, lasting) {
        Ok(()) => Ok(stage.finish()),
        Err(error) => Err(stage.abandon(error)),
    }
}

/// Numbers the steps and makes the cgroups of those that have a factory.
fn scenes(ctx: &Ctx<'_>, steps: &[Step]) -> Result<Vec<Scene>, ScenarioError> {
    let mut scenes = Vec::with_capacity(steps.len());
    for (i, step) in steps.iter().enumerate() {
        let index = u16::try_from(i + 1).map_err(|_| ScenarioError::TooManySteps(steps.len()))?;
        let place = Place(index);
        step.hold.validate().map_err(|source| ScenarioError::Hold { place, source })?;
        ctx.enter_step(index);
        scenes.push(Scene { place, ops: step.ops.clone(), defs: step.setup.defs(ctx), hold: step.hold });
    }
    Ok(scenes)
}

/// How often a loop's ops are repeated in the rehearsal. Which names are live after the
/// first repetition is what it is after all others, so that what follows the loop does not
/// depend on their number. Only cpusets can go round for longer, by exchanges.
const REHEARSED_REPEATS: u64 = 64;

/// Goes through the whole scenario on the model alone.
fn rehearse(
    ctx: &Ctx<'_>,
    backdrop: &Backdrop,
    scenes: &[Scene],
    lasting: Lasting,
) -> Result<(), ScenarioError> {
    let mut planner = Planner::new(ctx);
    let place = Place::BACKDROP;
    for def in &backdrop.cgroups {
        planner.define(place, def)?;
    }
    for op in &backdrop.ops {
        planner.op(place, op)?;
    }
    for scene in scenes {
        for op in &scene.ops {
            planner.op(scene.place, op)?;
        }
        for def in &scene.defs {
            planner.define(scene.place, def)?;
        }
        for _ in 0..hold::most_repeats(ctx, scene.hold).min(REHEARSED_REPEATS) {
            for op in &scene.ops {
                planner.op(scene.place, op)?;
            }
        }
        if lasting == Lasting::WithTheStep {
            planner.end_step(scene.place);
        }
    }
    Ok(())
}

fn perform(
    ctx: &Ctx<'_>,
    stage: &mut Stage<'_>,
    backdrop: &Backdrop,
    scenes: &[Scene],
    lasting: Lasting,
) -> Result<(), ScenarioError> {
    stage.set_up(Place::BACKDROP, &backdrop.cgroups)?;
    for op in &backdrop.ops {
        stage.apply(Place::BACKDROP, op)?;
    }
    for scene in scenes {
        let place = scene.place;
        ctx.enter_step(place.index());
        let names: Vec<String> = scene.defs.iter().map(|d| d.name.clone()).collect();
        stage.timeline.step_begin(place, &names);
        for op in &scene.ops {
            stage.apply(place, op)?;
        }
        stage.set_up(place, &scene.defs)?;
        let ended = hold(ctx, stage, scene)?;
        stage.timeline.step_end(place, stage.total_iterations());
        if let Ended::SchedulerFailed(reason, noticed) = ended {
            let ms = noticed.saturating_sub(stage.timeline.begin()).as_millis();
            let text = format!("the scheduler failed in {place}, {ms}ms into the scenario: {reason}");
            stage.find(Detail::fail(DetailKind::Scheduler, text));
            return Ok(());
        }
        if lasting == Lasting::WithTheStep {
            stage.end_step(place)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
