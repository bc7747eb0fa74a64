#!/bin/sh
# SPDX-License-Identifier: MIT
#
# img.sh - sluice img create and info beside qemu-img: same output, same exit status, same bytes.

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

if ! command -v qemu-img >/dev/null; then
	echo "skip img: qemu-img is not installed (Debian: qemu-utils)"
	exit 0
fi

# both ARGUMENT...: runs both, results in q.* and s.*, program names made equal.
both() {
	qemu-img "$@" >q.out 2>q.err
	echo $? >q.rc
	for made in keep.*; do [ -e "$made" ] && mv "$made" "q.$made"; done
	"$SLUICE" img "$@" >s.out 2>s.err
	echo $? >s.rc
	sed -i 's/qemu-img/PROGRAM/g' q.out q.err
	sed -i "s/sluice img/PROGRAM/g" s.out s.err
}

# All of output, or with an argument that much only: status, out, err.
same() {
	: >why
	for what in ${1:-rc out err}; do
		diff -u "q.$what" "s.$what" >>why || return 1
	done
}

# --- create: layout to the byte ---------------------------------------------------------------

one_image() { # OPTIONS SIZE
	rm -f a.qcow2 q.qcow2
	qemu-img create -f qcow2 -o "$1" a.qcow2 "$2" >q.out 2>/dev/null
	q=$?
	[ $q -eq 0 ] && mv a.qcow2 q.qcow2
	"$SLUICE" img create -f qcow2 -o "$1" a.qcow2 "$2" >s.out 2>s.err
	s=$?
	n=$((n + 1))
	if [ $q -ne $s ]; then
		echo "$1 $2: status $q, ours $s" >>why
	elif [ $q -eq 0 ]; then
		cmp q.qcow2 a.qcow2 >>why 2>&1 || echo "$1 $2" >>why
		cmp q.out s.out >>why 2>&1 || echo "$1 $2: output" >>why
	elif [ -e a.qcow2 ]; then
		echo "$1 $2: a file was left behind" >>why
	fi
}

matrix() {
	: >why
	n=0
	for cluster in 512 1k 4k 8k 64k 2M; do
		for bits in 1 16 64; do
			for lazy in on off; do
				o=cluster_size=$cluster,refcount_bits=$bits,lazy_refcounts=$lazy
				for size in 0 1 1000 64M 3G 1T; do
					one_image $o $size
				done
			done
		done
	done
	[ ! -s why ] && [ $n -eq 216 ]
}
matrix
result "216 new images are those of qemu-img, byte by byte"

version2() {
	for size in 0 5000 1G; do
		qemu-img create -q -f qcow2 -o compat=0.10 q.qcow2 $size &&
			"$SLUICE" img create -q -f qcow2 -o compat=0.10 a.qcow2 $size &&
			cmp q.qcow2 a.qcow2 >why || return 1
	done
}
version2
result "version 2 images are those of qemu-img"

# --- what create says ---------------------------------------------------------------------------

for args in "-f qcow2 keep.q 1.5G" "-f qcow2 keep.q 0x1000" "-f qcow2 keep.q 5b" "keep.q 1000" \
	"-f raw -o preallocation=off keep.q 5k" "-q -f qcow2 keep.q 5k" \
	"-f qcow2 -o size=7k keep.q" \
	"-f qcow2 -o compat=v2 keep.q 4k" "-f qcow2 -o compat=1.1,lazy_refcounts=on keep.q 4k" \
	"-f qcow2 -o preallocation=off keep.q 5k" \
	"-f qcow2 -o cluster_size=4k -o refcount_bits=8 keep.q 5k" \
	"-f qcow2 -o compression_type=zlib,extended_l2=off keep.q 5k" \
	"-f qcow2 -o lazy_refcounts keep.q 5k" \
	"-f qcow2 keep.q 12x" "-f qcow2 keep.q 5kk" "-f qcow2 keep.q 5KiB" "-f qcow2 keep.q 1.3" \
	"-f qcow2 keep.q" "-f qcow2 keep.q 16E" "-f qcow2 keep.q 8E" "-f qcow2 -o , keep.q 5k" \
	"-f qcow2 -o size=7k keep.q 5k" "-f qcow2 -o cluster_size=abc keep.q 5k" \
	"-f qcow2 -o lazy_refcounts=maybe keep.q 5k"; do
	rm -f keep.q q.keep.q
	# shellcheck disable=SC2086
	both create $args
	same && { [ ! -e q.keep.q ] || cmp q.keep.q keep.q >>why; }
	result "create $args"
done

# Mistakes that qemu-img announces before it fails: same last words and status, and no file.
for args in "-f qcow2 -o cluster_size=1000 keep.q 5k" "-f qcow2 -o cluster_size=4M keep.q 5k" \
	"-f qcow2 -o compat=0.10,lazy_refcounts=on keep.q 5k" \
	"-f qcow2 -o refcount_bits=3 keep.q 5k" \
	"-f qcow2 -o compat=v2,refcount_bits=8 keep.q 5k" "-f qcow2 keep.q 1E"; do
	rm -f keep.q q.keep.q
	echo precious >old
	cp old keep.q
	# shellcheck disable=SC2086
	both create $args
	cp old keep.q
	# shellcheck disable=SC2086
	"$SLUICE" img create $args >/dev/null 2>&1
	same "rc err" && cmp old keep.q >>why
	result "create $args, and the old file stays"
done

# Mistakes in other words, with the good ones.
while IFS='|' read -r args words; do
	rm -f keep.q
	# shellcheck disable=SC2086
	"$SLUICE" img $args >s.out 2>s.err
	rc=$?
	cp s.err why
	[ $rc -eq 1 ] && grep -qF -- "$words" s.err && [ ! -e keep.q ]
	result "img $args: $words"
done <<'END'
|Not enough arguments
frobnicate|Command not found: frobnicate
create|Expecting image file name
create -f vhd keep.q 5k|Unknown file format 'vhd'
create -f qcow2 -o foo=bar keep.q 5k|Invalid parameter 'foo'
create -f raw -o cluster_size=4k keep.q 5k|Invalid parameter 'cluster_size'
create -f qcow2 -o encrypt.format=luks,encrypt.key-secret=s keep.q 5k|Encryption is not supported
create -f qcow2 keep.q 5k extra|Unexpected argument: extra
create --foo keep.q 5k|unrecognized option '--foo'
create -f|missing argument for option '-f'
create -f qcow2 -x keep.q 5k|unrecognized option '-x'
create -f qcow2 /nonexistent/x 5k|No such file or directory
info|Expecting one image file name
info a b|Expecting one image file name
info --output=xml a|--output must be used with human or json as argument.
info -f foo a.qcow2|Unknown driver 'foo'
info /nonexistent|Could not open '/nonexistent': No such file or directory
info .|'file' driver requires '.' to be a regular file
check|Expecting one image file name
check -r some a.qcow2|expecting 'leaks' or 'all'): some
check --repair|option
END

for c in "" create info check; do
	# shellcheck disable=SC2086
	"$SLUICE" img $c --help >why 2>&1 && grep -q '^usage: sluice img' why &&
		{ [ -z "$c" ] || grep -q "^  sluice img $c .*disk" why; }
	result "img $c --help"
done
"$SLUICE" img create -f qcow2 -o help >why && grep -q '^  refcount_bits=<num>' why
result "create -o help"

# --- info ---------------------------------------------------------------------------------------

# Canonical JSON, if there is a python3; two programs may order keys as they like.
canon() {
	python3 -c 'import json, sys
print(json.dumps(json.load(sys.stdin), sort_keys=True, indent=1))'
}

make_images() {
	mkdir -p sub
	qemu-img create -q -f qcow2 plain.qcow2 64M
	qemu-img create -q -f qcow2 -o compat=0.10,cluster_size=4k v2.qcow2 1000
	qemu-img create -q -f qcow2 -o lazy_refcounts=on,refcount_bits=64 lazy.qcow2 1T
	qemu-img create -q -f qcow2 -b ../plain.qcow2 -F qcow2 sub/over.qcow2
	qemu-img create -q -f qcow2 -b plain.qcow2 -F qcow2 over.qcow2
	qemu-img create -q -f qcow2 -o compression_type=zstd,extended_l2=on new.qcow2 1M
	qemu-img create -q -f qcow2 -o data_file=data.raw,data_file_raw=on outside.qcow2 1M
	qemu-img create -q -f qcow2 snaps.qcow2 1M
	qemu-img snapshot -c one snaps.qcow2
	qemu-img snapshot -c 'a name with more than sixteen letters' snaps.qcow2
	qemu-img bitmap --add snaps.qcow2 b0
	qemu-img bitmap --add --disable -g 4096 snaps.qcow2 b1
	qemu-img create -q -f raw raw.img 1000
	cp plain.qcow2 marked.qcow2
	printf '\0\0\0\0\0\0\0\003' | dd of=marked.qcow2 bs=1 seek=72 conv=notrunc 2>/dev/null
	: >empty
}
make_images
for f in plain.qcow2 v2.qcow2 lazy.qcow2 sub/over.qcow2 over.qcow2 new.qcow2 outside.qcow2 \
	snaps.qcow2 raw.img marked.qcow2 empty; do
	both info $f
	same
	result "info $f"
	if command -v python3 >/dev/null; then
		both info --output=json $f
		canon <q.out >q.json && canon <s.out >s.json && same "rc err json"
		result "info --output=json $f"
	else
		echo "skip info --output=json $f: python3 is not installed"
	fi
done
both info -f raw plain.qcow2
same
result "info -f raw of a qcow2 image"
exit $status
