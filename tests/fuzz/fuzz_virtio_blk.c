/* SPDX-License-Identifier: MIT */
/*
 * fuzz_virtio_blk.c - a driver gone mad: registers, rings and descriptors from the input.
 *
 * An input is a list of 16-byte steps, each an access to a register or a write to guest memory;
 * addresses are mostly bent to where something lives.  Two vCPUs run it, the second one the
 * same steps backwards, so that rings change under the device's eyes.  After each input the
 * device is reset and must serve an honest driver.  Guest memory lies between guard pages; a
 * lost request shows as a reset that never returns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_blk.h"

const char fuzz_name[] = "virtio_blk";

#define QUEUES	 2
#define RING	 16
#define DATA	 0x40000 /* gpa */
#define STEPS	 2000

static struct fake_blk b;
static uint16_t legacy; /* its ports */

struct step {
	uint8_t op, a;
	le16_t off;
	le32_t x;
	le64_t v;
};
static_assert(sizeof(struct step) == 16, "a step of the input");

static void at_exit(void)
{
	fake_blk_close(&b);
}

static void init(void)
{
	static const struct virtio_blk_opts o = {
		.num_queues = QUEUES, .queue_size = RING, .transitional = true};
	static bool done;

	if (done)
		return;
	done = true;
	log_level_set(LOG_ERROR);
	fake_blk_open(&b, CACHE_WRITEBACK, false, &o);
	legacy = (uint16_t)(fake_cfg_read(b.m, 1, PCI_BAR0, 4) & ~3u);
	atexit(at_exit);
}

/* A guest-physical address: in a ring's structures, the data, at an edge, or anywhere. */
static uint64_t place(const struct step *s)
{
	uint64_t x = le32_get(s->x);

	switch (s->a >> 4 & 7) {
	case 0:
	case 1:
		return b.r[s->a & 1].l.desc + x % (16 * RING);
	case 2:
		return b.r[s->a & 1].l.avail + x % (6 + 2 * RING);
	case 3:
		return BLK_HDR + x % 2048;
	case 4:
		return FAKE_LOW_BYTES - 1 - x % 64;
	case 5:
		return FAKE_HIGH + x % FAKE_HIGH_BYTES;
	case 6:
		return DATA + x % 65536;
	default:
		return x << 12 | (x >> 20);
	}
}

static void make_descriptor(const struct step *s)
{
	uint64_t v = le64_get(s->v);
	struct step to = {.a = (uint8_t)v, .x = le32_make((uint32_t)(v >> 8))};
	uint32_t len = v >> 40 & 1 ? (uint32_t)(v >> 41) % 2048 : (uint32_t)(v >> 32);

	fake_desc(&b.r[s->a & 1], le16_get(s->off) % RING, place(&to), len,
		(uint16_t)(v >> 56 & 7), (uint16_t)(v >> 59 & (RING - 1)));
}

static void make_request(const struct step *s)
{
	static const uint32_t types[] = {0, 1, 1, 4, 8, 0, 11, 99};
	uint64_t v = le64_get(s->v);

	blk_put(&b, s->a & 1, le16_get(s->off) % (RING - 2), types[v % 8],
		(v >> 8) % (BLK_SECTORS + 8), DATA + (v >> 24) % 60000,
		(uint32_t)((v >> 40) % 9) * SECTOR);
}

static void register_access(const struct step *s)
{
	static const uint16_t areas[] = {0, 0, 0, 0x1000, 0x2000, 0x3000, 0x4000, 0x5000};
	unsigned len = 1u << (s->a & 3);
	uint64_t off = areas[s->a >> 2 & 7] + le16_get(s->off) % 64;

	if (s->a & 0x40 && len < 8) {
		if (s->a & 0x80)
			fake_write(b.m, BUS_PORT, legacy + off % 64, le64_get(s->v), len);
		else
			fake_read(b.m, BUS_PORT, legacy + off % 64, len);
	} else if (s->a & 0x80)
		vwrite(&b.d, b.d.bar + off, le64_get(s->v), len);
	else
		vread(&b.d, b.d.bar + off, len);
}

/* What an input does to the memory; both vCPUs do, so a plain store would be a data race. */
static void poke(const struct step *s)
{
	uint64_t at = place(s) & ~1ULL;
	_Atomic uint16_t *p = gmem_ptr(&b.m->mem, at, 2);

	if (p)
		atomic_store_explicit(p, (uint16_t)le64_get(s->v), memory_order_relaxed);
}

static void do_step(const struct step *s)
{
	unsigned q = s->a & 1;

	switch (s->op % 16) {
	case 0:
	case 1:
	case 2:
		register_access(s);
		break;
	case 3:
	case 4:
		poke(s);
		break;
	case 5:
	case 6:
		make_descriptor(s);
		break;
	case 7:
	case 8:
	case 9:
		make_request(s);
		break;
	case 10:
		fake_avail(&b.r[q], le16_get(s->off) % (RING + (s->a == 255)));
		break;
	case 11:
	case 12:
		fake_publish(&b.r[q]);
		vkick(&b.d, q);
		break;
	case 13:
		fake_cfg_write(b.m, 1, le16_get(s->off) % 252 & ~3u, le32_get(s->x), 4);
		break;
	case 14:
		fake_blk_start(&b, le64_get(s->v) & voffered(&b.d), QUEUES, RING);
		break;
	default:
		vwrite(&b.d, b.d.config + BLK_WRITEBACK, s->a & 1, 1);
	}
}

struct run {
	const struct step *s;
	size_t n;
};

static void *backwards(void *arg)
{
	const struct run *r = arg;

	for (size_t i = r->n; i-- > 0;)
		if (r->s[i].op % 16 < 5 || r->s[i].op % 16 == 15)
			do_step(&r->s[i]);
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = {(const struct step *)(const void *)data, size / sizeof(struct step)};
	pthread_t other;

	init();
	r.n = min_u64(r.n, STEPS);
	b.dev->ops->reset(b.dev);
	if (!fake_virtio_find(&b.d, b.m, 1) ||
		!fake_blk_start(&b, voffered(&b.d), QUEUES, RING))
		abort();
	if (pthread_create(&other, NULL, backwards, &r))
		abort();
	for (size_t i = 0; i < r.n; i++)
		do_step(&r.s[i]);
	pthread_join(other, NULL);
	b.dev->ops->reset(b.dev);
	b.m->irqs.route_fails = false;
	/* It is as good as new. */
	if (!fake_virtio_find(&b.d, b.m, 1) || !fake_blk_start(&b, BLK_F_FLUSH, 1, RING) ||
		blk_do(&b, 4, 0, 0, 0) != 0 || blk_do(&b, 0, 7, DATA, SECTOR) != 0) {
		fprintf(stderr, "an honest driver is not served, status %#x\n", vstatus(&b.d));
		abort();
	}
	return 0;
}

/* Sixteen programs of random steps, all kinds of them. */
size_t fuzz_seed(uint8_t *data, size_t size, unsigned n)
{
	size_t len = 300 * sizeof(struct step);

	if (n >= 16 || len > size)
		return 0;
	fuzz_noise(data, len, n);
	return len;
}
