/* SPDX-License-Identifier: MIT */
/*
 * cache.c - see cache.h.
 *
 * Every slice is on the LRU list always; a victim is the oldest that is neither
 * borrowed, nor loading, nor dirty, nor on its way to the file.  If there is none, the
 * owner writes back and the search begins anew.
 *
 * A host that refuses tables must not keep anyone from reading: who wants to change a slice
 * leaves at least one clean (cache_get_rw()), and who only looks, and finds that writing back
 * fails, takes that one.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "blockdev/qcow2/cache.h"

#define SLICES_MIN 8u

static uint32_t bucket_of(const struct cache *c, uint64_t off)
{
	uint64_t x = off / c->slice_bytes * 0x9E3779B97F4A7C15ULL;

	return (uint32_t)(x >> 32) & (c->n_buckets - 1);
}

int cache_init(struct cache *c, struct file *f, uint32_t slice_bytes, uint64_t bytes,
	int (*writeback)(void *), void *arg)
{
	uint64_t n = max_u64(div_round_up(bytes, slice_bytes), SLICES_MIN);

	*c = (struct cache){.file = f,
		.slice_bytes = slice_bytes,
		.n_slices = (uint32_t)n,
		.writeback = writeback,
		.arg = arg};
	list_init(&c->lru);
	list_init(&c->dirty);
	fiber_queue_init(&c->q);
	for (c->n_buckets = 16; c->n_buckets < n; c->n_buckets *= 2)
		;
	c->slices = calloc(n, sizeof(*c->slices));
	c->buckets = calloc(c->n_buckets, sizeof(*c->buckets));
	/* mmap, not calloc: pages cost memory only when a slice is first used. */
	c->mem = mmap(
		NULL, n * slice_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (c->mem == MAP_FAILED)
		c->mem = NULL;
	if (!c->slices || !c->buckets || !c->mem) {
		cache_fini(c);
		return -ENOMEM;
	}
	for (uint64_t i = 0; i < n; i++) {
		struct slice *s = &c->slices[i];

		s->data = c->mem + i * slice_bytes;
		list_init(&s->dirty_link);
		list_add_tail(&c->lru, &s->lru);
	}
	return 0;
}

void cache_fini(struct cache *c)
{
	if (c->mem)
		munmap(c->mem, (uint64_t)c->n_slices * c->slice_bytes);
	free(c->slices);
	free(c->buckets);
	c->mem = NULL;
	c->slices = NULL;
	c->buckets = NULL;
}

static bool slice_ok(const struct cache *c, const struct slice *s)
{
	assert(s->host_off % c->slice_bytes == 0);
	assert(!s->dirty || s->host_off != 0);
	assert(!s->dirty == list_empty(&s->dirty_link));
	assert(!s->loading || !s->dirty);
	return true;
}

static struct slice *lookup(struct cache *c, uint64_t off)
{
	struct slice *s = c->buckets[bucket_of(c, off)];

	while (s && s->host_off != off)
		s = s->hash_next;
	return s;
}

static void unhash(struct cache *c, struct slice *s)
{
	struct slice **p = &c->buckets[bucket_of(c, s->host_off)];

	while (*p != s)
		p = &(*p)->hash_next;
	*p = s->hash_next;
	s->hash_next = NULL;
	s->host_off = 0;
}

/* The slice, which can leave, is from now on that of off. */
static void hash(struct cache *c, struct slice *s, uint64_t off)
{
	struct slice **bucket = &c->buckets[bucket_of(c, off)];

	if (s->host_off)
		unhash(c, s);
	s->host_off = off;
	s->need = 0;
	s->hash_next = *bucket;
	*bucket = s;
}

static void touch(struct cache *c, struct slice *s)
{
	s->used = true;
	list_del(&s->lru);
	list_add_tail(&c->lru, &s->lru);
}

struct slice *cache_peek(struct cache *c, uint64_t host_off)
{
	struct slice *s = lookup(c, host_off - host_off % c->slice_bytes);

	if (!s || s->loading)
		return NULL;
	touch(c, s);
	c->hits++;
	return s;
}

static bool can_leave(const struct slice *s)
{
	return !s->pins && !s->dirty && !s->writing && !s->loading;
}

static struct slice *victim(struct cache *c)
{
	list_for_each(p, &c->lru)
	{
		struct slice *s = list_entry(p, struct slice, lru);

		if (can_leave(s))
			return s;
	}
	return NULL;
}

/*
 * In a fiber: an empty slice hashed at off and pinned; *found if another fiber was quicker.
 * Waits for a load to end or for the last clean slice; needs no host that takes writes.
 */
static void claim(struct cache *c, uint64_t off, struct slice **out, bool *found)
{
	bool stuck = false; /* nothing can be written back */
	struct slice *s;

	for (;;) {
		s = lookup(c, off);
		*found = s != NULL;
		if (s && s->loading) {
			fiber_queue_wait(&c->q);
			continue;
		}
		if (s)
			break;
		/* Half full of dirty slices: write back before victims become hard to find. */
		s = stuck || c->n_dirty * 2 <= c->n_slices ? victim(c) : NULL;
		if (s)
			break;
		if (c->n_dirty && !stuck)
			stuck = c->writeback(c->arg) != 0;
		else
			fiber_queue_wait(&c->q);
	}
	if (!*found)
		hash(c, s, off);
	touch(c, s);
	s->pins++;
	*out = s;
}

int cache_get(struct cache *c, uint64_t host_off, struct slice **out)
{
	uint64_t off = host_off - host_off % c->slice_bytes;
	struct slice *s;
	bool found;
	int err = 0;

	assert(off != 0);
	claim(c, off, &s, &found);
	if (found) {
		c->hits++;
	} else {
		c->misses++;
		s->loading = true;
		file_event(c->file, c->loading);
		err = file_pread(c->file, s->data, c->slice_bytes, off);
		s->loading = false;
		if (err) {
			s->pins--;
			unhash(c, s);
		}
		fiber_queue_wake_all(&c->q);
		if (err)
			return err;
	}
	assert(slice_ok(c, s));
	*out = s;
	return 0;
}

void cache_put_zeros(struct cache *c, uint64_t host_off)
{
	uint64_t off = host_off - host_off % c->slice_bytes;
	struct slice *s = lookup(c, off) ? NULL : victim(c);

	if (!s)
		return;
	hash(c, s, off);
	memset(s->data, 0, c->slice_bytes);
	touch(c, s);
}

static bool unclean(const struct slice *s)
{
	return s->dirty || s->writing;
}

static void maybe_free(struct cache *c, const struct slice *s)
{
	if (!s->pins && !unclean(s))
		fiber_queue_wake_all(&c->q);
}

int cache_get_rw(struct cache *c, uint64_t host_off, struct slice **out)
{
	for (;;) {
		int err = cache_get(c, host_off, out);

		if (err || unclean(*out) || c->n_unclean + 1 < c->n_slices)
			return err;
		cache_put(c, out);
		err = c->writeback(c->arg);
		if (err)
			return err;
	}
}

void cache_put(struct cache *c, struct slice **s)
{
	assert((*s)->pins > 0 && slice_ok(c, *s));
	(*s)->pins--;
	maybe_free(c, *s);
	*s = NULL;
}

static void set_dirty(struct cache *c, struct slice *s, uint8_t bits)
{
	c->n_unclean += bits && !unclean(s);
	if (!s->dirty && bits) {
		list_add_tail(&c->dirty, &s->dirty_link);
		c->n_dirty++;
	}
	s->dirty |= bits;
}

void cache_dirty(struct cache *c, struct slice *s, uint32_t off, uint32_t len, uint64_t need)
{
	assert(len && off + len <= c->slice_bytes);
	for (uint32_t i = off / SECTOR; i <= (off + len - 1) / SECTOR; i++)
		set_dirty(c, s, (uint8_t)(1u << i));
	s->need = max_u64(s->need, need);
	assert(slice_ok(c, s));
}

uint8_t cache_stage(struct cache *c, struct slice *s)
{
	uint8_t bits = s->dirty;

	assert(bits && s->writing < UINT8_MAX);
	s->dirty = 0;
	s->writing++;
	list_del(&s->dirty_link);
	c->n_dirty--;
	return bits;
}

void cache_written(struct cache *c, struct slice *s, uint8_t failed)
{
	assert(s->writing);
	set_dirty(c, s, failed);
	s->writing--;
	c->n_unclean -= !unclean(s);
	/* Also when it is dirty again: who waits for a slice can now have it written back. */
	if (!s->writing)
		fiber_queue_wake_all(&c->q);
}

/* Slices [from, to), a page or one slice, hold nothing. */
static void give_back(struct cache *c, uint32_t from, uint32_t to)
{
	for (uint32_t i = from; i < to; i++)
		if (c->slices[i].host_off)
			return;
	/* Memory that it keeps does no harm. */
	(void)madvise(c->slices[from].data, (uint64_t)(to - from) * c->slice_bytes, MADV_DONTNEED);
}

void cache_clean(struct cache *c)
{
	uint32_t page = max_u64(SLICE_BYTES_MAX / c->slice_bytes, 1);
	bool forgot = false;

	for (uint32_t i = 0; i < c->n_slices; i++) {
		struct slice *s = &c->slices[i];

		if (s->host_off && !s->used && can_leave(s)) {
			unhash(c, s);
			forgot = true;
		}
		s->used = false;
		if ((i + 1) % page == 0 && forgot) {
			give_back(c, i + 1 - page, i + 1);
			forgot = false;
		}
	}
}

void cache_drop(struct cache *c)
{
	for (uint32_t i = 0; i < c->n_slices; i++) {
		struct slice *s = &c->slices[i];

		assert(!s->pins && !s->loading && !s->writing && !s->dirty);
		if (s->host_off)
			unhash(c, s);
	}
}

void cache_forget(struct cache *c, uint64_t host_off, uint64_t len)
{
	for (uint64_t off = host_off; off < host_off + len; off += c->slice_bytes) {
		struct slice *s = lookup(c, off);

		if (!s || s->pins || s->loading || s->writing)
			continue;
		if (s->dirty) {
			s->dirty = 0;
			list_del(&s->dirty_link);
			c->n_dirty--;
			c->n_unclean--;
		}
		unhash(c, s);
	}
}
