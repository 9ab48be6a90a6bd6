//! Which members of the kernel's structs are shown, and how.

use super::probe::Show;

/// Members of structs that schedulers are about. `include/linux/sched/ext.h`, `kernel/sched/sched.h` (6.12); a kernel
/// without one of them shows the others.
const STRUCTS: [(&str, &[&str]); 4] = [
    (
        "task_struct",
        &[
            "thread_info.cpu",
            "cpus_ptr->bits[0]",
            "scx.flags",
            "scx.slice",
            "scx.dsq_vtime",
            "scx.dsq->id",
            "scx.ddsp_dsq_id",
            "scx.sticky_cpu",
            "scx.holding_cpu",
            "scx.ops_state.counter",
        ],
    ),
    ("rq", &["cpu", "nr_running", "scx.nr_running", "scx.local_dsq.nr", "scx.flags"]),
    ("scx_dispatch_q", &["id", "nr"]),
    ("cpumask", &["bits[0]"]),
];

/// The members of a struct that are always shown; `None` for one of which they are looked for.
pub(super) fn of_struct(name: &str) -> Option<&'static [&'static str]> {
    STRUCTS.iter().find(|(of, _)| *of == name).map(|(_, members)| *members)
}

/// How a member is shown where its type does not say it all.
pub(super) fn show_of_member(of: &str, path: &str) -> Option<Show> {
    Some(match (of, path) {
        ("task_struct", "scx.flags") => Show::EntityFlags,
        ("task_struct", "scx.ops_state.counter") => Show::OpsState,
        _ if path.ends_with("bits[0]") => Show::Cpus,
        ("task_struct", "scx.dsq->id" | "scx.ddsp_dsq_id") | ("scx_dispatch_q", "id") => Show::Queue,
        _ if path.ends_with("flags") => Show::Hex,
        _ => return None,
    })
}

/// The same for an argument that is a number.
pub(super) fn show_of_argument(function: &str, name: &str) -> Option<Show> {
    Some(match name {
        "dsq_id" => Show::Queue,
        "enq_flags" | "enqueue_flags" => Show::EnqueueFlags,
        "deq_flags" => Show::DequeueFlags,
        "wake_flags" => Show::WakeFlags,
        "flags" if function == "scx_bpf_kick_cpu" => Show::KickFlags,
        _ if name.ends_with("flags") => Show::Hex,
        _ => return None,
    })
}

/// A path as people call it.
pub(super) fn short(path: &str) -> &str {
    match path {
        "cpus_ptr->bits[0]" => "cpus_ptr",
        "thread_info.cpu" => "cpu",
        "bits[0]" => "bits",
        "scx.ops_state.counter" => "scx.ops_state",
        // A mask of a struct's, as a pointer, as a struct or as an array of one (`cpumask_var_t`).
        _ => ["->bits[0]", "[0].bits[0]", ".bits[0]"]
            .into_iter()
            .find_map(|end| path.strip_suffix(end))
            .unwrap_or(path),
    }
}
