//! How long work reports on itself: one stream of typed events.

/// A step of getting a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Waiting for another process that is at the same work.
    Wait,
    /// Fetching over the network; counted in bytes.
    Download,
    /// Unpacking an archive.
    Unpack,
    /// Writing the kernel configuration.
    Configure,
    /// Compiling; counted in lines that make prints.
    Compile,
    /// Checking what was built.
    Validate,
    /// Copying into the cache.
    Store,
    /// Deleting what was fetched and built along the way. The kernel is ready
    /// by then; on a busy disk a kernel tree takes a while to delete.
    CleanUp,
}

impl Stage {
    /// The stage as a verb for a progress line.
    #[must_use]
    pub const fn verb(self) -> &'static str {
        match self {
            Self::Wait => "waiting for",
            Self::Download => "downloading",
            Self::Unpack => "unpacking",
            Self::Configure => "configuring",
            Self::Compile => "compiling",
            Self::Validate => "checking",
            Self::Store => "storing",
            Self::CleanUp => "deleting",
        }
    }
}

/// Something that happened. A stage that fails has no `Finished`: the error
/// that the caller gets ends the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A stage began.
    Started {
        /// Which.
        stage: Stage,
        /// On what, for the user: a package, a tree, a key.
        subject: String,
        /// How many units are expected; an estimate for [`Stage::Compile`].
        total: Option<u64>,
    },
    /// Units done so far. May pass `total` where that is an estimate.
    Advanced {
        /// Which stage.
        stage: Stage,
        /// Units since its start.
        done: u64,
    },
    /// A stage ended well.
    Finished {
        /// Which.
        stage: Stage,
    },
    /// Something the user should know though work goes on.
    Warning(String),
}

/// Takes events; the caller decides how to show them.
#[cfg_attr(test, mockall::automock)]
pub trait Progress {
    /// Called once for each event, in order, from the thread at work.
    fn report(&mut self, event: Event);
}

impl dyn Progress + '_ {
    /// Reports [`Event::Started`].
    pub fn started(&mut self, stage: Stage, subject: impl Into<String>, total: Option<u64>) {
        self.report(Event::Started { stage, subject: subject.into(), total });
    }

    /// Reports [`Event::Advanced`].
    pub fn advanced(&mut self, stage: Stage, done: u64) {
        self.report(Event::Advanced { stage, done });
    }

    /// Reports [`Event::Finished`].
    pub fn finished(&mut self, stage: Stage) {
        self.report(Event::Finished { stage });
    }

    /// Reports [`Event::Warning`].
    pub fn warn(&mut self, text: impl Into<String>) {
        self.report(Event::Warning(text.into()));
    }
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn report(&mut self, _: Event) {}
}
