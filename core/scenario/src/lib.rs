//! Scenarios as data, and the engine that plays them over ports.
//!
//! A test declares [`CgroupDef`]s and [`Step`]s; [`execute_steps`] and its
//! siblings create the cgroups, start the workers, apply the [`Op`]s, hold, judge
//! the workers' reports and take everything down again, on an error or a panic
//! too. The engine names no file, process or clock: see [`ports`].

mod backdrop;
mod ctx;
mod def;
mod engine;
mod event;
mod group;
mod host;
mod irq;
mod op;
pub mod ports;
pub mod scenarios;
mod seed;
mod step;
#[cfg(test)]
mod world;

pub use backdrop::Backdrop;
pub use ctx::{Ctx, Ports};
pub use def::CgroupDef;
pub use engine::{
    Place, ScenarioError, execute_defs, execute_scenario, execute_scenario_with, execute_steps,
    execute_steps_with,
};
pub use event::StimulusEvent;
pub use group::{CgroupGroup, Handles, collect_all, dfl_wl, setup_cgroups, spawn_diverse};
pub use op::Op;
pub use step::{Factory, HoldError, HoldSpec, Setup, Step};
