#!/bin/sh
# SPDX-License-Identifier: MIT
#
# lint.sh - the house rules that a machine can check; says each breach as file:line: words.
#
# Who may include whom, sizes of files, functions and lines, the licence line, white space, and
# words that promise work for later.  The tables below are the rules: a new exception is a change
# of the design (ARCHITECTURE.md) and not of a file.
# Not here: what the compiler's warnings say, and how code is laid out (.clang-format is advice).

cd "$(dirname "$0")/.." || exit 2
LC_ALL=C
export LC_ALL

# Layer by layer, first match wins: files | what they may include by "" | what they may not by <>.
rules='
^vmm/util/	^vmm/util/	linux/kvm
^blockdev/	^(vmm/util/|vmm/version\.h$|blockdev/)	linux/kvm
^vmm/(guest_mem|bus|irq|kvm)[^/]*$	^vmm/(util/|(guest_mem|bus|irq|kvm))	-
^devices/	^(vmm/util/|vmm/(guest_mem|bus|irq)\.h$|blockdev/block\.h$|devices/)	linux/kvm
^vmm/drive\.[ch]$	^(vmm/|blockdev/(block|crash/record|live/live)\.h$)	-
^vmm/[^/]*$	^(vmm/|devices/|blockdev/(block|img/img|io/io|nbd/nbd|powercut/powercut)\.h$)	-
^guest/trace/	^$	linux/kvm
^guest/	^([^/]*$|guest/|lib/|trace/)	^(linux|sys)/
^tests/	.	-
'

files() {
	git ls-files --cached --others --exclude-standard 2>/dev/null ||
		find . -type f ! -path './build*' ! -path './.git/*' | sed 's,^\./,,'
}

list=$(files | grep -E '(^|/)(Makefile|README\.md|ARCHITECTURE\.md)$|\.(c|h|S|sh|py|mk|ld|md|1)$' |
	sort -u | while read -r f; do [ -f "$f" ] && echo "$f"; done)
[ -n "$list" ] || { echo "lint.sh: no files found"; exit 2; }

# shellcheck disable=SC2086 # names in this tree have no spaces
awk -v rules="$rules" '
BEGIN {
	FILE_MAX = 700; FUNC_MAX = 70; LINE_MAX = 100
	one_string = "^[ \t]*\047.*\047$"
	later = "(^|[^A-Za-z])(TO" "DO|FIX" "ME|X" "XX)([^A-Za-z]|$)"
	n = split(rules, row, "\n")
	for (i = 1; i <= n; i++)
		if (split(row[i], f, "\t") == 3) {
			where[++n_rules] = f[1]; may[n_rules] = f[2]; not_sys[n_rules] = f[3]
		}
}
function bad(words) { printf "%s:%d: %s\n", FILENAME, FNR, words; breaches++ }
function end_of_file() {
	if (code && lines > FILE_MAX) {
		printf "%s: %d lines, at most %d\n", last, lines, FILE_MAX; breaches++
	}
	if (code && !spdx) {
		printf "%s: no SPDX-License-Identifier in the first two lines\n", last; breaches++
	}
}
function check_include(name, system_header) {
	if (!rule)
		bad("no layer known for this folder (see the table in tests/lint.sh)")
	else if (!system_header && name !~ may[rule])
		bad("this layer may not include \"" name "\"")
	else if (system_header && not_sys[rule] != "-" && name ~ not_sys[rule])
		bad("this layer may not include <" name ">")
}
FNR == 1 {
	if (NR > 1)
		end_of_file()
	last = FILENAME; spdx = 0; in_func = 0; rule = 0
	c = FILENAME ~ /\.[chS]$/
	code = FILENAME ~ /\.(c|h|S|sh|py|mk|ld)$/
	for (i = 1; i <= n_rules && !rule; i++)
		if (FILENAME ~ where[i])
			rule = i
}
{ lines = FNR }
FNR <= 2 && /SPDX-License-Identifier: / { spdx = 1 }
/[ \t]$/ { bad("white space at the end of the line") }
code && $0 ~ later { bad("a note for later: do it, or leave it") }
code {
	s = $0; wide = 0
	while ((i = index(s, "\t"))) {
		wide += i - 1; wide += 8 - wide % 8; s = substr(s, i + 1)
	}
	# A line that is one quoted string of a script cannot be broken.
	if (wide + length(s) > LINE_MAX && !(FILENAME ~ /\.sh$/ && $0 ~ one_string))
		bad("longer than " LINE_MAX " columns")
}
c && /^#[ \t]*include[ \t]*"/ { split($0, q, "\""); check_include(q[2], 0) }
c && /^#[ \t]*include[ \t]*</ { split($0, q, /[<>]/); check_include(q[2], 1) }
c && /^\{/ { in_func = FNR }
c && /^\}/ {
	if (in_func && FNR - in_func - 1 > FUNC_MAX)
		bad("a function of " FNR - in_func - 1 " lines, at most " FUNC_MAX)
	in_func = 0
}
END { end_of_file(); exit breaches > 0 }
' $list
status=$?
[ $status -eq 0 ] && echo "ok lint ($(echo "$list" | wc -l) files)" || echo "FAIL lint"
exit $status
