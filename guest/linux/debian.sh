#!/bin/sh
# SPDX-License-Identifier: MIT
#
# debian.sh - makes what a guest needs to install a minimal Debian onto its disk.
#
# usage: debian.sh DIR
#
# DIR gets the kernel (vmlinuz), an initial RAM disk that installs (installer.gz, see install.sh)
# and a file system with the packages (packages.img).  apt chooses and fetches the packages
# from where this machine gets its own, as for an empty system.  They are packed anew without
# compression, so that an install takes the time of the disk and not of xz; dpkg does not
# mind.  What DIR has already is left alone.

here=$(cd "$(dirname "$0")" && pwd) || exit 2
PATH=$PATH:/usr/sbin:/sbin
cannot() {
	echo "debian.sh: $*"
	exit 77
}
[ $# = 1 ] || { echo "usage: debian.sh DIR"; exit 2; }
mkdir -p "$1" && dir=$(cd "$1" && pwd) || exit 1
[ ! -e "$dir/packages.img" ] || exit 0
kernel_files=$dir/kernel
# shellcheck source=guest/linux/parts.sh
. "$here/parts.sh"

for tool in busybox:busybox-static cpio:cpio mke2fs:e2fsprogs dpkg-deb:dpkg ar:binutils; do
	command -v "${tool%:*}" >/dev/null || cannot "the package ${tool#*:} is missing"
done

wanted="usr-is-merged linux-image-cloud-amd64 initramfs-tools sysvinit-core initscripts
	grub-pc-bin grub2-common e2fsprogs"
empty="-o Dir::State::status=$dir/no-packages -o Dir::Cache::archives=$dir/fetched
	-o pkgCacheGen::ForceEssential=none -o APT::Sandbox::User=root
	-o APT::Install-Recommends=false"

# Packages into $dir/fetched; those that every Debian has are named in $dir/essential.
fetch() {
	mkdir -p "$dir/fetched/partial"
	: >"$dir/no-packages"
	# shellcheck disable=SC2086 # lists
	apt-get -qq -y $empty --print-uris install '?essential' usr-is-merged >"$dir/essential" &&
		apt-get -qq -y $empty --download-only install '?essential' $wanted
} >"$dir/log" 2>&1

# unpacked FILE: the same package without compression, in $dir/packages.
unpacked() {
	rm -rf "$dir/one"
	mkdir -p "$dir/one"
	echo 2.0 >"$dir/one/debian-binary"
	dpkg-deb --ctrl-tarfile "$1" >"$dir/one/control.tar" &&
		dpkg-deb --fsys-tarfile "$1" >"$dir/one/data.tar" &&
		(cd "$dir/one" && ar rcS "$dir/packages/$(basename "$1")" \
			debian-binary control.tar data.tar)
}

make_packages() {
	rm -rf "$dir/packages"
	mkdir -p "$dir/packages/essential" "$dir/packages/kernel"
	for deb in "$dir"/fetched/*.deb; do
		unpacked "$deb" || cannot "$deb: cannot be unpacked"
		# apt's list names the files as they are called after the download.
		! grep -qF " $(basename "$deb") " "$dir/essential" ||
			mv "$dir/packages/$(basename "$deb")" "$dir/packages/essential/"
	done
	mv "$dir"/packages/linux-image-*.deb "$dir/packages/kernel/"
	mib=$(($(du -sm "$dir/packages" | cut -f 1) * 11 / 10 + 8))
	mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$dir/packages" "$dir/packages.part" \
		"${mib}M" 2>"$dir/log" ||
		cannot "mke2fs failed: $(tail -n 1 "$dir/log")"
}

make_installer() {
	i=$dir/installer
	rm -rf "$i"
	base "$i"
	put "$i" "$(command -v mke2fs)" "$(command -v dumpe2fs)"
	# shellcheck disable=SC2086 # lists
	modules "$i" $virtio $ata
	cp "$here/install.sh" "$i/init"
	cp "$here/first-boot.sh" "$i/"
	pack "$i" >"$dir/installer.gz"
}

fetch || { tail -n 3 "$dir/log"; cannot "apt cannot fetch Debian's packages"; }
set -- "$dir"/fetched/linux-image-[0-9]*.deb
dpkg-deb -x "$1" "$kernel_files" || cannot "$1: cannot be unpacked"
cp "$kernel_files"/boot/vmlinuz-* "$dir/vmlinuz"
make_packages
make_installer
mv "$dir/packages.part" "$dir/packages.img"
rm -rf "$dir"/lock* "$kernel_files" "$dir/fetched" "$dir/packages" \
	 "$dir/installer" "$dir/one" "$dir/no-packages"
