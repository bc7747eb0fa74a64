/* SPDX-License-Identifier: MIT */
/*
 * trace.h - the recorded disk traffic that `install` replays, and what the disk must hold after it.
 *
 * The module is a header and n_ops records in submission order; both are little-endian.  A record
 * with wait_for=W is sent when the operations [0, W) are complete.
 */
#ifndef GUEST_TRACE_H
#define GUEST_TRACE_H

#include "guest/virtio_blk.h"

#define TRACE_READ  0u
#define TRACE_WRITE 1u
#define TRACE_FLUSH 2u

struct trace_header {
	char magic[8]; /* "SLTRACE1" */
	uint32_t n_ops, zero;
	uint64_t disk_bytes;
	char name[40];
};
_Static_assert(sizeof(struct trace_header) == 64, "trace header");

struct trace_op {
	uint32_t wait_for;
	uint32_t kind_sectors; /* kind in bits 31..28, length in sectors below */
	uint64_t sector;
};
_Static_assert(sizeof(struct trace_op) == 16, "trace record");

/*
 * The version of a sector is 1 + the index of the last operation that wrote it, 0 if none did.
 * It is ambiguous when the trace lets that write and an earlier one run at the same time.
 */
#define VERSION_MASK      0x7fffffffu
#define VERSION_AMBIGUOUS 0x80000000u

struct trace {
	const struct trace_op *ops;
	uint32_t n_ops;
	uint64_t sectors;
	uint32_t *versions; /* by sector */
	uint32_t applied;   /* versions are those after so many operations */
};

static inline unsigned trace_kind(const struct trace_op *op)
{
	return op->kind_sectors >> 28;
}

static inline uint32_t trace_length(const struct trace_op *op)
{
	return op->kind_sectors & 0x0fffffff;
}

struct trace *trace_open(const struct vblk *d); /* checked against the disk, or the run ends */
void trace_apply(struct trace *t); /* notes what the next operation writes */
bool trace_sector_ok(const struct trace *t, const void *data, uint64_t sector);
void trace_report_bad(const struct trace *t, const void *data, uint64_t sector);

#endif
