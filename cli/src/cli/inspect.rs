//! `ktstr inspect`: the scheduler state in an ELF core, of a running machine, or of the kernel that runs here, without a
//! debugger.

mod live;

use crate::run::index_cache;
use crate::settings::machines_dir;
use anyhow::{Context, Result, bail};
use clap::Args;
use comfy_table::{Table, presets};
use ktstr_introspect_kernel::{CgroupNode, Field, Kernel, Runqueue, SchedDomain, Task};
use ktstr_introspect_memory::{Architecture, ElfCore, PhysicalMemory};
use ktstr_introspect_symbols::Vmlinux;
use ktstr_live_kernel::{Running, Variables, running};
use ktstr_monitor::{MapState, ProgramState, state_letter};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Variables and entries of one map that are shown.
const MAX_VARIABLES: usize = 128;
const MAX_ENTRIES: usize = 32;

/// Arguments of `inspect`.
#[derive(Args)]
pub(super) struct InspectArgs {
    /// An ELF core of the whole machine, such as QMP `dump-guest-memory` (paging off) writes; or a
    /// running machine, by its test's name or its process id; with --live the first expression
    #[arg(value_name = "CORE|MACHINE", required_unless_present_any = ["list", "live"])]
    machine: Option<PathBuf>,
    /// The machines that run, and nothing else
    #[arg(long, conflicts_with = "live")]
    list: bool,
    /// The kernel that this program runs on: by its memory where it shows that (/proc/kcore), else sched_ext, threads, BPF
    /// programs, maps and variables by system calls
    #[arg(long, conflicts_with = "vmlinux")]
    live: bool,
    /// Have the running kernel trace its scheduling for so long, and print the timeline
    #[arg(long, value_name = "MS", requires = "live", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    timeline: Option<u64>,
    /// Print the timeline as JSON
    #[arg(long, requires = "timeline")]
    json: bool,
    /// The kernel's ELF file with symbols; without it they are read out of the core
    #[arg(long, value_name = "FILE")]
    vmlinux: Option<PathBuf>,
    /// All threads
    #[arg(long)]
    tasks: bool,
    /// The runqueue of each CPU, and who waits on it
    #[arg(long)]
    runqueues: bool,
    /// The cgroup tree
    #[arg(long)]
    cgroups: bool,
    /// The scheduling domains of each CPU
    #[arg(long)]
    domains: bool,
    /// The dispatch queues of sched_ext, and who waits on them
    #[arg(long)]
    dsqs: bool,
    /// The loaded BPF programs
    #[arg(long)]
    programs: bool,
    /// The BPF maps, with the global variables or the entries in them
    #[arg(long)]
    maps: bool,
    /// What to print: `jiffies`, `init_task.comm` (types of variables come from the vmlinux, those of a few are
    /// known without), or with a CPU `runqueues[0].curr->comm`, of a BPF
    /// program `bpf:nr_queued` or with its section `bpf:.bss/nr_queued`
    #[arg(value_name = "EXPR")]
    expressions: Vec<String>,
}

pub(super) fn run(args: &InspectArgs) -> Result<ExitCode> {
    if args.live {
        return live::run(args);
    }
    let Some(machine) = args.machine.as_deref().filter(|_| !args.list) else {
        print(&machines()?);
        return Ok(ExitCode::SUCCESS);
    };
    let (memory, of_machine) = open(machine)?;
    let path = args.vmlinux.as_deref().or(of_machine.as_deref());
    let vmlinux = path.map(Vmlinux::open).transpose().context("opening the vmlinux")?;
    // An index only saves time.
    let index = index_cache().ok();
    let kernel = match &index {
        Some(index) => index.open(memory, vmlinux.as_ref()),
        None => Kernel::open(memory, vmlinux.as_ref()),
    };
    let kernel = kernel.context("finding the kernel in its memory")?;
    let variables = Variables::new(path, index);
    tell(args, &kernel, &variables, &args.expressions)
}

/// Prints what is wished for, and what each expression is worth.
fn tell(
    args: &InspectArgs,
    kernel: &Kernel,
    variables: &Variables,
    expressions: &[impl AsRef<str>],
) -> Result<ExitCode> {
    let of_bpf = args.dsqs || args.programs || args.maps;
    let asked = args.tasks || args.cgroups || args.domains || of_bpf || !expressions.is_empty();
    if args.tasks {
        print(&tasks(kernel)?);
    }
    // Without a wish, what most want to see.
    if args.runqueues || !asked {
        print(&runqueues(kernel)?);
    }
    if args.domains {
        print(&domains(kernel)?);
    }
    if args.cgroups {
        print(&cgroups(kernel)?);
    }
    if args.dsqs {
        print(&dsqs(kernel)?);
    }
    if args.programs {
        print(&programs(ktstr_live_kernel::programs(kernel).context("reading the BPF programs")?));
    }
    if args.maps {
        print(&maps(ktstr_live_kernel::maps(kernel).context("reading the BPF maps")?));
    }
    let values = expressions.iter().map(|text| {
        let text = text.as_ref();
        (text, ktstr_live_kernel::show(kernel, variables, text).map_err(|e| e.to_string()))
    });
    Ok(print_values(values))
}

/// A line each; why there is none goes to standard error.
fn print_values<'a>(values: impl Iterator<Item = (&'a str, Result<String, String>)>) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    for (text, value) in values {
        match value {
            Ok(value) => println!("{text} = {value}"),
            Err(e) => {
                eprintln!("ktstr: {text}: {e}");
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The memory of a core or of a running machine; for the latter also its vmlinux, if it has one.
fn open(named: &Path) -> Result<(Arc<dyn PhysicalMemory>, Option<PathBuf>)> {
    if named.exists() {
        let core = ElfCore::open(named).context("opening the core")?;
        if let Architecture::Other(_) = core.architecture() {
            bail!(
                "{} is the core of a machine of architecture {}: expected x86-64 or aarch64, whose kernels can be found",
                named.display(),
                core.architecture()
            );
        }
        return Ok((Arc::new(core), None));
    }
    let text = named.to_string_lossy();
    let mut all = running(&machines_dir())?;
    let is_named = |m: &Running| m.name == text || m.pid.to_string() == text;
    let found: Vec<usize> = (0..all.len()).filter(|i| is_named(&all[*i])).collect();
    match found.as_slice() {
        [one] => {
            let machine = all.swap_remove(*one);
            let memory = machine.memory().with_context(|| format!("opening the machine of {text}"))?;
            Ok((memory, machine.vmlinux))
        }
        several => {
            let known: Vec<String> = all.iter().map(|m| format!("{} (process {})", m.name, m.pid)).collect();
            let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
            bail!(
                "looking for {text}: expected a core file or a running machine, found no such file and {} such \
                 machines; running: {known}",
                several.len()
            )
        }
    }
}

fn machines() -> Result<Table> {
    let mut table = table(&["TEST", "PROCESS", "MACHINE"]);
    for machine in running(&machines_dir())? {
        table.add_row([machine.name, machine.pid.to_string(), machine.label]);
    }
    Ok(table)
}

/// Without the blanks that would make all lines as long as the longest.
fn print(table: &Table) {
    table.lines().for_each(|line| println!("{}", line.trim_end()));
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.to_vec());
    table
}

/// A field that this kernel lacks is a dash; one that can't be read is a question mark.
fn cell<T: Display>(field: &Field<T>) -> String {
    match field {
        Ok(value) => value.to_string(),
        Err(e) if e.kind() == ktstr_introspect_kernel::ErrorKind::Absent => "-".to_string(),
        Err(_) => "?".to_string(),
    }
}

fn tasks(kernel: &Kernel) -> Result<Table> {
    let mut table = table(&["PID", "TGID", "COMM", "CPU", "STATE", "PRIO", "CLASS", "RAN (ms)"]);
    for at in kernel.tasks()? {
        let task = Task::read(kernel, at);
        let state =
            task.state.as_ref().map_or_else(|_| "?".to_string(), |state| state_letter(*state).to_string());
        let ran = task.se_sum_exec_runtime.as_ref().map_or(0, |ns| ns / 1_000_000);
        table.add_row([
            cell(&task.pid),
            cell(&task.tgid),
            cell(&task.comm),
            cell(&task.cpu),
            state,
            cell(&task.prio),
            cell(&kernel.class_of(&task)),
            ran.to_string(),
        ]);
    }
    Ok(table)
}

fn runqueues(kernel: &Kernel) -> Result<Table> {
    let mut table =
        table(&["CPU", "RUNNING", "SWITCHES", "CLOCK (ns)", "SCX", "LOCAL DSQ", "CURRENT", "WAITING"]);
    for cpu in kernel.possible_cpus()?.0 {
        let at = kernel.runqueue(cpu)?;
        let rq = Runqueue::read(kernel, at);
        let current = format!("{} ({})", cell(&rq.curr_comm), cell(&rq.curr_pid));
        let mut waiting = Vec::new();
        let queues =
            [kernel.dl_tasks(at), kernel.rt_tasks(at), kernel.cfs_tasks(at), kernel.scx_runnable(at)];
        for queue in queues {
            let tasks = match queue {
                Ok(tasks) => tasks,
                Err(e) if e.kind() == ktstr_introspect_kernel::ErrorKind::Absent => continue,
                Err(e) => return Err(e).with_context(|| format!("reading the queues of CPU {cpu}")),
            };
            let others = tasks.into_iter().filter(|at| rq.curr.as_ref().ok() != Some(at));
            waiting.extend(others.map(|at| Task::read(kernel, at)));
        }
        let waiting: Vec<String> =
            waiting.iter().map(|task| format!("{} ({})", cell(&task.comm), cell(&task.pid))).collect();
        table.add_row([
            cpu.to_string(),
            cell(&rq.nr_running),
            cell(&rq.nr_switches),
            cell(&rq.clock),
            cell(&rq.scx_nr_running),
            cell(&rq.scx_local_dsq_nr),
            current,
            waiting.join(" "),
        ]);
    }
    Ok(table)
}

fn domains(kernel: &Kernel) -> Result<Table> {
    let mut table = table(&["CPU", "LEVEL", "NAME", "SPAN", "FLAGS", "INTERVAL", "FAILED"]);
    for cpu in kernel.possible_cpus()?.0 {
        for at in kernel.domains(kernel.runqueue(cpu)?)? {
            let domain = SchedDomain::read(kernel, at);
            let span = kernel.domain_span(at).map(ktstr_introspect_kernel::Value::Cpus);
            table.add_row([
                cpu.to_string(),
                cell(&domain.level),
                cell(&kernel.domain_name(at)),
                cell(&span),
                domain.flags.as_ref().map_or_else(|_| "?".to_string(), |flags| format!("{flags:#x}")),
                cell(&domain.balance_interval),
                cell(&domain.nr_balance_failed),
            ]);
        }
    }
    Ok(table)
}

fn cgroups(kernel: &Kernel) -> Result<Table> {
    let mut table = table(&["CGROUP", "TASKS", "CPUS"]);
    for CgroupNode { address, path, .. } in kernel.cgroups()? {
        let tasks = kernel.cgroup_tasks(address).map(|tasks| tasks.len());
        let cpus = match kernel.cpuset(address) {
            Ok(Some(set)) => {
                let cpus = kernel.cpuset_cpus(set, "effective_cpus");
                cell(&cpus.map(ktstr_introspect_kernel::Value::Cpus))
            }
            Ok(None) => "-".to_string(),
            Err(_) => "?".to_string(),
        };
        table.add_row([path, cell(&tasks), cpus]);
    }
    Ok(table)
}

fn dsqs(kernel: &Kernel) -> Result<Table> {
    let mut table = table(&["DSQ", "OF", "SEQ", "TASKS", "ORDER", "FIRST"]);
    let (all, missing) = ktstr_live_kernel::dispatch_queues(kernel).context("reading the dispatch queues")?;
    missing.iter().for_each(|why| eprintln!("ktstr: {why}"));
    for queue in all {
        let first: Vec<String> = queue.tasks.iter().map(|(pid, comm)| format!("{comm} ({pid})")).collect();
        table.add_row([
            queue.name,
            if queue.origin.is_empty() { "-".to_string() } else { queue.origin },
            queue.seq.map_or_else(|| "-".to_string(), |seq| seq.to_string()),
            queue.nr.to_string(),
            if queue.by_vtime { "vtime" } else { "fifo" }.to_string(),
            first.join(" "),
        ]);
    }
    Ok(table)
}

fn programs(all: Vec<ProgramState>) -> Table {
    let mut table = table(&["ID", "NAME", "KIND", "IMPLEMENTS", "VERIFIED", "RUNS", "TIME (us)"]);
    for program in all {
        table.add_row([
            program.id.to_string(),
            program.name,
            program.kind,
            program.implements,
            program.verified_insns.map_or_else(|| "-".to_string(), |insns| insns.to_string()),
            program.run_count.to_string(),
            (program.run_time_ns / 1000).to_string(),
        ]);
    }
    table
}

fn maps(all: Vec<MapState>) -> Table {
    let mut table = table(&["ID", "NAME", "KIND", "KEY", "VALUE", "ENTRIES", "CONTENTS"]);
    for map in all {
        let note = map.note.clone();
        let (variables, entries) =
            (map.variables.iter().take(MAX_VARIABLES), map.entries.iter().take(MAX_ENTRIES));
        let variables = variables.map(|variable| format!("{} = {}", variable.name, variable.value));
        let entries = entries.map(|entry| format!("[{}] = {}", entry.key, entry.value));
        let is_cut = map.truncated
            || map.variables.len() + map.more > MAX_VARIABLES
            || map.entries.len() > MAX_ENTRIES;
        let more = is_cut.then(|| "…".to_string());
        let contents: Vec<String> = note.into_iter().chain(variables).chain(entries).chain(more).collect();
        table.add_row([
            map.id.to_string(),
            map.name,
            map.kind,
            map.key_size.to_string(),
            map.value_size.to_string(),
            map.max_entries.to_string(),
            contents.join("\n"),
        ]);
    }
    table
}
