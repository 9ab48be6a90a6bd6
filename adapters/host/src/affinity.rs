//! Keeping a thread, and what it starts from then on, on some of the host's CPUs.

use crate::HostError;
use ktstr_topology::CpuSet;
use std::io::Error;
use std::marker::PhantomData;

/// More CPUs than Linux can be built for (`NR_CPUS`, arch/x86/Kconfig: 8192), in words of a mask.
const WORDS: usize = 16384 / 64;

type Mask = [u64; WORDS];

/// The calling thread stays on some CPUs until this is dropped, on the same thread. Threads and processes that it
/// starts meanwhile stay there for good.
#[derive(Debug)]
pub struct Kept {
    before: Box<Mask>,
    _thread: PhantomData<*const ()>,
}

/// Keeps the calling thread on `cpus`.
///
/// # Errors
/// The system refuses: none of them may be used.
pub fn keep_on(cpus: &CpuSet) -> Result<Kept, HostError> {
    let refused = |source| HostError::Affinity { cpus: cpus.clone(), source };
    let before = Box::new(get().map_err(refused)?);
    set(&mask(cpus)).map_err(refused)?;
    Ok(Kept { before, _thread: PhantomData })
}

impl Drop for Kept {
    fn drop(&mut self) {
        // Fails only where the cpuset has changed and holds none of them: then there is nothing to go back to.
        let _ = set(&self.before);
    }
}

fn mask(cpus: &CpuSet) -> Mask {
    let mut mask = [0; WORDS];
    for cpu in cpus {
        if let Some(word) = mask.get_mut(cpu as usize / 64) {
            *word |= 1 << (cpu % 64);
        }
    }
    mask
}

fn get() -> Result<Mask, Error> {
    let mut mask = [0; WORDS];
    // SAFETY: 0 is the calling thread; `mask` has as many writable bytes as the call is told.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&mask), mask.as_mut_ptr()) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(mask) }
}

fn set(mask: &Mask) -> Result<(), Error> {
    // SAFETY: 0 is the calling thread; `mask` has as many readable bytes as the call is told.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size_of_val(mask), mask.as_ptr()) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usable_cpus;

    #[test]
    fn a_thread_and_what_it_starts_stay_until_it_is_let_go() {
        let before = usable_cpus().unwrap();
        let one = CpuSet::from([before.last().unwrap()]);
        let kept = keep_on(&one).unwrap();
        assert_eq!(usable_cpus().unwrap(), one);
        let started = std::thread::spawn(|| usable_cpus().unwrap()).join().unwrap();
        assert_eq!(started, one);
        drop(kept);
        assert_eq!(usable_cpus().unwrap(), before);
        let why = keep_on(&CpuSet::from([8191])).unwrap_err().to_string();
        assert!(why.contains("CPUs 8191"), "{why}");
        assert_eq!(usable_cpus().unwrap(), before);
    }
}
