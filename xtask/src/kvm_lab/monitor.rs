//! A look at the lab's processor from outside, when the lab says nothing for long: whether it stands still, and
//! which interrupts it has not taken. Asked of QEMU's monitor, so it needs nothing that works inside.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Longer than any test in the lab waits for its guest before it gives up by itself.
const SILENCE: Duration = Duration::from_secs(150);
/// Looks, so that what stands still is told from what goes on, and the time between them.
const LOOKS: usize = 3;
const APART: Duration = Duration::from_secs(2);
/// How long QEMU may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
const PROMPT: &[u8] = b"(qemu) ";
/// Lines of QEMU's answers that say where the processor is and what it waits for.
const TELLING: [&str; 7] = ["RIP=", "CR0=", "LVTT\t", "Timer", "ISR", "IRR", "APR"];

/// QEMU's monitor at a socket of this process.
#[derive(Debug)]
pub(super) struct Monitor {
    socket: PathBuf,
    last_line: Mutex<Instant>,
}

impl Monitor {
    /// A socket for one run. It isn't in the project's folder, whose path may be too long for one.
    pub(super) fn new() -> Self {
        let name = format!("ktstr-kvm-lab-{}", std::process::id());
        Self { socket: std::env::temp_dir().join(name), last_line: Mutex::new(Instant::now()) }
    }

    /// The value of QEMU's option `-monitor`.
    pub(super) fn option(&self) -> String {
        format!("unix:{},server=on,wait=off", self.socket.display())
    }

    /// The lab has said something.
    pub(super) fn heard(&self) {
        *self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }

    /// Waits for the end of the lab, which closes `ended`, and meanwhile looks once at one that has fallen silent.
    pub(super) fn watch(&self, ended: &Receiver<()>) {
        let last_line = || *self.last_line.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        while ended.recv_timeout(Duration::from_secs(1)) == Err(RecvTimeoutError::Timeout) {
            if last_line().elapsed() > SILENCE {
                println!("  the lab has said nothing for {} s; its processor:", SILENCE.as_secs());
                for line in looks(&self.socket) {
                    println!("    | {line}");
                }
                // Once: a lab that goes on will say so, and one that doesn't has nothing new to show.
                let _ = ended.recv();
                return;
            }
        }
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // Not there if QEMU was never started.
        let _ = std::fs::remove_file(&self.socket);
    }
}

fn looks(socket: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for look in 0..LOOKS {
        if look > 0 {
            std::thread::sleep(APART);
        }
        match ask(socket, &["info registers", "info lapic"]) {
            Ok(text) => lines.extend(telling(&text)),
            Err(e) => lines.push(format!("asking QEMU's monitor at {}: {e}", socket.display())),
        }
    }
    lines
}

fn telling(answer: &str) -> Vec<String> {
    let is_telling = |line: &&str| TELLING.iter().any(|start| line.starts_with(start));
    answer.lines().filter(is_telling).map(|line| line.trim_end().to_owned()).collect()
}

fn ask(socket: &Path, questions: &[&str]) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(ANSWER))?;
    let mut text = until_prompt(&mut stream)?;
    for question in questions {
        stream.write_all(format!("{question}\n").as_bytes())?;
        text.push_str(&until_prompt(&mut stream)?);
    }
    Ok(text)
}

fn until_prompt(stream: &mut UnixStream) -> std::io::Result<String> {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    while !text.ends_with(PROMPT) {
        match stream.read(&mut buffer)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => text.extend_from_slice(&buffer[..count]),
        }
    }
    Ok(String::from_utf8_lossy(&text).replace('\r', ""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    /// A monitor that echoes what it was asked, as QEMU's does, and answers in pieces.
    fn monitor(socket: &Path, answers: &'static [&'static str]) -> std::thread::JoinHandle<Vec<String>> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut asked = Vec::new();
            stream.write_all(b"QEMU 7.2 monitor\r\n(qemu) ").unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            for answer in answers {
                let Some(Ok(line)) = lines.next() else { break };
                let (first, second) = answer.split_at(answer.len() / 2);
                stream.write_all(format!("{line}\r\n{first}").as_bytes()).unwrap();
                stream.write_all(format!("{second}(qemu) ").as_bytes()).unwrap();
                asked.push(line);
            }
            asked
        })
    }

    #[test]
    fn what_tells_of_the_processor_is_asked_and_picked_out() {
        let of_this_test = Monitor { socket: tempfile_name("picked"), last_line: Mutex::new(Instant::now()) };
        let qemu = monitor(
            &of_this_test.socket,
            &[
                "RAX=1\r\nRIP=ff RFL=2 HLT=1\r\nGDT= 0\r\n",
                "LVTT\t 0xec one-shot\r\nISR\t (none)\r\nIRR\t 236 \r\n",
            ],
        );
        let text = ask(&of_this_test.socket, &["info registers", "info lapic"]).unwrap();
        assert_eq!(qemu.join().unwrap(), ["info registers", "info lapic"]);
        let expected = ["RIP=ff RFL=2 HLT=1", "LVTT\t 0xec one-shot", "ISR\t (none)", "IRR\t 236"];
        assert_eq!(telling(&text), expected);
    }

    #[test]
    fn a_monitor_that_is_gone_is_said_and_its_socket_removed() {
        let gone = Monitor { socket: tempfile_name("gone"), last_line: Mutex::new(Instant::now()) };
        let socket = gone.socket.clone();
        assert!(ask(&socket, &[]).is_err());
        let qemu = monitor(&socket, &[]);
        let error = ask(&socket, &["info lapic"]).unwrap_err();
        qemu.join().unwrap();
        assert!(!error.to_string().is_empty() && socket.exists());
        drop(gone);
        assert!(!socket.exists());
    }

    fn tempfile_name(test: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ktstr-monitor-{test}-{}", std::process::id()))
    }
}
