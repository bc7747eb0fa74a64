#!/bin/sh
# SPDX-License-Identifier: MIT
#
# guest_io.sh - sluice run beside QEMU, the same guest, in turn; by hand, asserts nothing.
#
# usage: tests/bench/guest_io.sh [BUS RW BYTES DEPTH]...    without arguments: the table below
#
# PAIRS (3) rounds of SECONDS_EACH (2) seconds on a 64 MiB image full of data, FORMAT (raw) and
# CACHE (writeback).  QEMU is measured as it comes, and as it is fastest: with aio=io_uring, and an
# iothread of its own for virtio.  A row is the median of requests a second of each, and the
# median of the rounds' ratios to the better of the two: above 1, sluice is faster.

cd "$(dirname "$0")/../.." || exit 2
sluice=${SLUICE:-$PWD/build/sluice}
guest=$PWD/build/guest/guest.elf
pairs=${PAIRS:-3} seconds=${SECONDS_EACH:-2} format=${FORMAT:-raw} cache=${CACHE:-writeback}
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/sluice-guest-io.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

[ $# -gt 0 ] || set -- ide read 4096 1 ide write 4096 1 ide read 131072 1 ide write 131072 1 \
	ide-pio read 4096 1 ide-pio read 65536 1 ide-pio write 4096 1 \
	virtio randread 4096 1 virtio randread 4096 32 virtio randwrite 4096 1 \
	virtio randwrite 4096 32

# One figure: requests a second.
measure() { # WHO BUS RW BYTES DEPTH
	words="io bus=$2 rw=$3 bs=$4 depth=$5 seconds=$seconds"
	iface=${2%-pio} device=ide-hd drive=
	[ "$iface" = ide ] || device=virtio-blk-pci,disable-legacy=on
	if [ "$1" = fast ]; then
		drive=,aio=io_uring
		[ "$iface" = ide ] || device=$device,iothread=t0
	fi
	if [ "$1" = sluice ]; then
		"$sluice" run -kernel "$guest" -append "$words" \
			-drive "if=$iface,file=$dir/disk,format=$format,cache=$cache"
	else
		qemu-system-x86_64 -accel kvm -M pc -m 128M -bios qboot.rom -nodefaults -no-reboot \
			-display none -device isa-debug-exit,iobase=0xf4,iosize=4 -serial stdio \
			-kernel "$guest" -append "$words" -device "$device,drive=d0" \
			-object iothread,id=t0 \
			-drive "if=none,id=d0,file=$dir/disk,format=$format,cache=$cache$drive"
	fi 2>/dev/null </dev/null | sed -n 's/.* iops=\([0-9]*\).*/\1/p'
}

median() { sort -n "$dir/$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

head -c 64M /dev/urandom >"$dir/full"
"$sluice" img convert -f raw -O "$format" "$dir/full" "$dir/disk" || exit 1
rm "$dir/full"
printf '%-8s %-9s %7s %5s %9s %9s %9s %6s\n' \
	bus rw bytes depth sluice QEMU "QEMU fast" ratio
while [ $# -ge 4 ]; do
	rm -f "$dir"/of.*
	for i in $(seq "$pairs"); do
		order="sluice qemu fast"
		[ $((i % 2)) = 1 ] || order="fast qemu sluice"
		for who in $order; do
			n=$(measure "$who" "$1" "$2" "$3" "$4")
			echo "${n:-0}" >>"$dir/of.$who"
		done
		tail -q -n 1 "$dir/of.sluice" "$dir/of.qemu" "$dir/of.fast" | tr '\n' ' ' |
			awk '{ b = $2 > $3 ? $2 : $3; printf "%.2f\n", b ? $1 / b : 0 }' \
				>>"$dir/of.ratio"
	done
	printf '%-8s %-9s %7s %5s %9s %9s %9s %6s\n' "$1" "$2" "$3" "$4" "$(median of.sluice)" \
		"$(median of.qemu)" "$(median of.fast)" "$(median of.ratio)"
	shift 4
done
