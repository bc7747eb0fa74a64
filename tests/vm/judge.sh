#!/bin/sh
# SPDX-License-Identifier: MIT
#
# judge.sh - a guest's disk, judged by what the guest was told: whatever a power cut leaves of the
# image, nothing is lost that was said to be durable.
#
# The guest switches its write cache at random, 50 times a run and more, between writes, flushes
# and resets.  A disk that lies about flushes must be caught, and the flush named.  STATES (default
# 3000) of each run are judged.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if [ ! -w /dev/kvm ]; then
	echo "skip all: /dev/kvm is missing or forbidden"
	exit 0
fi

# script SEED RESET: steps for the guest's job wce.
script() {
	awk -v seed="$1" -v reset="$2" 'BEGIN {
		srand(seed)
		for (i = 0; i < 55; i++) {
			printf "%s%s,", i % 2 ? "w" : "W", int(rand() * 6) + 1
			if (rand() < 0.4) printf "f,"
			printf i % 2 ? "on," : "off,"
			if (reset && i % 20 == 19) printf "reset,"
		}
		printf "w3,f,W4"
	}'
}

# record BUS FORMAT SEED MORE: runs that on a new image; leaves before.img, disk.img and log.
record() {
	bus=$1 word= reset=1 drive="file=disk.img,if=$1,format=$2,trace=log$4"
	[ "$bus" = virtio ] || word=bus=ide reset=0
	rm -f disk.img log
	"$SLUICE" img create -q -f "$2" disk.img 64M >/dev/null && cp disk.img before.img &&
		timeout 60 "$SLUICE" run -kernel @guest -timeout 50 -drive "$drive" \
			-append "wce $word script=$(script "$3" $reset)" >out 2>err </dev/null
}

seed=0
for way in "virtio qcow2" "virtio raw" "ide qcow2" "ide raw"; do
	seed=$((seed + 1))
	record "${way% *}" "${way#* }" $seed "" &&
		"$SLUICE" powercut info log --json >info &&
		off=$(sed -n 's/^ *"cache_off": \([0-9]*\).*/\1/p' info) &&
		on=$(sed -n 's/^ *"cache_on": \([0-9]*\).*/\1/p' info) &&
		[ $((off + on)) -ge 50 ] &&
		"$SLUICE" powercut judge log --image before.img --states "${STATES:-3000}" \
			>out 2>err && grep -q ': 0 break a promise$' out
	verdict "$way: no cut loses what the guest was told is durable" $?
	record "${way% *}" "${way#* }" $seed ,lie=flush
	"$SLUICE" powercut judge log --image before.img --states 300 >out 2>err
	[ $? -eq 2 ]
	verdict "$way: a disk that lies about flushes is caught" $?
	[ "${way#* }" != raw ] || grep -q 'promised by flush #[0-9]*: ' out
	verdict "$way: and what it broke is named" $?
done

exit $status
