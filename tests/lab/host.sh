#!/bin/sh
# SPDX-License-Identifier: MIT
#
# host.sh - the tests of the lab, run where there is hardware virtualization.
#
# Here are ./sluice, ./vmlinuz and ./guest.gz.  A test is a function that boots the guest: boot()
# hands it the name of the script to run, and passes on the lines "ok ..." and "FAIL ..." it says.
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

# boot SCRIPT OPTION...: leaves the serial log in $work/serial, the statistics in $work/stats.
boot() {
	script=$1
	shift
	from=$(date +%s)
	timeout 120 ./sluice run -kernel ./vmlinuz -initrd ./guest.gz -m 256M \
		-append "console=ttyS0 panic=-1 quiet loglevel=4 lab=$script $extra" \
		-serial "file:$work/serial" -stats "$work/stats" -timeout 110 "$@" 2>"$work/err"
	status=$?
	tr -d '\r' <"$work/serial" >"$work/log"
	sed -n "s/^\(ok\|FAIL\|skip\) /\1 $test: /p" "$work/log"
	if [ $status -ne 0 ] || ! grep -q '^lab: end' "$work/log"; then
		fail "$script ended with status $status"
		cat "$work/err"
	fi
	sed 's/^/    /' "$work/log"
	echo "    ($test: $(($(date +%s) - from)) s)"
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

all="machine ide"
list=${1:-$all}
for test in $(echo "$list" | tr ',' ' '); do
	extra=
	"test_$test"
done
