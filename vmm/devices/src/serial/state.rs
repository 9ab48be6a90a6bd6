//! A serial port of a saved machine.

use super::{Line, Lines, Serial, SerialError};
use crate::Sink;
use serde::{Deserialize, Serialize};
use vm_superio::serial::NoEvents;
use vmm_sys_util::eventfd::EventFd;

/// Registers, and what waits to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SerialState {
    /// Divisor latch low and high, interrupt enable, interrupt identification, line control,
    /// line status, modem control, modem status, scratch.
    registers: [u8; 9],
    input: Vec<u8>,
}

impl Serial {
    /// Its state, once [`flush`](Self::flush) has handed over what was printed.
    #[must_use]
    pub fn state(&self) -> SerialState {
        let s = self.model.state();
        SerialState {
            registers: [
                s.baud_divisor_low,
                s.baud_divisor_high,
                s.interrupt_enable,
                s.interrupt_identification,
                s.line_control,
                s.line_status,
                s.modem_control,
                s.modem_status,
                s.scratch,
            ],
            input: s.in_buffer,
        }
    }

    /// A port that goes on from a state. One that had raised its interrupt raises it again:
    /// whether the guest had got it is not known, and one too many does no harm.
    ///
    /// # Errors
    /// More input than its queue takes, or an interrupt that could not be raised.
    pub fn restored(
        state: &SerialState,
        interrupt: EventFd,
        sink: Box<dyn Sink>,
    ) -> Result<Self, SerialError> {
        let [low, high, enable, identification, line, line_status, modem, modem_status, scratch] =
            state.registers;
        let registers = vm_superio::SerialState {
            baud_divisor_low: low,
            baud_divisor_high: high,
            interrupt_enable: enable,
            interrupt_identification: identification,
            line_control: line,
            line_status,
            modem_control: modem,
            modem_status,
            scratch,
            in_buffer: state.input.clone(),
        };
        let lines = Lines { waiting: Vec::new(), sink };
        let model = vm_superio::Serial::from_state(&registers, Line(interrupt), NoEvents, lines)
            .map_err(|e| SerialError { offset: 0, why: format!("going on from a saved state: {e:?}") })?;
        Ok(Self { model })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmm_sys_util::eventfd::EFD_NONBLOCK;

    fn quiet() -> Box<dyn Sink> {
        Box::new(|_: &[u8]| {})
    }

    #[test]
    fn a_port_goes_on_with_its_registers_input_and_interrupt() {
        let irq = || EventFd::new(EFD_NONBLOCK).unwrap();
        let mut serial = Serial::new(irq(), quiet());
        for (register, value) in [(3, 0x83), (0, 12), (3, 3), (1, 1), (7, 0x5a)] {
            serial.write(register, &[value]).unwrap();
        }
        serial.input(b"xy").unwrap();
        let state = serial.state();
        let again = irq();
        let mut restored = Serial::restored(&state, again.try_clone().unwrap(), quiet()).unwrap();
        assert!(again.read().is_ok(), "the interrupt of the input was not raised again");
        assert_eq!(restored.state(), state);
        let mut byte = [0];
        for wanted in *b"xy" {
            restored.read(0, &mut byte);
            assert_eq!(byte, [wanted]);
        }
        restored.read(7, &mut byte);
        assert_eq!(byte, [0x5a]);
        let too_much = SerialState { input: vec![0; 1000], ..state };
        assert!(Serial::restored(&too_much, irq(), quiet()).is_err());
    }
}
