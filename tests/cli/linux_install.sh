#!/bin/sh
# SPDX-License-Identifier: MIT
#
# linux_install.sh - bench install --guest linux without an installer: one line, nothing left.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
. "$SRC/tests/support/verdict.sh"

mkdir images
: >vmlinuz
if [ -r /dev/kvm ] && [ -w /dev/kvm ]; then
	"$SLUICE" bench install --guest linux --linux-dir . --dir images >out 2>err
	[ $? -eq 1 ] && [ "$(wc -l <err)" -eq 1 ] &&
		grep -q 'installer.gz: No such file.*debian.sh' err
	verdict "an installer that was not made is asked for" $?
else
	echo "skip an installer that was not made is asked for: no /dev/kvm"
fi
"$SLUICE" bench install --linux-dir . --dir images >out 2>err
[ $? -eq 1 ] && grep -q 'goes with --guest linux' err
verdict "--linux-dir goes with --guest linux" $?
[ -z "$(ls images)" ]
verdict "nothing is left in the scratch directory" $?
exit $status
