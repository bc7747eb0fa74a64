#!/bin/sh
# SPDX-License-Identifier: MIT
#
# nbd.sh - sluice nbd beside qemu-nbd under fio, in turn; by hand, asserts nothing.
#
# usage: tests/bench/nbd.sh [FORMAT CACHE RW DEPTH]...    without arguments: the table below
#
# PAIRS (5) pairs of SECONDS_EACH (2) seconds, the order alternating, BS (4k) requests in a 256 MiB
# image that was written before: without O_DIRECT the page cache answers. A row is the median
# of what each did in a second and of the server's CPU time per request, each with the median of
# the pairs' ratios, sluice's by qemu-nbd's. QEMU_AIO=--aio=io_uring and the like go to qemu-nbd.
# On a busy machine believe the CPU times.

cd "$(dirname "$0")/../.." || exit 2
sluice=${SLUICE:-$PWD/build/sluice}
pairs=${PAIRS:-5} seconds=${SECONDS_EACH:-2} bs=${BS:-4k}
dir=$(mktemp -d "${TMPDIR:-/var/tmp}/sluice-nbd.XXXXXX") || exit 1
pid=
trap '[ -z "$pid" ] || kill "$pid"; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM
uri="nbd+unix:///?socket=$dir/sock"

[ $# -gt 0 ] || set -- qcow2 writeback randread 1 qcow2 writeback randread 32 \
	qcow2 writeback randwrite 1 qcow2 writeback randwrite 32 \
	qcow2 none randread 1 qcow2 none randread 32 \
	qcow2 none randwrite 1 qcow2 none randwrite 32 \
	raw writeback randread 1 raw writeback randread 32 \
	qcow2 writethrough randwrite 1 qcow2 writethrough randwrite 32

serve() { # WHO FORMAT CACHE
	rm -f "$dir/pid"
	if [ "$1" = sluice ]; then
		"$sluice" nbd -t -e 0 -k "$dir/sock" --fork --pid-file="$dir/pid" -f "$2" \
			--cache="$3" "$dir/$2"
	else
		# shellcheck disable=SC2086 # options
		qemu-nbd $QEMU_AIO -t -e 0 -k "$dir/sock" --fork --pid-file="$dir/pid" -f "$2" \
			--cache="$3" "$dir/$2"
	fi || exit 1
	pid=$(cat "$dir/pid")
}

stop() {
	kill "$pid"
	while grep -q '^State:.[^ZX]' "/proc/$pid/status" 2>/dev/null; do sleep 0.05; done
	pid=
}

# One line: requests a second, CPU microseconds each, median latency.
measure() { # RW DEPTH
	fio --name=x --ioengine=nbd --uri="$uri" --rw="$1" --bs="$bs" --iodepth="$2" --size=256M \
		--time_based --runtime="$seconds" --output-format=terse --terse-version=3 \
		--output="$dir/out" >"$dir/said" 2>&1 || { cat "$dir/said" >&2; exit 1; }
	awk -F';' -v stat="$(cat "/proc/$pid/stat")" -v bs="$bs" -v tick="$(getconf CLK_TCK)" '
	{
		split(stat, f, " ")
		bytes = bs * (bs ~ /k$/ ? 1024 : 1)
		at = $6 ? 0 : 41 # writes are counted 41 fields on
		printf "%d %.1f\n", $(8 + at),
			(f[14] + f[15]) / tick * 1e6 / ($(6 + at) * 1024 / bytes)
	}' "$dir/out"
}

median() { # COLUMN FILE
	sort -n -k "$1,$1" "$2" | awk -v c="$1" '{ v[NR] = $c } END { print v[int((NR + 1) / 2)] }'
}

one() { # WHO FORMAT CACHE RW DEPTH
	serve "$1" "$2" "$3"
	measure "$4" "$5" >>"$dir/$1.all"
	stop
}

row() { # FORMAT CACHE RW DEPTH
	: >"$dir/qemu.all"
	: >"$dir/sluice.all"
	for i in $(seq "$pairs"); do
		if [ $((i % 2)) -eq 1 ]; then
			one qemu "$@"
			one sluice "$@"
		else
			one sluice "$@"
			one qemu "$@"
		fi
	done
	paste -d' ' "$dir/qemu.all" "$dir/sluice.all" |
		awk '{ printf "%.2f %.2f\n", $3 / $1, $4 / $2 }' >"$dir/ratios"
	printf '%-6s %-13s %-10s %5d %9d %9d %6s %8s %8s %6s\n' "$@" \
		"$(median 1 "$dir/qemu.all")" "$(median 1 "$dir/sluice.all")" \
		"$(median 1 "$dir/ratios")" "$(median 2 "$dir/qemu.all")" \
		"$(median 2 "$dir/sluice.all")" "$(median 2 "$dir/ratios")"
}

for format in raw qcow2; do
	qemu-img create -q -f "$format" "$dir/$format" 256M &&
		qemu-io -f "$format" -c 'write -P 1 0 256M' "$dir/$format" >"$dir/said" || exit 1
done
printf '%-6s %-13s %-10s %5s %9s %9s %6s %8s %8s %6s\n' format cache rw depth qemu/s sluice/s \
	ratio qemu-us sluice-us ratio
while [ $# -ge 4 ]; do
	row "$1" "$2" "$3" "$4"
	shift 4
done
