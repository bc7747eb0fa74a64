# SPDX-License-Identifier: MIT
# ide.sh - ata_piix, sd and sr on the IDE drives: a disk, another channel's, a CD-ROM.

a=$(ide 0 0) b=$(ide 1 0)
is() { [ "$1" = "$2" ] || { echo "$1, expected $2"; false; }; }
quiet() { "$@" >/tmp/out 2>&1 || { cat /tmp/out; false; }; }
word() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
sum() { md5sum | cut -d ' ' -f 1; }
cache() { hdparm -W /dev/$a | sed -n 's/.*write-caching = *\([01]\).*/\1/p'; }
types() { cat /sys/class/scsi_disk/0:0:0:0/cache_type; }

for i in $(seq 60); do [ -b /dev/sr0 ] && break; sleep 1; done
check "two disks and a CD-ROM drive are there" test -b /dev/$a -a -b /dev/$b -a -b /dev/sr0
check "they have their sizes" is "$(cat /sys/block/$a/size) $(cat /sys/block/$b/size)" \
	"131072 32768"
check "the kernel uses the bus master" grep -q DMA /sys/class/ata_device/dev1.0/xfer_mode
check "the write cache is on" is "$(cache) $(types)" "1 write back"
check "hdparm -W0 is believed" is "$(quiet hdparm -W0 /dev/$a; cache)" 0
check "hdparm -W1 too" is "$(quiet hdparm -W1 /dev/$a; cache)" 1
echo "write through" >/sys/class/scsi_disk/0:0:0:0/cache_type
check "the kernel's cache_type reaches the drive: off" is "$(cache)" 0
echo "write back" >/sys/class/scsi_disk/0:0:0:0/cache_type
check "and on" is "$(cache) $(types)" "1 write back"

head -c 8388608 /dev/urandom >/tmp/data
check "writes with fsync" quiet dd if=/tmp/data of=/dev/$a bs=256k conv=fsync
echo 3 >/proc/sys/vm/drop_caches
check "read back the same" is "$(head -c 8388608 /dev/$a | sum)" "$(sum </tmp/data)"
check "the other channel's disk takes a file system" quiet /bin/mke2fs -q -t ext4 /dev/$b
mount -t ext4 -o discard /dev/$b /mnt && cp /tmp/data /mnt/ && sync &&
	umount /mnt && mount -t ext4 -o discard /dev/$b /mnt
check "and gives a file back" is "$(sum </mnt/data)" "$(sum </tmp/data)"
rm /mnt/data
check "TRIM" quiet fstrim /mnt
umount /mnt
check "the CD reads right" is "$(sum </dev/sr0)" "$(word cd)"
check "flushes work" quiet hdparm -f -F /dev/$a
check "the drive can sleep" quiet hdparm -y /dev/$a
check "and be woken" is "$(dd if=/dev/$a bs=4k count=1 iflag=direct 2>/dev/null | sum)" \
	"$(head -c 4096 /tmp/data | sum)"
bad='ata[0-9.]+: .*(exception|failed|error|frozen)|I/O error'
if dmesg | grep -E "$bad" >/tmp/trouble; then
	fail "the kernel complains"
	cat /tmp/trouble
else
	ok "the kernel complains of nothing"
fi
dmesg | grep -E 'ata|sd |sr '
