#!/bin/sh
# Builds boot-init.elf, or the file named as the argument, with the toolchain of
# rust-toolchain.toml.
set -eu
here=$(dirname "$0")
out=${1:-$here/boot-init.elf}
exec "${RUSTC:-rustc}" --edition 2024 --crate-name boot_init --crate-type bin \
    --target x86_64-unknown-linux-gnu -C opt-level=s -C panic=abort -C strip=symbols \
    -C relocation-model=static -C target-feature=+crt-static -C codegen-units=1 -C debuginfo=0 \
    -C link-arg=-nostartfiles -C link-arg=-nostdlib -C link-arg=-static \
    -C link-arg=-Wl,--build-id=none -C link-arg=-Wl,-z,noexecstack -C link-arg=-Wl,--gc-sections -C link-arg=-Wl,--defsym=rust_eh_personality=0 \
    --remap-path-prefix "$here=." \
    -o "$out" "$here/main.rs"
