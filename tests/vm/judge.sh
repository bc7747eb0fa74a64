#!/bin/sh
# SPDX-License-Identifier: MIT
#
# judge.sh - a guest's disk, judged by what the guest was told: whatever a power cut leaves of the
# image, nothing is lost that was said to be durable.
#
# The guest's job churn switches its write cache at random, 50 times a run and more, between and
# under writes (with FUA on IDE), flushes, resets of the device and of the whole machine.  A disk
# that lies about flushes must be caught, and the flush named.  RUNS (default 1) seeds for each kind
# of disk, STATES (3000) of each run are judged:
#
#   RUNS=10 STATES=10000 TEST_TIMEOUT=3600 tests/run.sh vm: tests/vm/judge.sh

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if [ ! -w /dev/kvm ]; then
	echo "skip all: /dev/kvm is missing or forbidden"
	exit 0
fi

# record BUS FORMAT SEED STEPS MORE: that on a new image; leaves before.img, disk.img, log and out.
record() {
	rm -f disk.img log
	"$SLUICE" img create -q -f "$2" disk.img 64M >/dev/null && cp disk.img before.img &&
		run_within 50 -kernel @guest -serial stdio \
			-append "churn bus=$1 seed=$3 steps=$4 switches=$(($4 / 4)) rounds=2 \
				span=1M" \
			-drive "file=disk.img,if=${1%-pio},format=$2,trace=log$5" \
			>out 2>err </dev/null
}

# figure NAME: of the guest's side of the log.
figure() {
	sed -n "s/^ *\"$1\": \([0-9]*\).*/\1/p" info | head -n 1
}

all=0
ways="virtio qcow2:ide qcow2:ide-pio raw"
[ "${RUNS:-1}" -eq 1 ] || ways="$ways:virtio raw:ide raw:ide-pio qcow2"
IFS=:
for way in $ways; do
	unset IFS
	bus=${way% *} format=${way#* } run=0
	while [ $((run += 1)) -le "${RUNS:-1}" ]; do
		seed=$(($(echo "$way" | cksum | cut -c 1-4) * 100 + run)) of="$way, seed $seed"
		record "$bus" "$format" $seed 104 "" &&
			[ "$(grep -c '^guest: churn round=.* failed=0 wrong=0' out)" -eq 2 ] &&
			"$SLUICE" powercut info log --json >info &&
			[ $(($(figure cache_off) + $(figure cache_on))) -ge 50 ] &&
			[ "$(figure fua)" -gt 0 ] && [ "$(figure flushes)" -gt 0 ] &&
			"$SLUICE" powercut judge log --image before.img --seed $seed \
				--states "${STATES:-3000}" >out 2>err &&
			grep -q ': 0 break a promise$' out
		verdict "$of: no cut loses what the guest was told is durable" $?
		n=$(sed -n 's/^\([0-9]*\) states of .*/\1/p' out)
		all=$((all + n))
		record "$bus" "$format" $seed 40 ,lie=flush
		"$SLUICE" powercut judge log --image before.img --states 300 >out 2>err
		[ $? -eq 2 ] && grep -q 'promised by flush #[0-9]*: .*, acknowledged at' out &&
			grep -q 'promised at once: ' out
		verdict "$of: a disk that lies about flushes is caught, and the flush named" $?
	done
done
echo "$all states judged"

# What the same says to programs, and as a page; and of an image over another.
"$SLUICE" powercut judge log --image before.img --states 300 --json --html page.html >out 2>err
[ $? -eq 2 ] && grep -q '"promised": "promised by flush #' out &&
	grep -q 'breaks what flush #[0-9]* promised' page.html
verdict "as JSON and as a page" $?
"$SLUICE" img create -q -f raw below.img 64M &&
	"$SLUICE" io -f raw -c "write -P 7 0 8M" below.img >out 2>err &&
	"$SLUICE" img create -q -f qcow2 -b below.img -F raw disk.img >out 2>err &&
	cp disk.img before.img &&
	run_within 50 -kernel @guest \
		-append "wce script=w20,f,w9,off,W5,on,w9" \
		-drive file=disk.img,format=qcow2,trace=log >out 2>err </dev/null &&
	"$SLUICE" powercut judge log --image before.img --states 200 >out 2>err &&
	grep -q ': 0 break a promise$' out
verdict "an image over a backing file" $?
for lie in "" ,lie=flush; do
	rm -f disk.img data
	"$SLUICE" img create -q -f qcow2 -o data_file=data disk.img 64M >out 2>err &&
		cp disk.img before.img && cp data before.data &&
		run_within 50 -kernel @guest \
			-append "churn seed=5 steps=40 span=1M" \
			-drive "file=disk.img,format=qcow2,trace=log$lie" >out 2>err </dev/null &&
		"$SLUICE" powercut judge log --image before.img --data-file before.data \
			--states 500 >out 2>err
	[ $? -eq $((${#lie} / 5)) ] && grep -q ' states of .* judged: ' out
	verdict "an image with an external data file$lie" $?
done
"$SLUICE" powercut judge log --image disk.img >out 2>err
[ $? -eq 1 ] && grep -q 'disk.img does not hold what the disk held when the log began' err
verdict "not the image that the log began with" $?

exit $status
