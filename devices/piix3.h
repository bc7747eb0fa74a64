/* SPDX-License-Identifier: MIT */
/*
 * piix3.h - the ISA bridge, function 0 of slot 1.  Other functions of the chip: IDE is 1
 * (ide.h), power management 3.
 */
#ifndef DEVICES_PIIX3_H
#define DEVICES_PIIX3_H

#include "devices/device.h"

#define PIIX3_SLOT   1
#define PIIX3_FN_IDE 1
#define PIIX3_FN_PM  3

must_check int piix3_create(struct machine_services *s, struct device **out);

#endif
