# SPDX-License-Identifier: MIT
# entry.sh - a kernel that was entered in another way: it has its memory, its command line and ACPI.

check "memory is there" test "$(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)" -gt 200000
check "the command line is whole" grep -q "panic=-1.*lab=entry.sh" /proc/cmdline
check "ACPI is there" grep -q "Power Button" /proc/bus/input/devices
