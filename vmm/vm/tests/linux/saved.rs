//! Linux, saved and resumed.

use crate::{Guest, Kernels, Outcome};
use ktstr_topology::Topology;
use ktstr_vmm::VmEnd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// While its CPUs are at work: the one that was saved goes on, and so do two copies of it.
pub(crate) fn saved_machines_go_on(kernels: &Kernels) -> Outcome {
    let (mut guest, dir, most) = saved(kernels, "busy")?;
    // Time that a machine spends saved is none to its guest.
    std::thread::sleep(Duration::from_secs(5));
    goes_on(&mut guest, most)?;
    let mut one = Guest::restore(&dir.0, Topology::DEFAULT)?;
    goes_on(&mut one, most)?;
    std::thread::sleep(Duration::from_secs(5));
    let mut two = Guest::restore(&dir.0, Topology::DEFAULT)?;
    goes_on(&mut two, most)?;
    for guest in [&mut guest, &mut one, &mut two] {
        up(guest)?;
        guest.vm.send(2, b".");
        guest.expect_end(&VmEnd::PowerOff)?;
    }
    Ok(())
}

/// Resumes a machine that was up for at most `most` seconds: it has been up for no longer than it ran since.
fn goes_on(guest: &mut Guest, most: f64) -> Outcome {
    let begin = Instant::now();
    guest.vm.resume();
    let (up, ran) = (up(guest)?, begin.elapsed().as_secs_f64());
    println!("up {up} s, after at most {most:.1} s and {ran:.1} s more");
    // What it shows has two digits.
    if up > most + ran + 0.1 {
        Err(format!("up {up} s, {most} s and {ran} s expected at most"))
    } else {
        Ok(())
    }
}

/// How long a machine takes to user space's first answer, resumed and booted. The part is to
/// be a tenth; it is told, not judged.
pub(crate) fn a_resume_is_a_part_of_a_boot(kernels: &Kernels) -> Outcome {
    let begin = Instant::now();
    let (guest, dir, _) = saved(kernels, "idle")?;
    drop(guest);
    println!("booted, asked and saved in {:.2?}", begin.elapsed());
    let begin = Instant::now();
    let mut guest = Guest::boot(&kernels.bzimage, Topology::DEFAULT, "idle")?;
    guest.expect("up and about\n")?;
    up(&mut guest)?;
    let boot = begin.elapsed();
    drop(guest);
    let mut resumes = Vec::new();
    for _ in 0..5 {
        let begin = Instant::now();
        let mut guest = Guest::restore(&dir.0, Topology::DEFAULT)?;
        let setup = begin.elapsed();
        guest.vm.resume();
        up(&mut guest)?;
        resumes.push((begin.elapsed(), setup));
        if resumes.len() == 1 {
            for step in guest.vm.setup() {
                println!("  {:>9.2?}  {}", step.took, step.what);
            }
        }
    }
    resumes.sort();
    let (resume, setup) = resumes[resumes.len() / 2];
    let part = resume.as_secs_f64() / boot.as_secs_f64();
    println!("user space answers after {boot:.2?} booted, {resume:.2?} resumed ({setup:.2?} of it setup)");
    println!("a resume is {part:.3} of a boot; the goal is 0.1");
    Ok(())
}

/// A machine that was paused and saved once it had answered, and how many seconds it was up at most.
fn saved(kernels: &Kernels, mode: &str) -> Result<(Guest, Dir, f64), String> {
    let mut guest = Guest::boot(&kernels.bzimage, Topology::DEFAULT, mode)?;
    guest.expect("up and about\n")?;
    let begin = Instant::now();
    let up = up(&mut guest)?;
    let dir = Dir::make()?;
    guest.vm.pause().map_err(|e| e.to_string())?;
    let most = up + begin.elapsed().as_secs_f64();
    guest.vm.save(&dir.0, &mut |_, _| true).map_err(|e| e.to_string())?;
    Ok((guest, dir, most))
}

/// Seconds that the guest says it is up.
fn up(guest: &mut Guest) -> Result<f64, String> {
    guest.vm.send(2, b"?");
    guest.expect("up ")?;
    let seconds = guest.until(" s\n")?;
    seconds.parse().map_err(|e| format!("a guest up {seconds:?} s: {e}"))
}

/// A directory that goes with this.
pub(crate) struct Dir(pub(crate) PathBuf);

impl Dir {
    pub(crate) fn make() -> Result<Self, String> {
        let dir = std::env::temp_dir().join(format!("ktstr-vmm-saved-{}", std::process::id()));
        std::fs::create_dir(&dir).map_err(|e| format!("making {}: {e}", dir.display()))?;
        Ok(Self(dir))
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // What is left lies in a temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
