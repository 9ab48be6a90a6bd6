//! Which CPUs the workers of a group may run on, by intent, and how the intent
//! becomes one CPU set a worker.

use ktstr_topology::{CpuSet, TestTopology};

/// CPU affinity of a group's workers (`sched_setaffinity(2)`).
///
/// Except for [`Exact`](Self::Exact), CPUs are taken from those the cgroup may
/// use when the workers start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum AffinityIntent {
    /// Leave it as inherited.
    #[default]
    Inherit,
    /// `count` CPUs drawn from `from`, another draw for each worker.
    RandomSubset {
        /// The CPUs to draw from; empty means all that the cgroup may use.
        from: CpuSet,
        /// How many to draw, at least 1.
        count: usize,
    },
    /// All CPUs of one LLC; workers go round the LLCs.
    LlcAligned,
    /// All CPUs of the machine, whatever the cgroup says (the kernel then
    /// intersects with the cpuset).
    CrossCgroup,
    /// One CPU a worker, going round.
    SingleCpu,
    /// Just these.
    Exact(CpuSet),
    /// The two hyperthreads of one core; workers go round the cores.
    SmtSiblingPair,
}

/// An intent that this machine or cgroup can't satisfy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AffinityError {
    /// No CPU is left to run on.
    #[error("resolving affinity {intent}: no CPU to choose from (the cgroup may use {allowed:?})")]
    NoCpu {
        /// The intent, in words.
        intent: &'static str,
        /// The cgroup's CPUs as a cpulist.
        allowed: String,
    },
    /// More CPUs asked for than there are.
    #[error("resolving affinity random subset: expected a count from 1 to {available}, got {count}")]
    Count {
        /// As given.
        count: usize,
        /// CPUs to draw from.
        available: usize,
    },
    /// SMT siblings on a machine that has none.
    #[error(
        "resolving affinity SMT sibling pair: no core has two allowed hyperthreads; \
         declare `threads = 2` and let the cpuset hold both"
    )]
    NoSiblings,
}

impl AffinityIntent {
    /// Checks that `all` CPUs of the machine hold those named here.
    ///
    /// `seed` decides random draws: the same seed gives the same sets.
    /// The result has one entry a worker; `None` leaves the affinity alone.
    pub fn resolve(
        &self,
        topo: &TestTopology,
        allowed: &CpuSet,
        workers: usize,
        seed: u64,
    ) -> Result<Vec<Option<CpuSet>>, AffinityError> {
        let no_cpu = |intent| AffinityError::NoCpu { intent, allowed: allowed.to_string() };
        let round = |sets: Vec<CpuSet>| (0..workers).map(|w| Some(sets[w % sets.len()].clone())).collect();
        match self {
            Self::Inherit => Ok(vec![None; workers]),
            Self::CrossCgroup => Ok(vec![Some(topo.all_cpuset()); workers]),
            Self::Exact(set) if set.is_empty() => Err(no_cpu("exact set")),
            Self::Exact(set) => Ok(vec![Some(set.clone()); workers]),
            Self::SingleCpu => {
                let singles: Vec<CpuSet> = allowed.iter().map(|c| CpuSet::from_iter([c])).collect();
                if singles.is_empty() { Err(no_cpu("single CPU")) } else { Ok(round(singles)) }
            }
            Self::LlcAligned => {
                let llcs: Vec<CpuSet> = topo
                    .llcs()
                    .iter()
                    .map(|l| l.cpus.intersection(allowed))
                    .filter(|s| !s.is_empty())
                    .collect();
                if llcs.is_empty() { Err(no_cpu("LLC-aligned")) } else { Ok(round(llcs)) }
            }
            Self::SmtSiblingPair => {
                let pairs = sibling_pairs(topo, allowed);
                if pairs.is_empty() { Err(AffinityError::NoSiblings) } else { Ok(round(pairs)) }
            }
            Self::RandomSubset { from, count } => {
                let pool = if from.is_empty() { allowed.clone() } else { from.clone() };
                if *count == 0 || *count > pool.len() {
                    return Err(AffinityError::Count { count: *count, available: pool.len() });
                }
                let mut rng = SplitMix(seed);
                Ok((0..workers).map(|_| Some(draw(&pool, *count, &mut rng))).collect())
            }
        }
    }
}

fn sibling_pairs(topo: &TestTopology, allowed: &CpuSet) -> Vec<CpuSet> {
    let mut pairs: Vec<CpuSet> = Vec::new();
    for cpu in allowed.iter() {
        let siblings = topo.siblings_of(cpu).intersection(allowed);
        if siblings.len() >= 2 && !pairs.contains(&siblings) {
            pairs.push(siblings);
        }
    }
    pairs
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, seedable, the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

fn draw(pool: &CpuSet, count: usize, rng: &mut SplitMix) -> CpuSet {
    let mut cpus: Vec<u32> = pool.iter().collect();
    for i in 0..count {
        let j = i + (rng.next() % (cpus.len() - i) as u64) as usize;
        cpus.swap(i, j);
    }
    cpus.into_iter().take(count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_topology::Topology;
    use proptest::prelude::*;

    fn topo(llcs: u32, cores: u32, threads: u32) -> TestTopology {
        TestTopology::from_vm_topology(&Topology::new(1, llcs, cores, threads).unwrap()).unwrap()
    }

    fn cpus(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    #[test]
    fn single_cpu_goes_round_the_allowed_ones() {
        let sets = AffinityIntent::SingleCpu.resolve(&topo(1, 4, 1), &cpus("1,3"), 3, 0).unwrap();
        assert_eq!(sets, [Some(cpus("1")), Some(cpus("3")), Some(cpus("1"))]);
    }

    #[test]
    fn llc_aligned_stays_inside_the_cpuset() {
        let sets = AffinityIntent::LlcAligned.resolve(&topo(2, 2, 1), &cpus("0-2"), 2, 0).unwrap();
        assert_eq!(sets, [Some(cpus("0-1")), Some(cpus("2"))]);
    }

    #[test]
    fn sibling_pairs_need_smt() {
        let intent = AffinityIntent::SmtSiblingPair;
        assert_eq!(intent.resolve(&topo(1, 4, 1), &cpus("0-3"), 1, 0), Err(AffinityError::NoSiblings));
        let sets = intent.resolve(&topo(1, 2, 2), &cpus("0-3"), 2, 0).unwrap();
        assert_eq!(sets, [Some(cpus("0-1")), Some(cpus("2-3"))]);
    }

    #[test]
    fn a_count_past_the_pool_is_an_error() {
        let intent = AffinityIntent::RandomSubset { from: CpuSet::new(), count: 5 };
        let err = intent.resolve(&topo(1, 4, 1), &cpus("0-3"), 1, 0).unwrap_err();
        assert_eq!(err, AffinityError::Count { count: 5, available: 4 });
    }

    proptest! {
        #[test]
        fn random_subsets_have_their_size_and_repeat_by_seed(seed: u64, count in 1usize..=8, workers in 1usize..5) {
            let (t, all) = (topo(2, 4, 1), cpus("0-7"));
            let intent = AffinityIntent::RandomSubset { from: CpuSet::new(), count };
            let sets = intent.resolve(&t, &all, workers, seed).unwrap();
            prop_assert_eq!(&sets, &intent.resolve(&t, &all, workers, seed).unwrap());
            for set in sets.into_iter().flatten() {
                prop_assert_eq!(set.len(), count);
                prop_assert!(set.is_subset(&all));
            }
        }
    }
}
