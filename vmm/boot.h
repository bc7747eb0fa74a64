/* SPDX-License-Identifier: MIT */
/*
 * boot.h - what all ways of starting a guest have in common: what is loaded, where it begins.
 */
#ifndef VMM_BOOT_H
#define VMM_BOOT_H

#include "vmm/blob.h"
#include "vmm/guest_mem.h"

/* The longest command line, without the final zero. */
#define BOOT_CMDLINE_MAX 16383

/* What the loaders put beside a kernel, in RAM below the hole for video memory. */
#define BOOT_BASE    0x90000ULL /* start info (PVH) or boot parameters (Linux) */
#define BOOT_CMDLINE (BOOT_BASE + 0x1000)
#define BOOT_END     (BOOT_CMDLINE + BOOT_CMDLINE_MAX + 1)
#define BOOT_GDT     (BOOT_BASE + 0x6000)
#define BOOT_PAGES   (BOOT_BASE + 0x7000) /* page tables, 6 pages */
#define LOW_RAM_END  0xa0000ULL
#define HIGH_RAM     0x100000ULL

struct boot_source {
	const struct blob *kernel;
	const struct blob *initrd; /* NULL: none */
	const char *cmdline;
	uint64_t rsdp; /* of the ACPI tables, guest-physical; 0: none */
};

/* How vCPU 0 stands at its entry; the others wait for INIT and SIPI. */
enum boot_mode {
	BOOT_PVH,      /* 32-bit protected mode, ebx = info */
	BOOT_LINUX32,  /* 32-bit protected mode, esi = info */
	BOOT_LINUX64,  /* long mode, low 4 GiB mapped to themselves at BOOT_PAGES, rsi = info */
	BOOT_FIRMWARE, /* as after power-on: real mode at fffffff0 */
};

struct boot_start {
	enum boot_mode mode;
	uint32_t entry, start_info; /* guest-physical */
};

struct boot_range {
	uint64_t gpa, len; /* bytes */
};
/* RAM that a guest may use, in order; how many. */
unsigned boot_memmap(const struct gmem *m, struct boot_range e[GMEM_REGIONS_MAX + 1]);

/*
 * The initial RAM disk, as high below end (and in low RAM) as it fits, not below floor; *gpa: where
 * it is.  0 or -errno with words.
 */
must_check int boot_initrd(const struct gmem *m, const struct blob *initrd, uint64_t floor,
	uint64_t end, uint64_t *gpa, struct why *why);
/* Puts the command line at BOOT_CMDLINE; checks that there is RAM up to LOW_RAM_END. */
must_check int boot_cmdline(const struct gmem *m, const char *text, struct why *why);

#endif
