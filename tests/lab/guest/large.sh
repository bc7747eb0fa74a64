# SPDX-License-Identifier: MIT
# large.sh - memory beyond 4 GiB.

kib=$(sed -n 's/MemTotal: *\([0-9]*\).*/\1/p' /proc/meminfo)
check "memory beyond 4 GiB is used" test "$kib" -gt 4500000
check "it is in the memory map" sh -c 'dmesg | grep -q "mem 0x0000000100000000-.*usable"'
