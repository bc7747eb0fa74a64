/* SPDX-License-Identifier: MIT */
/*
 * trace.c - reads logs: see trace.h.
 *
 * Opening goes through all frames once, takes the events in and notes where the blocks lie.  Data
 * come later, each write's when it is asked for, into a file that has no name and is mapped: a log
 * may hold more than there is memory.  Nothing that a file contains is believed: lengths, numbers
 * and distances are checked, and what does not fit is damage, where the log ends.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include "blockdev/block.h"
#include "blockdev/crash/spill.h"
#include "blockdev/crash/trace.h"
#include "blockdev/crash/trace_int.h"

#define DATA_TOTAL_MAX (16 * TiB) /* of all writes of one log: what can be mapped */

struct chunk {
	uint64_t at; /* of the frame, in the file */
	uint64_t first, n; /* blocks */
};

struct trace_private {
	int fd;
	struct trace_event *event;
	uint64_t room;
	uint32_t *ref; /* blocks that writes name; 0: zeros */
	uint64_t n_refs, room_refs;
	uint8_t *have; /* by ref: the write that begins there is in the arena */
	struct chunk *chunk;
	uint64_t n_chunks, room_chunks, blocks;
	uint64_t last; /* block named last */
	uint8_t *stored, *raw; /* one frame */
	uint64_t raw_chunk;    /* which chunk raw holds, and 1; 0: none */
	struct spill arena; /* by ref */
	char *names;
	struct list texts;
};

struct text {
	struct list link;
	char text[];
};

static void *more(void *p, uint64_t n, uint64_t *room, size_t each)
{
	void *q;

	if (p && n < *room)
		return p;
	*room = *room ? *room * 2 : 1024;
	q = realloc(p, *room * each);
	if (!q)
		*room /= 2;
	return q;
}

/* ---- frames ---- */

/* 1: a whole frame is in raw; 0: there is none any more; -errno. */
static int read_frame(struct trace_private *p, uint64_t at, struct trace_frame *h)
{
	ssize_t got = pread(p->fd, h, sizeof(*h), (off_t)at);
	uint32_t stored, raw;
	size_t n;

	if (got != sizeof(*h))
		return got < 0 ? -errno : 0;
	stored = le32_get(h->stored);
	raw = le32_get(h->raw);
	if (stored > TRACE_FRAME_MAX || raw > TRACE_FRAME_MAX || !stored)
		return 0;
	got = pread(p->fd, p->stored, stored, (off_t)(at + sizeof(*h)));
	if (got < 0)
		return -errno;
	if (got != (ssize_t)stored || crc32(0, p->stored, stored) != le32_get(h->crc))
		return 0;
	p->raw_chunk = 0;
	if (le32_get(h->what) & TRACE_PACKED) {
		n = ZSTD_decompress(p->raw, TRACE_FRAME_MAX, p->stored, stored);
		return n == raw; /* an error is a number that is larger than any frame */
	}
	if (raw != stored)
		return 0;
	memcpy(p->raw, p->stored, raw);
	return 1;
}

static int take_chunk(struct trace_private *p, uint64_t at, uint32_t bytes)
{
	void *q;

	if (bytes % TRACE_BLOCK || p->blocks + bytes / TRACE_BLOCK > UINT32_MAX)
		return 0;
	q = more(p->chunk, p->n_chunks, &p->room_chunks, sizeof(*p->chunk));
	if (!q)
		return -ENOMEM;
	p->chunk = q;
	p->chunk[p->n_chunks++] = (struct chunk){at, p->blocks + 1, bytes / TRACE_BLOCK};
	p->blocks += bytes / TRACE_BLOCK;
	return 1;
}

/* ---- events ---- */

struct cursor {
	const uint8_t *p, *end;
	bool bad;
};

static uint8_t get_byte(struct cursor *c)
{
	if (c->p == c->end) {
		c->bad = true;
		return 0;
	}
	return *c->p++;
}

static uint64_t get_number(struct cursor *c)
{
	uint64_t v = 0;

	for (unsigned shift = 0; shift < 64; shift += 7) {
		uint8_t b = get_byte(c);

		v |= (uint64_t)(b & 0x7f) << shift;
		if (!(b & 0x80))
			return v;
	}
	c->bad = true;
	return 0;
}

/* The event with this tick, if it is of that kind. */
static struct trace_event *earlier(
	struct trace *t, struct cursor *c, uint64_t back, enum trace_kind kind)
{
	uint64_t n = t->n_events + 1;

	if (!back || back >= n || t->p->event[n - back - 1].kind != kind) {
		c->bad = true;
		return NULL;
	}
	return &t->p->event[n - back - 1];
}

static int get_data(struct trace *t, struct cursor *c, struct trace_event *e)
{
	struct trace_private *p = t->p;
	uint64_t n = div_round_up(e->len, TRACE_BLOCK);

	e->ref = p->n_refs;
	if (n > (uint64_t)(c->end - c->p) || p->n_refs + n > DATA_TOTAL_MAX / TRACE_BLOCK) {
		c->bad = true;
		return 0;
	}
	for (; n; n--) {
		uint64_t z = get_number(c), block = 0;
		void *q;

		if (z) {
			z--;
			block = p->last + 1 + (z & 1 ? -(z / 2) - 1 : z / 2);
			if (!block || block > p->blocks) {
				c->bad = true;
				return 0;
			}
			p->last = block;
		}
		q = more(p->ref, p->n_refs, &p->room_refs, sizeof(*p->ref));
		if (!q)
			return -ENOMEM;
		p->ref = q;
		p->ref[p->n_refs++] = (uint32_t)block;
	}
	return 0;
}

static int get_request(struct trace *t, struct cursor *c, struct trace_event *e)
{
	bool guest = e->kind == TRACE_GUEST;
	uint64_t unit = guest ? SECTOR : 1, limit = guest ? t->info.disk_bytes : INT64_MAX;
	const struct trace_event *with = NULL;

	e->op = get_byte(c);
	e->flags = get_byte(c);
	e->other = NEVER;
	if (e->op > (guest ? TRACE_WCE_ON : FILE_TRUNCATE))
		c->bad = true;
	if (!guest && t->info.data_bytes)
		limit -= t->info.data_bytes; /* it lies before the image */
	if (e->flags & TRACE_DATA_FILE && !guest) {
		limit = t->info.data_bytes;
		c->bad |= e->op == FILE_TRUNCATE || !limit;
	}
	if (e->flags & TRACE_SAME) {
		e->same = get_number(c);
		with = earlier(t, c, e->same, TRACE_GUEST);
		e->same = t->n_events + 1 - e->same;
	}
	e->off = get_number(c);
	e->len = get_number(c);
	if (e->off > limit / unit || e->len > limit / unit ||
		!range_within(e->off * unit, e->len * unit, limit)) {
		c->bad = true;
		return 0;
	}
	e->off *= unit;
	e->len *= unit;
	if (!trace_has_data(e) || c->bad)
		return 0;
	if (!with)
		return get_data(t, c, e);
	if (!trace_has_data(with) || with->len != e->len)
		c->bad = true;
	e->ref = with->ref;
	return 0;
}

static void get_done(struct trace *t, struct cursor *c, struct trace_event *e)
{
	uint64_t back = get_number(c), code;
	struct trace_event *s = earlier(
		t, c, back, e->kind == TRACE_GUEST_DONE ? TRACE_GUEST : TRACE_HOST);

	e->flags = get_byte(c);
	code = get_number(c);
	if (c->bad || code > 4095 || s->other != NEVER) {
		c->bad = true;
		return;
	}
	e->err = -(int)code;
	e->op = s->op;
	e->off = s->off;
	e->len = s->len;
	e->other = s->tick;
	s->other = e->tick;
	s->err = e->err;
}

static int get_mark(struct trace *t, struct cursor *c, struct trace_event *e)
{
	struct text *text;

	e->by = get_byte(c);
	e->len = get_number(c);
	if (c->bad || e->by >= N_TRACE_BY || e->len > TRACE_TEXT_MAX ||
		e->len > (uint64_t)(c->end - c->p)) {
		c->bad = true;
		return 0;
	}
	text = malloc(sizeof(*text) + e->len + 1);
	if (!text)
		return -ENOMEM;
	memcpy(text->text, c->p, e->len);
	text->text[e->len] = '\0';
	c->p += e->len;
	list_add_tail(&t->p->texts, &text->link);
	e->data = text->text;
	return 0;
}

/* 1: all of the frame was events; 0: at some point it was not; -errno. */
static int take_events(struct trace *t, uint32_t bytes)
{
	struct trace_private *p = t->p;
	struct cursor c = {p->raw, p->raw + bytes, false};
	int err = 0;

	while (c.p < c.end) {
		struct trace_event e = {.tick = t->n_events + 1};
		void *q = more(p->event, t->n_events, &p->room, sizeof(*p->event));

		if (!q)
			return -ENOMEM;
		p->event = q;
		e.kind = get_byte(&c);
		switch (e.kind) {
		case TRACE_GUEST:
		case TRACE_HOST:
			err = get_request(t, &c, &e);
			break;
		case TRACE_GUEST_DONE:
		case TRACE_HOST_DONE:
			get_done(t, &c, &e);
			break;
		case TRACE_MARK:
			err = get_mark(t, &c, &e);
			break;
		default:
			c.bad = true;
		}
		if (err || c.bad)
			return err;
		p->event[t->n_events++] = e;
	}
	return 1;
}

static int take_frames(struct trace *t, uint64_t at)
{
	struct trace_private *p = t->p;
	struct trace_frame h;
	struct stat st;
	int r = fstat(p->fd, &st) ? -errno : 1;

	while (r > 0 && at < (uint64_t)st.st_size && (r = read_frame(p, at, &h)) > 0) {
		uint32_t bytes = le32_get(h.raw);

		switch (le32_get(h.what) & ~TRACE_PACKED) {
		case TRACE_FRAME_DATA:
			r = take_chunk(p, at, bytes);
			break;
		case TRACE_FRAME_EVENTS:
			r = take_events(t, bytes);
			break;
		default:
			r = 0;
		}
		at += sizeof(h) + le32_get(h.stored);
	}
	t->event = p->event;
	t->cut_off = r == 0;
	return r < 0 ? r : 0;
}

/* ---- the head ---- */

static int take_head(struct trace *t, uint64_t *end, struct why *why)
{
	struct trace_private *p = t->p;
	struct trace_head h;
	ssize_t got = pread(p->fd, &h, sizeof(h), 0);
	uint32_t image, format;
	le64_t data_bytes = {0};
	size_t more = 0;

	if (got < 0)
		return -errno;
	if (got < (ssize_t)sizeof(h) || memcmp(h.magic, TRACE_MAGIC, sizeof(h.magic)) != 0)
		return why_set(why, -EINVAL, "this is no log of a disk");
	if (!le32_get(h.version) || le32_get(h.version) > TRACE_VERSION)
		return why_set(why, -ENOTSUP, "a log of version %u; known is up to %u",
			le32_get(h.version), TRACE_VERSION);
	if (le32_get(h.version) == 2)
		more = sizeof(data_bytes);
	image = le32_get(h.image_len);
	format = le32_get(h.format_len);
	*end = le32_get(h.header);
	if (image > TRACE_NAME_MAX || format > TRACE_NAME_MAX ||
		*end != sizeof(h) + image + format + more || le32_get(h.sector) != SECTOR ||
		le64_get(h.disk_bytes) > INT64_MAX)
		return why_set(why, -EINVAL, "its header is damaged");
	p->names = calloc(1, image + format + 2);
	if (!p->names)
		return -ENOMEM;
	if (pread(p->fd, p->names, image, sizeof(h)) != image ||
		pread(p->fd, p->names + image + 1, format, (off_t)(sizeof(h) + image)) != format ||
		pread(p->fd, &data_bytes, more, (off_t)(*end - more)) != (ssize_t)more)
		return why_set(why, -EINVAL, "its header is cut off");
	if (le64_get(data_bytes) > INT64_MAX / 2)
		return why_set(why, -EINVAL, "its header is damaged");
	t->info = (struct trace_info){
		.disk_bytes = le64_get(h.disk_bytes),
		.image = p->names,
		.format = p->names + image + 1,
		.image_bytes = le64_get(h.image_bytes),
		.data_bytes = le64_get(data_bytes),
		.fingerprint = le64_get(h.fingerprint),
		.blank = le32_get(h.flags) & TRACE_HEAD_BLANK,
		.unsafe = le32_get(h.flags) & TRACE_HEAD_UNSAFE,
	};
	return 0;
}

/* ---- data ---- */

static int make_arena(struct trace_private *p)
{
	p->have = calloc(1, p->n_refs + 1);
	return p->have ? spill_open(&p->arena, p->n_refs * TRACE_BLOCK) : -ENOMEM;
}

/* The block; NULL: it cannot be read. */
static const uint8_t *find_block(struct trace_private *p, uint64_t block)
{
	uint64_t lo = 0, hi = p->n_chunks;
	struct trace_frame h;

	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (p->chunk[mid].first <= block)
			lo = mid;
		else
			hi = mid;
	}
	if (p->raw_chunk != lo + 1) {
		if (read_frame(p, p->chunk[lo].at, &h) <= 0)
			return NULL;
		p->raw_chunk = lo + 1;
	}
	return p->raw + (block - p->chunk[lo].first) * TRACE_BLOCK;
}

const uint8_t *trace_place(const struct trace *t, const struct trace_event *e)
{
	return t->p->arena.at ? t->p->arena.at + e->ref * TRACE_BLOCK : NULL;
}

void trace_used(struct trace *t, uint64_t bytes)
{
	spill_used(&t->p->arena, bytes);
}

const uint8_t *trace_data(struct trace *t, const struct trace_event *e)
{
	struct trace_private *p = t->p;
	uint64_t n = div_round_up(e->len, TRACE_BLOCK);

	assert(trace_has_data(e));
	if (!n || p->have[e->ref])
		return trace_place(t, e);
	for (uint64_t i = e->ref; i < e->ref + n; i++) {
		const uint8_t *from;

		if (!p->ref[i])
			continue;
		from = find_block(p, p->ref[i]);
		if (!from)
			return NULL;
		memcpy(p->arena.at + i * TRACE_BLOCK, from, TRACE_BLOCK);
	}
	p->have[e->ref] = 1;
	spill_used(&p->arena, n * TRACE_BLOCK);
	return trace_place(t, e);
}

/* ---- opening and closing ---- */

void trace_reader_close(struct trace *t)
{
	struct trace_private *p = t->p;
	struct list *n;

	while ((n = list_pop(&p->texts)) != NULL)
		free(list_entry(n, struct text, link));
	spill_close(&p->arena);
	if (p->fd >= 0)
		close(p->fd);
	free(p->event);
	free(p->ref);
	free(p->have);
	free(p->chunk);
	free(p->stored);
	free(p->raw);
	free(p->names);
	free(p);
	free(t);
}

int trace_reader_open(const char *path, struct trace **out, struct why *why)
{
	struct trace *t = calloc(1, sizeof(*t));
	struct trace_private *p = calloc(1, sizeof(*p));
	uint64_t end = 0;
	int err;

	if (!t || !p) {
		free(t);
		free(p);
		return -ENOMEM;
	}
	t->p = p;
	list_init(&p->texts);
	p->stored = malloc(TRACE_FRAME_MAX);
	p->raw = malloc(TRACE_FRAME_MAX);
	p->fd = open(path, O_RDONLY | O_CLOEXEC);
	err = p->fd < 0 ? -errno : !p->stored || !p->raw ? -ENOMEM : 0;
	if (!err)
		err = take_head(t, &end, why);
	if (!err)
		err = take_frames(t, end);
	if (!err)
		err = make_arena(p);
	if (err)
		trace_reader_close(t);
	else
		*out = t;
	return err;
}
