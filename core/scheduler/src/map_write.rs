//! A number that the host writes into a variable of the scheduler's.

use std::fmt;

/// A write into a global variable of a BPF program, after the scheduler has attached and before the scenario begins.
///
/// The variable is found by name through the program's own types (BTF), so it may be any number of 1, 2, 4 or 8 bytes
/// in `.data`, `.bss` or a section of its own: a member of a struct, an element of an array. It is written after the
/// test's own scheduler first attached; a restart in the middle of the scenario begins with the program's own value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BpfMapWrite {
    /// How the map's name ends, such as `.bss`; empty for the first that has the variable.
    pub map_name_suffix: &'static str,
    /// The variable, such as `nr_ticks`, `stats.seen[2]`.
    pub field: &'static str,
    /// What is written; it must fit the variable.
    pub value: u64,
}

impl BpfMapWrite {
    /// `value` into `field` of the map whose name ends so.
    pub const fn new(map_name_suffix: &'static str, field: &'static str, value: u64) -> Self {
        Self { map_name_suffix, field, value }
    }

    /// The place as an expression: `bpf:.bss/nr_ticks`.
    pub fn path(&self) -> String {
        match self.map_name_suffix {
            "" => format!("bpf:{}", self.field),
            suffix => format!("bpf:{suffix}/{}", self.field),
        }
    }

    /// What is wrong with the declaration, if anything.
    pub fn problem(&self) -> Option<String> {
        if self.field.is_empty() {
            return Some(format!(
                "writing {} into a BPF map: expected the variable's name as `field`, such as \"stats.seen[2]\"",
                self.value
            ));
        }
        if self.map_name_suffix.contains('/') || self.field.contains('/') {
            return Some(format!(
                "writing {} into {}: expected a map's name and a variable without `/`",
                self.value,
                self.path()
            ));
        }
        None
    }
}

impl fmt::Display for BpfMapWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {}", self.path(), self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_names_its_place() {
        assert_eq!(BpfMapWrite::new(".bss", "nr[2]", 7).to_string(), "bpf:.bss/nr[2] = 7");
        assert_eq!(BpfMapWrite::new("", "nr", 7).path(), "bpf:nr");
    }

    #[test]
    fn nonsense_is_named() {
        assert_eq!(BpfMapWrite::new("", "nr", 7).problem(), None);
        assert!(BpfMapWrite::new(".bss", "", 7).problem().unwrap().contains("variable's name"));
        assert!(BpfMapWrite::new(".bss/x", "y", 7).problem().unwrap().contains("without `/`"));
    }
}
