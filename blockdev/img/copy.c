/* SPDX-License-Identifier: MIT */
/*
 * copy.c - copying disks.
 *
 * Some workers, each a fiber with a buffer, take pieces of the source in order.  A piece is a
 * stretch of zeros, of any length, or data up to a buffer's size.  A worker reads its piece, looks
 * for zeros in it, waits for its turn and writes it.  Where the target has clusters the
 * turn goes on when the write is done, so that a new image has its data in order; reads
 * go on meanwhile.  A raw target has its order anyway, and compressed clusters are worth more
 * in parallel than in order: there all writes are in flight at once.
 *
 * Progress moves where a chunk of qemu-img's size ends, as scripts compare what is printed.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/copy.h"

#define BUF_BYTES   (2 * MiB) /* smaller ones cost more switches between threads */
#define CHUNK_BYTES (2 * MiB)
#define PARTS	    64 /* writes in flight for one piece */

enum kind { KIND_ZERO, KIND_DATA, KIND_BELOW };

struct piece {
	uint64_t off, len;
	enum kind kind;
	uint64_t seq;
	uint64_t mark; /* so much of the data is done when this is; 0: the chunk goes on */
};

struct state;

struct part {
	struct blk_req r;
	struct iovec iov;
	struct worker *w;
};

struct worker {
	struct fiber_start start;
	struct state *s;
	struct fiber *fiber; /* that waits for the parts */
	uint8_t *buf;
	unsigned in_flight;
	bool waiting;
	int err;         /* of the parts */
	uint64_t err_off;
	struct part part[PARTS];
};

struct state {
	struct copy *c;
	uint64_t buf_bytes, unit; /* unit: zeros are looked for in so large pieces */
	bool in_turn;		  /* one piece is written after the other */
	struct fiber_lock cursor;
	uint64_t next_off, next_seq;   /* of the next piece */
	uint64_t known_until;          /* kind holds up to here */
	enum kind kind;
	uint64_t data_total, data_seen, data_done, chunk_left;
	uint64_t next_ns; /* with a rate: when the next piece may start */
	uint64_t turn; /* the piece that may be written */
	struct fiber_queue turn_q;
	unsigned alive;
	int err;
};

static void fail(struct state *s, int err, const char *what, uint64_t off)
{
	if (!s->err)
		log_error("error while %s at byte %" PRIu64 ": %s", what, off, strerror(-err));
	if (!s->err)
		s->err = err;
	fiber_queue_wake_all(&s->turn_q);
}

/* ---- what comes next ---- */

static const struct copy_source *source_at(const struct copy *c, uint64_t off)
{
	unsigned i = 0;

	while (i + 1 < c->n_src && off >= c->src[i + 1].start)
		i++;
	return &c->src[i];
}

/* One word of the source's map; with salvage, what cannot be mapped is data. */
static int source_map(struct copy *c, uint64_t off, struct extent *e)
{
	const struct copy_source *src = source_at(c, off);
	uint64_t at = off - src->start + src->skip;
	uint64_t len = min_u64(disk_size(src->disk) - at, c->total - off);
	int err;

	for (;;) {
		err = c->over_backing ? disk_extent(src->disk, at, len, e)
				      : disk_map(src->disk, at, len, e);
		if (!err || !c->salvage)
			break;
		if (len <= SECTOR) {
			if (!c->quiet)
				log_warn("error while reading block status at offset %" PRIu64
					 ": %s",
					off, strerror(-err));
			*e = (struct extent){.kind = EXTENT_DATA, .len = len};
			return 0;
		}
		len = round_up(len / 2, SECTOR);
	}
	if (err)
		log_error("error while reading block status at offset %" PRIu64 ": %s", off,
			strerror(-err));
	return err;
}

/* Finds out of what kind the source is at off, and how far that goes. */
static int source_kind(struct copy *c, uint64_t off, enum kind *kind, uint64_t *until)
{
	bool beyond = c->over_backing && off >= c->backing_size;
	struct extent e;
	int err = source_map(c, off, &e);

	if (err)
		return err;
	*until = off + e.len;
	if (c->over_backing && !beyond)
		*until = min_u64(*until, c->backing_size);
	if (e.kind == EXTENT_DATA)
		*kind = KIND_DATA;
	else if (c->over_backing && (beyond || e.kind == EXTENT_HOLE))
		*kind = KIND_BELOW;
	else
		*kind = c->min_sparse ? KIND_ZERO : KIND_DATA;
	return 0;
}

static int count_data(struct state *s)
{
	uint64_t off = 0, until;
	enum kind kind;

	while (off < s->c->total) {
		int err = source_kind(s->c, off, &kind, &until);

		if (err)
			return err;
		if (kind == KIND_DATA)
			s->data_total += until - off;
		off = until;
	}
	return 0;
}

/* A compressed write is a whole cluster: what lies there in part only is copied whole. */
static void whole_cluster(struct state *s, struct piece *p)
{
	uint64_t rest = s->c->total - p->off;

	if (p->len >= s->buf_bytes) {
		p->len = p->kind == KIND_DATA ? s->buf_bytes : round_down(p->len, s->buf_bytes);
	} else if (p->len < rest) {
		p->len = min_u64(s->buf_bytes, rest);
		p->kind = KIND_DATA;
	}
}

static void count_piece(struct state *s, struct piece *p, uint64_t data)
{
	if (p->kind != KIND_DATA)
		return;
	s->data_seen = min_u64(s->data_seen + data, s->data_total);
	s->chunk_left -= min_u64(s->chunk_left, p->len);
	if (!s->chunk_left || s->next_off >= s->known_until) {
		s->chunk_left = CHUNK_BYTES;
		p->mark = s->data_seen;
	}
}

/* false: there is nothing left, or an error. */
static bool next_piece(struct state *s, struct piece *p)
{
	uint64_t data;
	int err;

	fiber_lock(&s->cursor);
	if (!s->err && s->next_off < s->c->total && s->next_off >= s->known_until) {
		err = source_kind(s->c, s->next_off, &s->kind, &s->known_until);
		if (err && !s->err)
			s->err = err;
	}
	if (s->err || s->next_off >= s->c->total) {
		fiber_unlock(&s->cursor);
		return false;
	}
	*p = (struct piece){.off = s->next_off, .kind = s->kind, .seq = s->next_seq++};
	p->len = s->known_until - p->off;
	data = p->kind == KIND_DATA ? p->len : 0;
	if (s->c->compress)
		whole_cluster(s, p);
	else if (p->kind == KIND_DATA) /* up to a multiple, so that the next ones are aligned */
		p->len = min_u64(p->len, s->buf_bytes - p->off % s->buf_bytes);
	s->next_off += p->len;
	count_piece(s, p, min_u64(data, p->len));
	fiber_unlock(&s->cursor);
	return true;
}

/* ---- reading ---- */

static int read_salvage(
	struct copy *c, const struct copy_source *src, uint8_t *buf, uint64_t at, uint64_t len)
{
	for (uint64_t done = 0; done < len; done += SECTOR) {
		uint64_t n = min_u64(SECTOR, len - done);
		int err = disk_pread(src->disk, buf + done, n, at + done);

		if (!err)
			continue;
		if (!c->quiet)
			log_warn("error while reading offset %" PRIu64 ": %s",
				src->start + at - src->skip + done, strerror(-err));
		memset(buf + done, 0, n);
	}
	return 0;
}

static int read_piece(struct copy *c, const struct piece *p, uint8_t *buf, uint64_t *err_off)
{
	uint64_t done = 0;

	while (done < p->len) {
		const struct copy_source *src = source_at(c, p->off + done);
		uint64_t at = p->off + done - src->start + src->skip;
		uint64_t n = min_u64(p->len - done, disk_size(src->disk) - at);
		int err = disk_pread(src->disk, buf + done, n, at);

		if (err && c->salvage)
			err = read_salvage(c, src, buf + done, at, n);
		if (err) {
			*err_off = p->off + done;
			return err;
		}
		done += n;
	}
	return 0;
}

/* ---- writing ---- */

static void part_done(struct blk_req *r, int err)
{
	struct part *p = container_of(r, struct part, r);
	struct worker *w = p->w;

	if (err && !w->err) {
		w->err = err;
		w->err_off = r->off;
	}
	r->done = NULL; /* free again */
	w->in_flight--;
	if (w->waiting) {
		w->waiting = false;
		fiber_wake(w->fiber);
	}
}

static void wait_parts(struct worker *w, unsigned below)
{
	while (w->in_flight >= below) {
		w->waiting = true;
		fiber_suspend();
	}
}

static void submit_part(
	struct worker *w, enum blk_op op, unsigned flags, uint8_t *buf, uint64_t off, uint64_t len)
{
	struct part *p = w->part;

	wait_parts(w, PARTS);
	while (p->r.done)
		p++;
	p->w = w;
	p->iov = (struct iovec){buf, len};
	p->r = (struct blk_req){.done = part_done,
		.op = op,
		.flags = flags,
		.iov = buf ? &p->iov : NULL,
		.niov = buf ? 1 : 0,
		.off = off,
		.len = len};
	w->in_flight++;
	disk_submit(w->s->c->dst, &p->r);
}

static void submit_zeros(struct worker *w, uint64_t off, uint64_t len)
{
	if (!w->s->c->zero_init)
		submit_part(w, BLK_ZEROES, BLK_UNMAP, NULL, off, len);
}

/* How far from at on is it zeros, or is it not, in whole units of the target's offsets? */
static uint64_t run_at(
	const struct state *s, const uint8_t *buf, const struct piece *p, uint64_t at, bool *zero)
{
	uint64_t end = at;

	while (end < p->len) {
		uint64_t n = min_u64(s->unit - (p->off + end) % s->unit, p->len - end);
		bool z = mem_is_zero(buf + end, n);

		if (end == at)
			*zero = z;
		else if (z != *zero)
			break;
		end += n;
	}
	return end - at;
}

/* Data and zeros take turns; too few zeros between data are data. */
static void submit_data(struct worker *w, const struct piece *p)
{
	const struct state *s = w->s;
	uint64_t at = 0, data_from = 0, data = 0;

	if (!s->c->min_sparse) {
		submit_part(w, BLK_WRITE, 0, w->buf, p->off, p->len);
		return;
	}
	while (at < p->len) {
		bool zero = false;
		uint64_t n = run_at(s, w->buf, p, at, &zero);

		if (zero && (!data || n >= s->c->min_sparse)) {
			if (data)
				submit_part(w, BLK_WRITE, 0, w->buf + data_from,
					p->off + data_from, data);
			submit_zeros(w, p->off + at, n);
			data_from = at + n;
			data = 0;
		} else {
			data += n;
		}
		at += n;
	}
	if (data)
		submit_part(w, BLK_WRITE, 0, w->buf + data_from, p->off + data_from, data);
}

static void submit_piece(struct worker *w, const struct piece *p)
{
	const struct copy *c = w->s->c;

	if (p->kind == KIND_BELOW)
		return;
	if (p->kind == KIND_ZERO)
		submit_zeros(w, p->off, p->len);
	else if (!c->compress)
		submit_data(w, p);
	else if (c->min_sparse && mem_is_zero(w->buf, p->len))
		submit_zeros(w, p->off, p->len);
	else
		submit_part(w, BLK_WRITE, BLK_COMPRESSED, w->buf, p->off, p->len);
}

static void wait_turn(struct state *s, uint64_t seq)
{
	while (s->in_turn && s->turn != seq && !s->err)
		fiber_queue_wait(&s->turn_q);
}

static void pass_turn(struct state *s)
{
	s->turn++;
	fiber_queue_wake_all(&s->turn_q);
}

static void finish_piece(struct state *s, const struct piece *p)
{
	if (p->mark > s->data_done) {
		s->data_done = p->mark;
		progress_set(s->c->progress, s->data_done, s->data_total);
	}
}

struct nap {
	struct loop_timer timer;
	struct fiber *fiber;
};

static void nap_over(struct loop_timer *t)
{
	fiber_wake(container_of(t, struct nap, timer)->fiber);
}

/* Waits until the rate allows len bytes more. */
static void wait_rate(struct state *s, uint64_t len)
{
	struct nap n = {.timer.fn = nap_over, .fiber = fiber_self()};
	uint64_t now = loop_now_ns(), start;

	if (!s->c->rate)
		return;
	start = max_u64(now, s->next_ns);
	s->next_ns = start + (uint64_t)((double)len * 1e9 / (double)s->c->rate);
	if (start == now)
		return;
	loop_timer_set(s->c->loop, &n.timer, start);
	fiber_suspend();
}

static void work(struct fiber_start *start)
{
	struct worker *w = container_of(start, struct worker, start);
	struct state *s = w->s;
	struct piece p;

	w->fiber = fiber_self();
	while (next_piece(s, &p)) {
		uint64_t err_off = p.off;
		int err = 0;

		if (p.kind == KIND_DATA) {
			wait_rate(s, p.len);
			err = read_piece(s->c, &p, w->buf, &err_off);
		}
		if (err)
			fail(s, err, "reading", err_off);
		wait_turn(s, p.seq);
		if (s->err)
			break;
		submit_piece(w, &p);
		wait_parts(w, 1);
		if (w->err)
			fail(s, w->err, "writing", w->err_off);
		else
			finish_piece(s, &p);
		pass_turn(s);
	}
	s->alive--;
	fiber_queue_wake_all(&s->turn_q); /* after an error nobody passes the turn */
}

/* ---- all of it ---- */

static int count_fiber(void *arg)
{
	return count_data(arg);
}

static int copy_workers(struct state *s, struct worker *w)
{
	struct copy *c = s->c;

	for (unsigned i = 0; i < c->workers; i++) {
		w[i].s = s;
		w[i].start.fn = work;
		s->alive++;
		fiber_start(c->loop, &w[i].start);
	}
	while (s->alive) {
		int err = loop_turn(c->loop, true);

		if (err)
			return err;
	}
	return s->err;
}

int copy_run(struct copy *c)
{
	uint64_t cluster = disk_cluster_size(c->dst);
	struct state s = {.c = c, .buf_bytes = BUF_BYTES, .chunk_left = CHUNK_BYTES};
	struct worker *w = calloc(c->workers, sizeof(*w));
	int err = w ? 0 : -ENOMEM;

	s.in_turn = cluster && !c->compress && !c->any_order;
	if (c->compress)
		s.buf_bytes = cluster;
	else if (cluster > BUF_BYTES) /* zeros are looked for in whole clusters */
		s.buf_bytes = cluster;
	s.unit = cluster > SECTOR ? cluster : SECTOR;
	while (!c->compress && s.unit * 2 <= c->min_sparse)
		s.unit *= 2;
	s.buf_bytes = max_u64(s.buf_bytes, s.unit);
	fiber_lock_init(&s.cursor);
	fiber_queue_init(&s.turn_q);
	/* Compressing has threads of its own, and what it reads at once is small. */
	loop_copies(c->loop, c->workers > 1 && !c->compress);
	for (unsigned i = 0; !err && i < c->workers; i++) {
		w[i].buf = img_data_buf(s.buf_bytes);
		err = w[i].buf ? 0 : -ENOMEM;
	}
	if (err)
		log_error("%s", strerror(-err));
	else
		err = fiber_run(c->loop, count_fiber, &s);
	if (!err)
		err = copy_workers(&s, w);
	if (!err)
		progress_set(c->progress, 1, 1);
	for (unsigned i = 0; w && i < c->workers; i++)
		free(w[i].buf);
	free(w);
	return err;
}
