#!/bin/sh
# SPDX-License-Identifier: MIT
#
# monitor.sh - a QMP client asks a running machine, and changes its write cache.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if [ ! -w /dev/kvm ]; then
	echo "skip all: /dev/kvm is missing or forbidden"
	exit 0
fi
if ! command -v python3 >/dev/null; then
	echo "skip all: no python3"
	exit 0
fi

# start WORDS [OPTION...]: the guest, in the background, with a monitor; pid in $pid.
start() {
	words=$1
	shift
	rm -f disk.img out err
	"$SLUICE" img create -q -f qcow2 disk.img 64M >/dev/null
	run_within 50 -kernel @guest -append "$words" -serial stdio \
		-drive file=disk.img,format=qcow2 -monitor unix:mon,server,nowait "$@" \
		>out 2>err </dev/null &
	pid=$!
}

# talk SCRIPT: python with q(command, arguments) -> the answer, event(name) -> its data.
talk() {
	timeout $((40 * slow)) python3 "$SRC/tests/support/qmp.py" "$1" >>out 2>>err
}

start "wce script=w8,f" -S
talk '
assert q("query-status") == {"running": False, "singlestep": False, "status": "prelaunch"}
names = [c["name"] for c in q("query-commands")]
assert "query-block" in names and "x-block-set-write-cache" in names
assert q("no-such-thing")["class"] == "CommandNotFound"
assert q("stop", force=1)["class"] == "GenericError"
assert q("x-block-set-write-cache", device="drive7", enable=True)["class"] == "DeviceNotFound"
assert q("x-block-set-write-cache", device="drive0")["class"] == "GenericError"
s.sendall(b"nonsense\n[1]{\"execute\": }\n")
for _ in range(3):
    assert get()["error"]["class"] == "GenericError"
assert cache() == {"mode": "writeback", "enable": True, "by": "power-on", "unstable-bytes": 0,
    "oldest-ms": None}, cache()
assert stat("wr_operations") == 0
assert q("cont") == {}
event("RESUME")
assert event("SHUTDOWN")["guest"]
' && wait "$pid" && [ ! -e mon ]
verdict "a guest that starts stopped, errors, cont, the end" $?

start "wce script=w8,off" -S
talk '
q("cont")
assert event("X_BLOCK_WRITE_CACHE_CHANGED") == {"device": "drive0", "enable": False, "by": "guest"}
event("SHUTDOWN")
' && wait "$pid"
verdict "the guest turns its cache off: an event says so" $?

start "io rw=write bs=4k seconds=$((40 * slow)) flush_every=0 span=8M depth=4"
talk '
while cache()["unstable-bytes"] < 1 << 20:
    time.sleep(0.05)
time.sleep(0.2)
assert cache()["oldest-ms"] >= 100, cache()
syncs = stat("x-host_fdatasyncs")
assert q("x-block-set-write-cache", device="drive0", enable=False) == {}
told = {"device": "drive0", "enable": False, "by": "monitor"}
assert event("X_BLOCK_WRITE_CACHE_CHANGED") == told
c = cache()
assert (c["enable"], c["by"], c["unstable-bytes"], c["oldest-ms"]) == (False, "monitor", 0, None), c
time.sleep(0.3)
assert stat("x-host_fdatasyncs") > syncs + 1
assert cache()["unstable-bytes"] == 0
assert q("stop") == {}
event("STOP")
assert q("query-status")["status"] == "paused"
time.sleep(0.2)
n = stat("wr_operations")
time.sleep(0.2)
assert stat("wr_operations") == n
assert q("x-block-set-write-cache", device="drive0", enable=True) == {}
assert q("cont") == {}
time.sleep(0.3)
assert stat("wr_operations") > n and cache()["unstable-bytes"] > 0
assert q("system_powerdown") == {}
event("POWERDOWN")
assert q("system_reset") == {}
assert event("RESET") == {"guest": False, "reason": "host-qmp-system-reset"}
assert q("query-status")["running"]
assert q("quit") == {}
assert event("SHUTDOWN") == {"guest": False, "reason": "host-qmp-quit"}
' && wait "$pid"
verdict "the monitor turns the cache off and on, stops, resets and ends the guest" $?
"$SLUICE" img check -q disk.img >out 2>err
verdict "its image is clean" $?

"$SLUICE" img create -q -f qcow2 disk2.img 64M >/dev/null
start "wce script=w8,f" -drive file=disk2.img,format=qcow2,cache=unsafe -S
talk '
a = q("x-block-set-write-cache", device="drive1", enable=False)
assert "unsafe" in a["desc"], a
assert q("query-block")[1]["x-write-cache"]["enable"]
q("quit")
event("SHUTDOWN")
' && wait "$pid"
verdict "cache=unsafe: the cache stays on" $?

echo precious >mon
start "wce script=w8,f"
wait "$pid"
[ $? -eq 1 ] && [ "$(cat mon)" = precious ] && grep -q 'monitor' err
verdict "a file is not taken for a socket" $?
rm -f mon
"$SLUICE" run -kernel @guest -S >out 2>err
[ $? -eq 1 ] && grep -q 'needs -monitor' err
verdict "-S needs a monitor" $?
exit $status
