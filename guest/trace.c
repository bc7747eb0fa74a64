/* SPDX-License-Identifier: MIT */
/*
 * trace.c - checks the trace module and keeps the version of every sector.
 *
 * The versions depend on the trace alone, not on how a device ordered what ran: a write that may
 * run beside an earlier one to the same sector makes that sector's version ambiguous, and it stays
 * so until a write that waits for both.  An ambiguous sector must hold some write of its own.
 */
#include "guest/trace.h"
#include "guest/pattern.h"

#define BAD_LINES_MAX 4

static void check_op(const struct trace *t, uint32_t i)
{
	const struct trace_op *op = &t->ops[i];
	uint64_t n = trace_length(op);

	if (trace_kind(op) > TRACE_FLUSH)
		fail(STATUS_USAGE, "trace op %u: kind %u", i, trace_kind(op));
	if (op->wait_for > i)
		fail(STATUS_USAGE, "trace op %u waits for op %u", i, op->wait_for - 1);
	if (trace_kind(op) == TRACE_FLUSH ? n != 0 : n == 0)
		fail(STATUS_USAGE, "trace op %u: length %lu", i, n);
	if (n > t->sectors || op->sector > t->sectors - n)
		fail(STATUS_USAGE, "trace op %u: sectors %lu+%lu of %lu", i, op->sector, n,
			t->sectors);
}

struct trace *trace_open(const struct vblk *d)
{
	static struct trace t;
	const struct trace_header *h = (const struct trace_header *)boot_module.data;
	uint64_t bytes;

	if (t.ops)
		return &t;
	if (!h)
		fail(STATUS_USAGE, "no trace: give one as the initrd");
	if (boot_module.size < sizeof(*h) || memcmp(h->magic, "SLTRACE1", 8) != 0 || h->zero)
		fail(STATUS_USAGE, "the initrd is not a trace");
	bytes = sizeof(*h) + (uint64_t)h->n_ops * sizeof(struct trace_op);
	if (!h->n_ops || h->n_ops > VERSION_MASK || bytes > boot_module.size ||
		boot_module.size - bytes >= PAGE_SIZE)
		fail(STATUS_USAGE, "the trace has %u ops and %lu bytes", h->n_ops,
			boot_module.size);
	if (!h->disk_bytes || h->disk_bytes % SECTOR_SIZE ||
		h->disk_bytes / SECTOR_SIZE > d->sectors)
		fail(STATUS_USAGE, "the trace is for a disk of %lu bytes, this one has %lu",
			h->disk_bytes, d->sectors * SECTOR_SIZE);
	t.n_ops = h->n_ops;
	t.sectors = h->disk_bytes / SECTOR_SIZE;
	t.ops = (const struct trace_op *)(h + 1);
	for (uint32_t i = 0; i < t.n_ops; i++)
		check_op(&t, i);
	t.versions = memory_alloc(t.sectors * sizeof(*t.versions), PAGE_SIZE, "sector versions");
	return &t;
}

void trace_apply(struct trace *t)
{
	uint32_t i = t->applied++;
	const struct trace_op *op = &t->ops[i];
	uint32_t *v = &t->versions[op->sector];

	if (trace_kind(op) != TRACE_WRITE)
		return;
	for (uint32_t k = 0; k < trace_length(op); k++)
		v[k] = (i + 1) | ((v[k] & VERSION_MASK) > op->wait_for ? VERSION_AMBIGUOUS : 0);
}

bool trace_sector_ok(const struct trace *t, const void *data, uint64_t sector)
{
	uint32_t want = t->versions[sector], version;
	uint64_t of;

	if (want && !(want & VERSION_AMBIGUOUS))
		return pattern_is(data, sector, want);
	switch (pattern_check(data, &of, &version)) {
	case PATTERN_ZERO:
		return want == 0;
	case PATTERN_OK:
		return want != 0 && of == sector && version <= (want & VERSION_MASK);
	default:
		return false;
	}
}

void trace_report_bad(const struct trace *t, const void *data, uint64_t sector)
{
	static const char *const kinds[] = {"garbage", "zeros", "pattern"};
	static unsigned lines;
	uint32_t version;
	uint64_t of;
	enum pattern_kind kind = pattern_check(data, &of, &version);

	if (lines++ < BAD_LINES_MAX)
		report("bad sector=%lu expected=%u found=%s found_sector=%lu found_version=%u",
			sector, t->versions[sector] & VERSION_MASK, kinds[kind], of, version);
}
