#!/bin/sh
# SPDX-License-Identifier: MIT
#
# matrix.sh - images of every kind, both ways: what sluice has written qemu-img finds clean and
# equal, what qemu-img and qemu-io have written sluice reads, checks and writes on.  MATRIX=all for
# every combination instead of every pair of properties.

here=$(cd "$(dirname "$0")" && pwd)
SLUICE=$(realpath "${SLUICE:-build/sluice}")
export SLUICE
cd "${TMPDIR:?run me by tests/run.sh}" || exit 1

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
	echo "skip matrix: qemu-img or qemu-io is not installed (Debian: qemu-utils)"
	exit 0
fi
exec python3 "$here/matrix.py"
