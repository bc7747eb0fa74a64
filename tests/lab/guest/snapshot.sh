# SPDX-License-Identifier: MIT
# snapshot.sh - writes files, each synced before its sum is, and all read back at the end; or finds
# there, as after a power cut, at least so many of them, and none that is not what its sum says.

word() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
d=$(ls /dev/vda 2>/dev/null || echo "/dev/$(ide 0 0)")
files=$(word files) there=$(word there)
if [ "$files" ]; then
	/bin/mke2fs -q -t ext4 "$d" || fail "mke2fs"
	mount -t ext4 "$d" /mnt || fail "mount"
	cd /mnt
	for i in $(seq "$files"); do
		head -c $((i % 7 * 100000 + 9)) /dev/urandom >"/tmp/f"
		dd if=/tmp/f "of=/mnt/f$i" bs=16k conv=fsync 2>/dev/null || fail "file $i"
		sha256sum "f$i" >>sums
		sync
		echo "file $i is synced"
	done
	cp sums /tmp/sums
	cd /
	umount /mnt
	mount -t ext4 "$d" /mnt || fail "mount"
	check "the sums are there" cmp /mnt/sums /tmp/sums
	check "and every file" sh -c "cd /mnt && sha256sum -c sums >/dev/null"
else
	mount -t ext4 "$d" /mnt || fail "mount"
	check "$there files were synced before" test "$(wc -l </mnt/sums)" -ge "$there"
	check "and every file is what it was" sh -c "cd /mnt && sha256sum -c sums >/dev/null"
fi
umount /mnt
if dmesg | grep -E 'EXT4-fs (error|warning)|I/O error' >/tmp/trouble; then
	fail "the kernel complains"
	cat /tmp/trouble
else
	ok "the kernel complains of nothing"
fi
