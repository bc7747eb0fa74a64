# SPDX-License-Identifier: MIT
# legacy.sh - a driver of the time before virtio 1.0 (Linux's own, forced) on a transitional device.

is() { [ "$1" = "$2" ] || { echo "$1, expected $2"; false; }; }
sum() { md5sum | cut -d ' ' -f 1; }
features=$(cat /sys/bus/virtio/devices/virtio0/features)

check "the disk is there" test -b /dev/vda
check "the driver is the old one" is "$(echo "$features" | cut -c33)" 0
check "a flush can be had" is "$(cat /sys/block/vda/cache_type)" "write back"
head -c 4194304 /dev/urandom >/tmp/data
check "it writes and flushes" dd if=/tmp/data of=/dev/vda bs=256k conv=fsync
echo 3 >/proc/sys/vm/drop_caches
check "it reads the same" is "$(head -c 4194304 /dev/vda | sum)" "$(sum </tmp/data)"
echo "write through" >/sys/block/vda/cache_type
check "it switches the cache off" is "$(cat /sys/block/vda/cache_type)" "write through"
