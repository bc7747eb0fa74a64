/* SPDX-License-Identifier: MIT */
/*
 * embed.h - files that travel inside the program: the test guest and what it replays.
 */
#ifndef VMM_EMBED_H
#define VMM_EMBED_H

#include <stddef.h>

/* guest/guest.elf: a bare-metal guest, booted by its PVH note; "@guest" on command lines. */
extern const unsigned char embed_guest_data[], embed_guest_data_end[];
/* guest/trace/debian-install.trace.zst: the disk requests of a Debian install, zstd-compressed. */
extern const unsigned char embed_trace_data[], embed_trace_data_end[];

/* vmm/dsdt.asl, compiled: an ACPI table. */
extern const unsigned char embed_dsdt_data[], embed_dsdt_data_end[];

static inline size_t embed_dsdt_size(void)
{
	return (size_t)(embed_dsdt_data_end - embed_dsdt_data);
}

static inline size_t embed_guest_size(void)
{
	return (size_t)(embed_guest_data_end - embed_guest_data);
}

static inline size_t embed_trace_size(void)
{
	return (size_t)(embed_trace_data_end - embed_trace_data);
}

#endif
