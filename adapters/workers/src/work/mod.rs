//! What workers do: one loop for each work type.
//!
//! A loop runs until the stop flag is set. What it counts as a unit of work:
//!
//! | type | unit | iteration |
//! |---|---|---|
//! | SpinWait, YieldHeavy, Mixed, Bursty, IdleChurn | a spin round | a chunk, yield, burst |
//! | FutexPingPong, PipeIo, FutexFanOut | an exchange, a wake-up | the same |
//! | CachePressure, CacheYield, CachePipe | a line written | a pass |
//! | ForkExit, NiceSweep, AffinityChurn | a fork, a change | the same (NiceSweep: a sweep) |
//! | PageFaultChurn | a page touched | a mapping |
//! | Sequence | a spin round, yield or block written | all phases once |
//! | Custom | what the function counts | what the function counts |

mod cache;
mod churn;
mod custom;
mod exchange;
mod fork_exit;
mod pages;
mod sequence;
mod spin;

pub(crate) use exchange::Channel;

use crate::meter::Meter;
use crate::plan::Plan;
use crate::setup::StepError;
use ktstr_workload::WorkType;
use std::os::fd::AsRawFd;

/// Runs worker `index` until it should stop.
pub(crate) fn run(plan: &Plan, index: usize, meter: &Meter<'_>) -> Result<(), StepError> {
    let size = plan.work.worker_group_size();
    let (group, member) = (index / size, index % size);
    match &plan.work {
        WorkType::SpinWait => spin::spin_wait(meter),
        WorkType::YieldHeavy => spin::yield_heavy(meter),
        WorkType::Mixed => spin::mixed(meter),
        WorkType::Bursty { burst, sleep } | WorkType::IdleChurn { burst, sleep } => {
            spin::bursts(meter, *burst, *sleep);
        }
        WorkType::FutexPingPong { spin_iters } => {
            exchange::ping_pong(meter, plan.mapping.group(group), member, *spin_iters);
        }
        WorkType::FutexFanOut { fan_out, spin_iters } => {
            let block = plan.mapping.group(group);
            if member == 0 {
                exchange::fan_out(meter, block, *fan_out, *spin_iters);
            } else {
                exchange::receive(meter, block, *spin_iters);
            }
        }
        WorkType::PipeIo { burst_iters } => {
            let pipe = exchange::PipeEnd::new(&plan.channels[group], plan.mapping.group(group), member);
            exchange::pipe_io(meter, &pipe, *burst_iters)?;
        }
        WorkType::CachePressure { size_kib, stride } => cache::pressure(meter, *size_kib, *stride, false)?,
        WorkType::CacheYield { size_kib, stride } => cache::pressure(meter, *size_kib, *stride, true)?,
        WorkType::CachePipe { size_kib, burst_iters } => {
            let pipe = exchange::PipeEnd::new(&plan.channels[group], plan.mapping.group(group), member);
            cache::with_pipe(meter, &pipe, *size_kib, *burst_iters)?;
        }
        WorkType::ForkExit => fork_exit::run(meter),
        WorkType::NiceSweep => churn::nice_sweep(meter),
        WorkType::AffinityChurn { spin_iters } => churn::affinity(meter, index, *spin_iters)?,
        WorkType::PageFaultChurn { region_kib, touches, spin_iters } => {
            pages::churn(meter, *region_kib, *touches, *spin_iters)?;
        }
        WorkType::Sequence { first, rest } => {
            sequence::run(meter, *first, rest, plan.files.get(index).map(AsRawFd::as_raw_fd))?;
        }
        WorkType::Custom { run, .. } => custom::run(meter, index, *run),
    }
    Ok(())
}
