#!/bin/sh
# SPDX-License-Identifier: MIT
#
# trace.sh - a guest's disk is recorded: the log holds what the guest did and what that cost.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if [ ! -w /dev/kvm ]; then
	echo "skip all: /dev/kvm is missing or forbidden"
	exit 0
fi

# record BUS FORMAT WORDS: runs the guest on a new image; leaves disk.img and log.
record() {
	rm -f disk.img log
	"$SLUICE" img create -q -f "$2" disk.img 64M >/dev/null &&
		run_within 50 -kernel @guest -append "$3" -serial stdio \
			-drive "file=disk.img,if=$1,format=$2,trace=log" -stats stats.json \
			>out 2>err </dev/null
}

# figure NAME: of the drive, from -stats, all in all.
figure() {
	sed -n "s/^      \"$1\": \([0-9]*\).*/\1/p" stats.json | head -n 1
}

# count NAME FILTER: a number in what info says of the log.
count() {
	"$SLUICE" powercut info log --json | sed -n "/\"$1\": {/,/}/s/^ *\"$2\": \([0-9]*\).*/\1/p"
}

for way in "virtio raw" "virtio qcow2" "ide raw"; do
	bus=${way% *} format=${way#* }
	word=
	[ "$bus" = virtio ] || word=bus=ide
	record "$bus" "$format" "io $word rw=write bs=4k seconds=1 flush_every=8 span=8M depth=4" &&
		[ "$(count guest writes)" -eq "$(figure writes)" ] &&
		[ "$(count guest flushes)" -eq "$(figure flushes)" ] &&
		[ "$(count host fdatasyncs)" -eq "$(figure host_fdatasyncs)" ] &&
		[ "$(count host writes)" -eq "$(figure host_writes)" ] &&
		[ "$(count guest unanswered)" -eq 0 ]
	verdict "$way: the log counts what the statistics count" $?
	rm -f all.raw
	"$SLUICE" powercut replay log --at end --policy all -o all.raw >out 2>err &&
		"$SLUICE" img compare -f raw -F "$format" all.raw disk.img >>out
	verdict "$way: with nothing lost the log gives the image" $?
	rm -f all.raw back log.dm
	"$SLUICE" powercut export log -o log.dm >out 2>err &&
		"$SLUICE" powercut import log.dm -o back --blank --size 67108864 >out 2>err &&
		"$SLUICE" powercut replay back --at end --policy all -o all.raw >out 2>err &&
		"$SLUICE" img compare -f raw -F "$format" all.raw disk.img >>out
	verdict "$way: by way of dm-log-writes too" $?
done

# 'w4,f' leaves four writes that no cut after the flush may lose; the next two it may.
record virtio qcow2 "wce script=w4,f,w2" &&
	"$SLUICE" powercut replay log --at end --policy none -o none.raw >out 2>err &&
	"$SLUICE" io -f raw -c "read -P 0 16k 8k" none.raw >>out 2>>err &&
	"$SLUICE" img compare -f raw -F qcow2 none.raw disk.img >>out
[ $? -eq 1 ] && grep -q '0 are there, 2 lost' out && grep -q 'mismatch at offset 16384' out
verdict "what was flushed is in every cut, what was not is lost" $?

# With the cache off the same is safe at once; marks are the lines that the guest printed.
record virtio raw "wce script=off,w3" &&
	"$SLUICE" powercut replay log --at end --policy none -o safe.raw >out 2>err &&
	grep -q 'of 0 writes at risk' out && cmp safe.raw disk.img &&
	[ "$("$SLUICE" powercut info log --json | sed -n 's/^  "marks": \([0-9]*\),*/\1/p')" -gt 4 ]
verdict "with the cache off nothing is at risk" $?

# A disk that lies: the guest's flushes come back in order, and none of them reaches the host's.
rm -f disk.img log
"$SLUICE" img create -q -f raw disk.img 64M >/dev/null &&
	run_within 50 -kernel @guest -append "wce script=w4,f,w2,f,off,w1,v" \
		-drive file=disk.img,format=raw,lie=flush,trace=log -stats stats.json \
		>out 2>err </dev/null &&
	grep -q 'wce steps=7' out && [ "$(count guest flushes)" -eq 2 ] &&
	[ "$(count guest cache_off)" -eq 1 ] && [ "$(count guest failed)" -eq 0 ] &&
	[ "$(count host writes)" -eq 7 ] && [ "$(count host fdatasyncs)" -eq 0 ]
verdict "with lie=flush every flush is acknowledged and none carried out" $?

# The image named as its own log stays what it is.
"$SLUICE" img create -q -f raw other.img 1M && printf content | dd of=other.img conv=notrunc 2>err
"$SLUICE" run -kernel @guest -append hello -drive file=disk.img,format=raw,trace=other.img \
	>out 2>err
[ $? -eq 1 ] && grep -q 'no log' err && [ "$(head -c 7 other.img)" = content ]
verdict "an image is not taken for a log" $?

exit $status
