#!/bin/sh
# SPDX-License-Identifier: MIT
#
# monitor_disk.sh - a QMP client changes drives under a running guest: sizes, layers, discs.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
if ! command -v python3 >/dev/null; then
	echo "skip all: no python3"
	exit 0
fi

# start WORDS [OPTION...]: the guest, in the background, with a monitor; pid in $pid.
start() {
	words=$1
	shift
	rm -f out err
	run_within 95 -kernel @guest -append "$words" -serial stdio \
		-monitor unix:mon "$@" >out 2>err </dev/null &
	pid=$!
}

# talk SCRIPT: see qmp.py.
talk() {
	timeout $((90 * slow)) python3 "$SRC/tests/support/qmp.py" "$1" >>out 2>>err
}

# clean IMAGE...
clean() {
	for image; do
		"$SLUICE" img check -q "$image" >>out 2>>err || return 1
	done
}

writes="io rw=write bs=4k seconds=$((40 * slow)) flush_every=16 span=8M depth=4"
talk_size='
q("cont")
wait_for(lambda: stat("wr_operations") > 100)
assert q("block_resize", device="drive0", size=1 << 27) == {}
assert block()["inserted"]["image"]["virtual-size"] == 1 << 27
assert q("block_resize", **{"node-name": "drive0"}, size=(1 << 26) + 512) == {}
assert block()["inserted"]["image"]["virtual-size"] == (1 << 26) + 512
n = stat("wr_operations")
wait_for(lambda: stat("wr_operations") > n + 100)
assert q("block_resize", device="drive0", size=1000)["class"] == "GenericError"
assert q("block_resize", device="drive0", size=-512)["class"] == "GenericError"
assert q("block_resize", device="drive0", size="x")["class"] == "GenericError"
assert q("block_resize", device="drive9", size=512)["class"] == "DeviceNotFound"
assert q("block_resize", device="drive0", size=512, x=1)["class"] == "GenericError"
assert q("block_resize", device="drive0", size=1 << 62)["class"] == "GenericError"
n = stat("wr_operations")
wait_for(lambda: stat("wr_operations") > n + 100)
assert stat("x-failed_operations") == 0
q("quit")
'
for how in raw qcow2 qcow2,if=ide; do
	format=${how%,*}
	rm -f disk.img
	"$SLUICE" img create -q -f "$format" disk.img 64M
	[ "$how" = "$format" ] && bus=virtio || bus=ide
	start "$writes bus=$bus" -drive "file=disk.img,format=$how" -S
	talk "$talk_size" && wait $pid &&
		"$SLUICE" img info -f "$format" disk.img | grep -q '(67109376 bytes)'
	verdict "$how: larger and smaller while the guest writes" $?
	[ "$format" = raw ] || clean disk.img
	verdict "$how: and clean" $?
done

# The image is what it was when the overlay came: what the guest wrote later is in that.
for how in raw qcow2 qcow2,lazy qcow2,if=ide; do
	format=${how%%,*} opts=lazy_refcounts=off bus=virtio
	case $how in *lazy) opts=lazy_refcounts=on ;; *ide) bus=ide ;; esac
	rm -f disk.img over*.img
	if [ "$format" = raw ]; then
		"$SLUICE" img create -q -f raw disk.img 64M
	else
		"$SLUICE" img create -q -f qcow2 -o $opts disk.img 64M
	fi
	start "$writes bus=$bus" -drive "file=disk.img,format=$format,if=$bus" -S
	talk '
import hashlib, os
def sync(path, **more):
    return q("blockdev-snapshot-sync", device="drive0", **{"snapshot-file": path}, **more)
def sum(path):
    return hashlib.sha256(open(path, "rb").read()).hexdigest()
q("cont")
wait_for(lambda: stat("wr_operations") > 500)
assert sync("over1.img") == {}
first = sum("disk.img")
i = block()["inserted"]
assert (i["file"], i["backing_file_depth"], i["drv"]) == ("over1.img", 1, "qcow2"), i
n = stat("wr_operations")
wait_for(lambda: stat("wr_operations") > n + 500)
assert sync("over1.img")["class"] == "GenericError"  # it is there
assert sync("no/such.img")["class"] == "GenericError"
assert sync("x.img", format="raw")["class"] == "GenericError"
assert sync("x.img", mode="sometimes")["class"] == "GenericError"
assert sync("x.img", mode="existing")["class"] == "GenericError"
assert not os.path.exists("x.img")
assert block()["inserted"]["file"] == "over1.img"
assert sync("over2.img", **{"snapshot-node-name": "whatever"}) == {}
second = sum("over1.img")
assert block()["inserted"]["backing_file_depth"] == 2
n = stat("wr_operations")
wait_for(lambda: stat("wr_operations") > n + 500)
assert stat("x-failed_operations") == 0
q("quit")
event("SHUTDOWN")
assert sum("disk.img") == first and sum("over1.img") == second
' && wait $pid
	verdict "$how: two overlays come under a guest that writes" $?
	clean over1.img over2.img && { [ "$format" = raw ] || clean disk.img; } &&
		"$SLUICE" img info over2.img | grep -q "backing file: $PWD/over1.img"
	verdict "$how: all layers are clean and name what is below" $?
done
rm -f disk.img over*.img
"$SLUICE" img create -q -f qcow2 disk.img 64M
"$SLUICE" img create -q -f qcow2 -b disk.img -F qcow2 over.img 64M
"$SLUICE" img create -q -f qcow2 small.img 32M
start "$writes" -drive file=disk.img,format=qcow2
talk '
def sync(path):
    return q("blockdev-snapshot-sync", device="drive0", mode="existing", **{"snapshot-file": path})
wait_for(lambda: stat("wr_operations") > 500)
assert "size" in sync("small.img")["desc"]
assert sync("over.img") == {}
n = stat("wr_operations")
wait_for(lambda: stat("wr_operations") > n + 500)
q("quit")
' && wait $pid && clean disk.img over.img
verdict "an overlay that is there already" $?

rm -f disk.img
"$SLUICE" img create -q -f qcow2 disk.img 64M
start "$writes" -drive file=disk.img,format=qcow2
talk '
def names():
    return [s["name"] for s in block()["inserted"]["image"].get("snapshots", [])]
def take(name):
    return q("blockdev-snapshot-internal-sync", device="drive0", name=name)
def drop(**which):
    return q("blockdev-snapshot-delete-internal-sync", device="drive0", **which)
wait_for(lambda: stat("wr_operations") > 500)
for name in ("a", "b", "c"):
    n = stat("wr_operations")
    assert take(name) == {}
    wait_for(lambda: stat("wr_operations") > n + 200)
assert names() == ["a", "b", "c"]
assert take("b")["class"] == "GenericError"
assert take("")["class"] == "GenericError"
assert q("blockdev-snapshot-internal-sync", device="no", name="x")["class"] == "DeviceNotFound"
assert drop(name="b")["name"] == "b"
assert drop(id="1")["name"] == "a"
assert drop(id="3", name="x")["class"] == "GenericError"
assert drop()["class"] == "GenericError"
assert names() == ["c"]
n = stat("wr_operations")
wait_for(lambda: stat("wr_operations") > n + 200)
assert stat("x-failed_operations") == 0
q("quit")
' && wait $pid && clean disk.img && "$SLUICE" img snapshot -l disk.img | grep -q ' c '
verdict "internal snapshots come and go under a guest that writes" $?

# Discs.
truncate -s 1M one.iso
truncate -s 2M two.iso
start "$writes" -drive file=disk.img,format=qcow2 -drive if=ide,media=cdrom,file=one.iso \
	-drive if=ide,media=cdrom
talk '
def cd(i=1):
    b = block(i)
    return b["removable"], b["tray_open"], b.get("inserted", {}).get("file")
assert cd() == (True, False, "one.iso") and cd(2) == (True, False, None)
assert q("eject", device="drive0")["class"] == "GenericError"
assert q("eject", device="drive9")["class"] == "DeviceNotFound"
assert q("eject", device="drive1") == {}
assert event("DEVICE_TRAY_MOVED")["tray-open"] and cd() == (True, True, None)
assert q("blockdev-change-medium", id="drive1", filename="two.iso", format="raw") == {}
assert not event("DEVICE_TRAY_MOVED")["tray-open"] and cd() == (True, False, "two.iso")
assert q("blockdev-change-medium", device="drive2", filename="one.iso") == {}
assert q("blockdev-change-medium", device="drive2", filename="none.iso")["class"] == "GenericError"
assert q("blockdev-change-medium", device="drive2")["class"] == "GenericError"
assert cd(2) == (True, False, "one.iso")
assert q("blockdev-remove-medium", id="drive2")["class"] == "GenericError"
assert q("blockdev-open-tray", id="drive2") == {} and cd(2) == (True, True, "one.iso")
assert q("blockdev-remove-medium", id="drive2") == {} and cd(2) == (True, True, None)
assert q("blockdev-close-tray", id="drive2") == {} and cd(2) == (True, False, None)
assert q("blockdev-change-medium", id="drive2", filename="two.iso") == {}
q("system_reset")
event("RESET")
assert cd() == (True, False, "two.iso")
q("quit")
' && wait $pid
verdict "discs come and go" $?

# -snapshot, -name, -no-shutdown
rm -f disk.img
"$SLUICE" img create -q -f qcow2 disk.img 64M
before=$(md5sum disk.img)
start "$writes" -drive file=disk.img,format=qcow2 -snapshot -name "a machine"
talk '
assert q("query-name") == {"name": "a machine"}
wait_for(lambda: stat("wr_operations") > 500)
a = q("blockdev-snapshot-sync", device="drive0", **{"snapshot-file": "x.img"})
assert a["class"] == "GenericError" and stat("x-failed_operations") == 0
q("quit")
' && wait $pid && [ "$(md5sum disk.img)" = "$before" ] && ! ls sluice.* x.img 2>/dev/null
verdict "-snapshot leaves the image as it was, and no file" $?
start "poweroff" -no-shutdown -S
talk '
q("cont")
event("SHUTDOWN")
wait_for(lambda: q("query-status")["status"] == "shutdown")
assert q("cont")["class"] == "GenericError"
assert q("system_reset") == {}
event("RESET")
assert q("query-status")["status"] == "paused"
assert q("cont") == {}
event("SHUTDOWN")
q("quit")
' && wait $pid
verdict "-no-shutdown: switched off, reset, switched off again" $?
"$SLUICE" run -kernel @guest -append halt -daemonize -pidfile pid -monitor unix:mon >out 2>err
[ $? -eq 0 ] && kill -0 "$(cat pid)" && talk 'q("quit"); event("SHUTDOWN")'
verdict "-daemonize returns when the machine is there" $?
for _ in 1 2 3 4 5 6 7 8 9 10; do
	[ -e pid ] && sleep 0.3
done
[ ! -e pid ]
verdict "-pidfile is gone at the end" $?
"$SLUICE" run -kernel nothing.elf -daemonize >out 2>err
[ $? -eq 1 ] && grep -q nothing.elf err
verdict "-daemonize: a mistake is told, status 1" $?
exit $status
