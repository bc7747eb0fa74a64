# SPDX-License-Identifier: MIT
# bootlog.sh - what the kernel has said, with levels.

dmesg -r
