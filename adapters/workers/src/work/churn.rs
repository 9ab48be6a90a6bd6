//! Changing one's own nice value and affinity.

use crate::meter::Meter;
use crate::setup::{StepError, StepKind, at};
use crate::sys::{self, CpuMask};

/// From -20 to 19 and back, with a chunk of work at each value.
pub(super) fn nice_sweep(meter: &Meter<'_>) {
    while !meter.stop_requested() {
        for nice in (-20..=19).chain((-19..=18).rev()) {
            if meter.stop_requested() {
                return;
            }
            // The set-up has proved that it may; a failure now means that the
            // privilege was taken away, and then the value stays.
            if sys::set_nice(nice).is_ok() {
                meter.add_work(1);
            }
            meter.spin_chunk();
        }
        meter.add_iteration();
    }
}

/// Some work on one CPU, then on to the next of those allowed.
pub(super) fn affinity(meter: &Meter<'_>, index: usize, rounds: u64) -> Result<(), StepError> {
    let initial = at(StepKind::AffinityChurn, sys::affinity())?;
    let mut allowed = initial;
    // Workers begin at different CPUs.
    let mut cpu = nth_cpu(&allowed, index);
    while !meter.stop_requested() {
        meter.spin(rounds);
        cpu = next_cpu(&allowed, cpu);
        match sys::set_affinity(0, &single(cpu)) {
            Ok(()) => meter.add_work(1),
            // The cpuset has changed and this CPU is no longer in it.
            Err(libc::EINVAL) => allowed = at(StepKind::AffinityChurn, allowed_again(&initial))?,
            Err(errno) => return Err(StepError { kind: StepKind::AffinityChurn, errno }),
        }
        meter.tick();
        meter.add_iteration();
    }
    Ok(())
}

/// The CPUs now allowed: the first affinity where the cpuset still has some of it,
/// else all of the cpuset (the kernel intersects with it).
fn allowed_again(initial: &CpuMask) -> Result<CpuMask, i32> {
    let all = [u64::MAX; size_of::<CpuMask>() / 8];
    sys::set_affinity(0, initial).or_else(|_| sys::set_affinity(0, &all))?;
    sys::affinity()
}

fn single(cpu: usize) -> CpuMask {
    let mut mask: CpuMask = [0; size_of::<CpuMask>() / 8];
    if let Some(word) = mask.get_mut(cpu / 64) {
        *word = 1 << (cpu % 64);
    }
    mask
}

fn has(mask: &CpuMask, cpu: usize) -> bool {
    mask.get(cpu / 64).is_some_and(|word| word >> (cpu % 64) & 1 == 1)
}

/// The next CPU of the mask after `cpu`, round and round; `cpu` itself when there is
/// no other.
fn next_cpu(mask: &CpuMask, cpu: usize) -> usize {
    let bits = mask.len() * 64;
    (1..=bits).map(|step| (cpu + step) % bits).find(|&next| has(mask, next)).unwrap_or(cpu)
}

/// The CPU of the mask that `n` steps from its first lead to.
fn nth_cpu(mask: &CpuMask, n: usize) -> usize {
    let count: usize = mask.iter().map(|word| word.count_ones() as usize).sum();
    let first = next_cpu(mask, mask.len() * 64 - 1);
    (0..n.checked_rem(count).unwrap_or(0)).fold(first, |cpu, _| next_cpu(mask, cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(cpus: &[usize]) -> CpuMask {
        let mut mask: CpuMask = [0; size_of::<CpuMask>() / 8];
        cpus.iter().for_each(|cpu| mask[cpu / 64] |= 1 << (cpu % 64));
        mask
    }

    #[test]
    fn cpus_come_round() {
        let m = mask(&[1, 5, 70]);
        assert_eq!([next_cpu(&m, 1), next_cpu(&m, 5), next_cpu(&m, 70)], [5, 70, 1]);
        assert_eq!(next_cpu(&mask(&[3]), 3), 3);
        assert_eq!([0, 1, 2, 3].map(|n| nth_cpu(&m, n)), [1, 5, 70, 1]);
    }

    #[test]
    fn a_single_cpu_is_one_bit() {
        assert!(has(&single(65), 65) && !has(&single(65), 1));
        assert_eq!(single(65).iter().map(|w| w.count_ones()).sum::<u32>(), 1);
    }
}
