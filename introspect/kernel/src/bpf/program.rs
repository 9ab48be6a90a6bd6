//! Programs: `struct bpf_prog` and `bpf_prog_aux` (include/linux/bpf.h, include/linux/filter.h).

use ktstr_introspect_memory::VirtAddr;
use ktstr_introspect_types::{Leaf, Plan, PlanFault, Type, TypeId};

use crate::record::record;
use crate::{ErrorKind, Kernel, KernelError};

/// `MAX_USED_MAPS` is 64, and 256 BTF objects; no program has more.
const MAX_USED: u64 = 1024;
const NAME_LIMIT: usize = 128;

record! {
    /// A loaded program.
    BpfProgram, BpfProgramPlans, bpf_program {
        /// Its ID, as in `bpftool prog`.
        id: u64 = "bpf_prog.aux->id";
        /// `BPF_PROG_TYPE_*`.
        kind: u64 = "bpf_prog.type";
        /// Its name, at most 15 bytes.
        name: String = "bpf_prog.aux->name";
        /// Instructions that the verifier went through.
        verified_insns: u64 = "bpf_prog.aux->verified_insns";
        /// Instructions after rewriting.
        len: u64 = "bpf_prog.len";
        /// Whether it is compiled to machine code.
        jited: bool = "bpf_prog.jited";
        /// Bytes of machine code.
        jited_len: u64 = "bpf_prog.jited_len";
        /// Whether it may sleep. In `aux` until 66c8473135c6 ("bpf: move sleepable flag from bpf_prog_aux to bpf_prog", 6.9).
        sleepable: bool = "bpf_prog.sleepable" | "bpf_prog.aux->sleepable";
        /// When it was loaded, boot-time nanoseconds.
        load_time: u64 = "bpf_prog.aux->load_time";
        /// Maps that it refers to.
        used_map_cnt: u64 = "bpf_prog.aux->used_map_cnt";
        /// Subprograms compiled apart.
        func_cnt: u64 = "bpf_prog.aux->func_cnt";
        /// Deepest stack, bytes.
        stack_depth: u64 = "bpf_prog.aux->stack_depth";
        /// The kernel type or function that it attaches to: a type ID in the kernel's BTF.
        attach_btf_id: u64 = "bpf_prog.aux->attach_btf_id";
        /// For a struct_ops program the index of the member that it implements.
        expected_attach_type: u64 = "bpf_prog.expected_attach_type";
        /// Its type information: `struct btf` address, null for none.
        btf: VirtAddr = "bpf_prog.aux->btf";
        /// Start of its machine code.
        code: VirtAddr = "bpf_prog.bpf_func";
    }
}

/// How often a program ran and how long, summed over CPUs. Counted only with `kernel.bpf_stats_enabled`, but for the
/// misses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BpfProgramStats {
    /// Runs.
    pub run_count: u64,
    /// Time in it, nanoseconds.
    pub run_time_ns: u64,
    /// Runs that recursion prevented.
    pub misses: u64,
    /// Runs and nanoseconds by CPU.
    pub by_cpu: Vec<(u32, u64, u64)>,
}

impl Kernel {
    /// A program's run statistics. While it runs, count and time may be of neighbouring runs.
    ///
    /// # Errors
    /// [`KernelError`] when they can't be read; a program without any (a subprogram) is [`ErrorKind::Null`].
    pub fn bpf_program_stats(&self, program: VirtAddr) -> Result<BpfProgramStats, KernelError> {
        let (count, time) = (self.counter("bpf_prog_stats.cnt")?, self.counter("bpf_prog_stats.nsecs")?);
        // Since 5.12 ("bpf: Count the number of times recursion was prevented").
        let misses = self.counter("bpf_prog_stats.misses").ok();
        let plan = self.plan("bpf_prog.stats")?;
        let pointer = VirtAddr(plan.read(self.memory(), program)?);
        if pointer.is_null() {
            let at = plan.address(self.memory(), program)?;
            return Err(PlanFault::Null { path: plan.path().into(), at }.into());
        }
        let mut stats = BpfProgramStats::default();
        for cpu in self.possible_cpus()?.0 {
            let at = self.per_cpu_pointer(pointer, cpu)?;
            let (runs, ns) = (count.read(self.memory(), at)?, time.read(self.memory(), at)?);
            stats.run_count = stats.run_count.wrapping_add(runs);
            stats.run_time_ns = stats.run_time_ns.wrapping_add(ns);
            if let Some(misses) = &misses {
                stats.misses = stats.misses.wrapping_add(misses.read(self.memory(), at)?);
            }
            stats.by_cpu.push((cpu, runs, ns));
        }
        Ok(stats)
    }

    /// The kind of a program by name, without its prefix and in lower case: `struct_ops`, `tracing`…
    ///
    /// # Errors
    /// The program's own error, or [`KernelError::Implausible`] when this kernel has no such kind.
    pub fn bpf_program_kind(&self, program: VirtAddr) -> Result<String, KernelError> {
        let seen = self.read("bpf_prog.type", program)?;
        self.short_name("bpf_prog_type", "BPF_PROG_TYPE_", seen).ok_or(KernelError::Implausible {
            what: "a BPF program's type",
            at: program,
            seen,
            expected: "a value of enum bpf_prog_type",
        })
    }

    /// The whole name of a program's function, which the program's BTF has; without BTF, the 15 bytes that the kernel
    /// keeps. `bpftool prog` shows the same.
    ///
    /// # Errors
    /// [`KernelError`] when neither can be read.
    pub fn bpf_program_name(&self, program: VirtAddr) -> Result<String, KernelError> {
        let kept = self.plan("bpf_prog.aux->name")?.read_text(self.memory(), program)?;
        let info = match self.read("bpf_prog.aux->func_info->type_id", program) {
            Ok(id) => id,
            // No BTF was given at load, or this kernel is older than that (4.20).
            Err(error) if matches!(error.kind(), ErrorKind::Null | ErrorKind::Absent) => return Ok(kept),
            Err(other) => return Err(other),
        };
        let btf = VirtAddr(self.read("bpf_prog.aux->btf", program)?);
        if btf.is_null() {
            return Ok(kept);
        }
        match self.bpf_types(btf)?.get(TypeId(info as u32))? {
            Type::Function { name, .. } if !name.is_empty() => Ok(name.to_owned()),
            _ => Ok(kept),
        }
    }

    /// A program's tag, the digest of its instructions, in hexadecimal as `bpftool prog` shows it.
    ///
    /// # Errors
    /// [`KernelError`] when it can't be read.
    pub fn bpf_program_tag(&self, program: VirtAddr) -> Result<String, KernelError> {
        let tag = self.plan("bpf_prog.tag")?.read_bytes(self.memory(), program)?;
        Ok(tag.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The maps that a program refers to, its global variables' among them: `struct bpf_map` addresses.
    ///
    /// # Errors
    /// [`KernelError`] when they can't be read.
    pub fn bpf_program_maps(&self, program: VirtAddr) -> Result<Vec<VirtAddr>, KernelError> {
        let (what, expected) = ("the number of a BPF program's maps", "at most 1024");
        let count = self.read("bpf_prog.aux->used_map_cnt", program)?;
        if count > MAX_USED {
            return Err(KernelError::Implausible { what, at: program, seen: count, expected });
        }
        if count == 0 {
            return Ok(Vec::new());
        }
        let array = VirtAddr(self.read("bpf_prog.aux->used_maps", program)?);
        (0..count).map(|at| self.pointer("a BPF program's maps", array.wrapping_add(at * 8))).collect()
    }

    /// The member of a struct_ops that a program implements, such as `enqueue`.
    ///
    /// # Errors
    /// [`KernelError`], [`ErrorKind::Null`] for a program of another kind.
    pub fn bpf_program_implements(&self, program: VirtAddr) -> Result<String, KernelError> {
        let at = self.plan("bpf_prog.aux->attach_func_name[0]")?.address(self.memory(), program)?;
        self.memory().read_string(at, NAME_LIMIT).map_err(KernelError::read("a BPF program's attachment"))
    }

    /// The program whose machine code `address` is in. Not for subprograms, which have code of their own.
    ///
    /// # Errors
    /// [`KernelError`] when the programs can't be walked.
    pub fn bpf_program_at(&self, address: VirtAddr) -> Result<Option<VirtAddr>, KernelError> {
        let (start, length) = (self.plan("bpf_prog.bpf_func")?, self.plan("bpf_prog.jited_len")?);
        for program in self.bpf_programs()? {
            let inside = address.0.wrapping_sub(start.read(self.memory(), program)?);
            if inside < length.read(self.memory(), program)? {
                return Ok(Some(program));
            }
        }
        Ok(None)
    }

    /// An enumerator without `prefix`, in lower case.
    pub(crate) fn short_name(&self, enumeration: &str, prefix: &str, value: u64) -> Option<String> {
        let name = self.btf().enumerator(enumeration, value)?;
        Some(name.strip_prefix(prefix).unwrap_or(name).to_lowercase())
    }

    /// The plan of a counter that may be wrapped in structs of one member, as `u64_stats_t` and `atomic_t` are.
    pub(crate) fn counter(&self, path: &str) -> Result<Plan, KernelError> {
        let mut path = path.to_owned();
        loop {
            let plan = self.plan(&path)?;
            let (Leaf::Bytes, true) = (plan.leaf(), path.len() < 256) else { return Ok(plan) };
            let (_, Type::Struct(whole) | Type::Union(whole)) = self.btf().resolve(plan.ty())? else {
                return Ok(plan);
            };
            let Some(member) = whole.members().next() else { return Ok(plan) };
            path = format!("{path}.{}", member?.name);
        }
    }
}
