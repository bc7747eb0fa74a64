/* SPDX-License-Identifier: MIT */
/*
 * facts.c - see facts.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/facts.h"

#define PER_PAGE (MEM_PAGE / SECTOR)

static uint64_t stamps;

uint64_t facts_hash(const void *content)
{
	const uint64_t *w = content;
	uint64_t h[4] = {1, 2, 3, 4}, any = 0, all = 0;

	for (unsigned k = 0; k < SECTOR / 8; k += 4) {
		for (unsigned lane = 0; lane < 4; lane++) {
			h[lane] = (h[lane] ^ w[k + lane]) * 0x9E3779B97F4A7C15ULL;
			h[lane] ^= h[lane] >> 32;
			any |= w[k + lane];
		}
	}
	if (!any)
		return 0;
	for (unsigned lane = 0; lane < 4; lane++) {
		all = (all ^ h[lane]) * 0xD6E8FEB86659FD93ULL;
		all ^= all >> 32;
	}
	return all + !all;
}

/* A new fact, also for zeros; returns its number. */
static uint32_t add(struct facts *f, const void *content)
{
	uint64_t hash = facts_hash(content);

	if (f->n == f->room) {
		f->room *= 2;
		f->fact = realloc(f->fact, f->room * sizeof(*f->fact));
		if (!f->fact)
			abort();
	}
	f->fact[f->n] = (struct fact){
		.hash = hash, .word = f->hashes || !hash ? hash : oracle_word(content)};
	return (uint32_t)f->n++;
}

static void set_durable(struct facts *f, uint64_t sector, uint32_t fact)
{
	f->digest -= fact_at(&f->fact[f->durable[sector]], sector);
	f->durable[sector] = fact;
	f->digest += fact_at(&f->fact[fact], sector);
}

static void learn_durable(struct facts *f, uint64_t first, uint64_t end)
{
	for (uint64_t s = first; s < end; s++) {
		const uint8_t *page = mem_page(&f->m->durable, s / PER_PAGE);

		if (page) /* once there is one, it stays */
			set_durable(f, s, add(f, page + s % PER_PAGE * SECTOR));
		else
			s |= PER_PAGE - 1;
	}
}

static bool whole_sectors(const struct crash_log *log)
{
	for (uint64_t i = 0; i < log->n_host; i++)
		if (model_has_data(&log->host[i]) &&
			(log->host[i].off % SECTOR || log->host[i].len % SECTOR))
			return false;
	return true;
}

void facts_init(struct facts *f, struct crash_model *m, bool hashes)
{
	const struct crash_log *log = m->log;
	uint64_t bytes = m->durable.size;

	*f = (struct facts){.m = m, .n = 1, .room = 4096, .hashes = hashes};
	f->usable = whole_sectors(log);
	if (!f->usable)
		return;
	for (uint64_t i = 0; i < log->n_host; i++)
		bytes = max_u64(bytes, log->host[i].off + log->host[i].len);
	f->n_sectors = round_up(bytes, MEM_PAGE) / SECTOR;
	f->fact = calloc(f->room, sizeof(*f->fact));
	f->of_op = calloc(log->n_host + 1, sizeof(*f->of_op));
	f->durable = calloc(f->n_sectors, sizeof(*f->durable));
	f->over = calloc(f->n_sectors, sizeof(*f->over));
	f->touched = calloc(f->n_sectors, sizeof(*f->touched));
	if (!f->fact || !f->of_op || !f->durable || !f->over || !f->touched)
		abort();
	learn_durable(f, 0, f->n_sectors);
	m->n_changed = 0;
	f->stamp = ++stamps;
}

void facts_fini(struct facts *f)
{
	free(f->fact);
	free(f->of_op);
	free(f->durable);
	free(f->over);
	free(f->touched);
	*f = (struct facts){0};
}

void facts_update(struct facts *f, struct crash_model *m)
{
	for (uint64_t i = 0; f->usable && i < m->n_changed; i++) {
		const struct crash_range *r = &m->changed[i];

		learn_durable(f, r->off / SECTOR,
			min_u64(f->n_sectors, div_round_up(r->off + r->len, SECTOR)));
		if (m->log->used)
			m->log->used(m->log->used_arg, r->len);
	}
	if (m->n_changed)
		f->stamp = ++stamps;
	m->n_changed = 0;
}

/* Those of one operation's sectors follow each other. */
static uint32_t facts_of(struct facts *f, uint32_t i)
{
	const struct host_op *o = &f->m->log->host[i];

	if (!f->of_op[i]) {
		f->of_op[i] = (uint32_t)f->n;
		for (uint64_t at = 0; at < o->len; at += SECTOR)
			add(f, o->data + at);
	}
	return f->of_op[i];
}

static void put(struct facts *f, uint64_t sector, uint32_t fact)
{
	if (!f->over[sector])
		f->touched[f->n_touched++] = sector;
	f->over[sector] = fact + 1;
}

/* The file ends inside a sector that a write has reached: what is past the end is gone. */
static void cut_last(struct facts *f, const uint8_t *data)
{
	uint64_t part[SECTOR / 8] = {0};

	memcpy(part, data, f->bytes % SECTOR);
	put(f, f->size - 1, add(f, part));
}

void facts_choose(struct facts *f, const struct crash_choice *c)
{
	const struct crash_model *m = f->m;

	for (uint64_t i = 0; i < f->n_touched; i++)
		f->over[f->touched[i]] = 0;
	f->n_touched = 0;
	f->bytes = c->size;
	f->size = div_round_up(c->size, SECTOR);
	for (uint32_t k = 0; k < m->n_pending; k++) {
		uint32_t i = c->reversed ? m->n_pending - 1 - k : k;
		const struct host_op *o = &m->log->host[m->pending[i]];
		struct crash_piece p = {0};

		while (model_next_piece(m, c, i, &p)) {
			uint32_t fact = 0, step = o->op == FILE_WRITE;
			uint64_t at;

			if (step)
				fact = facts_of(f, m->pending[i]) + (uint32_t)(p.at / SECTOR);
			for (at = p.at; at < p.at + p.len; at += SECTOR, fact += step)
				put(f, (o->off + at) / SECTOR, fact);
			at = (f->size - 1) * SECTOR;
			if (step && f->bytes % SECTOR && at >= o->off + p.at &&
				at < o->off + p.at + p.len)
				cut_last(f, o->data + (at - o->off));
		}
	}
}

uint64_t facts_digest(const struct facts *f)
{
	uint64_t d = f->digest, end = div_round_up(f->m->durable.size, SECTOR);

	for (uint64_t i = 0; i < f->n_touched; i++) {
		uint64_t s = f->touched[i];

		d += fact_at(facts_get(f, s), s) - fact_at(facts_durable(f, s), s);
	}
	/* A shorter file than the durable one: its end is gone. */
	for (uint64_t s = f->size; s < end; s++)
		if (!f->over[s])
			d -= fact_at(facts_durable(f, s), s);
	return d;
}

bool facts_agree(const struct facts *f, const struct mem_image *img)
{
	for (uint64_t i = 0; i < f->n_touched; i++) {
		const uint8_t *page = mem_page(img, f->touched[i] / PER_PAGE);
		uint64_t hash = 0;

		if (page)
			hash = facts_hash(page + f->touched[i] % PER_PAGE * SECTOR);
		if (hash != facts_get(f, f->touched[i])->hash)
			return false;
	}
	for (uint64_t k = 0; k < img->n_used; k++) {
		uint64_t first = img->used[k] * PER_PAGE;

		for (uint64_t s = first; s < first + PER_PAGE; s++)
			if (facts_hash(mem_page(img, s / PER_PAGE) + s % PER_PAGE * SECTOR) !=
				facts_get(f, s)->hash)
				return false;
	}
	return img->size == f->bytes;
}
