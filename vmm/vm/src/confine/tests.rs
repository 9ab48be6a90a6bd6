//! Threads under their filters.

use super::*;
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// Runs `what` on a thread confined as `role`.
fn confined<T: Send + 'static>(role: Role, what: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::Builder::new().name("confined".to_string());
    let thread = thread.spawn(move || {
        confine(role).unwrap();
        what()
    });
    thread.unwrap().join().unwrap()
}

#[test]
fn what_is_forbidden_is_refused_and_named() {
    for role in [Role::Vcpu, Role::Events { disks: false }] {
        let (answer, first, second) = confined(role, || {
            let answer = std::fs::File::open("/proc/self/status").map(drop).unwrap_err().kind();
            (answer, violation(), violation())
        });
        assert_eq!(answer, ErrorKind::PermissionDenied);
        let told = first.unwrap();
        assert!(told.contains("thread confined") && told.contains("openat"), "{told}");
        assert_eq!(second, None, "told once");
    }
    // This thread is as free as before.
    assert!(std::fs::File::open("/proc/self/status").is_ok());
    assert_eq!(violation(), None);
}

#[test]
fn a_forbidden_request_of_an_allowed_call_is_refused() {
    let told = confined(Role::Vcpu, || {
        let mut answer = 0;
        // SAFETY: TIOCGPGRP writes an int, if it does anything.
        let outcome = unsafe { libc::ioctl(0, libc::TIOCGPGRP, &raw mut answer) };
        (outcome, std::io::Error::last_os_error().raw_os_error(), violation())
    });
    assert_eq!((told.0, told.1), (-1, Some(libc::EPERM)));
    assert!(told.2.unwrap().contains("ioctl"));
    let told = confined(Role::Events { disks: false }, || {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let protection = libc::PROT_READ | libc::PROT_EXEC;
        // SAFETY: a new mapping of its own.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
        (at == libc::MAP_FAILED, violation())
    });
    assert!(told.0 && told.1.unwrap().contains("mmap"));
}

#[test]
fn what_threads_need_they_can() {
    for role in [Role::Vcpu, Role::Events { disks: false }] {
        let told = confined(role, || {
            let large = vec![1u8; 64 << 20];
            let (sender, receiver) = std::sync::mpsc::channel::<u8>();
            assert!(receiver.recv_timeout(Duration::from_millis(5)).is_err());
            drop(sender);
            let begin = Instant::now();
            std::thread::sleep(Duration::from_millis(1));
            assert!(begin.elapsed() >= Duration::from_millis(1));
            let map = std::collections::HashMap::from([(1, large.len())]);
            eprintln!("{map:?} on {:?}", std::thread::current().name());
            violation()
        });
        assert_eq!(told, None);
    }
}

/// What a disk does to its file.
fn use_file(file: &std::fs::File) -> std::io::Result<()> {
    let fd = std::os::fd::AsRawFd::as_raw_fd(file);
    let mut bytes = [1u8; 512];
    let piece = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let told = |done: isize| if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) };
    // SAFETY: one piece, which is `bytes`.
    told(unsafe { libc::pwritev(fd, &raw const piece, 1, 0) })?;
    // SAFETY: likewise.
    told(unsafe { libc::preadv(fd, &raw const piece, 1, 0) })?;
    // SAFETY: no pointers.
    told(unsafe { libc::fallocate(fd, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, 0, 512) }
        as isize)?;
    std::os::unix::fs::FileExt::write_all_at(file, &[2; 512], 0)?;
    file.sync_data()
}

#[test]
fn only_a_thread_with_disks_may_use_files_like_one() {
    let file = tempfile::tempfile().unwrap();
    for (role, allowed) in
        [(Role::Events { disks: true }, true), (Role::Events { disks: false }, false), (Role::Vcpu, false)]
    {
        let file = file.try_clone().unwrap();
        let (done, told) = confined(role, move || (use_file(&file), violation()));
        assert_eq!((done.is_ok(), told.is_none()), (allowed, allowed), "{role:?}: {done:?}, {told:?}");
        assert!(told.is_none_or(|told| told.contains("pwritev")));
    }
    // A file is made no longer.
    let told = confined(Role::Events { disks: true }, move || {
        // SAFETY: no pointers.
        let outcome = unsafe { libc::fallocate(std::os::fd::AsRawFd::as_raw_fd(&file), 0, 0, 1 << 20) };
        (outcome, violation())
    });
    assert_eq!(told.0, -1);
    assert!(told.1.unwrap().contains("fallocate"));
}

#[test]
fn a_panic_is_still_a_panic() {
    let thread = std::thread::spawn(|| {
        confine(Role::Events { disks: false }).unwrap();
        panic!("as usual, for a test");
    });
    assert!(thread.join().is_err());
}
