//! The channel to the host: framed messages over a virtio-console port.

use crate::InitError;
use ktstr_wire::{Encoder, Message, chunks};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const PORTS: &str = "/sys/class/virtio-ports";
/// The driver announces ports from a work queue shortly after boot.
const APPEARS_WITHIN: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_millis(2);

/// A port that messages are sent to.
pub struct Channel {
    inner: Mutex<Sender>,
}

struct Sender {
    port: File,
    encoder: Encoder,
    buffer: Vec<u8>,
}

impl Channel {
    pub(crate) fn open(name: &'static str) -> Result<Self, InitError> {
        let port = open_port(name)?;
        Ok(Self { inner: Mutex::new(Sender { port, encoder: Encoder::new(), buffer: Vec::new() }) })
    }

    /// Sends one message; returns when the host has it.
    pub fn send(&self, message: &Message) -> Result<(), InitError> {
        // A panic while sending leaves a whole buffer or none, so go on.
        let mut sender = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let Sender { port, encoder, buffer } = &mut *sender;
        buffer.clear();
        encoder.encode(message, buffer)?;
        port.write_all(buffer).map_err(InitError::os("writing to the host's port"))
    }

    /// Sends kernel log bytes, in pieces.
    pub fn send_kmsg(&self, bytes: &[u8]) -> Result<(), InitError> {
        chunks(bytes).try_for_each(|piece| self.send(&Message::Kmsg(piece.to_vec())))
    }
}

/// Makes the port standard output and error: what a test prints reaches the host
/// without going through the slow serial console.
pub(crate) fn redirect_stdio(name: &'static str) -> Result<(), InitError> {
    let port = open_port(name)?;
    for target in [1, 2] {
        // SAFETY: dup2(2) on two open descriptors; the port stays open as fd 1 and 2.
        if unsafe { libc::dup2(port.as_raw_fd(), target) } < 0 {
            return Err(InitError::os("redirecting standard output")(std::io::Error::last_os_error()));
        }
    }
    Ok(())
}

pub(crate) fn open_port(name: &'static str) -> Result<File, InitError> {
    let deadline = Instant::now() + APPEARS_WITHIN;
    loop {
        let (found, seen) = find_port(Path::new(PORTS), name)?;
        if let Some(device) = found {
            match OpenOptions::new().write(true).open(&device) {
                Ok(port) => return Ok(port),
                // devtmpfs makes the node a moment after sysfs shows the port.
                Err(e) if Instant::now() >= deadline => {
                    return Err(InitError::os(format!("opening {}", device.display()))(e));
                }
                Err(_) => {}
            }
        } else if Instant::now() >= deadline {
            return Err(InitError::Port { name, seen: seen.join(", "), after: APPEARS_WITHIN });
        }
        std::thread::sleep(RETRY);
    }
}

/// The device of the port of that name, and all names seen.
fn find_port(class: &Path, name: &str) -> Result<(Option<PathBuf>, Vec<String>), InitError> {
    let entries = match std::fs::read_dir(class) {
        Ok(entries) => entries,
        // No driver yet, or none at all.
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok((None, Vec::new())),
        Err(source) => return Err(InitError::List { path: class.to_path_buf(), source }),
    };
    let mut seen = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| InitError::List { path: class.to_path_buf(), source })?;
        // A port without a name yet gets it with the next message of the device.
        let text = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let text = text.trim();
        if text == name {
            return Ok((Some(Path::new("/dev").join(entry.file_name())), seen));
        }
        seen.push(text.to_string());
    }
    Ok((None, seen))
}
