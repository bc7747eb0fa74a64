/* SPDX-License-Identifier: MIT */
/*
 * hostile.c - job hostile: a driver that lies, and then wants to be served again.
 *
 * Throws count cases, chosen by seed: broken chains (hostile_chains.c) and registers written with
 * nonsense (hostile_registers.c).  After each the device must have returned every chain exactly
 * once or ask for a reset; after a reset, and often without one, valid requests must work and the
 * sectors they use must hold what was written.  Destroys the content of the disk.
 *
 * Not judged: what status a broken request gets, and what it did to sectors of its own.
 */
#include "guest/hostile.h"
#include "guest/pattern.h"

#define CASE_MS       10000
#define SPIN_LOOKS    40
#define BLOCK         4096u
#define BLOCK_SECTORS (BLOCK / SECTOR_SIZE)
#define SAFE_BLOCKS   (SAFE_SECTORS / BLOCK_SECTORS)
#define VALID_HEADER  900 /* header slot of valid requests */

static uint32_t block_version[SAFE_BLOCKS];

uint32_t pick(struct hostile *h, uint32_t n)
{
	return (uint32_t)(random_next(&h->rng) >> 33) % n;
}

void set_desc(
	struct hostile *h, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
	volatile struct virtq_desc *d = &h->q->desc[i % h->q->size];

	d->addr = addr;
	d->len = len;
	d->flags = (uint16_t)flags;
	d->next = (uint16_t)next;
}

uint64_t header(struct hostile *h, unsigned slot, uint32_t type, uint64_t sector)
{
	uint64_t at = scratch_at(h, SCRATCH_HEADER + 32 * slot);

	*(volatile uint32_t *)at = type;
	*(volatile uint32_t *)(at + 4) = 0;
	*(volatile uint64_t *)(at + 8) = sector;
	*(volatile uint8_t *)(at + 16) = VBLK_S_NONE;
	return at;
}

uint64_t status_byte(struct hostile *h, unsigned slot)
{
	return scratch_at(h, SCRATCH_HEADER + 32 * slot + 16);
}

void push(struct hostile *h, uint16_t head)
{
	struct virtq *q = h->q;

	q->avail->ring[q->avail_next % q->size] = head;
	barrier();
	q->avail->idx = ++q->avail_next;
	h->chains++;
	if (head >= q->size) {
		h->bad_head = head;
		return;
	}
	h->outstanding[head]++;
	h->n_outstanding++;
}

void kick(struct hostile *h)
{
	full_barrier();
	*h->q->doorbell = h->q->index;
	h->q->avail_kicked = h->q->avail_next;
}

static void take_back(struct hostile *h)
{
	struct virtq *q = h->q;

	for (; virtq_pending(q); q->used_next++) {
		uint32_t id = q->used->ring[q->used_next % q->size].id;

		h->returned++;
		if (id < q->size && h->outstanding[id]) {
			h->outstanding[id]--;
			h->n_outstanding--;
		} else if (id != h->bad_head) {
			h->strays++;
		}
	}
}

/* Waits for all chains; looks at the status too, at first often.  False: a reset is asked for. */
static bool all_back(struct hostile *h)
{
	uint64_t deadline = tsc_after_ms(CASE_MS);

	for (unsigned looks = 0;; looks++) {
		uint32_t seen = irq_events;

		take_back(h);
		if (vblk_status(h->d) & DEV_NEEDS_RESET) {
			h->needs_reset++;
			return false;
		}
		if (!h->n_outstanding)
			return true;
		if (rdtsc() > deadline) {
			h->lost += h->n_outstanding;
			return false;
		}
		if (looks < SPIN_LOOKS)
			delay_usec(50);
		else
			cpu_idle(seen);
	}
}

/* One valid request by hand, on an empty ring.  False: the device asks for a reset. */
static bool valid_request(struct hostile *h, uint32_t type, uint64_t sector, uint8_t *data)
{
	unsigned flags = type == VBLK_IN ? VIRTQ_NEXT | VIRTQ_WRITE : VIRTQ_NEXT;

	set_desc(h, 0, header(h, VALID_HEADER, type, sector), 16, VIRTQ_NEXT, 1);
	set_desc(h, 1, (uintptr_t)data, BLOCK, flags, 2);
	set_desc(h, 2, status_byte(h, VALID_HEADER), 1, VIRTQ_WRITE, 0);
	push(h, 0);
	kick(h);
	if (!all_back(h))
		return false;
	h->valid++;
	if (*(volatile uint8_t *)status_byte(h, VALID_HEADER) != VBLK_S_OK)
		h->failed_valid++;
	return true;
}

/* Writes a block of the safe area, reads it and an older one back. */
static bool check_valid(struct hostile *h)
{
	uint8_t *data = h->scratch + SCRATCH_BYTES - BLOCK;
	uint32_t blocks[2] = {pick(h, SAFE_BLOCKS), pick(h, SAFE_BLOCKS)};
	uint64_t sector = blocks[0] * BLOCK_SECTORS;

	block_version[blocks[0]]++;
	for (unsigned i = 0; i < BLOCK_SECTORS; i++)
		pattern_fill(data + i * SECTOR_SIZE, sector + i, block_version[blocks[0]]);
	if (!valid_request(h, VBLK_OUT, sector, data))
		return false;
	for (unsigned b = 0; b < 2; b++) {
		uint32_t version = block_version[blocks[b]];

		sector = blocks[b] * BLOCK_SECTORS;
		if (!version)
			continue;
		memset(data, 0x5a, BLOCK);
		if (!valid_request(h, VBLK_IN, sector, data))
			return false;
		for (unsigned i = 0; i < BLOCK_SECTORS; i++)
			h->wrong += !pattern_is(data + i * SECTOR_SIZE, sector + i, version);
	}
	return true;
}

void restart(struct hostile *h)
{
	vblk_start(h->d, F_ALL);
	memset(h->outstanding, 0, sizeof(h->outstanding));
	h->n_outstanding = 0;
	h->bad_head = UINT32_MAX;
	h->resets++;
	if (!check_valid(h))
		fail(STATUS_DEVICE, "hostile: after a reset, a valid request is not answered");
}

static void run_case(struct hostile *h, const struct hostile_case *c)
{
	uint32_t bad = h->lost + h->strays + h->wrong + h->failed_valid;
	enum verdict v = c->run(h);

	h->bad_head = v == ALL_BACK ? h->bad_head : UINT32_MAX;
	if (v == ANYTHING || !all_back(h) || pick(h, 8) == 0)
		restart(h);
	else if (pick(h, 2) && !check_valid(h)) {
		h->lost++; /* nothing was outstanding: the device had no reason to stop */
		restart(h);
	}
	if (h->lost + h->strays + h->wrong + h->failed_valid != bad)
		report("hostile case=%s lost=%u strays=%u wrong=%u failed_valid=%u", c->name,
			h->lost, h->strays, h->wrong, h->failed_valid);
}

static uint32_t ram_top(void)
{
	const struct ram_range *ram;
	uint64_t top = 0;

	for (unsigned i = 0, n = ram_ranges(&ram); i < n; i++)
		if (ram[i].end < 1ull << 32)
			top = MAX(top, ram[i].end);
	return (uint32_t)top;
}

static const struct hostile_case *any_case(struct hostile *h)
{
	uint32_t k = pick(h, n_hostile_chains + n_hostile_registers);

	if (k < n_hostile_chains)
		return &hostile_chains[k];
	return &hostile_registers[k - n_hostile_chains];
}

static const struct hostile_case *case_named(const char *name)
{
	if (!name)
		return NULL;
	for (unsigned i = 0; i < n_hostile_chains; i++)
		if (strcmp(name, hostile_chains[i].name) == 0)
			return &hostile_chains[i];
	for (unsigned i = 0; i < n_hostile_registers; i++)
		if (strcmp(name, hostile_registers[i].name) == 0)
			return &hostile_registers[i];
	fail(STATUS_USAGE, "case=%s: no such case", name);
}

int job_hostile(void)
{
	static struct hostile h;
	uint64_t count = option_u64("count", 200, 1, 10000000), begin;
	const struct hostile_case *only = case_named(option_str("case", NULL));

	h.rng = option_u64("seed", 1, 1, UINT64_MAX) * 0x9E3779B97F4A7C15ULL | 1;
	h.d = vblk_open();
	h.q = &h.d->q[0];
	if (h.d->sectors < 4 * SAFE_SECTORS || (h.d->features & F_RO))
		fail(STATUS_USAGE, "hostile: wants a writable disk of %u sectors or more",
			4 * SAFE_SECTORS);
	h.ram_top = ram_top();
	h.scratch = memory_alloc_top(SCRATCH_BYTES, "scratch");
	restart(&h);
	begin = rdtsc();
	for (uint64_t i = 0; i < count; i++)
		run_case(&h, only ? only : any_case(&h));
	restart(&h);
	report("hostile cases=%lu chains=%u returned=%u needs_reset=%u resets=%u valid=%u lost=%u "
	       "strays=%u wrong=%u failed_valid=%u usec=%lu",
		count, h.chains, h.returned, h.needs_reset, h.resets, h.valid, h.lost, h.strays,
		h.wrong, h.failed_valid, usec_since(begin));
	return h.wrong                              ? STATUS_DATA
	       : h.lost + h.strays + h.failed_valid ? STATUS_DEVICE
						    : STATUS_OK;
}
