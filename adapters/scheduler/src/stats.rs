//! Asks a scheduler's program for its figures over its scx_stats socket, while it is there.

mod answer;

use answer::parse_answer;
use ktstr_scheduler::SchedulerStats;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

/// Where programs of the scx project listen.
const SOCKET: &str = "/var/run/scx/root/stats";
/// Between two questions.
const PERIOD: Duration = Duration::from_millis(500);
/// For one answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(2);
/// Bytes of an answer.
const LONGEST: u64 = 1 << 20;

/// For a thread that is in the middle of noting an answer.
const NOTES_WITHIN: Duration = Duration::from_millis(500);

/// Asks again and again until it is dropped.
///
/// Its thread is scheduled by the very scheduler that it asks, so nobody waits for it.
pub(crate) struct Poller {
    /// Dropped to have it end.
    _stop: Sender<()>,
    told: Told,
}

type Told = Arc<Mutex<SchedulerStats>>;

impl Poller {
    /// Of a scheduler that was started just then.
    pub(crate) fn start(started: Instant) -> Self {
        Self::at(Path::new(SOCKET), started, PERIOD)
    }

    fn at(socket: &Path, started: Instant, period: Duration) -> Self {
        let (stop, stopped) = mpsc::channel();
        let socket = socket.to_path_buf();
        let told = Told::default();
        let mut session = Session { socket, started, connection: None, told: Arc::clone(&told) };
        let ask = move || {
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) && session.ask() {}
        };
        // Without it there are no figures, and no less of anything else.
        let thread = std::thread::Builder::new().name("ktstr-stats".to_string()).spawn(ask);
        if let Err(e) = thread {
            eprintln!("ktstr: no scx_stats: starting their thread: {e}");
        }
        Self { _stop: stop, told }
    }

    /// What it was told so far, if there was anything.
    pub(crate) fn told(&self) -> Option<SchedulerStats> {
        let deadline = Instant::now() + NOTES_WITHIN;
        let told = loop {
            match self.told.try_lock() {
                Ok(told) => break told.clone(),
                Err(TryLockError::Poisoned(told)) => break told.into_inner().clone(),
                Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(TryLockError::WouldBlock) => return None,
            }
        };
        Some(told).filter(|told| !told.is_empty())
    }
}

struct Session {
    socket: PathBuf,
    started: Instant,
    connection: Option<BufReader<UnixStream>>,
    told: Told,
}

impl Session {
    /// Asks once; a program that does not listen (yet) is not asked. False if it makes no sense to go on.
    fn ask(&mut self) -> bool {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match connect(&self.socket) {
                Ok(Some(connection)) => connection,
                Ok(None) => return true,
                Err(e) => return self.end(&format!("connecting: {e}")),
            },
        };
        match exchange(&mut connection) {
            // Whoever closes the connection is about to end.
            Ok(None) => true,
            Ok(Some(line)) => {
                let at_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
                match parse_answer(&line, at_ms) {
                    Ok(sample) => self.told.lock().unwrap_or_else(PoisonError::into_inner).push(sample),
                    Err(why) => return self.end(&why),
                }
                self.connection = Some(connection);
                true
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                self.end(&format!("no answer within {} s", ANSWERS_WITHIN.as_secs()))
            }
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => true,
            Err(e) => self.end(&format!("asking: {e}")),
        }
    }

    fn end(&mut self, why: &str) -> bool {
        let problem = format!("scx_stats at {}: {why}", self.socket.display());
        self.told.lock().unwrap_or_else(PoisonError::into_inner).problem = Some(problem);
        false
    }
}

/// `None` while nobody listens.
fn connect(socket: &Path) -> std::io::Result<Option<BufReader<UnixStream>>> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        // What an earlier program left behind listens no more.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => return Ok(None),
        Err(e) => return Err(e),
    };
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    stream.set_write_timeout(Some(ANSWERS_WITHIN))?;
    Ok(Some(BufReader::new(stream)))
}

/// `None` when the other side has closed.
fn exchange(connection: &mut BufReader<UnixStream>) -> std::io::Result<Option<String>> {
    connection.get_mut().write_all(SchedulerStats::REQUEST.as_bytes())?;
    let mut line = Vec::new();
    let read = connection.take(LONGEST).read_until(b'\n', &mut line)?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') && read as u64 == LONGEST {
        return Err(std::io::Error::other(format!("the answer has more than {LONGEST} bytes")));
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;
    use std::thread::JoinHandle;

    const OFTEN: Duration = Duration::from_millis(5);

    /// Answers each line by the next of these, then closes the connection.
    fn server(answers: Vec<String>) -> (tempfile::TempDir, PathBuf, JoinHandle<Vec<String>>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = move || {
            let (stream, _) = listener.accept().unwrap();
            let mut out = stream.try_clone().unwrap();
            let mut lines = BufReader::new(stream).lines();
            let reply = |answer: String| {
                let asked = lines.next().and_then(Result::ok).unwrap_or_default();
                out.write_all(answer.as_bytes()).unwrap();
                asked
            };
            answers.into_iter().map(reply).collect()
        };
        (dir, path, std::thread::spawn(serve))
    }

    fn answer(number: u32) -> String {
        format!("{{\"errno\":0,\"args\":{{\"resp\":{{\"nr\":{number}}}}}}}\n")
    }

    /// What it was told, once it is that.
    fn once(poller: &Poller, is: impl Fn(&SchedulerStats) -> bool) -> SchedulerStats {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            match poller.told() {
                Some(told) if is(&told) => return told,
                told => assert!(Instant::now() < deadline, "{told:?}"),
            }
            std::thread::sleep(OFTEN);
        }
    }

    #[test]
    fn figures_are_asked_for_in_one_session() {
        let (_dir, path, served) = server(vec![answer(1), answer(2), answer(3)]);
        let poller = Poller::at(&path, Instant::now(), OFTEN);
        let asked = served.join().unwrap();
        let stats = once(&poller, |told| told.answers == 3);
        assert_eq!(asked.len(), 3);
        assert!(
            asked.iter().all(|line| line == "{\"req\":\"stats\",\"args\":{\"target\":\"top\"}}"),
            "{asked:?}"
        );
        let told: Vec<f64> = stats.samples.iter().map(|sample| sample.figures["nr"]).collect();
        assert_eq!(told, [1.0, 2.0, 3.0]);
        assert_eq!(stats.problem, None);
    }

    #[test]
    fn an_answer_that_is_none_ends_it() {
        let (_dir, path, served) = server(vec![answer(1), "nonsense\n".to_string()]);
        let poller = Poller::at(&path, Instant::now(), OFTEN);
        served.join().unwrap();
        let stats = once(&poller, |told| told.problem.is_some());
        assert_eq!(stats.answers, 1);
        let why = stats.problem.expect("a problem");
        assert!(why.contains("expected a line of JSON") && why.starts_with("scx_stats at /"), "{why}");
    }

    #[test]
    fn who_does_not_listen_is_not_asked() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats");
        drop(UnixListener::bind(&path).unwrap());
        for path in [path, dir.path().join("none")] {
            let told = Told::default();
            let (started, connection) = (Instant::now(), None);
            let mut session = Session { socket: path, started, connection, told: Arc::clone(&told) };
            assert!(session.ask() && session.ask(), "it goes on looking");
            assert!(told.lock().unwrap().is_empty());
        }
    }
}
