#!/bin/sh
# SPDX-License-Identifier: MIT
#
# refused.sh - a sluice img command that cannot be done says why and touches nothing.
#
# Each line of the table at the end is a command that must exit with 1 and print one line (and the
# hints that qemu-img prints with it); all files, their names and every byte stay as they are.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

rm -rf pristine ours peer
mkdir pristine
(
	cd pristine || exit 1
	img() { "$SLUICE" img "$@" >/dev/null; }
	mkdir folder
	echo 'not an image' >note
	ln -s nowhere dangling
	head -c 1048576 /dev/zero | tr '\0' x >base.raw
	img convert -f raw -O qcow2 base.raw base.qcow2 &&
		img create -f qcow2 -b base.qcow2 -F qcow2 over.qcow2 2M &&
		img create -f qcow2 -u -b missing.qcow2 -F qcow2 orphan.qcow2 1M &&
		img create -f qcow2 -b orphan.qcow2 -F qcow2 -u orphan2.qcow2 1M &&
		img create -f qcow2 -o compat=0.10 old.qcow2 1M &&
		img create -f qcow2 bm.qcow2 1M && img bitmap --add bm.qcow2 b0 &&
		img create -f qcow2 snap.qcow2 1M && img snapshot -c s0 snap.qcow2 &&
		img create -f qcow2 -o data_file=ext.data ext.qcow2 1M &&
		head -c 100000 base.qcow2 >cut.qcow2
) || { echo "FAIL refused: the images"; exit 1; }
cp -a pristine ours

content() {
	find . | sort
	find . -type f -exec sha256sum {} + | sort
}

lines() { # of what was said: all but blank ones
	grep -c . "$1"
}

(cd pristine && content) >before
n=0
while read -r args; do
	case $args in '' | '#'*) continue ;; esac
	n=$((n + 1))
	(cd ours && eval "timeout 60 \"\$SLUICE\" img $args" >../s.out 2>../s.err </dev/null)
	rc=$?
	said=$(lines s.err) max=1
	if [ "$said" -gt 1 ] && command -v qemu-img >/dev/null; then
		rm -rf peer
		cp -a pristine peer
		(cd peer && eval "timeout 60 qemu-img $args" >../q.out 2>../q.err </dev/null)
		max=$(lines q.err)
	fi
	: >why
	[ $rc -eq 1 ] || echo "exit status $rc" >>why
	[ "$said" -ge 1 ] && [ "$said" -le "$max" ] || echo "lines said: $said, not 1 to $max" >>why
	(cd ours && content) | diff before - >>why || { rm -rf ours; cp -a pristine ours; }
	if [ -s why ]; then
		echo "FAIL refused: $args"
		cat why s.err | head -12 | sed 's/^/  | /'
		status=1
	fi
done <<'TABLE'
# create
create
create -f qcow2
create -f qcow2 base.qcow2
create -f nosuch base.qcow2 1M
create -f qcow2 base.qcow2 -- -1
create -f qcow2 base.qcow2 1X
create -f qcow2 base.qcow2 9E
create -f qcow2 base.qcow2 1M 2M
create -f qcow2 -o nosuch=1 base.qcow2 1M
create -f qcow2 -o cluster_size=3000 base.qcow2 1M
create -f qcow2 -o cluster_size=4M base.qcow2 1M
create -f qcow2 -o refcount_bits=3 base.qcow2 1M
create -f qcow2 -o compat=2.0 base.qcow2 1M
create -f qcow2 -o compat=0.10,lazy_refcounts=on base.qcow2 1M
create -f qcow2 -o compat=0.10,extended_l2=on base.qcow2 1M
create -f qcow2 -o compression_type=lzo base.qcow2 1M
create -f qcow2 -o preallocation=some base.qcow2 1M
create -f qcow2 -o data_file_raw=on base.qcow2 1M
create -f qcow2 -b base.qcow2 over.qcow2
create -f qcow2 -b missing.qcow2 -F qcow2 over.qcow2
create -f qcow2 -b base.qcow2 -F nosuch over.qcow2
create -f qcow2 -b note -F qcow2 over.qcow2
create -f qcow2 -b orphan.qcow2 -F qcow2 new.qcow2
create -f qcow2 -b base.qcow2 -F qcow2 base.qcow2
create -f raw -b base.raw -F raw new.raw
create -f raw -o cluster_size=64k base.raw 1M
create -f qcow2 folder 1M
create -f qcow2 nodir/new.qcow2 1M
create -f qcow2 -o backing_fmt=qcow2 new.qcow2 1M
create --nosuch base.qcow2 1M
# convert
convert
convert base.raw
convert -O nosuch base.raw base.qcow2
convert -f nosuch base.raw base.qcow2
convert -O qcow2 missing.raw base.qcow2
convert -f qcow2 -O qcow2 note base.qcow2
convert -O qcow2 orphan2.qcow2 base.qcow2
convert -O qcow2 -o nosuch=1 base.raw base.qcow2
convert -O qcow2 -o cluster_size=3000 base.raw base.qcow2
convert -O qcow2 -c -o cluster_size=3000 base.raw new.qcow2
convert -O qcow2 -o compat=0.10,compression_type=zstd base.raw base.qcow2
convert -O raw -c base.qcow2 base.raw
convert -O qcow2 -B missing.qcow2 -F qcow2 base.raw over.qcow2
convert -O qcow2 -B base.qcow2 base.raw over.qcow2
convert -O qcow2 -B over.qcow2 -F qcow2 base.raw over.qcow2
convert -O raw -B base.qcow2 -F qcow2 base.raw new.raw
convert -O qcow2 -l nosuch snap.qcow2 base.qcow2
convert -O qcow2 -m 17 base.raw base.qcow2
convert -O qcow2 -m 0 base.raw base.qcow2
convert -O qcow2 -S 3 base.raw base.qcow2
convert -O qcow2 -r 1x base.raw base.qcow2
convert -n -O raw base.raw missing.raw
convert -n -O qcow2 base.raw note
convert -n -O raw base.raw note
convert -n -O qcow2 -o cluster_size=4k base.raw base.qcow2
convert -t nosuch -O qcow2 base.raw base.qcow2
convert -T nosuch -O qcow2 base.raw base.qcow2
convert --bitmaps -O raw bm.qcow2 base.raw
convert --skip-broken-bitmaps -O qcow2 bm.qcow2 base.qcow2
convert -O qcow2 base.raw folder
convert -O qcow2 base.raw nodir/new.qcow2
# resize
resize base.qcow2
resize missing.qcow2 2M
resize base.qcow2 nosuch
resize base.qcow2 512k
resize base.raw -f raw 512k
resize -f raw base.raw -- -2M
resize -f nosuch base.qcow2 2M
resize -f qcow2 note 2M
resize --preallocation=some base.qcow2 2M
resize --preallocation=full --shrink base.qcow2 512k
resize snap.qcow2 --shrink 0x
resize old.qcow2 9E
resize orphan2.qcow2 2M
resize folder 2M
# amend
amend base.qcow2
amend -o nosuch=1 base.qcow2
amend -o compat=2.0 base.qcow2
amend -o cluster_size=4k base.qcow2
amend -o compression_type=zstd base.qcow2
amend -o refcount_bits=3 base.qcow2
amend -o compat=0.10 -f qcow2 note
amend -o compat=1.1 missing.qcow2
amend -f raw -o size=2M base.raw
amend -f nosuch -o size=2M base.qcow2
amend -o lazy_refcounts=on old.qcow2
amend -o compat=0.10 ext.qcow2
amend -o data_file=new.data base.qcow2
amend -o backing_file=missing.qcow2,backing_fmt=qcow2 over.qcow2
amend -t nosuch -o compat=0.10 base.qcow2
# rebase
rebase over.qcow2
rebase -b missing.qcow2 -F qcow2 over.qcow2
rebase -b base.qcow2 over.qcow2
rebase -b base.raw -F nosuch over.qcow2
rebase -b note -F qcow2 over.qcow2
rebase -b base.qcow2 -F qcow2 orphan.qcow2
rebase -b base.qcow2 -F qcow2 missing.qcow2
rebase -f raw -b base.qcow2 -F qcow2 base.raw
rebase -f nosuch -b base.qcow2 -F qcow2 over.qcow2
rebase -u -b base.qcow2 over.qcow2
rebase -t nosuch -b base.raw -F raw over.qcow2
rebase -b over.qcow2 -F qcow2 over.qcow2
# commit
commit
commit base.qcow2
commit missing.qcow2
commit orphan.qcow2
commit -f raw base.raw
commit -f nosuch over.qcow2
commit -f qcow2 note
commit -b missing.qcow2 over.qcow2
commit -b over.qcow2 over.qcow2
commit -t nosuch over.qcow2
commit -r 1x over.qcow2
# snapshot
snapshot
snapshot -c
snapshot -c s1 missing.qcow2
snapshot -c s1 base.raw
snapshot -c s1 -d s0 snap.qcow2
snapshot -a nosuch snap.qcow2
snapshot -d nosuch snap.qcow2
snapshot -c s1 ext.qcow2x
snapshot -c s1 note
snapshot -c s1 orphan2.qcow2
# bitmap
bitmap
bitmap bm.qcow2 b0
bitmap --add bm.qcow2
bitmap --add bm.qcow2 b0
bitmap --add -g 3 bm.qcow2 b1
bitmap --add -g 256 bm.qcow2 b1
bitmap --add -g 4G bm.qcow2 b1
bitmap -g 64k --clear bm.qcow2 b0
bitmap --remove bm.qcow2 nosuch
bitmap --clear bm.qcow2 nosuch
bitmap --enable bm.qcow2 nosuch
bitmap --disable bm.qcow2 nosuch
bitmap --merge nosuch bm.qcow2 b0
bitmap --merge b0 -b missing.qcow2 -F qcow2 bm.qcow2 b0
bitmap --merge b0 -b base.raw -F raw bm.qcow2 b0
bitmap --add old.qcow2 b1
bitmap --add -f raw base.raw b1
bitmap --add missing.qcow2 b1
bitmap --add -f nosuch bm.qcow2 b1
bitmap --add -F qcow2 bm.qcow2 b1
# dd
dd
dd if=base.raw
dd of=new.raw
dd if=missing.raw of=base.qcow2
dd if=base.raw of=base.qcow2 nosuch=1
dd if=base.raw of=base.qcow2 bs=0
dd if=base.raw of=base.qcow2 bs=x
dd if=base.raw of=base.qcow2 count=x
dd if=base.raw of=base.qcow2 skip=-1
dd -O nosuch if=base.raw of=base.qcow2
dd -f nosuch if=base.raw of=base.qcow2
dd -f qcow2 -O qcow2 if=note of=base.qcow2
dd -O qcow2 if=orphan2.qcow2 of=base.qcow2
dd -O qcow2 if=base.raw of=folder
dd -O raw if=base.raw of=nodir/new.raw
# images that end before they should
resize cut.qcow2 nosuch
convert -l nosuch -O raw cut.qcow2 base.raw
TABLE

[ $n -gt 150 ] || { echo "FAIL refused: only $n commands"; status=1; }
[ $status -eq 0 ] && echo "ok refused: $n commands"
exit $status
