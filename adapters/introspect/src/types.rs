//! The types that a kernel tells of itself, for probes on its functions.

use ktstr_introspect_types::{Btf, Enumeration, Integer, Leaf, Type, TypeId};
use ktstr_scheduler::ports::{KernelTypes, MemberPlace, Prototype, ValueType};
use std::path::{Path, PathBuf};

/// Names of an enum that go along with a probe.
const MOST_NAMES: usize = 64;

/// The types can't be read.
#[derive(Debug, thiserror::Error)]
#[error(
    "reading the kernel's types from {path}: {why}; a kernel has them when it is built with CONFIG_DEBUG_INFO_BTF"
)]
pub struct TypesError {
    path: PathBuf,
    why: String,
}

/// The types of a kernel, read from its BTF.
pub struct BtfTypes(Btf);

impl BtfTypes {
    /// Where a running kernel shows its own.
    pub const OF_RUNNING: &str = "/sys/kernel/btf/vmlinux";

    /// Reads a file that is all BTF.
    ///
    /// # Errors
    /// When it can't be read, or is none.
    pub fn open(path: &Path) -> Result<Self, TypesError> {
        let failed = |why: String| TypesError { path: path.to_path_buf(), why };
        let bytes = std::fs::read(path).map_err(|e| failed(e.to_string()))?;
        Btf::parse(bytes).map(Self).map_err(|e| failed(e.to_string()))
    }

    /// `None` where BTF is broken; then nothing is known of it.
    fn value(&self, id: TypeId) -> Option<ValueType> {
        Some(match self.0.resolve(id).ok()?.1 {
            Type::Integer(Integer { name: "_Bool", .. }) => ValueType::Truth,
            Type::Integer(Integer { size, signed, .. }) => {
                u8::try_from(size).map_or(ValueType::Other, |size| ValueType::Integer { size, signed })
            }
            Type::Enumeration(all) => self.enumeration(all),
            Type::Pointer(to) => match self.0.resolve(to).ok()?.1 {
                Type::Integer(Integer { name: "char", .. }) => ValueType::Text,
                Type::Struct(of) | Type::Union(of) if !of.name.is_empty() => {
                    ValueType::Pointer(Some(of.name.to_string()))
                }
                _ => ValueType::Pointer(None),
            },
            Type::Array { element, .. } => match self.0.resolve(element).ok()?.1 {
                Type::Integer(Integer { name: "char", .. }) => ValueType::Text,
                _ => ValueType::Other,
            },
            _ => ValueType::Other,
        })
    }

    fn enumeration(&self, all: Enumeration<'_>) -> ValueType {
        let names = all.values().take(MOST_NAMES).filter_map(Result::ok);
        // Values come sign-extended.
        let names = names.map(|(name, value)| (value as i64, name.to_string())).collect();
        u8::try_from(all.size).map_or(ValueType::Other, |size| ValueType::Enumeration { size, names })
    }
}

impl KernelTypes for BtfTypes {
    fn prototype(&self, function: &str) -> Option<Prototype> {
        let found = |id: &TypeId| matches!(self.0.get(*id), Ok(Type::Function { .. }));
        let id = self.0.named(function).find(found)?;
        let Ok(Type::Function { prototype, .. }) = self.0.get(id) else { return None };
        let Ok(Type::Prototype { returns }) = self.0.get(prototype) else { return None };
        let parameters = self.0.parameters(prototype).ok()?;
        let parameters = parameters.into_iter().map(|(name, ty)| Some((name.to_string(), self.value(ty)?)));
        let returns = match self.0.resolve(returns).ok()?.1 {
            Type::Void => None,
            _ => Some(self.value(returns)?),
        };
        Some(Prototype { parameters: parameters.collect::<Option<_>>()?, returns })
    }

    fn member(&self, of: &str, path: &str) -> Option<MemberPlace> {
        let plan = self.0.plan(&format!("{of}.{path}")).ok()?;
        let bits = match plan.leaf() {
            Leaf::Bits { shift, bits, .. } => Some((shift, bits)),
            Leaf::Word { .. } | Leaf::Bytes => None,
        };
        Some(MemberPlace { offsets: plan.offsets().collect(), bits, ty: self.value(plan.ty())? })
    }

    fn callbacks(&self) -> Vec<(String, u64)> {
        let ops = self.0.composite("sched_ext_ops").and_then(|id| self.0.get(id).ok());
        let begin = self.member("bpf_struct_ops_sched_ext_ops", "data").map(|data| data.offsets);
        let (Some(Type::Struct(ops)), Some([begin])) = (ops, begin.as_deref()) else { return Vec::new() };
        let is_function = |ty: TypeId| match self.0.resolve(ty) {
            Ok((_, Type::Pointer(to))) => matches!(self.0.resolve(to), Ok((_, Type::Prototype { .. }))),
            _ => false,
        };
        let members = ops.members().filter_map(Result::ok).filter(|member| is_function(member.ty));
        members.map(|member| (member.name.to_string(), begin + u64::from(member.bit_offset / 8))).collect()
    }

    fn id(&self, of: &str) -> Option<u32> {
        self.0.composite(of).map(|id| id.0)
    }

    fn scalars(&self, of: &str, most: usize) -> Vec<String> {
        let whole = self.0.composite(of).and_then(|id| self.0.get(id).ok());
        let Some(Type::Struct(whole) | Type::Union(whole)) = whole else { return Vec::new() };
        let number = |member: &ktstr_introspect_types::Member<'_>| {
            let ty = self.value(member.ty);
            !member.name.is_empty()
                && matches!(
                    ty,
                    Some(ValueType::Integer { .. } | ValueType::Truth | ValueType::Enumeration { .. })
                )
        };
        let path = |member: ktstr_introspect_types::Member<'_>| match number(&member) {
            true => Some(member.name.to_string()),
            false => self.mask(&member),
        };
        whole.members().filter_map(Result::ok).filter_map(path).take(most).collect()
    }
}

impl BtfTypes {
    /// The path to the first CPUs of a member that is a mask: `struct cpumask`, a pointer to one, or an array of one
    /// (`cpumask_var_t`, include/linux/cpumask_types.h).
    fn mask(&self, member: &ktstr_introspect_types::Member<'_>) -> Option<String> {
        let is_mask =
            |id: TypeId| matches!(self.0.resolve(id), Ok((_, Type::Struct(of))) if of.name == "cpumask");
        let way = match self.0.resolve(member.ty).ok()?.1 {
            Type::Struct(of) if of.name == "cpumask" => ".",
            Type::Pointer(to) if is_mask(to) => "->",
            Type::Array { element, .. } if is_mask(element) => "[0].",
            _ => return None,
        };
        let path = format!("{}{way}bits[0]", member.name);
        (!member.name.is_empty()).then_some(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ktstr_introspect_types::BtfBuilder;

    fn types() -> BtfTypes {
        let mut build = BtfBuilder::new();
        let u32 = build.integer("unsigned int", 4, false);
        let char = build.integer("char", 1, true);
        let truth = build.integer("_Bool", 1, false);
        let name = build.array(char, 16);
        let queue = build.structure("scx_dispatch_q", 16, &[("nr", u32, 0), ("id", u32, 4)]);
        let to_queue = build.pointer(queue);
        let task = build.structure("task_struct", 32, &[("dsq", to_queue, 8), ("comm", name, 16)]);
        let to_task = build.pointer(task);
        let long = build.integer("unsigned long", 8, false);
        let bits = build.array(long, 4);
        let mask = build.structure("cpumask", 32, &[("bits", bits, 0)]);
        let (to_mask, masks) = (build.pointer(mask), build.array(mask, 1));
        build.structure(
            "cpu_ctx",
            80,
            &[("nr", u32, 0), ("idle", to_mask, 8), ("own", mask, 16), ("var", masks, 48)],
        );
        build.function("dispatch", &[("p", to_task), ("now", truth)], u32);
        let proto = build.prototype(u32);
        let callback = build.pointer(proto);
        let ops = build.structure(
            "sched_ext_ops",
            24,
            &[("flags", u32, 0), ("enqueue", callback, 8), ("exit", callback, 16)],
        );
        build.structure("bpf_struct_ops_sched_ext_ops", 88, &[("state", u32, 0), ("data", ops, 64)]);
        BtfTypes(Btf::parse(build.bytes()).unwrap())
    }

    #[test]
    fn functions_and_members_are_told() {
        let types = types();
        let prototype = types.prototype("dispatch").unwrap();
        let p = ValueType::Pointer(Some("task_struct".to_string()));
        assert_eq!(prototype.parameters, [("p".to_string(), p), ("now".to_string(), ValueType::Truth)]);
        assert_eq!(prototype.returns, Some(ValueType::Integer { size: 4, signed: false }));
        assert_eq!(types.prototype("task_struct"), None);
        let place = types.member("task_struct", "dsq->id").unwrap();
        assert_eq!((place.offsets, place.bits), (vec![8, 4], None));
        assert_eq!(types.member("task_struct", "comm").unwrap().ty, ValueType::Text);
        assert_eq!(types.member("task_struct", "none"), None);
        assert_eq!(types.scalars("scx_dispatch_q", 1), ["nr"]);
        assert_eq!(types.scalars("task_struct", 4), [""; 0]);
        let masks = ["nr", "idle->bits[0]", "own.bits[0]", "var[0].bits[0]"];
        assert_eq!(types.scalars("cpu_ctx", 4), masks);
        let offsets = masks.map(|path| types.member("cpu_ctx", path).map(|place| place.offsets));
        assert_eq!(offsets, [Some(vec![0]), Some(vec![8, 0]), Some(vec![16]), Some(vec![48])]);
        let callbacks = [("enqueue".to_string(), 72), ("exit".to_string(), 80)];
        assert_eq!(types.callbacks(), callbacks);
        assert!(types.id("task_struct") > types.id("scx_dispatch_q") && types.id("dispatch").is_none());
    }

    #[test]
    fn a_kernel_without_types_says_what_it_lacks() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let Err(e) = BtfTypes::open(file.path()) else { panic!("nothing is no BTF") };
        assert!(e.to_string().contains("CONFIG_DEBUG_INFO_BTF"), "{e}");
    }
}
