//! What a snapshot does not have, and why.

/// Names that are listed beside one that is not there.
const LISTED: usize = 16;

/// A value that a snapshot does not have, or not as that type.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum SnapshotError {
    /// It was not asked for.
    #[error(
        "snapshot {snapshot:?} has no value {path:?}; it has {known}: add the path to the test's `snapshot_paths`"
    )]
    Missing {
        /// The snapshot.
        snapshot: String,
        /// What was looked up.
        path: String,
        /// The paths that there are.
        known: String,
    },
    /// It was asked for and could not be read.
    #[error("{path:?} could not be read for snapshot {snapshot:?}: {why}")]
    Unavailable {
        /// The snapshot.
        snapshot: String,
        /// The path, or what part of the kernel's state it is.
        path: String,
        /// Why not.
        why: String,
    },
    /// It is of another type.
    #[error("expected {expected}, the value is {seen}")]
    Type {
        /// What was asked for.
        expected: &'static str,
        /// What is there, cut short.
        seen: String,
    },
    /// An index past the end.
    #[error("expected an index below {len}, got {index}")]
    Index {
        /// What was asked for.
        index: usize,
        /// Elements there are.
        len: usize,
    },
    /// The machine's sample could not be taken.
    #[error("snapshot {0:?} has no reading of that CPU")]
    NoCpu(String),
    /// Only values were asked for.
    #[error("snapshot {0:?} holds values only: nobody asked for the kernel's state")]
    NoState(String),
    /// The kernel knows no BPF scheduler, or it could not be read.
    #[error("snapshot {snapshot:?} saw no sched_ext scheduler: {why}")]
    NoScheduler {
        /// The snapshot.
        snapshot: String,
        /// What the kernel said instead.
        why: String,
    },
    /// No such map.
    #[error("no BPF map {name:?} in snapshot {snapshot:?}; there is {known}")]
    MapMissing {
        /// The snapshot.
        snapshot: String,
        /// What was looked up.
        name: String,
        /// The maps that there are.
        known: String,
    },
    /// Several maps of that name, or whose names end so.
    #[error("several BPF maps are meant by {name:?}: {found}")]
    AmbiguousMap {
        /// What was looked up.
        name: String,
        /// Those that fit, with their IDs.
        found: String,
    },
    /// No such variable.
    #[error("no BPF variable {name:?} in snapshot {snapshot:?}; there is {known}")]
    VarMissing {
        /// The snapshot.
        snapshot: String,
        /// What was looked up.
        name: String,
        /// The variables that there are.
        known: String,
    },
    /// Several sections have a variable of that name.
    #[error("several BPF variables are called {name:?}: {found}: write `section/name`")]
    AmbiguousVar {
        /// What was looked up.
        name: String,
        /// Where they are.
        found: String,
    },
    /// A struct has no such member.
    #[error("no field {field:?}; there is {known}")]
    FieldMissing {
        /// What was looked up.
        field: String,
        /// Its fields.
        known: String,
    },
    /// What can't be read as a path.
    #[error("expected a path such as `stats.seen[3]`, got {0:?}")]
    Path(String),
    /// A map has no such entry.
    #[error("no entry {what} among the {looked_at} of map {map:?}{}", if *.truncated { " that were read; it has more" } else { "" })]
    EntryMissing {
        /// The map.
        map: String,
        /// What was looked for.
        what: String,
        /// Entries that were looked at.
        looked_at: usize,
        /// Whether it has more.
        truncated: bool,
    },
    /// The map is of another kind.
    #[error("map {map:?} is of kind {kind}, expected {expected}{}", why.as_ref().map_or(String::new(), |why| format!(" ({why})")))]
    Kind {
        /// The map.
        map: String,
        /// Its kind.
        kind: String,
        /// What was expected.
        expected: &'static str,
        /// What else is known of its contents.
        why: Option<String>,
    },
    /// There is one value for each CPU, and none was chosen.
    #[error(
        "map {0:?} has a value for each CPU: choose one by `cpu(n)`, or take all by `cpu_sum_u64` and the like"
    )]
    PerCpu(String),
    /// There is one value for all CPUs.
    #[error("map {0:?} has one value for all CPUs")]
    NotPerCpu(String),
    /// A sum or number that its type does not hold.
    #[error("the sum over all CPUs does not fit {0}")]
    Overflow(&'static str),
    /// A place whose value was left out.
    #[error("the value was left out, being past what is read of one value or of one snapshot")]
    Placeholder,
    /// No figures of a scheduler.
    #[error("there are no figures of a scheduler: {0}")]
    NoStats(String),
    /// Where another error came up.
    #[error("{path}: {source}")]
    At {
        /// The value that was looked at.
        path: String,
        /// What was wrong.
        source: Box<SnapshotError>,
    },
}

impl SnapshotError {
    /// The error, told with what was looked at.
    #[must_use]
    pub fn at(self, path: impl Into<String>) -> Self {
        match self {
            // The inner place is part of the outer's path.
            Self::At { .. } => self,
            other => Self::At { path: path.into(), source: Box::new(other) },
        }
    }

    /// What was wrong, without where.
    pub fn cause(&self) -> &Self {
        match self {
            Self::At { source, .. } => source,
            other => other,
        }
    }
}

/// The first of some names, for a message.
pub(crate) fn listed<'a>(mut names: impl Iterator<Item = &'a str>) -> String {
    let shown: Vec<&str> = names.by_ref().take(LISTED).collect();
    match (shown.is_empty(), names.count()) {
        (true, _) => "none".to_string(),
        (false, 0) => shown.join(", "),
        (false, more) => format!("{} and {more} more", shown.join(", ")),
    }
}
