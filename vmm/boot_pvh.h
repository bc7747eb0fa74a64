/* SPDX-License-Identifier: MIT */
/*
 * boot_pvh.h - loads an ELF kernel that has a PVH entry point.
 */
#ifndef VMM_BOOT_PVH_H
#define VMM_BOOT_PVH_H

#include "vmm/blob.h"
#include "vmm/guest_mem.h"

/* The longest command line, without the final zero. */
#define BOOT_CMDLINE_MAX 16383

struct boot_source {
	const struct blob *kernel;
	const struct blob *initrd; /* NULL: none */
	const char *cmdline;
};

struct boot_start {
	uint32_t entry, start_info; /* guest-physical */
};

/* 0, or -errno with words that begin with the file's name. */
must_check int boot_pvh_load(const struct gmem *m, const struct boot_source *src,
	struct boot_start *out, struct why *why);

#endif
