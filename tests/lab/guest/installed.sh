# SPDX-License-Identifier: MIT
# installed.sh - runs in a system that SeaBIOS and GRUB started from a disk or a CD.

check "GRUB started the kernel" grep -q BOOT_IMAGE= /proc/cmdline
check "the BIOS's memory map is the kernel's" sh -c 'dmesg | grep -q "BIOS-e820: .*reserved"'
check "ACPI comes through the BIOS" sh -c 'dmesg | grep -q "ACPI: RSDP 0x00000000000F"'
bad='^<[0-3]>|Firmware Bug|ACPI (BIOS )?(Error|Warning)|inconsistent|Call Trace'
if dmesg -r | grep -E "$bad" >/tmp/trouble; then
	fail "the kernel complains"
	cat /tmp/trouble
else
	ok "the kernel complains of nothing"
fi
for i in $(seq 60); do
	ls /dev/[vs]da1 /dev/sr0 2>/dev/null | grep -q . && break
	sleep 1
done
if [ -e /dev/sr0 ]; then
	disk=/dev/sr0 kind=iso9660
else
	disk=$(ls /dev/[vs]da1) kind=ext4
fi
check "its disk is there" test -b "$disk"
check "its file system is whole" mount -t $kind "$disk" /mnt
check "the kernel is on it" test -s /mnt/boot/vmlinuz
check "what was loaded is on it" sh -c "cd /mnt/boot && md5sum -c sums"
umount /mnt
