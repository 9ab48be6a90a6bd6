//! Probes on a scheduler's own callbacks.

use super::probe::{Field, Part, Probe, define_as};
use crate::bpf::{MOST_VALUES, OPS};
use crate::ports::KernelTypes;
use serde::{Deserialize, Serialize};

/// Called before there is anything to see, or so late that all has been seen, or for the dump's sake.
const UNTOLD: [&str; 6] = ["init", "exit", "dump", "dump_cpu", "dump_task", "init_task"];

/// A member of `struct sched_ext_ops` that a scheduler's program may implement.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Callback {
    /// Where in a scheduler's map the number of the program stands, in bytes.
    pub at: u64,
    /// What is told of its calls; its function is the member's name.
    pub probe: Probe,
}

/// The callbacks that are told of, and how to find the programs that implement them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Callbacks {
    /// The type, by its number, of what a scheduler's map holds.
    pub value_type: u32,
    /// The callbacks.
    pub all: Vec<Callback>,
}

impl Callbacks {
    /// Those of a kernel of these types; none without sched_ext.
    pub fn of(types: &dyn KernelTypes) -> Self {
        let Some(value_type) = types.id(OPS) else { return Self::default() };
        let told = types.callbacks().into_iter().filter(|(member, _)| !UNTOLD.contains(&member.as_str()));
        let callback = |(member, at): (String, u64)| {
            // The kernel's own empty ones have their parameters' names, which a pointer to a function has not: those of
            // later kernels, those of 6.12.
            let stubs = [format!("sched_ext_ops__{member}"), format!("{member}_stub")];
            let prototype = stubs.iter().find_map(|stub| types.prototype(stub));
            let mut probe = define_as(&member, prototype.as_ref(), types);
            probe.fields = that_fit(probe.fields);
            probe.callback = Some(member);
            Callback { at, probe }
        };
        Self { value_type, all: told.map(callback).collect() }
    }
}

/// As many fields as one line holds: a call's arguments, then members of what they point to.
fn that_fit(fields: Vec<Field>) -> Vec<Field> {
    let is_argument = |field: &Field| field.member.is_empty() || matches!(field.part, Part::Pid | Part::Comm);
    let arguments = fields.iter().filter(|field| is_argument(field)).count();
    let mut room = MOST_VALUES.saturating_sub(arguments);
    // The new number of each, for those that refer to it.
    let mut numbers: Vec<Option<u16>> = Vec::new();
    let mut kept: Vec<Field> = Vec::new();
    for field in fields {
        let guard = field.guard.map(|guard| numbers.get(usize::from(guard)).copied().flatten());
        let fits = kept.len() < MOST_VALUES && (is_argument(&field) || room > 0) && guard != Some(None);
        numbers.push(u16::try_from(kept.len()).ok().filter(|_| fits));
        if fits {
            room -= usize::from(!is_argument(&field));
            kept.push(Field { guard: guard.flatten(), ..field });
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{MockKernelTypes, Prototype, ValueType};
    use crate::repro::Show;
    use proptest::prelude::*;

    #[test]
    fn callbacks_have_the_arguments_of_the_kernels_own() {
        let mut types = MockKernelTypes::new();
        types.expect_id().returning(|_| Some(7));
        let members = [("enqueue", 72), ("init", 80), ("tick", 88)];
        types.expect_callbacks().returning(move || members.map(|(name, at)| (name.to_string(), at)).to_vec());
        types.expect_prototype().returning(|function| {
            let flags = ("enq_flags".to_string(), ValueType::Integer { size: 8, signed: false });
            (function == "enqueue_stub").then(|| Prototype { parameters: vec![flags], returns: None })
        });
        let found = Callbacks::of(&types);
        let told: Vec<_> =
            found.all.iter().map(|c| (c.at, c.probe.function.as_str(), c.probe.fields.len())).collect();
        assert_eq!((found.value_type, told), (7, vec![(72, "enqueue", 1), (88, "tick", 0)]));
        let mut none = MockKernelTypes::new();
        none.expect_id().returning(|_| None);
        assert_eq!(Callbacks::of(&none), Callbacks::default());
    }

    proptest! {
        /// Members of a few pointers, some behind a pointer of their own, and a flag as the last argument.
        #[test]
        fn arguments_come_before_members(members in prop::collection::vec((any::<bool>(), any::<bool>()), 0..40)) {
            let field = |member: String, part, guard| Field {
                argument: "p".to_string(),
                member,
                fetch: String::new(),
                show: Show::Hex,
                part,
                guard,
                again: false,
            };
            let mut fields = vec![field(String::new(), Part::Pointer, None)];
            for (number, (on_the_way, behind)) in members.iter().enumerate() {
                let last = fields.len() as u16 - 1;
                let guard = if *behind { last } else { 0 };
                let part = if *on_the_way { Part::Pointer } else { Part::Member };
                fields.push(field(format!("m{number}"), part, Some(guard)));
            }
            fields.push(field("flags".to_string(), Part::Argument, None));
            fields.last_mut().unwrap().member.clear();
            let whole = fields.len();
            let kept = that_fit(fields.clone());
            prop_assert_eq!(kept.len() == whole, whole <= MOST_VALUES);
            prop_assert!(kept.len() <= MOST_VALUES);
            prop_assert_eq!(kept.last().map(|f| f.part), Some(Part::Argument));
            for (at, field) in kept.iter().enumerate() {
                // In their order, and each still refers to the one that it did.
                let old = fields.iter().find(|f| (f.member.as_str(), f.part) == (field.member.as_str(), field.part)).unwrap();
                prop_assert_eq!(field.guard.is_some(), old.guard.is_some());
                if let (Some(guard), Some(before)) = (field.guard, old.guard) {
                    prop_assert!(usize::from(guard) < at);
                    prop_assert_eq!(&kept[usize::from(guard)].member, &fields[usize::from(before)].member);
                }
            }
        }
    }
}
