//! Asking the host for something, and waiting for the answer.
//!
//! The request is a message; the answer appears in a page of this process ([`ktstr_wire::Answer`]).
//! Where there is a bell, the guest rings it after each request and stands still in the middle of
//! that write until the host has answered, so that nothing it can see depends on the host's pace.

use crate::channel::open_port;
use crate::{Channel, InitError};
use ktstr_wire::{ANSWER_LEN, Answer, Call, Message, Request};
use std::fs::File;
use std::io::{Error, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Name of the port that is the bell.
const BELL_PORT: &str = "ktstr.bell";
/// Bytes of one ring: twice what the host's pipe behind the port holds (adapters/qemu).
const RING: [u8; 8192] = [0; 8192];
const PAGE: usize = 4096;
/// How long the host may take, guest time. It stops the guest's clock for most of what it does.
const PATIENCE: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_micros(500);
/// How often the page's place is looked at again: the kernel may move it.
const LOOK_AGAIN: Duration = Duration::from_millis(200);
/// Bits of a `/proc/self/pagemap` entry (Documentation/admin-guide/mm/pagemap.rst).
const PRESENT: u64 = 1 << 63;
const FRAME: u64 = (1 << 55) - 1;

/// A request that was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It could not be sent, or its answer not be received.
    #[error("asking the host: {0}")]
    Broken(#[from] InitError),
    /// The host did not answer.
    #[error("asking the host: no answer within {0:?}")]
    Silent(Duration),
    /// Somebody else was asking.
    #[error("asking the host: another question waits for its answer")]
    Busy,
    /// The host can't do it, and says why.
    #[error("{0}")]
    Refused(String),
}

/// The way to ask the host. One question at a time; it may be shared among threads.
pub struct HostCalls {
    channel: Arc<Channel>,
    inner: Mutex<Inner>,
}

struct Inner {
    page: AnswerPage,
    pagemap: File,
    bell: Option<File>,
    last_id: u64,
}

impl HostCalls {
    /// Prepares to ask over `channel`, ringing after each request if `bell`.
    ///
    /// # Errors
    /// When the kernel refuses the page or does not tell where it lies, or the bell's port does
    /// not appear.
    pub fn open(channel: Arc<Channel>, bell: bool) -> Result<Self, InitError> {
        let page = AnswerPage::new().map_err(InitError::os("reserving a page for the host's answers"))?;
        let doing = "opening /proc/self/pagemap (CONFIG_PROC_PAGE_MONITOR)";
        let pagemap = File::open("/proc/self/pagemap").map_err(InitError::os(doing))?;
        let bell = bell.then(|| open_port(BELL_PORT)).transpose()?;
        Ok(Self { channel, inner: Mutex::new(Inner { page, pagemap, bell, last_id: 0 }) })
    }

    /// Asks during step `step`, `elapsed` after the test began; returns when it was done, with
    /// the value asked for, or 0.
    ///
    /// # Errors
    /// [`AskError`]
    pub fn ask(&self, elapsed: Duration, step: u16, call: Call) -> Result<u64, AskError> {
        // A panic while asking leaves a page that no later id is found in.
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        self.ask_by(&mut inner, elapsed, step, call)
    }

    /// As [`HostCalls::ask`], but not while somebody else asks: of a process that has crashed, that may be for ever.
    ///
    /// # Errors
    /// [`AskError`]
    pub fn ask_unless_busy(&self, elapsed: Duration, step: u16, call: Call) -> Result<u64, AskError> {
        let mut inner = match self.inner.try_lock() {
            Ok(inner) => inner,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(AskError::Busy),
        };
        self.ask_by(&mut inner, elapsed, step, call)
    }

    fn ask_by(&self, inner: &mut Inner, elapsed: Duration, step: u16, call: Call) -> Result<u64, AskError> {
        inner.last_id += 1;
        let id = inner.last_id;
        let elapsed_ms = elapsed.as_millis() as u64;
        let request = |answer_at| Request { id, answer_at, elapsed_ms, step, call: call.clone() };
        let begin = Instant::now();
        let mut place = inner.place()?;
        self.send(inner, request(place))?;
        let mut looked = begin;
        loop {
            if let Some(Answer(answer)) = Answer::find(&inner.page.read(), id) {
                return answer.map_err(AskError::Refused);
            }
            if begin.elapsed() >= PATIENCE {
                return Err(AskError::Silent(PATIENCE));
            }
            if looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                let now = inner.place()?;
                if now != place {
                    // The host answers a request that it knows once more, where it is told.
                    place = now;
                    self.send(inner, request(place))?;
                }
            }
            std::thread::sleep(RETRY);
        }
    }

    fn send(&self, inner: &mut Inner, request: Request) -> Result<(), InitError> {
        self.channel.send(&Message::Request(request))?;
        match &mut inner.bell {
            Some(bell) => bell.write_all(&RING).map_err(InitError::os("ringing the host's bell")),
            None => Ok(()),
        }
    }
}

impl Inner {
    /// The guest-physical address of the page.
    fn place(&self) -> Result<u64, InitError> {
        let doing = "reading /proc/self/pagemap";
        let mut entry = [0; 8];
        let at = (self.page.0.as_ptr() as usize / PAGE * 8) as u64;
        self.pagemap.read_exact_at(&mut entry, at).map_err(InitError::os(doing))?;
        let entry = u64::from_le_bytes(entry);
        match entry & FRAME {
            frame if entry & PRESENT != 0 && frame != 0 => Ok(frame * PAGE as u64),
            _ => {
                let why = format!("expected a page that is present, got {entry:#x}");
                Err(InitError::os(doing)(Error::new(ErrorKind::InvalidData, why)))
            }
        }
    }
}

/// A page that the host writes to. Shared, so that no fork makes the kernel copy it elsewhere.
struct AnswerPage(NonNull<u8>);

// SAFETY: the pointer is to a mapping of our own that lives as long as the value and that is only
// read, with volatile accesses.
unsafe impl Send for AnswerPage {}

impl AnswerPage {
    fn new() -> std::io::Result<Self> {
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let page = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, protection, flags, -1, 0) };
        if page == libc::MAP_FAILED {
            return Err(Error::last_os_error());
        }
        // SAFETY: the mapping was just made and is one page long. Were it not locked, it could be
        // swapped out, which a guest without swap does not do: failing is no harm.
        unsafe {
            libc::mlock(page, PAGE);
            libc::madvise(page, PAGE, libc::MADV_DONTFORK);
        }
        NonNull::new(page.cast()).map(Self).ok_or_else(|| Error::other("mapped at null"))
    }

    /// The answer's bytes as they are now; the host may be writing them.
    fn read(&self) -> [u8; ANSWER_LEN] {
        let mut bytes = [0; ANSWER_LEN];
        // The id is read first and written last, so that an id that is there has its answer.
        for (at, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `at` lies within the mapped page.
            *byte = unsafe { self.0.as_ptr().add(at).read_volatile() };
        }
        bytes
    }
}

const _: () = assert!(ANSWER_LEN <= PAGE);
