/* SPDX-License-Identifier: MIT */
/*
 * boot_pvh.h - loads an ELF kernel that has a PVH entry point.
 */
#ifndef VMM_BOOT_PVH_H
#define VMM_BOOT_PVH_H

#include "vmm/boot.h"

/* 0, or -errno with words that begin with the file's name. */
must_check int boot_pvh_load(const struct gmem *m, const struct boot_source *src,
	struct boot_start *out, struct why *why);

#endif
