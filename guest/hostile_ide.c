/* SPDX-License-Identifier: MIT */
/*
 * hostile_ide.c - job hostile-ide: a driver that lies to an IDE drive, and then wants to be served.
 *
 * Throws count cases, chosen by seed, at the drive's ports: any width, any value, any command,
 * lists of regions that overlap, end nowhere, point outside memory or at devices, and resets in
 * the middle of all that.  After each the drive must come out of a soft reset, and often must then
 * read back what it is given.  Destroys the content of the disk.
 *
 * Regions only name scratch memory, or what is no memory, also where a list runs on past its
 * end: a drive that does as it is told must not hurt the guest itself.
 */
#include "guest/ide.h"
#include "guest/pattern.h"

#define SCRATCH (1u << 20)
#define ENTRIES 8192u /* of a list: as many as the longest command can use */
#define SECTORS 8u

struct lies {
	struct vblk *d;
	uint64_t rng;
	uint8_t *scratch;
	uint32_t *table; /* behind it */
	struct vblk_req *req;
	uint16_t base, ctl, bm;
	uint32_t cases, resets, served, wrong, failed;
};

static uint32_t any(struct lies *l, uint32_t n)
{
	return (uint32_t)(random_next(&l->rng) >> 33) % n;
}

static uint16_t any_port(struct lies *l)
{
	uint32_t k = any(l, 24);

	return (uint16_t)(k < 8 ? l->base + k : k < 16 ? l->bm + k - 8 : k < 18 ? l->ctl : l->base);
}

/* Wider accesses would reach a neighbour: the serial port, or what list() is careful about. */
static bool bytes_only(const struct lies *l, uint16_t port)
{
	return port == l->ctl || (port >= l->bm && port <= l->bm + 7);
}

static void any_access(struct lies *l)
{
	uint16_t port = any_port(l);
	uint32_t v = (uint32_t)random_next(&l->rng);

	/* The bus master's table register is list()'s: what it names must be harmless. */
	if (port >= l->bm + 1 && port <= l->bm + 7)
		v = 0x6;
	switch (any(l, 6)) {
	case 0:
		outb(port, (uint8_t)v);
		break;
	case 1:
		if (!bytes_only(l, port))
			outw(port, (uint16_t)v);
		break;
	case 2:
		if (!bytes_only(l, port))
			outl(port, v);
		break;
	case 3:
		inb(port);
		break;
	case 4:
		inw(port);
		break;
	default:
		inl(port);
	}
}

static void string(struct lies *l)
{
	uint64_t n = any(l, 600);
	void *p = l->scratch + 4 * any(l, 1000);
	uint16_t port = any(l, 8) ? l->base : any_port(l);

	if (bytes_only(l, port))
		return;
	switch (any(l, 4)) {
	case 0:
		__asm__ volatile("rep insw" : "+D"(p), "+c"(n) : "d"(port) : "memory");
		break;
	case 1:
		__asm__ volatile("rep insl" : "+D"(p), "+c"(n) : "d"(port) : "memory");
		break;
	case 2:
		n %= 64; /* an exit each where nothing holds them back */
		__asm__ volatile("rep outsw" : "+S"(p), "+c"(n) : "d"(port) : "memory");
		break;
	default:
		n %= 64;
		__asm__ volatile("rep outsl" : "+S"(p), "+c"(n) : "d"(port) : "memory");
	}
}

static void command(struct lies *l)
{
	static const uint8_t ops[] = {0x20, 0x24, 0x25, 0x29, 0x30, 0x34, 0x35, 0x39, 0x3d, 0x40,
		0xc4, 0xc5, 0xc8, 0xca, 0xce, 0x06, 0xe7, 0xea, 0xec, 0xef, 0xb0, 0x90, 0xc6, 0xa0};
	uint16_t b = l->base;

	for (unsigned k = 1; k < 6; k++) {
		outb((uint16_t)(b + k), any(l, 3) ? 0 : (uint8_t)random_next(&l->rng));
		outb((uint16_t)(b + k), (uint8_t)(k == 2 ? any(l, 20) : random_next(&l->rng)));
	}
	outb(b + 6, (uint8_t)(any(l, 8) ? 0xe0 : random_next(&l->rng)));
	outb(b + 7, any(l, 4) ? ops[any(l, ARRAY_SIZE(ops))] : (uint8_t)random_next(&l->rng));
}

static void list(struct lies *l)
{
	static const uint32_t nowhere[] = {0xfee00000, 0xfec00000, 0xe0000000, 0xfffffffe,
		0xc0000000, 0xfffff000};
	volatile uint32_t *e = l->table;

	for (unsigned n = any(l, 40), k = 0; k <= n; k++) {
		e[2 * k] = any(l, 8) ? (uint32_t)(uintptr_t)l->scratch + any(l, SCRATCH - 65536)
				     : nowhere[any(l, ARRAY_SIZE(nowhere))];
		e[2 * k + 1] = any(l, 3) ? any(l, 4096) : (uint32_t)random_next(&l->rng);
		if (k == n && any(l, 4))
			e[2 * k + 1] |= 0x80000000u;
	}
	outl(l->bm + 4, any(l, 8) ? (uint32_t)(uintptr_t)e + 8 * any(l, 4)
				  : nowhere[any(l, ARRAY_SIZE(nowhere))]);
	outb(l->bm, (uint8_t)(1 | any(l, 2) << 3));
}

static void stop(struct lies *l)
{
	outb(any(l, 2) ? l->bm : l->ctl, (uint8_t)(any(l, 2) ? 0 : 4 * any(l, 2)));
}

/* Out of whatever state it is in; then an honest write and read. */
static void serve(struct lies *l, bool check)
{
	uint64_t sector = any(l, (uint32_t)(l->d->sectors - SECTORS));
	uint8_t *data = l->scratch;

	outb(l->bm, 0);
	ide_start(l->d, F_ALL);
	l->resets++;
	if (!check)
		return;
	for (unsigned k = 0; k < 2; k++) {
		for (unsigned i = 0; i < SECTORS && !k; i++)
			pattern_fill(data + i * SECTOR_SIZE, sector + i, l->cases);
		if (k)
			memset(data, 0x5a, SECTORS * SECTOR_SIZE);
		vblk_req_init(l->req, k ? VBLK_IN : VBLK_OUT, sector);
		if (!vblk_req_add(l->d, l->req, data, SECTORS * SECTOR_SIZE))
			fail(STATUS_DEVICE, "hostile-ide: no room");
		l->failed += vblk_do(l->d, l->req) != VBLK_S_OK;
	}
	for (unsigned i = 0; i < SECTORS; i++)
		l->wrong += !pattern_is(data + i * SECTOR_SIZE, sector + i, l->cases);
	l->served++;
}

int job_hostile_ide(void)
{
	static void (*const what[])(struct lies *l) = {
		any_access, any_access, any_access, string, string, command, command, list, stop};
	static struct lies l;
	uint64_t count = option_u64("count", 200, 1, 10000000), begin;

	if (!ide_wanted())
		fail(STATUS_USAGE, "hostile-ide: wants bus=ide or bus=ide-pio");
	l.rng = option_u64("seed", 1, 1, UINT64_MAX) * 0x9E3779B97F4A7C15ULL | 1;
	l.d = vblk_open();
	ide_ports(l.d, &l.base, &l.ctl, &l.bm);
	l.scratch = memory_alloc_top(SCRATCH + 8 * ENTRIES, "scratch");
	l.table = (uint32_t *)(void *)(l.scratch + SCRATCH);
	for (unsigned k = 0; k < ENTRIES; k++) {
		l.table[2 * k] = (uint32_t)(uintptr_t)l.scratch;
		l.table[2 * k + 1] = k + 1 < ENTRIES ? PAGE_SIZE : 0x80000000u | PAGE_SIZE;
	}
	outl(l.bm + 4, (uint32_t)(uintptr_t)l.table);
	l.req = memory_alloc(sizeof(*l.req), PAGE_SIZE, "a request");
	serve(&l, true);
	begin = rdtsc();
	for (l.cases = 1; l.cases <= count; l.cases++) {
		for (unsigned n = 1 + any(&l, 12); n; n--)
			what[any(&l, ARRAY_SIZE(what))](&l);
		serve(&l, any(&l, 2));
	}
	serve(&l, true);
	report("hostile-ide cases=%lu resets=%u served=%u wrong=%u failed=%u usec=%lu", count,
		l.resets, l.served, l.wrong, l.failed, usec_since(begin));
	return l.wrong ? STATUS_DATA : l.failed ? STATUS_DEVICE : STATUS_OK;
}
