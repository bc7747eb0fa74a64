#!/bin/sh
# SPDX-License-Identifier: MIT
#
# start.sh - from the process's start to the guest's first instruction, and resident memory beside
# the guest's, of sluice run and of QEMU; by hand, asserts nothing.
#
# The guest of the first is two instructions that write to the serial port, in 128 MiB and with one
# virtio drive.  That of the second reads and writes at random, 32 requests at a time.  QEMU starts
# such a kernel through a firmware, of which qboot is the fastest.
# usage: tests/bench/start.sh [RUNS]

cd "$(dirname "$0")/../.." || exit 2
sluice=${SLUICE:-$PWD/build/sluice}
tool=$PWD/build/tests/bench/start
guest=$PWD/build/guest/guest.elf
runs=${1:-15}
dir=$(mktemp -d "${TMPDIR:-/dev/shm}/sluice-start.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
make -s benches "$sluice" || exit 1

cat >"$dir/first.S" <<'END'
	.code32
	.globl	_start
_start:	mov	$0x3f8, %dx
	outb	%al, %dx
1:	hlt
	jmp	1b
	.section .note.pvh, "a", @note
	.long	4, 8, 18
	.asciz	"Xen"
	.quad	_start
	.section .note.GNU-stack, "", @progbits
END
cc -nostdlib -static -Wl,-Ttext=0x100000,--build-id=none,-z,noseparate-code -o "$dir/first" \
	"$dir/first.S" || exit 1
"$sluice" img create -q -f raw "$dir/disk" 64M || exit 1

# run WHO KERNEL WORDS TOOL...
run() {
	who=$1 kernel=$2 words=$3
	shift 3
	if [ "$who" = sluice ]; then
		"$@" "$sluice" run -kernel "$kernel" -append "$words" \
			-drive "file=$dir/disk,format=raw"
	else
		"$@" qemu-system-x86_64 -accel kvm -M pc -m 128M -bios qboot.rom -nodefaults \
			-no-reboot -display none -device isa-debug-exit,iobase=0xf4,iosize=4 \
			-serial stdio -kernel "$kernel" -append "$words" \
			-device virtio-blk-pci,disable-legacy=on,drive=d0 \
			-drive "if=none,id=d0,file=$dir/disk,format=raw" 2>/dev/null
	fi
}

printf '%-8s %28s %20s\n' '' 'first instruction, ms' 'beside the guest, KiB'
for who in sluice qemu; do
	[ $who = sluice ] || command -v qemu-system-x86_64 >/dev/null || continue
	ms=$(run $who "$dir/first" "" "$tool" time "$runs")
	kib=$(run $who "$guest" "io bus=virtio rw=randwrite bs=4096 depth=32 seconds=1" \
		"$tool" memory 128)
	# shellcheck disable=SC2086 # three numbers
	printf '%-8s %8s (%s to %s) %20s\n' $who $ms "$kib"
done
