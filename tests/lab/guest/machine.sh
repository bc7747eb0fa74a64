# SPDX-License-Identifier: MIT
# machine.sh - the machine as a stock kernel sees it.

is() { [ "$1" = "$2" ] || { echo "$1, expected $2"; false; }; }

check "two CPUs run" is "$(grep -c ^processor /proc/cpuinfo)" 2
check "the power button is there" grep -q "Power Button" /proc/bus/input/devices
check "the clock shows the host's time" test "$(cat /sys/class/rtc/rtc0/since_epoch)" -gt 1700000000
echo +1 >/sys/class/rtc/rtc0/wakealarm
sleep 3
check "the clock's alarm interrupts" grep -q "  8: .*[1-9].*rtc0" /proc/interrupts
check "the timers of ACPI and KVM are there" grep -q "kvm-clock.*acpi_pm" \
	/sys/devices/system/clocksource/clocksource0/available_clocksource
check "the disk is there" test -b /dev/vda
check "the disk has interrupts of its own" grep -q "PCI-MSI.*virtio0-req" /proc/interrupts

# What a kernel says at level "error" and above, and its warnings about firmware.
bad='^<[0-3]>|Firmware Bug|ACPI (BIOS )?(Error|Warning)|inconsistent|Call Trace'
trouble() { dmesg -r | grep -E "$bad"; }
if trouble >/tmp/trouble; then
	fail "the kernel complains"
	cat /tmp/trouble
else
	ok "the kernel complains of nothing"
fi
dmesg
