//! What is needed for what, and what to do about the part that is missing.

/// A part of the work that has needs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// Booting virtual machines.
    Machine,
    /// Building a kernel from its source package.
    KernelBuild,
    /// Making the machine of `cargo xtask kvm-lab`.
    Lab,
    /// Building the scheduler that tests attach.
    Scheduler,
    /// Running the project's tests.
    Tests,
    /// Building schedulers of the scx project.
    Peers,
}

impl Part {
    /// All but [`Peers`](Self::Peers), which `cargo xtask peers` sees to by itself.
    pub(crate) const ALL: [Self; 5] =
        [Self::Machine, Self::KernelBuild, Self::Lab, Self::Scheduler, Self::Tests];
}

/// How to find out whether something is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Probe {
    /// A program in `PATH`.
    Program(&'static str),
    /// The same, unless `KTSTR_QEMU` names it.
    Qemu(&'static str),
    /// A C header that the compiler finds.
    Header(&'static str),
    /// A subcommand of cargo.
    CargoCommand(&'static str),
}

/// One thing that must be there.
#[derive(Debug)]
pub(super) struct Need {
    /// The program, header or subcommand.
    pub(super) name: &'static str,
    pub(super) part: Part,
    pub(super) probe: Probe,
    /// What it is for.
    pub(super) what: &'static str,
    /// Debian's and Ubuntu's package; cargo-nextest comes from crates.io.
    pub(super) package: Option<&'static str>,
}

const fn program(name: &'static str, part: Part, what: &'static str, package: &'static str) -> Need {
    Need { name, part, probe: Probe::Program(name), what, package: Some(package) }
}

const fn header(name: &'static str, part: Part, what: &'static str, package: &'static str) -> Need {
    Need { name, part, probe: Probe::Header(name), what, package: Some(package) }
}

/// Those of the kernel build were found by building the guest kernel of kconfig/ in
/// an otherwise empty Debian 12: it needs these and nothing else, not even kmod, cpio or rsync. OpenSSL is
/// for trees that sign modules; adapters/kernel-build asks for it in any case.
pub(super) const NEEDS: [Need; 29] = [
    Need {
        name: "qemu-system-x86_64",
        part: Part::Machine,
        probe: Probe::Qemu("qemu-system-x86_64"),
        what: "QEMU, which runs the virtual machines",
        package: Some("qemu-system-x86"),
    },
    program("gcc", Part::KernelBuild, "the kernel's compiler", "gcc"),
    program("make", Part::KernelBuild, "the kernel's build", "make"),
    program("flex", Part::KernelBuild, "kernel build: parses Kconfig", "flex"),
    program("bison", Part::KernelBuild, "kernel build: parses Kconfig", "bison"),
    program("bc", Part::KernelBuild, "kernel build: time constants", "bc"),
    program("pahole", Part::KernelBuild, "kernel build: makes BTF", "dwarves"),
    program("lz4", Part::KernelBuild, "kernel build: compresses the image", "lz4"),
    program("xz", Part::KernelBuild, "unpacks the kernel's source", "xz-utils"),
    program("python3", Part::KernelBuild, "kernel build: generates BPF headers", "python3-minimal"),
    header("stdio.h", Part::KernelBuild, "kernel build: its own tools", "libc6-dev"),
    header("gelf.h", Part::KernelBuild, "kernel build: objtool and BTF", "libelf-dev"),
    header("openssl/opensslv.h", Part::KernelBuild, "kernel build: signatures of modules", "libssl-dev"),
    program("cpio", Part::Lab, "the KVM lab: packs its root file system", "cpio"),
    program("strip", Part::Lab, "the KVM lab: makes its programs small", "binutils"),
    // A part may be needed without the others, so some packages are named twice.
    program("pkg-config", Part::Scheduler, "scx-fixture: libbpf's build", "pkgconf"),
    program("make", Part::Scheduler, "scx-fixture: libbpf's build", "make"),
    header("libelf.h", Part::Scheduler, "scx-fixture: libbpf", "libelf-dev"),
    header("zlib.h", Part::Scheduler, "scx-fixture: libbpf", "zlib1g-dev"),
    program("clang-19", Part::Peers, "schedulers of the scx project: their BPF code", "clang-19"),
    program("pkg-config", Part::Peers, "schedulers of the scx project: libbpf's build", "pkgconf"),
    program("make", Part::Peers, "schedulers of the scx project: libbpf's build", "make"),
    header("libelf.h", Part::Peers, "schedulers of the scx project: libbpf", "libelf-dev"),
    header("zlib.h", Part::Peers, "schedulers of the scx project: libbpf", "zlib1g-dev"),
    header("seccomp.h", Part::Peers, "schedulers of the scx project: scx_lavd", "libseccomp-dev"),
    program("clang-19", Part::Tests, "checks scx-fixture's BPF object against its source", "clang-19"),
    program("iasl", Part::Tests, "reads the monitor's ACPI tables as a second opinion", "acpica-tools"),
    program("llvm-strip-19", Part::Tests, "checks scx-fixture's BPF object against its source", "llvm-19"),
    Need {
        name: "cargo-nextest",
        part: Part::Tests,
        probe: Probe::CargoCommand("nextest"),
        what: "runs the tests",
        package: None,
    },
];

/// How packages are installed, before their names.
pub(super) const INSTALL_WORDS: [&str; 3] = ["install", "-y", "--no-install-recommends"];

/// Whose packages these are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Distribution {
    /// Debian, Ubuntu and what is made from them.
    Debian,
    /// Anything else.
    Other,
}

impl Distribution {
    /// From the text of `/etc/os-release`: `ID` or one of `ID_LIKE`.
    pub(super) fn from_os_release(text: &str) -> Self {
        let debian = text
            .lines()
            .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
            .flat_map(|value| value.trim_matches(['"', '\'']).split_whitespace())
            .any(|id| id == "debian" || id == "ubuntu");
        if debian { Self::Debian } else { Self::Other }
    }
}

/// What this user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rights {
    Root,
    /// `sudo` asks no password.
    Sudo,
    None,
}

/// What to do about what is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plan {
    /// Install these, possibly none.
    Install { packages: Vec<&'static str>, nextest: bool },
    /// A person has to do something first; the text says what.
    Stop(String),
}

/// Decides before anything is done, so that nothing is half done.
pub(super) fn plan(missing: &[&'static Need], distribution: Distribution, rights: Rights) -> Plan {
    let mut packages: Vec<_> = missing.iter().filter_map(|need| need.package).collect();
    let mut seen = std::collections::HashSet::new();
    packages.retain(|package| seen.insert(*package));
    if packages.is_empty() || (distribution == Distribution::Debian && rights != Rights::None) {
        return Plan::Install { packages, nextest: missing.iter().any(|need| need.package.is_none()) };
    }
    if distribution == Distribution::Debian {
        return Plan::Stop(format!(
            "packages are missing, and installing them takes root's rights (sudo is not here or asks a password). \
             Nothing was done yet. Run this, then the same command again:\n\n  \
             sudo apt-get update && sudo apt-get {} {}\n",
            INSTALL_WORDS.join(" "),
            packages.join(" ")
        ));
    }
    let list: Vec<_> = missing
        .iter()
        .filter(|need| need.package.is_some())
        .map(|need| format!("  {} ({})", need.name, need.what))
        .collect();
    Plan::Stop(format!(
        "some things are missing, and this is neither Debian nor Ubuntu, so they can't be installed from here. \
         Nothing was done yet. Install what provides\n\n{}\n\nthen run the same command again.",
        list.join("\n")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(names: &[&str]) -> Vec<&'static Need> {
        for name in names {
            assert!(NEEDS.iter().any(|need| need.name == *name), "unknown name {name}");
        }
        NEEDS.iter().filter(|need| names.contains(&need.name)).collect()
    }

    #[test]
    fn with_rights_packages_and_runner_are_installed() {
        let wanted = Plan::Install { packages: vec!["dwarves", "libelf-dev"], nextest: true };
        for rights in [Rights::Root, Rights::Sudo] {
            let missing = missing(&["pahole", "gelf.h", "cargo-nextest"]);
            assert_eq!(plan(&missing, Distribution::Debian, rights), wanted);
        }
    }

    #[test]
    fn without_rights_it_stops_with_the_one_line_to_run() {
        let Plan::Stop(text) =
            plan(&missing(&["qemu-system-x86_64", "flex"]), Distribution::Debian, Rights::None)
        else {
            panic!("it must not go on");
        };
        let line =
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends qemu-system-x86 flex";
        assert!(text.lines().any(|seen| seen.trim() == line), "{text}");
    }

    #[test]
    fn elsewhere_it_stops_and_names_what_is_to_be_provided() {
        let Plan::Stop(text) = plan(&missing(&["pahole", "gelf.h"]), Distribution::Other, Rights::Root)
        else {
            panic!("it must not go on");
        };
        assert!(text.contains("pahole") && text.contains("gelf.h"), "{text}");
        assert!(!text.contains("apt-get"), "{text}");
    }

    #[test]
    fn what_two_parts_need_is_installed_once() {
        let wanted = Plan::Install { packages: vec!["make", "libelf-dev"], nextest: false };
        assert_eq!(
            plan(&missing(&["make", "gelf.h", "libelf.h"]), Distribution::Debian, Rights::Root),
            wanted
        );
    }

    #[test]
    fn the_runner_alone_needs_no_rights() {
        let wanted = Plan::Install { packages: vec![], nextest: true };
        assert_eq!(plan(&missing(&["cargo-nextest"]), Distribution::Other, Rights::None), wanted);
    }

    #[test]
    fn distributions_are_told_by_their_family() {
        let family = Distribution::from_os_release;
        assert_eq!(family("NAME=x\nID=debian\n"), Distribution::Debian);
        assert_eq!(family("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n"), Distribution::Debian);
        assert_eq!(family("ID=fedora\nID_LIKE=\"rhel\"\n"), Distribution::Other);
        assert_eq!(family("VERSION=\"like debian\"\n"), Distribution::Other);
        assert_eq!(family(""), Distribution::Other);
    }
}
