#!/bin/sh
# SPDX-License-Identifier: MIT
#
# shop-check.sh - is the shop of tests/lab/guest/story.sh all right after a power cut?
#
# The file system is repaired as at boot, SQLite finds its database in order, and every order that a
# customer was told is paid (the last mark before the cut) is there.
# usage: shop-check.sh IMAGE, with SCRATCH and MARK as sluice powercut explore sets them

PATH=$PATH:/usr/sbin:/sbin
e2fsck -fy "$1" >"$SCRATCH/fsck" 2>&1
[ $? -le 1 ] || { echo "the file system cannot be repaired"; exit 1; }
for f in shop.db shop.db-journal; do
	debugfs -R "dump $f $SCRATCH/$f" "$1" 2>/dev/null
done
cd "$SCRATCH" || exit 1
found=$(sqlite3 shop.db "pragma integrity_check; select count(*) from orders where id > 1000" 2>&1)
case $found in
"ok
"[0-9]*) found=${found#ok?} ;;
*) echo "SQLite: $found" | head -n 2; exit 1 ;;
esac
told=$(echo "$MARK" | sed -n 's/^order \([0-9]*\) is paid$/\1/p')
[ "${told:-0}" -le "$found" ] || { echo "order $told was paid, and only $found are there"; exit 1; }
