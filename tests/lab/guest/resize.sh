# SPDX-License-Identifier: MIT
# resize.sh - virtio disks become larger and smaller while they are there.

becomes() { # DISK SECTORS
	for i in $(seq 120); do
		[ "$(cat "/sys/block/$1/size")" = "$2" ] && return
		sleep 1
	done
	cat "/sys/block/$1/size"
	false
}
to() { dd if=/tmp/data "of=/dev/$1" bs=64k seek="$2" oflag=direct 2>/tmp/out; }
at() { dd if="/dev/$1" bs=64k skip="$2" count=1 iflag=direct 2>/tmp/out; }

head -c 65536 /dev/urandom >/tmp/data
for d in vda vdb; do check "$d begins with 32 MiB" becomes $d 65536; done
echo "32 MiB"
for d in vda vdb; do
	check "$d becomes larger" becomes $d 98304
	check "$d: what is new is zeros" sh -c \
		"dd if=/dev/$d bs=1M skip=32 2>/dev/null | tr -d '\\0' | wc -c | grep -qx 0"
	check "$d: the last block can be written" to $d 767
	check "$d: and one in its middle" to $d 300
	at $d 767 >/tmp/back
	check "$d: and is read back" cmp /tmp/data /tmp/back
done
echo "48 MiB"
for d in vda vdb; do
	check "$d becomes smaller" becomes $d 49152
	at $d 300 >/tmp/back
	check "$d: what was below the new end is there" cmp /tmp/data /tmp/back
	at $d 767 >/tmp/back
	check "$d: what was behind it is not" test ! -s /tmp/back
done
