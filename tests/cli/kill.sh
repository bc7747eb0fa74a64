#!/bin/sh
# SPDX-License-Identifier: MIT
#
# kill.sh - a writer killed with SIGKILL again and again: what it acknowledged is in the image.
#
# ROUNDS=1000 (make check-kill) takes some minutes.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
rounds=${ROUNDS:-20}
seed=${SEED:-$$}

if command -v qemu-img >/dev/null; then
	set -- --qemu qemu-img
else
	set --
	echo "skip a second opinion: qemu-img is not installed (Debian: qemu-utils)"
fi
echo "seed $seed"
"$SRC/build/kill" --rounds "$rounds" --seed "$seed" --sluice "$SLUICE" "$@" .
