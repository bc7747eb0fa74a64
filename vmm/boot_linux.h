/* SPDX-License-Identifier: MIT */
/*
 * boot_linux.h - loads a Linux bzImage by its boot protocol.
 */
#ifndef VMM_BOOT_LINUX_H
#define VMM_BOOT_LINUX_H

#include "vmm/boot.h"

/* Has it the setup header of a bzImage? */
bool boot_linux_is(const struct blob *kernel);
/* 0, or -errno with words that begin with the file's name. */
must_check int boot_linux_load(const struct gmem *m, const struct boot_source *src,
	struct boot_start *out, struct why *why);

#endif
