#!/bin/sh
# SPDX-License-Identifier: MIT
#
# layout.sh - an image that was closed is as long as one that qemu-io wrote, also where that took
# new refcount blocks, and these can go again.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
# shellcheck source=tests/support/beside_qemu.sh
. "$SRC/tests/support/beside_qemu.sh"

# After each write, by a program of its own: where the image ends.
ends() { # OPTIONS WRITE...; IO does it
	qemu-img create -q -f qcow2 -o "$1" i.qcow2 8M
	shift
	for w; do
		$IO -f qcow2 -c "$w" i.qcow2 >/dev/null || echo "failed: $w"
		echo "$w: $(stat -c %s i.qcow2)"
	done
	qemu-img check -q i.qcow2 || echo "not clean"
}

same_ends() {
	IO=qemu-io ends "$@" >q.out
	IO="$SLUICE io" ends "$@" >s.out
	diff -u q.out s.out >why
}

# 256 counts in a block; the first write ends with it, the next needs another.
same_ends cluster_size=512 "write 0 124k" "write 124k 512" "write 1M 512"
verdict $? "a refcount block comes with the first cluster that it counts"
same_ends cluster_size=1k,refcount_bits=64 "write 0 124k" "write 2M 1k" "write 3M 1M"
verdict $? "the same with wide counts"
same_ends cluster_size=64k "write 0 1M" "write 3M 64k" "write 1M 1M"
verdict $? "large clusters: nothing stays that was counted ahead"

# Such a block counts itself, so a smaller disk loses it.
qemu-img create -q -f qcow2 -o cluster_size=512,refcount_bits=64 i.qcow2 3M
$SLUICE io -f qcow2 -c "write 0 3M" i.qcow2 >/dev/null
qemu-img resize -q --shrink i.qcow2 1M >why 2>&1 && qemu-img check -q i.qcow2 >why 2>&1 &&
	python3 - i.qcow2 >why 2>&1 <<'PY'
import struct, sys
f = open(sys.argv[1], "rb").read()
at, n = struct.unpack(">QI", f[48:60])
blocks = [b for b, in struct.iter_unpack(">Q", f[at:at + n * 512]) if b]
print([hex(b) for b in blocks if not any(f[b:b + 512])])
sys.exit(any(not any(f[b:b + 512]) for b in blocks))
PY
verdict $? "after qemu-img has shrunk an image no block is left that counts nothing"

# All that the first block counts is said to be in use, 2 GiB of it behind the end of the file.
qemu-img create -q -f qcow2 i.qcow2 8M
python3 - i.qcow2 <<'PY'
import sys
f = open(sys.argv[1], "r+b")
f.seek(2 * 65536)
f.write(b"\0\1" * 32768)
PY
$SLUICE io -f qcow2 -c "write -P 1 0 64k" i.qcow2 >why 2>&1 &&
	qemu-io -f qcow2 -c "read -P 1 0 64k" i.qcow2 >>why 2>&1 &&
	du -k i.qcow2 >>why && [ "$(du -k i.qcow2 | cut -f 1)" -lt 65536 ]
verdict $? "clusters that somebody counted behind the end of the file are given no space"

exit $status
