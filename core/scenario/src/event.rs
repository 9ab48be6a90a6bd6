//! What the scenario did, and when: the material of the timeline.

/// One thing the scenario did. The host writes it into the timeline and uses it
/// to cut samples into phases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StimulusEvent {
    /// Since the scenario began, ms of guest time.
    pub elapsed_ms: u64,
    /// The step: 0 is the time before the first.
    pub step_index: u16,
    /// Short name of the step or op, such as `step 1` or `set_cpuset`.
    pub label: String,
    /// Kind of op, such as `SetCpuset`; `Setup` for a cgroup that a step, or the backdrop, was made with; empty for a
    /// step's begin and end.
    pub op_kind: String,
    /// Its object, such as `cg_0 0-3`; of a `Setup` settings and workers.
    pub detail: String,
    /// Iterations of all workers so far, where known.
    pub total_iterations: Option<u64>,
    /// True at the end of a step.
    pub is_step_end: bool,
    /// True for the scenario's last event.
    pub is_terminal: bool,
}
