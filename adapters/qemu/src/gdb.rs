//! QEMU's debug stub (the remote protocol of GDB, its manual's appendix E): only what it takes to
//! stop the machine when a word of its memory is written.
//!
//! The stub is started when it is first needed, over a socket pair of ours. It stops a running
//! machine when it is sent anything, so it is only spoken to while the machine stands still;
//! packets are never acknowledged, which the next one makes up for (QEMU gdbstub.c,
//! `gdb_read_byte`).

use ktstr_machine::{MachineError, VmEvent};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);
/// A stop reply is a few dozen bytes.
const MAX_PACKET: usize = 64 << 10;

/// Our end of the stub.
pub(crate) struct Gdb {
    socket: UnixStream,
    replies: Receiver<String>,
}

impl Gdb {
    /// Speaks over `socket`; stops of the machine go to `events`.
    pub(crate) fn new(socket: UnixStream, events: Sender<VmEvent>) -> Result<Self, MachineError> {
        let doing = || MachineError::os("preparing to listen to QEMU's debug stub");
        let reader = socket.try_clone().map_err(doing())?;
        let (sender, replies) = mpsc::channel();
        std::thread::Builder::new()
            .name("ktstr-gdb".to_string())
            // It ends with QEMU, which closes the other end.
            .spawn(move || listen(reader, &sender, &events))
            .map_err(doing())?;
        Ok(Self { socket, replies })
    }

    /// Has the machine stop after each write to the word at `address`.
    pub(crate) fn watch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        self.ask(&format!("Z2,{address:x},{bytes:x}"))
    }

    /// Ends that.
    pub(crate) fn unwatch(&mut self, address: u64, bytes: usize) -> Result<(), MachineError> {
        self.ask(&format!("z2,{address:x},{bytes:x}"))
    }

    fn ask(&mut self, command: &str) -> Result<(), MachineError> {
        let doing = || format!("command {command} of QEMU's debug stub");
        while self.replies.try_recv().is_ok() {}
        self.socket.write_all(&packet(command)).map_err(|_| MachineError::Gone { doing: doing() })?;
        match self.replies.recv_timeout(PATIENCE) {
            Ok(reply) if reply == "OK" => Ok(()),
            Ok(answer) => Err(MachineError::Refused { doing: doing(), answer: format!("{answer:?}") }),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(MachineError::NoAnswer { doing: doing(), after: PATIENCE })
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(MachineError::Gone { doing: doing() }),
        }
    }
}

/// `$`, the command, `#` and the sum of its bytes.
fn packet(command: &str) -> Vec<u8> {
    let sum = command.bytes().fold(0u8, u8::wrapping_add);
    format!("${command}#{sum:02x}").into_bytes()
}

/// Passes on what the stub says until it is gone.
fn listen(mut socket: UnixStream, replies: &Sender<String>, events: &Sender<VmEvent>) {
    let mut packets = Packets::default();
    let mut buffer = [0; 4096];
    loop {
        match socket.read(&mut buffer) {
            Ok(n) if n > 0 => packets.push(&buffer[..n]),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            _ => return,
        }
        while let Some(packet) = packets.next() {
            if let Some(address) = watched(&packet) {
                // A gone owner wants nothing.
                let _ = events.send(VmEvent::Written { address });
            } else if !packet.starts_with(['T', 'S']) {
                let _ = replies.send(packet);
            }
        }
    }
}

/// The address in a stop reply that tells of a write (`T05thread:01;watch:ffff…;`).
fn watched(packet: &str) -> Option<u64> {
    let fields = packet.strip_prefix('T')?.get(2..)?;
    let address = fields.split(';').find_map(|field| field.strip_prefix("watch:"))?;
    u64::from_str_radix(address, 16).ok()
}

/// Cuts a byte stream into packets; acknowledgements and what is damaged are dropped.
#[derive(Default)]
struct Packets(Vec<u8>);

impl Packets {
    fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
        if self.0.len() > MAX_PACKET {
            self.0.clear();
        }
    }

    fn next(&mut self) -> Option<String> {
        loop {
            let start = self.0.iter().position(|b| *b == b'$')?;
            let length = self.0[start..].iter().position(|b| *b == b'#')?;
            let end = start + length;
            if self.0.len() < end + 3 {
                return None;
            }
            let whole: Vec<u8> = self.0.drain(..end + 3).skip(start).collect();
            let content = String::from_utf8_lossy(&whole[1..length]).into_owned();
            if packet(&content) == whole {
                return Some(content);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn packets_carry_their_sum() {
        // The example of the protocol's manual.
        assert_eq!(packet("OK"), b"$OK#9a");
        let mut packets = Packets::default();
        packets.push(b"+$OK#9a$bad#00$T05thread:01;watch:ffffffff");
        assert_eq!(packets.next().as_deref(), Some("OK"));
        assert_eq!(packets.next(), None);
        packets.push(b"82000010;#");
        assert_eq!(packets.next(), None);
        let sum = "T05thread:01;watch:ffffffff82000010;".bytes().fold(0u8, u8::wrapping_add);
        packets.push(format!("{sum:02x}").as_bytes());
        let stop = packets.next().expect("the stop");
        assert_eq!(watched(&stop), Some(0xffff_ffff_8200_0010));
    }

    #[test]
    fn other_stops_are_no_writes() {
        assert_eq!(watched("T02thread:01;"), None);
        assert_eq!(watched("T"), None);
        assert_eq!(watched("OK"), None);
        assert_eq!(watched("T05watch:zz;"), None);
    }

    #[test]
    fn a_stub_that_refuses_is_heard_and_a_write_is_an_event() {
        let (ours, mut stub) = UnixStream::pair().unwrap();
        let (sender, events) = mpsc::channel();
        let mut gdb = Gdb::new(ours, sender).unwrap();
        let answers = std::thread::spawn(move || {
            let mut seen = [0; 64];
            let n = stub.read(&mut seen).unwrap();
            stub.write_all(&[&b"+"[..], &packet("E22")].concat()).unwrap();
            stub.write_all(&packet("T05thread:01;watch:1234;")).unwrap();
            String::from_utf8_lossy(&seen[..n]).into_owned()
        });
        let error = gdb.watch(0x1234, 4).unwrap_err().to_string();
        assert!(error.contains("Z2,1234,4") && error.contains("E22"), "{error}");
        assert_eq!(events.recv_timeout(PATIENCE), Ok(VmEvent::Written { address: 0x1234 }));
        assert!(answers.join().unwrap().starts_with("$Z2,1234,4#"));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_cut(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..20)) {
            let mut packets = Packets::default();
            for chunk in chunks {
                packets.push(&chunk);
                while let Some(packet) = packets.next() {
                    let _ = watched(&packet);
                }
            }
        }
    }
}
