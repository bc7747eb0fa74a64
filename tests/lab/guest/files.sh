# SPDX-License-Identifier: MIT
# files.sh - ext4 on virtio and IDE: written, synced, unmounted; read again after a reset.

first() {
	d=$1
	/bin/mke2fs -q -t ext4 "/dev/$d" || fail "$d: mke2fs"
	mount -t ext4 "/dev/$d" /mnt || fail "$d: mount"
	for i in 1 2 3; do
		head -c $((i * 300000)) /dev/urandom >"/mnt/f$i"
		dd if="/mnt/f$i" of="/mnt/copy$i" bs=64k conv=fsync 2>/dev/null
	done
	(cd /mnt && sha256sum f? copy? >sums)
	umount /mnt && ok "$d: written, synced, unmounted"
}

second() {
	d=$1
	mount -t ext4 "/dev/$d" /mnt || fail "$d: mount"
	(cd /mnt && sha256sum -c sums >/dev/null) && ok "$d: all is there after a reset" ||
		fail "$d: files differ"
	rm /mnt/f?
	umount /mnt
	dmesg | grep -E "EXT4-fs (error|warning)|I/O error" && fail "$d: the kernel complains"
}

dd if=/dev/vda bs=512 skip=2 count=2 2>/dev/null | hexdump -C | grep -q '53 ef' &&
	again=1
for d in vda $(ide 0 0); do
	if [ "$again" ]; then second $d; else first $d; fi
done
[ "$again$failed" ] || end=reboot
