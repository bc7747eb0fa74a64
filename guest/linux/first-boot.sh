#!/bin/sh
# SPDX-License-Identifier: MIT
#
# first-boot.sh - /etc/rc.local of the installed system: says how it came up, and switches off.

ok() { echo "ok $*"; }
check() {
	words=$1
	shift
	if "$@"; then ok "$words"; else echo "FAIL $words"; fi
}
check "GRUB started the kernel" grep -q BOOT_IMAGE= /proc/cmdline
check "init is Debian's" test "$(readlink /proc/1/exe)" = /usr/sbin/init
check "the root is writable" grep -q "^/dev/[vs]da1 / ext4 rw" /proc/mounts
check "the root takes a file" sh -c "date >/root/booted && sync"
check "dpkg finds nothing undone" sh -c 'test -z "$(dpkg --audit)"'
check "files have the sums that their packages say" \
	sh -c 'cd / && for p in dpkg libc6:amd64 grub2-common; do
		grep -v " usr/share/" /var/lib/dpkg/info/$p.md5sums | md5sum -c --quiet || exit 1
	done'
bad='EXT4-fs (error|warning)|I/O error|Call Trace'
check "the kernel complains of nothing" sh -c "! dmesg | grep -E '$bad'"
echo "lab: end"
poweroff
