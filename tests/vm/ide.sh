#!/bin/sh
# SPDX-License-Identifier: MIT
#
# ide.sh - IDE drives as the built-in guest meets them, and what the host did for them.
#
# The same jobs as on virtio: data over bus master and PIO, and the write cache, whose truth is
# told by the host's fdatasyncs (cache.sh says how).

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if [ ! -w /dev/kvm ]; then
	echo "skip all: /dev/kvm is missing or forbidden"
	exit 0
fi

# guest WORDS DRIVE...: runs the jobs; see out, err and stats.json.
guest() {
	words=$1
	shift
	for d in "$@"; do
		set -- "$@" -drive "if=ide,$d"
		shift
	done
	run_within 50 -kernel @guest -append "$words" -serial stdio \
		-stats stats.json "$@" >out 2>err </dev/null
}

# syncs BUS MODE SCRIPT: host fdatasyncs that the script caused.
syncs() {
	rm -f disk.img stats.json
	"$SLUICE" img create -q -f raw disk.img 64M >/dev/null || return 1
	guest "wce bus=$1 script=$3" "file=disk.img,format=raw,cache=$2" || return 1
	all=$(sed -n 's/^      "host_fdatasyncs": \([0-9]*\).*/\1/p' stats.json | head -n 1)
	closing=$(sed -n 's/^        "host_fdatasyncs": \([0-9]*\).*/\1/p' stats.json | head -n 1)
	echo $((all - ${closing:-0}))
}

for bus in ide ide-pio; do
	base=$(syncs $bus writeback w8,f)
	n=$(syncs $bus writeback w8,f,w8)
	verdict "$bus: with the cache on, writes alone cost no fdatasync" "$((n != base))"
	n=$(syncs $bus writeback w8,f,w8,f)
	verdict "$bus: FLUSH CACHE costs one" "$((n != base + 1))"
	n=$(syncs $bus writeback w8,f,w8,off)
	verdict "$bus: SET FEATURES 82h makes durable what was written" "$((n != base + 1))"
	n=$(syncs $bus writeback w8,f,off,w8)
	verdict "$bus: with the cache off each write costs one" "$((n != base + 8))"
	n=$(syncs $bus writeback w8,f,off,on,w8)
	verdict "$bus: and none when it is on again" "$((n != base))"
	n=$(syncs $bus writeback w8,f,off,reset,w8)
	verdict "$bus: a soft reset does not bring the cache back" "$((n != base + 8))"
	base=$(syncs $bus writethrough w8)
	n=$(syncs $bus writethrough w8,w8)
	verdict "$bus: writethrough: each write costs one" "$((n != base + 8))"
	guest "wce bus=$bus script=w8,f,off" file=disk.img,format=raw,cache=unsafe
	grep -q 'op=off writeback=1 cache=on .*result=refused' out
	verdict "$bus: unsafe: the cache is not said to be off" $?
	for wait in irq poll; do
		rm -f disk.img
		"$SLUICE" img create -q -f qcow2 disk.img 64M
		guest "io wce bus=$bus wait=$wait seconds=1 rw=randwrite script=W16,f,v" \
			file=disk.img,format=qcow2
		verdict "$bus: what is written reads back, wait=$wait" $?
		"$SLUICE" img check -q disk.img
		verdict "$bus: the image is clean, wait=$wait" $?
	done
done

# Four drives on two channels, each another size; and virtio beside them.
for i in 0 1 2 3; do
	"$SLUICE" img create -q -f raw $i.img $((i + 1))M
done
for i in 0 1 2 3; do
	guest "wce bus=ide disk=$i script=W4,f,v" file=0.img,format=raw file=1.img,format=raw \
		file=2.img,format=raw file=3.img,format=raw
	verdict "drive $i of four" $?
	grep -q "disk n=$i sectors=$((2048 * (i + 1))) " out
	verdict "drive $i has its size" $?
done
run_within 50 -kernel @guest -append "wce script=W4,f,v" \
	-drive file=0.img,format=raw -drive if=ide,file=1.img,format=raw >out 2>err </dev/null &&
	grep -q "disk n=0 sectors=2048 " out
verdict "a virtio drive beside an IDE drive" $?
guest hello file=0.img,format=raw file=1.img,format=raw file=2.img,format=raw \
	file=3.img,format=raw file=disk.img,format=qcow2
[ $? -eq 1 ] && grep -q 'at most 4 drives' err
verdict "a fifth is refused" $?

# What the guest may do to itself, it may not do to us.
for seed in 1 2 3; do
	"$SLUICE" img create -q -f qcow2 hostile.img 16M
	guest "hostile-ide bus=ide seed=$seed count=300" file=hostile.img,format=qcow2
	verdict "a hostile driver, seed $seed" $?
	"$SLUICE" img check -q hostile.img >out 2>err
	verdict "its image is clean, seed $seed" $?
done
guest "hostile-ide bus=ide-pio seed=4 count=300" file=hostile.img,format=qcow2
verdict "a hostile driver that knows no bus master" $?
exit $status
