#!/bin/sh
# SPDX-License-Identifier: MIT
#
# run.sh - runs test programs one after the other, counts what they say, closes with one line:
#
#   N passed, N failed, N skipped
#
# usage: tests/run.sh [SUITE: PROGRAM...]...
#
# A program says "ok NAME", "FAIL NAME" or "skip NAME: why" at the start of a line, or it is a
# libcheck binary and says "100%: Checks: 7, Failures: 0, Errors: 0".  Exit status 77 skips the
# whole program, its last line is the reason.  Any other status but 0 without a FAIL, a timeout,
# and success without a word are failures.  Each program gets an empty directory of its own as
# TMPDIR, and in SLUICE the program under test.  What it printed is kept in build/logs.
# The suite vm is skipped without /dev/kvm, but for scripts that say "Needs no /dev/kvm".

cd "$(dirname "$0")/.." || exit 2
SRC=$PWD
SLUICE=${SLUICE:-$SRC/build/sluice}
LC_ALL=C
export SRC SLUICE LC_ALL
seconds=${TEST_TIMEOUT:-600}
logs=$SRC/build/logs
mkdir -p "$logs"
scratch=$(mktemp -d "${TMPDIR:-/tmp}/sluice-check.XXXXXX") || exit 2
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
passed=0 failed=0 skipped=0
: >"$scratch/skips"
: >"$scratch/fails"

# "passed failed skipped" of one log.
count() {
	awk '
	/^[0-9]+%: Checks: / {
		gsub(/[^0-9 ]/, " "); passed += $2 - $3 - $4; failed += $3 + $4
	}
	/^ok / { passed++ }
	/^FAIL / { failed++ }
	/^skip / { skipped++ }
	END { print passed + 0, failed + 0, skipped + 0 }' "$1"
}

# Why this program cannot run here; nothing if it can.
cannot() {
	[ "$1" != vm ] || grep -q 'Needs no /dev/kvm' "$2" && return
	if ! { [ -r /dev/kvm ] && [ -w /dev/kvm ]; }; then
		echo "/dev/kvm is missing or not ours to open"
	fi
}

run_one() {
	suite=$1 prog=$2 name=$1/$(basename "$2" .sh)
	log=$logs/$suite-$(basename "$2" .sh).log
	why=$(cannot "$suite" "$prog")
	if [ -n "$why" ]; then
		skipped=$((skipped + 1))
		echo "$name: $why" >>"$scratch/skips"
		echo "skip $name: $why"
		return
	fi
	mkdir "$scratch/tmp"
	from=$(date +%s)
	TMPDIR=$scratch/tmp timeout -k 10 "$seconds" "$prog" >"$log" 2>&1 </dev/null
	status=$?
	took=$(($(date +%s) - from))
	rm -rf "$scratch/tmp"
	# shellcheck disable=SC2046 # three numbers
	set -- $(count "$log")
	p=$1 f=$2 s=$3 words=
	if [ $status -eq 77 ] && [ "$f" -eq 0 ]; then
		p=0 s=1
		echo "$name: $(tail -n 1 "$log")" >>"$scratch/skips"
	elif [ $status -ne 0 ] && [ "$f" -eq 0 ]; then
		f=1 words=", exit status $status"
		[ $status -eq 124 ] && words=", stopped after $seconds s"
	elif [ $((p + f + s)) -eq 0 ]; then
		f=1 words=", said nothing"
	fi
	sed -n "s,^skip ,$name: ,p" "$log" >>"$scratch/skips"
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	echo "$name: $p passed, $f failed, $s skipped ($took s)$words"
	if [ "$f" -ne 0 ]; then
		echo "$name$words ($log)" >>"$scratch/fails"
		tail -n "${TEST_TAIL:-60}" "$log" | sed 's/^/    /'
	fi
}

suite=
for arg; do
	case $arg in
	*:) suite=${arg%:} ;;
	*) if [ -x "$arg" ]; then run_one "$suite" "$arg"; else
		echo "run.sh: $arg is not a program" >&2
		failed=$((failed + 1))
	fi ;;
	esac
done

if [ -s "$scratch/skips" ]; then
	echo "skipped:"
	sed 's/^/  /' "$scratch/skips"
fi
if [ -s "$scratch/fails" ]; then
	echo "failed:"
	sed 's/^/  /' "$scratch/fails"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
