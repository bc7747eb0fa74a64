# SPDX-License-Identifier: MIT
#
# verdict.sh - read by the scripts of tests/vm: says how a check ended, for tests/run.sh to count.

# SLOW: how many times as long a machine may take (one that is emulated: 10).

status=0
slow=${SLOW:-1}

# verdict NAME STATUS-OF-THE-CHECK: if it failed, with what is in the files out and err.
verdict() {
	if [ "$2" -eq 0 ]; then
		echo "ok $1"
	else
		echo "FAIL $1"
		sed 's/^/  | /' out err 2>/dev/null
		status=1
	fi
}

# run_within SECONDS OPTION...: sluice run, ended after so long.
run_within() {
	limit=$(($1 * slow))
	shift
	timeout $((limit + 10)) "$SLUICE" run -timeout $limit "$@"
}
