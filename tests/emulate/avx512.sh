#!/usr/bin/env bash
# Runs the Rust core's tests with AVX-512, on an emulated CPU, on a Debian x86-64 machine.
#
# Many machines lack AVX-512, and neither valgrind nor qemu emulates it. Bochs does, instruction by
# instruction, but only as a whole machine that boots from a disk. So this builds static test
# binaries, puts them into the initial file system of a Debian kernel with a first process that runs
# them (avx512_init.sh), and boots that from a CD image. What is printed on the emulated serial port
# comes back through a file, and is checked: that the CPU has the features, that a program of its
# own (avx512_probe.rs) executes the instructions correctly, and that every test binary passed.
#
# A hundred times slower than the machine it runs on: property tests run with few cases. The model
# is Cannon Lake because Linux does not boot on this Bochs' (2.7) later ones. This Bochs has two faults.
# It takes a gather whose indices are in one of the registers 16 to 31 for an illegal instruction; the
# kernels have no gathers, and the tests keep the compiler from making such ones. And it rounds ties
# away from even in conversions to half precision, which the probe finds; then steps in float16 are
# left out.
#
# Installs what is missing as root, writes to target/emulate/avx512, passes arguments on to the test
# binaries (a filter, say). OPTIM8_EMULATE_TIMEOUT: the most that the emulated machine may run, in
# seconds, 1800 unless set. PROPTEST_CASES: cases of each property, 4 unless set.
set -euo pipefail
cd "$(dirname "$0")/../.."
# shellcheck source=tests/emulate/common.sh
. tests/emulate/common.sh

readonly work=target/emulate/avx512
readonly triple=x86_64-unknown-linux-gnu
readonly serial=$work/serial.txt
mkdir -p "$work"

install_missing bochs bochs-term isolinux syslinux-common genisoimage cpio busybox-static

# The kernel: the image alone, out of the package, which is not installed.
if [ ! -s "$work/linux" ]; then
    package=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: *//p')
    rm -f "$work"/linux-image-*.deb
    (cd "$work" && apt-get download -qq "$package")
    dpkg --fsys-tarfile "$work"/linux-image-*.deb |
        tar -xO --wildcards './boot/vmlinuz-*' >"$work/linux.new"
    mv "$work/linux.new" "$work/linux"
    rm "$work"/linux-image-*.deb
fi

# The programs to run. They are named for a target so that flags do not apply to build scripts.
rm -rf "$work/root" "$work/iso"
mkdir -p "$work"/root/{bin,dev,proc,tests,tmp} "$work/iso"
unset RUSTFLAGS
export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUSTFLAGS="-C target-feature=+crt-static"
rustc --edition 2024 -O -C target-feature=+crt-static -C strip=symbols \
    -o "$work/root/tests/0-probe" tests/emulate/avx512_probe.rs
cargo test --locked -p optim8-core --lib --tests --no-run --target "$triple" \
    --target-dir "$work/cargo" --message-format=json >"$work/build.json"
sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' "$work/build.json" | while read -r program; do
    strip -o "$work/root/tests/$(basename "$program")" "$program"
done
n_programs=$(find "$work/root/tests" -type f | wc -l)

# The file system, the CD image and the machine.
cp /bin/busybox "$work/root/bin/"
cp tests/emulate/avx512_init.sh "$work/root/init"
chmod 755 "$work/root/init"
printf '%s\n' OPTIM8_REQUIRE_LEVELS=avx512 PROPTEST_CASES="${PROPTEST_CASES:-4}" \
    PROPTEST_DISABLE_FAILURE_PERSISTENCE=true >"$work/root/environment"
printf '%s\n' --show-output --test-threads=1 "$@" >"$work/root/arguments"
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/iso/initrd"
cp "$work/linux" /usr/lib/ISOLINUX/isolinux.bin /usr/lib/syslinux/modules/bios/ldlinux.c32 \
    "$work/iso/"
# The kernel would find the emulation of the three features at odds with what it announces, and then
# do without the state of AVX-512.
cat >"$work/iso/isolinux.cfg" <<'CONFIG'
default tests
label tests
  kernel linux
  append initrd=initrd console=ttyS0,115200 quiet nokaslr mitigations=off clearcpuid=pku,xsaves,xsavec
CONFIG
genisoimage -quiet -o "$work/boot.iso" -b isolinux.bin -c boot.cat \
    -no-emul-boot -boot-load-size 4 -boot-info-table "$work/iso"
cat >"$work/bochsrc" <<CONFIG
cpu: model=corei3_cnl, count=1, ips=50000000, reset_on_triple_fault=0
megs: 512
romimage: file=/usr/share/bochs/BIOS-bochs-latest
vgaromimage: file=/usr/share/bochs/VGABIOS-lgpl-latest
clock: sync=none
display_library: term
ata0-master: type=cdrom, path=$work/boot.iso, status=inserted
boot: cdrom
com1: enabled=1, mode=file, dev=$serial
log: $work/bochs.log
panic: action=fatal
error: action=ignore
info: action=ignore
CONFIG
echo continue >"$work/debugger"

# Debian's Bochs has a debugger, which waits for a command to start; and draws on a terminal.
rm -f "$serial" "$work/boot.iso.lock"
echo "avx512: booting $n_programs programs in $(dpkg-query -W bochs); the log is $serial"
TERM=vt100 timeout -s KILL "${OPTIM8_EMULATE_TIMEOUT:-1800}" \
    bochs-bin -q -f "$work/bochsrc" -rc "$work/debugger" \
    </dev/null >"$work/screen.txt" 2>"$work/errors.txt" &
bochs=$!
# Its parent, timeout, would leave it running.
trap 'pkill -KILL -P $bochs || true' EXIT
while kill -0 $bochs 2>/dev/null && ! grep -qsE '^emulate: done|Kernel panic' "$serial"; do sleep 1; done

tr -d '\r' <"$serial" >"$work/log.txt"
cat "$work/log.txt"
for flag in avx512f avx512bw avx512dq avx512vl avx512vbmi; do
    require_line "emulate: flag $flag" "$work/log.txt"
done
require_line "probe: AVX-512" "$work/log.txt"
require_line "levels tested: avx512" "$work/log.txt"
require_line "emulate: done" "$work/log.txt"
n_passed=$(grep -c '^emulate: exit 0 ' "$work/log.txt" || true)
if [ "$n_passed" != "$n_programs" ]; then
    echo "avx512: $n_passed of $n_programs programs passed" >&2
    exit 1
fi
echo "avx512: the tests passed on AVX-512, on an emulated CPU"
