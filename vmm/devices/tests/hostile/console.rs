//! The virtio console.

use super::driver::{Driver, SIZE};
use ktstr_vmm_devices::virtio::console::{MAX_CHAIN, MAX_INPUT};
use ktstr_vmm_devices::virtio::{Console, Port};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use vm_memory::{Bytes, GuestAddress};

const TEXT: &[u8] = b"still works";
const TEXT_AT: u64 = 0x8_0000;
/// Queue of the first port that brings the guest's output.
const OUTPUT: usize = 5;

/// A guest that mistreats the console, and a host that sends to it.
pub(crate) fn console(input: &[u8]) {
    let taken = Arc::new(AtomicUsize::new(0));
    let last = Arc::new(Mutex::new(Vec::<u8>::new()));
    let sink = || {
        let (taken, last) = (Arc::clone(&taken), Arc::clone(&last));
        Box::new(move |bytes: &[u8]| {
            taken.fetch_add(bytes.len(), Ordering::Relaxed);
            let mut last = last.lock().expect("nobody panics with it");
            last.clear();
            last.extend(bytes.iter().take(64));
        })
    };
    let port = |name: &str| Port::new(name, sink());
    let mut driver = Driver::new(Console::new(vec![port("one"), port("two")]).with_terminal(sink()));
    // What one kick may bring at most: each chain of a full queue, as long as is permitted.
    let most = Cell::new(0);
    let limit = 128 * MAX_CHAIN;
    driver.play(
        input,
        |driver, cursor| {
            let [port, length] = cursor.take()?;
            let (port, length) = (usize::from(port % 4), usize::from(length) * 5000);
            let accepted = driver.mmio.device().input(port, &vec![b'x'; length]);
            assert!(accepted <= length && accepted <= MAX_INPUT);
            driver.mmio.serve(Console::receive_queue(port)).expect("what a guest does is no error of ours");
            Some(())
        },
        |_| {
            let brought = taken.swap(0, Ordering::Relaxed);
            assert!(brought <= limit * 6, "{brought} bytes from one act");
            most.set(most.get().max(brought));
        },
    );
    driver.start();
    last.lock().expect("nobody panics with it").clear();
    driver.memory.write_slice(TEXT, GuestAddress(TEXT_AT)).expect("in RAM");
    for _ in 0..2 * SIZE {
        driver.describe(OUTPUT, 0, (TEXT_AT, TEXT.len() as u32, 0, 0));
        driver.offer(OUTPUT, 0);
        driver.kick(OUTPUT as u32);
    }
    assert_eq!(
        &**last.lock().expect("nobody panics with it"),
        TEXT,
        "the console doesn't work after a reset"
    );
    assert_eq!(driver.used(OUTPUT), (0, 0, 2 * SIZE));
}
