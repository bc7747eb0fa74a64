#!/bin/sh
# SPDX-License-Identifier: MIT
#
# install-debian.sh - runs as process 1 of the guest and installs Debian on the blank /dev/vda.
#
# The steps are those of the Debian installer: partition, mke2fs, debootstrap over HTTP (so the
# packages themselves are written to the target first, as in a network installation), then apt in
# the target for the kernel and the boot loader.  dpkg does all its fsyncs.  Root is the read-only
# /dev/vdb, made by record.sh; the mirror stands there too and a local httpd serves it.
set -eu
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive
suite=bookworm
target=/dev/vda
mirror=http://127.0.0.1

say() { echo "RECORD $(cut -d' ' -f1 /proc/uptime): $*"; }

finish() {
	say "$*"
	tail -n 5 /mnt/debootstrap/debootstrap.log 2> /dev/null || true
	sync
	busybox poweroff -f
	sleep 60
}

trap 'finish "FAILED with status $?"' EXIT

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
busybox ifconfig lo 127.0.0.1 up
busybox httpd -p 127.0.0.1:80 -h /mirror

say "partition"
sfdisk --wipe always "$target" <<-TABLE
	label: dos
	start=2048, size=3670016, type=83, bootable
	type=82
TABLE
mke2fs -t ext4 -L root "${target}1"
mkswap "${target}2"
mount -o errors=remount-ro "${target}1" /mnt

say "debootstrap"
debootstrap --no-check-gpg "$suite" /mnt "$mirror"

say "configure"
cat > /mnt/etc/fstab <<-TABLE
	UUID=$(blkid -o value -s UUID "${target}1") / ext4 errors=remount-ro 0 1
	UUID=$(blkid -o value -s UUID "${target}2") none swap sw 0 0
TABLE
echo debian > /mnt/etc/hostname
echo "127.0.0.1 localhost debian" > /mnt/etc/hosts
echo "deb [trusted=yes] $mirror $suite main" > /mnt/etc/apt/sources.list
mount --bind /dev /mnt/dev
mount -t proc proc /mnt/proc
mount -t sysfs sys /mnt/sys
printf '#!/bin/sh\nexit 101\n' > /mnt/usr/sbin/policy-rc.d
chmod 755 /mnt/usr/sbin/policy-rc.d

say "kernel"
chroot /mnt apt-get update
chroot /mnt apt-get install -y --no-install-recommends linux-image-cloud-amd64 zstd

say "boot loader"
echo "grub-pc grub-pc/install_devices multiselect $target" | chroot /mnt debconf-set-selections
chroot /mnt apt-get install -y --no-install-recommends grub-pc
sed -i 's/^GRUB_CMDLINE_LINUX=.*/GRUB_CMDLINE_LINUX="console=ttyS0"/' /mnt/etc/default/grub
chroot /mnt grub-install "$target"
chroot /mnt update-grub

say "finish"
echo root:root | chroot /mnt chpasswd
chroot /mnt apt-get clean
rm /mnt/usr/sbin/policy-rc.d
say "installed packages: $(chroot /mnt dpkg-query -f '.\n' -W | wc -l)"
say "release: $(cat /mnt/etc/debian_version), kernel: $(ls /mnt/boot/vmlinuz-*)"
df -k /mnt
umount /mnt/sys /mnt/proc /mnt/dev
umount /mnt
trap - EXIT
finish "DONE"
