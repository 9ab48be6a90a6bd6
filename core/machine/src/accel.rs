//! How guest code is executed.

use std::fmt;
use std::str::FromStr;

/// A way to execute guest code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Accel {
    /// Hardware virtualization under our own VMM.
    Kvm,
    /// QEMU's software emulation, one host thread a vCPU.
    Tcg,
    /// QEMU's software emulation with an instruction-counting clock: a run is the
    /// same, bit for bit, every time.
    Deterministic,
}

impl Accel {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Kvm, Self::Tcg, Self::Deterministic];

    /// The name that `--accel` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
            Self::Deterministic => "deterministic",
        }
    }

    /// How fast it runs guest code where the host's processor is a real one.
    pub const fn pace(self) -> Pace {
        match self {
            Self::Kvm => Pace::Hardware,
            Self::Tcg => Pace::Emulated,
            Self::Deterministic => Pace::Counted,
        }
    }
}

/// How fast guest code runs; slower ones come later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pace {
    /// As fast as the processor does.
    Hardware,
    /// As fast as software emulates a processor, with the host's cores shared as the host likes.
    Emulated,
    /// By counted instructions, on one thread for all vCPUs.
    Counted,
}

impl Pace {
    /// How many times longer than on hardware a run may take before it counts as
    /// hung; measured on a loaded two-core machine and rounded up.
    pub const fn patience(self) -> u32 {
        match self {
            Self::Hardware => 1,
            Self::Emulated => 4,
            Self::Counted => 12,
        }
    }
}

impl fmt::Display for Accel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a user asked for: a mode, or the best that works here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AccelChoice {
    /// The best that works here.
    #[default]
    Auto,
    /// This one or an error.
    Only(Accel),
}

/// A name that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("reading the acceleration mode {0:?}: expected auto, kvm, tcg or deterministic")]
pub struct UnknownAccel(pub String);

impl AccelChoice {
    /// The name that `--accel` takes.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Only(accel) => accel.name(),
        }
    }
}

impl FromStr for AccelChoice {
    type Err = UnknownAccel;

    fn from_str(s: &str) -> Result<Self, UnknownAccel> {
        if s == "auto" {
            return Ok(Self::Auto);
        }
        Accel::ALL
            .into_iter()
            .find(|a| a.name() == s)
            .map(Self::Only)
            .ok_or_else(|| UnknownAccel(s.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_parse_to_what_they_name() {
        for accel in Accel::ALL {
            assert_eq!(accel.name().parse(), Ok(AccelChoice::Only(accel)));
        }
        assert_eq!("auto".parse(), Ok(AccelChoice::Auto));
    }

    #[test]
    fn a_slower_pace_is_given_more_time() {
        let paces = [Pace::Hardware, Pace::Emulated, Pace::Counted];
        assert_eq!(Accel::ALL.map(Accel::pace), paces);
        assert!(paces.is_sorted_by(|one, next| one < next && one.patience() < next.patience()));
    }

    #[test]
    fn an_unknown_mode_lists_the_known_ones() {
        let text = "KVM".parse::<AccelChoice>().unwrap_err().to_string();
        assert!(text.contains("\"KVM\"") && text.contains("deterministic"), "{text}");
    }
}
