#!/bin/sh
# SPDX-License-Identifier: MIT
#
# runner.sh - tests/run.sh counts each kind of result, and no failure gets past it.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
status=0

# say NAME EXIT-STATUS LINE...: a test program that prints the lines.
say() {
	prog=$1 exit_status=$2
	shift 2
	{
		echo '#!/bin/sh'
		for line; do echo "echo '$line'"; done
		echo "exit $exit_status"
	} >"$prog"
	chmod +x "$prog"
}

# expect NAME CLOSING-LINE EXIT-STATUS PROGRAM: the runner on that program alone.
expect() {
	TEST_TIMEOUT=1 "$SRC/tests/run.sh" x: "$TMPDIR/$4" >out 2>&1
	got=$?
	if [ "$(tail -n 1 out)" = "$2" ] && [ $got -eq "$3" ]; then
		echo "ok $1"
	else
		echo "FAIL $1 (exit status $got)"
		sed 's/^/  | /' out
		status=1
	fi
}

say good 0 'ok a' 'some words' 'ok b' 'skip c: no tape drive'
expect "lines are counted" "2 passed, 0 failed, 1 skipped" 0 good
if grep -q '^  x/good: c: no tape drive$' out; then
	echo "ok a skip is listed with its reason"
else
	echo "FAIL a skip is listed with its reason"
	status=1
fi
say bad 1 'ok a' 'FAIL b'
expect "a FAIL fails" "1 passed, 1 failed, 0 skipped" 1 bad
say liar 0 'FAIL b'
expect "a FAIL with exit status 0 fails" "0 passed, 1 failed, 0 skipped" 1 liar
say crash 139 'ok a'
expect "an exit status without a FAIL fails" "1 passed, 1 failed, 0 skipped" 1 crash
say mute 0
expect "silence fails" "0 passed, 1 failed, 0 skipped" 1 mute
say skips 77 'no tape drive'
expect "exit status 77 skips" "0 passed, 0 failed, 1 skipped" 0 skips
say libcheck 1 '57%: Checks: 7, Failures: 2, Errors: 1'
expect "libcheck is understood" "4 passed, 3 failed, 0 skipped" 1 libcheck
printf '#!/bin/sh\necho ok a\nexec sleep 60\n' >slow
chmod +x slow
expect "a timeout fails" "1 passed, 1 failed, 0 skipped" 1 slow
expect "a missing program fails" "0 passed, 1 failed, 0 skipped" 1 no-such-program
exit $status
