/* SPDX-License-Identifier: MIT */
/*
 * cutfile.c - see cutfile.h.  Requests are carried out when they are submitted, and
 * complete at the end of the turn, as every file's do.
 */
#include <stdlib.h>
#include <string.h>
#include "tests/support/cutfile.h"
#include "vmm/util/bytes.h"

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

void mem_resize(struct cutfile *m, uint64_t size)
{
	if (size > m->room) {
		m->room = size * 2;
		m->data = must(realloc(m->data, m->room));
	}
	if (size > m->size)
		memset(m->data + m->size, 0, size - m->size);
	m->size = size;
}

static void put(struct cutfile *m, uint64_t off, const uint8_t *data, uint64_t len)
{
	if (off + len > m->size)
		mem_resize(m, off + len);
	memcpy(m->data + off, data, len);
}

static void log_op(struct cutfile *m, const struct file_req *r, const uint8_t *data)
{
	struct cutfile_op *o;

	if (!m->logging)
		return;
	m->log = must(realloc(m->log, (m->n_log + 1) * sizeof(*m->log)));
	o = &m->log[m->n_log++];
	*o = (struct cutfile_op){.op = r->op, .off = r->off, .len = r->len};
	if (data) {
		o->data = must(malloc(r->len ? r->len : 1));
		memcpy(o->data, data, r->len);
	}
}

static void do_write(struct cutfile *m, struct file_req *r)
{
	uint8_t *flat = must(malloc(r->len ? r->len : 1));
	uint64_t at = 0;

	for (int i = 0; i < r->niov; i++) {
		memcpy(flat + at, r->iov[i].iov_base, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
	}
	put(m, r->off, flat, r->len);
	log_op(m, r, flat);
	free(flat);
}

static void do_read(struct cutfile *m, struct file_req *r)
{
	uint64_t off = r->off;

	for (int i = 0; i < r->niov; i++) {
		uint64_t n = r->iov[i].iov_len,
			 have = off < m->size ? min_u64(n, m->size - off) : 0;

		if (have)
			memcpy(r->iov[i].iov_base, m->data + off, have);
		memset((uint8_t *)r->iov[i].iov_base + have, 0, n - have);
		off += n;
	}
}

static void cutfile_submit(struct file *f, struct file_req *r)
{
	struct cutfile *m = container_of(f, struct cutfile, file);

	r->file = f;
	r->moved = 0; /* the result, until completion */
	if (r->op != FILE_READ && m->fail_at && --m->fail_at == 0)
		r->moved = EIO;
	else if (r->op == FILE_READ)
		do_read(m, r);
	else if (r->op == FILE_WRITE)
		do_write(m, r);
	else if (r->op != FILE_PUNCH) {
		if (r->op == FILE_TRUNCATE)
			mem_resize(m, r->off);
		else if (r->op == FILE_EXTEND && r->off + r->len > m->size)
			mem_resize(m, r->off + r->len);
		log_op(m, r, NULL);
	} else {
		r->moved = EOPNOTSUPP;
	}
	list_add_tail(&m->waiting, &r->link);
	loop_defer(f->loop, &m->complete);
}

static void cutfile_complete(struct loop_work *w)
{
	struct cutfile *m = container_of(w, struct cutfile, complete);
	struct list *l;

	while ((l = list_pop(&m->waiting))) {
		struct file_req *r = list_entry(l, struct file_req, link);

		r->done(r, -(int)r->moved);
	}
}

static uint64_t cutfile_size(struct file *f)
{
	return container_of(f, struct cutfile, file)->size;
}

static void cutfile_close(struct file *f)
{
}

static const struct file_ops cutfile_ops = {
	.name = "memory",
	.submit = cutfile_submit,
	.size = cutfile_size,
	.close = cutfile_close,
};

void cutfile_init(struct cutfile *m, struct loop *l)
{
	*m = (struct cutfile){
		.file = {.ops = &cutfile_ops, .loop = l, .align_off = 1, .align_mem = 1}};
	m->file.stats = &m->stats;
	list_init(&m->waiting);
	loop_work_init(&m->complete, cutfile_complete);
}

static void drop_log(struct cutfile *m)
{
	for (unsigned i = 0; i < m->n_log; i++)
		free(m->log[i].data);
	free(m->log);
	m->log = NULL;
	m->n_log = 0;
}

void cutfile_free(struct cutfile *m)
{
	drop_log(m);
	free(m->data);
	m->data = NULL;
}

void cutfile_copy(struct cutfile *to, const struct cutfile *from)
{
	cutfile_init(to, from->file.loop);
	if (from->size)
		put(to, 0, from->data, from->size);
}

void cutfile_log(struct cutfile *m)
{
	drop_log(m);
	m->logging = true;
}

static bool survives(unsigned *seed)
{
	if (*seed < 2)
		return *seed == 0;
	*seed = *seed * 1103515245u + 12345u;
	return *seed >> 16 & 1;
}

static void replay(struct cutfile *out, const struct cutfile_op *o, bool flushed, unsigned *seed)
{
	if (o->op == FILE_TRUNCATE && (flushed || survives(seed)))
		mem_resize(out, o->off);
	if (o->op == FILE_EXTEND && o->off + o->len > out->size && (flushed || survives(seed)))
		mem_resize(out, o->off + o->len);
	if (o->op != FILE_WRITE)
		return;
	for (uint64_t at = 0; at < o->len;) {
		uint64_t n = min_u64(SECTOR - (o->off + at) % SECTOR, o->len - at);

		if (flushed || survives(seed))
			put(out, o->off + at, o->data + at, n);
		at += n;
	}
}

void cutfile_cut(struct cutfile *out, const struct cutfile *base, const struct cutfile *m,
	unsigned n, unsigned seed)
{
	unsigned durable = 0;

	cutfile_copy(out, base);
	for (unsigned i = 0; i < n; i++)
		if (m->log[i].op == FILE_FDATASYNC)
			durable = i;
	for (unsigned i = 0; i < n; i++)
		replay(out, &m->log[i], i < durable, &seed);
}

uint64_t mem_be64(const struct cutfile *m, uint64_t off)
{
	be64_t v;

	assert(range_within(off, sizeof(v), m->size));
	memcpy(&v, m->data + off, sizeof(v));
	return be64_get(v);
}

void mem_set_be64(struct cutfile *m, uint64_t off, uint64_t v)
{
	be64_t d = be64_make(v);

	put(m, off, (void *)&d, sizeof(d));
}

uint32_t mem_be32(const struct cutfile *m, uint64_t off)
{
	be32_t v;

	assert(range_within(off, sizeof(v), m->size));
	memcpy(&v, m->data + off, sizeof(v));
	return be32_get(v);
}

void mem_set_be32(struct cutfile *m, uint64_t off, uint32_t v)
{
	be32_t d = be32_make(v);

	put(m, off, (void *)&d, sizeof(d));
}
