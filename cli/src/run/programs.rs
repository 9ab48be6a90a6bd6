//! Programs of schedulers, for test code that wants one itself.

use crate::settings::KTSTR_SCHEDULER_PROFILE_ENV;
use anyhow::{Context, Result};
use ktstr_scheduler::DEFAULT_PROFILE;
use ktstr_scheduler::ports::Programs;
use ktstr_scheduler_programs::HostPrograms;
use std::path::PathBuf;

/// The programs of this host.
pub(super) fn of_this_host() -> HostPrograms {
    HostPrograms {
        path: std::env::var_os("PATH"),
        cargo: std::env::var_os("CARGO").filter(|v| !v.is_empty()).map(PathBuf::from),
    }
}

/// The cargo profile that schedulers are built with: what `KTSTR_SCHEDULER_PROFILE` says, else `release`.
pub fn scheduler_profile_name() -> String {
    let said = std::env::var(KTSTR_SCHEDULER_PROFILE_ENV).ok().filter(|profile| !profile.is_empty());
    said.unwrap_or_else(|| DEFAULT_PROFILE.to_string())
}

/// Builds the binary of that name of the cargo package of that name, in the workspace around the current directory
/// and with the profile of [`scheduler_profile_name`]; where it lies.
///
/// # Errors
/// When there is no such package, or its build fails: an older program is never taken for it.
pub fn build_and_find_binary(package: &str) -> Result<PathBuf> {
    let dir = std::env::current_dir().context("finding the current directory")?;
    Ok(of_this_host().build(&dir, package, &scheduler_profile_name())?)
}
