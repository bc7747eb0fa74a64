/* SPDX-License-Identifier: MIT */
/*
 * model.c - see model.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/model.h"

void model_init(struct crash_model *m, const struct crash_log *log, const struct mem_image *start)
{
	*m = (struct crash_model){.log = log};
	mem_init(&m->durable);
	mem_reset(&m->durable, start);
}

void model_fini(struct crash_model *m)
{
	mem_fini(&m->durable);
	free(m->pending);
	free(m->changed);
	free(m->clips);
}

static bool changes_size(const struct host_op *o)
{
	return o->op == FILE_WRITE || o->op == FILE_EXTEND || o->op == FILE_TRUNCATE;
}

static uint64_t size_after(const struct host_op *o, uint64_t size)
{
	if (o->op == FILE_TRUNCATE)
		return o->off;
	return max_u64(size, o->off + o->len);
}

bool model_has_data(const struct host_op *o)
{
	return o->op == FILE_WRITE || o->op == FILE_PUNCH;
}

/* The next piece of unit bytes from byte from on that is kept; tear 0: all at once. */
static bool next_kept(const struct host_op *o, uint32_t unit, uint64_t from, struct crash_piece *p)
{
	for (; from < o->len; from = p->end) {
		p->at = from;
		if (!p->tear) {
			p->end = o->len;
			return true;
		}
		/* Pieces of the file, wherever the write begins. */
		p->end = from + min_u64(unit - (o->off + from) % unit, o->len - from);
		p->tear ^= p->tear << 13;
		p->tear ^= p->tear >> 7;
		p->tear ^= p->tear << 17;
		if (p->tear & 1)
			return true;
	}
	return false;
}

/* Makes p its first part that nothing has overtaken; false: there is none. */
static bool clip(const struct crash_model *m, const struct host_op *o, struct crash_piece *p)
{
	p->len = p->end - p->at;
	for (uint64_t i = 0; i < m->n_clips && p->at < p->end; i++) {
		const struct crash_clip *c = &m->clips[i];
		uint64_t from = o->off + p->at;

		if (c->submitted <= o->completed || !ranges_overlap(c->off, c->len, from, p->len))
			continue;
		if (c->off > from) {
			p->len = c->off - from;
			continue;
		}
		p->at = min_u64(p->end, c->off + c->len - o->off);
		p->len = p->end - p->at;
		i = UINT64_MAX; /* what is left begins elsewhere: all of them again */
	}
	return p->at < p->end;
}

static bool next_piece(
	const struct crash_model *m, const struct host_op *o, uint32_t unit, struct crash_piece *p)
{
	assert(is_pow2(unit) && unit <= MEM_PAGE);
	for (;;) {
		p->at += p->len;
		p->len = 0;
		if (p->at >= p->end && !next_kept(o, unit, p->at, p))
			return false;
		if (!m->n_clips)
			p->len = p->end - p->at;
		if (!m->n_clips || clip(m, o, p))
			return true;
	}
}

/* Whole, or by pieces of unit bytes; never changes the file's length. */
static void apply_data(const struct crash_model *m, struct mem_image *img, const struct host_op *o,
	uint64_t tear, uint32_t unit)
{
	static const uint8_t zeros[MEM_PAGE];
	struct crash_piece p = {.tear = tear};

	if (!model_has_data(o))
		return;
	while (next_piece(m, o, unit, &p)) {
		if (o->op == FILE_WRITE) {
			mem_lend(img, o->data + p.at, p.len, o->off + p.at);
			continue;
		}
		for (uint64_t at = p.at; at < p.at + p.len; at += MEM_PAGE)
			mem_write(img, zeros, min_u64(MEM_PAGE, p.at + p.len - at), o->off + at,
				false);
	}
}

static uint64_t tear_of(const struct crash_choice *c, uint32_t i)
{
	return c->fate[i] == FATE_TORN ? c->tear + i + 1 : 0;
}

bool model_next_piece(const struct crash_model *m, const struct crash_choice *c, uint32_t i,
	struct crash_piece *p)
{
	const struct host_op *o = &m->log->host[m->pending[i]];

	if (c->fate[i] == FATE_LOST || !model_has_data(o))
		return false;
	if (!p->begun)
		*p = (struct crash_piece){.tear = tear_of(c, i), .begun = true};
	return next_piece(m, o, c->unit, p);
}

/* Two files may lie in one, each with fdatasyncs of its own (window.h). */
static bool covered(
	const struct crash_model *m, const struct host_op *o, const struct host_op *sync)
{
	bool inside = o->off >= sync->off && (!sync->len || o->off - sync->off < sync->len);

	return inside && o->completed < sync->submitted && o->completed <= m->at;
}

static void *more(void *p, uint64_t n, uint64_t *room, size_t each)
{
	if (n < *room)
		return p;
	*room = *room ? 2 * *room : 64;
	p = realloc(p, *room * each);
	if (!p)
		abort();
	return p;
}

static void note_change(struct crash_model *m, uint64_t off, uint64_t len)
{
	m->changed = more(m->changed, m->n_changed, &m->room_changed, sizeof(*m->changed));
	m->changed[m->n_changed++] = (struct crash_range){off, len};
}

/* o, the i-th of the log, is durable. */
static void settle(struct crash_model *m, const struct host_op *o, uint32_t i)
{
	/* Nobody knows how much of a failed one was done: nothing, some, or all of it. */
	if (o->err && i % 3 == 0)
		return;
	if (o->op == FILE_TRUNCATE && o->off < m->durable.size)
		note_change(m, o->off, m->durable.size - o->off);
	else if (model_has_data(o))
		note_change(m, o->off, o->len);
	if (changes_size(o))
		mem_set_size(&m->durable, size_after(o, m->durable.size));
	apply_data(m, &m->durable, o, o->err && i % 3 == 1 ? i : 0, SECTOR);
	m->epoch++;
}

static const struct host_op *pending(const struct crash_model *m, uint32_t i)
{
	return &m->log->host[m->pending[i]];
}

static bool overtakes(const struct crash_clip *c, const struct host_op *o)
{
	return model_has_data(o) && o->completed < c->submitted &&
	       ranges_overlap(c->off, c->len, o->off, o->len);
}

static bool overtakes_any(const struct crash_model *m, const struct crash_clip *c)
{
	for (uint32_t i = 0; i < m->n_pending; i++)
		if (overtakes(c, pending(m, i)))
			return true;
	return false;
}

static void drop_clips(struct crash_model *m)
{
	uint64_t kept = 0;

	for (uint64_t i = 0; i < m->n_clips; i++)
		if (overtakes_any(m, &m->clips[i]))
			m->clips[kept++] = m->clips[i];
	m->n_clips = kept;
}

/* An fdatasync has completed: what it covers is durable now, in the order of submission. */
static void make_durable(struct crash_model *m, const struct host_op *sync)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < m->n_pending; i++) {
		if (covered(m, pending(m, i), sync))
			settle(m, pending(m, i), m->pending[i]);
		else
			m->pending[kept++] = m->pending[i];
	}
	m->n_pending = kept;
	drop_clips(m);
}

static void forget_pending(struct crash_model *m, uint32_t i)
{
	memmove(m->pending + i, m->pending + i + 1, (--m->n_pending - i) * sizeof(*m->pending));
}

/* An operation that goes through has completed. */
static void made_it_through(struct crash_model *m, const struct host_op *o, uint32_t i)
{
	struct crash_clip c = {o->off, o->len, o->submitted};

	settle(m, o, i);
	if (!overtakes_any(m, &c))
		return;
	m->clips = more(m->clips, m->n_clips, &m->room_clips, sizeof(*m->clips));
	m->clips[m->n_clips++] = c;
}

static void add_submitted(struct crash_model *m)
{
	const struct crash_log *log = m->log;

	for (; m->next < log->n_host && log->host[m->next].submitted <= m->at; m->next++) {
		uint64_t room = m->room_pending;

		m->pending = more(m->pending, m->n_pending, &room, sizeof(*m->pending));
		m->room_pending = (uint32_t)room;
		m->pending[m->n_pending++] = (uint32_t)m->next;
	}
}

void model_advance(struct crash_model *m, uint64_t at)
{
	m->at = at;
	add_submitted(m);
	for (uint32_t i = 0; i < m->n_pending; i++) {
		const struct host_op *o = pending(m, i);
		uint32_t k = m->pending[i];

		if ((o->op != FILE_FDATASYNC && !o->through) || o->completed > at)
			continue;
		if (o->through && o->err)
			continue;
		forget_pending(m, i);
		if (o->through)
			made_it_through(m, o, k);
		else if (!o->err)
			make_durable(m, o);
		i = UINT32_MAX; /* the list has changed: from the start */
	}
}

uint32_t model_sizes(const struct crash_model *m, uint64_t *sizes, uint32_t max)
{
	uint64_t now = m->durable.size;
	uint32_t n = 0;

	sizes[n++] = now;
	for (uint32_t i = 0; i < m->n_pending && n < max; i++) {
		const struct host_op *o = &m->log->host[m->pending[i]];
		uint32_t k = 0;

		if (!changes_size(o))
			continue;
		now = size_after(o, now);
		while (k < n && sizes[k] != now)
			k++;
		if (k == n)
			sizes[n++] = now;
	}
	return n;
}

static void build_one(const struct crash_model *m, const struct crash_choice *c, uint32_t i,
	struct mem_image *out)
{
	const struct host_op *o = &m->log->host[m->pending[i]];

	if (c->fate[i] == FATE_LOST)
		return;
	apply_data(m, out, o, tear_of(c, i), c->unit);
}

void model_build(const struct crash_model *m, const struct crash_choice *c, struct mem_image *out)
{
	mem_reset(out, &m->durable);
	/* Data first, in a file that is long enough for all of it; then the length as chosen. */
	for (uint32_t i = 0; i < m->n_pending; i++) {
		const struct host_op *o = &m->log->host[m->pending[i]];

		if (changes_size(o) && o->op != FILE_TRUNCATE)
			out->size = max_u64(out->size, o->off + o->len);
	}
	for (uint32_t k = 0; k < m->n_pending; k++)
		build_one(m, c, c->reversed ? m->n_pending - 1 - k : k, out);
	mem_set_size(out, c->size);
}
