/* SPDX-License-Identifier: MIT */
/*
 * verify.c - job verify: the disk holds what the trace says, sector by sector.
 *
 * Reads the whole disk in large requests, several in flight; with verify=written only the sectors
 * that the trace wrote.  A sector that was never written must read as zeros.
 */
#include "guest/trace.h"

#define DEPTH     8
#define REQ_BYTES (1u << 20)

struct reader {
	struct vblk *d;
	struct trace *t;
	struct vblk_req *reqs;
	uint8_t *data;
	bool written_only;
	uint32_t req_sectors;
	uint64_t next; /* sector */
	unsigned in_flight;
	uint64_t sectors, bad, errors, ambiguous, first_bad;
};

static bool send_next(struct reader *rd, struct vblk_req *r)
{
	const uint32_t *v = rd->t->versions;
	uint64_t end = rd->t->sectors, n = 0;

	while (rd->written_only && rd->next < end && v[rd->next] == 0)
		rd->next++;
	while (n < rd->req_sectors && rd->next + n < end && (!rd->written_only || v[rd->next + n]))
		n++;
	if (!n)
		return false;
	vblk_req_init(r, VBLK_IN, rd->next);
	r->tag = n;
	if (!vblk_req_add(rd->d, r, rd->data + (uint64_t)(r - rd->reqs) * REQ_BYTES,
		    (uint32_t)n * SECTOR_SIZE) ||
		!vblk_submit(&rd->d->q[0], r))
		fail(STATUS_DEVICE, "verify: a request of %lu sectors does not fit", n);
	rd->next += n;
	rd->in_flight++;
	return true;
}

static void check(struct reader *rd, const struct vblk_req *r)
{
	const uint8_t *data = rd->data + (uint64_t)(r - rd->reqs) * REQ_BYTES;

	rd->in_flight--;
	if (r->status != VBLK_S_OK) {
		rd->errors++;
		return;
	}
	for (uint64_t i = 0; i < r->tag; i++) {
		uint64_t sector = r->head.sector + i;

		rd->sectors++;
		rd->ambiguous += (rd->t->versions[sector] & VERSION_AMBIGUOUS) != 0;
		if (trace_sector_ok(rd->t, data + i * SECTOR_SIZE, sector))
			continue;
		trace_report_bad(rd->t, data + i * SECTOR_SIZE, sector);
		rd->first_bad = rd->bad++ ? MIN(rd->first_bad, sector) : sector;
	}
}

static void run(struct reader *rd)
{
	struct virtq *q = &rd->d->q[0];
	struct vblk_req *r;
	unsigned depth = q->indirect ? DEPTH : MIN(DEPTH, q->size / (rd->d->seg_max + 2));

	for (unsigned i = 0; i < MAX(depth, 1u); i++)
		if (!send_next(rd, &rd->reqs[i]))
			break;
	virtq_kick(q);
	while (rd->in_flight) {
		vblk_check_queue(q, virtq_wait(q, vblk_timeout()));
		while ((r = vblk_reap(q)) != NULL) {
			check(rd, r);
			if (send_next(rd, r))
				virtq_kick(q);
		}
		vblk_check_queue(q, true);
	}
}

int job_verify(void)
{
	static struct reader rd;
	const char *what = option_str("verify", "all");
	uint64_t begin, usec;

	rd.written_only = strcmp(what, "written") == 0;
	if (!rd.written_only && strcmp(what, "all") != 0)
		fail(STATUS_USAGE, "verify=%s: expected all or written", what);
	rd.d = vblk_open();
	rd.t = trace_open(rd.d);
	while (rd.t->applied < rd.t->n_ops)
		trace_apply(rd.t);
	rd.req_sectors =
		MIN(REQ_BYTES, rd.d->seg_max * MIN(rd.d->seg_bytes, REQ_BYTES)) / SECTOR_SIZE;
	rd.reqs = memory_alloc(DEPTH * sizeof(*rd.reqs), PAGE_SIZE, "requests");
	rd.data = memory_alloc(DEPTH * REQ_BYTES, PAGE_SIZE, "buffers");
	begin = rdtsc();
	run(&rd);
	usec = usec_since(begin);
	if (rd.bad)
		report("verify sectors=%lu bad=%lu first_bad=%lu errors=%lu ambiguous=%lu usec=%lu",
			rd.sectors, rd.bad, rd.first_bad, rd.errors, rd.ambiguous, usec);
	else
		report("verify sectors=%lu bad=0 first_bad=none errors=%lu ambiguous=%lu usec=%lu",
			rd.sectors, rd.errors, rd.ambiguous, usec);
	return rd.errors ? STATUS_DEVICE : rd.bad ? STATUS_DATA : STATUS_OK;
}
