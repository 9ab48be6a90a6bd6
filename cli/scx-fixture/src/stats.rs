//! scx_stats: figures of this scheduler over a UNIX socket, as schedulers of the scx project offer them.
//!
//! A request is a line of JSON, such as `{"req":"stats","args":{"target":"top"}}`, and so is its answer:
//! `{"errno":0,"args":{"resp":{…}}}`. This server knows that one request.

use crate::error::FixtureError;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where clients of the scx project look.
const SOCKET: &str = "/var/run/scx/root/stats";
/// Bytes of a request; one that is longer is none of ours.
const MOST: u64 = 4096;
/// `EINVAL`.
const INVALID: i32 = 22;

/// What is shown.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Figures {
    /// The fault was armed.
    pub(crate) armed: bool,
    /// How often it was done to a task.
    pub(crate) victims: u32,
}

/// Answers on the socket as long as this program lives.
pub(crate) struct Server(Arc<Mutex<Shared>>);

#[derive(Default)]
struct Shared {
    figures: Figures,
    answered: u64,
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Server {
    /// Listens. A socket that an earlier run left is replaced.
    pub(crate) fn start() -> Result<Self, FixtureError> {
        let failed =
            |source| FixtureError::System { doing: "offering scx_stats at /var/run/scx/root/stats", source };
        if let Some(folder) = Path::new(SOCKET).parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        match std::fs::remove_file(SOCKET) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e)),
            _ => {}
        }
        let listener = UnixListener::bind(SOCKET).map_err(failed)?;
        let shared = Arc::new(Mutex::new(Shared::default()));
        let of_server = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("stats".to_string())
            .spawn(move || serve(&listener, &of_server))
            .map_err(failed)?;
        Ok(Self(shared))
    }

    /// What is answered from now on.
    pub(crate) fn show(&self, figures: Figures) {
        lock(&self.0).figures = figures;
    }
}

fn serve(listener: &UnixListener, shared: &Arc<Mutex<Shared>>) {
    for client in listener.incoming().flatten() {
        let shared = Arc::clone(shared);
        // A client that gets no thread is told so by the end of its connection.
        let _ = std::thread::Builder::new().spawn(move || answer(client, &shared));
    }
}

/// Until the client goes, or says what can't be read.
fn answer(client: UnixStream, shared: &Mutex<Shared>) {
    let Ok(mut out) = client.try_clone() else { return };
    let mut input = BufReader::new(client);
    loop {
        let mut line = String::new();
        match std::io::Read::take(&mut input, MOST).read_line(&mut line) {
            Ok(read) if read > 0 => {}
            _ => return,
        }
        if out.write_all(reply(&line, &mut lock(shared)).as_bytes()).is_err() {
            return;
        }
    }
}

fn reply(request: &str, shared: &mut Shared) -> String {
    let words: String = request.chars().filter(|c| !c.is_whitespace()).collect();
    if !words.contains(r#""req":"stats""#) {
        return format!("{{\"errno\":{INVALID},\"args\":{{\"resp\":\"expected a request for stats\"}}}}\n");
    }
    shared.answered += 1;
    let Shared { figures: Figures { armed, victims }, answered } = shared;
    format!(
        "{{\"errno\":0,\"args\":{{\"resp\":{{\"answered\":{answered},\"fault\":{{\"armed\":{armed},\"victims\":{victims}}}}}}}}}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_by_a_line() {
        let mut shared = Shared { figures: Figures { armed: true, victims: 3 }, answered: 1 };
        assert_eq!(
            reply("{\"req\": \"stats\", \"args\": {\"target\": \"top\"}}\n", &mut shared),
            "{\"errno\":0,\"args\":{\"resp\":{\"answered\":2,\"fault\":{\"armed\":true,\"victims\":3}}}}\n"
        );
        assert!(reply("hello\n", &mut shared).starts_with("{\"errno\":22,"));
    }
}
