#!/bin/sh
# SPDX-License-Identifier: MIT
#
# snapshot.sh - sluice img snapshot, machine states and compressed images beside QEMU's tools: the
# same words and statuses, and each reads, checks and changes what the other has made.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

result() { # NAME; the verdict is the last command's
	if [ $? -eq 0 ]; then
		echo "ok $1"
	else
		echo "FAIL $1"
		sed 's/^/  | /' why 2>/dev/null | head -20
		status=1
	fi
}

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
	echo "skip snapshot: qemu-img and qemu-io are not installed (Debian: qemu-utils)"
	exit 0
fi
exec 2>&1

ours() { "$SLUICE" img "$@"; }
theirs() { qemu-img "$@"; }
dates='s/[0-9-]\{10\} [0-9:]\{8\}/DATE/'
calm() { sed "s/qemu-img/PROGRAM/g; s/sluice img/PROGRAM/g; $dates"; }

# --- the same words, on two images worked on in the same way ---------------------------------

steps() { # WHO IMAGE
	"$1" create -q -f qcow2 "$2" 16M
	cp "$2" image
	for step in "-l" "" "-c one" "-c one" "-c two" "-l" "-d nothing" "-a nothing" "-d 1" \
		"-a 2" "-d one" "-l" "-a two" "-d two" "-c" "-c a -d b" "-l -l" "-x" \
		"-U -c a" "-q -U -l"; do
		echo "== $step"
		# shellcheck disable=SC2086 # words
		"$1" snapshot $step image 2>&1
		echo "status $?"
		qemu-io -f qcow2 -c "write -P 5 0 100k" image >/dev/null
	done
	"$1" snapshot -c none 2>&1
	"$1" snapshot -c none no-such-file 2>&1
	"$1" check image 2>&1 | head -1
	"$1" info image 2>&1 | grep -A 9 'Snapshot list'
	mv image "$2"
}
steps theirs t.qcow2 | calm >q.out
steps ours o.qcow2 | calm >s.out
diff -u q.out s.out >why
result "snapshot: the same words and statuses as qemu-img"

# --- a table that nobody loads: info, snapshot and a write say the same of it ------------------

refused() { # COUNT EXTRA: of the header, of entry 1
	theirs create -q -f qcow2 r.qcow2 16M
	theirs snapshot -c one r.qcow2
	theirs snapshot -c two r.qcow2
	python3 - r.qcow2 "$1" "$2" <<'PY'
import struct, sys
f = open(sys.argv[1], "r+b")
f.seek(64)
at, = struct.unpack(">Q", f.read(8))
f.seek(60)
f.write(struct.pack(">I", int(sys.argv[2])))
f.seek(at + 36)
one = (40 + struct.unpack(">I", f.read(4))[0] + 4 + 7) // 8 * 8
f.seek(at + one + 36)
f.write(struct.pack(">I", int(sys.argv[3])))
PY
	for who in theirs ours; do
		{ $who info r.qcow2; $who snapshot -c three r.qcow2; } 2>&1 |
			sed '/disk size/d' | calm >$who.out
	done
	diff -u theirs.out ours.out >why
}
refused 2 65536 && grep -q "Too much extra metadata in snapshot table entry 1" ours.out
result "snapshot: an entry with too much extra data is refused in qemu-img's words"
refused 2 1025
result "snapshot: one byte too much"
refused 65536 16
result "snapshot: a table that goes on past the end of the file is read as zeros"

# --- the host fails while what only a snapshot had is freed ------------------------------------

printf '[inject-error]\nevent = "cluster_free"\nerrno = "5"\n' >rules
for who in theirs ours; do
	theirs create -q -f qcow2 f.qcow2 16M
	qemu-io -c 'write 0 64k' f.qcow2 >/dev/null
	theirs snapshot -c one f.qcow2
	{
		$who snapshot -d one blkdebug:rules:f.qcow2
		echo "status $?"
		theirs snapshot -l f.qcow2
		theirs check -r leaks f.qcow2
	} 2>&1 | calm >$who.out
done
diff -u theirs.out ours.out >why && grep -q 'leaked clusters' ours.out
result "snapshot: deleted while the host fails it leaks, in qemu-img's words"

# --- a table of version 2 whose entries lack what version 3 wants ------------------------------

theirs create -q -f qcow2 -o compat=0.10 v2.qcow2 16M
theirs snapshot -c one v2.qcow2
python3 - v2.qcow2 <<'PY'
import struct, sys
f = open(sys.argv[1], "r+b")
f.seek(64)
at, = struct.unpack(">Q", f.read(8))
f.seek(at)
entry = bytearray(f.read(40 + 24 + 4 + 4))
entry[36:40] = bytes(4)            # no extra data
f.seek(at)
f.write(entry[:40] + entry[64:68])
PY
ours amend -o compat=1.1 v2.qcow2 >why 2>&1 && theirs check v2.qcow2 >>why 2>&1 &&
	ours check v2.qcow2 >>why 2>&1 && [ "$(ours snapshot -l v2.qcow2 | grep -c one)" = 1 ]
result "amend to version 3 completes the snapshot table, and frees the old one"

# --- both ways -------------------------------------------------------------------------------

contents() { # IMAGE [-l NAME]; by the one, compared with the other
	f=$1
	shift
	ours convert -O raw "$@" "$f" ours.raw && theirs convert -O raw "$@" "$f" theirs.raw &&
		cmp ours.raw theirs.raw && cksum <ours.raw
}

clean() {
	theirs check -q "$1" && ours check -q "$1"
}

# Each operation by MAKER, each look by the other; OPTIONS of the image.
life() { # MAKER OTHER OPTIONS
	rm -f i.qcow2
	theirs create -q -f qcow2 -o "$3" i.qcow2 32M &&
		qemu-io -c 'write -P 1 0 3M' -c 'write -c -P 2 4M 2M' i.qcow2 >/dev/null &&
		qemu-io -c 'write -z 6M 2M' i.qcow2 >/dev/null &&
		"$1" snapshot -c a i.qcow2 && clean i.qcow2 && a=$(contents i.qcow2) &&
		"$2" snapshot -l i.qcow2 >list &&
		qemu-io -c 'write -P 3 1M 5M' -c 'write -P 4 20M 64k' i.qcow2 >/dev/null &&
		clean i.qcow2 && "$1" snapshot -c b i.qcow2 && clean i.qcow2 &&
		b=$(contents i.qcow2) &&
		[ "$a" != "$b" ] && [ "$(contents i.qcow2 -l a)" = "$a" ] &&
		[ "$(contents i.qcow2 -l snapshot.name=b)" = "$b" ] &&
		"$1" snapshot -a a i.qcow2 && clean i.qcow2 && [ "$(contents i.qcow2)" = "$a" ] &&
		qemu-io -c 'write -P 6 0 64k' i.qcow2 >/dev/null && clean i.qcow2 &&
		[ "$(contents i.qcow2 -l a)" = "$a" ] &&
		[ "$(contents i.qcow2 -l 2)" = "$b" ] &&
		"$2" snapshot -d a i.qcow2 && clean i.qcow2 &&
		[ "$(contents i.qcow2 -l b)" = "$b" ] &&
		"$1" snapshot -a b i.qcow2 && clean i.qcow2 && [ "$(contents i.qcow2)" = "$b" ] &&
		"$1" snapshot -d b i.qcow2 && clean i.qcow2 && [ "$(contents i.qcow2)" = "$b" ]
}
for o in compat=1.1 compat=0.10 lazy_refcounts=on cluster_size=512 cluster_size=2M \
	refcount_bits=64,cluster_size=4k compression_type=zstd; do
	life ours theirs $o >why 2>&1
	result "snapshots by us, looked at by qemu-img: $o"
	life theirs ours $o >why 2>&1
	result "snapshots by qemu-img, looked at by us: $o"
done

# --- a machine's state, behind the disk ------------------------------------------------------

ours_io() { "$SLUICE" io "$@" >io.out 2>&1 && ! grep -Eq 'failed|exceed' io.out; }
theirs_io() { qemu-io "$@" >io.out 2>&1 && ! grep -Eq 'failed|exceed' io.out; }

# What MAKER keeps there the OTHER finds, also in snapshots and when a part of it is overwritten;
# the disk itself is not touched.
state() { # MAKER OTHER OPTIONS
	rm -f base.qcow2 i.qcow2
	theirs create -q -f qcow2 base.qcow2 2G &&
		theirs create -q -f qcow2 -o "$3" -b base.qcow2 -F qcow2 i.qcow2 8M &&
		"$1_io" -c 'write -P 1 0 1M' -c 'write -b -P 2 0 300k' -c 'read -b -P 2 0 300k' \
			-c 'read -b -P 0 300k 100k' i.qcow2 && clean i.qcow2 &&
		"$2_io" -c 'read -b -P 2 0 300k' -c 'read -b -P 0 300k 1M' \
			-c 'read -P 1 0 1M' -c 'read -P 0 1M 7M' i.qcow2 &&
		ours snapshot -c a i.qcow2 && clean i.qcow2 &&
		"$1_io" -c 'write -b -P 3 1k 2k' -c 'write -b -P 4 5G 64k' i.qcow2 &&
		clean i.qcow2 &&
		"$2_io" -c 'read -b -P 2 0 1k' -c 'read -b -P 3 1k 2k' -c 'read -b -P 2 3k 297k' \
			-c 'read -b -P 4 5G 64k' i.qcow2 &&
		ours snapshot -a a i.qcow2 && clean i.qcow2 &&
		"$2_io" -c 'read -b -P 2 0 300k' -c 'read -P 1 0 1M' i.qcow2 &&
		theirs resize -q i.qcow2 1G && clean i.qcow2 &&
		"$1_io" -c 'write -b -P 5 1M 64k' i.qcow2 && clean i.qcow2 &&
		"$2_io" -c 'read -b -P 5 1M 64k' -c 'read -P 0 8M 504M' i.qcow2
}
for o in cluster_size=64k cluster_size=4k,refcount_bits=32 cluster_size=16k,extended_l2=on; do
	state ours theirs $o >why 2>&1
	result "a machine's state written by us, read by qemu-io: $o"
	state theirs ours $o >why 2>&1
	result "a machine's state written by qemu-io, read by us: $o"
done

# What a larger disk below holds at that place is not seen; what no table can have is refused.
state_edges() {
	rm -f i.qcow2
	qemu-io -c 'write -P 9 512M 1M' base.qcow2 >/dev/null &&
		theirs create -q -f qcow2 -b base.qcow2 -F qcow2 i.qcow2 8M &&
		ours_io -c 'write -b -P 2 1k 1k' -c 'read -b -P 0 0 1k' -c 'read -b -P 0 2k 1M' \
			i.qcow2 && clean i.qcow2 &&
		ours_io -c 'read -b -P 2 1k 1k' -c 'read -b -P 0 2k 1M' i.qcow2 || return 1
	for at in 2E 6E 7E; do
		"$SLUICE" io -c "write -b $at 4k" i.qcow2
	done | sort | uniq -c | grep -q '3 write failed: File too large' &&
		clean i.qcow2 || return 1
	truncate -s 1M r.raw
	for c in 'write -b 0 4k' 'read -b 0 4k'; do
		"$SLUICE" io -f raw -c "$c" r.raw >&3
		qemu-io -f raw -c "$c" r.raw
	done 3>s.out >q.out
	diff -u q.out s.out
}
state_edges >why 2>&1
result "a machine's state: nothing from below, nothing where no table reaches"

# --- compressed images -----------------------------------------------------------------------

rm -f src.raw
{
	head -c 3000000 "$(command -v qemu-img)"
	head -c 300000 /dev/urandom
	head -c 1234432 /dev/zero
} >src.raw
truncate -s 5M src.raw

# Small clusters: what is counted ahead and its counts leave holes, packed or not.
packed() { # OPTIONS [TENTHS of their size that ours may have]
	rm -f p.qcow2 q.qcow2
	ours convert -c -O qcow2 -o "$1" -f raw src.raw p.qcow2 && clean p.qcow2 &&
		theirs compare -f raw -F qcow2 src.raw p.qcow2 &&
		theirs convert -c -O qcow2 -o "$1" -f raw src.raw q.qcow2 && clean q.qcow2 &&
		ours compare -f raw -F qcow2 src.raw q.qcow2 &&
		ours check p.qcow2 | grep -q ' [1-9][0-9.]*% compressed' &&
		[ $(($(stat -c %s p.qcow2) * 10)) -le $(($(stat -c %s q.qcow2) * ${2-11})) ] &&
		qemu-io -c 'write -P 9 100k 1M' p.qcow2 >/dev/null && clean p.qcow2
}
packed cluster_size=512 30 >why 2>&1
result "convert -c both ways: cluster_size=512"
for o in cluster_size=64k cluster_size=2M compression_type=zstd \
	compression_type=zstd,cluster_size=4k,refcount_bits=1 lazy_refcounts=on compat=0.10; do
	packed $o >why 2>&1
	result "convert -c both ways: $o"
done

damaged() {
	rm -f d.qcow2
	theirs convert -c -O qcow2 -f raw src.raw d.qcow2 || return 1
	printf 'garbage all over the first packed cluster' |
		dd of=d.qcow2 bs=1 seek=$((0x50000)) conv=notrunc 2>/dev/null
	ours convert -O raw d.qcow2 out.raw >out 2>&1
	[ $? -eq 1 ] && grep -q "error while reading.*Input/output error" out
}
damaged >why 2>&1
result "a damaged packed cluster is an I/O error"

exit $status
