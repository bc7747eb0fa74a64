/* SPDX-License-Identifier: MIT */
/*
 * trace_write.c - writes logs: see trace.h.
 *
 * Events and new blocks gather in two buffers.  A full one becomes a frame; blocks go first, so
 * that what was written can always be read.  Blocks are told apart by 128 bits of their content;
 * a table finds the ones that the file has already.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include <zstd.h>
#include "blockdev/crash/trace.h"
#include "blockdev/crash/trace_int.h"

#define EVENT_BYTES (64 * KiB)
#define CHUNK_BYTES (256 * KiB)
#define EVENT_MAX   64u /* bytes of one without data and text */

struct known {
	uint64_t key[2];
	uint64_t block; /* 0: free */
};

struct trace_writer {
	int fd, err;
	uint64_t ticks, blocks; /* given out */
	uint64_t last;          /* block named last */
	uint8_t *event, *chunk, *packed;
	size_t n_event, event_room, n_chunk, packed_room;
	struct known *known;
	uint64_t room, n_known;
	ZSTD_CCtx *zstd;
	bool hurry; /* do not compress */
};

static uint64_t mix(uint64_t h)
{
	h = (h ^ h >> 32) * 0xD6E8FEB86659FD93ULL;
	return h ^ h >> 29;
}

/*
 * 128 bits of content; len is a multiple of 32.  False: it is all zeros.  Four lanes, each a
 * bijection of a word and what went before.
 */
static bool content_key(const void *data, size_t len, uint64_t key[2])
{
	uint64_t h[4] = {1, 2, 3, 4}, w[4], any = 0;
	const uint8_t *p = data;

	for (size_t at = 0; at < len; at += sizeof(w)) {
		memcpy(w, p + at, sizeof(w));
		for (unsigned k = 0; k < 4; k++) {
			h[k] = (h[k] ^ w[k]) * 0x9E3779B97F4A7C15ULL;
			h[k] ^= h[k] >> 31;
		}
		any |= w[0] | w[1] | w[2] | w[3];
	}
	key[0] = mix(h[0] + mix(h[1] + mix(h[2] + mix(h[3]))));
	key[1] = mix(h[3] ^ mix(h[2] ^ mix(h[0] ^ mix(~h[1]))));
	return any != 0;
}

uint64_t trace_fingerprint(const void *sector, uint64_t number)
{
	uint64_t key[2];

	content_key(sector, SECTOR, key);
	return (key[0] ^ number * 0x9E3779B97F4A7C15ULL) * 0xD6E8FEB86659FD93ULL ^ key[1] >> 32;
}

uint64_t trace_fingerprint_of(const void *data, uint64_t len, uint64_t off)
{
	static const uint8_t zeros[SECTOR];
	const uint8_t *p = data;
	uint64_t sum = 0;

	for (uint64_t at = 0; at + SECTOR <= len; at += SECTOR)
		if (memcmp(p + at, zeros, SECTOR))
			sum += trace_fingerprint(p + at, (off + at) / SECTOR);
	return sum;
}

static void write_all(struct trace_writer *w, const void *data, size_t len)
{
	const uint8_t *p = data;

	while (len && !w->err) {
		ssize_t n = write(w->fd, p, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			w->err = n ? -errno : -EIO;
			return;
		}
		p += n;
		len -= (size_t)n;
	}
}

static void put_frame(struct trace_writer *w, uint32_t what, const uint8_t *data, size_t len)
{
	struct trace_frame h;
	size_t n;

	if (!len)
		return;
	n = w->hurry ? len
		     : ZSTD_compressCCtx(w->zstd, w->packed, w->packed_room, data, len, 1);
	if (!ZSTD_isError(n) && n < len) {
		data = w->packed;
		what |= TRACE_PACKED;
	} else {
		n = len;
	}
	h.what = le32_make(what);
	h.stored = le32_make((uint32_t)n);
	h.raw = le32_make((uint32_t)len);
	h.crc = le32_make((uint32_t)crc32(0, data, (uInt)n));
	write_all(w, &h, sizeof(h));
	write_all(w, data, n);
}

void trace_writer_compress(struct trace_writer *w, bool on)
{
	w->hurry = !on;
}

static void put_chunk(struct trace_writer *w)
{
	put_frame(w, TRACE_FRAME_DATA, w->chunk, w->n_chunk);
	w->n_chunk = 0;
}

int trace_writer_flush(struct trace_writer *w)
{
	put_chunk(w);
	put_frame(w, TRACE_FRAME_EVENTS, w->event, w->n_event);
	w->n_event = 0;
	return w->err;
}

/* Room for n more bytes of events; one event is never split between frames. */
static void make_room(struct trace_writer *w, size_t n)
{
	size_t packed = ZSTD_compressBound(n);

	if (w->event_room - w->n_event >= n)
		return;
	trace_writer_flush(w);
	if (w->event_room >= n)
		return;
	free(w->event);
	free(w->packed);
	w->event = malloc(n);
	w->packed = malloc(packed);
	w->event_room = n;
	w->packed_room = packed;
	if (!w->event || !w->packed)
		w->err = -ENOMEM;
}

static void put_byte(struct trace_writer *w, uint8_t b)
{
	w->event[w->n_event++] = b;
}

static void put_number(struct trace_writer *w, uint64_t v)
{
	for (; v >= 0x80; v >>= 7)
		put_byte(w, (uint8_t)(v | 0x80));
	put_byte(w, (uint8_t)v);
}

/* ---- blocks ---- */

static struct known *find_known(const struct trace_writer *w, const uint64_t key[2])
{
	uint64_t i = key[0] & (w->room - 1);

	while (w->known[i].block && (w->known[i].key[0] != key[0] || w->known[i].key[1] != key[1]))
		i = (i + 1) & (w->room - 1);
	return &w->known[i];
}

/* Without memory for a larger table new blocks are no longer remembered. */
static bool room_for_known(struct trace_writer *w)
{
	struct known *old = w->known, *larger;
	uint64_t n = w->room;

	if (w->n_known < w->room / 4 * 3)
		return true;
	larger = calloc(n * 2, sizeof(*larger));
	if (!larger)
		return false;
	w->known = larger;
	w->room = n * 2;
	for (uint64_t i = 0; i < n; i++)
		if (old[i].block)
			*find_known(w, old[i].key) = old[i];
	free(old);
	return true;
}

static void put_block(struct trace_writer *w, const uint8_t *data, size_t len)
{
	uint8_t padded[TRACE_BLOCK];
	uint64_t key[2], block, d;
	struct known *k;

	if (len < TRACE_BLOCK) {
		memcpy(padded, data, len);
		memset(padded + len, 0, TRACE_BLOCK - len);
		data = padded;
	}
	if (!content_key(data, TRACE_BLOCK, key)) {
		put_number(w, 0);
		return;
	}
	k = find_known(w, key);
	block = k->block;
	if (!block) {
		block = ++w->blocks;
		memcpy(w->chunk + w->n_chunk, data, TRACE_BLOCK);
		w->n_chunk += TRACE_BLOCK;
		if (room_for_known(w)) {
			*find_known(w, key) = (struct known){{key[0], key[1]}, block};
			w->n_known++;
		}
		if (w->n_chunk == CHUNK_BYTES)
			put_chunk(w);
	}
	d = block - w->last - 1;
	put_number(w, 1 + (d >> 63 ? -d * 2 - 1 : d * 2));
	w->last = block;
}

/* A block's number as a varint: five bytes are enough for 64 TiB of different blocks. */
static size_t data_room(const struct trace_event *e)
{
	return div_round_up(e->len, TRACE_BLOCK) * 5;
}

static void put_data(struct trace_writer *w, const struct trace_event *e)
{
	const uint8_t *p = e->data;

	for (uint64_t at = 0; at < e->len; at += TRACE_BLOCK)
		put_block(w, p + at, (size_t)min_u64(e->len - at, TRACE_BLOCK));
}

/* ---- events ---- */

static void put_request(struct trace_writer *w, const struct trace_event *e)
{
	bool guest = e->kind == TRACE_GUEST;

	put_byte(w, e->op);
	put_byte(w, e->flags);
	if (e->flags & TRACE_SAME)
		put_number(w, w->ticks - e->same);
	put_number(w, guest ? e->off / SECTOR : e->off);
	put_number(w, guest ? e->len / SECTOR : e->len);
	if (trace_has_data(e) && !(e->flags & TRACE_SAME))
		put_data(w, e);
}

static void put_mark(struct trace_writer *w, const struct trace_event *e)
{
	put_byte(w, (uint8_t)e->by);
	put_number(w, e->len);
	memcpy(w->event + w->n_event, e->data, e->len);
	w->n_event += e->len;
}

uint64_t trace_writer_append(struct trace_writer *w, const struct trace_event *e)
{
	assert(e->kind != TRACE_GUEST || (e->off % SECTOR == 0 && e->len % SECTOR == 0));
	assert(e->kind != TRACE_MARK || e->len <= TRACE_TEXT_MAX);
	assert(!trace_has_data(e) || e->len <= TRACE_WRITE_MAX);
	w->ticks++;
	if (w->err)
		return w->ticks;
	if (e->kind == TRACE_MARK)
		make_room(w, EVENT_MAX + e->len);
	else
		make_room(w, EVENT_MAX + (trace_has_data(e) ? data_room(e) : 0));
	if (w->err)
		return w->ticks;
	put_byte(w, (uint8_t)e->kind);
	switch (e->kind) {
	case TRACE_GUEST:
	case TRACE_HOST:
		put_request(w, e);
		break;
	case TRACE_GUEST_DONE:
	case TRACE_HOST_DONE:
		put_number(w, w->ticks - e->other);
		put_byte(w, e->flags);
		put_number(w, (uint64_t)-e->err);
		break;
	case TRACE_MARK:
		put_mark(w, e);
		break;
	}
	return w->ticks;
}

/* ---- opening and closing ---- */

static void put_header(struct trace_writer *w, const struct trace_info *info)
{
	size_t image = strlen(info->image), format = strlen(info->format);
	le64_t data_bytes = le64_make(info->data_bytes);
	size_t more = info->data_bytes ? sizeof(data_bytes) : 0;
	struct trace_head h = {
		.magic = TRACE_MAGIC,
		.version = le32_make(more ? 2 : 1),
		.header = le32_make((uint32_t)(sizeof(h) + image + format + more)),
		.disk_bytes = le64_make(info->disk_bytes),
		.sector = le32_make(SECTOR),
		.flags = le32_make((info->blank ? TRACE_HEAD_BLANK : 0) |
				   (info->unsafe ? TRACE_HEAD_UNSAFE : 0)),
		.fingerprint = le64_make(info->fingerprint),
		.image_bytes = le64_make(info->image_bytes),
		.image_len = le32_make((uint32_t)image),
		.format_len = le32_make((uint32_t)format),
	};

	write_all(w, &h, sizeof(h));
	write_all(w, info->image, image);
	write_all(w, info->format, format);
	write_all(w, &data_bytes, more);
}

/* Someone's image, named by mistake, stays what it is. */
static int may_be_log(int fd)
{
	char head[8] = {0};
	struct stat st;
	ssize_t n;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EINVAL;
	n = pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return -errno;
	return n && memcmp(head, TRACE_MAGIC, sizeof(head)) != 0 ? -EEXIST : 0;
}

int trace_writer_check(const char *path)
{
	int fd = open(path, O_RDWR | O_CLOEXEC), err;

	if (fd < 0)
		return errno == ENOENT ? 0 : -errno;
	err = may_be_log(fd);
	close(fd);
	return err;
}

static int open_file(struct trace_writer *w, const char *path, struct why *why)
{
	int err;

	w->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
	err = w->fd < 0 ? -errno : may_be_log(w->fd);
	if (err == -EEXIST)
		return why_set(why, err, "exists and is no log; it is left alone");
	if (!err && ftruncate(w->fd, 0))
		err = -errno;
	return err;
}

static void writer_free(struct trace_writer *w)
{
	if (w->fd >= 0)
		close(w->fd);
	ZSTD_freeCCtx(w->zstd);
	free(w->event);
	free(w->chunk);
	free(w->packed);
	free(w->known);
	free(w);
}

int trace_writer_open(const char *path, const struct trace_info *info, struct trace_writer **out,
	struct why *why)
{
	struct trace_writer *w = calloc(1, sizeof(*w));
	int err;

	if (!w)
		return -ENOMEM;
	w->fd = -1;
	w->room = 1 << 12;
	w->packed_room = ZSTD_compressBound(CHUNK_BYTES);
	w->event_room = EVENT_BYTES;
	w->event = malloc(EVENT_BYTES);
	w->chunk = malloc(CHUNK_BYTES);
	w->packed = malloc(w->packed_room);
	w->known = calloc(w->room, sizeof(*w->known));
	w->zstd = ZSTD_createCCtx();
	err = w->event && w->chunk && w->packed && w->known && w->zstd ? 0 : -ENOMEM;
	if (!err)
		err = open_file(w, path, why);
	if (!err) {
		put_header(w, info);
		err = w->err;
	}
	if (err)
		writer_free(w);
	else
		*out = w;
	return err;
}

int trace_writer_close(struct trace_writer *w)
{
	int err = trace_writer_flush(w);

	if (!err && close(w->fd))
		err = -errno;
	w->fd = err ? w->fd : -1;
	writer_free(w);
	return err;
}
