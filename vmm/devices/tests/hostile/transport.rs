//! The MMIO transport, over a device that checks what the transport promises to devices.

use super::driver::{Driver, NEXT, SIZE, WRITE};
use ktstr_vmm_devices::virtio::{Device, VirtioError};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const FEATURES: u64 = 1 << 5 | 1 << 40;
const SIZES: [u16; 3] = [SIZE, 256, 1];
const CONFIG: [u8; 5] = *b"state";

/// Counts what it is asked; walks its chains and answers with their first byte turned round.
#[derive(Default)]
struct Mirror {
    served: u64,
    config_writes: u64,
}

impl Device for Mirror {
    fn id(&self) -> u32 {
        42
    }

    fn features(&self) -> u64 {
        FEATURES
    }

    fn queue_sizes(&self) -> &[u16] {
        &SIZES
    }

    fn read_config(&self, offset: u64, data: &mut [u8]) {
        for (at, byte) in (offset..).zip(data) {
            *byte = usize::try_from(at).ok().and_then(|at| CONFIG.get(at)).copied().unwrap_or(0);
        }
    }

    fn write_config(&mut self, _offset: u64, _data: &[u8]) {
        self.config_writes += 1;
    }

    fn serve(
        &mut self,
        queue: usize,
        queues: &mut [Queue],
        memory: &GuestMemoryMmap,
    ) -> Result<(), VirtioError> {
        self.served += 1;
        assert_eq!(queues.len(), SIZES.len());
        assert!(
            queues.iter().zip(SIZES).all(|(state, most)| state.size() <= most && state.max_size() == most)
        );
        let broken = |source| VirtioError::Queue { queue, source };
        if !queues[queue].ready() {
            return Ok(());
        }
        let chains: Vec<_> = queues[queue].iter(memory).map_err(broken)?.collect();
        assert!(chains.len() <= usize::from(SIZES[queue]), "more chains than entries");
        for chain in chains {
            let head = chain.head_index();
            let (mut count, mut first, mut written) = (0, 0u8, 0);
            for piece in chain {
                count += 1;
                if piece.is_write_only() && piece.len() > 0 && written == 0 {
                    written = u32::from(memory.write_obj(!first, piece.addr()).is_ok());
                } else if piece.len() > 0 {
                    first = memory.read_obj(piece.addr()).unwrap_or(first);
                }
            }
            assert!(count <= 2 * 256, "a chain of {count} descriptors");
            queues[queue].add_used(memory, head, written).map_err(broken)?;
        }
        Ok(())
    }

    fn reset(&mut self) {
        *self = Self::default();
    }
}

/// A guest that mistreats the transport.
pub(crate) fn transport(input: &[u8]) {
    let mut driver = Driver::new(Mirror::default());
    let (mut served, mut before) = (0, 0);
    driver.play(
        input,
        |_, _| Some(()),
        |driver| {
            let status = driver.register(0x70);
            let now = driver.mmio.device().served;
            // A device is only asked once its driver is ready, and no more once it needs a reset.
            assert!(now <= served || status & 12 == 12, "served {now} times with status {status:#x}");
            assert!(
                now <= served || before & (64 | 128) == 0,
                "served after it was broken: status {before:#x}"
            );
            before = status;
            assert_eq!(status & 64 != 0, driver.mmio.broken().is_some());
            assert!(status & 8 == 0 || status & 2 != 0, "features agreed without a driver: {status:#x}");
            assert!(status & 4 == 0 || status & 8 != 0, "running without features: {status:#x}");
            served = now;
            assert_eq!(driver.register(0), 0x7472_6976);
            assert_eq!(driver.register(8), 42);
        },
    );
    driver.start();
    driver.memory.write_obj(0x35u8, GuestAddress(0x8_0000)).expect("in RAM");
    driver.describe(0, 0, (0x8_0000, 1, NEXT, 1));
    driver.describe(0, 1, (0x8_0001, 1, WRITE, 0));
    driver.offer(0, 0);
    driver.kick(0);
    let answer: u8 = driver.memory.read_obj(GuestAddress(0x8_0001)).expect("in RAM");
    assert_eq!((answer, driver.used(0)), (!0x35, (0, 1, 1)), "a device doesn't work after a reset");
}
