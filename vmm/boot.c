/* SPDX-License-Identifier: MIT */
/*
 * boot.c - what every loader of a kernel needs: the memory map, the RAM disk, the command line.
 *
 * The initial RAM disk ends where low RAM does, so that it is out of the way of a kernel that
 * unpacks itself upwards.
 */
#include "vmm/boot.h"

#include <inttypes.h>
#include <string.h>

unsigned boot_memmap(const struct gmem *m, struct boot_range e[GMEM_REGIONS_MAX + 1])
{
	uint64_t low = m->r[0].len;
	unsigned n = 0;

	e[n++] = (struct boot_range){0, min_u64(low, LOW_RAM_END)};
	if (low > HIGH_RAM)
		e[n++] = (struct boot_range){HIGH_RAM, low - HIGH_RAM};
	for (int i = 1; i < m->n; i++)
		e[n++] = (struct boot_range){m->r[i].gpa, m->r[i].len};
	return n;
}

int boot_initrd(const struct gmem *m, const struct blob *initrd, uint64_t floor, uint64_t end,
	uint64_t *gpa, struct why *why)
{
	uint64_t low = min_u64(m->r[0].len, end), at;
	uint8_t *to;
	int err;

	if (initrd->size > low)
		goto no_room;
	at = round_down(low - initrd->size, 4096);
	if (at < HIGH_RAM || at < floor)
		goto no_room;
	to = gmem_ptr(m, at, initrd->size);
	err = to ? blob_read(initrd, 0, to, initrd->size) : -ENOMEM;
	if (err)
		return why_set(why, err, "%s: %s", initrd->name, strerror(-err));
	*gpa = at;
	return 0;
no_room:
	return why_set(why, -ENOMEM,
		"%s: no room for it in %" PRIu64
		" MiB of guest memory beside the kernel: use a larger -m",
		initrd->name, (uint64_t)(gmem_bytes(m) / MiB));
}

int boot_cmdline(const struct gmem *m, const char *text, struct why *why)
{
	size_t len = strlen(text);

	if (len > BOOT_CMDLINE_MAX)
		return why_set(why, -E2BIG, "the kernel command line is longer than %d bytes",
			BOOT_CMDLINE_MAX);
	if (!gmem_ptr(m, BOOT_BASE, LOW_RAM_END - BOOT_BASE))
		return why_set(why, -ENOMEM, "too little guest memory to boot: use a larger -m");
	memcpy(gmem_ptr(m, BOOT_CMDLINE, len + 1), text, len + 1);
	return 0;
}
