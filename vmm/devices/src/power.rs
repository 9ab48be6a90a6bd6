//! Power-off and reset: ACPI's sleep control and reset registers, and the keyboard
//! controller's reset line as a last resort.

/// What the guest asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerEvent {
    /// Power off.
    Off,
    /// Reset.
    Reset,
}

/// Which I/O port is what; `None` for what the machine hasn't.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PowerPorts {
    /// ACPI reset register; any write of [`Power::RESET_VALUE`] resets.
    pub reset: u16,
    /// ACPI sleep control register.
    pub sleep_control: u16,
    /// ACPI sleep status register.
    pub sleep_status: u16,
    /// Command port of a keyboard controller.
    pub keyboard_command: u16,
}

/// The power registers. They have no state: each write is an event or nothing.
#[derive(Debug, Clone, Copy)]
pub struct Power {
    ports: PowerPorts,
}

/// `SLP_EN` and where `SLP_TYP` is (ACPI 6.5, 4.8.3.7).
const SLEEP_ENABLE: u8 = 1 << 5;
const SLEEP_TYPE_SHIFT: u8 = 2;
/// Pulse output port bit 0, the CPU's reset line, low.
const KEYBOARD_RESET: u8 = 0xfe;

impl Power {
    /// What the guest writes to the reset register.
    pub const RESET_VALUE: u8 = 1;
    /// `SLP_TYP` of S5 as the DSDT tells it.
    pub const OFF_TYPE: u8 = 5;

    /// Registers at these ports.
    #[must_use]
    pub const fn new(ports: PowerPorts) -> Self {
        Self { ports }
    }

    /// True when `port` is one of the registers.
    #[must_use]
    pub fn owns(&self, port: u16) -> bool {
        let PowerPorts { reset, sleep_control, sleep_status, keyboard_command } = self.ports;
        [reset, sleep_control, sleep_status, keyboard_command].contains(&port)
    }

    /// A write to one of the registers.
    #[must_use]
    pub fn write(&self, port: u16, value: u8) -> Option<PowerEvent> {
        let off = SLEEP_ENABLE | Self::OFF_TYPE << SLEEP_TYPE_SHIFT;
        if port == self.ports.reset && value == Self::RESET_VALUE {
            Some(PowerEvent::Reset)
        } else if port == self.ports.sleep_control && value == off {
            Some(PowerEvent::Off)
        } else if port == self.ports.keyboard_command && value == KEYBOARD_RESET {
            Some(PowerEvent::Reset)
        } else {
            None
        }
    }

    /// What each register reads as: nothing pending, nothing busy.
    #[must_use]
    pub const fn read(&self) -> u8 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agreed_values_have_an_effect() {
        let ports =
            PowerPorts { reset: 0x600, sleep_control: 0x601, sleep_status: 0x602, keyboard_command: 0x64 };
        let power = Power::new(ports);
        let mut events = Vec::new();
        for port in 0..0x700 {
            for value in 0..=255u8 {
                events.extend(power.write(port, value).map(|event| (port, value, event)));
            }
        }
        let reset = PowerEvent::Reset;
        assert_eq!(events, [(0x64, 0xfe, reset), (0x600, 1, reset), (0x601, 0x34, PowerEvent::Off)]);
    }
}
