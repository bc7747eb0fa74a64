#!/bin/sh
# SPDX-License-Identifier: MIT
#
# lab.sh - stock Debian kernels as guests, on a KVM that has hardware virtualization.
#
# Where this machine's /dev/kvm has it, host.sh runs here.  Elsewhere a Debian host with an emulated
# AMD-V CPU is started under QEMU's TCG: its kernel (kvm_amd) is real, its disk is made here and
# holds the program under test with its libraries, the guest's kernel and initial RAM disk, and
# host.sh.  Everything is made from Debian packages; the kernel's is fetched with apt and
# unpacked, not installed.  What does not depend on the program is kept in build/lab.
#
# LAB names the tests of host.sh to run, with commas ("all": those too that take longer); "vm" is
# the whole suite tests/vm, "vm/cache" one script of it.

cd "$(dirname "$0")/../.." || exit 2
lab=$PWD/build/lab
sluice=${SLUICE:-$PWD/build/sluice}
tmp=$(mktemp -d "${TMPDIR:-/tmp}/sluice-lab.XXXXXX") || exit 2
trap 'rm -rf "$tmp"' EXIT
trap 'exit 130' INT TERM
mkdir -p "$lab"

cannot() {
	echo "$*"
	exit 77
}

for tool in busybox:busybox-static cpio:cpio lz4:lz4 mke2fs:e2fsprogs hdparm:hdparm; do
	PATH=$PATH:/usr/sbin:/sbin command -v "${tool%:*}" >/dev/null ||
		cannot "the package ${tool#*:} is missing"
done
PATH=$PATH:/usr/sbin:/sbin
! ldd "$(command -v busybox)" >/dev/null 2>&1 || cannot "the package busybox-static is missing"

# fetch PACKAGE DIR: the files of a package, in $lab/DIR.
fetch() {
	[ -e "$lab/$2/done" ] && return
	rm -rf "${lab:?}/$2" "$lab/deb"
	mkdir -p "$lab/deb"
	(cd "$lab/deb" && apt-get -q download "$1" >"$lab/apt.log" 2>&1) || return 1
	dpkg-deb -x "$lab"/deb/*.deb "$lab/$2" || return 1
	rm -rf "$lab/deb"
	touch "$lab/$2/done"
}

fetch_kernel() {
	[ -e "$lab/kernel/done" ] && return
	name=$(apt-cache depends linux-image-cloud-amd64 2>/dev/null |
		sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
	[ -n "$name" ] || cannot "apt knows no linux-image-cloud-amd64"
	fetch "$name" kernel || cannot "apt cannot download $name"
}

# le BYTES OFFSET FILE: a little-endian number.
le() {
	od -An -t "u$1" -j "$2" -N "$1" "$3" | tr -d ' '
}

# The ELF file that is packed in a bzImage: skips unpacking at each start of the emulated host.
unpack_kernel() {
	[ -e "$lab/vmlinux" ] && return
	at=$(((${sects:=$(le 1 497 "$vmlinuz")} + 1) * 512 + $(le 4 584 "$vmlinuz")))
	# What follows the packed data (its unpacked size) makes lz4 complain at the end.
	tail -c "+$((at + 1))" "$vmlinuz" | head -c "$(le 4 588 "$vmlinuz")" |
		lz4 -dc >"$lab/vmlinux.part" 2>/dev/null
	[ "$(head -c 4 "$lab/vmlinux.part" | tail -c 3)" = ELF ] ||
		cannot "the kernel is not packed with LZ4"
	mv "$lab/vmlinux.part" "$lab/vmlinux"
}

kernel_files=$lab/kernel
# shellcheck source=guest/linux/parts.sh
. guest/linux/parts.sh
have_module() {
	find "$lab/kernel/lib/modules" -name "$1.ko*" | grep -q .
}

# The guest's initial RAM disk: busybox, drivers, some programs, the scripts of tests/lab/guest.
make_guest() {
	g=$tmp/guest
	base "$g"
	put "$g" "$(command -v mke2fs)" "$(command -v hdparm)"
	! command -v sqlite3 >/dev/null || put "$g" "$(command -v sqlite3)"
	list=
	for m in $virtio $ata cdrom sr_mod isofs; do
		have_module "$m" && list="$list $m"
	done
	# shellcheck disable=SC2086 # a list
	modules "$g" $list button
	cp tests/lab/guest/init "$g/init"
	cp tests/lab/guest/*.sh "$g/"
	pack "$g" >"$tmp/guest.gz"
}

# What takes long to make and longer to use is only for who asks for it.
wants() {
	case ,${LAB:-}, in *,all,* | *,$1,* | *,"$1"/*) true ;; *) false ;; esac
}
make_debian() {
	wants debian || return 0
	guest/linux/debian.sh "$lab/debian" || cannot "no Debian to install"
}

# grub FORMAT FILE DEVICE MODULE...: GRUB, which boots from that device.
grub() {
	format=$1 file=$2 device=$3
	shift 3
	cat >"$tmp/grub.cfg" <<-END
		set root=($device)
		linux /boot/vmlinuz console=ttyS0 panic=-1 quiet loglevel=4 lab=installed.sh
		initrd /boot/initrd
		boot
	END
	"$lab/grub-tools/usr/bin/grub-mkimage" -d "$mods" -O "$format" -o "$file" \
		-p "($device)/boot/grub" -c "$tmp/grub.cfg" biosdisk linux "$@" >"$tmp/log" 2>&1
}

# What boots by itself has the kernel, the guest's initial RAM disk, and its sum.
make_root() {
	mkdir -p "$tmp/root/boot"
	cp "$vmlinuz" "$tmp/root/boot/vmlinuz"
	cp "$tmp/guest.gz" "$tmp/root/boot/initrd"
	(cd "$tmp/root/boot" && md5sum initrd >sums)
}

# A disk that boots by itself: GRUB as its installer places it (boot sector, then the rest before
# the first partition), files on ext4.
make_system() {
	fetch grub-pc-bin grub && fetch grub-common grub-tools || return
	mods=$lab/grub/usr/lib/grub/i386-pc
	grub i386-pc "$tmp/core.img" hd0,msdos1 part_msdos ext2 || return
	make_root
	truncate -s 48M "$tmp/system.raw"
	# From sector 2048, 94208 sectors (46 MiB).
	mke2fs -q -F -t ext4 -E offset=1048576 -d "$tmp/root" "$tmp/system.raw" 46M >"$tmp/log" 2>&1
	cat "$mods/boot.img" "$tmp/core.img" | dd of="$tmp/system.raw" conv=notrunc 2>/dev/null
	{
		printf '\200\0\0\0\203\0\0\0\0\010\0\0\0\160\001\0'
		head -c 48 /dev/zero
	} | dd of="$tmp/system.raw" bs=1 seek=446 conv=notrunc 2>/dev/null
	printf '\125\252' | dd of="$tmp/system.raw" bs=1 seek=510 conv=notrunc 2>/dev/null
}

# A CD that boots by itself (El Torito, without emulation of a floppy).
make_disc() {
	[ -e "$tmp/system.raw" ] && command -v xorriso >/dev/null || return
	grub i386-pc-eltorito "$tmp/root/boot/eltorito.img" cd iso9660 || return
	xorriso -as mkisofs -quiet -o "$tmp/system.iso" -r -b boot/eltorito.img -no-emul-boot \
		-boot-load-size 4 -boot-info-table "$tmp/root" >"$tmp/log" 2>&1
}

# fio with its many libraries, and a file system around it, which a guest mounts.
make_fio() {
	wants fio && command -v fio >/dev/null || return 0
	mkdir -p "$tmp/fio/dev" "$tmp/fio/proc" "$tmp/fio/tmp"
	put "$tmp/fio" "$(command -v fio)"
	mke2fs -q -F -t ext4 -O ^has_journal -d "$tmp/fio" "$tmp/fio.raw" 128M >"$tmp/log" 2>&1
}

# A shop's database on ext4, for the power cuts.
make_story() {
	command -v sqlite3 >/dev/null && command -v debugfs >/dev/null || return
	mkdir -p "$tmp/shop"
	sqlite3 "$tmp/shop/shop.db" "pragma page_size=1024;
		create table orders (id integer primary key, item text, note text);
		create index by_item on orders(item);
		insert into orders select value, 'item ' || (value * 7919 % 1000),
			hex(randomblob(150)) from generate_series(1, 60);"
	mke2fs -q -F -t ext4 -b 1024 -d "$tmp/shop" "$tmp/story.raw" 8M >"$tmp/log" 2>&1
}

# judge CHECK HOW STATUS WORDS: the cuts of that log fail (2), with those words, or do not (0).
# Disks of today tear at 4096 bytes.
judge() {
	[ -s "$out/$2.log" ] || return 0
	cp "$out/$2.log" "$lab/story/"
	(
		cd "$lab/story" && "$sluice" powercut explore "$2.log" --image before.raw \
			--tear 4096 --states 400 --html "$2.html" --check "sh $1-check.sh {}"
	) >"$tmp/told" 2>&1
	status=$?
	sed 's/^/    /' "$tmp/told" | head -n 40
	if [ $status -eq "$3" ] && { [ -z "$4" ] || grep -q "$4" "$tmp/told"; }; then
		echo "ok story: the power cuts of $2"
	else
		echo "FAIL story: the power cuts of $2: status $status, not $3; or not '$4'"
	fi
}

# judge_plug HOW STATUS: a shop whose power was cut while it was open; the disk has kept its
# promises, and the shop has (0) or has not (1).
judge_plug() {
	[ -s "$out/plug-$1.raw" ] || return 0
	mkdir -p "$lab/story/scratch"
	"$sluice" powercut verify "$out/plug-$1.log" "$out/plug-$1.raw" -f raw \
		--image "$tmp/story.raw" >"$tmp/told" 2>&1
	kept=$?
	SCRATCH=$lab/story/scratch MARK='order 3 is paid' \
		sh tests/lab/shop-check.sh "$out/plug-$1.raw" >>"$tmp/told" 2>&1
	status=$?
	sed 's/^/    /' "$tmp/told"
	if [ $kept -eq 0 ] && [ $status -eq "$2" ]; then
		echo "ok story: a power cut of $1"
	else
		echo "FAIL story: a power cut of $1: status $kept, $status, not 0, $2"
	fi
}

judge_story() {
	[ -d "$out" ] || return 0
	mkdir -p "$lab/story"
	cp tests/lab/shop-check.sh tests/lab/save-check.sh "$lab/story/"
	cp "$tmp/story.raw" "$lab/story/before.raw"
	judge save rename 2 'the text is torn: 0 bytes'
	judge save file 2 'draft . was saved, and . is there'
	judge save folder 0
	judge shop OFF 2 'order . was paid, and only'
	judge shop EXTRA 0
	judge shop FULL 2 'order . was paid, and only'
	judge shop nobarrier 2 'missing: a flush after event'
	judge_plug OFF 1
	judge_plug EXTRA 0
}

direct() {
	[ -r /dev/kvm ] && [ -w /dev/kvm ] && grep -Eqw 'svm|vmx' /proc/cpuinfo
}

# make_lab DIR: what host.sh finds around it, but for the program under test.
make_lab() {
	mkdir -p "$1"
	cp tests/lab/host.sh tests/lab/qmp.pl "$tmp/guest.gz" "$lab/vmlinux" "$1/"
	cp "$vmlinuz" "$1/vmlinuz"
	for f in system.raw system.iso story.raw fio.raw; do
		[ ! -e "$tmp/$f" ] || cp "$tmp/$f" "$1/"
	done
}

run_direct() {
	make_lab "$tmp/lab"
	cp "$sluice" "$tmp/lab/sluice"
	! wants debian || ln -s "$lab/debian" "$tmp/lab/debian"
	(cd "$tmp/lab" && sh ./host.sh "${LAB:-}")
	out=$tmp/lab/out
}

# TCG does not let a hypervisor see XSETBV, so nobody is to have XSAVE; the rest it does not have.
cpu=EPYC,+svm,+npt,-xsave,-xsaveopt,-xsavec,-xgetbv1,-avx,-avx2,-f16c,-fma
cpu=$cpu,-rdseed,-sha-ni,-fxsr-opt,-misalignsse,-3dnowprefetch,-osvw,-topoext,-nrip-save

# make_suite ROOT: a root for the suite vm, of the packages that its scripts use, with all that
# those depend on, as they are installed here; and the part of the source tree that it takes.
make_suite() {
	for d in bin sbin lib lib64; do
		mkdir -p "$1/usr/$d"
		ln -s "usr/$d" "$1/$d"
	done
	mkdir -p "$1/src/build" "$1/src/tests" "$1/dev" "$1/proc" "$1/sys" "$1/tmp" "$1/etc"
	for l in dash:sh gcc:cc mawk:awk; do ln -s "${l%:*}" "$1/bin/${l#*:}"; done
	apt-cache depends --recurse --installed --no-recommends --no-suggests --no-conflicts \
		--no-breaks --no-replaces --no-enhances \
		bsdutils binutils coreutils dash diffutils gcc grep libc6-dev libjansson4 \
		liburing2 libzstd1 mawk mount python3 qemu-utils seabios sed util-linux zlib1g |
		grep '^[a-z]' | sort -u | xargs dpkg-query -L 2>/dev/null | sort -u |
		grep -v '^\(/s\?bin\|/lib\(64\)\?\|/usr/share/\(doc\|info\|locale\|man\)/.*\)$' |
		tar -c -C / --no-recursion --ignore-failed-read -T - 2>/dev/null | tar -x -C "$1"
	cp "$sluice" "$1/src/build/sluice"
	cp build/kill "$1/src/build/"
	cp -r tests/run.sh tests/support tests/vm "$1/src/tests/"
}

run_emulated() {
	command -v qemu-system-x86_64 >/dev/null || cannot "the package qemu-system-x86 is missing"
	h=$tmp/initrd
	base "$h"
	# shellcheck disable=SC2086 # a list
	modules "$h" $virtio
	cp tests/lab/host-initrd "$h/init"
	pack "$h" >"$tmp/host.gz"
	h=$tmp/host
	base "$h"
	make_lab "$h/lab"
	mkdir -p "$h/sbin"
	put "$h" "$sluice"
	mv "$h/bin/$(basename "$sluice")" "$h/lab/sluice"
	modules "$h" irqbypass kvm kvm-amd
	cp tests/lab/host-init "$h/sbin/init"
	size=700
	if wants debian; then
		mkdir "$h/lab/debian"
		cp "$lab/debian/vmlinuz" "$lab/debian/installer.gz" "$lab/debian/packages.img" \
			"$h/lab/debian/"
		put "$h" "$(command -v e2fsck)"
		size=4000
	fi
	if wants bootlog; then
		put "$h" "$(command -v qemu-system-x86_64)"
		mkdir -p "$h/usr/share/qemu"
		cp /usr/share/qemu/*boot_dma.bin /usr/share/qemu/kvmvapic.bin "$h/usr/share/qemu/"
	fi
	if wants vm || [ -z "${LAB:-}" ]; then
		make_suite "$h/lab/vm"
		size=4000
	fi
	if wants monitor || wants resize || wants snapshot || wants disc; then
		put "$h" "$(command -v perl)"
		mkdir -p "$h/usr/lib/x86_64-linux-gnu"
		cp -r /usr/lib/x86_64-linux-gnu/perl-base "$h/usr/lib/x86_64-linux-gnu/"
	fi
	mkdir -p "$h/usr/share/seabios"
	cp /usr/share/seabios/bios*.bin "$h/usr/share/seabios/" 2>/dev/null
	mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$h" "$tmp/host.img" "${size}M" \
		>"$tmp/log" 2>&1 || { cat "$tmp/log"; exit 1; }
	truncate -s 64M "$tmp/out.img"
	if ! emulate && ! grep -q '^FAIL' "$tmp/log"; then
		sed 's/^/    /' "$tmp/log"
		echo "skip lab: the emulated host stood still, and was started once more"
		emulate
	fi
	cat "$tmp/log"
	tar -x -f "$tmp/out.img" -C "$tmp" 2>/dev/null
	out=$tmp/out
	grep -q '^lab: done' "$tmp/log" ||
		echo "FAIL lab: the emulated host did not come to its end"
}

# The emulated host, from its start to its end; what it says goes to $tmp/log.  It has been seen to
# stand still as a whole, its clocks too: that says nothing about the program under test.
# Where time passes in leaps the kernel would take its timer for broken, hence no_timer_check.
emulate() {
	timeout -k 5 "${LAB_TIMEOUT:-500}" qemu-system-x86_64 -accel tcg,thread=multi -cpu "$cpu" \
		-smp 2 -m 1536 -nodefaults -nographic -serial stdio -no-reboot \
		-kernel "$lab/vmlinux" -initrd "$tmp/host.gz" \
		-append "console=ttyS0 panic=-1 quiet mitigations=off no_timer_check LAB=${LAB:-}" \
		-drive "if=virtio,file=$tmp/host.img,format=raw,snapshot=on" \
		-drive "if=virtio,file=$tmp/out.img,format=raw" </dev/null 2>&1 |
		sed -u 's/\r//g' >"$tmp/log"
	grep -q '^lab: done' "$tmp/log"
}

fetch_kernel
vmlinuz=$(ls "$lab"/kernel/boot/vmlinuz-*)
unpack_kernel
make_guest
make_system
make_disc
make_fio
make_debian
make_story
if direct; then
	echo "lab: this machine's own KVM"
	run_direct
else
	echo "lab: kvm_amd on an emulated CPU"
	run_emulated
fi
judge_story
