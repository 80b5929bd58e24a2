#!/bin/busybox sh
# First process of the emulated machine that avx512.sh boots: runs every program in /tests, in the
# order of their names. Reports on the serial console, in lines that begin with "emulate:".
busybox=/bin/busybox
$busybox mount -t proc proc /proc
$busybox mount -t devtmpfs dev /dev
$busybox mount -t tmpfs tmp /tmp
for flag in avx512f avx512bw avx512dq avx512vl avx512vbmi; do
    $busybox grep -qw "$flag" /proc/cpuinfo && echo "emulate: flag $flag"
done
skip=
for program in /tests/*; do
    # shellcheck disable=SC2046,SC2086  # one assignment and one argument a line, without spaces
    $busybox env $($busybox cat /environment) "$program" $($busybox cat /arguments) $skip
    status=$?
    # The probe found a fault in conversions to half precision, and no other.
    if [ $status = 3 ]; then
        echo "emulate: leaving out steps in float16, which this emulator rounds wrongly"
        skip="--skip steps_float16"
        status=0
    fi
    # The kernel says which instruction a signal was for.
    [ $status -lt 128 ] || $busybox dmesg | $busybox tail -n 2
    echo "emulate: exit $status ${program##*/}"
done
echo "emulate: done"
# Nothing more: switching off would lose what the serial port has not sent yet.
exec $busybox sleep 1000000
