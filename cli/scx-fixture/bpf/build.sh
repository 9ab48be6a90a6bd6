#!/bin/sh
# Builds fixture.bpf.o, or the file named as the argument, with clang 19 and llvm-strip 19
# (CLANG, LLVM_STRIP). The same source and compiler give the same bytes anywhere.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
case ${1:-} in
"") out=$here/fixture.bpf.o ;;
/*) out=$1 ;;
*) out=$PWD/$1 ;;
esac
cd "$here"
"${CLANG:-clang-19}" -target bpf -mcpu=v3 -std=gnu23 -O2 -g -Wall -Wextra -Werror \
    -Wno-unused-parameter -Wno-missing-declarations -Wno-sign-compare \
    -nostdinc -ffreestanding -fdebug-compilation-dir=. -ffile-prefix-map="$here"=. \
    -c fixture.bpf.c -o "$out"
# Drops DWARF; BTF stays.
"${LLVM_STRIP:-llvm-strip-19}" --strip-debug "$out"
