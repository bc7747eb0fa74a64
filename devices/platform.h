/* SPDX-License-Identifier: MIT */
/*
 * platform.h - the ports with which a guest ends its run: exit code, power-off, reset.
 */
#ifndef DEVICES_PLATFORM_H
#define DEVICES_PLATFORM_H

#include "devices/device.h"

/* Port 0xf4, any width: EV_EXIT with the value written (0..255 of the lowest byte). */
must_check int debug_exit_create(struct machine_services *s, struct device **out);
/*
 * Port 0x64, command 0xfe: EV_RESET.  Port 0x604, bit 13 of the word: EV_POWEROFF.
 * The other reset port, 0xcf9, lies among the PCI host's and is answered there.
 */
must_check int power_create(struct machine_services *s, struct device **out);

#endif
