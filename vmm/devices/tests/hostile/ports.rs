//! Devices on I/O ports: the serial port and the power registers.

use super::cursor::Cursor;
use ktstr_vmm_devices::{Power, PowerEvent, PowerPorts, Serial};
use std::sync::{Arc, Mutex};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// A line at most, and what one write adds.
const MOST_AT_ONCE: usize = 1024 + 8;
/// Divisor latch access bit, and loopback (16550 data sheet: LCR bit 7, MCR bit 4).
const DLAB: u8 = 1 << 7;
const LOOPBACK: u8 = 1 << 4;

/// A guest that mistreats a serial port: what it writes to be sent arrives, once and in order, and nothing else.
pub(crate) fn serial(input: &[u8]) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let irq = EventFd::new(EFD_NONBLOCK).expect("an eventfd");
    let sink = move |bytes: &[u8]| {
        assert!(!bytes.is_empty() && bytes.len() <= MOST_AT_ONCE, "{} bytes at once", bytes.len());
        into.lock().expect("nobody panics with it").extend_from_slice(bytes);
    };
    let mut serial = Serial::new(irq.try_clone().expect("a copy"), Box::new(sink));
    let mut cursor = Cursor(input);
    let (mut line, mut modem, mut sent) = (0, 0, Vec::new());
    while let Some([act, value]) = cursor.take() {
        let offset = act >> 3 & 15;
        match act & 7 {
            0..=2 => {
                serial.write(offset, &[value]).expect("what a guest does is no error of ours");
                match offset {
                    0 if line & DLAB == 0 && modem & LOOPBACK == 0 => sent.push(value),
                    3 => line = value,
                    4 => modem = value,
                    _ => {}
                }
            }
            3 => serial.read(offset, &mut [0]),
            4 => serial.read(offset, &mut vec![0; usize::from(value % 9)]),
            5 if value != 1 => {
                let data = vec![value; usize::from(value % 9)];
                if data.len() != 1 {
                    serial.write(offset, &data).expect("odd widths are ignored");
                }
            }
            6 => {
                let taken = serial.input(&vec![value; usize::from(value)]).expect("no interrupt fails");
                assert!(taken <= usize::from(value).min(64), "{taken} bytes fit");
            }
            _ => serial.flush(),
        }
        // Nobody else empties it.
        let _ = irq.read();
    }
    serial.flush();
    assert_eq!(*seen.lock().expect("nobody panics with it"), sent);
}

/// A guest that writes anything to power registers at any ports, the same ones for several included.
pub(crate) fn power(input: &[u8]) {
    let mut cursor = Cursor(input);
    let Some(raw) = cursor.take::<8>() else { return };
    let port = |at: usize| u16::from_le_bytes([raw[at], raw[at + 1]]);
    let ports = PowerPorts {
        reset: port(0),
        sleep_control: port(2),
        sleep_status: port(4),
        keyboard_command: port(6),
    };
    let power = Power::new(ports);
    while let Some([low, high, value]) = cursor.take() {
        let all = [ports.reset, ports.sleep_control, ports.sleep_status, ports.keyboard_command];
        let port = match high {
            0..=127 => all[usize::from(low % 4)],
            _ => u16::from_le_bytes([low, high]),
        };
        match power.write(port, value) {
            Some(PowerEvent::Off) => assert!(port == ports.sleep_control && value == 0x34),
            Some(PowerEvent::Reset) => {
                assert!(port == ports.reset && value == 1 || port == ports.keyboard_command && value == 0xfe);
            }
            None => {}
        }
        assert_eq!(power.owns(port), all.contains(&port));
        assert_eq!(power.read(), 0);
    }
}
