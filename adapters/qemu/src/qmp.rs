//! QMP, QEMU's control protocol (docs/interop/qmp-spec.rst): JSON objects, one a
//! line. Only what a machine needs: the handshake, commands by id, and why the
//! guest shut down.

use ktstr_machine::MachineError;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};
use std::io::{IoSlice, Write};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

pub(crate) const HANDSHAKE: &str = "{\"execute\":\"qmp_capabilities\",\"id\":0}\n";
const HANDSHAKE_ID: u64 = 0;
/// Commands that are sent when the guest has ended: what its vCPUs were at, and that this was all.
/// Their answers are for the thread that serves QEMU, which knows them by these ids.
pub(crate) const LAST_REGISTERS: &str = "{\"execute\":\"human-monitor-command\",\"arguments\":\
     {\"command-line\":\"info registers -a\"},\"id\":18446744073709551614}\n";
pub(crate) const QUIT: &str = "{\"execute\":\"quit\",\"id\":18446744073709551615}\n";
const LAST_REGISTERS_ID: u64 = u64::MAX - 1;
/// No command's: news that the guest runs stands beside the answers under it.
const RESUMED_ID: u64 = u64::MAX - 2;
const MAX_LINE: usize = 4 << 20;

/// Why the guest shut down (`ShutdownCause`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    PowerOff,
    Reset,
    Host,
}

/// A line from QEMU.
#[derive(Debug, PartialEq)]
pub(crate) enum Inbound {
    Greeting,
    Reply(Reply),
    /// What [`LAST_REGISTERS`] asked for; empty where it was refused.
    LastRegisters(String),
    Shutdown(Shutdown),
    /// The guest asked for a stop.
    StopAsked,
    /// All vCPUs have stopped.
    Stopped,
    Other,
}

/// The answer to a command.
#[derive(Debug, PartialEq)]
pub(crate) struct Reply {
    id: u64,
    result: Result<Value, String>,
}

/// Cuts a byte stream into messages. A line over 4 MiB is dropped.
#[derive(Default)]
pub(crate) struct Lines(Vec<u8>);

impl Lines {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > MAX_LINE {
            self.0.clear();
        }
    }

    pub(crate) fn next(&mut self) -> Option<Inbound> {
        let end = self.0.iter().position(|b| *b == b'\n')?;
        let line: Vec<u8> = self.0.drain(..=end).collect();
        Some(serde_json::from_slice(&line).map_or(Inbound::Other, |v| classify(&v)))
    }
}

fn classify(message: &Value) -> Inbound {
    if message.get("QMP").is_some() {
        return Inbound::Greeting;
    }
    if message["id"].as_u64() == Some(LAST_REGISTERS_ID) {
        return Inbound::LastRegisters(message["return"].as_str().unwrap_or_default().to_string());
    }
    if let Some(id) = message.get("id").and_then(Value::as_u64) {
        let result = match message.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(message.get("return").cloned().unwrap_or(Value::Null)),
        };
        return Inbound::Reply(Reply { id, result });
    }
    if message["event"] == "SHUTDOWN" {
        return Inbound::Shutdown(match message["data"]["reason"].as_str().unwrap_or_default() {
            "guest-shutdown" => Shutdown::PowerOff,
            "guest-reset" | "guest-panic" | "subsystem-reset" => Shutdown::Reset,
            _ => Shutdown::Host,
        });
    }
    match message["event"].as_str() {
        Some("RESUME") => Inbound::Reply(Reply { id: RESUMED_ID, result: Ok(Value::Null) }),
        Some("WATCHDOG") if message["data"]["action"] == "pause" => Inbound::StopAsked,
        Some("STOP") => Inbound::Stopped,
        _ => Inbound::Other,
    }
}

/// Sends commands and waits for their answers.
pub(crate) struct Client {
    socket: UnixStream,
    replies: Receiver<Reply>,
    last_id: u64,
    greeted: bool,
}

impl Client {
    pub(crate) fn new(socket: UnixStream, replies: Receiver<Reply>) -> Self {
        Self { socket, replies, last_id: HANDSHAKE_ID, greeted: false }
    }

    /// Runs a command and returns its `return` value.
    pub(crate) fn execute(
        &mut self,
        command: &str,
        arguments: Value,
        timeout: Duration,
    ) -> Result<Value, MachineError> {
        self.run(command, arguments, None, timeout)
    }

    /// Has the guest go on, and returns as soon as it does. The command's answer may come later: QEMU's main loop takes
    /// another round for it, and in deterministic mode none before the guest rests, which it may not before it rings
    /// its bell.
    pub(crate) fn cont(&mut self, timeout: Duration) -> Result<(), MachineError> {
        while self.replies.try_recv().is_ok() {}
        let doing = || "QMP command cont".to_string();
        let deadline = Instant::now() + timeout;
        let id = self.send("cont", json!({}), None, deadline, timeout)?;
        self.wait(&[id, RESUMED_ID], deadline, timeout, &doing).map(drop)
    }

    /// Passes a descriptor over the socket (`getfd`); later commands know it by `name`.
    pub(crate) fn hand_over(
        &mut self,
        name: &str,
        fd: BorrowedFd<'_>,
        timeout: Duration,
    ) -> Result<(), MachineError> {
        self.run("getfd", json!({ "fdname": name }), Some(fd), timeout).map(drop)
    }

    fn run(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        timeout: Duration,
    ) -> Result<Value, MachineError> {
        let doing = || format!("QMP command {command}");
        let deadline = Instant::now() + timeout;
        let id = self.send(command, arguments, fd, deadline, timeout)?;
        self.wait(&[id], deadline, timeout, &doing)
    }

    /// Sends a command, once QEMU takes any, and returns its id.
    fn send(
        &mut self,
        command: &str,
        arguments: Value,
        fd: Option<BorrowedFd<'_>>,
        deadline: Instant,
        timeout: Duration,
    ) -> Result<u64, MachineError> {
        let doing = || format!("QMP command {command}");
        if !self.greeted {
            // Commands before the handshake are refused.
            self.wait(&[HANDSHAKE_ID], deadline, timeout, &doing)?;
            self.greeted = true;
        }
        self.last_id += 1;
        let id = self.last_id;
        let line = format!("{}\n", json!({ "execute": command, "arguments": arguments, "id": id }));
        let sent = match fd {
            None => self.socket.write_all(line.as_bytes()),
            Some(fd) => send_with(&self.socket, line.as_bytes(), fd),
        };
        sent.map_err(|_| MachineError::Gone { doing: doing() })?;
        Ok(id)
    }

    /// The first answer under one of `ids`.
    fn wait(
        &self,
        ids: &[u64],
        deadline: Instant,
        timeout: Duration,
        doing: &dyn Fn() -> String,
    ) -> Result<Value, MachineError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.replies.recv_timeout(left) {
                // The answer of a command that we stopped waiting for.
                Ok(reply) if !ids.contains(&reply.id) => {}
                Ok(reply) => {
                    return reply.result.map_err(|answer| MachineError::Refused { doing: doing(), answer });
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(MachineError::NoAnswer { doing: doing(), after: timeout });
                }
                Err(RecvTimeoutError::Disconnected) => return Err(MachineError::Gone { doing: doing() }),
            }
        }
    }
}

/// Sends a line and a descriptor with its first byte (unix(7), `SCM_RIGHTS`).
fn send_with(mut socket: &UnixStream, line: &[u8], fd: BorrowedFd<'_>) -> std::io::Result<()> {
    let fds = [fd.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    let part = [IoSlice::new(line)];
    let sent = sendmsg::<()>(socket.as_raw_fd(), &part, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    socket.write_all(&line[sent..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};

    #[test]
    fn lines_are_told_apart() {
        let mut lines = Lines::default();
        lines.push(
            b"{\"QMP\": {}}\r\n{\"return\": {}, \"id\": 3}\n{\"error\": {\"class\":\"X\"}, \"id\": 4}\n{\"ev",
        );
        lines.push(
            b"ent\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\nnonsense\n",
        );
        assert_eq!(lines.next(), Some(Inbound::Greeting));
        assert_eq!(lines.next(), Some(Inbound::Reply(Reply { id: 3, result: Ok(json!({})) })));
        let error = "{\"class\":\"X\"}".to_string();
        assert_eq!(lines.next(), Some(Inbound::Reply(Reply { id: 4, result: Err(error) })));
        assert_eq!(lines.next(), Some(Inbound::Shutdown(Shutdown::Reset)));
        assert_eq!(lines.next(), Some(Inbound::Other));
        assert_eq!(lines.next(), None);
    }

    #[test]
    fn the_last_registers_are_told_from_answers_to_the_owner() {
        let mut lines = Lines::default();
        for (command, id) in [(LAST_REGISTERS, LAST_REGISTERS_ID), (QUIT, u64::MAX)] {
            let sent: Value = serde_json::from_str(command).unwrap();
            assert_eq!(sent["id"], id);
        }
        lines.push(format!("{{\"return\": \"CPU#0\\r\\n\", \"id\": {LAST_REGISTERS_ID}}}\n").as_bytes());
        lines.push(format!("{{\"error\": {{}}, \"id\": {LAST_REGISTERS_ID}}}\n").as_bytes());
        assert_eq!(lines.next(), Some(Inbound::LastRegisters("CPU#0\r\n".to_string())));
        assert_eq!(lines.next(), Some(Inbound::LastRegisters(String::new())));
    }

    #[test]
    fn a_guest_goes_on_by_the_answer_or_the_news_whichever_is_first_and_not_by_old_news() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (tell, replies) = std::sync::mpsc::channel();
        let mut client = Client { greeted: true, ..Client::new(ours, replies) };
        let resumed = |id| Reply { id, result: Ok(Value::Null) };
        let mut cont = |reply: Reply| {
            tell.send(resumed(RESUMED_ID)).unwrap();
            let sent = BufReader::new(&theirs);
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    let line = sent.lines().next().unwrap().unwrap();
                    assert!(line.contains("\"execute\":\"cont\""), "{line}");
                    tell.send(reply).unwrap();
                });
                client.cont(Duration::from_secs(60)).map_err(|e| e.to_string())
            })
        };
        assert_eq!(cont(resumed(RESUMED_ID)), Ok(()));
        assert_eq!(cont(resumed(2)), Ok(()));
        let refused = cont(Reply { id: 3, result: Err("no".to_string()) }).unwrap_err();
        assert!(refused.contains("cont") && refused.contains("no"), "{refused}");
        let mut lines = Lines::default();
        lines.push(b"{\"event\": \"RESUME\"}\n");
        assert_eq!(lines.next(), Some(Inbound::Reply(resumed(RESUMED_ID))));
    }

    #[test]
    fn a_guests_stop_is_told_from_other_news() {
        let mut lines = Lines::default();
        lines.push(b"{\"event\": \"WATCHDOG\", \"data\": {\"action\": \"pause\"}}\n{\"event\": \"STOP\"}\n");
        lines.push(b"{\"event\": \"WATCHDOG\", \"data\": {\"action\": \"none\"}}\n");
        assert_eq!(lines.next(), Some(Inbound::StopAsked));
        assert_eq!(lines.next(), Some(Inbound::Stopped));
        assert_eq!(lines.next(), Some(Inbound::Other));
    }

    #[test]
    fn an_endless_line_does_not_fill_memory() {
        let mut lines = Lines::default();
        for _ in 0..10 {
            lines.push(&vec![b'x'; 1 << 20]);
        }
        assert!(lines.0.len() <= MAX_LINE);
    }
}
