//! A 16550A serial port over `vm-superio`, which hands complete lines to its sink.

mod state;

pub use state::SerialState;

use crate::Sink;
use std::io;
use vm_superio::Trigger;
use vmm_sys_util::eventfd::EventFd;

/// Bytes that may wait for the end of their line.
const MAX_LINE: usize = 1024;

/// A serial port that can't do what the guest asked.
#[derive(Debug, thiserror::Error)]
#[error("serving register {offset} of a serial port: {why}")]
pub struct SerialError {
    /// Register, from 0 to 7.
    pub offset: u8,
    /// The reason.
    pub why: String,
}

/// A serial port.
pub struct Serial {
    model: vm_superio::Serial<Line, vm_superio::serial::NoEvents, Lines>,
}

impl Serial {
    /// A port that raises `interrupt` and sends what the guest writes to `sink`.
    #[must_use]
    pub fn new(interrupt: EventFd, sink: Box<dyn Sink>) -> Self {
        Self { model: vm_superio::Serial::new(Line(interrupt), Lines { waiting: Vec::new(), sink }) }
    }

    /// The guest reads register `offset`, one byte at a time; wider reads give ones.
    pub fn read(&mut self, offset: u8, data: &mut [u8]) {
        match data {
            [byte] => *byte = self.model.read(offset),
            wider => wider.fill(0xff),
        }
    }

    /// The guest writes register `offset`; wider writes are ignored, as on hardware.
    ///
    /// # Errors
    /// An interrupt that could not be raised.
    pub fn write(&mut self, offset: u8, data: &[u8]) -> Result<(), SerialError> {
        let [byte] = data else { return Ok(()) };
        self.model.write(offset, *byte).map_err(|e| SerialError { offset, why: format!("{e:?}") })
    }

    /// Gives the guest bytes to read, as many as its queue takes; returns how many.
    ///
    /// # Errors
    /// An interrupt that could not be raised.
    pub fn input(&mut self, bytes: &[u8]) -> Result<usize, SerialError> {
        let room = self.model.fifo_capacity().min(bytes.len());
        if room == 0 {
            return Ok(0);
        }
        self.model
            .enqueue_raw_bytes(&bytes[..room])
            .map_err(|e| SerialError { offset: 0, why: format!("{e:?}") })
    }

    /// Hands over what still waits for the end of its line.
    pub fn flush(&mut self) {
        self.model.writer_mut().hand_over();
    }
}

/// Interrupt line as an eventfd.
struct Line(EventFd);

impl Trigger for Line {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

struct Lines {
    waiting: Vec<u8>,
    sink: Box<dyn Sink>,
}

impl Lines {
    fn hand_over(&mut self) {
        if !self.waiting.is_empty() {
            self.sink.take(&self.waiting);
            self.waiting.clear();
        }
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= MAX_LINE || bytes.contains(&b'\n') {
            self.hand_over();
        }
        Ok(bytes.len())
    }

    // The model flushes after every byte; that is what the lines are for.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    fn port() -> (Serial, Arc<Mutex<Vec<Vec<u8>>>>, EventFd) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let irq = EventFd::new(vmm_sys_util::eventfd::EFD_NONBLOCK).unwrap();
        let into = Arc::clone(&seen);
        let sink = move |bytes: &[u8]| into.lock().unwrap().push(bytes.to_vec());
        (Serial::new(irq.try_clone().unwrap(), Box::new(sink)), seen, irq)
    }

    #[test]
    fn lines_arrive_whole_and_the_rest_on_flush() {
        let (mut serial, seen, _irq) = port();
        for byte in b"one\ntwo" {
            serial.write(0, &[*byte]).unwrap();
        }
        assert_eq!(*seen.lock().unwrap(), [b"one\n".to_vec()]);
        serial.flush();
        serial.flush();
        assert_eq!(*seen.lock().unwrap(), [b"one\n".to_vec(), b"two".to_vec()]);
    }

    #[test]
    fn input_raises_the_interrupt_that_was_asked_for_and_never_overflows() {
        let (mut serial, _, irq) = port();
        serial.write(1, &[1]).unwrap();
        assert!(irq.read().is_err());
        let taken = serial.input(&[b'x'; 1000]).unwrap();
        assert!(taken > 0 && taken < 1000);
        assert_eq!(serial.input(b"y").unwrap(), 0);
        assert!(irq.read().is_ok());
        let mut byte = [0];
        serial.read(0, &mut byte);
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn odd_sizes_do_nothing() {
        let (mut serial, seen, _irq) = port();
        serial.write(0, b"ab").unwrap();
        serial.write(0, b"").unwrap();
        let mut wide = [0; 4];
        serial.read(5, &mut wide);
        serial.flush();
        assert_eq!((wide, seen.lock().unwrap().len()), ([0xff; 4], 0));
    }
}
