/* SPDX-License-Identifier: MIT */
/*
 * firmware.h - a PC BIOS: its ROM, and what it is told about the machine.
 */
#ifndef VMM_FIRMWARE_H
#define VMM_FIRMWARE_H

#include "devices/device.h"
#include "vmm/blob.h"

struct kvm;
struct firmware;

/* Where Debian's package seabios puts it; NULL if there is none. */
const char *firmware_default(void);

/*
 * Maps the ROM below 4 GiB and makes the device that it reads its facts from (*dev; destroyed by
 * the caller before firmware_free()).  0 or -errno with words.
 */
must_check int firmware_new(struct kvm *k, struct machine_services *s, const struct blob *rom,
	unsigned n_cpus, struct firmware **out, struct device **dev, struct why *why);
/* At power-on and at each reset: puts code and tables into memory.  0 or -errno with words. */
must_check int firmware_load(struct firmware *f, struct why *why);
/* After the VM is gone.  NULL allowed. */
void firmware_free(struct firmware *f);

#endif
