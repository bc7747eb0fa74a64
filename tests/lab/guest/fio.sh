# SPDX-License-Identifier: MIT
# fio.sh - fio, from a disk of its own (vdb), writes at random and verifies what it reads back.

mount -t ext4 -o ro /dev/vdb /mnt
mount -t devtmpfs dev /mnt/dev
mount -t proc proc /mnt/proc
mount -t tmpfs tmp /mnt/tmp
verify() {
	words=$1
	shift
	check "$words" chroot /mnt /bin/fio --name=verify --thread --eta=never \
		--aux-path=/tmp --direct=1 --rw=randwrite --verify=crc32c --verify_fatal=1 "$@"
}
for d in vda $(ide 0 0); do
	verify "$d: requests of many sizes, one at a time, flushed now and then" \
		--filename=/dev/$d --size=8M --bsrange=4k-128k --fsync=8 --ioengine=psync
	verify "$d: of one sector, many at a time" --filename=/dev/$d --offset=8M --size=512k \
		--bs=512 --ioengine=libaio --iodepth=16
done
