//! Which of the kernel's locks a sleeping task waits for: by the return addresses on its stack. x86.

use ktstr_introspect_memory::VirtAddr;

use crate::{Kernel, KernelError, Task};

/// How much of the stack is looked at: from where a task was switched from to who sent it to sleep it is less.
const WINDOW: usize = 2048;
const CHUNK: usize = 256;
/// The largest kernel stack: `THREAD_SIZE` with KASAN is 32 KiB, 64 KiB with more of it.
const MAX_STACK: u64 = 64 << 10;
/// A direct call: one byte, then the distance from its end.
const CALL: u8 = 0xe8;
const CALL_LENGTH: u64 = 5;

/// What sends a task to sleep (kernel/sched/core.c, kernel/time/sleep_timeout.c), its own callers among it.
const SLEEPS: [&str; 10] = [
    "__schedule",
    "__schedule_loop",
    "schedule",
    "schedule_preempt_disabled",
    "schedule_rtlock",
    "rt_mutex_schedule",
    "schedule_timeout",
    "schedule_timeout_uninterruptible",
    "io_schedule",
    "io_schedule_timeout",
];

/// Slow paths of locks (kernel/locking/), by how their functions' names begin: compilers inline some into their callers.
const SLOW_PATHS: [&str; 13] = [
    "__mutex_lock",
    "mutex_lock",
    "__ww_mutex_lock",
    "ww_mutex_lock",
    "rwsem_down_",
    "down_read",
    "down_write",
    "__down",
    "percpu_rwsem_wait",
    "__percpu_down_",
    "rt_mutex_",
    "__rt_mutex_",
    "rtlock_slowlock",
];

impl Kernel {
    /// The slow path of a lock that a task which was switched from sleeps in, such as `rwsem_down_write_slowpath`;
    /// nothing when it sleeps for another reason. Who sent it to sleep is the first function up its stack that called the
    /// scheduler and isn't part of it.
    ///
    /// # Errors
    /// The task's own error where its stack isn't known, [`KernelError::Implausible`] when its stack pointer is outside of
    /// its stack, [`KernelError::Read`].
    pub fn lock_slow_path(&self, task: &Task) -> Result<Option<String>, KernelError> {
        let place = |field: &Result<VirtAddr, KernelError>, path| match field {
            Ok(at) => Ok(*at),
            Err(_) => self.read(path, task.address).map(VirtAddr),
        };
        let stack = place(&task.stack, "task_struct.stack")?;
        let sp = place(&task.saved_sp, "task_struct.thread.sp")?;
        if stack.is_null() || sp.0.wrapping_sub(stack.0) >= MAX_STACK {
            let (what, expected) = ("a task's saved stack pointer", "an address in its kernel stack");
            return Err(KernelError::Implausible { what, at: task.address, seen: sp.0, expected });
        }
        let (start, end) = (self.symbol("_stext")?, self.symbol("_etext")?);
        let mut bytes = [0; CHUNK];
        for part in (0..WINDOW as u64).step_by(CHUNK) {
            // Past its end there is no more, which is no failure: it was all looked at.
            let at = sp.wrapping_add(part);
            match self.memory().read(at, &mut bytes) {
                Err(fault) if part == 0 => return Err(KernelError::read("a task's stack")(fault)),
                Err(_) => return Ok(None),
                Ok(()) => {}
            }
            for word in bytes.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)) {
                if (start.0..end.0).contains(&word)
                    && let Some(caller) = self.slept_in(VirtAddr(word))?
                {
                    let is_lock = SLOW_PATHS.iter().any(|path| caller.starts_with(path));
                    return Ok(is_lock.then(|| caller.to_owned()));
                }
            }
        }
        Ok(None)
    }

    /// The function that `back` returns into, without a compiler's suffix, if it is from a call that sends to sleep and
    /// this function is not itself one of those.
    fn slept_in(&self, back: VirtAddr) -> Result<Option<&str>, KernelError> {
        let mut call = [0; CALL_LENGTH as usize];
        let failed = KernelError::read("the kernel's code");
        self.memory().read(back.wrapping_sub(CALL_LENGTH), &mut call).map_err(failed)?;
        let [CALL, distance @ ..] = call else { return Ok(None) };
        let target = back.wrapping_add(i64::from(i32::from_le_bytes(distance)) as u64);
        let called = self.function_at(target);
        if !called.is_some_and(|(name, offset)| offset == 0 && SLEEPS.contains(&name)) {
            return Ok(None);
        }
        let caller = self.function_at(back.wrapping_sub(1)).map(|(name, _)| name);
        Ok(caller.filter(|name| !SLEEPS.contains(name)))
    }

    fn function_at(&self, at: VirtAddr) -> Option<(&str, u64)> {
        let (symbol, offset) = self.symbols().at(at)?;
        Some((symbol.name.split('.').next().unwrap_or(symbol.name), offset))
    }
}
