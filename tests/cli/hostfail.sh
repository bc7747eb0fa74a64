#!/bin/sh
# SPDX-License-Identifier: MIT
#
# hostfail.sh - the host fails, call by call, while images are made, copied and changed.
#
# Every open, read, write, fdatasync, fallocate and ftruncate of a command fails in turn, once or
# with all that come after it.  Allowed then: the usual output and status (the call was not
# needed), or words on stderr and status 1.  Never a signal or a hang.  An image is left that reads
# as before or, if the command changes what it reads, as after, and that check finds at worst
# leaking; one that is marked dirty may need to be opened for that.
# Taken is every STRIDE-th call (15).  HOSTFAIL=all: every one, with two errors, and with qemu-img's
# opinion.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
status=0 stride=${STRIDE:-15} errors=5 n_tables=0
[ "$HOSTFAIL" != all ] || stride=1 errors='5 28'

# --- the images ---

io() { "$SLUICE" io -f qcow2 "$@" >/dev/null; }
new() { "$SLUICE" img create -q -f qcow2 "$@"; }
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }

make_images() {
	new plain 16M && io -c 'write -P 1 0 1M' -c 'write -P 2 1500k 70k' plain &&
		new -o cluster_size=512 snap 3M && io -c 'write -P 1 0 200k' snap &&
		"$SLUICE" img snapshot -c a snap && io -c 'write -P 2 100k 200k' snap &&
		new base 4M && io -c 'write -P 3 0 300k' base &&
		new base2 4M && io -c 'write -P 4 100k 300k' base2 &&
		new -b base -F qcow2 over && io -c 'write -P 5 200k 300k' over &&
		new -o cluster_size=512,lazy_refcounts=on broken 3M &&
		io -c 'write -P 1 0 200k' broken &&
		for i in plain snap over broken; do
			"$SLUICE" img convert -f qcow2 -O raw $i $i.raw || return 1
		done &&
		"$SLUICE" img convert -l a -f qcow2 -O raw snap snap.a.raw &&
		poke broken 79 '\001' && poke broken $((512 + 7)) '\001'
}

# --- one command ---

run() { # N ALL ERRNO ARGUMENT...
	n=$1 all=$2 errno=$3
	shift 3
	timeout 60 env FAIL_AT="$n" FAIL_ALL="$all" FAIL_ERRNO="$errno" FAIL_SAY=count \
		LD_PRELOAD="$SRC/build/hostfail.so" "$SLUICE" img "$@" >out 2>err
}

says() { echo "  call $n, all after it: $all, errno $errno: $*" >>why; }

judge() { # GOT-STATUS
	if [ "$1" -eq "$usual" ] && cmp -s out usual.out; then
		left 0
	elif [ "$1" -ne 1 ]; then
		says "status $1, usual $usual: $(head -c 300 err out)"
	elif [ ! -s err ]; then
		says "status 1 without a word"
	else
		failures=$((failures + 1))
		left 1
	fi
}

checked() { # IMAGE
	"$SLUICE" img check -q -f qcow2 "$1" >check 2>&1
	case $? in 0 | 3) return 0 ;; esac
	# Marked dirty, or there is nothing to hope for.
	io -c 'read 0 512' "$1" 2>/dev/null
	"$SLUICE" img check -q -f qcow2 "$1" >check 2>&1
	case $? in 0 | 3) return 0 ;; esac
	says "$1 is damaged: $(head -c 300 check)"
	return 1
}

seen_by_qemu() {
	[ "$HOSTFAIL" = all ] && command -v qemu-img >/dev/null || return 0
	qemu-img check -q -f qcow2 "$1" >check 2>&1
	case $? in 0 | 3) return 0 ;; esac
	says "qemu-img: $1 is damaged: $(head -c 300 check)"
}

reads_as() { # IMAGE RAW...
	i=$1
	shift
	for r; do
		"$SLUICE" img compare -q -f qcow2 -F raw "$i" "$r" >cmp 2>&1 && return
	done
	says "$i reads as something else: $(head -c 300 cmp)"
}

left() { # STATUS: the image after the run
	case $kind in
	new) # whole or not there
		if [ "$1" -eq 1 ]; then
			[ ! -e image ] || says "a half-made image was left"
		else
			cmp -s image good || says "the image is another one"
		fi
		;;
	copy)
		if [ "$1" -eq 0 ]; then
			"$SLUICE" img compare -q image good || says "the copy is not one"
		elif [ -s image ] && [ "$(head -c 3 image)" = QFI ]; then
			checked image
		fi
		;;
	*)
		checked image || return
		seen_by_qemu image
		reads_as image $kind
		;;
	esac
}

# every KIND IMAGES ARGUMENT...: the first of the images becomes "image", the others what they are.
# KIND: new, copy, or what the image may read as afterwards.
every() {
	kind=$1 from=$2 total=0 failures=0
	shift 2
	: >why
	prepare
	run 0 0 5 "$@"
	usual=$?
	cp out usual.out
	total=$(cat count)
	case $kind in new | copy) cp image good ;; esac
	n_tables=$((n_tables + 1))
	for e in $errors; do
		for a in 0 1; do
			c=$((1 + (n_tables + a * 4) % stride))
			while [ "$c" -le "$total" ]; do
				prepare
				run "$c" $a "$e" "$@"
				judge $?
				c=$((c + stride))
			done
		done
	done
	if [ ! -s why ] && [ "$usual" -eq 0 ] && [ "$failures" -gt 0 ]; then
		echo "ok $*: $total calls, $failures failures told"
	else
		echo "FAIL $* ($total calls, usual status $usual, $failures told)"
		head -n 20 why
		status=1
	fi
}

prepare() {
	rm -rf image count
	set -- $from
	[ "$1" = - ] || cp "pristine/$1" image
	shift
	for i; do cp "pristine/$i" "$i"; done
}

make_images || { echo "FAIL the images cannot be made"; exit 1; }
mkdir pristine && cp plain snap base base2 over broken pristine

every new - create -f raw -o preallocation=full image 1M
every new - create -f qcow2 image 1G
every new - create -f qcow2 -o cluster_size=512,preallocation=metadata image 1M
every new - create -f qcow2 -o preallocation=falloc,lazy_refcounts=on image 1M
every new - create -f qcow2 -b base -F qcow2 image
every copy - convert -f qcow2 -O raw plain image
every copy - convert -f qcow2 -O qcow2 plain image
every copy - convert -f raw -O qcow2 -c plain.raw image
every copy - convert -t writeback -f qcow2 -O qcow2 -o cluster_size=512,lazy_refcounts=on snap image
every copy - dd -f qcow2 -O qcow2 bs=64k if=plain of=image
every snap.raw snap snapshot -c b image
every 'snap.raw snap.a.raw' snap snapshot -a a image
every snap.raw snap snapshot -d a image
every plain.raw plain resize -f qcow2 image 40G
every plain.raw plain resize -f qcow2 --preallocation=full image 18M
every plain.raw plain resize -f qcow2 --shrink image 2M
every over.raw 'over base' commit -f qcow2 image
every over.raw 'over base' commit -f qcow2 -d image
every over.raw over rebase -f qcow2 -F qcow2 -b base2 image
every over.raw over rebase -f qcow2 -b '' image
every plain.raw plain amend -f qcow2 -o compat=0.10 image
every plain.raw plain amend -f qcow2 -o lazy_refcounts=on,size=20M image
every broken.raw broken check -f qcow2 -r all image
exit $status
