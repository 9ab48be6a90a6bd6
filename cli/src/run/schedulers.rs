//! The schedulers of a test: their programs are found, or built, and packed for the guest.

use super::image::Image;
use crate::registry::KtstrTestEntry;
use crate::settings::Settings;
use anyhow::{Context, Result, anyhow, bail};
use ktstr_initramfs::{Archive, LibrarySearch, closure, without_debug};
use ktstr_scheduler::{
    Found, Program, Scheduler, SchedulerPlan, SchedulerSpec, Wanted, WatchdogOrder, find,
    per_name_scheduler_env,
};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// In guest time; a verifier that is emulated takes its time.
const ATTACH_WITHIN_MS: u64 = 60_000;
/// Where the guest finds programs of schedulers.
const HOME: &str = "/ktstr/schedulers";
const SHELL: &str = "/bin/sh";

/// What a test's schedulers need in the guest.
pub(super) struct Schedulers {
    /// In the order of attaching: the test's own first. Empty under the kernel's own.
    pub(super) plans: Vec<SchedulerPlan>,
    /// Files: path in the guest, mode, content.
    files: Vec<(String, u32, Vec<u8>)>,
    packed: BTreeSet<String>,
}

impl Schedulers {
    /// Finds the programs of a test's schedulers and what they need.
    pub(super) fn of(entry: &KtstrTestEntry, settings: &Settings, image: &Image) -> Result<Self> {
        let spec = &entry.spec;
        let mut all = Self { plans: Vec::new(), files: Vec::new(), packed: image.library_paths() };
        let own = std::iter::once((spec.scheduler, spec.extra_sched_args, spec.config));
        let staged = spec.staged_schedulers.iter().map(|s| (*s, [].as_slice(), None));
        for (scheduler, extra, config) in own.chain(staged).filter(|(s, ..)| !s.is_eevdf()) {
            if let Some(problem) = scheduler.problem() {
                bail!(problem);
            }
            if all.plans.iter().any(|plan| plan.name == scheduler.name) {
                bail!(
                    "staging schedulers: {:?} is given twice; one program serves every start",
                    scheduler.name
                );
            }
            all.config(scheduler, config)?;
            let arguments = scheduler.arguments(config, extra);
            all.add(scheduler, arguments, spec.watchdog_timeout_s, settings)
                .with_context(|| format!("preparing scheduler {:?}", scheduler.name))?;
        }
        Ok(all)
    }

    /// Adds their files to the test's part of the guest.
    pub(super) fn pack(&self, archive: &mut Archive) -> Result<()> {
        for (path, mode, content) in &self.files {
            archive.file(path, *mode, content)?;
        }
        Ok(())
    }

    /// Bytes of their files.
    pub(super) fn len(&self) -> usize {
        self.files.iter().map(|(_, _, content)| content.len()).sum()
    }

    fn add(
        &mut self,
        scheduler: &Scheduler,
        args: Vec<String>,
        watchdog_s: Option<u32>,
        settings: &Settings,
    ) -> Result<()> {
        let watchdog = WatchdogOrder::of(scheduler, watchdog_s).map_err(|why| anyhow!(why))?;
        let program = match scheduler.spec {
            SchedulerSpec::Eevdf => return Ok(()),
            SchedulerSpec::KernelBuiltin { enable, disable } => {
                self.program(Path::new(SHELL), SHELL)?;
                let owned = |commands: &[&str]| commands.iter().map(ToString::to_string).collect();
                Program::Commands { enable: owned(enable), disable: owned(disable) }
            }
            SchedulerSpec::Discover(_) | SchedulerSpec::Path(_) => {
                let found = program_of(scheduler, settings)?;
                let name = found.program.file_name().unwrap_or_default().to_string_lossy();
                let path = format!("{HOME}/{}/{name}", scheduler.name);
                self.program(&found.program, &path)?;
                Program::Binary { path, args }
            }
        };
        self.plans.push(SchedulerPlan {
            name: scheduler.name.to_string(),
            program,
            ops: scheduler.ops.map(String::from),
            sysctls: scheduler.sysctls.iter().map(|s| (s.key.to_string(), s.value.to_string())).collect(),
            attach_within_ms: ATTACH_WITHIN_MS,
            watchdog,
        });
        Ok(())
    }

    /// The configuration file: what the test says is in it, else the declaration's.
    fn config(&mut self, scheduler: &Scheduler, own: Option<&str>) -> Result<()> {
        let Some((path, _)) = scheduler.config_in_guest() else {
            return match own {
                Some(_) => bail!(
                    "configuring scheduler {:?}: the test has a `config`, but the declaration does not say where it \
                     belongs; add `config_file_def = (\"--config={{file}}\", \"/path\")`",
                    scheduler.name
                ),
                None => Ok(()),
            };
        };
        let content = match (own, scheduler.config_file) {
            (Some(text), _) => text.as_bytes().to_vec(),
            (None, Some(file)) => {
                let file = Path::new(scheduler.declared_in).join(file);
                std::fs::read(&file).with_context(|| format!("reading config_file {}", file.display()))?
            }
            (None, None) => return Ok(()),
        };
        if self.files.iter().any(|(known, _, other)| *known == path && *other != content) {
            bail!(
                "configuring scheduler {:?}: another scheduler of the test has another file at {path}; give it a `config_file_def` \
                 with a path of its own",
                scheduler.name
            );
        }
        self.file(path, 0o644, content);
        Ok(())
    }

    fn file(&mut self, path: String, mode: u32, content: Vec<u8>) {
        if self.packed.insert(path.clone()) {
            self.files.push((path, mode, content));
        }
    }

    /// A program with what it takes to run it: its interpreter, its libraries.
    fn program(&mut self, program: &Path, path: &str) -> Result<()> {
        let content = std::fs::read(program).with_context(|| format!("reading {}", program.display()))?;
        if let Some(interpreters) = interpreters(&content, program)? {
            for interpreter in interpreters {
                self.program(&interpreter, &interpreter.display().to_string())?;
            }
            self.file(path.to_string(), 0o755, content);
            return Ok(());
        }
        let search = LibrarySearch::of_system(std::env::var("LD_LIBRARY_PATH").ok().as_deref());
        for library in closure(program, &search)? {
            let content = std::fs::read(&library.source)
                .with_context(|| format!("reading library {}", library.source.display()))?;
            self.file(library.destination.clone(), 0o755, without_debug(&content).into_owned());
        }
        self.file(path.to_string(), 0o755, without_debug(&content).into_owned());
        Ok(())
    }
}

/// The programs that run a script; `None` if it is none.
///
/// `#!/usr/bin/env x` names two; what else the script calls is the user's to bring.
fn interpreters(content: &[u8], script: &Path) -> Result<Option<Vec<PathBuf>>> {
    let Some(rest) = content.strip_prefix(b"#!") else { return Ok(None) };
    let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('-'));
    let first =
        words.next().ok_or_else(|| anyhow!("reading {}: its #! line names nothing", script.display()))?;
    let mut programs = vec![PathBuf::from(first)];
    if first.ends_with("/env") {
        let name = words.next().ok_or_else(|| anyhow!("reading {}: env runs nothing", script.display()))?;
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file());
        programs
            .push(found.ok_or_else(|| anyhow!("reading {}: {name:?} is not on $PATH", script.display()))?);
    }
    Ok(Some(programs))
}

fn program_of(scheduler: &Scheduler, settings: &Settings) -> Result<Found> {
    let by_name = match scheduler.spec {
        SchedulerSpec::Discover(binary) => {
            std::env::var_os(per_name_scheduler_env(binary)).filter(|v| !v.is_empty()).map(PathBuf::from)
        }
        _ => None,
    };
    let wanted = Wanted { by_name, ..settings.scheduler.clone() };
    let found = find(scheduler, &wanted, &super::programs::of_this_host())?;
    let found = found.ok_or_else(|| anyhow!("finding scheduler {:?}: it has no program", scheduler.name))?;
    if let Some(warning) = &found.warning {
        eprintln!("ktstr: warning: scheduler {:?}: {warning}", scheduler.name);
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_brings_its_configuration_where_there_is_a_place_for_it() {
        let empty = || Schedulers { plans: Vec::new(), files: Vec::new(), packed: BTreeSet::new() };
        let plain = Scheduler::named("plain");
        let mut all = empty();
        all.config(&plain, None).unwrap();
        let error = all.config(&plain, Some("{}")).unwrap_err().to_string();
        assert!(error.contains("\"plain\"") && error.contains("add `config_file_def"), "{error}");
        let open = Scheduler { config_file_def: Some(("-c={file}", "/etc/c")), ..plain };
        all.config(&open, None).unwrap();
        assert!(all.files.is_empty(), "no text, no file");
        all.config(&open, Some("{}")).unwrap();
        assert_eq!(all.files, [("/etc/c".to_string(), 0o644, b"{}".to_vec())]);
        all.config(&open, Some("{}")).unwrap();
        let error = all.config(&Scheduler { name: "other", ..open }, Some("[]")).unwrap_err().to_string();
        assert!(error.contains("another file at /etc/c"), "{error}");
        let gone = Scheduler { config_file: Some("no/such/file"), declared_in: "/none", ..open };
        assert!(empty().config(&gone, None).unwrap_err().to_string().contains("/none/no/such/file"));
        let mut own = empty();
        own.config(&gone, Some("mine")).unwrap();
        assert_eq!(own.files[0].2, b"mine", "the declaration's file is not even read");
    }

    #[test]
    fn a_script_names_its_interpreter() {
        let of = |text: &str| interpreters(text.as_bytes(), Path::new("s"));
        assert_eq!(of("\x7fELF").unwrap(), None);
        assert_eq!(of("#!/bin/sh -e\necho").unwrap(), Some(vec![PathBuf::from("/bin/sh")]));
        let env = of("#! /usr/bin/env -S sh\n").unwrap().unwrap();
        assert_eq!(env[0], Path::new("/usr/bin/env"));
        assert!(env[1].ends_with("sh"));
        assert!(of("#!\n").unwrap_err().to_string().contains("names nothing"));
        assert!(of("#!/usr/bin/env no-such-program\n").unwrap_err().to_string().contains("not on $PATH"));
    }
}
