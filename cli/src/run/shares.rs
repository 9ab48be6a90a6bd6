//! Which of the host's CPUs a machine runs on that has none to itself: a window of CPUs without another machine where
//! there is one, or a budget that was asked for.

use crate::settings::Settings;
use anyhow::{Context, Result};
use ktstr_host::{Kept, Lease, Locks, Part, Shared, keep_on};
use ktstr_machine::{Share, choose};
use ktstr_topology::{CpuSet, TestTopology};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long others may keep what a machine wants: many times what most tests take.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);
/// Looks for a place take others some milliseconds, and nobody is told of such a wait.
const SOON: Duration = Duration::from_secs(1);

/// What a machine runs on, until this is dropped.
#[derive(Default)]
pub(crate) struct Place {
    /// What the report says of it.
    pub(super) note: Option<String>,
    _kept: Option<Kept>,
    _lease: Option<Lease>,
}

/// A wait for others, told once and bounded.
pub(super) struct Wait {
    began: Instant,
    patience: Duration,
    said: bool,
}

impl Wait {
    pub(super) fn new(patience: Duration) -> Self {
        Self { began: Instant::now(), patience, said: false }
    }

    /// False when patience is at its end. Says what it waits for once it has waited for `grace`.
    pub(super) fn goes_on(&mut self, grace: Duration, what: &dyn Fn() -> String) -> bool {
        let waited = self.began.elapsed();
        if waited > self.patience {
            return false;
        }
        if waited >= grace && !self.said {
            eprintln!("ktstr: waiting for {}", what());
            self.said = true;
        }
        // Most waits for the turn are over at once; those for a test are not.
        std::thread::sleep(if waited < SOON {
            Duration::from_millis(10)
        } else {
            Duration::from_millis(200)
        });
        true
    }

    /// The turn to look for a place; `None` when patience is at its end.
    pub(super) fn for_turn(&mut self, locks: &Locks) -> Result<Option<Lease>> {
        loop {
            if let Some(turn) = locks.try_turn()? {
                return Ok(Some(turn));
            }
            if !self.goes_on(SOON, &|| "a machine in performance mode that waits for its CPUs".to_string()) {
                return Ok(None);
            }
        }
    }
}

/// The host's CPUs, and those of them that may be used.
pub(super) fn usable() -> Result<(TestTopology, CpuSet)> {
    let host = ktstr_procfs::test_topology_from_sysfs(Path::new("/sys"))?;
    let usable = ktstr_host::usable_cpus()?.intersection(&host.all_cpuset());
    Ok((host, usable))
}

/// As many of the host's CPUs as the run's cap says; without one, all that may be used.
///
/// # Errors
/// A cap that is larger than the host.
pub(crate) fn capped(settings: &Settings) -> Result<(TestTopology, CpuSet)> {
    let (host, usable) = usable()?;
    let Some(cap) = settings.cpu_cap else { return Ok((host, usable)) };
    let capped = choose(&host, &usable, cap, 0).context("keeping to KTSTR_CPU_CAP (`--cpu-cap`)")?.cpus;
    Ok((host, capped))
}

/// Has the calling thread, and all it starts, run where the machine is to run. The inner error says who kept it from that.
///
/// # Errors
/// A budget that the host doesn't have; for one, also locks that can't be used. A window is only for speed: without
/// locks there is none.
pub(super) fn prepare(
    settings: &Settings,
    vcpus: u32,
    no_perf: bool,
    declared: Option<u32>,
) -> Result<Result<Place, String>> {
    if settings.bypass_llc_locks && !no_perf {
        return Ok(Ok(Place::default()));
    }
    // For its error: machines with the same cap needn't be on the same CPUs.
    let seen = capped(settings).and_then(|_| usable());
    let is_window = !no_perf && settings.cpu_cap.is_none();
    let taken = seen.and_then(|(host, usable)| {
        let share = Share::of(vcpus, usable.len(), no_perf, declared, settings.cpu_cap);
        if settings.bypass_llc_locks {
            return unlocked(share, &host, &usable).map(Ok);
        }
        take(&Locks::new(&settings.lock_dir), share, &host, &usable, PATIENCE)
    });
    match taken {
        Err(e) if is_window => {
            eprintln!("ktstr: warning: tests in performance mode can't tell that this machine runs: {e:#}");
            Ok(Ok(Place::default()))
        }
        taken => taken,
    }
}

/// How many CPUs a kernel's build is capped to, and a place on LLCs that nobody has to himself, which the calling thread
/// and the compilers that it starts stay on; `None` without a cap.
#[cfg(feature = "cli-bins")]
pub(crate) fn for_build(settings: &Settings) -> Result<Option<(usize, Place)>> {
    let Some(cap) = settings.cpu_cap else { return Ok(None) };
    capped(settings)?;
    let (host, usable) = usable()?;
    let place = take(&Locks::new(&settings.lock_dir), Share::Budget(cap), &host, &usable, PATIENCE)?;
    Ok(Some((cap, place.map_err(|why| anyhow::anyhow!(why))?)))
}

fn unlocked(share: Share, host: &TestTopology, usable: &CpuSet) -> Result<Place> {
    match share {
        Share::Window(_) => Ok(Place::default()),
        Share::Budget(cpus) => {
            let cpus = choose(host, usable, cpus, turn())?.cpus;
            let note = Some(note(&cpus, ""));
            Ok(Place { note, _kept: Some(keep_on(&cpus)?), _lease: None })
        }
    }
}

fn note(cpus: &CpuSet, more: &str) -> String {
    format!("without performance mode: it ran on {} of the host's CPUs ({cpus}){more}", cpus.len())
}

/// Machines that begin at once begin in different places.
fn turn() -> usize {
    std::process::id() as usize
}

fn take(
    locks: &Locks,
    share: Share,
    host: &TestTopology,
    usable: &CpuSet,
    patience: Duration,
) -> Result<Result<Place, String>> {
    let mut wait = Wait::new(patience);
    loop {
        let Some(looking) = wait.for_turn(locks)? else {
            return Ok(Err(contended("waited for its CPUs", patience)));
        };
        let shared = locks.try_share(share, host, usable, turn())??;
        // Whoever waits for somebody else's end lets others look meanwhile.
        drop(looking);
        let busy = match shared {
            Shared::Got(part) => return held(share, part).map(Ok),
            Shared::Busy(busy) => busy,
        };
        let busy = busy.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if !wait.goes_on(Duration::ZERO, &|| format!("a machine in performance mode that has {busy}")) {
            return Ok(Err(contended(&format!("had {busy}"), patience)));
        }
    }
}

fn contended(what: &str, patience: Duration) -> String {
    format!(
        "no CPU of the host was to be had: another test in performance mode {what} for all of {} s; run fewer tests at \
         a time (`--test-threads=1`), or without these locks (KTSTR_BYPASS_LLC_LOCKS=1)",
        patience.as_secs()
    )
}

fn held(share: Share, part: Part) -> Result<Place> {
    let cpus = &part.budget.cpus;
    let note = match share {
        Share::Window(_) => None,
        Share::Budget(_) => {
            Some(note(cpus, if part.own { "" } else { ", which other machines used as well" }))
        }
    };
    Ok(Place { note, _kept: Some(keep_on(cpus)?), _lease: Some(part.lease) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_machine::Placement;

    fn with(cap: Option<usize>, bypass: bool, dir: &Path) -> Settings {
        Settings {
            cpu_cap: cap,
            bypass_llc_locks: bypass,
            lock_dir: dir.to_path_buf(),
            ..Settings::default()
        }
    }

    #[test]
    fn ordinary_machines_never_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let settings = with(None, false, dir.path());
        let (_, before) = usable().unwrap();
        let places: Vec<Place> =
            (0..8).map(|_| prepare(&settings, 2, false, None).unwrap().unwrap()).collect();
        assert!(places.iter().all(|place| place.note.is_none()));
        // The last one first, as each goes back to what was before it.
        places.into_iter().rev().for_each(drop);
        assert_eq!(usable().unwrap().1, before);
    }

    #[test]
    fn a_budget_holds_for_all_that_is_started() {
        let dir = tempfile::tempdir().unwrap();
        for bypass in [false, true] {
            let place = prepare(&with(None, bypass, dir.path()), 4, true, Some(1)).unwrap().unwrap();
            let inside = std::thread::spawn(|| ktstr_host::usable_cpus().unwrap()).join().unwrap();
            assert_eq!(inside.len(), 1);
            let note = place.note.clone().unwrap();
            assert_eq!(note, format!("without performance mode: it ran on 1 of the host's CPUs ({inside})"));
        }
        let too_many = prepare(&with(None, false, dir.path()), 4, true, Some(5000)).err().unwrap();
        assert!(format!("{too_many:#}").contains("budget of 5000 CPUs"), "{too_many:#}");
        let too_many = prepare(&with(Some(5000), false, dir.path()), 4, false, None).err().unwrap();
        let text = format!("{too_many:#}");
        assert!(text.contains("KTSTR_CPU_CAP") && text.contains("may be used here"), "{text}");
    }

    #[cfg(feature = "cli-bins")]
    #[test]
    fn a_kernel_is_built_on_no_more_than_the_cap() {
        let dir = tempfile::tempdir().unwrap();
        let before = usable().unwrap().1;
        assert!(for_build(&with(None, false, dir.path())).unwrap().is_none());
        let (cpus, place) = for_build(&with(Some(1), false, dir.path())).unwrap().unwrap();
        assert_eq!((cpus, usable().unwrap().1.len()), (1, 1));
        drop(place);
        assert_eq!(usable().unwrap().1, before);
    }

    #[test]
    fn whoever_has_the_host_is_waited_for_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let locks = Locks::new(dir.path());
        let (host, usable) = usable().unwrap();
        let llcs: Vec<u32> = host.llcs().iter().map(|llc| llc.id).collect();
        let whole = Placement {
            vcpus: Vec::new(),
            rest: usable.first().unwrap(),
            llcs,
            shared_llc: None,
            memory: Vec::new(),
        };
        let ktstr_host::Taken::All(lease) = locks.try_take(&whole).unwrap() else { panic!("busy") };
        let take = |patience| take(&locks, Share::Window(1), &host, &usable, patience).unwrap();
        let why = take(Duration::from_millis(50)).err().unwrap();
        assert!(why.contains("had LLC") && why.contains("KTSTR_BYPASS_LLC_LOCKS"), "{why}");
        let other = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(lease);
        });
        drop(take(PATIENCE).unwrap());
        other.join().unwrap();
        // And whoever waits for it goes first.
        let turn = locks.try_turn().unwrap();
        let why = take(Duration::from_millis(50)).err().unwrap();
        assert!(why.contains("waited for its CPUs"), "{why}");
        drop(turn);
        drop(take(Duration::ZERO).unwrap());
    }

    #[test]
    fn without_a_place_for_locks_there_is_only_no_window() {
        let nowhere = with(None, false, Path::new("/no/such/directory"));
        assert!(prepare(&nowhere, 1, false, None).unwrap().is_ok());
        let why = format!("{:#}", prepare(&nowhere, 1, true, None).err().unwrap());
        assert!(why.contains("KTSTR_LOCK_DIR"), "{why}");
    }
}
