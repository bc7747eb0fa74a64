/* SPDX-License-Identifier: MIT */
/*
 * fuzz_ide.c - IDE registers at every width, commands, lists of regions and resets from the input.
 *
 * An input is a list of 16-byte steps; ports are mostly those where something lives.  Two vCPUs
 * run it, the second one the same steps backwards, so that lists change and resets come while
 * the loop is at work.  After each input the machine is reset and the drive must serve an honest
 * driver.  Guest memory lies between guard pages; a lost request shows as a reset that
 * never returns.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_machine.h"
#include "tests/support/fake_ide.h"

const char fuzz_name[] = "ide";

#define STEPS 1000

static struct fake_ide f;

struct step {
	uint8_t op, a;
	le16_t off;
	le32_t x;
	le64_t v;
};
static_assert(sizeof(struct step) == 16, "a step of the input");

static void at_exit(void)
{
	fake_ide_close(&f);
}

static void init(void)
{
	static bool done;

	if (done)
		return;
	done = true;
	log_level_set(LOG_ERROR);
	fake_ide_open(&f, CACHE_WRITEBACK, false, false);
	atexit(at_exit);
}

static uint16_t port(const struct step *s)
{
	unsigned off = le16_get(s->off);

	switch (s->a & 7) {
	case 0:
	case 1:
	case 2:
		return (uint16_t)(0x1f0 + off % 8);
	case 3:
		return (uint16_t)(f.bm + off % 16);
	case 4:
		return 0x3f6;
	case 5:
		return (uint16_t)(0x170 + off % 8);
	case 6:
		return 0x1f0;
	default:
		return 0x376;
	}
}

static void access_port(const struct step *s)
{
	unsigned len = 1u << (s->a >> 3 & 3) % 3;

	if (s->a & 0x80)
		fake_write(f.m, BUS_PORT, port(s), le64_get(s->v), len);
	else
		fake_read(f.m, BUS_PORT, port(s), len);
}

/* A string instruction at the data port, of up to 1 KiB. */
static void access_string(const struct step *s)
{
	uint8_t data[1024];
	unsigned len = 1u << (s->a & 3) % 3, n = le16_get(s->off) % (1024 / len) + 1;

	memset(data, s->a, sizeof(data));
	for (int i = 0; i < FAKE_RANGES; i++) {
		struct bus_range *r = f.m->bus.range[BUS_PORT][i];

		if (r && r->base == 0x1f0 && r->string)
			r->string(r, le32_get(s->x) % 16 ? 0 : le32_get(s->x) >> 8 & 7,
				s->a & 0x80 ? data : NULL, s->a & 0x80 ? NULL : data, len, n);
	}
}

/* Sound in most parts: a random opcode rarely gets anywhere. */
static void make_command(const struct step *s)
{
	static const uint8_t ops[] = {0x20, 0x30, 0x24, 0x34, 0x29, 0x39, 0xc4, 0xc5, 0xc8, 0xca,
		0x25, 0x35, 0x3d, 0xce, 0x06, 0xe7, 0xef, 0xef, 0xec, 0x40, 0x90, 0xb0, 0xc6, 0xf8};
	uint64_t v = le64_get(s->v);
	uint8_t op = s->a & 1 ? ops[(s->a >> 1) % ARRAY_SIZE(ops)] : (uint8_t)(v >> 56);
	static const uint8_t features[] = {0x02, 0x82, 0xcc, 0x66, 1, 3, 0xd0, 0xaa};

	ide_issue(&f, op, features[v >> 48 & 7], (v >> 8) % (BLK_SECTORS + 8),
		(unsigned)(v % (le32_get(s->x) & 1 ? 9 : 700)), (uint8_t)(le32_get(s->x) >> 8));
}

/* To the CD-ROM drive: twelve bytes, mostly with an opcode that it knows. */
static void make_packet(const struct step *s)
{
	static const uint8_t ops[] = {0x00, 0x03, 0x12, 0x1b, 0x1e, 0x25, 0x28, 0x28, 0x43, 0x46,
		0x4a, 0x51, 0x5a, 0xa8, 0xbd, 0xbe};
	uint8_t p[12] = {s->a & 0x10 ? ops[s->a & 15] : s->a, 1};

	memcpy(p + 2, &s->v, 8);
	if (s->a & 0x20)
		p[2] = p[3] = p[6] = p[7] = 0;
	out8(f.m, 0x176, 0xb0);
	out8(f.m, 0x171, le16_get(s->off) & 3);
	out8(f.m, 0x174, le32_get(s->x) & 255);
	out8(f.m, 0x175, le32_get(s->x) >> 8 & 255);
	out8(f.m, 0x177, le16_get(s->off) % 16 ? 0xa0 : le32_get(s->x) >> 16 & 255);
	for (unsigned i = 0; i < 12; i += 2)
		out16(f.m, 0x170, (unsigned)p[i] | (unsigned)p[i + 1] << 8);
	for (unsigned i = 0; i < (le32_get(s->x) >> 24); i++)
		fake_read(f.m, BUS_PORT, 0x170, 4);
	if (le32_get(s->x) & 1) {
		out32(f.m, f.bm + 12, IDE_PRDT + le16_get(s->off) % 64U * 8);
		out8(f.m, f.bm + 8, 9);
		out8(f.m, f.bm + 8, s->a & 1 ? 9 : 0);
	}
}

/* Both vCPUs write there, so a plain store would be a data race. */
static void poke(uint64_t gpa, uint64_t v)
{
	_Atomic uint32_t *p = gmem_ptr(&f.m->mem, gpa & ~3ULL, 4);

	if (p)
		atomic_store_explicit(p, (uint32_t)v, memory_order_relaxed);
}

static void make_region(const struct step *s)
{
	uint64_t at = IDE_PRDT + le16_get(s->off) % 64 * 8, v = le64_get(s->v);
	uint32_t gpa = le32_get(s->x);

	if (s->a & 3)
		gpa = s->a & 4 ? IDE_DATA + gpa % 65536 : IDE_PRDT + gpa % 1024;
	else if (s->a & 8)
		gpa = (uint32_t)FAKE_LOW_BYTES - gpa % 1024;
	poke(at, gpa);
	poke(at + 4, (v & 0x80000fff) | (v >> 40 & 0xf000 & -(v >> 63)));
}

static void start_bus_master(const struct step *s)
{
	out32(f.m, f.bm + 4, s->a & 0x70 ? IDE_PRDT + le16_get(s->off) % 64U * 8 : le32_get(s->x));
	out8(f.m, f.bm, s->a & 9);
}

static void do_step(const struct step *s)
{
	switch (s->op % 16) {
	case 0:
	case 1:
	case 2:
		access_port(s);
		break;
	case 3:
	case 4:
	case 5:
		access_string(s);
		break;
	case 6:
	case 7:
		make_command(s);
		break;
	case 8:
		make_packet(s);
		break;
	case 9:
	case 10:
		make_region(s);
		break;
	case 11:
	case 12:
		start_bus_master(s);
		break;
	case 13:
		out8(f.m, 0x3f6, le16_get(s->off) % 4 ? 0 : s->a);
		break;
	case 14:
		if (le16_get(s->off) % 4 == 0)
			usleep(le32_get(s->x) % 200);
		break;
	default:
		out32(f.m, 0xcf8, 0x80000900u | (le16_get(s->off) & 0xfc));
		out32(f.m, 0xcfc, le32_get(s->x));
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
		if (r->s[i].op % 16 < 15)
			do_step(&r->s[i]);
	return NULL;
}

/* Reads sector 7 over PIO and by bus master; sector 7 may hold anything by now, but the same. */
static bool honest(void)
{
	uint8_t pio[SECTOR], s;

	ide_issue(&f, 0x20, 0, 7, 1, 0xe0);
	if (ide_pio(&f, pio, NULL, SECTOR, &s) != SECTOR || s != ST_GOOD)
		return false;
	ide_prd(&f, 0, IDE_DATA, SECTOR | PRD_LAST);
	ide_issue(&f, 0xc8, 0, 7, 1, 0xe0);
	return (ide_bm_run(&f, true) & 7) == 4 && in8(f.m, 0x1f7) == ST_GOOD &&
		!memcmp(ide_mem(&f, IDE_DATA), pio, SECTOR);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = {(const struct step *)(const void *)data, size / sizeof(struct step)};
	pthread_t other;

	init();
	r.n = min_u64(r.n, STEPS);
	if (pthread_create(&other, NULL, backwards, &r))
		abort();
	for (size_t i = 0; i < r.n; i++)
		do_step(&r.s[i]);
	pthread_join(other, NULL);
	f.dev->ops->reset(f.dev);
	if (!honest()) {
		fprintf(stderr, "an honest driver is not served, status %#x\n", in8(f.m, 0x3f6));
		abort();
	}
	return 0;
}

/* Sixteen programs of random steps, all kinds of them. */
size_t fuzz_seed(uint8_t *data, size_t size, unsigned n)
{
	size_t len = 200 * sizeof(struct step);

	if (n >= 16 || len > size)
		return 0;
	fuzz_noise(data, len, n);
	return len;
}
