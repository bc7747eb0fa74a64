#!/bin/sh
# SPDX-License-Identifier: MIT
#
# nomem.sh - memory runs out at every single allocation of opening, creating, checking, repairing
# and describing an image: once, and for good.
#
# Allowed then: the usual output and status (the allocation was not needed), or words on stderr and
# status 1.  Never a signal, a half-made image, or damage: what failed to be repaired is repaired
# by the next try, with the usual result.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
status=0

if ! command -v qemu-io >/dev/null; then
	echo "qemu-io is not installed (Debian: qemu-utils), which makes the images"
	exit 77
fi

# --- the images ---

fill() { qemu-io -f "$1" -c "write -P 0 0 1M" -c "write -P 0 40M 200k" "$2" >/dev/null; }
poke() { printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null; }

make_images() {
	"$SLUICE" img create -q -f raw raw 64M && fill raw raw &&
		"$SLUICE" img create -q -f qcow2 clean 64M && fill qcow2 clean &&
		"$SLUICE" img create -q -f qcow2 -o cluster_size=512 small 8M &&
		qemu-io -f qcow2 -c "write -P 0 0 1M" small >/dev/null &&
		"$SLUICE" img create -q -f qcow2 -o lazy_refcounts=on dirty 64M &&
		fill qcow2 dirty || return 1
	# Marked dirty, one count too low, one cluster counted and not used.
	poke dirty 79 '\001' && poke dirty $((0x20000 + 2 * 5)) '\000\000' &&
		poke dirty $((0x20000 + 2 * 100)) '\000\001' && truncate -s 8M dirty || return 1
	# The same, so that blocks must be made anew and the table moves.
	cp small broken && poke broken $((512 + 7)) '\001' &&
		poke broken $((512 + 8 * 3 + 1)) '\377'
}

# --- one command ---

run() { # N ALL COMMAND...
	at=$1 all=$2
	shift 2
	timeout 20 env FAIL_AT="$at" FAIL_ALL="$all" FAIL_SAY=count \
		LD_PRELOAD="$SRC/build/nomem.so" "$@" >out 2>err
}

says() { echo "  allocation $n, all after it: $all: $*" >>why; }

# What a failing run may leave; sets wrong words in why.
judge() { # GOT-STATUS
	if [ "$1" -eq "$usual" ] && cmp -s out usual.out; then
		settle "$1"
	elif [ "$1" -ne 1 ]; then
		says "status $1, usual $usual: $(head -c 200 err)"
	elif [ ! -s err ]; then
		says "status 1 without a word"
	else
		failures=$((failures + 1))
		settle 1
	fi
}

settle() { # STATUS: the image after the run
	case $kind in
	create)
		if [ "$1" -eq 1 ]; then
			[ ! -e image ] || says "a half-made image was left"
		else
			cmp -s image good || says "the image is another one"
		fi
		;;
	read) cmp -s image "$from" || says "the image has changed" ;;
	repair)
		"$SLUICE" img check -q -r all image >out 2>&1 || says "then: $(tail -n 1 out)"
		"$SLUICE" img check -q image >out 2>&1 || says "not repaired: $(tail -n 1 out)"
		qemu-img check -q image >out 2>&1 || says "qemu-img: $(tail -n 1 out)"
		;;
	esac
}

# every KIND IMAGE COMMAND...: the command works on "image".
every() {
	kind=$1 from=$2
	shift 2
	: >why
	failures=0
	prepare
	run 0 0 "$@"
	usual=$?
	cp out usual.out
	total=$(cat count)
	[ "$kind" = create ] && cp image good
	for all in 0 1; do
		n=1
		while [ "$n" -le "$total" ]; do
			prepare
			run "$n" $all "$@"
			judge $?
			n=$((n + 1))
		done
	done
	if [ ! -s why ] && [ "$usual" -ne 1 ] && [ "$failures" -gt 0 ]; then
		echo "ok $(basename "$1") $2 $3 $from: $total allocations, $failures failures told"
	else
		echo "FAIL $* $from ($total allocations, usual status $usual, $failures told)"
		head -n 20 why
		status=1
	fi
}

prepare() {
	rm -f image count
	[ "$from" = - ] || cp "$from" image
}

if ! make_images; then
	echo "FAIL the images cannot be made"
	exit 1
fi
every create - "$SLUICE" img create -f raw image 64M
every create - "$SLUICE" img create -f qcow2 image 1G
every create - "$SLUICE" img create -f qcow2 -o cluster_size=512,lazy_refcounts=on image 64M
for i in raw clean dirty; do
	every read $i "$SLUICE" img info image
	every read $i "$SLUICE" img info --output json image
done
for i in clean small dirty broken; do
	every read $i "$SLUICE" img check image
done
every read dirty "$SLUICE" img check --output json image
every repair dirty "$SLUICE" img check -r all image
every repair broken "$SLUICE" img check -r all image
every read raw "$SRC/build/kill" --decode --format raw image
every read clean "$SRC/build/kill" --decode image
every repair dirty "$SRC/build/kill" --decode --rw --format qcow2 image
every repair small "$SRC/build/kill" --decode --rw --format qcow2 image
exit $status
