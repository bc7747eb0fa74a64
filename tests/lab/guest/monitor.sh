# SPDX-License-Identifier: MIT
# monitor.sh - the write cache of an IDE disk, switched from outside and then from inside.

d=$(ide 0 0)
w() { /bin/hdparm -W /dev/$d | sed -n 's/.*write-caching *= *\([01]\).*/\1/p'; }
writes() { dd if=/dev/zero of=/dev/$d bs=4k count=30 oflag=direct 2>/dev/null; }

check "the cache is on" test "$(w)" = 1
writes || fail "writes"
echo "written with the cache on"
for i in $(seq 120); do
	[ "$(w)" = 1 ] || break
	sleep 1
done
check "the drive says that somebody has switched it off" test "$(w)" = 0
writes || fail "writes"
/bin/hdparm -q -W 1 /dev/$d
check "it can be switched on from inside" test "$(w)" = 1
echo "switched on"
sleep 10
