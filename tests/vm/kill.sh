#!/bin/sh
# SPDX-License-Identifier: MIT
#
# kill.sh - sluice run killed with SIGKILL while its guest writes: the image opens again.
#
# The image lives through all rounds of a format and grows; after each the check finds leaks at
# worst (a lazy one is repaired first), and what is read holds no sector that was never written.
# Which write must be there is for tests/cli/kill.sh to say, where acknowledgements are seen.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"
rounds=${ROUNDS:-4}

check() { # the image's state after a kill; words about it in why
	if [ "$1" = raw ]; then
		"$SRC/build/kill" --decode --format raw a.img >>why 2>&1
		return
	fi
	if [ "$1" = lazy ]; then
		"$SLUICE" img check -r all a.img >>why 2>&1 || return 1
	fi
	"$SLUICE" img check a.img >>why 2>&1
	case $? in 0 | 3) ;; *) return 1 ;; esac
	if command -v qemu-img >/dev/null; then
		qemu-img check a.img >>why 2>&1
		case $? in 0 | 3) ;; *) return 1 ;; esac
	fi
	"$SRC/build/kill" --decode --format qcow2 a.img >>why 2>&1
}

rounds_of() { # NAME CACHE CREATE-OPTION...
	name=$1 cache=$2 n=0
	shift 2
	"$SLUICE" img create -q "$@" a.img 256M || return 1
	while [ $n -lt "$rounds" ]; do
		n=$((n + 1))
		: >why
		"$SLUICE" run -kernel @guest -m 64M -drive \
			"if=virtio,file=a.img,format=$format,cache=$cache" \
			-append "io rw=randwrite bs=12k depth=16 flush_every=50 \
				seconds=$((9 * slow))" \
			>out 2>&1 </dev/null &
		pid=$!
		moment=$((((n * 7919 + $$) % 7 + 2) * slow))
		sleep "$((moment / 10)).$((moment % 10))"
		kill -9 $pid 2>/dev/null || echo "it ended by itself" >>why
		wait $pid 2>/dev/null
		# The kernel gives the lock back when the dead process's last request has ended.
		tries=0
		until "$SLUICE" img info a.img >info 2>&1 || [ $tries -ge 50 ]; do
			tries=$((tries + 1))
			sleep 0.1
		done
		[ ! -s why ] && check "$name" || return 1
	done
	# Not all of it may be zeros, or nothing was tried.
	grep -q ' [1-9][0-9]* sectors written' why
}

for row in "raw raw writeback" "qcow2 qcow2 writethrough" \
	"lazy qcow2 writeback -o lazy_refcounts=on" "small qcow2 none -o cluster_size=4k"; do
	# shellcheck disable=SC2086 # words
	set -- $row
	kind=$1 format=$2 mode=$3
	shift 3
	if rounds_of "$kind" "$mode" -f "$format" "$@"; then
		echo "ok $kind, $mode: killed $rounds times"
	else
		echo "FAIL $kind, $mode, after round $n"
		sed 's/^/  | /' why out
		status=1
	fi
	rm -f a.img
done
exit $status
