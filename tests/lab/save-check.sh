#!/bin/sh
# SPDX-License-Identifier: MIT
#
# save-check.sh - is the text of tests/lab/guest/save.sh all right after a power cut?
#
# The file system is repaired as at boot; the text is whole, and no older than what was said.
# usage: save-check.sh IMAGE, with SCRATCH and MARK as sluice powercut explore sets them

PATH=$PATH:/usr/sbin:/sbin
e2fsck -fy "$1" >"$SCRATCH/fsck" 2>&1
[ $? -le 1 ] || { echo "the file system cannot be repaired"; exit 1; }
debugfs -R "dump text $SCRATCH/text" "$1" 2>/dev/null
told=$(echo "$MARK" | sed -n 's/^draft \([0-9]*\) is saved$/\1/p')
if [ ! -e "$SCRATCH/text" ]; then
	[ -z "$told" ] || { echo "draft $told was saved, and there is no text"; exit 1; }
	exit 0
fi
[ "$(tail -n 1 "$SCRATCH/text")" = "the end" ] ||
	{ echo "the text is torn: $(wc -c <"$SCRATCH/text") bytes are left"; exit 1; }
draft=$(sed -n '1s/^draft //p' "$SCRATCH/text")
[ "${told:-0}" -le "$draft" ] || { echo "draft $told was saved, and $draft is there"; exit 1; }
