//! A small virtual machine monitor for Linux kernels on KVM, to be linked: boots this
//! kernel with this topology, hands over its memory, and says how it ended.
//!
//! ```no_run
//! use ktstr_vmm::{Config, Vm};
//! let kernel = std::fs::File::open("bzImage")?;
//! let topology: ktstr_topology::Topology = "2n4l2c1t".parse()?;
//! let mut config = Config::new(kernel, topology, 1024);
//! config.command_line = "console=ttyS0 panic=-1".to_string();
//! config.console = Box::new(|bytes: &[u8]| print!("{}", String::from_utf8_lossy(bytes)));
//! let vm = Vm::boot(config)?;
//! println!("{:?}", vm.wait(std::time::Duration::from_secs(60)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A machine that is paused can be saved ([`Vm::save`]), and any number of machines go on
//! from there ([`Vm::restore`]), each with its own copy of everything but what is on its
//! disks ([`Disk`]), whose files are whatever they are then.
//!
//! Everything runs in the calling process: a thread a vCPU, and one that serves
//! devices, each under a seccomp filter where [`Config::confine`] says so. When the process
//! ends, however it does, nothing is left.

pub mod arch;
mod bus;
mod config;
mod confine;
mod devices;
mod error;
mod events;
mod probe;
mod restore;
mod save;
mod state_file;
mod threads;
mod time;
mod vm;

pub use bus::{Hit, VmEnd};
pub use config::{Config, Disk, OnTrap};
pub use error::VmError;
pub use ktstr_vmm_boot::Part;
pub use ktstr_vmm_devices::{Sink, virtio::Port, virtio::block::DiskCounts};
pub use ktstr_vmm_memory::{GuestRam, Pages, RamOptions};
pub use ktstr_vmm_vcpu::arch::{Access, Trap, WATCHES, Watch};
pub use ktstr_vmm_vcpu::{Registers, State, VcpuError};
pub use probe::{Probe, emulator, honours_watches, probe, rests_in_guest};
pub use restore::{Restore, saved_identity};
pub use threads::Threads;
pub use vm::{SetupStep, Vm};
