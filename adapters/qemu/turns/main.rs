//! What QEMU loads before anything else in deterministic mode, so that its main loop takes turns with the vCPUs.
//!
//! In that mode QEMU's main loop skips idle time: when all vCPUs are halted it moves the guest's clock to the next timer
//! (`icount_start_warp_timer`, softmmu/icount.c). Whether they are it finds out by itself, whenever it happens to be awake.
//! But a vCPU is marked as halted a moment before the instructions of its turn are counted (`helper_hlt` and then
//! `icount_process_data`, accel/tcg/tcg-accel-ops-icount.c). A main loop that is awake in that moment skips as far as the
//! timer from where the turn began, the turn's instructions come on top, and the guest is another one from then on. That is
//! rare on a quiet host, and happens to half of the runs of one whose vCPU thread dawdles there.
//!
//! So the main loop begins a round of its work only while the vCPUs' thread waits for work itself, which it does under
//! QEMU's big lock: whoever holds that lock while the thread waits keeps it waiting. A guest that never rests is not waited
//! for for ever, as the main loop answers the host, too: it is all but sure then that a vCPU is at work.
//!
//! QEMU has no hook for this, so some functions of the C library are taken over, each calling the one that it hides.
//! `build.sh` makes the committed `turns.so`; a test of the crate compares the two.

#![no_std]

use core::ffi::{c_char, c_int, c_long, c_ulong, c_void};
use core::ptr::null_mut;
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering::SeqCst};

/// How long the main loop lets a guest go on that never rests, ns.
const PATIENCE: c_long = 500_000_000;
/// Threads that wait on a condition at a time and are taken note of; one of them runs the vCPUs.
const WAITERS: usize = 64;

const RTLD_NEXT: *mut c_void = -1isize as *mut c_void;
const CLOCK_MONOTONIC: c_int = 1;
const SYS_FUTEX: c_long = 202;
const FUTEX_WAIT_PRIVATE: c_int = 128;
const FUTEX_WAKE_PRIVATE: c_int = 129;

type Mutex = c_void;
type Cond = c_void;

#[repr(C)]
pub struct Timespec {
    seconds: c_long,
    ns: c_long,
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, name: *const c_char) -> *mut c_void;
    fn abort() -> !;
    fn pthread_self() -> usize;
    fn clock_gettime(clock: c_int, time: *mut Timespec) -> c_int;
    fn syscall(number: c_long, ...) -> c_long;
}

/// The thread that loaded this: QEMU's main loop.
static MAIN: AtomicUsize = AtomicUsize::new(0);
/// The main loop has been woken and is yet to take the lock.
static WOKEN: AtomicBool = AtomicBool::new(false);
/// What it has let go of last.
static LET_GO: AtomicPtr<Mutex> = AtomicPtr::new(null_mut());
/// The lock that it lets go of before it waits and takes when it is woken.
static BIG_LOCK: AtomicPtr<Mutex> = AtomicPtr::new(null_mut());
/// What threads other than the main loop's wait under.
static WAITING: [AtomicPtr<Mutex>; WAITERS] = [const { AtomicPtr::new(null_mut()) }; WAITERS];
/// Grows whenever one begins to wait.
static WAITS: AtomicU32 = AtomicU32::new(0);

/// The C library's function of that name, looked up once.
struct Hidden(AtomicPtr<c_void>, &'static core::ffi::CStr);

static LOCK: Hidden = Hidden::new(c"pthread_mutex_lock");
static UNLOCK: Hidden = Hidden::new(c"pthread_mutex_unlock");
static WAIT: Hidden = Hidden::new(c"pthread_cond_wait");
static POLL: Hidden = Hidden::new(c"ppoll");

impl Hidden {
    const fn new(name: &'static core::ffi::CStr) -> Self {
        Self(AtomicPtr::new(null_mut()), name)
    }

    fn get(&self) -> *mut c_void {
        let known = self.0.load(SeqCst);
        if !known.is_null() {
            return known;
        }
        // SAFETY: a string of C's, and the handle that asks for what is hidden by this library.
        let found = unsafe { dlsym(RTLD_NEXT, self.1.as_ptr()) };
        if found.is_null() {
            // SAFETY: takes nothing. There is no way to go on without a lock.
            unsafe { abort() }
        }
        self.0.store(found, SeqCst);
        found
    }
}

fn lock(mutex: *mut Mutex) -> c_int {
    // SAFETY: the function has this type (pthread.h); the mutex is the caller's.
    unsafe {
        let lock: extern "C" fn(*mut Mutex) -> c_int = core::mem::transmute(LOCK.get());
        lock(mutex)
    }
}

fn unlock(mutex: *mut Mutex) -> c_int {
    // SAFETY: the function has this type (pthread.h); the mutex is the caller's.
    unsafe {
        let unlock: extern "C" fn(*mut Mutex) -> c_int = core::mem::transmute(UNLOCK.get());
        unlock(mutex)
    }
}

#[unsafe(link_section = ".init_array")]
#[used]
static BEGIN: extern "C" fn() = begin;

extern "C" fn begin() {
    // SAFETY: takes nothing and can't fail.
    MAIN.store(unsafe { pthread_self() }, SeqCst);
}

fn in_main_loop() -> bool {
    // SAFETY: as above.
    MAIN.load(SeqCst) == unsafe { pthread_self() }
}

/// QEMU's `qemu_poll_ns` is where its main loop waits.
///
/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ppoll(
    fds: *mut c_void,
    count: c_ulong,
    timeout: *const Timespec,
    signals: *const c_void,
) -> c_int {
    type Poll = extern "C" fn(*mut c_void, c_ulong, *const Timespec, *const c_void) -> c_int;
    // SAFETY: the function has this type (poll.h); arguments are the caller's.
    let poll: Poll = unsafe { core::mem::transmute(POLL.get()) };
    let ready = poll(fds, count, timeout, signals);
    if in_main_loop() {
        WOKEN.store(true, SeqCst);
    }
    ready
}

/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_lock(mutex: *mut Mutex) -> c_int {
    if WOKEN.load(SeqCst) && in_main_loop() {
        WOKEN.store(false, SeqCst);
        // Otherwise it has waited for something in the middle of a round.
        if LET_GO.load(SeqCst) == mutex {
            BIG_LOCK.store(mutex, SeqCst);
            return lock_while_vcpus_wait(mutex);
        }
    }
    lock(mutex)
}

/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_mutex_unlock(mutex: *mut Mutex) -> c_int {
    if in_main_loop() {
        LET_GO.store(mutex, SeqCst);
    }
    unlock(mutex)
}

/// # Safety
/// As for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_cond_wait(cond: *mut Cond, mutex: *mut Mutex) -> c_int {
    type Wait = extern "C" fn(*mut Cond, *mut Mutex) -> c_int;
    // SAFETY: the function has this type (pthread.h); arguments are the caller's.
    let wait: Wait = unsafe { core::mem::transmute(WAIT.get()) };
    if in_main_loop() {
        return wait(cond, mutex);
    }
    // Under the lock until the C library lets go of it, and again when it returns.
    let place =
        WAITING.iter().find(|place| place.compare_exchange(null_mut(), mutex, SeqCst, SeqCst).is_ok());
    WAITS.fetch_add(1, SeqCst);
    if BIG_LOCK.load(SeqCst) == mutex {
        // SAFETY: futex(2) on a variable that lives as long as the process.
        unsafe { syscall(SYS_FUTEX, WAITS.as_ptr(), FUTEX_WAKE_PRIVATE, 1) };
    }
    let result = wait(cond, mutex);
    if let Some(place) = place {
        place.store(null_mut(), SeqCst);
    }
    result
}

fn vcpus_wait(big_lock: *mut Mutex) -> bool {
    WAITING.iter().any(|place| place.load(SeqCst) == big_lock)
}

/// Takes the lock when the vCPUs' thread waits under it, or when patience has run out.
fn lock_while_vcpus_wait(big_lock: *mut Mutex) -> c_int {
    let end = now().saturating_add(PATIENCE);
    loop {
        let waits = WAITS.load(SeqCst);
        if vcpus_wait(big_lock) {
            let result = lock(big_lock);
            // It may have been woken before the lock was ours.
            if result != 0 || vcpus_wait(big_lock) {
                return result;
            }
            unlock(big_lock);
        }
        let left = end.saturating_sub(now());
        if left <= 0 {
            return lock(big_lock);
        }
        let left = Timespec { seconds: 0, ns: left.min(PATIENCE) };
        // Whether it was woken, interrupted or timed out is looked at above.
        // SAFETY: futex(2) with a variable and a time that live until it returns.
        unsafe { syscall(SYS_FUTEX, WAITS.as_ptr(), FUTEX_WAIT_PRIVATE, waits, &raw const left) };
    }
}

fn now() -> c_long {
    let mut time = Timespec { seconds: 0, ns: 0 };
    // SAFETY: writes one variable.
    unsafe { clock_gettime(CLOCK_MONOTONIC, &raw mut time) };
    time.seconds * 1_000_000_000 + time.ns
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: takes nothing.
    unsafe { abort() }
}
