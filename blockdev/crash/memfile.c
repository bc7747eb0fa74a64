/* SPDX-License-Identifier: MIT */
/*
 * memfile.c - see memfile.h.  Running out of memory here ends the program: it is a tool's layer.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/memfile.h"

static const uint8_t zero_page[MEM_PAGE];

static void *grow(void *p, uint64_t *room, uint64_t want, size_t each)
{
	uint64_t n = *room ? *room : 64;

	if (want <= *room)
		return p;
	while (n < want)
		n *= 2;
	p = realloc(p, n * each);
	if (!p) {
		fprintf(stderr, "memfile: out of memory\n");
		abort();
	}
	*room = n;
	return p;
}

static bool is_lent(const uint8_t *page)
{
	return (uintptr_t)page & 1;
}

static const uint8_t *content_of(const uint8_t *page)
{
	return page - ((uintptr_t)page & 1);
}

void mem_init(struct mem_image *m)
{
	*m = (struct mem_image){0};
}

void mem_fini(struct mem_image *m)
{
	for (uint64_t i = 0; i < m->n_used; i++)
		if (!is_lent(m->pages[m->used[i]]))
			free(m->pages[m->used[i]]);
	for (uint64_t i = 0; i < m->n_spare; i++)
		free(m->spare[i]);
	free(m->pages);
	free(m->used);
	free(m->spare);
	mem_init(m);
}

static void drop_page(struct mem_image *m, uint64_t i)
{
	if (is_lent(m->pages[i])) {
		m->pages[i] = NULL;
		return;
	}
	m->spare = grow(m->spare, &m->room_spare, m->n_spare + 1, sizeof(*m->spare));
	m->spare[m->n_spare++] = m->pages[i];
	m->pages[i] = NULL;
}

void mem_reset(struct mem_image *m, const struct mem_image *base)
{
	for (uint64_t i = 0; i < m->n_used; i++)
		if (m->pages[m->used[i]])
			drop_page(m, m->used[i]);
	m->n_used = 0;
	m->base = base;
	m->size = base ? base->size : 0;
}

static const uint8_t *page_at(const struct mem_image *m, uint64_t i)
{
	for (; m; m = m->base)
		if (i < m->n_pages && m->pages[i])
			return content_of(m->pages[i]);
	return zero_page;
}

const uint8_t *mem_page(const struct mem_image *m, uint64_t i)
{
	const uint8_t *p = page_at(m, i);

	return p == zero_page ? NULL : p;
}

/* The place of page i in the table, and in the list of those that are here. */
static uint8_t **slot_of(struct mem_image *m, uint64_t i)
{
	uint64_t had = m->n_pages;

	m->pages = grow(m->pages, &m->n_pages, i + 1, sizeof(*m->pages));
	if (m->n_pages > had)
		memset(m->pages + had, 0, (m->n_pages - had) * sizeof(*m->pages));
	if (!m->pages[i]) {
		m->used = grow(m->used, &m->room_used, m->n_used + 1, sizeof(*m->used));
		m->used[m->n_used++] = i;
	}
	return &m->pages[i];
}

static uint8_t *page_own(struct mem_image *m, uint64_t i)
{
	const uint8_t *was;
	uint8_t *p;

	if (i < m->n_pages && m->pages[i] && !is_lent(m->pages[i]))
		return m->pages[i];
	was = page_at(m, i);
	p = m->n_spare ? m->spare[--m->n_spare] : malloc(MEM_PAGE);
	if (!p)
		abort();
	memcpy(p, was, MEM_PAGE);
	*slot_of(m, i) = p;
	return p;
}

static void page_lend(struct mem_image *m, uint64_t i, const uint8_t *content)
{
	uint8_t **slot = slot_of(m, i);

	assert(!is_lent(content));
	if (*slot)
		drop_page(m, i);
	*slot = (uint8_t *)(uintptr_t)content + 1;
}

void mem_read(const struct mem_image *m, void *buf, uint64_t len, uint64_t off)
{
	uint64_t in = off < m->size ? min_u64(len, m->size - off) : 0;
	uint8_t *to = buf;

	memset(to + in, 0, len - in);
	while (in) {
		uint64_t k = min_u64(in, MEM_PAGE - off % MEM_PAGE);

		memcpy(to, page_at(m, off / MEM_PAGE) + off % MEM_PAGE, k);
		to += k;
		off += k;
		in -= k;
	}
}

static void put(struct mem_image *m, const void *buf, uint64_t len, uint64_t off, bool lend)
{
	const uint8_t *from = buf;

	while (len) {
		uint64_t k = min_u64(len, MEM_PAGE - off % MEM_PAGE);

		if (lend && k == MEM_PAGE && !is_lent(from)) /* nobody lends at odd addresses */
			page_lend(m, off / MEM_PAGE, from);
		else
			memcpy(page_own(m, off / MEM_PAGE) + off % MEM_PAGE, from, k);
		from += k;
		off += k;
		len -= k;
	}
}

void mem_write(struct mem_image *m, const void *buf, uint64_t len, uint64_t off, bool grow_size)
{
	if (off + len > m->size) {
		if (grow_size)
			m->size = off + len;
		else
			len = off < m->size ? m->size - off : 0;
	}
	put(m, buf, len, off, false);
}

void mem_lend(struct mem_image *m, const void *buf, uint64_t len, uint64_t off)
{
	put(m, buf, off < m->size ? min_u64(len, m->size - off) : 0, off, true);
}

void mem_set_size(struct mem_image *m, uint64_t size)
{
	uint64_t end = div_round_up(m->size, MEM_PAGE);

	if (size < m->size) {
		if (size % MEM_PAGE)
			memset(page_own(m, size / MEM_PAGE) + size % MEM_PAGE, 0,
				MEM_PAGE - size % MEM_PAGE);
		for (uint64_t i = div_round_up(size, MEM_PAGE); i < end; i++)
			if (page_at(m, i) != zero_page)
				memset(page_own(m, i), 0, MEM_PAGE);
	}
	m->size = size;
}

/* Four lanes, because one multiplication after the other would wait for each. */
static uint64_t page_digest(uint64_t i, const uint8_t *page)
{
	const uint64_t *w = (const uint64_t *)(const void *)page;
	uint64_t h[4] = {1, 2, 3, 4}, any = 0;

	for (unsigned k = 0; k < MEM_PAGE / 8; k += 4) {
		for (unsigned lane = 0; lane < 4; lane++) {
			h[lane] = (h[lane] ^ w[k + lane]) * 0x9E3779B97F4A7C15ULL;
			h[lane] ^= h[lane] >> 32;
			any |= w[k + lane];
		}
	}
	if (!any) /* as if it were not there */
		return 0;
	for (unsigned lane = 0; lane < 4; lane++) {
		i = (i ^ h[lane]) * 0xD6E8FEB86659FD93ULL;
		i ^= i >> 32;
	}
	return i;
}

uint64_t mem_digest(const struct mem_image *m)
{
	uint64_t d = 0;

	for (uint64_t i = 0; i < div_round_up(m->size, MEM_PAGE); i++)
		if (mem_page(m, i))
			d += page_digest(i, mem_page(m, i));
	return d;
}

/* ---- the engine ---- */

struct memfile {
	struct file f;
	struct mem_image *m;
	uint64_t rng;
	struct list in_flight;
	struct loop_work work;
	struct file_stats stats;
};

static uint64_t rnd(struct memfile *mf)
{
	mf->rng ^= mf->rng << 13;
	mf->rng ^= mf->rng >> 7;
	mf->rng ^= mf->rng << 17;
	return mf->rng;
}

static void transfer(struct memfile *mf, struct file_req *r)
{
	uint64_t off = r->off;

	if (mf->m->watch)
		mf->m->watch(mf->m->watch_arg, r->op == FILE_WRITE, r->off, r->len);
	for (int i = 0; i < r->niov; i++) {
		if (r->op == FILE_READ)
			mem_read(mf->m, r->iov[i].iov_base, r->iov[i].iov_len, off);
		else
			mem_write(mf->m, r->iov[i].iov_base, r->iov[i].iov_len, off, true);
		off += r->iov[i].iov_len;
	}
}

static int perform(struct memfile *mf, struct file_req *r)
{
	bool grows = r->op == FILE_WRITE || r->op == FILE_EXTEND || r->op == FILE_TRUNCATE;

	if (grows && mf->m->limit && !range_within(r->off, r->len, mf->m->limit))
		return -EFBIG;
	switch (r->op) {
	case FILE_READ:
		mf->stats.reads++;
		mf->stats.read_bytes += r->len;
		transfer(mf, r);
		break;
	case FILE_WRITE:
		mf->stats.writes++;
		mf->stats.written_bytes += r->len;
		transfer(mf, r);
		break;
	case FILE_FDATASYNC:
		mf->stats.fdatasyncs++;
		break;
	case FILE_EXTEND:
		mf->stats.fallocates++;
		if (r->off + r->len > mf->m->size)
			mem_set_size(mf->m, r->off + r->len);
		break;
	case FILE_TRUNCATE:
		mf->stats.truncates++;
		mem_set_size(mf->m, r->off);
		break;
	case FILE_PUNCH:
		if (mf->m->watch)
			mf->m->watch(mf->m->watch_arg, true, r->off, r->len);
		for (uint64_t at = 0; at < r->len; at += min_u64(MEM_PAGE, r->len - at))
			mem_write(mf->m, zero_page, min_u64(MEM_PAGE, r->len - at), r->off + at,
				false);
		break;
	}
	return 0;
}

/* Completes one, or with luck several, of what is in flight; the rest has to wait. */
static void complete_some(struct loop_work *w)
{
	struct memfile *mf = container_of(w, struct memfile, work);

	do {
		uint64_t skip = mf->rng ? rnd(mf) % 4 : 0;
		struct list *n = mf->in_flight.next;
		struct file_req *r;

		while (skip-- && n->next != &mf->in_flight)
			n = n->next;
		r = list_entry(n, struct file_req, link);
		list_del(n);
		r->done(r, perform(mf, r));
	} while (!list_empty(&mf->in_flight) && mf->rng && rnd(mf) % 3);
	if (!list_empty(&mf->in_flight))
		loop_defer(mf->f.loop, &mf->work);
}

static void memfile_submit(struct file *f, struct file_req *r)
{
	struct memfile *mf = container_of(f, struct memfile, f);

	list_add_tail(&mf->in_flight, &r->link);
	loop_defer(f->loop, &mf->work);
}

static uint64_t memfile_size(struct file *f)
{
	return container_of(f, struct memfile, f)->m->size;
}

static void memfile_close(struct file *f)
{
	struct memfile *mf = container_of(f, struct memfile, f);

	assert(list_empty(&mf->in_flight));
	free(mf);
}

static const struct file_ops memfile_ops = {
	.name = "memory",
	.submit = memfile_submit,
	.size = memfile_size,
	.close = memfile_close,
};

int memfile_open(struct loop *l, struct mem_image *m, uint64_t seed, struct file **out)
{
	struct memfile *mf = calloc(1, sizeof(*mf));

	if (!mf)
		return -ENOMEM;
	mf->f = (struct file){.ops = &memfile_ops,
		.loop = l,
		.align_off = 1,
		.align_mem = 1,
		.stats = &mf->stats};
	mf->m = m;
	mf->rng = seed * 0x9E3779B97F4A7C15ULL;
	list_init(&mf->in_flight);
	loop_work_init(&mf->work, complete_some);
	*out = &mf->f;
	return 0;
}
