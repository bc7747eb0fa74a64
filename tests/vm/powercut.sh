#!/bin/sh
# SPDX-License-Identifier: MIT
#
# powercut.sh - the power of a running guest's disks is cut, by every trigger; what is left is what
# a disk may leave, and holds all that the guest was told is durable.
#
# Each run is recorded.  The image must be one that sluice powercut verify allows, and where few
# writes are at risk, one of those that explore makes of the recording: the one cuts at the host's
# file, the others at the disk that the guest saw.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if [ ! -w /dev/kvm ]; then
	echo "skip all: /dev/kvm is missing or forbidden"
	exit 0
fi

# new FORMAT: a new image, and what it holds.
new() {
	rm -f disk.img before.raw log
	"$SLUICE" img create -q -f "$1" disk.img 1M >/dev/null &&
		"$SLUICE" img create -q -f raw before.raw 1M >/dev/null
}

# run FORMAT BUS WORDS KEYS [OPTION...]: leaves out, err; the exit status.
run() {
	format=$1 bus=$2 words=$3 keys=$4
	shift 4
	[ "$bus" = virtio ] || words="$words bus=ide"
	run_within 50 -m 64M -kernel @guest -append "$words" \
		-drive "file=disk.img,if=$bus,format=$format,$keys" -stats stats.json "$@" \
		>out 2>err </dev/null
}

# cut FORMAT BUS WORDS KEYS: the same, and the power was cut.
cut() {
	run "$@"
	[ $? -eq 5 ] && grep -q 'drive0: the power was cut' err && ! grep -q warning err
}

# allowed: the image is one that the log allows, after the last line that the guest said.
allowed() {
	rm -f left.raw
	"$SLUICE" img convert -f "$format" -O raw disk.img left.raw >>out 2>>err || return 1
	LAST=$(grep '^guest:' out | tail -n 1) "$SLUICE" powercut explore log --image before.raw \
		--exhaustive --states 50 --reasons 1 --tear none \
		--check 'case $MARK in "$LAST" | 12) ! cmp -s {} left.raw;; esac' >explored 2>>err
	[ $? -eq 2 ]
}

# kept: it holds what was promised, and nothing that was not written since.
kept() {
	"$SLUICE" powercut verify log disk.img --image before.raw --image-format raw \
		>verified 2>>err
}

# whole: it opens, and has leaks at worst.
whole() {
	[ "$format" = raw ] && return
	"$SLUICE" img check disk.img >>out 2>>err
	case $? in 0 | 3) ;; *) return 1 ;; esac
}

work="wce script=w2,f,w2,W2,f,w1,off,w2,on,w2,m12,f,v"
try() {
	new "$1" && cut "$1" "$2" "$work" "powercut=$3,trace=log" && whole && kept && allowed
	verdict "$1 on $2, powercut=$3: what is left is allowed" $?
}
for keys in flush:2,policy=none flush:2,seed=3 write:5,policy=all write:8,seed=2 \
	byte:22K,policy=reorder sector:32-39,seed=4 after:5,seed=5 serial:step=3,seed=6 \
	mark:12,seed=2 write:10,policy=none; do
	try raw virtio $keys
done
for keys in flush:2,seed=3 write:8,policy=none sector:32-39,seed=4; do
	try qcow2 virtio $keys
done
try qcow2 ide flush:2,seed=5
try qcow2 ide write:6,policy=none

# Of a disk that lies the same is caught.
new raw && cut raw virtio "$work" powercut=flush:2,policy=none,lie=flush,trace=log &&
	! allowed && ! kept && grep -q 'durable data lost' verified
verdict "with lie=flush what is left breaks the promise" $?

# One seed is one cut, torn writes and all; the line that was printed repeats it.
seeded() { # FORMAT KEYS
	new "$1" && cut "$1" virtio \
		"io rw=randwrite bs=8k depth=1 flush_every=30 span=512K seconds=600" "$2"
}
for format in raw qcow2; do
	seeded $format powercut=write:200,tear=512,seed=7 && whole && mv disk.img first.img &&
		again=$(sed -n 's/.*again: .*,\.\.\.,//p' err) &&
		[ "$again" = powercut=write:200,policy=torn,seed=7,tear=512 ] &&
		seeded $format "$again" && cmp first.img disk.img
	verdict "$format: the same seed leaves the same image" $?
	seeded $format powercut=write:200,tear=512,seed=8 && whole && ! cmp -s first.img disk.img
	verdict "$format: another seed another" $?
done

# Many requests at once, the cache switched and the device reset under them; the cut wherever it is.
churn() { # FORMAT BUS SEED KEYS
	new "$1" && cut "$1" "$2" "churn seed=$3" "tear=512,seed=$3,trace=log,$4" && whole && kept
	verdict "$1 on $2, churn with $4: nothing is lost that was promised" $?
}
churn raw virtio 1 powercut=write:150
churn raw ide 2 powercut=flush:9
churn qcow2 virtio 3 powercut=write:300
churn qcow2 virtio 4 powercut=after:211,cache=none
churn qcow2 ide 5 powercut=write:99,cache=writethrough
[ "$(sed -n '/"powercut"/,/}/s/.*_risk": \([0-9]*\).*/\1/p' stats.json)" = \
	"$(sed -n 's/.*: of \([0-9]*\) writes at risk.*/\1/p' err)" ]
verdict "-stats says the same" $?
new raw && cut raw virtio "churn seed=6" powercut=write:200,lie=flush,trace=log && ! kept
verdict "churn with lie=flush: what is left breaks the promise" $?


# verify says no to what the guest never wrote, and does not guess.
new raw && run raw virtio "wce script=w2,f" trace=log && kept && cp disk.img foreign.img &&
	"$SLUICE" io -f raw -c 'write -P 9 4k 512' foreign.img >>out && {
	"$SLUICE" powercut verify log foreign.img >verified 2>>err
	[ $? -eq 2 ] && grep -q '^sector 8: never written by the guest' verified
} && {
	"$SLUICE" powercut verify log disk.img --image foreign.img >>out 2>>err
	[ $? -eq 1 ]
} && {
	"$SLUICE" powercut verify log >>out 2>>err
	[ $? -eq 1 ]
} && {
	"$SLUICE" powercut verify log missing.img >>out 2>>err
	[ $? -eq 1 ]
}
verdict "verify tells foreign data, another start and mistakes" $?

# An image and its data file lose their power together.
new raw && rm -f disk.img data.img && "$SLUICE" img create -q -f qcow2 \
	-o data_file=data.img,data_file_raw=on disk.img 1M >/dev/null &&
	cut qcow2 virtio "churn seed=7" powercut=write:250,tear=512,seed=2,trace=log &&
	whole && kept
verdict "an image and its data file" $?

# The user's: a signal, and the machine's other disks go with it.
rm -f other.img
new raw && "$SLUICE" img create -q -f qcow2 -o lazy_refcounts=on other.img 1M >/dev/null && {
	"$SLUICE" run -m 64M -kernel @guest -append "io rw=write disk=1 seconds=600" \
		-timeout $((50 * slow)) \
		-drive file=disk.img,format=raw,powercut=asked \
		-drive file=other.img,format=qcow2 -serial file:serial >out 2>err </dev/null &
	pid=$!
	until grep -q 'disk n=1' serial 2>/dev/null; do sleep 0.1; done
	kill -USR2 $pid
	wait $pid
}
[ $? -eq 5 ] && grep -q 'cut by a signal: of 0 writes at risk' err &&
	"$SLUICE" img check other.img >>out 2>&1
case $? in 0 | 3) ;; *) false ;; esac
verdict "a signal cuts the power" $?
if command -v python3 >/dev/null; then
	new raw
	"$SLUICE" run -m 64M -kernel @guest -append "wce script=w4,f,w2 halt" \
		-timeout $((50 * slow)) \
		-drive file=disk.img,format=raw,powercut=asked,policy=none,trace=log \
		-monitor unix:mon >out 2>err </dev/null &
	pid=$!
	until grep -q 'wce steps=3' out; do sleep 0.1; done
	timeout $((40 * slow)) python3 - >>out 2>>err <<-'END'
		import json, socket
		s = socket.socket(socket.AF_UNIX)
		s.connect("mon")
		f = s.makefile("rw")
		f.readline()
		for c in ("qmp_capabilities", "x-powercut"):
		    f.write(json.dumps({"execute": c}) + "\n")
		    f.flush()
		    assert json.loads(f.readline()) == {"return": {}}
		e = json.loads(f.readline())
		assert e["data"] == {"guest": False, "reason": "x-powercut"}, e
	END
	told=$?
	wait $pid
	[ $? -eq 5 ] && [ $told -eq 0 ] && grep -q 'by the monitor: of 2 writes at risk' err &&
		grep -q 'again: .*,powercut=after:7,policy=none,seed=1$' err
	format=raw
	allowed
	verdict "the monitor cuts the power" $?
fi

# Who lets the guest wait for the host, or ignores its errors, has no say when the power is gone.
for how in stop ignore; do
	new raw && cut raw virtio "churn seed=8" \
		"powercut=write:100,werror=$how,rerror=$how,trace=log" -monitor unix:mon && kept
	verdict "with werror=$how too" $?
done

new raw && run raw virtio "wce script=w4,f" powercut=flush:9 && grep -q 'not cut.* 1 flushes' err
verdict "a trigger that never came is told" $?

# ---- other personalities ----

new qcow2 && run qcow2 virtio "wce script=w4,f,v" fail=write:2
[ $? -ne 0 ] && grep -q 'op=w4 .*result=error' out && grep -q 'op=f .*result=ok' out &&
	"$SLUICE" img check disk.img >>out 2>&1
verdict "fail=: the guest is told of an error" $?
new raw && run raw ide "wce script=w4,f,v" fail=sector:9
[ $? -ne 0 ] && grep -q 'op=w4 .*result=error' out && grep -q 'op=v .*result=error' out
verdict "fail=: a bad sector on IDE" $?
new qcow2 && run qcow2 virtio "wce script=w100,f" full=300K
[ $? -ne 0 ] && grep -q 'op=w100 .*result=error' out && grep -q 'No space left' err &&
	"$SLUICE" img check disk.img >>out 2>&1
verdict "full=: the guest is told, the image is clean" $?
new raw && run raw virtio "wce script=w4,f,w2,f,v" delay=hdd && grep -q 'step=5.*result=ok' out &&
	usec=$(sed -n 's/.*step=2 .*usec=\([0-9]*\).*/\1/p' out) && [ "$usec" -ge 16000 ]
verdict "delay=: a flush takes as long as on a hard disk, at least" $?

# ---- mistakes ----

for keys in powercut=flush:0 powercut=asked,policy=some powercut=serial:a\(b seed=7 fail=x delay=x \
	full=x powercut=asked,readonly=on; do
	new raw && run raw virtio hello "$keys"
	[ $? -eq 1 ] && [ "$(wc -l <err)" -eq 1 ] && cmp -s disk.img before.raw
	verdict "$keys is refused" $?
done

exit $status
