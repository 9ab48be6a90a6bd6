//! How soon a test starts: on a machine that boots, on one that is resumed, and under
//! another tool.

use super::peer::Peer;
use super::{kernel_image, median, test_binaries};
use crate::project::Project;
use crate::say;
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MODES: [&str; 2] = ["tcg", "deterministic"];
/// The hold of the quick-start test, cut short: it begins after the first line.
const HOLD: Duration = Duration::from_secs(1);
/// Loads above this of a host's CPUs say that something else ran.
const BUSY: f64 = 0.5;

/// A test whose start is timed.
struct Shape {
    label: &'static str,
    binary: PathBuf,
    test: &'static str,
}

/// One row: a mode and a shape, booted and resumed.
struct Row<'a> {
    mode: &'static str,
    shape: &'a Shape,
    booted: Vec<Duration>,
    resumed: Vec<Duration>,
}

/// `alone`: without the other tool.
pub(super) fn run(project: &Project, rounds: usize, alone: bool) -> Result<()> {
    say::heading("What is measured");
    let image = kernel_image(project)?;
    let [quick, large, host] = test_binaries(project, ["seeds", "shapes", "host"])?;
    let dir = project.logs.join("bench-start");
    std::fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
    println!("  from the start of the test's process to the first line of the test function");
    println!("  kernel {}", image.display());
    let shapes = [
        Shape { label: "2 CPUs", binary: quick, test: "ktstr/my_scheduler_test" },
        Shape { label: "16 CPUs", binary: large, test: "ktstr/shape_2n4l2c2t" },
    ];
    let peer = match alone {
        true => Err(anyhow!("it was left out by --alone")),
        false => Peer::set_up(project, &dir, host),
    };
    match &peer {
        Ok(peer) => println!("  beside it {peer}"),
        Err(why) => println!("  virtme-ng is not measured: {why:#}"),
    }
    let case = Case { image: &image, dir: &dir };
    let mut rows: Vec<Row<'_>> =
        MODES.iter().flat_map(|mode| shapes.iter().map(move |shape| Row::new(mode, shape))).collect();
    for row in &rows {
        // Saves the machine; the page cache is warm for both sides from here on.
        case.start(row, Start::Resumed)?;
    }
    println!("  machines are saved; load {}", load());
    let (mut peer_line, mut peer_whole) = (Vec::new(), Vec::new());
    let mut busy = false;
    for round in 1..=rounds {
        busy |= load_of_others().is_some_and(|l| l > BUSY);
        for row in &mut rows {
            let (booted, resumed) = (case.start(row, Start::Booted)?, case.start(row, Start::Resumed)?);
            row.booted.push(booted);
            row.resumed.push(resumed);
        }
        if let Ok(peer) = &peer {
            let seen = peer.run(HOLD)?;
            peer_line.push(seen.first_line);
            peer_whole.push(seen.whole.saturating_sub(HOLD));
        }
        println!("  round {round} of {rounds} done; load {}", load());
    }
    report(&rows, &peer_line, &peer_whole);
    if busy {
        println!("  other processes ran meanwhile: take these figures with care");
    }
    Ok(())
}

impl<'a> Row<'a> {
    fn new(mode: &'static str, shape: &'a Shape) -> Self {
        Self { mode, shape, booted: Vec::new(), resumed: Vec::new() }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Start {
    Booted,
    Resumed,
}

struct Case<'a> {
    image: &'a Path,
    dir: &'a Path,
}

impl Case<'_> {
    /// Runs the test and reads from its record when it began.
    fn start(&self, row: &Row<'_>, start: Start) -> Result<Duration> {
        let results = self.dir.join("results");
        if results.exists() {
            std::fs::remove_dir_all(&results).with_context(|| format!("emptying {}", results.display()))?;
        }
        let mut command = Command::new(&row.shape.binary);
        command
            .args(["--exact", row.shape.test])
            .env("NEXTEST", "1")
            .env("KTSTR_ACCEL", row.mode)
            .env("KTSTR_TEST_KERNEL", self.image)
            .env("KTSTR_SIDECAR_DIR", &results)
            .env("KTSTR_TEMPLATE_DIR", self.dir.join("templates"))
            .env("KTSTR_DURATION_S", HOLD.as_secs().to_string())
            .env_remove("KTSTR_NO_TEMPLATE")
            .env_remove("KTSTR_VERBOSE")
            // Symbols for back-traces make the guest's binary larger; measured is the default.
            .env_remove("RUST_BACKTRACE")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        if start == Start::Booted {
            command.env("KTSTR_NO_TEMPLATE", "1");
        }
        let begin = SystemTime::now().duration_since(UNIX_EPOCH).context("reading the clock")?;
        let output = command.output().with_context(|| format!("running {}", row.shape.binary.display()))?;
        let said = String::from_utf8_lossy(&output.stderr);
        let record =
            record(&results).with_context(|| format!("{} ({}): {said}", row.shape.test, row.mode))?;
        let expected = if start == Start::Booted { "booted" } else { "resumed" };
        ensure!(
            record["start"] == expected,
            "{} ({}) was {}, expected {expected}: {said}",
            row.shape.test,
            row.mode,
            record["start"]
        );
        // A verdict on fairness is another matter, and a noisy host may well make it a failure.
        match record["host"]["test_unix_us"].as_u64() {
            Some(us) => Ok(Duration::from_micros(us).saturating_sub(begin)),
            None => bail!("{} ({}) did not begin: {said}", row.shape.test, row.mode),
        }
    }
}

fn record(results: &Path) -> Result<serde_json::Value> {
    let entries = std::fs::read_dir(results).with_context(|| format!("reading {}", results.display()))?;
    let path = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .find(|p| p.to_string_lossy().ends_with(".ktstr.json"))
        .context("the test left no record")?;
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))
}

fn report(rows: &[Row<'_>], peer_line: &[Duration], peer_whole: &[Duration]) {
    say::heading("Medians (and the least and the most of them)");
    let mut table =
        vec![["mode", "machine", "booted", "resumed", "resumed / booted", "goal"].map(String::from)];
    for row in rows {
        let goal = if row.mode == "tcg" { "0.20" } else { "0.10" };
        table.push([
            row.mode.into(),
            row.shape.label.into(),
            spread(&row.booted),
            spread(&row.resumed),
            ratio(&row.resumed, &row.booted),
            format!("at most {goal}"),
        ]);
    }
    println!("{}", say::table(&table));
    if let (Some(ours), false) = (rows.first(), peer_whole.is_empty()) {
        let hold = say::duration(HOLD);
        println!("\n  the same test under virtme-ng, {}", ours.shape.label);
        println!(
            "{}",
            say::table(&[
                ["".into(), "time".into(), "tcg resumed / this".into(), "goal".into()],
                [
                    format!("its whole run, less the test's hold of {hold}"),
                    spread(peer_whole),
                    ratio(&ours.resumed, peer_whole),
                    "at most 0.15".into(),
                ],
                ["its first line".into(), spread(peer_line), ratio(&ours.resumed, peer_line), "".into()],
            ])
        );
    }
}

fn spread(times: &[Duration]) -> String {
    let ms = |d: Duration| d.as_millis();
    let least = times.iter().min().copied().unwrap_or_default();
    let most = times.iter().max().copied().unwrap_or_default();
    format!("{} ms ({}–{})", ms(median(times.to_vec())), ms(least), ms(most))
}

fn ratio(of: &[Duration], to: &[Duration]) -> String {
    let seconds = |times: &[Duration]| median(times.to_vec()).as_secs_f64();
    format!("{:.3}", seconds(of) / seconds(to))
}

/// The load averages, as `uptime` shows them.
fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

/// CPUs that are busy in this moment, while nothing of ours runs: two looks at
/// `/proc/stat`, a fifth of a second apart.
fn load_of_others() -> Option<f64> {
    const PAUSE: Duration = Duration::from_millis(200);
    let before = busy_ticks()?;
    std::thread::sleep(PAUSE);
    // USER_HZ is 100 for user space on all of Linux's architectures that matter here.
    Some(busy_ticks()?.saturating_sub(before) as f64 / 100.0 / PAUSE.as_secs_f64())
}

/// user, nice, system, irq, softirq and steal of the first line (proc_stat(5)).
fn busy_ticks() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<u64> =
        text.lines().next()?.split_whitespace().skip(1).filter_map(|f| f.parse().ok()).collect();
    Some([0, 1, 2, 5, 6, 7].iter().filter_map(|i| fields.get(*i)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_tells_the_middle_and_the_ends() {
        let ms = |list: &[u64]| list.iter().map(|m| Duration::from_millis(*m)).collect::<Vec<_>>();
        assert_eq!(spread(&ms(&[310, 290, 500])), "310 ms (290–500)");
        assert_eq!(ratio(&ms(&[100]), &ms(&[1000, 400, 2000])), "0.100");
    }

    #[test]
    fn this_test_is_busy_itself() {
        let before = busy_ticks().unwrap();
        let begin = std::time::Instant::now();
        while busy_ticks().unwrap() <= before {
            assert!(begin.elapsed() < Duration::from_secs(20), "no tick counted");
        }
    }
}
