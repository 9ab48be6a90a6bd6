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

    /// How many times longer than on hardware a run may take before it counts as
    /// hung; measured on a loaded two-core machine and rounded up.
    pub const fn patience(self) -> u32 {
        match self {
            Self::Kvm => 1,
            Self::Tcg => 4,
            Self::Deterministic => 12,
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
    fn an_unknown_mode_lists_the_known_ones() {
        let text = "KVM".parse::<AccelChoice>().unwrap_err().to_string();
        assert!(text.contains("\"KVM\"") && text.contains("deterministic"), "{text}");
    }
}
