/* SPDX-License-Identifier: MIT */
/*
 * free.c - clusters that a table named until now: the quarantine (R3, R6).
 *
 * Such a cluster may not be counted down, punched or handed out again before
 *
 *   - the change that took the name away is durable, else a cut shows another's data or a
 *     hole where the old content has to be;
 *   - every request that was in flight when the name went has ended, else it still reads
 *     from there, or writes there.
 *
 *   qcow2_clusters_free() --> listed --flush begins: ticket--> staged --tables durable, requests
 *   ended--> counted down, punched where the last name is gone, found by the allocator again
 *
 * A full list makes the fiber that frees do a flush of its own.  It waits for nobody's end, as its
 * own request is in flight, and others may wait for what it has claimed: what the flush cannot
 * let go makes the list grow.  Compressed clusters are no runs of whole clusters; whoever
 * frees one lists each host cluster that it touches.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

#define FREED_ROOM 4096 /* at first */

struct freed {
	uint64_t first, n; /* clusters, each to be counted down by one */
	uint64_t epoch;    /* of the requests that may be using them */
	uint64_t ticket;   /* of the flush that makes the change durable; 0: none began yet */
	unsigned own;      /* what they held: 0, or OVERLAP_ACTIVE_L2 */
};

int qcow2_free_init(struct qcow2 *q)
{
	q->freed = calloc(FREED_ROOM, sizeof(*q->freed));
	q->freed_room = FREED_ROOM;
	return q->freed ? 0 : -ENOMEM;
}

void qcow2_free_fini(struct qcow2 *q)
{
	free(q->freed);
	q->freed = NULL;
}

/* For one more in the full list.  -errno: there is none. */
static int make_room(struct qcow2 *q)
{
	struct freed *more;
	int err = qcow2_flush(&q->fmt);

	if (err || q->n_freed < q->freed_room) /* or another fiber was quicker */
		return err;
	more = realloc(q->freed, 2ULL * q->freed_room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	q->freed = more;
	q->freed_room *= 2;
	return 0;
}

int qcow2_clusters_free(struct qcow2 *q, uint64_t first, uint64_t n, unsigned own)
{
	struct freed *last = q->n_freed ? &q->freed[q->n_freed - 1] : NULL;

	if (last && !last->ticket && last->epoch == q->fmt.epoch && last->own == own &&
		last->first + last->n == first) {
		last->n += n;
		return 0;
	}
	if (q->n_freed == q->freed_room) {
		int err = make_room(q);

		if (err)
			return err; /* they leak */
	}
	q->freed[q->n_freed++] =
		(struct freed){.first = first, .n = n, .epoch = q->fmt.epoch, .own = own};
	return 0;
}

uint64_t qcow2_freed_stage(struct qcow2 *q)
{
	q->ticket++;
	for (uint32_t i = 0; i < q->n_freed; i++)
		if (!q->freed[i].ticket)
			q->freed[i].ticket = q->ticket;
	return q->ticket;
}

int qcow2_clusters_unused(struct qcow2 *q, uint64_t first, uint64_t n)
{
	uint64_t off = first << q->h.cluster_bits, size = file_size(q->fmt.file);
	int err = 0;

	qcow2_compress_forget(q, off, n << q->h.cluster_bits);
	q->hole = min_u64(q->hole, first);
	if (q->fmt.unmap && off < size) {
		err = file_punch(q->fmt.file, off, min_u64(n << q->h.cluster_bits, size - off));
		sync_note(&q->fmt.sync);
	}
	return err;
}

/*
 * The caller holds table_lock, so that nobody takes a cluster between its count and its hole.  In a
 * damaged image metadata may lie there, by another name.
 */
static int let_go(struct qcow2 *q, struct freed f)
{
	while (f.n) {
		uint64_t k, off = f.first << q->h.cluster_bits;
		bool unused;
		int err;

		file_event(q->fmt.file, EV_REFBLOCK_LOAD);
		err = qcow2_refs_drop(q, f.first, f.n, &k, &unused);

		if (!err && unused) { /* all k of them */
			err = qcow2_overlap_check(q, f.own, off, k << q->h.cluster_bits);
			if (!err) {
				cache_forget(&q->l2, off, k << q->h.cluster_bits);
				err = qcow2_clusters_unused(q, f.first, k);
			}
		}
		if (err)
			return err;
		f.first += k;
		f.n -= k;
	}
	return 0;
}

int qcow2_freed_release(struct qcow2 *q, uint64_t ticket)
{
	uint32_t kept = 0, n;
	int err = 0;

	if (!q->n_freed)
		return 0;
	fiber_lock(&q->table_lock);
	n = q->n_freed;
	for (uint32_t i = 0; i < n; i++) {
		struct freed f = q->freed[i]; /* the list grows meanwhile, at its end */

		if (err || !f.ticket || f.ticket > ticket || !format_epoch_over(&q->fmt, f.epoch))
			q->freed[kept++] = f;
		else
			err = let_go(q, f); /* on error what is left of it leaks */
	}
	memmove(&q->freed[kept], &q->freed[n], (q->n_freed - n) * sizeof(*q->freed));
	q->n_freed -= n - kept;
	fiber_unlock(&q->table_lock);
	return err;
}
