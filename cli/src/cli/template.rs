//! `template list | clean`: machines that were saved to be resumed by tests.

use crate::run::template_store;
use anyhow::Result;
use clap::{Args, Subcommand};
use comfy_table::{Table, presets};
use ktstr_kernel::age;
use ktstr_templates::Listed;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

/// `template …`
#[derive(Subcommand)]
pub(super) enum TemplateCommand {
    /// The saved machines, those last used first
    List,
    /// Remove saved machines; those in use stay
    Clean(CleanArgs),
}

/// Arguments of `template clean`.
#[derive(Args)]
pub(super) struct CleanArgs {
    /// Only those whose kernel is gone, and those that can't be used
    #[arg(long)]
    stale_only: bool,
}

pub(super) fn run(command: &TemplateCommand) -> Result<ExitCode> {
    match command {
        TemplateCommand::List => list()?,
        TemplateCommand::Clean(args) => {
            let store = template_store()?;
            let removed = store.clean(&|listed| !args.stale_only || is_stale(listed))?;
            println!("{} removed from {}", removed.len(), store.root().display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes the machines whose kernel is gone; returns how many.
pub(super) fn clean_stale() -> Result<usize> {
    Ok(template_store()?.clean(&is_stale)?.len())
}

fn is_stale(listed: &Listed) -> bool {
    listed.state.as_ref().map_or(true, |found| !found.kernel.path.exists())
}

fn list() -> Result<()> {
    let store = template_store()?;
    let all = store.list()?;
    if all.is_empty() {
        println!("no saved machines in {}; the first test of each kind makes one", store.root().display());
        return Ok(());
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["KEY", "MACHINE", "SIZE", "USED", "KERNEL"]);
    for listed in &all {
        table.add_row(cells(listed));
    }
    let total: u64 = all.iter().map(|l| l.bytes).sum();
    println!("{table}\n{} in all", mib(total));
    Ok(())
}

fn cells(listed: &Listed) -> [String; 5] {
    let seconds = |t: SystemTime| t.duration_since(UNIX_EPOCH).map(|d| d.as_secs()).unwrap_or_default();
    let used = format!("{} ago", age(seconds(SystemTime::now()), seconds(listed.used)));
    let (label, kernel) = match &listed.state {
        Ok(found) => (found.label.clone(), found.kernel.path.display().to_string()),
        Err(why) => (format!("(broken: {why})"), "-".to_string()),
    };
    [listed.key.clone(), label, mib(listed.bytes), used, kernel]
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
