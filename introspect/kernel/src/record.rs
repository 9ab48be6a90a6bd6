//! Records: the fields of a kernel object, each read by its own plan and each with its own outcome.

use std::fmt;

use ktstr_introspect_memory::{VirtAddr, VirtualMemory};
use ktstr_introspect_types::Plan;

use crate::KernelError;

/// A field's value, or why there is none.
pub type Field<T> = Result<T, KernelError>;

/// A set of CPUs, ascending.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cpus(pub Vec<u32>);

/// Any field's value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// An unsigned number.
    Unsigned(u64),
    /// A signed number.
    Signed(i64),
    /// A flag.
    Flag(bool),
    /// A text.
    Text(String),
    /// A pointer.
    Pointer(VirtAddr),
    /// A set of CPUs (or of nodes).
    Cpus(Cpus),
}

/// A field with the names it goes by.
#[derive(Debug)]
pub struct NamedField<'a> {
    /// Its name in the record.
    pub name: &'static str,
    /// The member path that it was read by.
    pub path: &'a str,
    /// Its value, or why there is none.
    pub value: Result<Value, &'a KernelError>,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unsigned(number) => write!(f, "{number}"),
            Self::Signed(number) => write!(f, "{number}"),
            Self::Flag(flag) => write!(f, "{flag}"),
            Self::Text(text) => f.write_str(text),
            Self::Pointer(pointer) => write!(f, "{pointer}"),
            Self::Cpus(Cpus(cpus)) => {
                let mut first = true;
                for cpu in cpus {
                    write!(f, "{}{cpu}", if first { "" } else { "," })?;
                    first = false;
                }
                Ok(())
            }
        }
    }
}

/// A type that a plan can be read as.
pub trait ReadField: Sized + Clone + Into<Value> {
    /// Reads it from the object at `base`.
    ///
    /// # Errors
    /// [`KernelError::Fault`].
    fn read_field(plan: &Plan, memory: &VirtualMemory, base: VirtAddr) -> Field<Self>;
}

macro_rules! fields {
    ($($ty:ty => $variant:ident, |$plan:ident, $memory:ident, $base:ident| $read:expr;)*) => {$(
        impl ReadField for $ty {
            fn read_field($plan: &Plan, $memory: &VirtualMemory, $base: VirtAddr) -> Field<Self> {
                Ok($read)
            }
        }
        impl From<$ty> for Value {
            fn from(value: $ty) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}
fields! {
    u64 => Unsigned, |plan, memory, base| plan.read(memory, base)?;
    i64 => Signed, |plan, memory, base| plan.read(memory, base)? as i64;
    bool => Flag, |plan, memory, base| plan.read(memory, base)? != 0;
    VirtAddr => Pointer, |plan, memory, base| VirtAddr(plan.read(memory, base)?);
    String => Text, |plan, memory, base| plan.read_text(memory, base)?;
    Cpus => Cpus, |plan, memory, base| cpus_of(&plan.read_bytes(memory, base)?);
}

/// The bits set in a kernel bitmap (lib/bitmap.c: words of 64, lowest first).
pub(crate) fn cpus_of(bytes: &[u8]) -> Cpus {
    let bits = bytes
        .iter()
        .zip(0u32..)
        .flat_map(|(byte, at)| (0..8).map(move |bit| (byte >> bit & 1, at * 8 + bit)));
    Cpus(bits.filter(|(set, _)| *set == 1).map(|(_, at)| at).collect())
}

/// Defines a record and its plans: `field: type = "path" | "older path";`. Each field keeps its own error, so that a
/// member that a kernel lacks costs only itself.
macro_rules! record {
    ($(#[$doc:meta])* $name:ident, $plans:ident, $slot:ident {
        $($(#[$field_doc:meta])* $field:ident: $ty:ty = $($path:literal)|+;)*
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name {
            /// Where it is.
            pub address: ktstr_introspect_memory::VirtAddr,
            $($(#[$field_doc])* pub $field: $crate::Field<$ty>,)*
        }

        #[derive(Debug)]
        pub(crate) struct $plans {
            $($field: Result<ktstr_introspect_types::Plan, ktstr_introspect_types::PlanError>,)*
        }

        impl $name {
            /// Reads the object at `address`, field by field.
            #[must_use]
            pub fn read(kernel: &$crate::Kernel, address: ktstr_introspect_memory::VirtAddr) -> Self {
                let plans = kernel.plans.$slot.get_or_init(|| $plans {
                    $($field: kernel.btf().plan_any(&[$($path),+]),)*
                });
                Self {
                    address,
                    $($field: match &plans.$field {
                        Ok(plan) => <$ty as $crate::ReadField>::read_field(plan, kernel.memory(), address),
                        Err(error) => Err($crate::KernelError::Plan(error.clone())),
                    },)*
                }
            }

            /// All fields, with the paths that this kernel's were read by.
            #[must_use]
            pub fn fields<'a>(&'a self, kernel: &'a $crate::Kernel) -> Vec<$crate::NamedField<'a>> {
                let plans = kernel.plans.$slot.get();
                vec![$($crate::NamedField {
                    name: stringify!($field),
                    path: plans
                        .and_then(|plans| plans.$field.as_ref().ok())
                        .map_or([$($path),+][0], |plan| plan.path()),
                    value: self.$field.as_ref().map(|value| $crate::Value::from(value.clone())),
                },)*]
            }
        }
    };
}
pub(crate) use record;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bitmaps_list_their_bits() {
        assert_eq!(cpus_of(&[0b101, 0, 0, 0, 0, 0, 0, 0x80, 1]), Cpus(vec![0, 2, 63, 64]));
        assert_eq!(Value::Cpus(Cpus(vec![1, 3])).to_string(), "1,3");
    }
}
