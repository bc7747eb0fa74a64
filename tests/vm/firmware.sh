#!/bin/sh
# SPDX-License-Identifier: MIT
#
# firmware.sh - SeaBIOS boots what is on a disk: virtio and IDE, raw and qcow2, a CD; resets; -boot.
#
# The boot sector that the disks hold looks for a mark that it left in memory below 1 MiB: without
# one it leaves it and resets the machine; with one it prints a word through the BIOS and ends the
# run with the status in its last but three bytes.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"

# sector FILE STATUS: the boot sector above on a disk of 1 MiB.
sector() {
	cat >"$1.s" <<END
	.code16; .text; .globl _start; _start:
	xor %ax, %ax; mov %ax, %ds
	cmpw \$0xbeef, 0x600; je 2f
	movw \$0xbeef, 0x600; mov \$0xfe, %al; out %al, \$0x64; 1: hlt; jmp 1b
	2: mov \$0x7c00 + text - _start, %si
	3: lodsb; test %al, %al; jz 4f; mov \$14, %ah; mov \$7, %bx; int \$16; jmp 3b
	4: mov \$$2, %al; out %al, \$0xf4; 5: hlt; jmp 5b
	text: .asciz "sector runs\r\n"
	.org 510; .word 0xaa55
END
	cc -m32 -c -o "$1.o" "$1.s" 2>>cc.log && objcopy -O binary -j .text "$1.o" "$1" 2>>cc.log &&
		truncate -s 1M "$1"
}

# disc FILE SECTOR: a CD that boots that sector; its boot record in sector 17 names the catalog in
# 18, that the image in 19 (El Torito, sections 2 to 5).
disc() {
	{
		head -c 34816 /dev/zero
		printf '\0CD001\1EL TORITO SPECIFICATION'
		head -c 41 /dev/zero
		printf '\22\0\0\0'
		head -c 1973 /dev/zero
		printf '\1'
		head -c 27 /dev/zero
		printf '\252\125\125\252'
		printf '\210\0\0\0\0\0\4\0\23\0\0\0'
		head -c 2004 /dev/zero
		head -c 2048 "$2"
	} >"$1"
}

# ends NAME STATUS WORDS ARGUMENT...
ends() {
	name=$1 want=$2 words=$3
	shift 3
	run_within 55 "$@" >out 2>err </dev/null
	got=$?
	[ $got -eq "$want" ] &&
		if [ -n "$words" ]; then grep -qF -e "$words" err; else [ ! -s err ]; fi
	verdict "$name (status $got)" $?
}

ends "nothing to boot from" 1 'nothing to boot' -m 64M
ends "initrd without a kernel" 1 '-initrd and -append go with -kernel' -bios x -initrd y
ends "a wrong -boot" 1 'expected order=' -bios x -boot order=cx
ends "-cdrom and a drive in its place" 1 'index=2 twice' -cdrom x -drive if=ide,index=2,file=y
ends "a letter twice" 1 'expected order=' -bios x -boot cc
if ! sector disk 42; then
	echo "skip boots: no compiler for the boot sector: $(tail -n 1 cc.log)"
	exit $status
fi
ends "a firmware of a strange size" 1 'no PC firmware' -bios disk.s
if [ ! -e /usr/share/seabios/bios-256k.bin ] && [ ! -e /usr/share/seabios/bios.bin ]; then
	echo "skip boots: the package seabios is missing"
	exit $status
fi
"$SLUICE" img convert -f raw -O qcow2 disk disk.qcow2
ends "virtio, qcow2, two CPUs" 42 '' -smp 2 -drive file=disk.qcow2,format=qcow2
grep -q 'SeaBIOS' out && grep -q 'sector run' out
verdict "what BIOS and boot sector print is on the serial port" $?
ends "IDE, raw" 42 '' -drive if=ide,file=disk,format=raw
ends "-no-reboot ends at the reset" 0 '' -no-reboot -boot order=c -drive file=disk,format=raw
sector other 43
disc cd.iso other
ends "a CD" 43 '' -cdrom cd.iso
ends "-boot d: the CD before the disk" 43 '' -boot d -cdrom cd.iso -drive file=disk,format=raw
exit $status
