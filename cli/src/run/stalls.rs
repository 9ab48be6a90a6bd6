//! Watches the workers of a test on the host: one that gets no further is told with what it was doing.

use ktstr_monitor::StallWatch;
use ktstr_procfs::HostProcesses;
use ktstr_scenario::ports::{WorkerError, WorkerGroup, WorkerOps};
use ktstr_topology::CpuSet;
use ktstr_workers::ForkedWorkers;
use ktstr_workload::{Pid, WorkerReport, WorkloadConfig};
use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Forked workers whose processes are known while they are meant to run.
#[derive(Default)]
pub(super) struct WatchedWorkers(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    over: Condvar,
}

#[derive(Default)]
struct State {
    /// By group.
    running: BTreeMap<u64, Vec<Pid>>,
    groups: u64,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WatchedWorkers {
    /// Calls the test, and meanwhile looks at the workers that often; what it returns, and what is to be said of workers.
    pub(super) fn while_calling<T>(
        &self,
        period: Option<Duration>,
        body: impl FnOnce() -> T,
    ) -> (T, Vec<String>) {
        let Some(period) = period else { return (body(), Vec::new()) };
        std::thread::scope(|scope| {
            let watch = std::thread::Builder::new().name("ktstr-stalls".to_string());
            let watch = watch.spawn_scoped(scope, || self.watch(period));
            let returned = {
                // It ends the thread on a panic, too, or the scope would wait for ever.
                let _end = End(&self.0);
                body()
            };
            let told = match watch {
                Ok(watch) => {
                    watch.join().unwrap_or_else(|_| vec!["watching the workers ended in a panic".to_string()])
                }
                Err(e) => vec![format!("the workers were not watched: starting a thread for it: {e}")],
            };
            (returned, told)
        })
    }

    fn watch(&self, period: Duration) -> Vec<String> {
        let (mut watch, mut told) = (StallWatch::default(), Vec::new());
        loop {
            let waited = self.0.over.wait_timeout_while(self.0.lock(), period, |state| !state.over);
            let state = waited.unwrap_or_else(PoisonError::into_inner).0;
            if state.over {
                return told;
            }
            let pids: Vec<Pid> = state.running.values().flatten().copied().collect();
            drop(state);
            match watch.look(&pids, &HostProcesses::default(), period) {
                Ok(stalled) => told.extend(stalled),
                Err(why) => {
                    told.push(why);
                    return told;
                }
            }
        }
    }
}

struct End<'a>(&'a Shared);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.over.notify_all();
    }
}

impl WorkerOps for WatchedWorkers {
    fn spawn(
        &self,
        config: &WorkloadConfig,
        affinity: &[Option<CpuSet>],
    ) -> Result<Box<dyn WorkerGroup>, WorkerError> {
        let group = ForkedWorkers.spawn(config, affinity)?;
        let mut state = self.0.lock();
        state.groups += 1;
        Ok(Box::new(WatchedGroup { group, number: state.groups, shared: Arc::clone(&self.0) }))
    }
}

struct WatchedGroup {
    group: Box<dyn WorkerGroup>,
    number: u64,
    shared: Arc<Shared>,
}

impl WatchedGroup {
    fn forget(&self) {
        self.shared.lock().running.remove(&self.number);
    }
}

impl WorkerGroup for WatchedGroup {
    fn pids(&self) -> Vec<Pid> {
        self.group.pids()
    }

    fn start(&mut self) {
        self.shared.lock().running.insert(self.number, self.group.pids());
        self.group.start();
    }

    fn set_affinity(&mut self, cpus: &CpuSet) -> Result<(), WorkerError> {
        self.group.set_affinity(cpus)
    }

    fn iterations(&self) -> Vec<u64> {
        self.group.iterations()
    }

    fn request_stop(&mut self) {
        self.forget();
        self.group.request_stop();
    }

    fn stop_and_collect(&mut self) -> Vec<WorkerReport> {
        self.forget();
        self.group.stop_and_collect()
    }
}

impl Drop for WatchedGroup {
    fn drop(&mut self) {
        self.forget();
    }
}
