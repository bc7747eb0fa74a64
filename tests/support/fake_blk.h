/* SPDX-License-Identifier: MIT */
/*
 * fake_blk.h - a virtio-blk device on a real disk with its own loop thread, and a driver for it.
 *
 * The disk is a raw file of BLK_SECTORS sectors; its sector n is filled with blk_byte(n).
 * The host file can be made to fail.  For tests; after fake_driver.h.
 */
#ifndef TESTS_FAKE_BLK_H
#define TESTS_FAKE_BLK_H

#include <fcntl.h>
#include <semaphore.h>
#include <stdio.h>
#include "blockdev/file/fault.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_pci.h"
#include "tests/support/fake_driver.h"

#define BLK_SECTORS   2048U
#define BLK_F_RO      (1ULL << 5)
#define BLK_F_FLUSH   (1ULL << 9)
#define BLK_F_WCE     (1ULL << 11)
#define BLK_F_MQ      (1ULL << 12)
#define BLK_WRITEBACK 32 /* offset of the cache bit in the configuration */
#define BLK_HDR	      0x1000 /* gpa of a header for descriptor i: + 32 * i; status behind it */

/* A file that can keep requests back for a while; on the loop's thread. */
struct fake_hold {
	struct file file;
	struct list held;
	struct loop_timer timer;
	bool holding;
	atomic_bool released; /* by the timer, after it had something to release */
};

struct fake_disk {
	pthread_t thread;
	struct loop *loop;
	struct disk *disk;
	struct file *fault;
	struct fake_hold hold;
	struct disk_opts opts;
	char path[256];
	sem_t ready;
	int err;
};

static inline uint8_t blk_byte(uint64_t sector)
{
	return (uint8_t)(sector * 7 + 1);
}

static void fake_hold_submit(struct file *f, struct file_req *r)
{
	struct fake_hold *h = container_of(f, struct fake_hold, file);

	if (h->holding)
		list_add_tail(&h->held, &r->link);
	else
		file_submit(f->below, r);
}

static uint64_t fake_hold_size(struct file *f)
{
	return file_size(f->below);
}

static void fake_hold_close(struct file *f)
{
}

static void fake_hold_release(struct loop_timer *t)
{
	struct fake_hold *h = container_of(t, struct fake_hold, timer);
	struct list *n;

	h->holding = false;
	atomic_store(&h->released, !list_empty(&h->held));
	while ((n = list_pop(&h->held)) != NULL)
		file_submit(h->file.below, list_entry(n, struct file_req, link));
}

static inline void fake_hold_init(struct fake_hold *h, struct file *below)
{
	static const struct file_ops ops = {
		.name = "hold",
		.submit = fake_hold_submit,
		.size = fake_hold_size,
		.close = fake_hold_close,
	};

	h->file = *below;
	h->file.ops = &ops;
	h->file.below = below;
	list_init(&h->held);
	list_init(&h->timer.link);
	h->timer.fn = fake_hold_release;
}

static void *fake_disk_main(void *arg)
{
	struct fake_disk *d = arg;
	struct file *f = NULL;

	d->err = loop_new(LOOP_AIO_AUTO, &d->loop);
	if (!d->err)
		d->err = file_open(d->loop, d->path, d->opts.readonly ? FILE_RDONLY : FILE_RDWR, &f,
			NULL);
	if (!d->err)
		d->err = fault_open(f, &d->fault);
	if (!d->err) {
		fake_hold_init(&d->hold, d->fault);
		d->err = disk_open_file(&d->hold.file, &d->opts, &d->disk, NULL);
	}
	sem_post(&d->ready);
	if (d->err)
		return NULL;
	d->err = loop_run(d->loop);
	if (!d->err)
		d->err = disk_close(d->disk, NULL);
	loop_free(d->loop);
	return NULL;
}

static inline void fake_disk_open(struct fake_disk *d, enum cache_mode mode, bool readonly)
{
	const char *dir = getenv("TMPDIR");
	uint8_t sector[SECTOR];
	int fd;

	*d = (struct fake_disk){.opts = {.format = "raw", .cache = mode, .readonly = readonly}};
	snprintf(d->path, sizeof(d->path), "%s/fake-disk.XXXXXX", dir && *dir ? dir : "/tmp");
	fd = mkstemp(d->path);
	assert(fd >= 0);
	for (unsigned i = 0; i < BLK_SECTORS; i++) {
		ssize_t n;

		memset(sector, blk_byte(i), sizeof(sector));
		n = write(fd, sector, sizeof(sector));
		assert(n == sizeof(sector));
	}
	close(fd);
	d->opts.path = d->path;
	sem_init(&d->ready, 0, 0);
	if (pthread_create(&d->thread, NULL, fake_disk_main, d))
		abort();
	sem_wait(&d->ready);
	assert(!d->err);
}

/* Whatever was left undone shows here: the loop is asked to stop and must. */
static inline void fake_disk_close(struct fake_disk *d)
{
	loop_stop(d->loop);
	pthread_join(d->thread, NULL);
	unlink(d->path);
	sem_destroy(&d->ready);
}

/* Runs fn on the loop's thread and waits for it. */
struct fake_call {
	struct loop_msg msg;
	void (*fn)(void *arg);
	void *arg;
	sem_t done;
};

static void fake_call_on_loop(struct loop_msg *m)
{
	struct fake_call *c = container_of(m, struct fake_call, msg);

	c->fn(c->arg);
	sem_post(&c->done);
}

static inline void fake_on_loop(struct fake_disk *d, void (*fn)(void *arg), void *arg)
{
	struct fake_call c = {.msg.fn = fake_call_on_loop, .fn = fn, .arg = arg};

	sem_init(&c.done, 0, 0);
	loop_post(d->loop, &c.msg);
	sem_wait(&c.done);
	sem_destroy(&c.done);
}

static void fake_hold_start(void *arg)
{
	struct fake_hold *h = arg;

	h->holding = true;
	atomic_store(&h->released, false);
	loop_timer_set(h->file.loop, &h->timer, loop_now_ns() + 20000000);
}

/* From now on no request reaches the host file, for 20 ms. */
static inline void fake_disk_hold(struct fake_disk *d)
{
	fake_on_loop(d, fake_hold_start, &d->hold);
}

/* The machine with its one drive. */
struct fake_blk {
	struct fake_machine *m;
	struct fake_disk disk;
	struct device *host, *dev;
	struct fake_virtio d;
	struct fake_ring r[4];
};

static inline void fake_blk_open(struct fake_blk *b, enum cache_mode mode, bool readonly,
	const struct virtio_blk_opts *o)
{
	int err;

	memset(b, 0, sizeof(*b));
	b->m = fake_machine_new();
	fake_mem_init(&b->m->mem);
	fake_disk_open(&b->disk, mode, readonly);
	err = pci_host_create(&b->m->s, &b->host);
	assert(!err);
	err = virtio_blk_create(&b->m->s, b->disk.loop, b->disk.disk, o, &b->dev, NULL);
	assert(!err);
	if (!fake_virtio_find(&b->d, b->m, 1))
		abort();
}

static inline void fake_blk_close(struct fake_blk *b)
{
	b->dev->ops->stop(b->dev);
	b->dev->ops->destroy(b->dev);
	b->host->ops->destroy(b->host);
	fake_disk_close(&b->disk);
	fake_mem_fini(&b->m->mem);
	fake_machine_free(b->m);
}

/* A driver begins: negotiation and n queues of this size.  False: the features were refused. */
static inline bool fake_blk_start(struct fake_blk *b, uint64_t features, unsigned n, uint16_t size)
{
	if (!vnegotiate(&b->d, features | VIRTIO_F_VERSION_1))
		return false;
	for (unsigned i = 0; i < n; i++) {
		fake_ring_init(&b->r[i], &b->m->mem, i, size);
		b->r[i].l.event_idx = features & VIRTIO_F_EVENT_IDX;
		vqueue_setup(&b->d, i, &b->r[i].l);
	}
	vstatus_add(&b->d, STATUS_DRIVER_OK);
	return true;
}

static inline uint64_t blk_hdr(struct fake_blk *b, unsigned i, uint32_t type, uint64_t sector)
{
	uint64_t at = BLK_HDR + 32 * i;
	struct {
		le32_t type, reserved;
		le64_t sector;
		uint8_t status;
	} __attribute__((packed)) h = {le32_make(type), le32_make(0), le64_make(sector), 0xaa};

	memcpy(gmem_ptr(&b->m->mem, at, sizeof(h)), &h, sizeof(h));
	return at;
}

static inline uint8_t blk_status(struct fake_blk *b, unsigned i)
{
	return atomic_load((_Atomic uint8_t *)gmem_ptr(&b->m->mem, BLK_HDR + 32 * i + 16, 1));
}

/* The usual three descriptors from i (< 62) on, data at gpa (len 0: without); not yet published. */
static inline void blk_put(struct fake_blk *b, unsigned q, unsigned i, uint32_t type,
	uint64_t sector, uint64_t gpa, uint32_t len)
{
	uint64_t h = blk_hdr(b, i + 64 * q, type, sector);
	uint16_t next = (uint16_t)(len ? i + 1 : i + 2);

	fake_desc(&b->r[q], i, h, 16, VIRTQ_DESC_NEXT, next);
	if (len)
		fake_desc(&b->r[q], i + 1, gpa, len,
			VIRTQ_DESC_NEXT | (type == 1 || type > 10 ? 0 : VIRTQ_DESC_WRITE),
			(uint16_t)(i + 2));
	fake_desc(&b->r[q], i + 2, h + 16, 1, VIRTQ_DESC_WRITE, 0);
	fake_avail(&b->r[q], (uint16_t)i);
}

/* Shows what was put, and rings if the device asks for it. */
static inline void blk_publish(struct fake_blk *b, unsigned q)
{
	struct fake_ring *r = &b->r[q];
	uint16_t old = atomic_load(fake_u16(r, r->l.avail + 2)), new = r->avail_idx, event;
	bool ring;

	fake_publish(r);
	atomic_thread_fence(memory_order_seq_cst);
	if (r->l.event_idx) {
		event = atomic_load(fake_u16(r, r->l.used + 4 + 8 * r->l.size));
		ring = (uint16_t)(new - event - 1) < (uint16_t)(new - old);
	} else {
		ring = !(atomic_load(fake_u16(r, r->l.used)) & 1);
	}
	if (ring)
		vkick(&b->d, q);
}

/* Waits until everything published came back; false: it did not. */
static inline bool blk_all_back(struct fake_blk *b, unsigned q)
{
	return fake_wait(fake_used_idx(&b->r[q]) == b->r[q].avail_idx);
}

/* One request from beginning to end: its status; -1: it did not come back. */
static inline int blk_do(struct fake_blk *b, uint32_t type, uint64_t sector, uint64_t gpa,
	uint32_t len)
{
	blk_put(b, 0, 0, type, sector, gpa, len);
	blk_publish(b, 0);
	return blk_all_back(b, 0) ? blk_status(b, 0) : -1;
}

static inline uint64_t blk_fdatasyncs(struct fake_blk *b)
{
	struct disk_stats s;

	disk_stats_get(b->disk.disk, &s);
	return s.host_fdatasyncs;
}

#endif
