#!/bin/sh
# SPDX-License-Identifier: MIT
#
# overlap.sh - damaged images, written to: refused in qemu-io's words, marked, mended by check.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

if ! command -v qemu-io >/dev/null; then
	echo "skip overlap: qemu-io is not installed (Debian: qemu-utils)"
	exit 0
fi

filter() {
	sed -E -e 's/^(qemu-io|sluice io): /P: /' -e 's/^qemu-img: /sluice img: /' \
		-e 's/ops; .*/ops; T/'
}

poke() { # FILE OFFSET BYTES
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}

verdict() {
	if [ "$1" -eq 0 ]; then
		echo "ok $2"
	else
		echo "FAIL $2 ($1)"
		status=1
	fi
}

programs() { # q: the peer's
	io=qemu-io img=qemu-img
	[ "$1" = q ] || io="$SLUICE io" img="$SLUICE img"
}

# NAME OPTIONS COMMANDS...: what both programs make of copies of damaged.qcow2, marks included.
both() {
	name=$1
	options=$2
	shift 2
	for p in q s; do
		cp damaged.qcow2 img.qcow2
		programs $p
		{
			timeout 20 $io -c "open -o driver=qcow2,$options img.qcow2" "$@"
			$img info img.qcow2 | grep corrupt
			timeout 20 $io -c 'read 0 512' img.qcow2
			# How it is repaired differs, for the better.
			$img check -q -r all img.qcow2 >/dev/null 2>&1 && [ $p = s ] &&
				$img info img.qcow2 | grep 'corrupt: true'
		} 2>&1 | filter >$p.out
	done
	if diff q.out s.out >why; then
		verdict 0 "$name"
	else
		sed 's/^/  | /' why | head -20
		verdict 1 "$name"
	fi
}

l1=$((0x30000)) l2=$((0x40000))
fresh() { # OPTION...
	qemu-img create -q -f qcow2 "$@" damaged.qcow2 64M
	qemu-io -c 'write 0 64k' damaged.qcow2 >/dev/null
}

fresh
poke damaged.qcow2 $l1 '\200\0\0\0\0\3\0\0'
both "L2 table that is the L1 table" overlap-check=all -c 'write 0 512' -c 'write 64k 512'
fresh
poke damaged.qcow2 $l2 '\200\0\0\0\0\2\0\0'
both "data in a refcount block" overlap-check=cached -c 'write 0 512'
both "data in a refcount block, that check off" overlap-check=none,overlap-check.refcount-block=on \
	-c 'write 0 512' -c 'write 64k 512'
poke damaged.qcow2 $l2 '\200\0\0\0\0\1\0\0'
both "data in the refcount table" overlap-check=constant -c 'write 0 512' -c 'read 0 512'
fresh
poke damaged.qcow2 $l2 '\200\0\0\0\0\5\52\0'
both "data at an unaligned place" overlap-check=cached -c 'read 0 512' -c 'read 0 512'
poke damaged.qcow2 $l1 '\200\0\0\0\0\4\52\0'
both "a table at an unaligned place" overlap-check=cached -c 'read 0 512' -c 'write 0 512'
fresh -o extended_l2=on
poke damaged.qcow2 $((l2 + 8)) '\377\377\377\377\377\377\377\377'
both "subclusters that are data and zeros" overlap-check=cached -c 'write 0 512' -c 'read 0 512'

# Opening for writing is refused until it was repaired.
fresh
poke damaged.qcow2 79 '\2'
for p in q s; do
	cp damaged.qcow2 img.qcow2
	programs $p
	{
		$io -c 'write 0 512' img.qcow2
		$io -r -c 'read 0 512' img.qcow2
		$img check -r all img.qcow2
		$io -c 'write 0 512' img.qcow2
	} 2>&1 | filter >$p.out
done
diff q.out s.out
verdict $? "a corrupt image"
exit $status
