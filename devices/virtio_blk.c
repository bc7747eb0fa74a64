/* SPDX-License-Identifier: MIT */
/*
 * virtio_blk.c - a disk as a virtio block device (virtio 1.2, section 5.2).
 *
 * Everything of the data path runs on the drive's loop: a kick is an eventfd that the loop
 * polls, a request is a slot taken from a list made at creation, and all completions of one
 * turn raise at most one interrupt per queue.  vCPU threads only come through the transport's
 * callbacks; they post a message to the loop and wait for its answer: to start and stop
 * queues, and to change the cache bit, so that a driver that reads it back reads the truth.
 *
 * A slot's life: free -> popped -> submitted -> done() -> pushed -> free.  A chain that is not a
 * request skips submission, but is pushed all the same: each comes back exactly once.
 *
 * Two reasons to stop while the ring holds more: all slots are in flight (a driver may have as
 * many requests as there are), and a driver that refills the ring as fast as it is emptied, which
 * must not keep the loop from its messages.  Either way the queue rings its own doorbell.
 */
#include <semaphore.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "devices/virtio_blk.h"
#include "devices/virtio_pci.h"

#define BLK_F_SIZE_MAX	 (1ULL << 1)
#define BLK_F_SEG_MAX	 (1ULL << 2)
#define BLK_F_RO	 (1ULL << 5)
#define BLK_F_BLK_SIZE	 (1ULL << 6)
#define BLK_F_FLUSH	 (1ULL << 9)
#define BLK_F_TOPOLOGY	 (1ULL << 10)
#define BLK_F_CONFIG_WCE (1ULL << 11)
#define BLK_F_MQ	 (1ULL << 12)
#define BLK_F_DISCARD	 (1ULL << 13)
#define BLK_F_ZEROES	 (1ULL << 14)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

struct blk_hdr {
	le32_t type, reserved;
	le64_t sector;
};
static_assert(sizeof(struct blk_hdr) == 16, "virtio 1.2, 5.2.6");

struct blk_config {
	le64_t capacity; /* sectors */
	le32_t size_max, seg_max;
	le16_t cylinders;
	uint8_t heads, sectors;
	le32_t blk_size;
	uint8_t physical_exp, alignment;
	le16_t min_io;
	le32_t opt_io;
	uint8_t writeback, pad;
	le16_t num_queues;
	le32_t max_discard_sectors, max_discard_seg, discard_alignment;
	le32_t max_zeroes_sectors, max_zeroes_seg;
	uint8_t zeroes_may_unmap, pad2[3];
} __attribute__((packed));
static_assert(offsetof(struct blk_config, writeback) == 32, "virtio 1.2, 5.2.4");
static_assert(sizeof(struct blk_config) == 60, "virtio 1.2, 5.2.4");

/* What DISCARD and WRITE ZEROES are about (5.2.6); one of them in a request. */
struct blk_range {
	le64_t sector;
	le32_t sectors, flags;
};
static_assert(sizeof(struct blk_range) == 16, "virtio 1.2, 5.2.6");
#define RANGE_UNMAP	  1
#define RANGE_SECTORS_MAX (1u << 22) /* 2 GiB: what a request may keep the image busy with */

#define CONFIG_BYTES sizeof(struct blk_config)
#define ID_BYTES     20
/* Times the queue's size: chains taken in one go from a ring that is refilled meanwhile. */
#define SERVE_MAX 4

struct vblk;

struct slot {
	struct blk_req req;
	struct vblk_queue *q;
	struct virtq_chain chain;
	struct iovec *iov; /* as many as a chain may have descriptors */
	uint32_t in_bytes; /* data that the device writes, without the status */
	struct list link;
};

struct vblk_queue {
	struct vblk *dev;
	unsigned index;
	struct virtq vq;
	struct loop_poll kick;
	struct loop_work irq;
	struct slot *slots;
	struct iovec *iov_mem;
	struct list free;
	unsigned in_flight;
	bool running;
	bool starved;   /* a chain may be waiting for a free slot */
	sem_t *stopped; /* somebody waits for in_flight to reach 0 */
};

struct vblk {
	struct device dev;
	struct virtio_pci v;
	struct loop *loop;
	struct disk *disk;
	char serial[ID_BYTES];
	unsigned queue_size;
	bool no_flush; /* the driver cannot flush: acknowledged means durable */
	bool warned;   /* about a cache bit that did not change: a guest must not fill the log */
	struct vblk_queue *q;
};

static struct vblk *vblk_of(struct virtio_pci *v)
{
	return container_of(v, struct vblk, v);
}

/* ---- asking the loop and waiting for the answer; vCPU and main threads ---- */

struct ask {
	struct loop_msg msg;
	struct vblk *b;
	struct vblk_queue *q;
	const struct virtq_layout *layout;
	struct wce_change wce;
	int err;
	sem_t done;
};

static int ask(struct vblk *b, struct ask *a, void (*fn)(struct loop_msg *m))
{
	a->b = b;
	a->msg.fn = fn;
	sem_init(&a->done, 0, 0);
	loop_post(b->loop, &a->msg);
	while (sem_wait(&a->done) && errno == EINTR)
		;
	sem_destroy(&a->done);
	return a->err;
}

/* ---- completion ---- */

static void irq_work(struct loop_work *w)
{
	struct vblk_queue *q = container_of(w, struct vblk_queue, irq);

	if (q->running && virtq_wants_irq(&q->vq))
		virtio_pci_queue_irq(&q->dev->v, q->index);
}

/* serve() again in a later turn. */
static void ring_own_bell(struct vblk_queue *q)
{
	static const uint64_t one = 1;
	ssize_t n = write(q->kick.fd, &one, sizeof(one));

	(void)n; /* EAGAIN: it is ringing already */
}

/*
 * The length counts from the first byte for the device to write and may be too small, never too
 * large (2.7.8.2): after an error only a lone status byte is sure to have been written.
 */
static void give_back(struct slot *s, uint8_t status)
{
	struct vblk_queue *q = s->q;
	uint32_t len = s->chain.in_len == 1;

	if (status == S_OK)
		len = s->in_bytes + 1;
	if (s->chain.last)
		*s->chain.last = status;
	virtq_push(&q->vq, s->chain.head, s->chain.last ? len : 0);
	list_add(&q->free, &s->link);
	loop_defer(q->dev->loop, &q->irq);
	if (q->starved) {
		q->starved = false;
		ring_own_bell(q);
	}
}

static void request_done(struct blk_req *r, int err)
{
	struct slot *s = container_of(r, struct slot, req);
	struct vblk_queue *q = s->q;

	give_back(s, err ? S_IOERR : S_OK);
	q->in_flight--;
	if (!q->running && !q->in_flight && q->stopped) {
		loop_undefer(&q->irq);
		sem_post(q->stopped);
	}
}

/* ---- a chain becomes a request ---- */

/* Takes n bytes off the front of the vectors into buf; false: there are fewer. */
static bool take_front(struct iovec *iov, unsigned *first, unsigned n_iov, void *buf, size_t n)
{
	uint8_t *to = buf;

	while (n && *first < n_iov) {
		struct iovec *v = &iov[*first];
		size_t k = v->iov_len < n ? v->iov_len : n;

		memcpy(to, v->iov_base, k);
		v->iov_base = (uint8_t *)v->iov_base + k;
		v->iov_len -= k;
		to += k;
		n -= k;
		if (!v->iov_len)
			++*first;
	}
	return n == 0;
}

static void get_id(struct slot *s, const struct iovec *in, unsigned n_in)
{
	uint32_t left = ID_BYTES;
	const char *from = s->q->dev->serial;

	for (unsigned i = 0; i < n_in && left; i++) {
		uint32_t k = (uint32_t)min_u64(in[i].iov_len, left);

		memcpy(in[i].iov_base, from, k);
		from += k;
		left -= k;
	}
	s->in_bytes = ID_BYTES - left;
}

static bool to_request(struct slot *s, enum blk_op op, uint64_t sector, struct iovec *iov,
	unsigned n, uint64_t len)
{
	struct blk_req *r = &s->req;

	if (len % SECTOR || __builtin_mul_overflow(sector, (uint64_t)SECTOR, &r->off))
		return false;
	r->op = op;
	r->flags = s->q->dev->no_flush ? BLK_WRITETHROUGH : 0;
	r->iov = iov;
	r->niov = (int)n;
	r->len = len;
	r->done = request_done;
	r->wanted = &s->q->running;
	s->in_bytes = op == BLK_READ ? (uint32_t)len : 0;
	return true;
}

/*
 * The range of a DISCARD or WRITE ZEROES, from the n bytes behind the header.  As parse().  Flags
 * that the specification does not know, and unmap in a discard, are not supported (5.2.6.2).
 */
static int to_range(struct slot *s, bool zeroes, struct iovec *iov, unsigned n_iov, uint64_t n)
{
	struct blk_range r;
	unsigned first = 0;
	uint32_t sectors, flags;

	if (n != sizeof(r) || !take_front(iov, &first, n_iov, &r, sizeof(r)))
		return S_IOERR;
	sectors = le32_get(r.sectors);
	flags = le32_get(r.flags);
	if (flags & ~(zeroes ? RANGE_UNMAP : 0u))
		return S_UNSUPP;
	if (!sectors || sectors > RANGE_SECTORS_MAX ||
		!to_request(s, zeroes ? BLK_ZEROES : BLK_DISCARD, le64_get(r.sector), NULL, 0,
			(uint64_t)sectors * SECTOR))
		return S_IOERR;
	if (flags & RANGE_UNMAP)
		s->req.flags |= BLK_UNMAP;
	return -1;
}

/* A status to answer with at once, or -1: the request is ready to be submitted. */
static int parse(struct slot *s)
{
	struct virtq_chain *c = &s->chain;
	struct iovec *in = s->iov + c->n_out;
	unsigned first = 0, n_in = c->n_in, n_out;
	struct blk_hdr h;
	uint64_t len;

	s->in_bytes = 0;
	if (!c->last) /* nothing to say it with */
		virtio_pci_needs_reset(&s->q->dev->v);
	if (c->bad || !c->last || !take_front(s->iov, &first, c->n_out, &h, sizeof(h)))
		return S_IOERR;
	if (--in[n_in - 1].iov_len == 0)
		n_in--;
	switch (le32_get(h.type)) {
	case T_IN:
		len = c->in_len - 1;
		return to_request(s, BLK_READ, le64_get(h.sector), in, n_in, len) ? -1 : S_IOERR;
	case T_OUT:
		len = c->out_len - sizeof(h);
		n_out = c->n_out - first;
		return to_request(s, BLK_WRITE, le64_get(h.sector), s->iov + first, n_out, len)
			? -1
			: S_IOERR;
	case T_FLUSH:
		return to_request(s, BLK_FLUSH, 0, NULL, 0, 0) ? -1 : S_IOERR;
	case T_GET_ID:
		get_id(s, in, n_in);
		return S_OK;
	case T_DISCARD:
	case T_ZEROES:
		return to_range(s, le32_get(h.type) == T_ZEROES, s->iov + first, c->n_out - first,
			c->out_len - sizeof(h));
	default:
		return S_UNSUPP;
	}
}

static bool serve_one(struct vblk_queue *q)
{
	struct slot *s;
	int got, status;

	q->starved = list_empty(&q->free);
	if (q->starved)
		return false;
	s = list_first(&q->free, struct slot, link);
	s->chain.iov = s->iov;
	got = virtq_pop(&q->vq, &s->chain);
	if (got < 0)
		virtio_pci_needs_reset(&q->dev->v);
	if (got <= 0)
		return false;
	list_del(&s->link);
	status = parse(s);
	if (status >= 0) {
		give_back(s, (uint8_t)status);
		return true;
	}
	q->in_flight++;
	disk_submit(q->dev->disk, &s->req);
	return true;
}

static void serve(struct vblk_queue *q)
{
	unsigned left = SERVE_MAX * q->dev->queue_size;

	virtq_hush(&q->vq);
	do {
		while (serve_one(q)) {
			if (--left == 0) {
				ring_own_bell(q);
				return;
			}
		}
	} while (virtq_listen(&q->vq) && !q->starved);
}

static void kicked(struct loop_poll *p)
{
	struct vblk_queue *q = container_of(p, struct vblk_queue, kick);

	if (q->running)
		serve(q);
}

/* ---- the transport's callbacks ---- */

static void start_on_loop(struct loop_msg *m)
{
	struct ask *a = container_of(m, struct ask, msg);
	struct vblk_queue *q = a->q;

	q->starved = false;
	a->err = virtq_start(&q->vq, a->b->v.services->mem, a->layout);
	if (!a->err)
		a->err = loop_poll_add(a->b->loop, &q->kick);
	if (!a->err) {
		q->running = true;
		serve(q); /* buffers may be waiting already */
	}
	sem_post(&a->done);
}

static int queue_start(struct virtio_pci *v, unsigned i, const struct virtq_layout *l)
{
	struct vblk *b = vblk_of(v);
	struct ask a = {.q = &b->q[i], .layout = l};

	if (l->size > b->queue_size)
		return -EINVAL;
	return ask(b, &a, start_on_loop);
}

static void stop_on_loop(struct loop_msg *m)
{
	struct ask *a = container_of(m, struct ask, msg);
	struct vblk_queue *q = a->q;

	loop_poll_del(a->b->loop, &q->kick);
	q->running = false;
	disk_give_up(a->b->disk);
	q->stopped = &a->done;
	if (q->in_flight)
		return; /* the last request_done() answers */
	loop_undefer(&q->irq);
	sem_post(&a->done);
}

static void queue_stop(struct virtio_pci *v, unsigned i)
{
	struct vblk *b = vblk_of(v);
	struct ask a = {.q = &b->q[i]};

	(void)ask(b, &a, stop_on_loop);
	b->q[i].stopped = NULL;
}

static bool features_ok(struct virtio_pci *v)
{
	/* 5.2.6.2, 5.2.5.2: a driver that cannot flush must not need to, and reads writeback 0. */
	vblk_of(v)->no_flush = !(v->features & BLK_F_FLUSH);
	return true;
}

static void wce_done(struct wce_change *c, int err)
{
	struct ask *a = container_of(c, struct ask, wce);

	a->err = err;
	sem_post(&a->done);
}

static void wce_on_loop(struct loop_msg *m)
{
	struct ask *a = container_of(m, struct ask, msg);

	a->wce.done = wce_done;
	disk_set_wce(a->b->disk, &a->wce);
}

static void set_wce(struct vblk *b, bool enable)
{
	struct ask a = {.wce = {.enable = enable}};
	int err = ask(b, &a, wce_on_loop);

	if (err && !b->warned) {
		b->warned = true;
		log_warn("%s: the write cache stays %s: %s", disk_path(b->disk),
			disk_wce(b->disk) ? "on" : "off",
			err == -EPERM ? "cache=unsafe" : why_text(NULL, err));
	}
}

static void config_get(struct virtio_pci *v, uint8_t image[VIRTIO_CONFIG_MAX])
{
	struct vblk *b = vblk_of(v);
	uint32_t block = disk_block_size(b->disk), cluster = disk_cluster_size(b->disk);
	struct blk_config c = {
		.capacity = le64_make(disk_size(b->disk) / SECTOR),
		.seg_max = le32_make(b->queue_size - 2),
		.blk_size = le32_make(SECTOR),
		.physical_exp = (uint8_t)__builtin_ctz(block / SECTOR),
		.min_io = le16_make((uint16_t)(block / SECTOR)),
		.opt_io = le32_make(cluster / SECTOR),
		.writeback = disk_wce(b->disk) && !b->no_flush,
		.num_queues = le16_make((uint16_t)v->num_queues),
		.max_discard_sectors = le32_make(RANGE_SECTORS_MAX),
		.max_discard_seg = le32_make(1),
		.discard_alignment = le32_make((cluster ? cluster : block) / SECTOR),
		.max_zeroes_sectors = le32_make(RANGE_SECTORS_MAX),
		.max_zeroes_seg = le32_make(1),
		.zeroes_may_unmap = 1,
	};

	memcpy(image, &c, sizeof(c));
}

static void config_set(struct virtio_pci *v, unsigned off, const uint8_t *p, unsigned len)
{
	unsigned at = offsetof(struct blk_config, writeback);

	if (!(v->features & BLK_F_CONFIG_WCE) || off > at || at - off >= len)
		return;
	/* A driver that cannot flush has writethrough, whatever it asks for. */
	if (vblk_of(v)->no_flush)
		return;
	/* The vCPU waits here: what it reads back is what is true. */
	if (disk_wce(vblk_of(v)->disk) != (p[at - off] & 1))
		set_wce(vblk_of(v), p[at - off] & 1);
}

static void reset(struct virtio_pci *v)
{
	struct vblk *b = vblk_of(v);
	bool wce = disk_wce_default(b->disk);

	b->no_flush = false;
	if (disk_wce(b->disk) != wce)
		set_wce(b, wce);
}

static const struct virtio_type vblk_type = {
	.name = "virtio-blk",
	.id = 2,
	.legacy_id = 0x1001,
	.class_code = 0x0100, /* SCSI storage, as drivers expect */
	.config_bytes = CONFIG_BYTES,
	.config_get = config_get,
	.config_set = config_set,
	.features_ok = features_ok,
	.queue_start = queue_start,
	.queue_stop = queue_stop,
	.reset = reset,
};

/* ---- life ---- */

static int queues_make(struct vblk *b, unsigned n)
{
	b->q = calloc(n, sizeof(*b->q));
	if (!b->q)
		return -ENOMEM;
	for (unsigned i = 0; i < n; i++) {
		struct vblk_queue *q = &b->q[i];

		q->dev = b;
		q->index = i;
		q->kick = (struct loop_poll){
			.fn = kicked, .fd = b->v.queue[i].kick_fd, .eventfd = true};
		loop_work_init(&q->irq, irq_work);
		list_init(&q->free);
		q->slots = calloc(b->queue_size, sizeof(*q->slots));
		q->iov_mem = calloc((size_t)b->queue_size * b->queue_size, sizeof(*q->iov_mem));
		if (!q->slots || !q->iov_mem)
			return -ENOMEM;
		for (unsigned k = 0; k < b->queue_size; k++) {
			struct slot *s = &q->slots[k];

			s->q = q;
			s->iov = q->iov_mem + (size_t)k * b->queue_size;
			s->chain.iov_max = b->queue_size;
			list_add_tail(&q->free, &s->link);
		}
	}
	return 0;
}

static void vblk_free(struct vblk *b)
{
	for (unsigned i = 0; b->q && i < b->v.num_queues; i++) {
		free(b->q[i].slots);
		free(b->q[i].iov_mem);
	}
	free(b->q);
	virtio_pci_fini(&b->v);
	free(b);
}

static void vblk_reset(struct device *d)
{
	virtio_pci_reset(&container_of(d, struct vblk, dev)->v);
}

static void vblk_stop(struct device *d)
{
	virtio_pci_stop(&container_of(d, struct vblk, dev)->v);
}

static void vblk_destroy(struct device *d)
{
	struct vblk *b = container_of(d, struct vblk, dev);

	virtio_pci_unplug(&b->v);
	vblk_free(b);
}

static const struct device_ops vblk_ops = {
	.name = "virtio-blk",
	.reset = vblk_reset,
	.stop = vblk_stop,
	.destroy = vblk_destroy,
};

void virtio_blk_resized(struct device *d)
{
	virtio_pci_config_changed(&container_of(d, struct vblk, dev)->v);
}

int virtio_blk_create(struct machine_services *s, struct loop *loop, struct disk *disk,
	const struct virtio_blk_opts *o, struct device **out, struct why *why)
{
	uint64_t features = VIRTIO_F_INDIRECT_DESC | VIRTIO_F_EVENT_IDX | BLK_F_SEG_MAX |
			    BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_TOPOLOGY | BLK_F_CONFIG_WCE |
			    VIRTIO_F_RING_RESET;
	unsigned queues = o->num_queues ? o->num_queues : 1;
	struct vblk *b;
	int err;

	if (queues > VIRTIO_BLK_QUEUES_MAX)
		return why_set(why, -EINVAL, "queues=%u: at most %d", queues,
			VIRTIO_BLK_QUEUES_MAX);
	if (o->queue_size && (!is_pow2(o->queue_size) || o->queue_size < 4 ||
				     o->queue_size > VIRTIO_BLK_QUEUE_SIZE_MAX))
		return why_set(why, -EINVAL, "queue-size=%u: a power of two from 4 to %d",
			o->queue_size, VIRTIO_BLK_QUEUE_SIZE_MAX);
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->dev = (struct device){.ops = &vblk_ops, .services = s};
	b->loop = loop;
	b->disk = disk;
	b->queue_size = o->queue_size ? o->queue_size : 256;
	if (o->serial)
		memcpy(b->serial, o->serial, strnlen(o->serial, ID_BYTES));
	if (queues > 1)
		features |= BLK_F_MQ;
	features |= disk_readonly(disk) ? BLK_F_RO : BLK_F_DISCARD | BLK_F_ZEROES;
	err = virtio_pci_init(&b->v, s, &vblk_type, features, queues, (uint16_t)b->queue_size,
		o->transitional);
	if (err) {
		free(b);
		return err;
	}
	err = queues_make(b, queues);
	if (!err)
		err = virtio_pci_plug(&b->v);
	if (err) {
		vblk_free(b);
		return err;
	}
	*out = &b->dev;
	return 0;
}
