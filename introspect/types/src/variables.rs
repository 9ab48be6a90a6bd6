//! Types of a kernel's variables by their addresses.

use std::sync::Arc;

use ktstr_introspect_memory::{StableBytes, VirtAddr};

use crate::{Btf, BtfError, Type, TypeId};

/// The variables of a kernel with their types, as split BTF on top of the kernel's own.
///
/// The kernel has many variables of one name, each static to its file, so they are told apart by link address; one
/// address can be that of several when some of them take no bytes.
#[derive(Debug, Clone)]
pub struct VariableTypes {
    types: Arc<Btf>,
    split: StableBytes,
    /// Link addresses, ascending: two words each.
    addresses: StableBytes,
    /// The [`Type::Variable`] at each address: words.
    ids: StableBytes,
    left_out: u32,
}

impl VariableTypes {
    /// The `variables` that `split` has on top of `base`; of `left_out` others no type could be told.
    ///
    /// # Errors
    /// [`BtfError`] when `split` is no split BTF of `base`.
    pub fn new(
        base: &Arc<Btf>,
        split: Vec<u8>,
        mut variables: Vec<(VirtAddr, TypeId)>,
        left_out: u32,
    ) -> Result<Self, BtfError> {
        let split = StableBytes::from(split);
        let types = Arc::new(Btf::parse_split(split.clone(), base.clone())?);
        variables.sort_unstable();
        let halves = |at: u64| [at as u32, (at >> 32) as u32];
        let addresses: Vec<u32> = variables.iter().flat_map(|(at, _)| halves(at.0)).collect();
        let ids: Vec<u32> = variables.iter().map(|(_, id)| id.0).collect();
        let (addresses, ids) = (StableBytes::of_words(&addresses), StableBytes::of_words(&ids));
        Ok(Self { types, split, addresses, ids, left_out })
    }

    /// The kernel's types and, after them, those that only its variables have.
    #[must_use]
    pub fn types(&self) -> &Arc<Btf> {
        &self.types
    }

    /// The type of the variable at link address `at`. Of several there the one called `name`, of several of those (one
    /// unit may not know an array's length) the one that takes most bytes; where none is called so, as for an alias of
    /// the linker script's (`jiffies`), of all of them. A name with a dot is no alias: it is the compiler's, for a variable
    /// inside a function, which may take no bytes before one that does.
    #[must_use]
    pub fn find(&self, name: &str, at: VirtAddr) -> Option<TypeId> {
        let count = self.ids.words();
        let (mut first, mut end) = (0, count);
        while first < end {
            let middle = first + (end - first) / 2;
            if self.address(middle)? < at.0 { first = middle + 1 } else { end = middle }
        }
        let here = (first..count).take_while(|index| self.address(*index) == Some(at.0));
        let variable = |index: usize| {
            let id = TypeId(self.ids.word(index)?);
            match self.types.get(id).ok()? {
                Type::Variable { name, ty } => Some((name, ty)),
                _ => None,
            }
        };
        let here: Vec<_> = here.filter_map(variable).collect();
        let size = |(_, ty): &&(&str, TypeId)| self.types.size_of(*ty).unwrap_or(0);
        let named = here.iter().filter(|(found, _)| *found == name).max_by_key(size);
        let any = || if name.contains('.') { None } else { here.iter().max_by_key(size) };
        named.or_else(any).map(|(_, ty)| *ty)
    }

    fn address(&self, index: usize) -> Option<u64> {
        let word = |half| self.addresses.word(2 * index + half).map(u64::from);
        Some(word(0)? | word(1)? << 32)
    }

    /// How many variables have a type here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.words()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many variables had a type that could not be told.
    #[must_use]
    pub fn left_out(&self) -> u32 {
        self.left_out
    }

    /// What is in here, for [`VariableTypes::from_parts`].
    #[must_use]
    pub fn parts(&self) -> [StableBytes; 4] {
        let header = StableBytes::of_words(&[self.base_types(), self.base_strings(), self.left_out]);
        [header, self.split.clone(), self.addresses.clone(), self.ids.clone()]
    }

    /// Puts the [`VariableTypes::parts`] of another on top of `base` again; nothing when they don't fit together. Parts
    /// that are broken otherwise give wrong answers or none.
    #[must_use]
    pub fn from_parts([header, split, addresses, ids]: [StableBytes; 4], base: &Arc<Btf>) -> Option<Self> {
        let types = Arc::new(Btf::parse_split(split.clone(), base.clone()).ok()?);
        let this = Self { types, split, addresses, ids, left_out: header.word(2)? };
        let fits = header.word(0)? == base.len()
            && header.word(1)? == base.strings_len()
            && this.ids.len().checked_mul(2)? == this.addresses.len();
        fits.then_some(this)
    }

    fn base_types(&self) -> u32 {
        self.types.base().map_or(0, |base| base.len())
    }

    fn base_strings(&self) -> u32 {
        self.types.base().map_or(0, |base| base.strings_len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BtfBuilder;

    fn base() -> (BtfBuilder, TypeId) {
        let mut build = BtfBuilder::new();
        let int = build.integer("int", 4, true);
        build.structure("pair", 8, &[("a", int, 0), ("b", int, 4)]);
        (build, int)
    }

    fn variables() -> (Arc<Btf>, VariableTypes) {
        let (build, int) = base();
        let base = Arc::new(Btf::parse(build.bytes()).unwrap());
        let pair = base.composite("pair").unwrap();
        let mut split = BtfBuilder::on(&base);
        let none = split.array(int, 0);
        let found = [
            (VirtAddr(0xffff_ffff_8200_0010), split.variable("here", int)),
            (VirtAddr(0xffff_ffff_8200_0000), split.variable("empty", none)),
            (VirtAddr(0xffff_ffff_8200_0000), split.variable("both", pair)),
            (VirtAddr(0xffff_ffff_8200_0000), split.variable("both", none)),
        ];
        let variables = VariableTypes::new(&base, split.bytes(), found.to_vec(), 3).unwrap();
        (base, variables)
    }

    #[test]
    fn a_variable_is_found_by_address_and_told_from_others_there_by_name() {
        let (base, variables) = variables();
        let size = |name, at| Some(variables.types().size_of(variables.find(name, VirtAddr(at))?).unwrap());
        assert_eq!(size("here", 0xffff_ffff_8200_0010), Some(4));
        assert_eq!(size("empty", 0xffff_ffff_8200_0000), Some(0));
        assert_eq!(size("both", 0xffff_ffff_8200_0000), Some(8));
        assert_eq!(size("alias_of_both", 0xffff_ffff_8200_0000), Some(8));
        assert_eq!(size("__key.7", 0xffff_ffff_8200_0000), None);
        assert_eq!((size("here", 0xffff_ffff_8200_0011), size("here", u64::MAX)), (None, None));
        let ty = variables.find("both", VirtAddr(0xffff_ffff_8200_0000)).unwrap();
        assert_eq!(ty, base.composite("pair").unwrap());
        assert_eq!(variables.types().plan_from(ty, ".b").unwrap().offset(), Some(4));
    }

    #[test]
    fn parts_come_back_on_the_same_base_only() {
        let (base, variables) = variables();
        let again = VariableTypes::from_parts(variables.parts(), &base).unwrap();
        assert_eq!((again.len(), again.left_out()), (4, 3));
        assert_eq!(again.find("here", VirtAddr(0xffff_ffff_8200_0010)), base.named("int").next());
        let (mut other, int) = self::base();
        other.pointer(int);
        let other = Arc::new(Btf::parse(other.bytes()).unwrap());
        assert!(VariableTypes::from_parts(variables.parts(), &other).is_none());
        let [header, split, addresses, _] = variables.parts();
        let cut = StableBytes::of_words(&[1]);
        assert!(VariableTypes::from_parts([header, split, addresses, cut], &base).is_none());
    }
}
