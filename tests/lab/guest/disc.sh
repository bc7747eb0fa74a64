# SPDX-License-Identifier: MIT
# disc.sh - the disc in the CD-ROM drive is another one after a while.

word() { sed -n "s/.*$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
sum() { md5sum </dev/sr0 2>/dev/null | cut -d ' ' -f 1; }
# soon COMMAND...: within two minutes.
soon() {
	for i in $(seq 120); do
		"$@" && return
		sleep 1
	done
	false
}
reads() { [ "$(sum)" = "$1" ]; }
no_disc() { ! dd if=/dev/sr0 of=/dev/null bs=2k count=1 2>/tmp/out; }

check "a drive is there" soon test -b /dev/sr0
check "the first disc reads right" reads "$(word one)"
echo "the first disc was read"
check "it goes" soon no_disc
check "because there is no medium" grep -q 'No medium' /tmp/out
echo "no disc"
check "the second one reads right" soon reads "$(word two)"
check "and has its own size" test "$(cat /sys/block/sr0/size)" = 4096
