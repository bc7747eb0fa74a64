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

/* The next piece of unit bytes that is kept; tear 0: all at once.  False: no more. */
static bool next_piece(const struct host_op *o, uint32_t unit, struct crash_piece *p)
{
	uint64_t from = p->at + p->len;

	assert(is_pow2(unit) && unit <= MEM_PAGE);
	for (; from < o->len; from += p->len) {
		p->at = from;
		if (!p->tear) {
			p->len = o->len - from;
			return true;
		}
		/* Pieces of the file, wherever the write begins. */
		p->len = min_u64(unit - (o->off + from) % unit, o->len - from);
		p->tear ^= p->tear << 13;
		p->tear ^= p->tear >> 7;
		p->tear ^= p->tear << 17;
		if (p->tear & 1)
			return true;
	}
	return false;
}

/* Whole, or by pieces of unit bytes; never changes the file's length. */
static void apply_data(
	struct mem_image *img, const struct host_op *o, uint64_t tear, uint32_t unit)
{
	static const uint8_t zeros[MEM_PAGE];
	struct crash_piece p = {.tear = tear};

	if (!model_has_data(o))
		return;
	while (next_piece(o, unit, &p)) {
		if (o->op == FILE_WRITE) {
			mem_write(img, o->data + p.at, p.len, o->off + p.at, false);
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
	return next_piece(o, c->unit, p);
}

static bool covered(const struct crash_model *m, const struct host_op *o, uint64_t sync_submitted)
{
	return o->completed < sync_submitted && o->completed <= m->at;
}

static void note_change(struct crash_model *m, uint64_t off, uint64_t len)
{
	if (m->n_changed == m->room_changed) {
		m->room_changed = m->room_changed ? 2 * m->room_changed : 64;
		m->changed = realloc(m->changed, m->room_changed * sizeof(*m->changed));
		if (!m->changed)
			abort();
	}
	m->changed[m->n_changed++] = (struct crash_range){off, len};
}

/* An fdatasync has completed: what it covers is durable now, in the order of submission. */
static void make_durable(struct crash_model *m, const struct host_op *sync)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < m->n_pending; i++) {
		const struct host_op *o = &m->log->host[m->pending[i]];

		if (!covered(m, o, sync->submitted)) {
			m->pending[kept++] = m->pending[i];
			continue;
		}
		/* Nobody knows how much of a failed one was done: nothing, some, or all of it. */
		if (o->err && m->pending[i] % 3 == 0)
			continue;
		if (o->op == FILE_TRUNCATE && o->off < m->durable.size)
			note_change(m, o->off, m->durable.size - o->off);
		else if (model_has_data(o))
			note_change(m, o->off, o->len);
		if (changes_size(o))
			mem_set_size(&m->durable, size_after(o, m->durable.size));
		apply_data(&m->durable, o, o->err && m->pending[i] % 3 == 1 ? m->pending[i] : 0,
			SECTOR);
		m->epoch++;
	}
	m->n_pending = kept;
}

void model_advance(struct crash_model *m, uint64_t at)
{
	const struct crash_log *log = m->log;

	m->at = at;
	for (; m->next < log->n_host && log->host[m->next].submitted <= at; m->next++) {
		if (m->n_pending == m->room_pending) {
			m->room_pending = m->room_pending ? 2 * m->room_pending : 64;
			m->pending = realloc(m->pending, m->room_pending * sizeof(*m->pending));
			if (!m->pending)
				abort();
		}
		m->pending[m->n_pending++] = (uint32_t)m->next;
	}
	for (uint32_t i = 0; i < m->n_pending; i++) {
		const struct host_op *o = &log->host[m->pending[i]];

		if (o->op != FILE_FDATASYNC || o->completed > at)
			continue;
		memmove(m->pending + i, m->pending + i + 1,
			(--m->n_pending - i) * sizeof(*m->pending));
		if (!o->err)
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
	apply_data(out, o, tear_of(c, i), c->unit);
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
