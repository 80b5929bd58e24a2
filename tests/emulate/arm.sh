#!/usr/bin/env bash
# Runs the Rust core's tests for 64-bit ARM, in an emulator, on a Debian x86-64 machine.
#
# NEON is one of the instruction sets whose results must equal the scalar reference bit for bit, and
# a machine without it would compile that code at best. So the tests are cross-compiled and run by
# qemu's user mode emulator, which executes every NEON instruction. What they ran on is checked: a
# build for ARM whose tests run on the host, or without NEON, fails.
#
# The compiler is Debian's rustc-web beside rustup's, which stays untouched, because it has a
# standard library for ARM as a package. Programs are linked statically: under this qemu, a dynamic
# one hangs when it starts its first thread.
#
# Installs what is missing as root, writes to target/emulate/arm, passes arguments on to the tests (a filter, say).
# OPTIM8_EMULATE_TIMEOUT: the most that building and testing may take, in seconds, 1800 unless set.
# PROPTEST_CASES: cases of each property, 64 unless set.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/emulate/common.sh
. tests/emulate/common.sh

readonly triple=aarch64-unknown-linux-gnu
readonly log=target/emulate/arm/log.txt
mkdir -p target/emulate/arm

if [ "$(dpkg --print-foreign-architectures | grep -cx arm64)" = 0 ]; then
    as_root dpkg --add-architecture arm64
    as_root apt-get update -qq
fi
install_missing rustc-web libstd-rust-web-dev:arm64 gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
    qemu-user-static

export RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc CARGO_TARGET_DIR=target/emulate/arm
unset RUSTFLAGS
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=qemu-aarch64-static
export OPTIM8_REQUIRE_LEVELS=neon PROPTEST_CASES="${PROPTEST_CASES:-64}"
export PROPTEST_DISABLE_FAILURE_PERSISTENCE=true

echo "arm: $("$RUSTC" --version), $(qemu-aarch64-static --version | head -n 1)"
timeout "${OPTIM8_EMULATE_TIMEOUT:-1800}" \
    cargo test --locked -p optim8-core --lib --tests --target "$triple" -- --show-output "$@" 2>&1 | tee "$log"

require_line "levels tested: neon" "$log"
echo "arm: the tests passed on NEON, in an emulator"
