//! `ktstr topo`: the host in the vocabulary of tests.

use anyhow::Result;
use std::path::Path;
use std::process::ExitCode;

pub(super) fn run() -> Result<ExitCode> {
    let topology = ktstr_procfs::test_topology_from_sysfs(Path::new("/sys"))?;
    print!("{}", ktstr_procfs::render_topology(&topology));
    Ok(ExitCode::SUCCESS)
}
