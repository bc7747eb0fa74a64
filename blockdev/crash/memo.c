/* SPDX-License-Identifier: MIT */
/*
 * memo.c - see memo.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/seen.h"
#include "blockdev/crash/memo.h"

#define MEMO_READ    1
#define MEMO_WRITTEN 2
#define BUCKETS      (1u << 14)
#define BYTES_MAX    (96 * MiB) /* then all is forgotten */

struct memo_set {
	uint64_t id;
	uint64_t n, n_sectors;
	uint64_t *sector;
	uint8_t *has;           /* by sector */
	uint64_t stamp, digest; /* of what is durable in it, when facts had that stamp */
};

void memo_init(struct memo *m)
{
	*m = (struct memo){.bucket = calloc(BUCKETS, sizeof(*m->bucket))};
	if (!m->bucket)
		abort();
}

static void set_free(struct memo_set *s)
{
	free(s->sector);
	free(s->has);
	free(s);
}

static void forget(struct memo *m)
{
	for (unsigned i = 0; i < m->n_sets; i++)
		set_free(m->set[i]);
	for (unsigned i = 0; i < BUCKETS; i++) {
		while (m->bucket[i]) {
			struct memo_leaf *l = m->bucket[i];

			m->bucket[i] = l->next;
			free(l);
		}
	}
	m->n_sets = 0;
	m->bytes = 0;
}

void memo_fini(struct memo *m)
{
	forget(m);
	free(m->bucket);
	free(m->mark);
	free(m->noted);
	free(m->run);
}

static uint64_t mix(uint64_t x)
{
	return rng_next(&x);
}

/* What the state holds in the set's sectors, and how long it is. */
static uint64_t key_of(struct memo_set *s, const struct facts *f)
{
	uint64_t d;

	if (s->stamp != f->stamp) {
		s->stamp = f->stamp;
		s->digest = 0;
		for (uint64_t i = 0; i < s->n; i++)
			s->digest += fact_at(facts_durable(f, s->sector[i]), s->sector[i]);
	}
	d = s->digest;
	for (uint64_t i = 0; i < f->n_touched; i++) {
		uint64_t k = f->touched[i];

		if (k < s->n_sectors && s->has[k])
			d += fact_at(facts_get(f, k), k) - fact_at(facts_durable(f, k), k);
	}
	return mix(d ^ mix(f->bytes) ^ s->id);
}

/* A file that is shorter than the durable one has lost what key_of() takes to be there. */
static bool fit(const struct facts *f)
{
	return f->usable && f->bytes >= f->m->durable.size;
}

static void to_front(struct memo *m, unsigned i)
{
	struct memo_set *s = m->set[i];

	memmove(m->set + 1, m->set, i * sizeof(*m->set));
	m->set[0] = s;
}

const struct memo_leaf *memo_find(struct memo *m, const struct facts *f)
{
	for (unsigned i = 0; fit(f) && i < m->n_sets; i++) {
		uint64_t key = key_of(m->set[i], f);
		struct memo_leaf *l = m->bucket[key % BUCKETS];

		while (l && l->key != key)
			l = l->next;
		if (!l)
			continue;
		to_front(m, i);
		return l;
	}
	return NULL;
}

/* ---- noting ---- */

static void *room_for(void *p, uint64_t n, uint64_t *room, size_t each)
{
	if (n < *room)
		return p;
	*room = max_u64(2 * *room, n + 256);
	p = realloc(p, *room * each);
	if (!p)
		abort();
	return p;
}

static void note(void *arg, bool write, uint64_t off, uint64_t len)
{
	struct memo *m = arg;
	uint64_t end = div_round_up(off + len, SECTOR), had = m->n_mark;

	m->mark = room_for(m->mark, end, &m->n_mark, 1);
	memset(m->mark + had, 0, m->n_mark - had);
	for (uint64_t s = off / SECTOR; s < end; s++) {
		if (!m->mark[s]) {
			m->noted =
				room_for(m->noted, m->n_noted, &m->room_noted, sizeof(*m->noted));
			m->noted[m->n_noted++] = s;
		}
		m->mark[s] |= write ? MEMO_WRITTEN : MEMO_READ;
	}
}

void memo_begin(struct memo *m)
{
	for (uint64_t i = 0; i < m->n_noted; i++)
		m->mark[m->noted[i]] = 0;
	m->n_noted = m->n_runs = 0;
	m->unfit = false;
}

void memo_watch(struct memo *m, struct mem_image *img)
{
	img->watch = note;
	img->watch_arg = m;
}

void memo_unwatch(struct mem_image *img)
{
	img->watch = NULL;
}

void memo_map(struct memo *m, uint64_t guest, uint64_t host, uint64_t n)
{
	struct memo_run *last = m->n_runs ? &m->run[m->n_runs - 1] : NULL;
	bool zeros = host == MEMO_ZEROS;

	if (last && last->guest + last->n == guest && zeros == (last->host == MEMO_ZEROS) &&
		(zeros || last->host + last->n == host)) {
		last->n += n;
		return;
	}
	m->run = room_for(m->run, m->n_runs, &m->room_runs, sizeof(*m->run));
	m->run[m->n_runs++] = (struct memo_run){guest, host, n};
}

/* Is any of the guest's data where the repair has written? */
static bool wrote_data(const struct memo *m)
{
	for (uint64_t i = 0; i < m->n_runs; i++) {
		const struct memo_run *r = &m->run[i];

		for (uint64_t s = r->host; r->host != MEMO_ZEROS && s < r->host + r->n; s++)
			if (s < m->n_mark && (m->mark[s] & MEMO_WRITTEN))
				return true;
	}
	return false;
}

/* The set of the sectors that were noted; made if there is none. */
static struct memo_set *set_of_noted(struct memo *m, uint64_t n_sectors)
{
	struct memo_set *s;
	uint64_t id = 0, n = 0;

	for (uint64_t i = 0; i < m->n_noted; i++) {
		if (m->noted[i] >= n_sectors)
			continue; /* past the end */
		id += mix(m->noted[i]);
		n++;
	}
	for (unsigned i = 0; i < m->n_sets; i++)
		if (m->set[i]->id == id)
			return m->set[i];
	s = calloc(1, sizeof(*s));
	if (!s)
		abort();
	*s = (struct memo_set){.id = id,
		.n_sectors = n_sectors,
		.sector = malloc((n + 1) * sizeof(*s->sector)),
		.has = calloc(n_sectors, 1)};
	if (!s->sector || !s->has)
		abort();
	for (uint64_t i = 0; i < m->n_noted; i++) {
		if (m->noted[i] >= n_sectors)
			continue;
		s->sector[s->n++] = m->noted[i];
		s->has[m->noted[i]] = 1;
	}
	if (m->n_sets == MEMO_SETS)
		set_free(m->set[--m->n_sets]);
	m->set[m->n_sets++] = s;
	to_front(m, m->n_sets - 1);
	return s;
}

void memo_keep(struct memo *m, const struct facts *f, bool dirty, bool leaks)
{
	size_t bytes = sizeof(struct memo_leaf) + m->n_runs * sizeof(struct memo_run);
	struct memo_leaf *l, **bucket;

	if (!fit(f) || m->unfit || wrote_data(m))
		return;
	if (m->bytes + bytes > BYTES_MAX)
		forget(m);
	l = malloc(bytes);
	if (!l)
		abort();
	*l = (struct memo_leaf){.dirty = dirty, .leaks = leaks, .n_runs = (uint32_t)m->n_runs};
	memcpy(l->run, m->run, m->n_runs * sizeof(*m->run));
	l->key = key_of(set_of_noted(m, f->n_sectors), f);
	bucket = &m->bucket[l->key % BUCKETS];
	l->next = *bucket;
	*bucket = l;
	m->bytes += bytes;
}

bool memo_same(const struct memo *m, const struct memo_leaf *l, bool dirty, bool leaks)
{
	return l->dirty == dirty && l->leaks == leaks && l->n_runs == m->n_runs &&
	       !memcmp(l->run, m->run, m->n_runs * sizeof(*m->run));
}
