#!/bin/sh
# SPDX-License-Identifier: MIT
#
# host.sh - the tests of the lab, run where there is hardware virtualization.
#
# Here are ./sluice, ./vmlinuz, ./vmlinux and ./guest.gz.  A test is a function that boots the
# guest: boot() hands it the name of the script to run, and passes on the lines "ok ..." and
# "FAIL ..." that it says.
# usage: host.sh [NAME,...]

work=$(mktemp -d /tmp/lab.XXXXXX) || exit 2
trap 'rm -rf "$work"' EXIT

fail() { echo "FAIL $test: $*"; }
ok() { echo "ok $test: $*"; }
# check WORDS COMMAND...: the test's own verdict.
check() {
	words=$1
	shift
	if "$@"; then ok "$words"; else fail "$words"; fi
}

# start OPTION...: a guest; leaves its serial log in $work/log, the statistics in $work/stats.
start() {
	from=$(date +%s)
	rm -f "$work/serial" "$work/stats"
	./sluice run -serial "file:$work/serial" -stats "$work/stats" \
		-timeout "${seconds:-600}" "$@" 2>"$work/err"
	status=$?
	tr -d '\r' <"$work/serial" >"$work/log"
	sed -n "s/^\(ok\|FAIL\|skip\) /\1 $test: /p" "$work/log"
	if [ $status -ne 0 ] || ! grep -q '^lab: end' "$work/log"; then
		fail "the guest ended with status $status"
	fi
	cat "$work/err"
	sed 's/^/    /' "$work/log"
	echo "    ($test: $(($(date +%s) - from)) s)"
}

# boot SCRIPT OPTION...: Debian's kernel, which runs that script.
boot() {
	script=$1
	shift
	start -kernel "${kernel:-./vmlinuz}" -initrd ./guest.gz -m "${mem:-256M}" \
		-append "console=ttyS0 panic=-1 quiet loglevel=4 lab=$script $extra" "$@"
}

# A stat of a drive from $work/stats.
stat_of() {
	tr ',{}' '\n\n\n' <"$work/stats" | awk -v n="$1" -v key="\"$2\":" '
	/"id":/ { d++ }
	d == n + 1 && index($0, key) { sub(/.*: */, ""); print; exit }'
}

raw() { ./sluice img create -q -f raw "$1" "$2"; }
qcow2() { ./sluice img create -q -f qcow2 "$1" "$2"; }

# The machine as Linux sees it: CPUs, memory above 4 GiB is another test's, ACPI, and no errors.
test_machine() {
	raw "$work/d.raw" 16M
	boot machine.sh -smp 2 -drive "file=$work/d.raw,format=raw"
}

# What its kernel warns of is what it warns of under QEMU too, with the same devices.
test_bootlog() {
	if ! command -v qemu-system-x86_64 >/dev/null; then
		echo "skip $test: no QEMU"
		return
	fi
	raw "$work/v" 16M
	raw "$work/i" 16M
	boot bootlog.sh -smp 2 -drive "file=$work/v,format=raw" \
		-drive "if=ide,file=$work/i,format=raw"
	warnings <"$work/log" >"$work/ours"
	qemu-system-x86_64 -L /usr/share/qemu -L /usr/share/seabios -machine pc -accel kvm \
		-cpu host -smp 2 -m 256 -nodefaults \
		-display none -vga none -no-reboot -kernel ./vmlinuz -initrd ./guest.gz \
		-append "console=ttyS0 panic=-1 quiet loglevel=4 lab=bootlog.sh" \
		-serial "file:$work/peer" -drive "if=virtio,file=$work/v,format=raw" \
		-drive "if=ide,file=$work/i,format=raw" 2>&1
	tr -d '\r' <"$work/peer" | tee "$work/log" | warnings >"$work/theirs"
	check "QEMU's guest came to its end" grep -q '^lab: end' "$work/log"
	sed 's/^/    under QEMU: /' "$work/theirs"
	check "no warning but those that there are under QEMU" only_in_first
}
# Without what it says of any host that is slow at that moment.
warnings() {
	sed -n 's/^<[0-4]>\[[^]]*\] *//p' | sort -u |
		grep -Ev '^(hrtimer: interrupt took|clocksource: Long readout|hpet: Lost)'
}
only_in_first() { ! grep -vxFf "$work/theirs" "$work/ours"; }

between() { [ "$2" -ge "$1" ] && [ "$2" -le "$3" ] || { echo "$2, not $1 to $3"; false; }; }

# Write caches switched from inside.  fdatasyncs of the four disks before they were closed; 30
# writes each while the caches of the second and fourth were off.  Those that kept theirs on owe
# nothing; switching off, and Linux's own flushes, are the rest.
test_cache() {
	for d in 0 1 2 3; do qcow2 "$work/d$d" 16M; done
	boot cache.sh -drive "file=$work/d0,format=qcow2" -drive "file=$work/d1,format=qcow2" \
		-drive "if=ide,file=$work/d2,format=qcow2" \
		-drive "if=ide,file=$work/d3,format=qcow2"
	for d in 0 2; do
		check "disk $d: cache on, few flushes" between 0 "$(stat_of $d host_fdatasyncs)" 10
	done
	for d in 1 3; do
		n=$(stat_of $d host_fdatasyncs)
		check "disk $d: off for 30 writes: as many" between 30 "$n" 45
		check "disk $d: two changes were counted" between 2 "$(stat_of $d wce_changes)" 2
	done
}

# A file system on each bus, across a reset, in a qcow2 image that stays whole.
test_files() {
	qcow2 "$work/v" 32M
	qcow2 "$work/i" 32M
	boot files.sh -drive "file=$work/v,format=qcow2" -drive "if=ide,file=$work/i,format=qcow2"
	for d in v i; do check "image $d is whole" ./sluice img check -q "$work/$d"; done
}

# Read-only disks, and disks whose host refuses to write beyond 2 MiB (a limit, not a full disk).
test_odd() {
	for d in 0 1 2 3; do raw "$work/d$d" 16M; done
	trap '' XFSZ
	(
		# shellcheck disable=SC3045 # both dash and busybox have it
		ulimit -f 4096
		boot odd.sh -drive "file=$work/d0,format=raw,readonly=on" \
			-drive "file=$work/d1,format=raw" \
			-drive "if=ide,file=$work/d2,format=raw,readonly=on" \
			-drive "if=ide,file=$work/d3,format=raw"
	)
}

# An old virtio driver; its flushes reach the host.
test_legacy() {
	raw "$work/d.raw" 16M
	boot legacy.sh -drive "file=$work/d.raw,format=raw,disable-legacy=off"
	check "the host was asked to flush" between 1 "$(stat_of 0 flushes)" 100
	check "the change of the cache was counted" between 1 "$(stat_of 0 wce_changes)" 3
}

# Memory beyond 4 GiB, of which the guest touches little.
test_large() {
	mem=5G boot large.sh
}

# IDE as libata sees it: disks on both channels, a CD-ROM, the cache bit, TRIM, PIO.
test_ide() {
	raw "$work/a.raw" 64M
	qcow2 "$work/b.qcow2" 16M
	head -c 4194304 /dev/urandom >"$work/cd.iso"
	extra="cd=$(md5sum <"$work/cd.iso" | cut -d ' ' -f 1)"
	boot ide.sh -drive "if=ide,file=$work/a.raw,format=raw" \
		-drive "if=ide,index=2,file=$work/b.qcow2,format=qcow2" \
		-drive "if=ide,media=cdrom,index=3,file=$work/cd.iso"
	check "the image is clean" ./sluice img check -q "$work/b.qcow2"
	check "TRIM reached the image" test "$(stat_of 1 discards)" -gt 0
}

# fio on each bus.
test_fio() {
	if [ ! -s fio.raw ]; then
		echo "skip $test: no fio"
		return
	fi
	qcow2 "$work/v" 32M
	raw "$work/i" 32M
	boot fio.sh -drive "file=$work/v,format=qcow2" \
		-drive "file=fio.raw,format=raw,readonly=on" -drive "if=ide,file=$work/i,format=raw"
	check "the image is whole" ./sluice img check -q "$work/v"
}

# converse STEP...: with the machine that is started next, see qmp.pl; conversed: what was said.
converse() {
	rm -f "$work/said"
	: >"$work/serial"
	! command -v perl >/dev/null || perl ./qmp.pl "$work/mon" "$work/serial" "$@" \
		>"$work/said" 2>&1 &
}
conversed() {
	wait
	if [ ! -e "$work/said" ]; then
		echo "skip $test: no perl"
		return 1
	fi
	sed 's/^/    /' "$work/said"
	check "the monitor refuses nothing" sh -c "! grep -v '^[a-z0-9]* {.*\"return\"' $work/said"
}

# A disk becomes larger and smaller under its driver, which hears of it.
test_resize() {
	for d in raw qcow2; do $d "$work/$d" 32M; done
	converse '?32 MiB' 'larger block_resize "device": "drive0", "size": 50331648' \
		'larger2 block_resize "device": "drive1", "size": 50331648' '?48 MiB' \
		'smaller block_resize "device": "drive0", "size": 25165824' \
		'smaller2 block_resize "device": "drive1", "size": 25165824'
	boot resize.sh -drive "file=$work/raw,format=raw" -drive "file=$work/qcow2,format=qcow2" \
		-monitor "unix:$work/mon"
	conversed || return
	check "the image is whole" ./sluice img check -q "$work/qcow2"
}

# Overlays come while the guest writes and syncs files.  It finds all of them in the end; what was
# synced before the first overlay came is in the image below, which boots like after a power cut.
test_snapshot() {
	for way in virtio:raw virtio:qcow2 ide:qcow2; do
		bus=${way%:*} format=${way#*:}
		rm -f "$work"/over?
		$format "$work/d" 64M
		converse '?file 8 is synced' 'first blockdev-snapshot-sync "device": "drive0",
			"snapshot-file": "'"$work"'/over1", "format": "qcow2"' \
			'?file 20 is synced' 'second blockdev-snapshot-sync "device": "drive0",
			"snapshot-file": "'"$work"'/over2", "format": "qcow2"'
		extra=files=40 boot snapshot.sh -drive "if=$bus,file=$work/d,format=$format" \
			-monitor "unix:$work/mon"
		conversed || return
		check "$way: the layers are whole" whole "$work/over1" "$work/over2" \
			"$([ "$format" = raw ] || echo "$work/d")"
		for layer in d:$format:8 over1:qcow2:20 over2:qcow2:40; do
			image=${layer%%:*} kind=${layer#*:}
			extra=there=${layer##*:} boot snapshot.sh -snapshot \
				-drive "if=$bus,file=$work/$image,format=${kind%:*}"
		done
	done
}
whole() {
	for image; do [ -z "$image" ] || ./sluice img check -q "$image" || return 1; done
}

# The disc in a CD-ROM drive is taken out, and another one laid in.
test_disc() {
	head -c 4194304 /dev/urandom >"$work/one.iso"
	head -c 2097152 /dev/urandom >"$work/two.iso"
	converse '?the first disc was read' 'out eject "device": "drive0"' '?no disc' \
		'in blockdev-change-medium "device": "drive0",
			"filename": "'"$work"'/two.iso"'
	extra=
	for n in one two; do
		extra="$extra $n=$(md5sum <"$work/$n.iso" | cut -c 1-32)"
	done
	boot disc.sh -drive "if=ide,media=cdrom,file=$work/one.iso" -monitor "unix:$work/mon"
	conversed
}

# The monitor switches the cache off while the guest's kernel thinks that it is on.
test_monitor() {
	qcow2 "$work/d" 16M
	set_cache='set x-block-set-write-cache "device": "drive0", "enable": false'
	converse '?written with the cache on' 'before query-block' "$set_cache" \
		'after query-block' '?switched on' 'then query-block'
	boot monitor.sh -drive "if=ide,file=$work/d,format=qcow2" -monitor "unix:$work/mon"
	conversed || return
	check "before: on since power-on, and some data is not safe" \
		said before 'true.*"by": *"power-on".*"unstable-bytes": *[1-9]'
	check "after: off, by the monitor, all is safe" \
		said after 'false.*"by": *"monitor".*"unstable-bytes": *0'
	check "then: on again, by the guest" said "then" 'true.*"by": *"guest"'
	n=$(stat_of 0 host_fdatasyncs)
	check "30 writes were made durable one by one" between 30 "$n" 45
}
said() { grep -q "^$1 .*\"enable\": *$2" "$work/said"; }

# Recorded, for lab.sh to judge: an editor that saves its text without fsync, with one, and with
# both that it takes; and SQLite on ext4 without the fsyncs that it needs, with them, and in two
# ways in between.
# story SCRIPT HOW...
story() {
	script=$1
	shift
	if [ ! -s story.raw ]; then
		echo "skip $test: no sqlite3"
		return
	fi
	mkdir -p out
	for how; do
		cp story.raw "$work/d.raw"
		extra="how=$how"
		boot $script -drive "file=$work/d.raw,format=raw,trace=out/$how.log"
	done
}
test_story() { story story.sh OFF EXTRA; }
test_save() { story save.sh rename file folder; }
test_story_more() {
	story story.sh FULL nobarrier
	plug OFF
	plug EXTRA
}

# Its power fails right after a customer was told; qcow2, because its tables are at risk then, too.
plug() {
	[ -s story.raw ] || return
	./sluice img convert -f raw -O qcow2 story.raw "$work/plug"
	keys="powercut=serial:^order 3 is paid,tear=4096,seed=4,trace=out/plug-$1.log"
	./sluice run -kernel ./vmlinuz -initrd ./guest.gz -m 256M -serial "file:$work/log" \
		-append "console=ttyS0 panic=-1 quiet loglevel=4 lab=story.sh how=$1" \
		-timeout 100 -drive "file=$work/plug,format=qcow2,$keys"
	check "$1: the power was cut under a shop" test $? -eq 5
	./sluice img convert -f qcow2 -O raw "$work/plug" "out/plug-$1.raw"
}

# The kernel's other entries: 32-bit, by taking back its word that it has a 64-bit one; and PVH.
test_entry32() {
	cp vmlinuz "$work/vmlinuz32"
	printf '\0' | dd of="$work/vmlinuz32" bs=1 seek=566 conv=notrunc 2>/dev/null
	kernel=$work/vmlinuz32 boot entry.sh
}
test_pvh() {
	kernel=./vmlinux boot entry.sh
}

# A disk with GRUB, kernel and initial RAM disk boots by itself: BUS FORMAT.
installed() {
	if [ ! -s system.raw ]; then
		echo "skip $test: no GRUB or no SeaBIOS"
		return
	fi
	cp system.raw "$work/system"
	if [ "$2" = qcow2 ]; then
		./sluice img convert -f raw -O qcow2 system.raw "$work/system"
	fi
	start -m 256M -drive "if=$1,file=$work/system,format=$2"
}
test_virtio_raw() { installed virtio raw; }
test_virtio_qcow2() { installed virtio qcow2; }
test_ide_raw() { installed ide raw; }
test_ide_qcow2() { installed ide qcow2; }

# A CD with the same on it, although there is a disk.
test_cd() {
	if [ ! -s system.iso ]; then
		echo "skip $test: no GRUB or no xorriso"
		return
	fi
	raw "$work/d.raw" 16M
	start -m 256M -boot d -cdrom system.iso -drive "file=$work/d.raw,format=raw"
}

# Debian, installed in a guest by its own dpkg, boots from each bus and format into its own init,
# and switches itself off.  The disks of these are large: not in memory.
test_debian() {
	mkdir -p images
	./sluice bench install --guest linux --linux-dir debian --modes writeback \
		--formats qcow2 --bus virtio --keep images >"$work/bench" 2>&1
	check "dpkg installs it" test $? = 0
	sed 's/^/    /' "$work/bench"
	image=images/sluice-virtio-qcow2-writeback-1.img
	[ -s "$image" ] || return
	for kind in virtio:qcow2 ide:raw virtio:raw ide:qcow2; do
		bus=${kind%:*} format=${kind#*:}
		./sluice img convert -f qcow2 -O "$format" "$image" images/disk
		seconds=1500 start -m 256M -drive "if=$bus,file=images/disk,format=$format"
		./sluice img convert -f "$format" -O raw images/disk images/after
		check "$bus, $format: the file system was closed and is whole" \
			fsck images/after
	done
	rm -r images
}
# The file system in the first partition is marked clean, and nothing in it is wrong.
fsck() {
	e2fsck -fn "$1?offset=1048576" >"$work/fsck" 2>&1 &&
		! grep -q 'recovering journal\|not cleanly' "$work/fsck" ||
		{ cat "$work/fsck"; false; }
}

# The suite vm, as tests/run.sh runs it, in its own root (see lab.sh); this host is slow.
test_vm() {
	for script in vm/src/tests/vm/*.sh; do
		# What needs no KVM can run anywhere, and does.
		grep -q 'Needs no /dev/kvm' "$script" || suite "$(basename "$script" .sh)"
	done
}
# A mount point, as a root must be for mount namespaces; and terminals.
suite_root() {
	mount --bind vm vm
	for dir in dev proc sys; do mount --bind "/$dir" "vm/$dir"; done
	mkdir -p vm/dev/pts
	mount -t devpts -o ptmxmode=666 pts vm/dev/pts
}
# suite SCRIPT
suite() {
	if [ ! -d vm ]; then
		echo "skip vm/$1: not on an emulated host"
		return
	fi
	[ -e vm/dev/kvm ] || suite_root
	from=$(date +%s)
	chroot vm /usr/bin/env PATH=/usr/bin:/usr/sbin SLOW=10 TEST_TIMEOUT=3000 TEST_TAIL=0 \
		/src/tests/run.sh vm: "tests/vm/$1.sh" >"$work/said" 2>&1
	status=$?
	log=vm/src/build/logs/vm-$1.log
	sed -n "s,^\(ok\|FAIL\|skip\) ,\1 vm/$1: ,p" "$log"
	sed 's/^/    /' "$log" "$work/said"
	echo "    (vm/$1: $(($(date +%s) - from)) s)"
	if [ $status -ne 0 ] && ! grep -q '^FAIL' "$log"; then
		echo "FAIL vm/$1: $(grep "^vm/$1:" "$work/said" | head -n 1)"
	elif ! grep -q '^\(ok\|FAIL\|skip\) ' "$log"; then
		echo "skip vm/$1: $(tail -n 1 "$log")"
	fi
}

echo # what the firmware printed may have no end of line
few="machine ide cache files odd legacy ide_qcow2 story"
more="story_more save large entry32 pvh virtio_raw virtio_qcow2 ide_raw cd bootlog fio monitor
	resize snapshot disc vm debian"
# Of the suite vm, what takes a minute.
some=
[ ! -d vm ] || some="vm/monitor vm/firmware vm/loop"
case ${1:-} in
'') list="$few $some" ;;
all) list="$few $more" ;;
*) list=$1 ;;
esac
for test in $(echo "$list" | tr ',' ' '); do
	extra=
	case $test in
	vm/*) suite "${test#vm/}" ;;
	*) "test_$test" ;;
	esac
done
