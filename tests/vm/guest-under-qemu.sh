#!/bin/sh
# SPDX-License-Identifier: MIT
#
# guest-under-qemu.sh - the test guest does its jobs under QEMU's TCG, so that what it says about
# Sluice can be trusted.  Needs no /dev/kvm.  ACCEL=kvm runs the same under QEMU with KVM.
#
# The trace is synthetic: reads, writes and flushes of odd sizes, in part without waits, and a
# flush at the end, since QEMU's debug exit drops what is not flushed.

SRC=${SRC:-$(cd "$(dirname "$0")/../.." && pwd)}
for tool in qemu-system-x86_64 qemu-img python3; do
	command -v $tool >/dev/null || { echo "$tool is not installed"; exit 77; }
done
guest=$SRC/build/guest/guest.elf
make -s -C "$SRC" guest >&2 || exit 1
dir=$(mktemp -d "${TMPDIR:-/tmp}/guest.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
cd "$dir" || exit 1
status=0
accel="-accel ${ACCEL:-tcg}"
[ "${ACCEL:-tcg}" = kvm ] && accel="$accel -bios qboot.rom"

cat >mktrace.py <<'PYTHON'
import random, struct, sys
random.seed(7)
sectors, n, ops, version, ambiguous = 48 * 2048, 600, [], {}, set()
for i in range(n - 1):
    kind = random.choices((0, 1, 2), (20, 70, 10))[0]
    length = random.choice((1, 3, 8, 8, 8, 64, 256, 2560, 9000)) if kind < 2 else 0
    sector = random.randrange(sectors - length) if kind < 2 else 0
    wait = i if kind == 2 else random.choice((max(0, i - 40), i, 0, i // 2))
    ops.append(struct.pack("<IIQ", wait, kind << 28 | length, sector))
    for s in range(sector, sector + length) if kind == 1 else ():
        (ambiguous.add if version.get(s, 0) > wait else ambiguous.discard)(s)
        version[s] = i + 1
print(len(ambiguous), file=open("ambiguous", "w"))
ops.append(struct.pack("<IIQ", n - 1, 2 << 28, 0))
bad = {"kind": (1, 3 << 28, 0), "wait": (2000, 1 << 28 | 8, 0), "range": (0, 8, sectors - 7)}
if sys.argv[1] in bad:
    ops[5] = struct.pack("<IIQ", *bad[sys.argv[1]])
head = struct.pack("<8sIIQ40s", b"SLTRACE1", n, 0, sectors * 512, b"synthetic")
sys.stdout.buffer.write(head + b"".join(ops))
PYTHON
for kind in good kind wait range; do
	python3 mktrace.py $kind >$kind.trace || exit 1
done
ambiguous=$(cat ambiguous)

fresh() {
	rm -f disk.raw disk.qcow2
	truncate -s 64M disk.raw
	qemu-img create -q -f qcow2 disk.qcow2 64M
}

# run FORMAT ",DRIVE-OPTION" ",DEVICE-OPTION" "WORDS" [QEMU-OPTION...]: sets out, err, $code.
run() {
	format=$1 drive=$2 device=$3 words=$4
	shift 4
	# shellcheck disable=SC2086 # accel is words
	timeout 60 qemu-system-x86_64 -M pc $accel -m 192 -nodefaults -no-reboot -display none \
		-serial stdio -device isa-debug-exit,iobase=0xf4,iosize=4 -kernel "$guest" \
		-append "$words" -drive if=none,id=d0,file=disk."$format",format="$format$drive" \
		-device virtio-blk-pci,drive=d0,disable-legacy=on"$device" "$@" \
		>out 2>err </dev/null
	code=$?
}

# expect NAME EXIT-STATUS [LINE-PATTERN...]: of the run before; the status is the guest's.
expect() {
	name=$1 want=$2 good=1
	shift 2
	[ $code -eq $((2 * want + 1)) ] || good=0
	for line; do
		grep -Eq "^guest: $line" out || { good=0; echo "  no line: guest: $line"; }
	done
	if [ $good -eq 1 ]; then
		echo "ok $name"
		return
	fi
	echo "FAIL $name (exit status $code, expected $((2 * want + 1)))"
	sed 's/^/  | /' out
	tail -n 5 err | sed 's/^/  ! /'
	status=1
}

fresh
run raw "" "" hello
expect "hello" 0 "start version=1" "done status=0"
run raw "" "" exit=9
expect "the exit status is the guest's" 9 "done status=9"
run raw "" "" "io bs=4k frobnicate=1"
expect "an unknown word is refused" 4 "error text=unknown word 'frobnicate=1'"
run raw "" "" ""
expect "no job is refused" 4 "error text=no job"
run raw "" "" "io bs=1000"
expect "a bad value is refused" 4 "error text=bs=1000"
run raw "" "" triple
[ $code -eq 0 ] && echo "ok a triple fault ends the machine" ||
	{ echo "FAIL a triple fault ends the machine"; status=1; }
run raw "" "" poweroff
[ $code -eq 0 ] && echo "ok poweroff" || { echo "FAIL poweroff"; status=1; }
run raw "" "" "mem smp=2" -smp 2
expect "memory and CPUs" 0 "mem ranges=.* untouched=0 .* bad=0 " "smp cpus=2 "

for rw in read write randread randwrite; do
	run raw "" "" "io rw=$rw bs=16k depth=8 seconds=1 flush_every=50"
	expect "io $rw" 0 "io rw=$rw bs=16384 depth=8 .* ops=[1-9].* errors=0 p50_us=[0-9]"
done
run raw "" ,num-queues=3 "io rw=randread bs=512 depth=4 seconds=1 queue=2"
expect "io on the third queue" 0 "disk n=0 .* queues=3 " "io .* queue=2 ops=[1-9].* irqs=[1-9]"
run raw "" "" "io disk=1 seconds=1" -drive if=none,id=d1,file=disk.qcow2,format=qcow2 \
	-device virtio-blk-pci,drive=d1,disable-legacy=on
expect "io on the second disk" 0 "disk n=1 " "io .* errors=0 "

for format in raw qcow2; do
	fresh
	run $format "" "" "install verify" -initrd good.trace
	expect "install and verify, $format" 0 \
		"install ops=600 .* flushes=[1-9].* errors=0 .* wrong=0 " \
		"verify sectors=98304 bad=0 first_bad=none errors=0 ambiguous=$ambiguous "
	run $format "" "" "verify" -initrd good.trace
	expect "verify after a new start, $format" 0 \
		"verify sectors=98304 bad=0 .* ambiguous=$ambiguous "
	run $format "" "" "verify=written" -initrd good.trace
	expect "verify what was written, $format" 0 "verify sectors=[1-9][0-9]* bad=0 "
	qemu-io -f $format -c "write -q -P 0x5a 1m 512" disk.$format >/dev/null 2>&1
	run $format "" "" "verify" -initrd good.trace
	expect "verify finds a foreign sector, $format" 2 "bad sector=2048 .* found=garbage" \
		"verify sectors=98304 bad=1 first_bad=2048 "
done
for how in ring=plain ring=noevent ring=noindirect seg=512 wait=poll; do
	fresh
	run raw "" "" "install verify $how" -initrd good.trace
	expect "install and verify with $how" 0 "install .* errors=0 .* wrong=0 " \
		"verify .* bad=0 "
done
fresh
run raw "" ,queue-size=8,seg-max-adjust=off "install verify" -initrd good.trace
expect "install through a queue of 8" 0 "disk .* size=8 seg_max=6 " "install .* wrong=0 " \
	"verify .* bad=0 "
fresh
run raw ,cache=writethrough "" "install verify" -initrd good.trace
expect "without a write cache no flush is sent" 0 "disk .* cache=off" "install .* flushes=0 "
run raw ,cache=writethrough "" "install flush=always" -initrd good.trace
expect "flush=always sends them" 0 "install .* flushes=[1-9]"
for kind in kind wait range; do
	run raw "" "" install -initrd $kind.trace
	expect "a trace with a bad $kind is refused" 4 "error text=trace op 5"
done
run raw "" "" install -initrd mktrace.py
expect "what is no trace is refused" 4 "error text=the initrd is not a trace"
run raw "" "" install -initrd good.trace -m 24
expect "too little RAM is said" 4 "error text=RAM too small: [0-9]* KiB needed for "

fresh
run raw "" "" wce
expect "write cache contract" 0 "wce step=3 op=off writeback=0 cache=off .* result=ok" \
	"wce step=5 op=on writeback=1 cache=on .* result=ok" "wce step=11 op=plain .* cache=off " \
	"wce step=13 op=v .* result=ok"
run raw "" ,config-wce=off "wce script=w2,f,off,W40,v"
expect "no cache bit to write" 0 "wce step=3 op=off writeback=1 cache=on .* result=skipped" \
	"wce step=5 op=v .* result=ok"
for seed in 1 2 3; do
	run raw "" "" "hostile seed=$seed count=300"
	expect "hostile seed=$seed" 0 \
		"hostile cases=300 .* lost=0 strays=0 wrong=0 failed_valid=0 "
done
run qcow2 "" ,num-queues=2 "hostile seed=4 count=150 ring=plain"
expect "hostile, qcow2, plain rings" 0 \
	"hostile cases=150 .* lost=0 strays=0 wrong=0 failed_valid=0 "
exit $status
