/* SPDX-License-Identifier: MIT */
/*
 * platform.h - what a PC has besides PCI and a serial port: power, reset, clock, exit code.
 */
#ifndef DEVICES_PLATFORM_H
#define DEVICES_PLATFORM_H

#include "devices/device.h"

/* Port 0xf4, any width: EV_EXIT with the value written (0..255 of the lowest byte). */
must_check int debug_exit_create(struct machine_services *s, struct device **out);
/* Port 0xf8, any width: a mark, whose text is the number written; asks for services->mark. */
must_check int mark_create(struct machine_services *s, struct device **out);
/*
 * Port 0x64, command 0xfe, and port 0x92, bit 0: EV_RESET.
 * The other reset port, 0xcf9, lies among the PCI host's and is answered there.
 */
must_check int power_create(struct machine_services *s, struct device **out);

/* ACPI's fixed registers: PM1 status, enable and control, and the PM timer. */
#define ACPI_PM_PORT 0x600
#define ACPI_PM_GSI  9
must_check int acpi_pm_create(struct machine_services *s, struct device **out);
/* Presses the power button once.  Any thread. */
void acpi_pm_button(struct device *d);

/*
 * Ports 0x70 and 0x71: clock and CMOS memory.  The latter tells of n_cpus, of s->mem and of
 * boot_order, four bits for each kind of boot device, the first one lowest: CMOS_BOOT_...
 */
enum { CMOS_BOOT_DISK = 2, CMOS_BOOT_CD = 3, CMOS_BOOT_NET = 4 };
must_check int cmos_create(struct machine_services *s, unsigned n_cpus, unsigned boot_order,
	struct device **out);

#endif
