/* SPDX-License-Identifier: MIT */
/*
 * record.c - see record.h.
 *
 * The disk's thread copies each event with its data into a ring; a thread takes them out, packs
 * and writes them.  That thread is woken when the ring was empty, and then waits a moment
 * (DOZE_MS) for more, so that the guest pays for one wake-up in many requests.  If the ring is
 * full, the disk's thread waits: a log without holes is worth more than speed.
 *
 * An event's place in the ring is its tick: one lock gives out both, and so a mark, which comes
 * from a vCPU, is behind all that the guest was told before it.
 *
 * Data that a guest's write and the host's have in common are copied once: a host operation that
 * is submitted while the guest's submission was the last event, with the same iovec, is that
 * write's.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "blockdev/crash/record.h"
#include "blockdev/crash/trace.h"
#include "blockdev/crash/trace_int.h"
#include "blockdev/file/watch.h"

#define RING_BYTES (256 * MiB) /* of address space; memory as much as the thread lags behind */
#define LARGE      (16 * MiB) /* data from here on get memory of their own */
#define DOZE_MS    20

struct entry {
	struct trace_event e;
	uint64_t bytes; /* to the next entry */
	uint8_t *own;   /* large data, to be freed */
	bool skip;      /* nothing but the way to the ring's beginning */
};
#define ENTRY_ALIGN 64u

struct recorder {
	struct disk_tap tap;
	struct file_watch watch, data_watch; /* of the image; of its external data file */
	uint64_t data_bytes;                 /* of that */
	const char *path;
	struct trace_writer *w; /* NULL: not begun */
	uint8_t *ring;
	pthread_t thread;
	/* The disk's thread's: what the last event was, if a guest's write. */
	const struct iovec *last_iov;
	uint64_t last_len, last_tick;

	pthread_mutex_t lock; /* guards all below, and the ring's entries from head on */
	pthread_cond_t filled, emptied;
	uint64_t clock;
	uint64_t head, tail; /* bytes ever put in, taken out */
	bool dozing, waiting, stop, running;
	int err;
};

/* ---- the ring ---- */

static struct entry *entry_at(const struct recorder *r, uint64_t at)
{
	return (struct entry *)(void *)(r->ring + at % RING_BYTES);
}

/* A place for an entry of so many bytes in one piece; NULL: the event is lost. */
static struct entry *place_locked(struct recorder *r, uint64_t bytes)
{
	uint64_t rest = RING_BYTES - r->head % RING_BYTES, need = bytes + (rest < bytes ? rest : 0);

	while (RING_BYTES - (r->head - r->tail) < need && r->running) {
		r->waiting = true;
		pthread_cond_signal(&r->filled);
		pthread_cond_wait(&r->emptied, &r->lock);
	}
	if (RING_BYTES - (r->head - r->tail) < need) {
		r->err = r->err ? r->err : -ENOBUFS;
		return NULL;
	}
	if (rest < bytes) {
		*entry_at(r, r->head) = (struct entry){.bytes = rest, .skip = true};
		r->head += rest;
	}
	return entry_at(r, r->head);
}

static void copy_iov(uint8_t *to, const struct iovec *iov, int niov)
{
	for (int i = 0; i < niov; i++) {
		memcpy(to, iov[i].iov_base, iov[i].iov_len);
		to += iov[i].iov_len;
	}
}

/* len: bytes of data in the iovec, 0: none.  The tick of the event, also if it is lost. */
static uint64_t put(struct recorder *r, struct trace_event *e, const struct iovec *iov, int niov,
	uint64_t len)
{
	uint8_t *own = len >= LARGE ? malloc(len) : NULL;
	uint64_t bytes = round_up(sizeof(struct entry) + (own ? 0 : len), ENTRY_ALIGN);
	struct entry *n = NULL;
	bool was_empty;

	pthread_mutex_lock(&r->lock);
	e->tick = ++r->clock;
	if (len >= LARGE && !own)
		r->err = -ENOMEM;
	else if (!r->err)
		n = place_locked(r, bytes);
	if (n) {
		*n = (struct entry){.e = *e, .bytes = bytes, .own = own};
		if (len) {
			n->e.data = own ? own : (uint8_t *)(n + 1);
			copy_iov(own ? own : (uint8_t *)(n + 1), iov, niov);
		}
		was_empty = r->head == r->tail;
		r->head += bytes;
		if (r->dozing && (was_empty || r->head - r->tail > RING_BYTES / 4))
			pthread_cond_signal(&r->filled);
	} else {
		free(own);
	}
	pthread_mutex_unlock(&r->lock);
	return e->tick;
}

/* ---- the thread ---- */

static void doze_locked(struct recorder *r)
{
	struct timespec until;

	r->dozing = true;
	while (r->head == r->tail && !r->stop)
		pthread_cond_wait(&r->filled, &r->lock);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_nsec += DOZE_MS * 1000000L;
	until.tv_sec += until.tv_nsec / 1000000000L;
	until.tv_nsec %= 1000000000L;
	while (r->head - r->tail <= RING_BYTES / 4 && !r->stop && !r->waiting)
		if (pthread_cond_timedwait(&r->filled, &r->lock, &until) == ETIMEDOUT)
			break;
	r->dozing = false;
}

static void write_out(struct recorder *r, uint64_t at, uint64_t end)
{
	while (at < end) {
		struct entry *n = entry_at(r, at);
		uint64_t bytes = n->bytes;

		if (!n->skip)
			trace_writer_append(r->w, &n->e);
		free(n->own);
		at += bytes;
		pthread_mutex_lock(&r->lock);
		r->tail = at;
		trace_writer_compress(r->w, r->head - r->tail < RING_BYTES / 4);
		if (r->waiting) {
			r->waiting = false;
			pthread_cond_signal(&r->emptied);
		}
		pthread_mutex_unlock(&r->lock);
	}
}

static void *recorder_main(void *arg)
{
	struct recorder *r = arg;
	bool told = false, over = false;

	pthread_setname_np(pthread_self(), "recorder");
	/* The guest first; of this thread alone, which is what Linux makes of it. */
	(void)!setpriority(PRIO_PROCESS, (id_t)gettid(), 19);
	while (!over) {
		uint64_t at, end;
		int err;

		pthread_mutex_lock(&r->lock);
		doze_locked(r);
		at = r->tail;
		end = r->head;
		over = r->stop;
		pthread_mutex_unlock(&r->lock);
		write_out(r, at, end);
		err = trace_writer_flush(r->w);
		if (err && !told)
			log_warn("%s: %s; recording ends here", r->path, why_text(NULL, err));
		told |= err != 0;
	}
	return NULL;
}

/* ---- what is told ---- */

static void forget_last(struct recorder *r)
{
	r->last_iov = NULL;
}

static void on_submit(struct disk_tap *t, struct blk_req *req, bool wce)
{
	struct recorder *r = container_of(t, struct recorder, tap);
	bool data = req->op == BLK_WRITE;
	struct trace_event e = {.kind = TRACE_GUEST,
		.op = (uint8_t)req->op,
		.flags = (uint8_t)((req->flags & BLK_FUA ? TRACE_FUA : 0) | (wce ? TRACE_WCE : 0) |
				   (req->flags & BLK_UNMAP ? TRACE_UNMAP : 0)),
		.off = req->off,
		.len = req->op == BLK_FLUSH ? 0 : req->len};

	req->tick = put(r, &e, req->iov, req->niov, data ? req->len : 0);
	r->last_iov = data ? req->iov : NULL;
	r->last_len = req->len;
	r->last_tick = req->tick;
}

static void put_done(struct recorder *r, enum trace_kind kind, uint64_t of, bool wce, int err)
{
	struct trace_event e = {
		.kind = kind, .other = of, .flags = wce ? TRACE_WCE : 0, .err = err};

	forget_last(r);
	put(r, &e, NULL, 0, 0);
}

static void on_done(struct disk_tap *t, struct blk_req *req, bool wce, int err)
{
	put_done(container_of(t, struct recorder, tap), TRACE_GUEST_DONE, req->tick, wce, err);
}

static void on_wce_submit(struct disk_tap *t, struct wce_change *c, bool wce)
{
	struct recorder *r = container_of(t, struct recorder, tap);
	struct trace_event e = {.kind = TRACE_GUEST,
		.op = c->enable ? TRACE_WCE_ON : TRACE_WCE_OFF,
		.flags = wce ? TRACE_WCE : 0};

	forget_last(r);
	c->tick = put(r, &e, NULL, 0, 0);
}

static void on_wce_done(struct disk_tap *t, struct wce_change *c, bool wce, int err)
{
	put_done(container_of(t, struct recorder, tap), TRACE_GUEST_DONE, c->tick, wce, err);
}

static uint64_t host_submit(struct recorder *r, const struct file_req *f, unsigned flags)
{
	bool data = f->op == FILE_WRITE;
	struct trace_event e = {.kind = TRACE_HOST,
		.op = (uint8_t)f->op,
		.flags = (uint8_t)flags,
		.off = f->off,
		.len = f->len};

	if (data && r->last_iov && f->iov == r->last_iov && f->len == r->last_len) {
		e.flags |= TRACE_SAME;
		e.same = r->last_tick;
	}
	forget_last(r);
	return put(r, &e, f->iov, f->niov, data && !(e.flags & TRACE_SAME) ? f->len : 0);
}

static uint64_t on_host_submit(struct file_watch *w, const struct file_req *f)
{
	return host_submit(container_of(w, struct recorder, watch), f, 0);
}

static void on_host_done(struct file_watch *w, uint64_t number, int err)
{
	put_done(container_of(w, struct recorder, watch), TRACE_HOST_DONE, number, false, err);
}

static uint64_t on_data_submit(struct file_watch *w, const struct file_req *f)
{
	return host_submit(container_of(w, struct recorder, data_watch), f, TRACE_DATA_FILE);
}

static void on_data_done(struct file_watch *w, uint64_t number, int err)
{
	put_done(container_of(w, struct recorder, data_watch), TRACE_HOST_DONE, number, false, err);
}

static int on_file(
	struct disk_tap *t, struct file *f, bool data, struct file **out, struct why *why)
{
	struct recorder *r = container_of(t, struct recorder, tap);

	if (data)
		r->data_bytes = file_size(f);
	return watch_open(f, data ? &r->data_watch : &r->watch, out);
}

void recorder_mark(struct recorder *r, enum mark_by by, const char *text, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)text, min_u64(len, TRACE_TEXT_MAX)};
	struct trace_event e = {
		.kind = TRACE_MARK, .by = (enum trace_by)by, .len = iov.iov_len};

	put(r, &e, &iov, 1, iov.iov_len);
}

/* ---- beginning and end ---- */

int recorder_new(const char *path, struct recorder **out, struct why *why)
{
	struct recorder *r = calloc(1, sizeof(*r));
	void *ring;
	int err;

	static_assert((int)MARK_BY_USER == (int)TRACE_BY_USER, "the same numbers");
	static_assert(BLK_FLUSH < TRACE_WCE_OFF && BLK_WRITE == 1, "trace.h, ops");
	if (!r)
		return -ENOMEM;
	err = trace_writer_check(path);
	if (err) {
		free(r);
		return why_set(why, err, "trace=%s: %s", path,
			err == -EEXIST ? "exists and is no log; it is left alone"
				       : why_text(NULL, err));
	}
	ring = mmap(NULL, RING_BYTES, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ring == MAP_FAILED) {
		free(r);
		return -ENOMEM;
	}
	r->ring = ring;
	r->path = path;
	r->tap = (struct disk_tap){.submit = on_submit,
		.done = on_done,
		.wce_submit = on_wce_submit,
		.wce_done = on_wce_done,
		.file = on_file};
	r->watch = (struct file_watch){on_host_submit, on_host_done};
	r->data_watch = (struct file_watch){on_data_submit, on_data_done};
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->filled, NULL);
	pthread_cond_init(&r->emptied, NULL);
	*out = r;
	return 0;
}

struct disk_tap *recorder_tap(struct recorder *r)
{
	return &r->tap;
}

#define READ_BYTES (256 * KiB)

struct summing {
	struct disk *d;
	uint64_t sum;
	bool blank;
};

static int sum_range(struct summing *s, uint8_t *buf, uint64_t off, uint64_t len)
{
	static const uint8_t zeros[SECTOR];
	uint64_t n;
	int err = 0;

	for (; len && !err; off += n, len -= n) {
		n = min_u64(len, READ_BYTES);
		err = disk_pread(s->d, buf, n, off);
		for (uint64_t i = 0; i < n && !err; i += SECTOR) {
			if (!memcmp(buf + i, zeros, SECTOR))
				continue;
			s->sum += trace_fingerprint(buf + i, (off + i) / SECTOR);
			s->blank = false;
		}
	}
	return err;
}

/* In a fiber: of what the guest would read. */
static int sum_disk(void *arg)
{
	struct summing *s = arg;
	uint64_t size = disk_size(s->d);
	uint8_t *buf = file_buf(READ_BYTES);
	struct extent e;
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t off = 0; off < size && !err; off += e.len) {
		err = disk_map(s->d, off, size - off, &e);
		if (!err && e.kind == EXTENT_DATA)
			err = sum_range(s, buf, off, e.len);
	}
	free(buf);
	return err;
}

int recorder_begin(struct recorder *r, struct loop *l, struct disk *d, struct why *why)
{
	struct summing s = {.d = d, .blank = true};
	struct why inner = {""};
	struct trace_info info = {.disk_bytes = disk_size(d),
		.format = disk_format(d),
		.data_bytes = r->data_bytes,
		.unsafe = disk_cache_mode(d) == CACHE_UNSAFE};
	char *full = realpath(disk_path(d), NULL);
	struct stat st;
	int err;

	info.image = full ? full : disk_path(d);
	info.image_bytes = stat(info.image, &st) ? 0 : (uint64_t)st.st_size;
	err = fiber_run(l, sum_disk, &s);
	info.fingerprint = s.sum;
	info.blank = s.blank;
	if (!err)
		err = trace_writer_open(r->path, &info, &r->w, &inner);
	free(full);
	if (!err)
		err = -pthread_create(&r->thread, NULL, recorder_main, r);
	if (err)
		return why_set(why, err, "trace=%s: %s", r->path, why_text(&inner, err));
	pthread_mutex_lock(&r->lock);
	r->running = true;
	pthread_mutex_unlock(&r->lock);
	return 0;
}

int recorder_close(struct recorder *r, struct why *why)
{
	int err = 0;

	if (r->running) {
		pthread_mutex_lock(&r->lock);
		r->stop = true;
		pthread_cond_signal(&r->filled);
		pthread_mutex_unlock(&r->lock);
		pthread_join(r->thread, NULL);
	}
	if (r->w)
		err = trace_writer_close(r->w);
	if (r->err)
		err = r->err;
	if (err)
		why_set(why, err, "trace=%s: the log is not complete: %s", r->path,
			why_text(NULL, err));
	pthread_cond_destroy(&r->filled);
	pthread_cond_destroy(&r->emptied);
	pthread_mutex_destroy(&r->lock);
	munmap(r->ring, RING_BYTES);
	free(r);
	return err;
}
