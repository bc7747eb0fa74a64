#!/bin/sh
# SPDX-License-Identifier: MIT
#
# man.sh - the man page names every option that a command's help names, and no other.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
status=0
page=$SRC/man/sluice.1

# Options in the help of a command, one a line; keys of a list (deeper, with =) are not among them.
in_help() {
	"$SLUICE" "$@" --help | sed -n 's/^  \(-[^ ,]*\(, -[^ ,]*\)*\).*/\1/p' | tr -s ', ' '\n\n' |
		sed -n 's/^-\([A-Za-z0-9-]*\).*/\1/p' | sort
}

# Options in the man page's section of a command: items, not keys of a list.
in_page() {
	awk -v section=".Ss sluice $*" '
	/^\.S[sh]/ { inside = $0 == section }
	inside && /^\.It Fl/ {
		for (i = 2; i < NF; i++)
			if ($i == "Fl") {
				sub(/^\\/, "", $(i + 1))
				print $(i + 1)
			}
	}' "$page" | sort
}

check() {
	in_help "$@" >help
	in_page "$@" >page
	if [ -s help ] && diff help page >differences; then
		echo "ok $* ($(wc -l <help) options)"
	else
		echo "FAIL $*: < only in the help, > only in the man page"
		cat differences
		status=1
	fi
}

check run
check bench install
check nbd
check powercut explore
if command -v man >/dev/null; then
	if man -l -Tutf8 "$page" >text 2>errors && [ -s text ]; then
		echo "ok the page can be shown"
	else
		echo "FAIL the page can be shown"
		cat errors
		status=1
	fi
else
	echo "skip the page can be shown: no man"
fi
exit $status
