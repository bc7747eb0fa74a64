/* SPDX-License-Identifier: MIT */
/*
 * churn.c - job churn: all that the write-cache contract speaks of, at random and mixed.
 *
 * Drawn from seed=, at least steps= times, and until the cache was switched switches= times: up to
 * 12 requests at once (writes of 1 to 24 sectors, which may overlap, flushes between them, with FUA
 * where the bus has it), the cache switched while they are on their way or at rest, the device
 * reset under them and renegotiated, at times without FLUSH or the cache bit.  The whole machine
 * is reset under them, too: rounds= is how often all that happens.  Versions of sectors only grow,
 * so whatever is read back must be one that was written since the last write that was acknowledged.
 * What a power cut may leave is for others to judge, from a recording.
 *
 * Which round it is, is kept on the disk, behind the span.
 */
#include "guest/virtio_blk.h"
#include "guest/pattern.h"

#define AT_ONCE_MAX 12u
#define REQ_SECTORS 24u
#define HOT_SECTORS 512u
#define ROUND_BITS  18 /* versions of one round */

struct churn {
	struct vblk *d;
	struct vblk_req *reqs;
	uint8_t *data;
	uint64_t rng, sectors; /* of the span */
	uint32_t version;
	/* By sector: what may be read is in between; first: in the batch at hand, or 0. */
	uint32_t *acked, *newest, *first;
	unsigned writes, fua, flushes, switches, resets, failed, wrong;
};

static uint32_t any(struct churn *c, uint32_t n)
{
	return (uint32_t)(random_next(&c->rng) >> 33) % n;
}

static uint8_t *buffer(const struct churn *c, unsigned slot)
{
	return c->data + slot * REQ_SECTORS * SECTOR_SIZE;
}

static void add_data(struct churn *c, unsigned slot, uint32_t n)
{
	if (!vblk_req_add(c->d, &c->reqs[slot], buffer(c, slot), n * SECTOR_SIZE))
		fail(STATUS_DEVICE, "churn: the disk cannot take %u sectors at once", n);
}

static void prepare_write(struct churn *c, unsigned slot)
{
	uint32_t n = 1 + any(c, any(c, 3) ? 8 : REQ_SECTORS);
	uint64_t at = any(c, (uint32_t)(any(c, 2) ? HOT_SECTORS : c->sectors) - n);

	c->version++;
	for (uint32_t i = 0; i < n; i++) {
		pattern_fill(buffer(c, slot) + i * SECTOR_SIZE, at + i, c->version);
		c->newest[at + i] = c->version;
		c->first[at + i] = c->first[at + i] ? c->first[at + i] : c->version;
	}
	vblk_req_init(&c->reqs[slot], VBLK_OUT, at);
	c->reqs[slot].fua = c->d->fua && any(c, 4) == 0;
	c->fua += c->reqs[slot].fua;
	c->writes++;
	add_data(c, slot, n);
}

static void switch_cache(struct churn *c)
{
	uint8_t on;

	if (!(c->d->features & F_CONFIG_WCE))
		return;
	on = !vblk_writeback(c->d);
	vblk_set_writeback(c->d, on);
	/* A driver that cannot flush has no cache, whatever it asks for. */
	if (c->d->features & F_FLUSH) {
		c->failed += vblk_writeback(c->d) != on;
		c->switches++;
	}
}

static void reset_device(struct churn *c)
{
	static const uint64_t without[] = {0, 0, 0, F_FLUSH, F_CONFIG_WCE, F_FLUSH | F_CONFIG_WCE};

	vblk_start(c->d, F_ALL & ~without[any(c, ARRAY_SIZE(without))]);
	c->resets++;
}

/* What was acknowledged is there from now on; what a reset overtook may be. */
static void batch_over(struct churn *c, bool acknowledged)
{
	for (uint64_t s = 0; s < c->sectors; s++) {
		if (c->first[s] && acknowledged)
			c->acked[s] = c->first[s];
		c->first[s] = 0;
	}
}

static unsigned submit_some(struct churn *c)
{
	unsigned n = 1 + any(c, AT_ONCE_MAX);

	for (unsigned i = 0; i < n; i++) {
		if (c->d->features & F_FLUSH && any(c, 5) == 0) {
			vblk_req_init(&c->reqs[i], VBLK_FLUSH, 0);
			c->flushes++;
		} else {
			prepare_write(c, i);
		}
		if (!vblk_submit(&c->d->q[0], &c->reqs[i]))
			fail(STATUS_DEVICE, "churn: no room for %u requests", n);
	}
	virtq_kick(&c->d->q[0]);
	return n;
}

static void reap(struct churn *c, unsigned n)
{
	struct virtq *q = &c->d->q[0];
	struct vblk_req *r;

	while (n) {
		vblk_check_queue(q, virtq_wait(q, vblk_timeout()));
		for (; n && (r = vblk_reap(q)) != NULL; n--)
			c->failed += r->status != VBLK_S_OK;
		vblk_check_queue(q, true);
	}
}

static void batch(struct churn *c)
{
	unsigned n = submit_some(c);

	if (any(c, 8) == 0) {
		delay_usec(any(c, 300));
		reset_device(c);
		batch_over(c, false);
		return;
	}
	/* The drive of an IDE channel takes a command at a time. */
	if (!c->d->q[0].ide && any(c, 3) == 0)
		switch_cache(c);
	reap(c, n);
	batch_over(c, true);
}

/* Reads n sectors into the first buffer. */
static void read_sectors(struct churn *c, uint64_t at, uint32_t n)
{
	vblk_req_init(&c->reqs[0], VBLK_IN, at);
	add_data(c, 0, n);
	c->failed += vblk_do(c->d, &c->reqs[0]) != VBLK_S_OK;
}

/* What version a sector holds; 0 for zeros. */
static uint32_t version_read(struct churn *c, const void *content, uint64_t at)
{
	uint64_t sector;
	uint32_t version;
	enum pattern_kind kind = pattern_check(content, &sector, &version);

	if (kind == PATTERN_BAD || (kind == PATTERN_OK && sector != at))
		c->wrong++;
	return version;
}

/* first_time: takes what is there for what was acknowledged. */
static void read_back(struct churn *c, uint64_t sectors, bool first_time)
{
	for (uint64_t at = 0, n; at < sectors; at += n) {
		n = MIN(REQ_SECTORS, sectors - at);
		read_sectors(c, at, (uint32_t)n);
		for (uint64_t i = 0; i < n; i++) {
			uint32_t v = version_read(c, buffer(c, 0) + i * SECTOR_SIZE, at + i);

			if (first_time)
				c->acked[at + i] = c->newest[at + i] = v;
			c->wrong += v < c->acked[at + i] || v > c->newest[at + i];
		}
	}
}

static uint32_t read_round(struct churn *c)
{
	read_sectors(c, c->sectors, 1);
	return version_read(c, c->data, c->sectors);
}

static void write_round(struct churn *c, uint32_t round)
{
	pattern_fill(c->data, c->sectors, round);
	vblk_req_init(&c->reqs[0], VBLK_OUT, c->sectors);
	add_data(c, 0, 1);
	c->failed += vblk_do(c->d, &c->reqs[0]) != VBLK_S_OK;
}

static void step(struct churn *c)
{
	switch (any(c, 16)) {
	case 0:
		read_back(c, HOT_SECTORS, false);
		break;
	case 1:
		reset_device(c);
		break;
	case 2 ... 7:
		switch_cache(c);
		break;
	default:
		batch(c);
	}
}

static uint32_t *by_sector(const struct churn *c)
{
	return memory_alloc(c->sectors * sizeof(uint32_t), PAGE_SIZE, "versions");
}

int job_churn(void)
{
	static struct churn c;
	uint64_t steps = option_u64("steps", 150, 1, 100000), span;
	uint64_t switches = option_u64("switches", 0, 0, 10000);
	uint32_t rounds = (uint32_t)option_u64("rounds", 3, 1, 1000), round;

	c.d = vblk_open();
	span = option_u64("span", 16u << 20, HOT_SECTORS * SECTOR_SIZE, 1u << 30);
	c.sectors = MIN(span / SECTOR_SIZE, c.d->sectors - 1);
	c.reqs = memory_alloc(AT_ONCE_MAX * sizeof(*c.reqs), PAGE_SIZE, "requests");
	c.data = memory_alloc(AT_ONCE_MAX * REQ_SECTORS * SECTOR_SIZE, PAGE_SIZE, "buffers");
	c.acked = by_sector(&c);
	c.newest = by_sector(&c);
	c.first = by_sector(&c);
	round = read_round(&c);
	c.version = round << ROUND_BITS;
	c.rng = (option_u64("seed", 1, 0, UINT32_MAX) << 16) + round + 1;
	read_back(&c, c.sectors, true);
	for (uint64_t i = 0; i < steps || c.switches < switches; i++)
		step(&c);
	read_back(&c, c.sectors, false);
	report("churn round=%u writes=%u fua=%u flushes=%u switches=%u resets=%u failed=%u "
	       "wrong=%u",
		round, c.writes, c.fua, c.flushes, c.switches, c.resets, c.failed, c.wrong);
	if (c.failed || c.wrong)
		return c.failed ? STATUS_DEVICE : STATUS_DATA;
	if (round + 1 < rounds) {
		write_round(&c, round + 1);
		(void)submit_some(&c);
		machine_reset();
	}
	return STATUS_OK;
}
