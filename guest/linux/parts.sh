# SPDX-License-Identifier: MIT
# parts.sh - how initial RAM disks of busybox and a Debian kernel's modules are put together.
#
# To be read in by a script that has set kernel_files (where the kernel's package was unpacked) and
# has cannot(), which ends it with a reason.
# shellcheck shell=sh disable=SC2154

# put DIR PROGRAM...: programs with their libraries.
put() {
	root=$1
	shift
	for p; do
		mkdir -p "$root/bin"
		cp -L "$p" "$root/bin/"
		ldd "$p" 2>/dev/null | grep -o '/[^ ]*' | while read -r l; do
			mkdir -p "$root/$(dirname "$l")"
			cp -L "$l" "$root/$l"
		done
	done
}

# modules DIR NAME...: kernel modules, flat, and in modules/order the order to load them in.
modules() {
	root=$1
	shift
	mkdir -p "$root/modules"
	for m; do
		f=$(find "$kernel_files/lib/modules" -name "$m.ko*" | head -n 1)
		[ -n "$f" ] || cannot "the kernel's package has no module $m"
		cp "$f" "$root/modules/$m.ko"
		echo "$m" >>"$root/modules/order"
	done
}

pack() {
	(cd "$1" && find . | cpio -o -H newc --quiet -R 0:0 | gzip -1)
}

base() {
	mkdir -p "$1/bin" "$1/proc" "$1/sys" "$1/dev" "$1/tmp" "$1/mnt" "$1/run"
	cp -L "$(command -v busybox)" "$1/bin/"
	for c in sh mount; do ln -sf busybox "$1/bin/$c"; done
}

virtio="virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci virtio_blk"
ata="scsi_common scsi_mod libata ata_piix sd_mod"
