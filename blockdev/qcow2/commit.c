/* SPDX-License-Identifier: MIT */
/*
 * commit.c - what is written when: the one place where tables reach the file.
 *
 * Writing back is done in rounds under commit_lock:
 *
 *   1. stage    every dirty sector of a slice (and of L1) is copied, its dirty bit cleared
 *   2. order    the highest number that a staged sector carries is made durable (sync_to), and
 *               before L2 entries all that was written to an external data file
 *   3. write    all copies at once, neighbours in one operation
 *
 * Copies, because the tables go on changing while they are written: what comes after the
 * copy has an order of its own and belongs to the next round.  A sector that fails to be written is
 * dirty again.
 *
 * L2 and L1 go together: an L1 entry names either a table that is all zeros on disk, or
 * one whose zeros its number covers (map.c), so that it does not matter which arrives first.
 * Refcount slices carry no number: counts only go up ahead of use, or down for clusters that
 * no durable table names.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

#define STAGE_SECTORS 1024 /* copies in one round: 512 KiB */
#define STAGE_OPS     64   /* writes in one round */
#define STAGE_IOV     16   /* pieces joined in one write */

/* Adjacent dirty sectors of one slice, or one granule of the L1 table (slice == NULL). */
struct piece {
	uint64_t host_off;
	uint32_t bytes;
	uint8_t *copy;
	struct slice *slice;
	uint8_t bits;   /* slice: which sectors */
	uint32_t l1_at; /* L1: first sector */
	int err;
};

struct stage_op {
	struct file_req r;
	struct stage *st;
	struct iovec iov[STAGE_IOV];
	uint32_t first, n; /* pieces */
};

struct stage {
	uint8_t *mem;
	uint32_t sectors; /* of mem in use */
	struct piece pieces[STAGE_SECTORS];
	uint32_t n_pieces;
	uint64_t need;
	struct stage_op ops[STAGE_OPS];
	uint32_t in_flight;
	struct fiber *waiter;
};

int qcow2_commit_init(struct qcow2 *q)
{
	q->stage = calloc(1, sizeof(*q->stage));
	if (q->stage)
		q->stage->mem = aligned_alloc(4096, STAGE_SECTORS * SECTOR);
	return q->stage && q->stage->mem ? 0 : -ENOMEM;
}

void qcow2_commit_fini(struct qcow2 *q)
{
	if (q->stage)
		free(q->stage->mem);
	free(q->stage);
	q->stage = NULL;
}

/*
 * Sectors that are written together: what the host's O_DIRECT wants, if a cluster is as large as
 * that (else the file's align filter sees to it).
 */
static uint32_t granule(const struct qcow2 *q)
{
	uint32_t want = q->fmt.file->align_off;

	return want > SECTOR && want <= q->h.cluster_size ? want / SECTOR : 1;
}

static struct piece *piece_add(
	struct stage *st, uint64_t host_off, const uint8_t *from, uint32_t sectors)
{
	struct piece *p = &st->pieces[st->n_pieces++];

	*p = (struct piece){.host_off = host_off, .bytes = sectors * SECTOR};
	p->copy = st->mem + (uint64_t)st->sectors * SECTOR;
	memcpy(p->copy, from, p->bytes);
	st->sectors += sectors;
	return p;
}

static uint8_t widen(uint8_t bits, uint32_t gran)
{
	uint8_t out = 0;

	if (gran == 1)
		return bits;
	for (uint32_t i = 0; i < 8; i += gran) {
		uint8_t mask = (uint8_t)(((1u << gran) - 1) << i);

		if (bits & mask)
			out |= mask;
	}
	return out;
}

static bool room(const struct stage *st)
{
	return st->sectors + SLICE_BYTES_MAX / SECTOR <= STAGE_SECTORS;
}

static void stage_slice(struct qcow2 *q, struct stage *st, struct cache *c, struct slice *s)
{
	uint8_t bits = cache_stage(c, s);
	uint32_t wide = widen(bits, granule(q)) & ((1u << (c->slice_bytes / SECTOR)) - 1);
	uint32_t more = 0;

	st->need = max_u64(st->need, s->need);
	while (wide) {
		uint32_t i = (uint32_t)__builtin_ctz(wide);
		uint32_t n = (uint32_t)__builtin_ctz(~(wide >> i));
		struct piece *p = piece_add(st, s->host_off + i * SECTOR, s->data + i * SECTOR, n);

		p->slice = s;
		p->bits = (uint8_t)(((1u << n) - 1) << i);
		s->writing += more; /* cache_stage() counted the first piece */
		more = 1;
		wide &= ~(uint32_t)p->bits;
	}
}

static void stage_l1(struct qcow2 *q, struct stage *st)
{
	struct mem_table *t = &q->l1;
	uint32_t gran = granule(q), sectors = (uint32_t)div_round_up(t->n, SECTOR / 8);

	for (uint32_t s = 0; t->n_dirty && s < sectors && room(st); s++) {
		uint32_t at = s - s % gran;
		struct piece *p;

		if (!t->dirty[s])
			continue;
		p = piece_add(st, t->host_off + at * (uint64_t)SECTOR,
			(uint8_t *)t->e + at * (uint64_t)SECTOR, gran);
		p->l1_at = at;
		for (uint32_t i = at; i < at + gran && i < sectors; i++) {
			st->need = max_u64(st->need, t->need[i]);
			t->n_dirty -= t->dirty[i];
			t->dirty[i] = 0;
		}
	}
}

static int by_offset(const void *a, const void *b)
{
	const struct piece *x = a, *y = b;

	return x->host_off < y->host_off ? -1 : x->host_off > y->host_off;
}

static void op_done(struct file_req *r, int err)
{
	struct stage_op *op = container_of(r, struct stage_op, r);
	struct stage *st = op->st;

	for (uint32_t i = 0; i < op->n; i++)
		st->pieces[op->first + i].err = err;
	if (--st->in_flight == 0 && st->waiter)
		fiber_wake(st->waiter);
}

/* Writes pieces[from..] in up to STAGE_OPS operations, waits; returns the next piece. */
static uint32_t write_some(struct qcow2 *q, struct stage *st, uint32_t from)
{
	uint32_t n_ops = 0;

	st->waiter = NULL;
	while (from < st->n_pieces && n_ops < STAGE_OPS) {
		struct stage_op *op = &st->ops[n_ops++];
		uint64_t end = st->pieces[from].host_off;

		op->st = st;
		op->first = from;
		op->n = 0;
		while (from < st->n_pieces && op->n < STAGE_IOV &&
			st->pieces[from].host_off == end) {
			op->iov[op->n++] =
				(struct iovec){st->pieces[from].copy, st->pieces[from].bytes};
			end += st->pieces[from++].bytes;
		}
		memset(&op->r, 0, sizeof(op->r));
		op->r.done = op_done;
		op->r.op = FILE_WRITE;
		op->r.iov = op->iov;
		op->r.niov = (int)op->n;
		op->r.off = st->pieces[op->first].host_off;
		op->r.len = end - op->r.off;
		q->fmt.metadata_bytes += op->r.len;
		st->in_flight++;
		file_submit(q->fmt.file, &op->r);
	}
	st->waiter = fiber_self();
	while (st->in_flight)
		fiber_suspend();
	return from;
}

/* Tells the tables how it went; the first error. */
static int settle(struct qcow2 *q, struct stage *st, struct cache *c, int all_err)
{
	int first = all_err;

	for (uint32_t i = 0; i < st->n_pieces; i++) {
		struct piece *p = &st->pieces[i];
		int err = all_err ? all_err : p->err;

		first = first ? first : err;
		if (p->slice) {
			cache_written(c, p->slice, err ? p->bits : 0);
			continue;
		}
		for (uint32_t s = 0; err && s < p->bytes / SECTOR; s++) {
			uint32_t at = p->l1_at + s;

			if (at * (SECTOR / 8) < q->l1.n) {
				q->l1.n_dirty += !q->l1.dirty[at];
				q->l1.dirty[at] = 1;
			}
		}
	}
	sync_note(&q->fmt.sync);
	return first;
}

static void say_l1(struct qcow2 *q, const struct stage *st)
{
	for (uint32_t i = 0; i < st->n_pieces; i++)
		if (!st->pieces[i].slice) {
			file_event(q->fmt.file, EV_L1_UPDATE);
			return;
		}
}

static int check_pieces(struct qcow2 *q, const struct stage *st, const struct cache *c)
{
	unsigned table = c == &q->l2 ? OVERLAP_ACTIVE_L2 : OVERLAP_REFCOUNT_BLOCK;
	int err = 0;

	for (uint32_t i = 0; i < st->n_pieces && !err; i++) {
		const struct piece *p = &st->pieces[i];

		err = qcow2_overlap_check(
			q, p->slice ? table : OVERLAP_ACTIVE_L1, p->host_off, p->bytes);
	}
	return err;
}

/* One round over the slices dirty now (at most *left of them) and, with L1, its dirty sectors. */
static int round_of(struct qcow2 *q, struct cache *c, bool with_l1, uint32_t *left)
{
	struct stage *st = q->stage;
	int err = 0;

	st->sectors = st->n_pieces = 0;
	st->need = 0;
	while (*left && room(st) && !list_empty(&c->dirty)) {
		stage_slice(q, st, c, list_first(&c->dirty, struct slice, dirty_link));
		--*left;
	}
	if (with_l1)
		stage_l1(q, st);
	if (!st->n_pieces)
		return 0;
	if (c == &q->l2)
		err = qcow2_data_sync(q);
	if (!err)
		err = sync_to(&q->fmt.sync, st->need);
	if (!err)
		err = check_pieces(q, st, c);
	file_event(q->fmt.file, c == &q->l2 ? EV_L2_UPDATE : EV_REFBLOCK_UPDATE_PART);
	if (with_l1 && q->fmt.file->inject)
		say_l1(q, st);
	if (!err) {
		qsort(st->pieces, st->n_pieces, sizeof(st->pieces[0]), by_offset);
		for (uint32_t at = 0; at < st->n_pieces;)
			at = write_some(q, st, at);
	}
	return settle(q, st, c, err);
}

static int write_cache(struct qcow2 *q, struct cache *c, bool with_l1)
{
	uint32_t left;
	int err = 0;

	fiber_lock(&q->commit_lock);
	left = c->n_dirty;
	do {
		err = round_of(q, c, with_l1, &left);
	} while (!err && ((left && c->n_dirty) || (with_l1 && q->l1.n_dirty && !room(q->stage))));
	fiber_unlock(&q->commit_lock);
	return err;
}

int qcow2_write_tables(struct qcow2 *q)
{
	return write_cache(q, &q->l2, true);
}

int qcow2_write_refs(struct qcow2 *q)
{
	return write_cache(q, &q->refs, false);
}

int qcow2_writeback_l2(void *q)
{
	return qcow2_write_tables(q);
}

int qcow2_writeback_refs(void *q)
{
	return qcow2_write_refs(q);
}

int qcow2_meta_write(struct qcow2 *q, unsigned own, const void *buf, uint64_t len, uint64_t off)
{
	int err = qcow2_overlap_check(q, own, off, len);

	if (err)
		return err;
	err = file_pwrite(q->fmt.file, buf, len, off);
	q->fmt.metadata_bytes += len;
	if (!err)
		sync_note(&q->fmt.sync);
	return err;
}

int qcow2_header_put(struct qcow2 *q)
{
	/* Which header is there may be what is not known: with ours it could be neither. */
	int err = q->fmt.sync.err;

	if (err)
		return err;
	err = qcow2_header_write(q->fmt.file, &q->h);
	q->fmt.metadata_bytes += SECTOR;
	if (!err)
		sync_note(&q->fmt.sync);
	return err;
}

int qcow2_header_commit(struct qcow2 *q)
{
	int err = qcow2_header_put(q);

	return err ? err : sync_to(&q->fmt.sync, q->fmt.sync.writes);
}
