# SPDX-License-Identifier: MIT
# cache.sh - the guest switches write caches off and on; the host counts what that costs it.
#
# vda and $a keep their caches; vdb and $b are switched off, written, switched on, written.

a=$(ide 0 0) b=$(ide 0 1)
is() { [ "$1" = "$2" ] || { echo "$1, expected $2"; false; }; }
writes() {
	for d; do
		dd if=/dev/zero of="/dev/$d" bs=4k count=30 oflag=direct 2>/dev/null ||
			fail "write $d"
	done
}
cache_type() { echo "$1" >/sys/block/vdb/cache_type; }
w_of() { /bin/hdparm -W "/dev/$1" | sed -n 's/.*write-caching *= *\([01]\).*/\1/p'; }

for d in vda vdb $a $b; do check "$d is there" test -b "/dev/$d"; done
check "virtio: the cache is on" is "$(cat /sys/block/vdb/cache_type)" "write back"
check "ata_piix drives it" test -d /sys/bus/pci/drivers/ata_piix/0000:00:01.1
check "IDE: the cache is on" is "$(w_of $b)" 1

cache_type "write through"
check "virtio: the cache is off" is "$(cat /sys/block/vdb/cache_type)" "write through"
/bin/hdparm -q -W 0 /dev/$b
check "IDE: the cache is off" is "$(w_of $b)" 0
/bin/hdparm -I /dev/$b >/tmp/identify
check "IDE: IDENTIFY says so too" grep -q "^[[:space:]]*Write cache" /tmp/identify
writes vda vdb $a $b

cache_type "write back"
/bin/hdparm -q -W 1 /dev/$b
check "both are on again" is "$(cat /sys/block/vdb/cache_type)$(w_of $b)" "write back1"
writes vdb $b
