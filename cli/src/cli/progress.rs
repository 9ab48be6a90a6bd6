//! Shows how long work goes on: a bar on a terminal, a line now and then elsewhere.

use indicatif::{ProgressBar, ProgressStyle};
use ktstr_kernel::{Event, Progress, Stage};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two lines of a log that nobody watches live.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Prints events to standard error.
pub(super) struct Printer {
    bar: Option<ProgressBar>,
    terminal: bool,
    stage: Option<Running>,
}

struct Running {
    stage: Stage,
    subject: String,
    total: Option<u64>,
    since: Instant,
    last_line: Instant,
}

impl Printer {
    pub(super) fn new() -> Self {
        Self { bar: None, terminal: std::io::stderr().is_terminal(), stage: None }
    }

    fn started(&mut self, stage: Stage, subject: String, total: Option<u64>) {
        let now = Instant::now();
        if self.terminal {
            let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
            bar.set_style(style(total.is_some()));
            bar.set_message(format!("{} {subject}", stage.verb()));
            bar.enable_steady_tick(Duration::from_millis(200));
            self.bar = Some(bar);
        } else {
            eprintln!("ktstr: {} {subject}", stage.verb());
        }
        self.stage = Some(Running { stage, subject, total, since: now, last_line: now });
    }

    fn advanced(&mut self, done: u64) {
        let Some(running) = &mut self.stage else { return };
        if let Some(bar) = &self.bar {
            // An estimate that was too low must not show more than all.
            bar.set_position(running.total.map_or(done, |t| done.min(t)));
        } else if running.last_line.elapsed() >= LINE_EVERY {
            running.last_line = Instant::now();
            let of = running.total.map(|t| format!(" of about {t}")).unwrap_or_default();
            let (verb, subject) = (running.stage.verb(), &running.subject);
            eprintln!("ktstr: {verb} {subject}: {done}{of} after {} s", running.since.elapsed().as_secs());
        }
    }

    fn finished(&mut self) {
        let Some(running) = self.stage.take() else { return };
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
        let took = running.since.elapsed().as_secs_f64();
        if took >= 1.0 {
            eprintln!("ktstr: {} {}: done in {took:.0} s", running.stage.verb(), running.subject);
        }
    }
}

fn style(bounded: bool) -> ProgressStyle {
    let template = if bounded {
        "{spinner} {msg} [{bar:30}] {pos}/{len} {elapsed}"
    } else {
        "{spinner} {msg} {pos} {elapsed}"
    };
    // The templates are constants of this function; the default is a working bar too.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

impl Progress for Printer {
    fn report(&mut self, event: Event) {
        match event {
            Event::Started { stage, subject, total } => self.started(stage, subject, total),
            Event::Advanced { done, .. } => self.advanced(done),
            Event::Finished { .. } => self.finished(),
            Event::Warning(text) => match &self.bar {
                Some(bar) => bar.println(format!("ktstr: warning: {text}")),
                None => eprintln!("ktstr: warning: {text}"),
            },
        }
    }
}

impl Drop for Printer {
    /// A stage that failed leaves no half bar behind.
    fn drop(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish_and_clear();
        }
    }
}
