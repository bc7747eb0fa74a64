#!/bin/bash
# SPDX-License-Identifier: MIT
#
# record.sh - install a real Debian in QEMU, slowly, and write down every disk request it made.
#
# Usage: record.sh [-o OUT.trace.zst] WORKDIR
#
# Needs root, Debian 12, its package mirror and 6 GB in WORKDIR.
# It takes half an hour of two cores, nearly all of it in TCG: no KVM is used, so that the result
# does not depend on the host.  Steps that have left their product in WORKDIR are not done again;
# the recording itself always is.  Packages needed (installed here if missing): see below.
#
#   WORKDIR/dl		packages of the installation, from Debian's mirror (debootstrap checks them)
#   WORKDIR/inst	root of the installing system, with /mirror in it -> inst.img
#   WORKDIR/vmlinux	Debian's kernel, unpacked from its LZ4 payload: boots by PVH, without a BIOS
#   WORKDIR/target.img	the installed disk, afterwards; it is booted once, as the proof
#   WORKDIR/qemu.log	virtio-blk events in order: tracetool.py makes the trace from it
#
# Submissions and completions are logged by virtio-blk itself (QEMU trace events), not behind the
# NBD client, which lets only 16 requests pass at a time.  slowdisk.c tells why the disk is slow.
set -euo pipefail

suite=bookworm
archive=${ARCHIVE:-http://deb.debian.org/debian}
extra=linux-image-cloud-amd64,zstd,grub-pc
disk_mib=2048
smp=${SMP:-2}
delays=(read-us=1000 write-us=4000 flush-us=10000)
packages=(qemu-system-x86 nbdkit nbdkit-plugin-dev gcc libc6-dev debootstrap lz4 zstd cpio
	busybox-static e2fsprogs python3)

here=$(cd "$(dirname "$0")" && pwd)
out=$here/debian-install.trace.zst
if [ "${1:-}" = -o ]; then
	out=$2
	shift 2
fi
if [ $# -ne 1 ]; then
	sed -n '6s/^# //p' "$0" >&2
	exit 2
fi
mkdir -p "$1"
work=$(cd "$1" && pwd)

if ! dpkg-query -W "${packages[@]}" > /dev/null 2>&1; then
	apt-get update
	apt-get install -y --no-install-recommends "${packages[@]}"
fi

fetch() {
	debootstrap --download-only --include="$extra" "$suite" "$work/dl.tmp" "$archive"
	mv "$work/dl.tmp" "$work/dl"
}

# The installing system: Debian's minimal set plus what install-debian.sh calls.
make_installer() {
	local root=$work/inst.tmp

	debootstrap --variant=minbase --include=debootstrap,fdisk,wget,busybox-static \
		"$suite" "$root" "$archive"
	rm -rf "${root:?}"/var/cache/apt/archives/*.deb "${root:?}"/usr/share/{doc,man,locale}
	mv "$root" "$work/inst"
}

make_installer_image() {
	rm -rf "$work/inst.img" "$work/inst/mirror"
	python3 "$here/mkmirror.py" "$work/dl" "$suite" "$work/inst/mirror"
	install -m 755 "$here/install-debian.sh" "$work/inst/sbin/install-debian"
	mke2fs -q -t ext4 -d "$work/inst" "$work/inst.img" 1500M
}

# vmlinux out of the bzImage: setup header fields payload_offset and payload_length.
make_kernel() {
	local deb bz sects off len

	deb=$(find "$work/dl/var/cache/apt/archives" -name 'linux-image-[0-9]*-cloud-amd64_*.deb')
	rm -rf "$work/kernel"
	dpkg-deb -x "$deb" "$work/kernel"
	bz=$(find "$work/kernel/boot" -name 'vmlinuz-*')
	sects=$(od -An -tu1 -j497 -N1 "$bz")
	off=$(od -An -tu4 -j584 -N4 "$bz")
	len=$(od -An -tu4 -j588 -N4 "$bz")
	# The last 4 bytes of the payload are the unpacked size, not LZ4's.
	head -c $(((sects + 1) * 512 + off + len - 4)) "$bz" | tail -c $((len - 4)) |
		lz4 -dc > "$work/vmlinux.tmp"
	mv "$work/vmlinux.tmp" "$work/vmlinux"
}

make_initrd() {
	local dir=$work/initrd m

	rm -rf "$dir"
	mkdir -p "$dir"/{bin,dev,root}
	cp /bin/busybox "$dir/bin/"
	# In the order of their dependencies.
	for m in virtio_ring virtio virtio_pci_modern_dev virtio_pci_legacy_dev virtio_pci \
		virtio_blk; do
		find "$work/kernel/lib/modules" -name "$m.ko" -exec cp {} "$dir/" \;
		echo "/$m.ko" >> "$dir/modules"
	done
	cat > "$dir/init" <<-'INIT'
		#!/bin/busybox sh
		export PATH=/bin
		busybox mount -t devtmpfs dev /dev
		while read -r m; do
			[ ! -e "$m" ] || busybox insmod "$m"
		done < /modules
		busybox mount -o ro -t ext4 /dev/vdb /root
		busybox mount -o move /dev /root/dev
		exec busybox switch_root /root /sbin/install-debian
	INIT
	chmod 755 "$dir/init"
	(cd "$dir" && find . | cpio -o -H newc --quiet | gzip -1) > "$work/initrd.gz"
}

record() {
	local sock=$work/nbd.sock disk_pid
	local disk=num-queues=1,queue-size=256,write-cache=on

	# What the trace cannot say is not offered, and the device must not join requests.
	disk=$disk,discard=off,write-zeroes=off,request-merging=off

	rm -f "$work/target.img" "$work/qemu.log" "$sock"
	truncate -s "${disk_mib}M" "$work/target.img"
	gcc -shared -fPIC -O2 -Wall -o "$work/slowdisk.so" "$here/slowdisk.c"
	nbdkit --exit-with-parent -f --threads=64 -U "$sock" "$work/slowdisk.so" \
		file="$work/target.img" "${delays[@]}" &
	disk_pid=$!
	while [ ! -S "$sock" ]; do
		kill -0 "$disk_pid"
		sleep 0.1
	done
	timeout 3h qemu-system-x86_64 -M pc -accel tcg,thread=multi -cpu max -smp "$smp" -m 1024 \
		-nodefaults -nographic -vga none -net none -no-reboot \
		-serial file:"$work/console.log" \
		-kernel "$work/vmlinux" -initrd "$work/initrd.gz" \
		-append "console=ttyS0 panic=-1 mitigations=off" \
		-object iothread,id=io0 \
		-blockdev driver=nbd,node-name=target,server.type=unix,server.path="$sock" \
		-blockdev driver=file,node-name=inst,read-only=on,filename="$work/inst.img" \
		-device "virtio-blk-pci,addr=4,drive=target,iothread=io0,$disk" \
		-device virtio-blk-pci,addr=5,drive=inst \
		-msg timestamp=on -D "$work/qemu.log" \
		-trace virtqueue_pop -trace virtio_blk_handle_read \
		-trace virtio_blk_handle_write -trace virtio_blk_req_complete
	kill "$disk_pid"
	wait
	grep -q 'RECORD .*: DONE' "$work/console.log"
}

# The proof that what was recorded is an installation: BIOS, GRUB, kernel, login prompt.
# GRUB's menu stands still without a VGA.
boot() {
	local pid

	rm -f "$work/boot.log"
	timeout 15m qemu-system-x86_64 -M pc -accel tcg,thread=multi -cpu max -smp "$smp" -m 1024 \
		-nodefaults -nographic -vga std -net none -no-reboot -snapshot \
		-serial file:"$work/boot.log" -drive if=virtio,format=raw,file="$work/target.img" &
	pid=$!
	while kill -0 "$pid" 2> /dev/null && ! grep -qs 'login:' "$work/boot.log"; do
		sleep 1
	done
	kill "$pid" 2> /dev/null || true
	wait
	grep 'login:' "$work/boot.log"
}

[ -d "$work/dl" ] || fetch
[ -d "$work/inst" ] || make_installer
make_installer_image
[ -e "$work/vmlinux" ] || make_kernel
make_initrd
record
boot
python3 "$here/tracetool.py" compile --disk-bytes $((disk_mib << 20)) --name debian-12-install \
	"$work/qemu.log" "${out%.zst}"
python3 "$here/tracetool.py" check --image "$work/target.img" "${out%.zst}"
zstd -q -f -19 --rm "${out%.zst}"
python3 "$here/tracetool.py" stats "$out"
