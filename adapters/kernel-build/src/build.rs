//! The steps of one build, in order.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use ktstr_kernel::ports::{BuildError, BuildJob, Built};
use ktstr_kernel::{Progress, Stage};

use crate::configure::Wanted;
use crate::step::Steps;
use crate::{MakeBuilder, MakeError, tools};

/// Lines that make printed for a 6.12 kernel with the embedded fragment; later
/// builds go by the number of the last one.
const TYPICAL_LINES: u64 = 2015;

/// Variables that would make kbuild do something else than we asked for.
const FOREIGN_VARIABLES: [&str; 8] = [
    // From a make that runs us; its job server is not for us.
    "MAKEFLAGS",
    "MFLAGS",
    "MAKELEVEL",
    // kbuild's own.
    "ARCH",
    "CROSS_COMPILE",
    "KBUILD_OUTPUT",
    "KCONFIG_CONFIG",
    "KCONFIG_ALLCONFIG",
];

/// One build at work.
pub(crate) struct Build<'a> {
    builder: &'a MakeBuilder,
    job: &'a BuildJob,
    /// Where output goes: the build directory or the tree itself.
    out: PathBuf,
    path: OsString,
    steps: Steps,
}

impl<'a> Build<'a> {
    pub(crate) fn start(builder: &'a MakeBuilder, job: &'a BuildJob) -> Result<Self, BuildError> {
        let out = job.build_dir.clone().unwrap_or_else(|| job.tree.clone());
        for dir in [&builder.log_dir, &out] {
            fs::create_dir_all(dir).map_err(MakeError::io("making the directory", dir))?;
        }
        let log = builder.log_dir.join(format!("{}.log", job.label));
        Ok(Self { builder, job, out, path: builder.path(), steps: Steps::new(&job.tree, log)? })
    }

    pub(crate) fn run(mut self, progress: &mut dyn Progress) -> Result<Built, BuildError> {
        let wanted = Wanted::new(self.job.extra_kconfig.as_deref(), progress)?;
        if self.job.clean {
            self.make(&["mrproper"])?;
        }
        let from_nothing = self.configure(&wanted, progress)?;
        self.compile(from_nothing, progress)?;
        progress.started(Stage::Validate, self.subject(), None);
        let built = self.outputs()?;
        // make settles the configuration once more before it compiles.
        wanted.require(&self.job.tree, &self.config()?, self.job.arch)?;
        if self.job.build_dir.is_none() {
            self.compile_commands(progress);
        }
        progress.finished(Stage::Validate);
        Ok(built)
    }

    /// Returns whether there was no configuration before, and so most likely no
    /// object file either.
    fn configure(&mut self, wanted: &Wanted<'_>, progress: &mut dyn Progress) -> Result<bool, BuildError> {
        progress.started(Stage::Configure, self.subject(), None);
        let path = self.out.join(".config");
        let before = read_if_there(&path)?;
        match &before {
            None => self.allnoconfig(wanted)?,
            Some(config) => {
                if !wanted.satisfied_by(config) {
                    wanted.append_to(&path, config)?;
                }
                self.make(&["olddefconfig"])?;
            }
        }
        // Before minutes of compiling rather than after.
        let config = self.config()?;
        wanted.require(&self.job.tree, &config, self.job.arch)?;
        wanted.warn_of_missing(&config, progress);
        progress.finished(Stage::Configure);
        Ok(before.is_none())
    }

    fn allnoconfig(&mut self, wanted: &Wanted<'_>) -> Result<(), BuildError> {
        let fragment = self.builder.log_dir.join(format!("{}.kconfig", self.job.label));
        fs::write(&fragment, &wanted.fragment).map_err(MakeError::io("writing", &fragment))?;
        let fragment = fs::canonicalize(&fragment).map_err(MakeError::io("reading", &fragment))?;
        let mut command = self.command();
        command.arg("allnoconfig").env("KCONFIG_ALLCONFIG", fragment);
        self.steps.run(command, &mut |_| {})?;
        Ok(())
    }

    fn compile(&mut self, from_nothing: bool, progress: &mut dyn Progress) -> Result<(), BuildError> {
        let memory = self.builder.log_dir.join("expected-lines");
        // What is left to do in a tree that was built before is anyone's guess.
        let expected = from_nothing.then(|| recall(&memory));
        progress.started(Stage::Compile, self.subject(), expected);
        let mut command = self.command();
        command
            .arg(format!("-j{}", self.builder.jobs))
            .arg("KCFLAGS=-Wno-error")
            .arg(self.job.arch.image_name());
        let lines = self.steps.run(command, &mut |done| {
            progress.advanced(Stage::Compile, done);
        })?;
        progress.finished(Stage::Compile);
        if from_nothing {
            // Only the next estimate suffers if this fails.
            let _ = fs::write(&memory, lines.to_string());
        }
        Ok(())
    }

    fn outputs(&self) -> Result<Built, MakeError> {
        let release = self.out.join("include/config/kernel.release");
        let built = Built {
            image: self.out.join(self.job.arch.image_path()),
            vmlinux: self.out.join("vmlinux"),
            config: self.out.join(".config"),
            release: read_if_there(&release)?
                .map(|text| text.trim().to_owned())
                .ok_or_else(|| self.no_output(&release))?,
        };
        for file in [&built.image, &built.vmlinux] {
            if !file.is_file() {
                return Err(self.no_output(file));
            }
        }
        Ok(built)
    }

    /// Writes `compile_commands.json` for the user's editor. Not by make's
    /// target of that name, which compiles every module first. Kernels before
    /// 5.4 and machines without Python go without.
    fn compile_commands(&mut self, progress: &mut dyn Progress) {
        let script = self.job.tree.join("scripts/clang-tools/gen_compile_commands.py");
        if !script.is_file() || tools::find(&self.path, "python3").is_none() {
            return;
        }
        let mut command = Command::new("python3");
        command
            .arg(&script)
            .arg("-d")
            .arg(&self.out)
            .arg("-o")
            .arg(self.out.join("compile_commands.json"))
            .env("PATH", &self.path);
        if let Err(error) = self.steps.run(command, &mut |_| {}) {
            progress.warn(format!("compile_commands.json was not written: {error}"));
        }
    }

    fn make(&mut self, targets: &[&str]) -> Result<(), BuildError> {
        let mut command = self.command();
        command.args(targets);
        self.steps.run(command, &mut |_| {})?;
        Ok(())
    }

    fn command(&self) -> Command {
        let mut make = Command::new("make");
        make.arg("-C").arg(&self.job.tree);
        if let Some(dir) = &self.job.build_dir {
            let mut output = OsString::from("O=");
            output.push(dir);
            make.arg(output);
            // The same source gives the same image, whoever builds it when. In
            // a tree of the user's these say which build was booted.
            make.env("KBUILD_BUILD_TIMESTAMP", "Thu Jan  1 00:00:00 UTC 2026")
                .env("KBUILD_BUILD_USER", "ktstr")
                .env("KBUILD_BUILD_HOST", "ktstr");
        }
        for variable in FOREIGN_VARIABLES {
            make.env_remove(variable);
        }
        make.env("PATH", &self.path).env("LC_ALL", "C");
        make
    }

    fn config(&self) -> Result<String, MakeError> {
        let path = self.out.join(".config");
        read_if_there(&path)?.ok_or_else(|| self.no_output(&path))
    }

    fn no_output(&self, missing: &Path) -> MakeError {
        MakeError::NoOutput {
            tree: self.job.tree.clone(),
            missing: missing.to_owned(),
            log: self.steps.log_path().to_owned(),
        }
    }

    /// What the progress calls this build.
    fn subject(&self) -> String {
        match &self.job.build_dir {
            Some(_) => self.job.label.to_string(),
            None => self.job.tree.display().to_string(),
        }
    }
}

fn read_if_there(path: &Path) -> Result<Option<String>, MakeError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MakeError::io("reading", path)(error)),
    }
}

/// The lines of the last build from nothing, or a typical number.
fn recall(memory: &Path) -> u64 {
    fs::read_to_string(memory).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(TYPICAL_LINES)
}

#[cfg(test)]
mod tests;
