#!/bin/sh
# Builds turns.so, or the file named as the argument, with the toolchain of rust-toolchain.toml.
set -eu
here=$(dirname "$0")
out=${1:-$here/turns.so}
exec "${RUSTC:-rustc}" --edition 2024 --crate-name turns --crate-type cdylib \
    --target x86_64-unknown-linux-gnu -C opt-level=s -C panic=abort -C strip=symbols -C codegen-units=1 -C debuginfo=0 \
    -C link-arg=-nostartfiles -C link-arg=-nostdlib -C link-arg=-Wl,--build-id=none -C link-arg=-Wl,-z,noexecstack \
    -C link-arg=-Wl,--gc-sections -C link-arg=-Wl,-z,undefs \
    --remap-path-prefix "$here=." \
    -o "$out" "$here/main.rs"
