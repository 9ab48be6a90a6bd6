//! The console's ports of a saved machine.

use super::{CONTROL_BYTES, Console, MAX_INPUT};
use crate::virtio::VirtioError;
use crate::virtio::mmio::unfit;
use serde::{Deserialize, Serialize};

/// Ports, and what the driver has yet to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConsoleState {
    terminal: Option<PortState>,
    ports: Vec<PortState>,
    answers: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct PortState {
    name: String,
    input: Vec<u8>,
    open: bool,
}

impl Console {
    /// Its state, the sinks aside.
    #[must_use]
    pub fn state(&self) -> ConsoleState {
        let port = |port: &super::Port| PortState {
            name: port.name.clone(),
            input: port.input.iter().copied().collect(),
            open: port.open,
        };
        ConsoleState {
            terminal: self.ports.terminal.as_ref().map(port),
            ports: self.ports.named.iter().map(port).collect(),
            answers: self.answers.iter().cloned().collect(),
        }
    }

    /// Goes on from a state.
    ///
    /// # Errors
    /// Other ports, or more waiting for the driver than can be.
    pub fn restore(&mut self, state: ConsoleState) -> Result<(), VirtioError> {
        let names = |ports: &mut dyn Iterator<Item = &str>| ports.collect::<Vec<_>>().join(", ");
        let saved = names(&mut state.ports.iter().map(|p| p.name.as_str()));
        let here = names(&mut self.ports.named.iter().map(|p| p.name.as_str()));
        if saved != here || state.ports.len() != self.ports.named.len() {
            return Err(unfit(format!("it was saved with the ports {saved}, here are {here}")));
        }
        if state.terminal.is_some() != self.ports.terminal.is_some() {
            let words = |there| if there { "a terminal" } else { "no terminal" };
            let (saved, here) = (words(state.terminal.is_some()), words(self.ports.terminal.is_some()));
            return Err(unfit(format!("it was saved with {saved}, here is {here}")));
        }
        if state.terminal.iter().chain(&state.ports).any(|port| port.input.len() > MAX_INPUT) {
            return Err(unfit("more input waits at a port than it takes".to_string()));
        }
        let longest = self.ports.named.iter().map(|p| p.name.len()).max().unwrap_or(0) + CONTROL_BYTES;
        if state.answers.len() > self.most_owed() || state.answers.iter().any(|a| a.len() > longest) {
            return Err(unfit("more control messages wait than there can be".to_string()));
        }
        for (port, saved) in self.ports.iter_mut().zip(state.terminal.into_iter().chain(state.ports)) {
            port.input = saved.input.into();
            port.open = saved.open;
        }
        self.answers = state.answers.into();
        Ok(())
    }
}
