//! Linux, saved while its CPUs are at work.

use crate::{Guest, Kernels, Outcome};
use ktstr_topology::Topology;
use ktstr_vmm::VmEnd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a resumed guest takes to its first answer, as part of its boot, is printed: it is
/// to be a tenth.
pub(crate) fn saved_machines_go_on(kernels: &Kernels) -> Outcome {
    let begin = Instant::now();
    let guest = &mut Guest::boot(&kernels.bzimage, Topology::DEFAULT, "rest")?;
    guest.expect("at rest\n")?;
    let boot = begin.elapsed();
    up(guest)?;
    let dir = Dir::make()?;
    let begin = Instant::now();
    guest.vm.pause().map_err(|e| e.to_string())?;
    guest.vm.save(&dir.0, &mut |_, _| true).map_err(|e| e.to_string())?;
    println!("a boot took {boot:.2?}, a save {:.2?}", begin.elapsed());
    // The one that was saved goes on, and so do two copies of it, side by side.
    guest.vm.resume();
    let saved_at = up(guest)?;
    let begin = Instant::now();
    let mut one = Guest::restore(&dir.0, Topology::DEFAULT)?;
    let setup = begin.elapsed();
    one.vm.resume();
    let first = up(&mut one)?;
    let resume = begin.elapsed();
    let part = resume.as_secs_f64() / boot.as_secs_f64();
    println!("a resume took {resume:.2?} to user space, {setup:.2?} of them setup: {part:.3} of the boot");
    for step in one.vm.setup() {
        println!("  {:>9.2?}  {}", step.took, step.what);
    }
    let mut two = Guest::restore(&dir.0, Topology::DEFAULT)?;
    // Time spent saved is none to the guest.
    std::thread::sleep(Duration::from_secs(1));
    two.vm.resume();
    let second = up(&mut two)?;
    if (first - second).abs() > 0.9 || (first - saved_at).abs() > 3.0 {
        return Err(format!("saved up {saved_at} s, resumed up {first} s and {second} s"));
    }
    for guest in [guest, &mut one, &mut two] {
        up(guest)?;
        guest.vm.send(2, b".");
        guest.expect_end(&VmEnd::PowerOff)?;
    }
    Ok(())
}

/// Seconds that the guest says it is up.
fn up(guest: &mut Guest) -> Result<f64, String> {
    guest.vm.send(2, b"?");
    guest.expect("up ")?;
    let seconds = guest.until(" s\n")?;
    seconds.parse().map_err(|e| format!("a guest up {seconds:?} s: {e}"))
}

/// A directory that goes with this.
struct Dir(PathBuf);

impl Dir {
    fn make() -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("ktstr-vmm-saved-{}", std::process::id()));
        std::fs::create_dir_all(&dir).map_err(|e| format!("making {}: {e}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
