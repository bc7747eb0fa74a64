# SPDX-License-Identifier: MIT
# story.sh - a shop on SQLite: one order after the other, each a transaction; then the customer is
# told.

how=$(sed -n 's/.*how=\([^ ]*\).*/\1/p' /proc/cmdline)
case $how in
nobarrier) options=barrier=0 sync=EXTRA ;; # fsync writes, and does not flush the disk's cache
*) options=barrier=1 sync=$how ;;
esac
mount -t ext4 -o $options /dev/vda /mnt || fail "mount"
for i in 1 2 3 4 5 6; do
	sqlite3 /mnt/shop.db "pragma synchronous=$sync; begin; insert into orders values
		(1000 + $i, 'item $i', hex(randomblob(400)));
		update orders set note = 'sold' where id % 6 = $i % 6; commit;" &&
		echo "order $i is paid"
done
sync
echo "closing time"
umount /mnt && ok "six orders, $how"
