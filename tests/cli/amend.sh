#!/bin/sh
# SPDX-License-Identifier: MIT
#
# amend.sh - sluice img amend beside qemu-img: counts of every width, in an image with something in
# it, which stays what it was and which qemu-img calls clean; version 2 with all content, that of
# snapshots too; the same words where that cannot be.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
# shellcheck source=tests/support/beside_qemu.sh
. "$SRC/tests/support/beside_qemu.sh"

ours() { "$SLUICE" img "$@"; }
theirs() { qemu-img "$@"; }
calm() { sed 's/qemu-img/PROGRAM/g; s/sluice img/PROGRAM/g'; }
bits() { qemu-img info "$1" | sed -n 's/.*refcount bits: //p'; }

# --- every width, one after the other ---------------------------------------------------------

bad=0
: >why
qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=1 i.qcow2 4M
qemu-io -c 'write -P 1 0 300k' -c 'write -c -P 2 1M 1k' -c 'discard 100k 50k' i.qcow2 >/dev/null
qemu-img convert -O raw i.qcow2 before.raw
for n in 64 1 2 32 4 16 8 1; do
	ours amend -q -o refcount_bits=$n i.qcow2 >>why 2>&1 &&
		[ "$(bits i.qcow2)" = $n ] && qemu-img check -q i.qcow2 >>why 2>&1 &&
		ours check -q i.qcow2 >>why 2>&1 &&
		qemu-io -f qcow2 -c "write -P 3 $((n * 8))k 5k" i.qcow2 >/dev/null &&
		qemu-io -f raw -c "write -P 3 $((n * 8))k 5k" before.raw >/dev/null ||
		{ bad=1; echo "$n" >>why; }
done
qemu-img compare -q -f qcow2 -F raw i.qcow2 before.raw || bad=1
verdict $bad "every width of counts; a clean image with the same content"

# --- counts that do not fit, and what version 2 wants -----------------------------------------

qemu-img create -q -f qcow2 base.qcow2 4M
qemu-io -c 'write -P 1 0 300k' base.qcow2 >/dev/null
qemu-img snapshot -c one base.qcow2
bad=0
for o in refcount_bits=1 refcount_bits=2 refcount_bits=3 refcount_bits=128 refcount_bits=x \
	compat=0.10,refcount_bits=8 refcount_bits=64; do
	for who in theirs ours; do
		cp base.qcow2 i.qcow2
		{ $who amend -o $o i.qcow2; echo "status $?"; bits i.qcow2; } 2>&1 | calm >$who.out
	done
	diff -u theirs.out ours.out >why || { verdict 1 "-o $o"; bad=1; }
done
qemu-img create -q -f qcow2 -o refcount_bits=64 base.qcow2 1M
for o in compat=0.10 compat=0.10,refcount_bits=16; do
	for who in theirs ours; do
		cp base.qcow2 i.qcow2
		{ $who amend -o $o i.qcow2; echo "status $?"; bits i.qcow2; } 2>&1 | calm >$who.out
	done
	diff -u theirs.out ours.out >why || { verdict 1 "-o $o"; bad=1; }
done
[ $bad -ne 0 ] || verdict 0 "widths that cannot be are refused in qemu-img's words"

# --- what cannot be changes nothing -----------------------------------------------------------

qemu-img create -q -f qcow2 i.qcow2 4M
qemu-io -c 'write -P 1 0 300k' i.qcow2 >/dev/null
qemu-img snapshot -c one i.qcow2
cp i.qcow2 before.qcow2
! ours amend -q -o refcount_bits=1 i.qcow2 2>why && cmp i.qcow2 before.qcow2 >why
verdict $? "a width that does not fit changes nothing on disk"

# --- version 2 with snapshots -----------------------------------------------------------------

# Zeros of the disk's own, of one snapshot, and shared; over a backing file, and over none.
make_zeros() { # QEMU-IMG CREATE ARGUMENTS...
	qemu-img create -q -f qcow2 "$@" i.qcow2 4M
	qemu-io -c 'write -P 1 0 512k' -c 'write -z 64k 64k' -c 'write -z 2M 1M' i.qcow2
	qemu-img snapshot -c one i.qcow2
	qemu-img snapshot -c two i.qcow2
	qemu-io -c 'write -P 2 64k 64k' -c 'write -z 256k 64k' -c 'write -zu 512k 64k' i.qcow2
	qemu-img snapshot -c three i.qcow2
	qemu-io -c 'write -P 3 0 128k' i.qcow2
} >/dev/null
contents() { # WHERE
	for s in one two three; do
		qemu-img convert -l snapshot.name=$s -O raw i.qcow2 "$1.$s"
	done
	qemu-img convert -O raw i.qcow2 "$1.now"
}

qemu-img create -q -f qcow2 below.qcow2 4M
qemu-io -c 'write -P 9 0 4M' below.qcow2 >/dev/null
for below in '' '-b below.qcow2 -F qcow2'; do
	make_zeros $below
	contents before
	bad=0
	ours amend -p -o compat=0.10 i.qcow2 >out 2>why || bad=1
	qemu-img info i.qcow2 | grep -q 'compat: 0.10' || bad=1
	qemu-img check -q i.qcow2 >>why 2>&1 && ours check -q i.qcow2 >>why 2>&1 || bad=1
	contents after
	for s in one two three now; do
		cmp before.$s after.$s >>why 2>&1 || bad=1
	done
	tr '\r' '\n' <out | grep -q '(50.00/100%)' || bad=1
	verdict $bad "version 2 with snapshots${below:+, over a backing file}: their content stays"
done

qemu-img create -q -f qcow2 base.qcow2 4M
qemu-img snapshot -c one base.qcow2
qemu-img resize -q base.qcow2 8M
qemu-img create -q -f qcow2 -o extended_l2=on ext.qcow2 4M
bad=0
for i in base ext; do
	for who in theirs ours; do
		cp $i.qcow2 i.qcow2
		{ $who amend -o compat=0.10 i.qcow2; echo "status $?"; } 2>&1 | calm >$who.out
	done
	diff -u theirs.out ours.out >why || bad=1
done
verdict $bad "what version 2 cannot have is refused in qemu-img's words"

# A broken snapshot: refused as before, and the image stays good for writing.
qemu-img create -q -f qcow2 base.qcow2 4M
qemu-io -c 'write -q 0 512' base.qcow2
qemu-img snapshot -c one base.qcow2
bad=0
python3 - <<'END' || bad=1
import struct
f = open('base.qcow2', 'r+b')
f.seek(64)
f.seek(struct.unpack('>Q', f.read(8))[0])
f.write(struct.pack('>Q', 0x400200))
END
for who in theirs ours; do
	cp base.qcow2 i.qcow2
	{ $who amend -o compat=0.10 i.qcow2; echo "status $?"; } 2>&1 | calm >$who.out
	dd if=i.qcow2 bs=1 skip=72 count=8 2>/dev/null | od -An -tx1 >>$who.out
done
diff -u theirs.out ours.out >why || bad=1
"$SLUICE" io -c 'write -q 0 4k' i.qcow2 >>why 2>&1 || bad=1
verdict $bad "a snapshot whose L1 table cannot be stops it before anything is marked"

# --- a backing file -----------------------------------------------------------------------------

bad=0
: >why
for o in backing_file=below.qcow2 backing_fmt=qcow2 backing_file=below.qcow2,backing_fmt=qcow2 \
	backing_file=below.qcow2,backing_fmt=raw backing_file=x,backing_fmt=qcow2; do
	for i in '' '-b below.qcow2 -F qcow2'; do
		qemu-img create -q -f qcow2 $i i.qcow2 4M
		{ theirs amend -o $o i.qcow2; echo "status $?"; } 2>&1 | calm >theirs.out
		{ ours amend -o $o i.qcow2; echo "status $?"; } 2>&1 | calm >ours.out
		diff -u theirs.out ours.out >>why || bad=1
	done
done
verdict $bad "a backing file may be said as it is, not changed"

exit $status
