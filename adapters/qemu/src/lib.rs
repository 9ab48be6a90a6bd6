//! The hypervisor port over qemu-system: software emulation and deterministic mode.
