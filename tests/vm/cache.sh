#!/bin/sh
# SPDX-License-Identifier: MIT
#
# cache.sh - the write cache as a guest sees it, proved by what the host did.
#
# The built-in guest's job "wce" writes, flushes and switches the cache bit by a script; the host's
# fdatasyncs, from -stats, say what each step was worth.  A script that differs from another
# in one step differs in the counts by what that step costs.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if [ ! -w /dev/kvm ]; then
	echo "skip all: /dev/kvm is missing or forbidden"
	exit 0
fi

# boot FORMAT MODE SCRIPT: runs the job on a fresh image; see out, err and stats.json.
boot() {
	rm -f disk.img stats.json
	"$SLUICE" img create -q -f "$1" disk.img 64M >/dev/null || return 1
	run_within 50 -kernel @guest -append "wce script=$3" -serial stdio \
		-drive "file=disk.img,if=virtio,format=$1,cache=$2" -stats stats.json \
		>out 2>err </dev/null
}

# figure NAME: of the drive, without what closing the image cost.
figure() {
	all=$(sed -n "s/^      \"$1\": \([0-9]*\).*/\1/p" stats.json | head -n 1)
	closing=$(sed -n "s/^        \"$1\": \([0-9]*\).*/\1/p" stats.json | head -n 1)
	echo $((all - ${closing:-0}))
}

# syncs FORMAT MODE SCRIPT: host fdatasyncs that the script caused.
syncs() {
	boot "$@" && figure host_fdatasyncs
}

# The first write to each place also makes room for it; w8,f before keeps that out of the counts.
for format in raw qcow2; do
	base=$(syncs $format writeback w8,f)
	n=$(syncs $format writeback w8,f,w8)
	verdict "$format: with the cache on, writes alone cost no fdatasync" "$((n != base))"
	n=$(syncs $format writeback w8,f,w8,f)
	verdict "$format: a flush costs one" "$((n != base + 1))"
	n=$(syncs $format writeback w8,f,f,f)
	verdict "$format: a flush with nothing new costs none" "$((n != base))"
	n=$(syncs $format writeback w8,f,w8,off)
	verdict "$format: turning the cache off makes durable what was written" "$((n != base + 1))"
	n=$(syncs $format writeback w8,f,off,w8)
	verdict "$format: with the cache off each write costs one" "$((n != base + 8))"
	n=$(syncs $format writeback w8,f,off,on,w8)
	verdict "$format: and none when it is on again" "$((n != base))"
	n=$(syncs $format writeback w8,f,off,reset,w8)
	verdict "$format: a reset brings the mode of the command line back" "$((n != base))"
	n=$(syncs $format writeback w8,f,plain,w8)
	verdict "$format: a driver that cannot flush gets writethrough" "$((n != base + 8))"
	base=$(syncs $format writethrough w8)
	n=$(syncs $format writethrough w8,w8)
	verdict "$format: writethrough: each write costs one" "$((n != base + 8))"
	n=$(syncs $format writethrough w8,f,f)
	verdict "$format: writethrough: flushes cost none" "$((n != base))"
	# As many new clusters, so as many to count: not eight times for the second eight, but once.
	same=$(syncs $format writethrough w8,w8,w8)
	n=$(syncs $format writethrough w8,on,w8,reset,w8)
	verdict "$format: writethrough: the guest may turn the cache on, a reset turns it off" \
		"$((n != same - 7))"
	verdict "$format: and what that counts ahead costs one at most" \
		"$((same < base + 16 || same > base + 17))"
	base=$(syncs $format unsafe w8)
	n=$(syncs $format unsafe w8,w8,f,f)
	verdict "$format: unsafe: flushes are acknowledged and not carried out" "$((n != base))"
	boot $format unsafe w8,f
	grep -q 'writeback=1' out
	verdict "$format: unsafe: the guest sees the cache on" $?
done

# The whole story, in every mode; "v" reads everything back.
for mode in writeback none writethrough directsync; do
	for format in raw qcow2; do
		boot $format $mode W16,f,off,W16,on,W16,f,reset,off,reset,plain,W16,v
		verdict "$format, cache=$mode: every step of the default script" $?
		[ $format = raw ] || ! command -v qemu-img >/dev/null ||
			qemu-img check disk.img >out 2>err
		verdict "$format, cache=$mode: the image is clean" $?
	done
done

# What the guest may do to itself, it may not do to us.
for seed in 1 2 3 4; do
	"$SLUICE" img create -q -f qcow2 hostile.img 64M
	run_within 100 -kernel @guest -append "hostile seed=$seed count=250" \
		-drive file=hostile.img,format=qcow2 -serial stdio \
		>out 2>err </dev/null
	verdict "a hostile driver, seed $seed" $?
	"$SLUICE" img check -q hostile.img >out 2>err
	verdict "its image is clean, seed $seed" $?
done
exit $status
