# SPDX-License-Identifier: MIT
# save.sh - an editor saves its text as every textbook says: it writes a new file, and renames it
# over the old one; then it says so.  That takes two fsyncs; how= says which are there: none
# (rename), the file's, or the folder's too.

how=$(sed -n 's/.*how=\([^ ]*\).*/\1/p' /proc/cmdline)
mount -t ext4 -o noauto_da_alloc,commit=1 /dev/vda /mnt || fail "mount"
for i in 1 2 3; do
	printf 'draft %s\n%s\nthe end\n' $i "$(seq 400)" >/mnt/text.new
	[ "$how" = rename ] || sync /mnt/text.new
	mv /mnt/text.new /mnt/text
	[ "$how" != folder ] || sync /mnt
	echo "draft $i is saved"
	sleep 2
done
umount /mnt && ok "three drafts, $how"
