//! Which program a declared scheduler means.

use crate::ports::{ProgramError, Programs};
use crate::{Scheduler, SchedulerSpec};
use std::path::{Path, PathBuf};

/// The cargo profile that schedulers are built with where nothing else is said.
pub const DEFAULT_PROFILE: &str = "release";

/// What the environment wants of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `KTSTR_SCHEDULER_BIN_<NAME>`.
    pub by_name: Option<PathBuf>,
    /// `KTSTR_SCHEDULER`: for every scheduler that is found by name.
    pub for_all: Option<PathBuf>,
    /// `KTSTR_SCHEDULER_PROFILE`: the cargo profile; `None` is [`DEFAULT_PROFILE`].
    pub profile: Option<String>,
    /// `KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK`: after a failed build an earlier program will do.
    pub allow_stale: bool,
}

/// A program, and why it is the one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The program.
    pub program: PathBuf,
    /// Such as `built from package scx_demo, profile release`.
    pub how: String,
    /// What the user should know: a stale program is used.
    pub warning: Option<String>,
}

/// A scheduler whose program can't be had.
#[derive(Debug, thiserror::Error)]
pub enum FindError {
    /// A variable names something that is no program.
    #[error(
        "finding scheduler {name:?}: {variable}={} is no executable file; name the program, or unset it", path.display()
    )]
    Variable {
        /// The scheduler.
        name: String,
        /// The variable.
        variable: String,
        /// Its value.
        path: PathBuf,
    },
    /// The declared path holds no program.
    #[error("finding scheduler {name:?}: {} (from its declaration) is no executable file; build it first", path.display())]
    Path {
        /// The scheduler.
        name: String,
        /// The path, made absolute.
        path: PathBuf,
    },
    /// The build failed.
    #[error(
        "finding scheduler {name:?}: {source}\nan older program is not used unless KTSTR_SCHEDULER_ALLOW_STALE_FALLBACK is set"
    )]
    Build {
        /// The scheduler.
        name: String,
        /// What failed.
        source: Box<ProgramError>,
    },
    /// It is nowhere.
    #[error(
        "finding scheduler {name:?}: no cargo package {binary:?} in the workspace of {}, no program {binary:?} on $PATH; \
         set {variable} to the program, or declare it with `binary_path`", declared_in.display()
    )]
    Nowhere {
        /// The scheduler.
        name: String,
        /// The name looked for.
        binary: String,
        /// Where the declaring package lies.
        declared_in: PathBuf,
        /// The variable that would name it.
        variable: String,
    },
}

/// The variable that names the program of one scheduler: `KTSTR_SCHEDULER_BIN_` and the
/// name in capitals, all that is no letter or digit as `_`.
pub fn per_name_scheduler_env(name: &str) -> String {
    let capital = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    format!("KTSTR_SCHEDULER_BIN_{}", name.chars().map(capital).collect::<String>())
}

/// The program of a scheduler; `None` if it has none (the kernel's own, or built in).
///
/// In this order: the variable of its name, the variable for all, the cargo package of its
/// name in the declaring workspace (built now; a failed build is an error), `$PATH`. A
/// declared path is taken as it is.
///
/// # Errors
/// [`FindError`] says what was looked for and where.
pub fn find(
    scheduler: &Scheduler,
    wanted: &Wanted,
    programs: &dyn Programs,
) -> Result<Option<Found>, FindError> {
    let binary = match scheduler.spec {
        SchedulerSpec::Eevdf | SchedulerSpec::KernelBuiltin { .. } => return Ok(None),
        SchedulerSpec::Path(path) => return declared(scheduler, path, programs).map(Some),
        SchedulerSpec::Discover(binary) => binary,
    };
    let name = scheduler.name;
    let variable = per_name_scheduler_env(binary);
    for (variable, path) in [(variable.as_str(), &wanted.by_name), ("KTSTR_SCHEDULER", &wanted.for_all)] {
        let Some(path) = path else { continue };
        if !programs.is_program(path) {
            let (name, variable, path) = (name.to_string(), variable.to_string(), path.clone());
            return Err(FindError::Variable { name, variable, path });
        }
        return Ok(Some(found(path.clone(), format!("from {variable}"))));
    }
    let dir = Path::new(scheduler.declared_in);
    let failed = |source| FindError::Build { name: name.to_string(), source: Box::new(source) };
    if programs.has_package(dir, binary).map_err(failed)? {
        return build(scheduler, binary, wanted, programs).map(Some);
    }
    match programs.on_path(binary) {
        Some(program) => Ok(Some(found(program, "from $PATH".to_string()))),
        None => Err(FindError::Nowhere {
            name: name.to_string(),
            binary: binary.to_string(),
            declared_in: dir.to_path_buf(),
            variable,
        }),
    }
}

fn declared(scheduler: &Scheduler, path: &str, programs: &dyn Programs) -> Result<Found, FindError> {
    let path = Path::new(scheduler.declared_in).join(path);
    if programs.is_program(&path) {
        return Ok(found(path, "from its declaration".to_string()));
    }
    Err(FindError::Path { name: scheduler.name.to_string(), path })
}

fn build(
    scheduler: &Scheduler,
    package: &str,
    wanted: &Wanted,
    programs: &dyn Programs,
) -> Result<Found, FindError> {
    let dir = Path::new(scheduler.declared_in);
    let profile = wanted.profile.as_deref().unwrap_or(DEFAULT_PROFILE);
    match programs.build(dir, package, profile) {
        Ok(program) => Ok(found(program, format!("built from package {package}, profile {profile}"))),
        Err(source) => {
            let stale = programs.built_before(dir, package, profile).into_iter().next();
            match stale.filter(|_| wanted.allow_stale) {
                Some(program) => Ok(Found {
                    warning: Some(format!("an older {} is used, since {source}", program.display())),
                    ..found(program, format!("an earlier build of package {package}"))
                }),
                None => Err(FindError::Build { name: scheduler.name.to_string(), source: Box::new(source) }),
            }
        }
    }
}

fn found(program: PathBuf, how: String) -> Found {
    Found { program, how, warning: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::MockPrograms;

    const DEMO: Scheduler = Scheduler { declared_in: "/here", ..Scheduler::named("scx-demo") };

    fn world(package: bool, on_path: bool) -> MockPrograms {
        let mut programs = MockPrograms::new();
        programs.expect_is_program().returning(|path| !path.ends_with("missing"));
        programs.expect_has_package().returning(move |dir, name| {
            assert_eq!((dir, name), (Path::new("/here"), "scx-demo"));
            Ok(package)
        });
        programs.expect_on_path().returning(move |name| on_path.then(|| Path::new("/bin").join(name)));
        programs
    }

    fn fails(programs: &mut MockPrograms) {
        programs.expect_build().returning(|dir, package, profile| {
            Err(ProgramError::Build {
                package: package.to_string(),
                profile: profile.to_string(),
                workspace: dir.to_path_buf(),
                status: "exit status: 101".to_string(),
                tail: "error: no".to_string(),
            })
        });
        programs
            .expect_built_before()
            .returning(|_, _, _| vec![PathBuf::from("/here/target/release/scx-demo")]);
    }

    #[test]
    fn the_nearest_word_wins() {
        let by_name = Some(PathBuf::from("/a"));
        let for_all = Some(PathBuf::from("/b"));
        let wanted = Wanted { by_name, for_all: for_all.clone(), ..Wanted::default() };
        let program = |wanted: &Wanted, programs: &MockPrograms| {
            find(&DEMO, wanted, programs).unwrap().unwrap().program.display().to_string()
        };
        assert_eq!(program(&wanted, &world(true, true)), "/a");
        assert_eq!(program(&Wanted { for_all, ..Wanted::default() }, &world(true, true)), "/b");
        let mut built = world(true, true);
        built.expect_build().returning(|_, package, profile| Ok(Path::new("/t").join(profile).join(package)));
        assert_eq!(program(&Wanted::default(), &built), "/t/release/scx-demo");
        let profile = Wanted { profile: Some("dev".to_string()), ..Wanted::default() };
        assert_eq!(program(&profile, &built), "/t/dev/scx-demo");
        assert_eq!(program(&Wanted::default(), &world(false, true)), "/bin/scx-demo");
    }

    #[test]
    fn a_failed_build_is_no_reason_to_test_something_else() {
        let mut programs = world(true, true);
        fails(&mut programs);
        let error = find(&DEMO, &Wanted::default(), &programs).unwrap_err().to_string();
        assert!(error.contains("error: no") && error.contains("ALLOW_STALE_FALLBACK"), "{error}");
        let wanted = Wanted { allow_stale: true, ..Wanted::default() };
        let found = find(&DEMO, &wanted, &programs).unwrap().unwrap();
        assert_eq!(found.program, Path::new("/here/target/release/scx-demo"));
        assert!(found.warning.unwrap().contains("exit status: 101"));
    }

    #[test]
    fn what_is_not_there_is_told_with_the_remedy() {
        let wanted = Wanted { by_name: Some(PathBuf::from("/missing")), ..Wanted::default() };
        let error = find(&DEMO, &wanted, &world(true, true)).unwrap_err().to_string();
        assert!(error.contains("KTSTR_SCHEDULER_BIN_SCX_DEMO=/missing is no executable file"), "{error}");
        let error = find(&DEMO, &Wanted::default(), &world(false, false)).unwrap_err().to_string();
        assert!(error.contains("set KTSTR_SCHEDULER_BIN_SCX_DEMO"), "{error}");
        let path = Scheduler { spec: SchedulerSpec::Path("bin/missing"), ..DEMO };
        let error = find(&path, &Wanted::default(), &world(false, false)).unwrap_err().to_string();
        assert!(error.contains("/here/bin/missing"), "{error}");
    }

    #[test]
    fn the_kernels_own_needs_no_program() {
        assert_eq!(find(&Scheduler::EEVDF, &Wanted::default(), &MockPrograms::new()).unwrap(), None);
    }

    #[test]
    fn variables_have_names_that_a_shell_takes() {
        assert_eq!(per_name_scheduler_env("scx_layered"), "KTSTR_SCHEDULER_BIN_SCX_LAYERED");
        assert_eq!(per_name_scheduler_env("scx-ktstr"), "KTSTR_SCHEDULER_BIN_SCX_KTSTR");
    }
}
