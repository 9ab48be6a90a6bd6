//! The system calls that the boot init makes (arch/x86/entry/syscalls/syscall_64.tbl).
//!
//! Errors are small negative numbers; most are of no consequence here, since the
//! test's own init looks again and says what is missing.

use core::arch::asm;
use core::ffi::CStr;

const READ: usize = 0;
const WRITE: usize = 1;
const OPEN: usize = 2;
const CLOSE: usize = 3;
const MMAP: usize = 9;
const MUNMAP: usize = 11;
const IOCTL: usize = 16;
const PWRITE64: usize = 18;
const NANOSLEEP: usize = 35;
const SOCKET: usize = 41;
const EXECVE: usize = 59;
const FTRUNCATE: usize = 77;
const RENAME: usize = 82;
const MKDIR: usize = 83;
const UNLINK: usize = 87;
const SYMLINK: usize = 88;
const UMASK: usize = 95;
const MKNOD: usize = 133;
const MOUNT: usize = 165;
const REBOOT: usize = 169;
const CLOCK_SETTIME: usize = 227;
const FALLOCATE: usize = 285;

const O_RDWR: usize = 2;
const O_WRONLY: usize = 1;
const O_CREAT: usize = 0o100;
const O_EXCL: usize = 0o200;
const O_CLOEXEC: usize = 0o2_000_000;
const O_SYNC: usize = 0o4_010_000;
const PROT_READ_WRITE: usize = 3;
const MAP_SHARED: usize = 1;
const MAP_POPULATE: usize = 0x8000;
const ENOSPC: isize = 28;
const MS_NOSUID: usize = 2;
const AF_INET: usize = 2;
const SOCK_DGRAM: usize = 2;
/// include/uapi/linux/sockios.h, include/uapi/linux/if.h
const SIOCSIFFLAGS: usize = 0x8914;
const IFF_UP: u16 = 1;
const IFF_RUNNING: u16 = 0x40;
/// include/uapi/asm-generic/ioctls.h
const TCSBRK: usize = 0x5409;
/// include/uapi/linux/random.h
const RNDADDENTROPY: usize = 0x4008_5203;
const RNDRESEEDCRNG: usize = 0x5207;

fn call(number: usize, args: [usize; 6]) -> isize {
    let result;
    // SAFETY: the callers pass pointers to memory that is theirs and long enough;
    // the clobbers are those of the system call convention.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result
}

fn call2(number: usize, a: usize, b: usize) -> isize {
    call(number, [a, b, 0, 0, 0, 0])
}

fn call3(number: usize, a: usize, b: usize, c: usize) -> isize {
    call(number, [a, b, c, 0, 0, 0])
}

/// A descriptor that is closed at the end; PID 1 has few.
pub struct Fd(usize);

impl Fd {
    /// A new, empty file.
    pub fn create(path: *const u8, mode: u32) -> Option<Self> {
        Self::open(path, O_RDWR | O_CREAT | O_EXCL, mode)
    }

    fn open(path: *const u8, flags: usize, mode: u32) -> Option<Self> {
        usize::try_from(call3(OPEN, path as usize, flags, mode as usize)).ok().map(Self)
    }
}

impl Drop for Fd {
    fn drop(&mut self) {
        call2(CLOSE, self.0, 0);
    }
}

fn write_all(fd: usize, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match usize::try_from(call3(WRITE, fd, bytes.as_ptr() as usize, bytes.len())) {
            Ok(n) if n > 0 => bytes = bytes.get(n..).unwrap_or_default(),
            _ => return false,
        }
    }
    true
}

pub fn say(text: &str) {
    say_bytes(text.as_bytes());
}

pub fn say_bytes(text: &[u8]) {
    write_all(1, text);
}

/// Waits until the console has sent what was written (tcdrain(3)).
pub fn drain() {
    call3(IOCTL, 1, TCSBRK, 1);
}

pub fn umask(mask: usize) {
    call2(UMASK, mask, 0);
}

pub fn mkdir(path: *const u8, mode: u32) {
    call2(MKDIR, path as usize, mode as usize);
}

pub fn unlink(path: *const u8) {
    call2(UNLINK, path as usize, 0);
}

pub fn symlink(target: *const u8, path: *const u8) -> bool {
    call2(SYMLINK, target as usize, path as usize) >= 0
}

pub fn mknod(path: *const u8, mode: u32, (major, minor): (u32, u32)) {
    call3(MKNOD, path as usize, mode as usize, (major << 8 | minor) as usize);
}

pub fn mount(fs: &CStr, target: &CStr, data: Option<&CStr>) {
    let fs = fs.as_ptr() as usize;
    let data = data.map_or(0, |data| data.as_ptr() as usize);
    call(MOUNT, [fs, target.as_ptr() as usize, fs, MS_NOSUID, data, 0]);
}

/// Sets `IFF_UP` on `lo` (netdevice(7)).
pub fn loopback_up() {
    let Ok(socket) = usize::try_from(call3(SOCKET, AF_INET, SOCK_DGRAM, 0)) else { return };
    // struct ifreq: a name of 16 bytes, then the flags.
    let mut request = [0_u8; 40];
    request[..2].copy_from_slice(b"lo");
    request[16..18].copy_from_slice(&(IFF_UP | IFF_RUNNING).to_le_bytes());
    call3(IOCTL, socket, SIOCSIFFLAGS, request.as_ptr() as usize);
    call2(CLOSE, socket, 0);
}

/// Bytes read from the file's beginning, 0 if there are none.
pub fn read_file(path: &CStr, buffer: &mut [u8]) -> usize {
    let Some(fd) = Fd::open(path.as_ptr().cast(), 0, 0) else { return 0 };
    let n = call3(READ, fd.0, buffer.as_mut_ptr() as usize, buffer.len());
    usize::try_from(n).unwrap_or(0)
}

pub fn write_file(path: &CStr, at: usize, bytes: &[u8]) {
    if let Some(fd) = Fd::open(path.as_ptr().cast(), O_WRONLY, 0) {
        call(PWRITE64, [fd.0, bytes.as_ptr() as usize, bytes.len(), at, 0, 0]);
    }
}

/// Makes a file that isn't there yet.
pub fn new_file(path: *const u8, mode: u32, content: &[u8]) -> bool {
    Fd::open(path, O_WRONLY | O_CREAT | O_EXCL, mode).is_some_and(|fd| write_all(fd.0, content))
}

/// Writes to a device that stays open until this program becomes another: closing a port
/// is a message to the host of its own.
pub fn send(path: &CStr, bytes: &[u8]) -> bool {
    let fd = Fd::open(path.as_ptr().cast(), O_WRONLY | O_CLOEXEC, 0);
    fd.map(core::mem::ManuallyDrop::new).is_some_and(|fd| write_all(fd.0, bytes))
}

pub fn sleep_ms(ms: i64) {
    let time = [0, ms * 1_000_000];
    call2(NANOSLEEP, time.as_ptr() as usize, 0);
}

pub fn set_clock(seconds: u64, nanos: u64) {
    let time = [seconds, nanos];
    call2(CLOCK_SETTIME, 0, time.as_ptr() as usize);
}

/// Makes the file so long and maps all of it, if there is room.
pub fn mapped_file(fd: &Fd, bytes: usize) -> Option<*mut u8> {
    truncate(fd, bytes);
    // Not every file system can reserve room; one that has none says so now instead of
    // with a signal later.
    if call(FALLOCATE, [fd.0, 0, 0, bytes, 0, 0]) == -ENOSPC {
        return None;
    }
    address(call(MMAP, [0, bytes, PROT_READ_WRITE, MAP_SHARED | MAP_POPULATE, fd.0, 0]))
}

pub fn unmap(memory: &'static mut [u8]) {
    call2(MUNMAP, memory.as_mut_ptr() as usize, memory.len());
}

pub fn truncate(fd: &Fd, bytes: usize) {
    call2(FTRUNCATE, fd.0, bytes);
}

pub fn rename(from: &CStr, to: &CStr) {
    call2(RENAME, from.as_ptr() as usize, to.as_ptr() as usize);
}

/// The first page of a device's registers.
pub fn map_device(path: &CStr) -> Option<*mut u8> {
    let fd = Fd::open(path.as_ptr().cast(), O_RDWR | O_SYNC, 0)?;
    address(call(MMAP, [0, crate::layout::PAGE, PROT_READ_WRITE, MAP_SHARED, fd.0, 0]))
}

fn address(result: isize) -> Option<*mut u8> {
    (!(-4095..=0).contains(&result)).then_some(result as *mut u8)
}

/// Adds entropy, counts it, and has the generator use it at once.
pub fn reseed(pool: &[u8]) {
    if let Some(fd) = Fd::open(c"/dev/random".as_ptr().cast(), O_RDWR, 0) {
        call3(IOCTL, fd.0, RNDADDENTROPY, pool.as_ptr() as usize);
        call3(IOCTL, fd.0, RNDRESEEDCRNG, 0);
    }
}

/// Returns only if it fails.
pub fn exec(path: &CStr) {
    let args = [path.as_ptr(), core::ptr::null()];
    // What the kernel gives its first process (init/main.c, `envp_init`).
    let env = [c"HOME=/".as_ptr(), c"TERM=linux".as_ptr(), core::ptr::null()];
    call3(EXECVE, path.as_ptr() as usize, args.as_ptr() as usize, env.as_ptr() as usize);
}

pub fn power_off() -> ! {
    loop {
        // LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF
        call3(REBOOT, 0xfee1_dead, 0x2812_1969, 0x4321_fedc);
        sleep_ms(1000);
    }
}

/// The compiler calls these by name.
///
/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, bytes: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { asm!("rep movsb", inout("rcx") bytes => _, inout("rdi") to => _, inout("rsi") from => _) };
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, value: i32, bytes: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { asm!("rep stosb", inout("rcx") bytes => _, inout("rdi") to => _, in("al") value as u8) };
    to
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    let mut i = 0;
    while i < bytes {
        // SAFETY: the caller's promise; volatile, so that this loop stays a loop.
        let (x, y) = unsafe { (a.add(i).read_volatile(), b.add(i).read_volatile()) };
        if x != y {
            return i32::from(x) - i32::from(y);
        }
        i += 1;
    }
    0
}

/// # Safety
/// As in C.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(a: *const u8, b: *const u8, bytes: usize) -> i32 {
    // SAFETY: the caller's promise.
    unsafe { memcmp(a, b, bytes) }
}
