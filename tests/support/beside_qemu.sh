# SPDX-License-Identifier: MIT
#
# beside_qemu.sh - read by scripts of tests/cli that need QEMU's image tools to compare with: skips
# the script without them, and says how a check ended.

SLUICE=${SLUICE:-build/sluice}
status=0

verdict() { # STATUS NAME; if it failed, with what is in the file why
	if [ "$1" -eq 0 ]; then
		echo "ok $2"
	else
		echo "FAIL $2"
		sed 's/^/  | /' why | head -20
		status=1
	fi
}

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
	echo "skip all: qemu-img and qemu-io are not installed (Debian: qemu-utils)"
	exit 0
fi
