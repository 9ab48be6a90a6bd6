//! Tests with a small tree that real make "builds" in an instant.

use ktstr_kernel::ports::KernelBuilder;
use ktstr_kernel::{Arch, CacheKey, Event, Silent};
use tempfile::TempDir;

use super::*;

/// What of kbuild the builder relies on: `O=`, `KCONFIG_ALLCONFIG`, where the
/// outputs are. `DROP` is an option that this kernel doesn't take.
const MAKEFILE: &str = r#"
O ?= .
DROP := NOTHING
allnoconfig:
	@grep -v "^CONFIG_$(DROP)=" "$$KCONFIG_ALLCONFIG" > $(O)/.config
	@echo configured from nothing
olddefconfig:
	@grep -v "^CONFIG_$(DROP)=" $(O)/.config > $(O)/.config.new || true
	@mv $(O)/.config.new $(O)/.config
	@echo settled
mrproper:
	@rm -f .config vmlinux
	@echo cleaned
IMAGE:
	@echo "jobs $(MAKEFLAGS) flags $(KCFLAGS) by $(KBUILD_BUILD_USER) output $(KBUILD_OUTPUT)"
	@mkdir -p $(O)/DIR $(O)/include/config
	@echo 6.12.0-test > $(O)/include/config/kernel.release
	@echo elf > $(O)/vmlinux
	@echo image > $(O)/DIR/IMAGE
"#;

struct Fixture {
    dir: TempDir,
    tree: PathBuf,
    builder: MakeBuilder,
}

fn arch() -> Arch {
    Arch::host().expect("an architecture with guests")
}

impl Fixture {
    fn new() -> Self {
        Self::with("NOTHING", "")
    }

    /// A kernel that doesn't take the option `drop`, and more make rules.
    fn with(drop: &str, rules: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let tree = dir.path().join("linux");
        fs::create_dir(&tree).expect("made");
        let image = Path::new(arch().image_path());
        let parent = image.parent().expect("a directory");
        let makefile = MAKEFILE
            .replace("NOTHING", drop)
            .replace("DIR", &parent.to_string_lossy())
            .replace("IMAGE", arch().image_name());
        fs::write(tree.join("Makefile"), makefile + rules).expect("written");
        fs::write(tree.join("Kconfig"), "").expect("written");
        let builder = MakeBuilder::new(dir.path().join("logs"));
        Self { dir, tree, builder }
    }

    fn job(&self, build_dir: Option<&str>) -> BuildJob {
        BuildJob {
            tree: self.tree.clone(),
            build_dir: build_dir.map(|name| self.dir.path().join(name)),
            arch: arch(),
            extra_kconfig: None,
            clean: false,
            label: CacheKey::new("test-kernel").expect("a key"),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("logs/test-kernel.log")).expect("a log")
    }

    fn config(&self) -> String {
        fs::read_to_string(self.tree.join(".config")).expect("configured")
    }
}

#[derive(Default)]
struct Events(Vec<Event>);

impl Progress for Events {
    fn report(&mut self, event: Event) {
        self.0.push(event);
    }
}

impl Events {
    fn warnings(&self) -> Vec<&str> {
        self.0
            .iter()
            .filter_map(|event| match event {
                Event::Warning(text) => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    fn compile_total(&self) -> Option<u64> {
        self.0.iter().find_map(|event| match event {
            Event::Started { stage: Stage::Compile, total, .. } => *total,
            _ => None,
        })
    }
}

#[test]
fn fetched_source_is_built_apart_from_the_tree() {
    let f = Fixture::new();
    let mut events = Events::default();
    let built = f.builder.build(&f.job(Some("build")), &mut events).expect("built");
    let out = f.dir.path().join("build");
    assert_eq!(built.image, out.join(arch().image_path()));
    assert_eq!(built.vmlinux, out.join("vmlinux"));
    assert_eq!(built.release, "6.12.0-test");
    assert!(built.image.is_file() && built.config.is_file());
    assert!(!f.tree.join(".config").exists() && !f.tree.join("vmlinux").exists());
    let log = f.log();
    assert!(log.contains("configured from nothing"), "{log}");
    assert!(log.contains("flags -Wno-error by ktstr"), "{log}");
    assert_eq!(events.warnings(), Vec::<&str>::new());
    let stages: Vec<_> = events
        .0
        .iter()
        .filter_map(|event| match event {
            Event::Started { stage, .. } => Some(*stage),
            _ => None,
        })
        .collect();
    assert_eq!(stages, [Stage::Configure, Stage::Compile, Stage::Validate]);
}

#[test]
fn the_estimate_is_the_last_builds_number_of_lines() {
    let f = Fixture::new();
    let total = |build_dir| {
        let mut events = Events::default();
        f.builder.build(&f.job(Some(build_dir)), &mut events).expect("built");
        let counted = events.0.iter().rev().find_map(|event| match event {
            Event::Advanced { done, .. } => Some(*done),
            _ => None,
        });
        (events.compile_total(), counted)
    };
    let (first, counted) = total("a");
    assert_eq!(first, Some(TYPICAL_LINES));
    let (second, _) = total("b");
    assert_eq!(second, counted);
    // Built before: how much is left to do is not known.
    assert_eq!(total("b").0, None);
}

#[test]
fn a_configured_tree_keeps_its_configuration_and_gets_the_fragment() {
    let f = Fixture::new();
    fs::write(f.tree.join(".config"), "CONFIG_MINE=y\nCONFIG_ACPI=n\n").expect("written");
    let built = f.builder.build(&f.job(None), &mut Silent).expect("built");
    assert_eq!(built.image, f.tree.join(arch().image_path()));
    let config = f.config();
    assert!(config.contains("CONFIG_MINE=y"));
    assert!(ktstr_kconfig::is_enabled(&config, "ACPI"));
    assert!(f.log().contains("settled"));
    assert!(!f.log().contains("by ktstr"), "the user's own tree");
    // The second time nothing is appended.
    f.builder.build(&f.job(None), &mut Silent).expect("built");
    assert_eq!(f.config(), config);
}

#[test]
fn clean_starts_from_nothing() {
    let f = Fixture::new();
    fs::write(f.tree.join(".config"), "CONFIG_MINE=y\n").expect("written");
    let mut job = f.job(None);
    job.clean = true;
    f.builder.build(&job, &mut Silent).expect("built");
    assert!(f.log().contains("cleaned"));
    assert!(!f.config().contains("CONFIG_MINE"));
}

#[test]
fn a_required_option_that_did_not_stick_stops_before_compiling() {
    let f = Fixture::with("SCHED_CLASS_EXT", "");
    let error = f.builder.build(&f.job(Some("build")), &mut Silent).expect_err("useless");
    let text = error.to_string();
    assert!(matches!(error, BuildError::RequiredOptions { .. }), "{text}");
    assert!(text.contains("CONFIG_SCHED_CLASS_EXT: use Linux 6.12"), "{text}");
    assert!(!f.log().contains("-Wno-error"));
}

#[test]
fn the_user_may_turn_a_required_option_off() {
    let f = Fixture::new();
    let mut job = f.job(Some("build"));
    job.extra_kconfig = Some("CONFIG_SCHED_CLASS_EXT=n\n".into());
    let mut events = Events::default();
    f.builder.build(&job, &mut events).expect("built");
    let expected = "your fragment changes CONFIG_SCHED_CLASS_EXT from y to n";
    assert_eq!(events.warnings(), [expected]);
}

#[test]
fn other_options_that_did_not_stick_are_a_warning() {
    let f = Fixture::with("TASKSTATS", "");
    let mut events = Events::default();
    f.builder.build(&f.job(Some("build")), &mut events).expect("built");
    let expected = "CONFIG_TASKSTATS (wanted y, got n)";
    let warnings = events.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(expected), "{warnings:?}");
}

#[test]
fn bad_lines_of_the_users_fragment_are_found_first() {
    let f = Fixture::new();
    let mut job = f.job(Some("build"));
    job.extra_kconfig = Some("CONFIG_OK=y\nSCHED_DEBUG=y\n".into());
    let error = f.builder.build(&job, &mut Silent).expect_err("bad line");
    assert!(error.to_string().contains("line 2"), "{error}");
    assert!(error.to_string().contains("--extra-kconfig"), "{error}");
}

#[test]
fn a_compile_error_is_shown_with_its_log() {
    let rules = format!(
        "{}: fail\nfail:\n\t@echo 'kernel/sched/ext.c:1: error: bad' >&2; exit 1\n",
        arch().image_name()
    );
    let f = Fixture::with("NOTHING", &rules);
    let error = f.builder.build(&f.job(Some("build")), &mut Silent).expect_err("fails");
    let text = error.to_string();
    assert!(text.contains("kernel/sched/ext.c:1: error: bad"), "{text}");
    assert!(text.contains("test-kernel.log"), "{text}");
}

#[test]
fn a_build_without_an_image_is_an_error() {
    let f = Fixture::new();
    let rules = format!("{}:\n\t@true\n", arch().image_name());
    let allnoconfig = "O ?= .\nallnoconfig:\n\t@cp \"$$KCONFIG_ALLCONFIG\" $(O)/.config\n";
    fs::write(f.tree.join("Makefile"), allnoconfig.to_owned() + &rules).expect("written");
    let error = f.builder.build(&f.job(Some("build")), &mut Silent).expect_err("no image");
    assert!(error.to_string().contains("did not write"), "{error}");
}

#[test]
fn another_architecture_is_refused() {
    let f = Fixture::new();
    let mut job = f.job(Some("build"));
    job.arch = match arch() {
        Arch::X86_64 => Arch::Aarch64,
        Arch::Aarch64 => Arch::X86_64,
    };
    let error = f.builder.build(&job, &mut Silent).expect_err("cross");
    assert!(error.to_string().contains("build it on"), "{error}");
    assert!(f.builder.preflight(job.arch).is_err());
}
