//! PID 1 of a guest: mounts, the channel to the host, watchdog, power off.
//!
//! The test binary is `/init`; its composition root calls [`Guest::start`], runs
//! the test, sends the result through [`Guest::channel`] and ends in
//! [`Guest::power_off`]. May touch everything inside the guest; knows nothing of
//! tests, and must never run anywhere but as PID 1 of a machine of ours.

mod boot;
mod channel;
mod crash;
mod host;
mod kmsg;
mod last_look;
mod mounts;
mod net;
mod power;
mod watchdog;

pub use boot::BOOT_INIT;
pub use channel::Channel;
pub use host::{AskError, HostCalls};
pub use kmsg::{read_kmsg, without_time};
pub use last_look::{LastLook, Look};
pub use mounts::Skipped;
pub use power::power_off;

use ktstr_wire::{LogLevel, Message, Stage};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Name of the framed data port (virtio-console port name).
pub const DATA_PORT: &str = "ktstr.data";
/// Name of the port that carries the raw standard output and error.
pub const STDIO_PORT: &str = "ktstr.stdio";

/// A guest that could not be brought up. The kernel it names is the one under test.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// Not PID 1.
    #[error(
        "starting as a guest's init: expected to be PID 1, got PID {0}; only a machine of ktstr runs this"
    )]
    NotInit(u32),
    /// A file system without which nothing works.
    #[error("mounting {fs} on {target}: {source}; build the kernel with {option}")]
    Mount {
        /// File system type.
        fs: &'static str,
        /// Mount point.
        target: &'static str,
        /// Kernel option that provides it.
        option: &'static str,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// The host's port did not appear.
    #[error(
        "opening the port {name} to the host: no such virtio-console port after {after:?} (seen: {seen}); \
         build the kernel with CONFIG_VIRTIO_CONSOLE=y and CONFIG_VIRTIO_PCI=y"
    )]
    Port {
        /// The port's name.
        name: &'static str,
        /// Ports that there are.
        seen: String,
        /// How long we waited.
        after: Duration,
    },
    /// An operating system call failed.
    #[error("{doing}: {source}")]
    Os {
        /// What was being done, with what.
        doing: String,
        /// The kernel's answer.
        source: std::io::Error,
    },
    /// A message that can't be framed.
    #[error("sending to the host: {0}")]
    Wire(#[from] ktstr_wire::WireError),
    /// A directory that can't be listed.
    #[error("listing {path}: {source}")]
    List {
        /// The directory.
        path: PathBuf,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl InitError {
    pub(crate) fn os(doing: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Os { doing, source }
    }
}

/// A guest that is up: file systems mounted, loopback up, connected to its host.
pub struct Guest {
    channel: Arc<Channel>,
}

impl Guest {
    /// Brings the guest up and greets the host with `build_id`.
    ///
    /// From here on a panic or a deadly signal in this process is reported to the
    /// host, after which the machine powers off.
    pub fn start(build_id: &str) -> Result<Self, InitError> {
        let pid = std::process::id();
        if pid != 1 {
            return Err(InitError::NotInit(pid));
        }
        let skipped = mounts::mount_all()?;
        let channel = Arc::new(Channel::open(DATA_PORT)?);
        channel.send(&Message::hello(build_id))?;
        channel.send(&Message::Stage(Stage::Transport))?;
        channel::redirect_stdio(STDIO_PORT)?;
        crash::install(Arc::clone(&channel))?;
        for skip in skipped {
            channel.send(&Message::Log { level: LogLevel::Warn, text: skip.to_string() })?;
        }
        if let Err(e) = net::loopback_up() {
            channel.send(&Message::Log { level: LogLevel::Warn, text: e.to_string() })?;
        }
        Ok(Self { channel })
    }

    /// The channel to the host; it may be shared among threads.
    pub fn channel(&self) -> &Arc<Channel> {
        &self.channel
    }

    /// Has the machine report and power off when the test is not done `after` this
    /// moment (guest time). A later call replaces the deadline.
    pub fn arm_watchdog(&self, after: Duration) {
        watchdog::arm(after);
    }

    /// No deadline any more.
    pub fn disarm_watchdog(&self) {
        watchdog::disarm();
    }

    /// Sends the kernel log to the host.
    pub fn send_kernel_log(&self) -> Result<(), InitError> {
        let log = read_kmsg().map_err(InitError::os("reading the kernel log"))?;
        self.channel.send_kmsg(log.as_bytes())
    }

    /// Says goodbye and powers the machine off.
    pub fn power_off(self) -> ! {
        // The host sees the machine end in any case.
        let _ = self.channel.send(&Message::Stage(Stage::PowerOff));
        let _ = self.channel.send(&Message::Goodbye);
        power_off()
    }
}

/// Ends a guest that could not be brought up: says why on the console, which is all
/// there is, and powers off.
pub fn give_up(why: &str) -> ! {
    power::console_line(&format!("ktstr: init failed: {why}"));
    power_off()
}
