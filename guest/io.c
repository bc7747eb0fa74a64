/* SPDX-License-Identifier: MIT */
/*
 * io.c - job io: one kind of request at a fixed depth for some seconds; rates and latencies.
 *
 * Latency is from the moment before the request enters the ring to the moment the guest takes it
 * out.  The histogram has 32 steps per power of two, so a percentile is right to about 3 %.
 */
#include "guest/virtio_blk.h"
#include "guest/pattern.h"

#define DEPTH_MAX 256
#define STEPS     32
#define BUCKETS   (STEPS * 60)

#define USEC_TENTHS(nsec) (nsec) / 1000, (nsec) / 100 % 10

struct io {
	struct vblk *d;
	struct virtq *q;
	struct vblk_req *reqs;
	uint8_t *data;
	uint32_t bs;
	unsigned depth, in_flight;
	bool write, random, flushes;
	uint64_t blocks, next, flush_every, writes_since_flush;
	uint64_t done, n_flushes, errors, max_tsc, rng;
	uint32_t version;
	uint32_t histogram[BUCKETS];
};

static unsigned bucket_of(uint64_t v)
{
	unsigned top;

	if (v < STEPS)
		return (unsigned)v;
	top = 63 - (unsigned)__builtin_clzll(v);
	return MIN((top - 4) * STEPS + (unsigned)((v >> (top - 5)) & (STEPS - 1)), BUCKETS - 1u);
}

/* Middle of the bucket. */
static uint64_t bucket_value(unsigned b)
{
	unsigned shift;

	if (b < STEPS)
		return b;
	shift = b / STEPS - 1;
	return ((uint64_t)(b % STEPS + STEPS) << shift) + ((1ull << shift) >> 1);
}

static uint64_t percentile_nsec(const struct io *io, unsigned per_mille)
{
	uint64_t want = (io->done * per_mille + 999) / 1000, seen = 0;

	for (unsigned b = 0; b < BUCKETS; b++) {
		seen += io->histogram[b];
		if (seen >= want && seen)
			return MIN(bucket_value(b), io->max_tsc) * 1000000 / tsc_khz;
	}
	return 0;
}

static void submit(struct io *io, struct vblk_req *r)
{
	uint8_t *buf = io->data + (uint64_t)(r - io->reqs) * io->bs;
	uint64_t block, sector;

	if (io->flushes && io->flush_every && io->writes_since_flush >= io->flush_every) {
		io->writes_since_flush = 0;
		vblk_req_init(r, VBLK_FLUSH, 0);
	} else {
		block = io->random ? random_next(&io->rng) % io->blocks : io->next++ % io->blocks;
		sector = block * (io->bs / SECTOR_SIZE);
		if (io->write) {
			io->writes_since_flush++;
			io->version = io->version == UINT32_MAX ? 1 : io->version + 1;
			for (uint32_t i = 0; i < io->bs / SECTOR_SIZE; i++)
				pattern_fill(buf + i * SECTOR_SIZE, sector + i, io->version);
		}
		vblk_req_init(r, io->write ? VBLK_OUT : VBLK_IN, sector);
		if (!vblk_req_add(io->d, r, buf, io->bs))
			fail(STATUS_USAGE, "bs=%u is more than %u segments of %u bytes", io->bs,
				io->d->seg_max, io->d->seg_bytes);
	}
	r->tsc = rdtsc();
	if (!vblk_submit(io->q, r))
		fail(STATUS_USAGE, "depth=%u does not fit a queue of %u", io->depth, io->q->size);
	io->in_flight++;
}

static void finish(struct io *io, struct vblk_req *r)
{
	uint64_t took = rdtsc() - r->tsc;

	io->in_flight--;
	io->errors += r->status != VBLK_S_OK;
	if (r->head.type == VBLK_FLUSH) {
		io->n_flushes++;
		return;
	}
	io->done++;
	io->histogram[bucket_of(took)]++;
	io->max_tsc = MAX(io->max_tsc, took);
}

static void run(struct io *io, uint64_t end)
{
	struct vblk_req *r;

	for (unsigned i = 0; i < io->depth; i++)
		submit(io, &io->reqs[i]);
	virtq_kick(io->q);
	while (io->in_flight) {
		vblk_check_queue(io->q, virtq_wait(io->q, vblk_timeout()));
		while ((r = vblk_reap(io->q)) != NULL) {
			finish(io, r);
			if (rdtsc() < end)
				submit(io, r);
		}
		virtq_kick(io->q);
	}
	vblk_check_queue(io->q, true);
}

int job_io(void)
{
	static struct io io;
	const char *rw = option_str("rw", "randread");
	uint64_t span, begin, usec, seconds = option_u64("seconds", 2, 1, 3600);
	unsigned queue;

	io.write = strcmp(rw, "write") == 0 || strcmp(rw, "randwrite") == 0;
	io.random = strcmp(rw, "randread") == 0 || strcmp(rw, "randwrite") == 0;
	if (!io.write && !io.random && strcmp(rw, "read") != 0)
		fail(STATUS_USAGE, "rw=%s: expected read, write, randread or randwrite", rw);
	io.bs = (uint32_t)option_u64("bs", 4096, SECTOR_SIZE, 4u << 20);
	io.depth = (unsigned)option_u64("depth", 32, 1, DEPTH_MAX);
	io.flush_every = option_u64("flush_every", 0, 0, UINT32_MAX);
	io.rng = 0x5eed0001;
	if (io.bs % SECTOR_SIZE)
		fail(STATUS_USAGE, "bs=%u is not a multiple of %u", io.bs, SECTOR_SIZE);
	io.d = vblk_open();
	queue = (unsigned)option_u64("queue", 0, 0, io.d->n_queues - 1);
	io.q = &io.d->q[queue];
	io.flushes = (io.d->features & F_FLUSH) != 0;
	span = option_u64("span", io.d->sectors * SECTOR_SIZE, io.bs, io.d->sectors * SECTOR_SIZE);
	io.blocks = span / io.bs;
	if (!io.blocks)
		fail(STATUS_USAGE, "the disk is smaller than bs=%u", io.bs);
	io.reqs = memory_alloc(io.depth * sizeof(*io.reqs), PAGE_SIZE, "requests");
	io.data = memory_alloc((uint64_t)io.depth * io.bs, PAGE_SIZE, "buffers");

	begin = rdtsc();
	run(&io, tsc_after_ms(1000 * seconds));
	usec = MAX(usec_since(begin), 1);
	report("io rw=%s bs=%u depth=%u queue=%u ops=%lu flushes=%lu usec=%lu iops=%lu kib_s=%lu "
	       "errors=%lu p50_us=%lu.%lu p90_us=%lu.%lu p99_us=%lu.%lu p999_us=%lu.%lu "
	       "max_us=%lu.%lu kicks=%lu irqs=%u missed_irqs=%lu",
		rw, io.bs, io.depth, queue, io.done, io.n_flushes, usec, io.done * 1000000 / usec,
		io.done * io.bs / 1024 * 1000000 / usec, io.errors,
		USEC_TENTHS(percentile_nsec(&io, 500)), USEC_TENTHS(percentile_nsec(&io, 900)),
		USEC_TENTHS(percentile_nsec(&io, 990)), USEC_TENTHS(percentile_nsec(&io, 999)),
		USEC_TENTHS(io.max_tsc * 1000000 / tsc_khz), io.q->kicks, vblk_irqs(io.d),
		vblk_missed_irqs(io.d));
	return io.errors ? STATUS_DEVICE : STATUS_OK;
}
