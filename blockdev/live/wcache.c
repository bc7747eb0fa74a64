/* SPDX-License-Identifier: MIT */
/*
 * wcache.c - see wcache.h.
 *
 * The cache is a list of operations, oldest first, in the form in which the crash model takes
 * them (crash/log.h).  It is walked from end to end by each read: CACHE_OPS says for how long.
 *
 * A read takes a copy of what the cache has for it when it is submitted, and lays that over what
 * the file gives: an operation that leaves the cache meanwhile cannot be missed.  A write that
 * comes meanwhile may be seen or not, as on any disk.
 *
 * What must wait, fdatasyncs and writes to a full cache, waits in one queue for one fiber.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/live/wcache.h"

#define CACHE_BYTES (64 * MiB) /* of data; as large as a disk's */
#define CACHE_OPS   8192

/* Of the level above the disk's own: they wait for it. */
#define FIBER_LEVEL 1

struct wcache {
	struct file file;
	struct wcache_user *user;
	uint64_t size;        /* of the file as it is seen above */
	struct crash_log log; /* host: what is in the cache */
	uint64_t bytes;       /* of data in it */
	bool dead, working;
	struct fiber_start worker;
	struct list queue; /* file_req.link: for the worker */
};

static struct wcache *wcache_of(struct file *f)
{
	return container_of(f, struct wcache, file);
}

/* ---- into the cache ---- */

static bool full(const struct wcache *c)
{
	return c->bytes >= CACHE_BYTES || c->log.n_host >= CACHE_OPS;
}

static int make_room(struct crash_log *log)
{
	uint64_t room = log->room_host ? 2 * log->room_host : 64;
	struct host_op *more;

	if (log->n_host < log->room_host)
		return 0;
	more = realloc(log->host, room * sizeof(*more));
	if (!more)
		return -ENOMEM;
	log->host = more;
	log->room_host = room;
	return 0;
}

static int copy_data(struct host_op *o, const struct file_req *r)
{
	uint8_t *to = file_buf(r->len);

	o->data = to;
	for (int i = 0; to && i < r->niov; i++) {
		memcpy(to, r->iov[i].iov_base, r->iov[i].iov_len);
		to += r->iov[i].iov_len;
	}
	return to ? 0 : -ENOMEM;
}

static int take(struct wcache *c, const struct file_req *r)
{
	struct host_op o = {.op = r->op, .off = r->off, .len = r->len, .completed = NEVER};
	uint64_t end;
	int err;

	if (__builtin_add_overflow(r->off, r->len, &end) || end > INT64_MAX)
		return -EFBIG;
	if (c->file.is_block && r->op != FILE_PUNCH && end > c->size)
		return -ENOSPC;
	if (r->op != FILE_TRUNCATE && !r->len)
		return 0;
	err = make_room(&c->log);
	if (!err && r->op == FILE_WRITE)
		err = copy_data(&o, r);
	if (err)
		return err;
	o.submitted = ++c->log.clock;
	c->log.host[c->log.n_host++] = o;
	c->bytes += o.data ? o.len : 0;
	if (r->op == FILE_TRUNCATE && !c->file.is_block)
		c->size = r->off;
	else if (r->op == FILE_WRITE || r->op == FILE_EXTEND)
		c->size = max_u64(c->size, end);
	return 0;
}

/* ---- out of it ---- */

static int punch(struct file *below, uint64_t off, uint64_t len)
{
	uint64_t size = file_size(below);

	/* Nothing is there behind the end, and punching must not put it there. */
	return off < size ? file_punch(below, off, min_u64(len, size - off)) : 0;
}

static int write_one(struct file *below, const struct host_op *o)
{
	switch (o->op) {
	case FILE_WRITE:
		return file_pwrite(below, o->data, o->len, o->off);
	case FILE_EXTEND:
		return file_extend(below, o->off, o->len);
	case FILE_PUNCH:
		return punch(below, o->off, o->len);
	case FILE_TRUNCATE:
		return file_truncate(below, o->off);
	case FILE_READ:
	case FILE_FDATASYNC:
		break;
	}
	assert(!"is in no cache");
	return -EINVAL;
}

static void forget(struct wcache *c, uint64_t n)
{
	if (!n)
		return;
	for (uint64_t i = 0; i < n; i++) {
		c->bytes -= c->log.host[i].data ? c->log.host[i].len : 0;
		free(c->log.host[i].data);
	}
	c->log.n_host -= n;
	memmove(c->log.host, c->log.host + n, c->log.n_host * sizeof(*c->log.host));
}

/* In the worker: the oldest n reach the file below; sync (NULL: no) makes them durable there. */
static int write_back(struct wcache *c, uint64_t n, const struct file_req *sync)
{
	struct file *below = c->file.below;
	int err = 0;

	for (uint64_t i = 0; i < n && !err; i++) {
		struct host_op o = c->log.host[i]; /* the list may move meanwhile */

		err = write_one(below, &o);
	}
	if (!err && sync)
		err = sync->here ? file_fdatasync_here(below) : file_fdatasync(below);
	if (!err)
		forget(c, n);
	return err;
}

static int carry_out(struct wcache *c, const struct file_req *r)
{
	int err = 0;

	if (c->dead)
		return -ESHUTDOWN;
	if (r->op == FILE_FDATASYNC)
		return write_back(c, c->log.n_host, r);
	if (full(c))
		err = write_back(c, (c->log.n_host + 1) / 2, NULL);
	if (c->dead)
		return -ESHUTDOWN;
	return err ? err : take(c, r);
}

static void worker_main(struct fiber_start *s)
{
	struct wcache *c = container_of(s, struct wcache, worker);
	struct list *n;

	while ((n = list_pop(&c->queue))) {
		struct file_req *r = list_entry(n, struct file_req, link);

		file_finish(&c->file, r, carry_out(c, r));
	}
	c->working = false;
}

static void to_worker(struct wcache *c, struct file_req *r)
{
	list_add_tail(&c->queue, &r->link);
	if (c->working)
		return;
	c->working = true;
	c->worker.fn = worker_main;
	fiber_start_at(c->file.loop, &c->worker, FIBER_LEVEL);
}

/* ---- reading ---- */

/* A part of a read that the cache has; data NULL: zeros. */
struct overlay {
	uint64_t at, len; /* bytes from the read's start */
	uint8_t *data;
};

struct cached_read {
	struct file_req below;
	struct file_req *r;
	uint64_t n;
	struct overlay over[];
};

static bool overlay_of(const struct host_op *o, const struct file_req *r, struct overlay *v)
{
	uint64_t end = o->op == FILE_TRUNCATE ? UINT64_MAX : o->off + o->len, from, to;

	if (o->op == FILE_EXTEND || o->off >= r->off + r->len || end <= r->off)
		return false;
	from = max_u64(o->off, r->off);
	to = min_u64(end, r->off + r->len);
	*v = (struct overlay){from - r->off, to - from, NULL};
	return true;
}

static void read_free(struct cached_read *t)
{
	for (uint64_t i = 0; i < t->n; i++)
		free(t->over[i].data);
	free(t);
}

static void lay_over(const struct file_req *r, const struct overlay *v)
{
	uint64_t at = 0, end = v->at + v->len;

	for (int i = 0; i < r->niov && at < end; at += r->iov[i++].iov_len) {
		uint64_t from = max_u64(at, v->at), to = min_u64(at + r->iov[i].iov_len, end);
		uint8_t *mem = r->iov[i].iov_base;

		if (from >= to)
			continue;
		if (v->data)
			memcpy(mem + (from - at), v->data + (from - v->at), to - from);
		else
			memset(mem + (from - at), 0, to - from);
	}
}

static void read_done(struct file_req *below, int err)
{
	struct cached_read *t = container_of(below, struct cached_read, below);
	struct file_req *r = t->r;

	for (uint64_t i = 0; i < t->n && !err; i++)
		lay_over(r, &t->over[i]);
	read_free(t);
	r->done(r, err);
}

/* NULL: no memory. */
static struct cached_read *read_new(struct wcache *c, struct file_req *r, uint64_t n)
{
	struct cached_read *t = malloc(sizeof(*t) + n * sizeof(t->over[0]));

	if (!t)
		return NULL;
	t->below = file_req_below(r, read_done);
	t->r = r;
	t->n = 0;
	for (uint64_t i = 0; i < c->log.n_host; i++) {
		const struct host_op *o = &c->log.host[i];
		struct overlay *v = &t->over[t->n];

		if (!overlay_of(o, r, v))
			continue;
		t->n++;
		if (!o->data)
			continue;
		v->data = malloc(v->len);
		if (!v->data) {
			read_free(t);
			return NULL;
		}
		memcpy(v->data, o->data + (r->off + v->at - o->off), v->len);
	}
	return t;
}

static void submit_read(struct wcache *c, struct file_req *r)
{
	struct cached_read *t;
	struct overlay v;
	uint64_t n = 0;

	for (uint64_t i = 0; i < c->log.n_host; i++)
		n += overlay_of(&c->log.host[i], r, &v);
	if (!n) {
		file_submit(c->file.below, r);
		return;
	}
	t = read_new(c, r, n);
	if (t)
		file_submit(c->file.below, &t->below);
	else
		file_finish(&c->file, r, -ENOMEM);
}

/* ---- the file ---- */

static void wcache_submit(struct file *f, struct file_req *r)
{
	struct wcache *c = wcache_of(f);

	if (r->op == FILE_FDATASYNC && !c->dead)
		c->user->syncing(c->user);
	if (c->dead)
		file_finish(f, r, -ESHUTDOWN);
	else if (r->op == FILE_READ)
		submit_read(c, r);
	else if (r->op == FILE_FDATASYNC || full(c))
		to_worker(c, r);
	else
		file_finish(f, r, take(c, r));
}

static uint64_t wcache_size(struct file *f)
{
	return wcache_of(f)->size;
}

/* What is in the cache, the file below does not know. */
static bool wcache_find_data(struct file *f, uint64_t off, uint64_t *len)
{
	return true;
}

static int write_rest(void *arg)
{
	struct wcache *c = arg;

	return write_back(c, c->log.n_host, NULL);
}

static void wcache_close(struct file *f)
{
	struct wcache *c = wcache_of(f);
	int err = 0;

	if (c->log.n_host && !c->dead)
		err = fiber_run(f->loop, write_rest, c);
	if (err)
		log_error("what was in the disk's write cache is lost: %s", why_text(NULL, err));
	crash_log_fini(&c->log);
	free(c);
}

static const struct file_ops wcache_ops = {
	.name = "wcache",
	.submit = wcache_submit,
	.size = wcache_size,
	.find_data = wcache_find_data,
	.close = wcache_close,
};

int wcache_open(struct file *f, struct wcache_user *u, struct file **out)
{
	struct wcache *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->file = *f;
	c->file.ops = &wcache_ops;
	c->file.below = f;
	c->user = u;
	c->size = file_size(f);
	crash_log_init(&c->log);
	list_init(&c->queue);
	*out = &c->file;
	return 0;
}

void wcache_die(struct file *f)
{
	wcache_of(f)->dead = true;
}

/* ---- the power cut ---- */

/* In the file below, which is long enough or becomes so. */
static int keep(struct file *below, const struct crash_model *m, const struct crash_choice *c,
	uint32_t i)
{
	const struct host_op *o = &m->log->host[m->pending[i]];
	struct crash_piece p = {0};
	int err = 0;

	while (!err && model_next_piece(m, c, i, &p)) {
		if (o->op == FILE_WRITE)
			err = file_pwrite(below, o->data + p.at, p.len, o->off + p.at);
		else
			err = punch(below, o->off + p.at, p.len);
	}
	return err;
}

static int apply(struct file *below, const struct crash_model *m, const struct crash_choice *c)
{
	int err = 0;

	for (uint32_t k = 0; k < m->n_pending && !err; k++)
		err = keep(below, m, c, c->reversed ? m->n_pending - 1 - k : k);
	if (!err && !below->is_block && file_size(below) != c->size)
		err = file_truncate(below, c->size);
	return err ? err : file_fdatasync(below);
}

static void count(const struct crash_model *m, const struct crash_choice *c, struct live_left *sum)
{
	for (uint32_t i = 0; i < m->n_pending; i++) {
		if (!model_has_data(&m->log->host[m->pending[i]]))
			continue;
		sum->at_risk++;
		sum->lost += c->fate[i] == FATE_LOST;
		sum->kept += c->fate[i] == FATE_WHOLE;
		sum->torn += c->fate[i] == FATE_TORN;
	}
}

int wcache_cut(
	struct file *f, enum cut_policy p, uint64_t seed, uint32_t unit, struct live_left *sum)
{
	struct wcache *c = wcache_of(f);
	struct crash_choice choice = {.fate = calloc(c->log.n_host + 1, 1)};
	struct mem_image start;
	struct crash_model m;
	int err = -ENOMEM;

	assert(c->dead && !c->working);
	if (choice.fate) {
		/* Only its length counts: what is durable is in the file. */
		mem_init(&start);
		start.size = file_size(f->below);
		model_init(&m, &c->log, &start);
		model_advance(&m, c->log.clock);
		policy_choose(&m, p, seed, unit, &choice);
		count(&m, &choice, sum);
		err = apply(f->below, &m, &choice);
		model_fini(&m);
	}
	free(choice.fate);
	return err;
}
