#!/bin/busybox sh
# SPDX-License-Identifier: MIT
#
# install.sh - a guest's first process: installs Debian onto a disk, tells what that took.
#
# The command line says where its disk is (bus=virtio, ide, or ide-pio for ide without DMA), and
# with trace=1 it tells every step.  The packages are on the last virtio disk.
# Done is what debootstrap does, with dpkg as it comes: the essential packages are unpacked, so
# that their own dpkg can install them; then the others, an initial RAM disk, GRUB.
# The reports are those of the test guest: "guest: install ...", "guest: verify ...".
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ LC_ALL=C
export DEBIAN_FRONTEND=noninteractive DEBCONF_NONINTERACTIVE_SEEN=true
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
word() { sed -n "s/.*\<$1=\([^ ]*\).*/\1/p" /proc/cmdline; }

# A status through port 0xf4 ends the machine; a machine without that port is switched off.
end() {
	echo "guest: done status=$1"
	sleep 1
	printf "\\$1" | dd of=/dev/port bs=1 seek=244 2>/dev/null
	poweroff -f
	sleep 100
}
die() {
	echo "guest: install failed: $*"
	tail -n 20 /mnt/var/log/install.log
	end 1
}
run() {
	[ -n "$(word trace)" ] && echo "$(cut -d ' ' -f 1 /proc/uptime) $*" | cut -c 1-70
	"$@" >>/mnt/var/log/install.log 2>&1 || die "$*"
}
step() { echo "guest: progress percent=$1"; }

case $(word bus) in
ide*) disk=sda ;;
*) disk=vda ;;
esac
while read -r m; do
	case $m$(word bus) in
	libataide-pio) insmod "/modules/$m.ko" dma=0 ;;
	*) insmod "/modules/$m.ko" ;;
	esac
done </modules/order

p=${disk}1
for i in 1 2 3 4 5 6 7 8 9 10; do
	[ -b "/dev/$disk" ] && break
	sleep 1
done
[ -b "/dev/$disk" ] || die "there is no disk $disk"
packages=/dev/$(cd /sys/block && ls -d vd* | tail -n 1)
stat() { awk -v f="$1" '{ print $f }' "/sys/block/$disk/stat"; }
now() { cut -d ' ' -f 1 /proc/uptime | tr -d .; } # hundredths of a second
begin=$(now)

# One partition from sector 2048 to the end, active, of type Linux.
n=$(($(cat "/sys/block/$disk/size") - 2048))
{
	head -c 446 /dev/zero
	printf '\200\0\0\0\203\0\0\0\0\010\0\0'
	for shift in 0 8 16 24; do printf "\\$(printf %o $((n >> shift & 255)))"; done
	head -c 48 /dev/zero
	printf '\125\252'
} >"/dev/$disk"
blockdev --rereadpt "/dev/$disk" || die "the kernel does not take the partition table"
step 1
/bin/mke2fs -q -F -t ext4 "/dev/$p" || die mke2fs
mount -t ext4 "/dev/$p" /mnt || die "mount /dev/$p"
mkdir -p /mnt/var/log /mnt/packages /mnt/usr /mnt/dev /mnt/proc /mnt/sys
mount -t ext4 -o ro "$packages" /mnt/packages || die "mount $packages"
for d in bin sbin lib; do
	mkdir "/mnt/usr/$d"
	ln -s "usr/$d" "/mnt/$d"
done
mkdir /mnt/usr/lib64
ln -s usr/lib64 /mnt/lib64
step 2

# What no minimal system needs.
mkdir -p /mnt/etc/dpkg/dpkg.cfg.d
for d in doc man locale info; do echo "path-exclude=/usr/share/$d/*"; done \
	>/mnt/etc/dpkg/dpkg.cfg.d/minimal
unpack() { ar p "$1" data.tar | tar -x -C /mnt; }
for deb in /mnt/packages/essential/*.deb; do run unpack "$deb"; done
step 15

mount -t devtmpfs dev /mnt/dev
mount -t proc proc /mnt/proc
mount -t sysfs sys /mnt/sys
mkdir -p /mnt/var/lib/dpkg
: >/mnt/var/lib/dpkg/status
printf '#!/bin/sh\nexit 101\n' >/mnt/usr/sbin/policy-rc.d
chmod 755 /mnt/usr/sbin/policy-rc.d
# By absolute names: busybox runs the others itself, in a chroot too.
inside() { run chroot /mnt "$@"; }
ln -s mawk /mnt/usr/bin/awk # base-files asks for it before mawk is configured
inside /bin/sh -c 'cd /packages/essential &&
	dpkg --force-depends --install base-passwd_* base-files_*'
rm /mnt/usr/bin/awk
inside /bin/sh -c 'dpkg --force-depends --install /packages/essential/*.deb'
step 40

uuid=$(dumpe2fs -h "/dev/$p" 2>/dev/null | sed -n 's/^Filesystem UUID: *//p')
echo "UUID=$uuid / ext4 errors=remount-ro 0 1" >/mnt/etc/fstab
echo debian >/mnt/etc/hostname
mkdir -p /mnt/etc/initramfs-tools/conf.d /mnt/etc/default
printf 'MODULES=list\nCOMPRESS=gzip\nCOMPRESSLEVEL=1\n' >/mnt/etc/initramfs-tools/conf.d/small
printf '%s\n' virtio_pci virtio_blk ata_piix sd_mod >/mnt/etc/initramfs-tools/modules
inside /bin/sh -c 'dpkg --force-depends --install /packages/*.deb'
step 65
# By itself, so that the initial RAM disk is made once.
inside /bin/sh -c 'dpkg --install /packages/kernel/*.deb'
step 85

cat >/mnt/etc/default/grub <<-END
	GRUB_TIMEOUT=0
	GRUB_CMDLINE_LINUX="console=ttyS0"
	GRUB_TERMINAL=serial
	GRUB_DISABLE_OS_PROBER=true
END
sed -i '/getty/d' /mnt/etc/inittab
echo "S0:2345:respawn:/sbin/getty --keep-baud ttyS0 115200,38400,9600 vt100" >>/mnt/etc/inittab
mkdir -p /dev/disk/by-uuid # no udev made it, and GRUB names the root so only if it is there
ln -s "/dev/$p" "/dev/disk/by-uuid/$uuid"
inside /usr/sbin/grub-install "/dev/$disk"
inside /usr/sbin/grub-mkconfig -o /boot/grub/grub.cfg
cp /first-boot.sh /mnt/etc/rc.local
chmod 755 /mnt/etc/rc.local
rm /mnt/usr/sbin/policy-rc.d
step 95

umount /mnt/dev /mnt/proc /mnt/sys
umount /mnt/packages || die "umount packages"
rmdir /mnt/packages
umount /mnt || die umount
usec=$((($(now) - begin) * 10000))
reads=$(stat 1) writes=$(stat 5) flushes=$(stat 16)
echo "guest: install ops=$((reads + writes + flushes)) reads=$reads writes=$writes" \
	"flushes=$flushes read_kib=$(($(stat 3) / 2)) write_kib=$(($(stat 7) / 2)) usec=$usec" \
	"errors=0"

# Everything is read back, by the sums that the packages bring.
echo 3 >/proc/sys/vm/drop_caches
before=$(stat 3)
mount -t ext4 -o ro "/dev/$p" /mnt || die "mount after the install"
cat /mnt/var/lib/dpkg/info/*.md5sums | grep -vE '  usr/share/(doc|man|locale|info)/' >/tmp/sums
(cd /mnt && md5sum -c /tmp/sums 2>&1 | grep -v ': OK$') >/tmp/wrong
cat /tmp/wrong
umount /mnt
echo "guest: verify sectors=$(($(stat 3) - before)) bad=$(grep -c FAILED /tmp/wrong) errors=0"
step 100
end 0
