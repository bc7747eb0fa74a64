# SPDX-License-Identifier: MIT
# odd.sh - disks that do not do everything: vda and $a are read-only (which ATA cannot tell),
# vdb and $b fail beyond 2 MiB.

a=$(ide 0 0) b=$(ide 0 1)
check "vda: is read-only" test "$(cat /sys/block/vda/ro)" = 1
for d in vda $a; do
	check "$d: can be read" dd if=/dev/$d of=/dev/null bs=64k count=4
	if dd if=/dev/zero of=/dev/$d bs=4k count=1 oflag=direct 2>/dev/null; then
		fail "$d: was written"
	else
		ok "$d: writes fail"
	fi
done
for d in vdb $b; do
	check "$d: can be written" dd if=/dev/zero of=/dev/$d bs=4k count=4 oflag=direct
	if dd if=/dev/zero of=/dev/$d bs=4k count=1 seek=1000 oflag=direct 2>/dev/null; then
		fail "$d: an error on the host went unseen"
	else
		ok "$d: an error on the host is one in the guest"
	fi
	check "$d: goes on after it" dd if=/dev/zero of=/dev/$d bs=4k count=4 oflag=direct
done
if [ "$(cat /sys/block/vdb/queue/discard_max_bytes)" -gt 0 ]; then
	check "vdb: discards" blkdiscard -o 0 -l 65536 /dev/vdb
else
	echo "skip vdb: no discard"
fi
