#!/bin/sh
# SPDX-License-Identifier: MIT
#
# create.sh - sluice img create with every option, beside qemu-img: words, status and bytes.
#
# Each command runs twice, once with each program, in a folder of its own.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

if ! command -v qemu-img >/dev/null; then
	echo "skip create: qemu-img is not installed (Debian: qemu-utils)"
	exit 0
fi

rm -rf cq cs
mkdir cq cs

# here FOLDER PROGRAM... : output and status, the program's name made equal
here() {
	dir=$1
	prog=$2
	shift 2
	(
		cd "$dir" || exit 1
		$prog "$@" 2>&1
		echo "status $?"
	) | sed 's/qemu-img/PROGRAM/g; s/sluice img/PROGRAM/g' >"$dir.out"
}

verdict() { # NAME
	if [ $? -eq 0 ]; then
		echo "ok $1"
	else
		echo "FAIL $1"
		sed 's/^/  | /' why | head -20
		status=1
	fi
}

# The same words, and the same bytes in the files named in $files.
pair() {
	here cq qemu-img "$@"
	here cs "$SLUICE img" "$@"
	diff -u cq.out cs.out >why || return 1
	for f in $files; do
		if [ -e "cq/$f" ] || [ -e "cs/$f" ]; then
			cmp "cq/$f" "cs/$f" >>why 2>&1 || return 1
		fi
	done
}

for d in cq cs; do
	truncate -s 3M $d/base.raw
	qemu-img create -q -f qcow2 $d/base.qcow2 5M
done

while read -r args; do
	rm -f cq/[a-d] cs/[a-d]
	files="a b"
	eval "pair create $args"
	verdict "create $args"
done <<'END'
-f raw -o help
-f qcow2 -o help
-f qcow2 -o help a 1M
-f qcow2 -o 'backing_file=b,?' a 1M
-o help a
-f qcow2 -b base.qcow2 -F qcow2 a
-f qcow2 -b base.raw -F raw a
-f qcow2 -b base.raw -F raw a 7M
-f qcow2 -o compat=v2 -b base.raw -F raw a 7M
-f qcow2 -o cluster_size=512 -b base.raw -F raw a
-f qcow2 -b base.qcow2 a
-f qcow2 -b base.raw a
-f qcow2 -b base.raw -F qcow2 a
-f qcow2 -b nope -F raw a 5M
-f qcow2 -u -b nope -F raw a 5M
-f qcow2 -u -b nope a 5M
-f qcow2 -u -b nope -F raw a
-f qcow2 -u -b 'x,y' -F raw a 1M
-f qcow2 -u -o backing_file=x,,y,backing_fmt=raw a 1M
-f qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 a
-f qcow2 -b base.qcow2 -F foo a 1M
-f qcow2 -F qcow2 a 1M
-f qcow2 -b a -F qcow2 a 1M
-f qcow2 -b '' a 1M
-f raw -b base.qcow2 a 1M
-f raw -F raw a 1M
-f raw -o preallocation=falloc a 1M
-f raw -o preallocation=full a 1M
-f raw -o preallocation=foo a 1M
-f raw -o size=1M,nocow=on a
-f qcow2 -o preallocation=metadata a 1M
-f qcow2 -o preallocation=metadata,cluster_size=4k a 5000k
-f qcow2 -o preallocation=metadata,extended_l2=on a 1M
-f qcow2 -o preallocation=foo a 1M
-f qcow2 -o preallocation a 1M
-f qcow2 -o extended_l2=on a 1M
-f qcow2 -o extended_l2=on,cluster_size=16k a 3G
-f qcow2 -o extended_l2=on,cluster_size=8k a 1M
-f qcow2 -o extended_l2=on,compat=0.10 a 1M
-f qcow2 -o compression_type=zstd a 1M
-f qcow2 -o compression_type=zstd,compat=0.10 a 1M
-f qcow2 -o compression_type=foo a 1M
-f qcow2 -o data_file=b a 1M
-f qcow2 -o data_file=b,data_file_raw=on a 1M
-f qcow2 -o data_file_raw=on a 1M
-f qcow2 -o data_file=b,compat=0.10 a 1M
-f qcow2 -o data_file=b,data_file_raw=on -b base.qcow2 -F qcow2 a 1M
-f qcow2 -o data_file=b,preallocation=metadata a 1M
-f qcow2 -o encryption=on a 1M
-f qcow2 -o encrypt.format=luks a 1M
-f qcow2 -o encrypt.format=foo a 1M
-f qcow2 -o encrypt.format=aes,encryption=on a 1M
-f qcow2 -o preallocation=full -b base.qcow2 -F qcow2 a 1M
-f qcow2 -o nocow=on,foo=bar a 1M
-f qcow2 -o cluster_size=1M, a 1M
-f qcow2 -o =b a 1M
-f qcow2 -o cluster_size=64k,,,lazy_refcounts=on a 1M
-f qcow2 -o cluster_size a 1M
-f qcow2 -o lazy_refcounts=foo a 1M
-f qcow2 -o lazy_refcounts=yes a 1M
-f qcow2 -o refcount_bits=0 a 1M
-f qcow2 -o refcount_bits=foo a 1M
-f qcow2 -o size=1M -o size=2M a
-f qcow2 -o compat=v3,compat=v2 a 1M
-f qcow2 -o compat=0.42 a 1M
-f qcow2 a 1E
-f qcow2 a 8E
-f qcow2 a 65T
-f foo a 1M
END

# Preallocated images: sound, of the peer's size on the host, and nothing but zeros.
while read -r o size; do
	rm -f cq/a cs/a cq/b cs/b
	qemu-img create -q -f qcow2 -o "$o" cq/a "$size" &&
		"$SLUICE" img create -q -f qcow2 -o "$o" cs/a "$size" 2>why &&
		qemu-img check -q cs/a >why 2>&1 && qemu-img compare cq/a cs/a >>why
	verdict "preallocated: $o $size"
	qemu-img check --output=json cq/a | grep allocated-clusters >cq.out
	qemu-img check --output=json cs/a | grep allocated-clusters >cs.out
	diff cq.out cs.out >why
	verdict "preallocated: $o $size is mapped"
	q=$(du -k cq/a | cut -f 1)
	s=$(du -k cs/a | cut -f 1)
	echo "KiB on the host: $q, ours $s" >why
	[ "$s" -le $((q + 80)) ] && [ "$s" -ge $((q - 200)) ]
	verdict "preallocated: $o $size takes the room that qemu-img gives it"
done <<'END'
preallocation=metadata 600M
preallocation=falloc 1M
preallocation=full 1M
preallocation=falloc,cluster_size=4k 5M
preallocation=full,cluster_size=512,refcount_bits=64 5M
preallocation=metadata,cluster_size=512,refcount_bits=1 30M
preallocation=metadata,cluster_size=2M 100G
preallocation=full,extended_l2=on,cluster_size=16k 5M
preallocation=falloc,compat=0.10 1M
END

exit $status
