#!/bin/sh
# SPDX-License-Identifier: MIT
#
# img.sh - sluice img beside qemu-img, in turn; by hand, asserts nothing.
#
# usage: tests/bench/img.sh [NAME]...    names: the table at the end; without: all of it
#
# PAIRS (3) runs of each, the order alternating. A row is the median of their seconds, the median
# of the pairs' ratios, sluice's by qemu-img's, and the most memory that a run of each took.
# MIB (512) is the size of what is converted. Less than some 14 MiB of memory is not told apart.
# On a busy machine believe nothing here.

cd "$(dirname "$0")/../.." || exit 2
sluice=${SLUICE:-$PWD/build/sluice}
pairs=${PAIRS:-3} mib=${MIB:-512}
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/sluice-img.XXXXXX") || exit 1
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
cd "$dir" || exit 1

# Half of it can be compressed.
data() {
	[ -f data.raw ] && return
	for i in $(seq "$mib"); do
		head -c 524288 /dev/urandom
		head -c 524288 /dev/zero | tr '\0' "$(printf '\%03o' $((i % 200 + 1)))"
	done >data.raw
	qemu-img convert -O qcow2 data.raw data.qcow2
}

# An image all of whose clusters are allocated, and nothing in them: GIB.qcow2.
allocated() {
	[ -f "$1.qcow2" ] || qemu-img create -q -f qcow2 -o preallocation=metadata "$1.qcow2" "$1G"
}

median() { # COLUMN FILE
	sort -g -k "$1,$1" "$2" | awk -v c="$1" '{ v[NR] = $c } END { print v[int((NR + 1) / 2)] }'
}

# once WHO ARGUMENT...: seconds and KiB of memory to WHO.all, seconds also to WHO.last
once() {
	who=$1
	shift
	eval "$before"
	if [ "$who" = sluice ]; then set -- "$sluice" img "$@"; else set -- qemu-img "$@"; fi
	python3 - "$@" >"$who.last" <<'PY' || { echo "failed: $*" >&2; exit 1; }
import os, resource, subprocess, sys, time
start = time.monotonic()
status = subprocess.call(sys.argv[1:], stdout=subprocess.DEVNULL)
took = time.monotonic() - start
print("%.4f %d" % (took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
PY
	cat "$who.last" >>"$who.all"
}

row() { # NAME BEFORE ARGUMENT...
	name=$1 before=$2
	shift 2
	case " $wanted " in *" $name "* | "  ") ;; *) return ;; esac
	rm -f ./*.all
	for i in $(seq "$pairs"); do
		if [ $((i % 2)) -eq 0 ]; then once sluice "$@"; once qemu "$@"; else
			once qemu "$@"; once sluice "$@"; fi
		paste -d' ' sluice.last qemu.last | awk '{ print $1 / $3 }' >>ratio.all
	done
	printf '%-14s %9.3f %9.3f %6.2f %9d %9d\n' "$name" "$(median 1 sluice.all)" \
		"$(median 1 qemu.all)" "$(median 1 ratio.all)" \
		"$(sort -n -k2 sluice.all | awk 'END { print $2 }')" \
		"$(sort -n -k2 qemu.all | awk 'END { print $2 }')"
}

wanted=$*
printf '%-14s %9s %9s %6s %9s %9s\n' '' 'sluice s' 'qemu s' ratio 'sluice K' 'qemu K'
data
row to-qcow2 'rm -f out' convert -f raw -O qcow2 data.raw out
row to-raw 'rm -f out' convert -f qcow2 -O raw data.qcow2 out
row compress-m8 'rm -f out' convert -m 8 -c -f raw -O qcow2 data.raw out
row compress-m1 'rm -f out' convert -m 1 -c -f raw -O qcow2 data.raw out
row dd 'rm -f out' dd -f raw -O qcow2 bs=1M if=data.raw of=out
rm -f out
row compare : compare -f raw -F qcow2 data.raw data.qcow2
row check-256G 'allocated 256' check -f qcow2 256.qcow2
row snapshot-320G 'allocated 320; cp --sparse=always 320.qcow2 snap; sync -f snap' \
	snapshot -c a snap
