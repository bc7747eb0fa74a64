#!/bin/sh
# SPDX-License-Identifier: MIT
#
# werror.sh - the host's file system is full, or fails: the guest stops, waits and goes on.
#
# The file system is a small tmpfs in a mount namespace; what fails by itself is the fault filter's.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if ! command -v python3 >/dev/null; then
	echo "skip all: no python3"
	exit 0
fi

talk() {
	timeout $((90 * slow)) python3 "$SRC/tests/support/qmp.py" "$1" >>out 2>>err
}

# machine WORDS OPTION...: in the background, with a monitor.
machine() {
	words=$1
	shift
	rm -f out err mon
	run_within 95 -kernel @guest -append "$words" -serial stdio \
		-monitor unix:mon -S "$@" >out 2>err </dev/null &
	pid=$!
}

if [ "${1:-}" != inside ] && unshare -m true 2>/dev/null; then
	unshare -m "$SRC/tests/vm/werror.sh" inside
	exit
fi
if mkdir -p small && mount -t tmpfs -o size=3M none small 2>/dev/null; then
	for how in qcow2 raw,if=ide raw,cache=writethrough; do
		format=${how%%,*} bus=virtio
		case $how in *if=ide*) bus=ide ;; esac
		rm -f small/*
		mount -o remount,size=3M small
		"$SLUICE" img create -q -f "$format" small/disk.img 64M
		machine "io bus=$bus rw=write bs=4k seconds=$((2 * slow)) flush_every=16 span=16M \
			depth=4" \
			-drive "file=small/disk.img,format=$how"
		talk '
q("cont")
event("RESUME")
import subprocess
e = event("BLOCK_IO_ERROR")
assert (e["device"], e["action"], e["nospace"]) == ("drive0", "stop", True), e
assert e["operation"] == "write", e
event("STOP")
assert q("query-status") == {"running": False, "singlestep": False, "status": "io-error"}
assert block()["io-status"] == "nospace"
assert stat("x-failed_operations") == 0
n = stat("wr_operations")
assert q("cont") == {}  # nothing has changed: it stops again
event("RESUME")
event("STOP")
assert q("query-status")["status"] == "io-error"
subprocess.run(["mount", "-o", "remount,size=32M", "small"], check=True)
assert q("cont") == {}
event("RESUME")
wait_for(lambda: stat("wr_operations") > n)
assert block()["io-status"] == "ok"
assert event("SHUTDOWN")["guest"]
' && wait $pid && grep -q 'errors=0 ' out && [ "$(wc -l <err)" -eq 2 ] &&
			grep -q 'the guest is stopped' err
		verdict "$how: a full file system stops the guest, which never hears of it" $?
		[ "$format" = raw ] || "$SLUICE" img check -q small/disk.img >out 2>err
		verdict "$how: the image is clean" $?
	done
	# While it waits: an overlay elsewhere takes what is left.
	rm -f small/* over.img
	mount -o remount,size=3M small
	"$SLUICE" img create -q -f qcow2 small/disk.img 64M
	machine "io rw=write bs=4k seconds=$((2 * slow)) flush_every=16 span=16M depth=4" \
		-drive file=small/disk.img,format=qcow2
	talk '
q("cont")
event("RESUME")
event("STOP")
assert q("blockdev-snapshot-sync", device="drive0", **{"snapshot-file": "over.img"}) == {}
q("cont")
assert event("SHUTDOWN")["guest"]
' && wait $pid && grep -q 'errors=0 ' out && "$SLUICE" img check -q over.img >>out 2>>err
	verdict "an overlay on another file system takes what waits" $?
	# A guest that is reset, or ends, while requests wait.
	for how in raw qcow2,if=ide; do
		format=${how%%,*} bus=virtio
		case $how in *if=ide*) bus=ide ;; esac
		rm -f small/* over.img
		"$SLUICE" img create -q -f "$format" small/disk.img 64M
		machine "io bus=$bus rw=write bs=4k seconds=$((20 * slow)) span=16M depth=4" \
			-drive "file=small/disk.img,format=$how"
		talk '
q("cont")
event("RESUME")
event("STOP")
q("system_reset")
event("RESET")
assert q("query-status")["status"] == "paused"
q("cont")
event("RESUME")
event("STOP")
q("quit")
event("SHUTDOWN")
'
		verdict "$how: reset, and the end, while requests wait" $?
		wait $pid
	done
	rm -f small/*
	"$SLUICE" img create -q -f raw small/disk.img 64M
	machine "io rw=write bs=4k seconds=$slow span=16M depth=4" \
		-drive file=small/disk.img,format=raw,werror=report
	talk '
q("cont")
event("RESUME")
e = event("BLOCK_IO_ERROR")
assert (e["action"], e["nospace"]) == ("report", True), e
event("SHUTDOWN")
'
	wait $pid
	[ $? -ne 0 ] && grep -q 'errors=[1-9]' out
	verdict "werror=report: the guest is told" $?
	umount small
else
	echo "skip full file system: no permission to mount"
fi

# Errors of other kinds.
cat >rules <<'END'
[inject-error]
event = "write_aio"
errno = "5"
once = "on"
END
"$SLUICE" img create -q -f raw disk.img 64M
for bus in virtio ide; do
	machine "io bus=$bus rw=write bs=4k seconds=1 flush_every=16 span=8M depth=2" \
		-drive "file=blkdebug:rules:disk.img,format=raw,werror=stop,if=$bus"
	talk '
q("cont")
event("RESUME")
e = event("BLOCK_IO_ERROR")
assert (e["action"], e["nospace"], e["reason"]) == ("stop", False, "Input/output error"), e
event("STOP")
assert q("query-status")["status"] == "io-error" and block()["io-status"] == "failed"
assert q("cont") == {}
assert event("SHUTDOWN")["guest"]
' && wait $pid && grep -q 'errors=0 ' out
	verdict "$bus, werror=stop: an error that goes away" $?
done
machine "io rw=write bs=4k seconds=1 flush_every=16 span=8M depth=2" \
	-drive file=blkdebug:rules:disk.img,format=raw
talk '
q("cont")
event("RESUME")
assert event("BLOCK_IO_ERROR")["action"] == "report"
event("SHUTDOWN")
'
wait $pid
[ $? -ne 0 ] && grep -q 'errors=1 ' out
verdict "werror=enospc: another error than that is reported" $?
sed s/write_aio/read_aio/ rules >rules2
machine "io rw=read bs=4k seconds=1 span=8M depth=2" \
	-drive file=blkdebug:rules2:disk.img,format=raw,rerror=stop
talk '
q("cont")
event("RESUME")
e = event("BLOCK_IO_ERROR")
assert (e["action"], e["operation"]) == ("stop", "read"), e
event("STOP")
q("cont")
event("SHUTDOWN")
' && wait $pid && grep -q 'errors=0 ' out
verdict "rerror=stop" $?
machine "io rw=write bs=4k seconds=1 flush_every=16 span=8M depth=2" \
	-drive file=blkdebug:rules:disk.img,format=raw,werror=ignore
talk '
q("cont")
event("RESUME")
assert event("BLOCK_IO_ERROR")["action"] == "ignore"
event("SHUTDOWN")
' && wait $pid && grep -q 'errors=0 ' out
verdict "werror=ignore: the guest is told that all is well" $?
"$SLUICE" run -kernel @guest -drive file=disk.img,format=raw,werror=stop >out 2>err
[ $? -eq 1 ] && grep -q 'werror=stop needs -monitor' err
verdict "werror=stop needs a monitor" $?
exit $status
