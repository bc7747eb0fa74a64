/* SPDX-License-Identifier: MIT */
/*
 * hostile_chains.c - chains that no honest driver makes.
 *
 * Each case is named for its lie.  Addresses that a device may write to are in scratch or nowhere;
 * sectors are out of range or above SAFE_SECTORS; so an honest device hurts nothing that counts.
 */
#include "guest/hostile.h"

#define DATA_FLAGS(type) ((type) == VBLK_OUT ? VIRTQ_NEXT : VIRTQ_NEXT | VIRTQ_WRITE)

static uint32_t in_or_out(struct hostile *h)
{
	return pick(h, 2) ? VBLK_OUT : VBLK_IN;
}

static uint64_t some_sector(struct hostile *h)
{
	return SAFE_SECTORS + pick(h, (uint32_t)MIN(h->d->sectors - SAFE_SECTORS - 8, 1u << 30));
}

static uint64_t bad_sector(struct hostile *h)
{
	const uint64_t n = h->d->sectors;
	const uint64_t list[] = {n, n + 1, n - 1, n - 7, 1ull << 55, (1ull << 55) + 1, 1ull << 63,
		~0ull, ~0ull - 7, (1ull << 55) - 1, (1ull << 32) + n, 0x7fffffffffffffff};

	return list[pick(h, ARRAY_SIZE(list))];
}

/* Where no RAM is, or only part of what is asked.  The APIC page takes no writes: they are MSIs. */
static uint64_t bad_address(struct hostile *h, bool writable)
{
	const uint64_t list[] = {h->ram_top, h->ram_top - 8, h->ram_top + 65536ull, 0xfec00000,
		0xfffffff0, 0xffffffff, 0x100000000 - 256, 1ull << 40, 1ull << 52, 1ull << 63,
		~0ull, ~0ull - 15, ~0ull - 511, 0x7fffffffffffffff, 0xfee00000,
		(uintptr_t)h->d->common, (uintptr_t)h->d->notify};
	uint32_t n = ARRAY_SIZE(list) - (writable ? 3 : 0);

	return list[pick(h, n)];
}

static uint32_t bad_length(struct hostile *h)
{
	static const uint32_t list[] = {
		0xffffffff, 0x80000000, 0x7fffffff, 0xfffffe00, 0, 1, 15, 17, 511, 513, 4095};

	return list[pick(h, ARRAY_SIZE(list))];
}

/* Header, one data descriptor, status, from descriptor `at`: right but for what is passed. */
static void chain(struct hostile *h, unsigned at, uint32_t type, uint64_t sector, uint64_t data,
	uint32_t bytes)
{
	set_desc(h, at, header(h, at, type, sector), 16, VIRTQ_NEXT, at + 1);
	set_desc(h, at + 1, data, bytes, DATA_FLAGS(type), at + 2);
	set_desc(h, at + 2, status_byte(h, at), 1, VIRTQ_WRITE, 0);
}

static enum verdict send(struct hostile *h, uint16_t head)
{
	push(h, head);
	kick(h);
	return ALL_BACK;
}

static enum verdict loop_in_ring(struct hostile *h)
{
	unsigned n = 1 + pick(h, h->q->size);

	for (unsigned i = 0; i < n; i++)
		set_desc(h, i, header(h, 0, in_or_out(h), some_sector(h)), 16,
			VIRTQ_NEXT | (pick(h, 4) ? 0 : VIRTQ_WRITE),
			i + 1 < n ? i + 1 : pick(h, n));
	return send(h, 0);
}

static enum verdict next_out_of_ring(struct hostile *h)
{
	chain(h, 0, in_or_out(h), some_sector(h), scratch_at(h, SCRATCH_DATA), 512);
	set_desc(h, pick(h, 2), scratch_at(h, 0), 16, VIRTQ_NEXT,
		pick(h, 2) ? h->q->size + pick(h, 100) : 0xffff);
	return send(h, 0);
}

static enum verdict head_out_of_ring(struct hostile *h)
{
	push(h, (uint16_t)(h->q->size + pick(h, 1000)));
	kick(h);
	return ANYTHING;
}

static enum verdict too_few_descriptors(struct hostile *h)
{
	unsigned flags = pick(h, 2) ? VIRTQ_WRITE : 0;

	set_desc(h, 0, header(h, 0, in_or_out(h), some_sector(h)), 16, flags, 0);
	if (pick(h, 2)) {
		set_desc(h, 0, header(h, 0, VBLK_OUT, some_sector(h)), 16, VIRTQ_NEXT, 1);
		set_desc(h, 1, scratch_at(h, SCRATCH_DATA), 512, 0, 0); /* no status */
	}
	return send(h, 0);
}

static enum verdict short_header(struct hostile *h)
{
	uint32_t type = in_or_out(h);

	chain(h, 0, type, some_sector(h), scratch_at(h, SCRATCH_DATA), type == VBLK_OUT ? 1 : 512);
	h->q->desc[0].len = pick(h, 16);
	return send(h, 0);
}

/* Legal in virtio 1.x, and rare: the header in pieces, the status byte at the end of the data. */
static enum verdict odd_framing(struct hostile *h)
{
	uint64_t at = header(h, 0, VBLK_IN, some_sector(h)), left = 16;
	unsigned i = 0;

	while (left) {
		uint32_t n = 1 + pick(h, (uint32_t)left);

		set_desc(h, i, at, n, VIRTQ_NEXT, i + 1);
		at += n;
		left -= n;
		i++;
	}
	set_desc(h, i, scratch_at(h, SCRATCH_DATA), 100, VIRTQ_NEXT | VIRTQ_WRITE, i + 1);
	set_desc(h, i + 1, scratch_at(h, SCRATCH_DATA + 4096), 413, VIRTQ_WRITE, 0);
	return send(h, 0);
}

static enum verdict wrong_direction(struct hostile *h)
{
	chain(h, 0, in_or_out(h), some_sector(h), scratch_at(h, SCRATCH_DATA), 512);
	for (unsigned i = 0; i < 3; i++)
		if (pick(h, 2))
			h->q->desc[i].flags ^= VIRTQ_WRITE;
	return send(h, 0);
}

static enum verdict zero_length(struct hostile *h)
{
	chain(h, 0, in_or_out(h), some_sector(h), scratch_at(h, SCRATCH_DATA), 512);
	h->q->desc[pick(h, 3)].len = 0;
	return send(h, 0);
}

static enum verdict address_out_of_ram(struct hostile *h)
{
	unsigned i = pick(h, 3);

	chain(h, 0, in_or_out(h), some_sector(h), scratch_at(h, SCRATCH_DATA), 512 << pick(h, 8));
	h->q->desc[i].addr = bad_address(h, (h->q->desc[i].flags & VIRTQ_WRITE) != 0);
	return send(h, 0);
}

static enum verdict length_out_of_ram(struct hostile *h)
{
	chain(h, 0, in_or_out(h), some_sector(h), scratch_at(h, SCRATCH_DATA), 512);
	h->q->desc[pick(h, 3)].len = bad_length(h);
	return send(h, 0);
}

static enum verdict sector_out_of_range(struct hostile *h)
{
	chain(h, 0, in_or_out(h), bad_sector(h), scratch_at(h, SCRATCH_DATA),
		512 * (8 + pick(h, 8)));
	return send(h, 0);
}

static enum verdict length_not_sectors(struct hostile *h)
{
	chain(h, 0, in_or_out(h), some_sector(h), scratch_at(h, SCRATCH_DATA), 1 + pick(h, 511));
	return send(h, 0);
}

static enum verdict unknown_type(struct hostile *h)
{
	static const uint32_t types[] = {2, 3, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 20,
		22, 24, 26, 0x80000000, 0x80000001, 0xffffffff, 0x01000000};
	uint32_t type = types[pick(h, ARRAY_SIZE(types))];
	volatile uint64_t *range = (volatile uint64_t *)scratch_at(h, SCRATCH_DATA);

	range[0] = pick(h, 2) ? some_sector(h) : bad_sector(h); /* for discard and its like */
	range[1] = pick(h, 2) ? 8 : ~0ull;
	chain(h, 0, type, 0, (uintptr_t)range, 1 + pick(h, 64));
	h->q->desc[1].flags = VIRTQ_NEXT | (pick(h, 2) ? VIRTQ_WRITE : 0);
	return send(h, 0);
}

static enum verdict flush_with_data(struct hostile *h)
{
	chain(h, 0, VBLK_FLUSH, pick(h, 2) ? bad_sector(h) : 0, scratch_at(h, SCRATCH_DATA),
		512 << pick(h, 4));
	h->q->desc[1].flags = VIRTQ_NEXT | (pick(h, 2) ? VIRTQ_WRITE : 0);
	return send(h, 0);
}

static void table_desc(
	struct hostile *h, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
	((volatile struct virtq_desc *)scratch_at(h, SCRATCH_TABLE))[i].addr = addr;
	((volatile struct virtq_desc *)scratch_at(h, SCRATCH_TABLE))[i].len = len;
	((volatile struct virtq_desc *)scratch_at(h, SCRATCH_TABLE))[i].flags = (uint16_t)flags;
	((volatile struct virtq_desc *)scratch_at(h, SCRATCH_TABLE))[i].next = (uint16_t)next;
}

/* A good table; then something about it is wrong. */
static enum verdict bad_indirect(struct hostile *h)
{
	static const uint32_t lengths[] = {
		0, 1, 15, 17, 47, 16, 32, 0xffffffff, 0xfffffff0, 1 << 20};
	uint64_t at = scratch_at(h, SCRATCH_TABLE);
	uint32_t type = in_or_out(h), bytes = 48;
	unsigned flags = VIRTQ_INDIRECT;

	table_desc(h, 0, header(h, 0, type, some_sector(h)), 16, VIRTQ_NEXT, 1);
	table_desc(h, 1, scratch_at(h, SCRATCH_DATA), 512, DATA_FLAGS(type), 2);
	table_desc(h, 2, status_byte(h, 0), 1, VIRTQ_WRITE, 0);
	switch (pick(h, 8)) {
	case 0:
		bytes = lengths[pick(h, ARRAY_SIZE(lengths))];
		break;
	case 1:
		at = bad_address(h, false);
		break;
	case 2: /* a table within a table */
		table_desc(h, pick(h, 3), at, 48, VIRTQ_INDIRECT, 0);
		break;
	case 3: /* a loop within the table */
		table_desc(h, pick(h, 3), scratch_at(h, SCRATCH_DATA), 512, VIRTQ_NEXT, pick(h, 3));
		break;
	case 4: /* out of the table */
		table_desc(h, pick(h, 2), scratch_at(h, SCRATCH_DATA), 512, VIRTQ_NEXT,
			3 + pick(h, 9));
		break;
	case 5:
		flags |= VIRTQ_NEXT; /* more than the table */
		break;
	case 6:
		flags |= VIRTQ_WRITE; /* to be ignored */
		break;
	default:
		at += 1 + pick(h, 15);
		break;
	}
	set_desc(h, 0, at, bytes, flags, 1);
	set_desc(h, 1, scratch_at(h, SCRATCH_DATA), 512, VIRTQ_WRITE, 0);
	return send(h, 0);
}

static enum verdict longer_than_the_ring(struct hostile *h)
{
	unsigned n = h->q->size + 1 + pick(h, 1000);

	for (unsigned i = 0; i < n; i++)
		table_desc(h, i, scratch_at(h, SCRATCH_DATA), 1, VIRTQ_NEXT, i + 1);
	table_desc(h, 0, header(h, 0, VBLK_OUT, some_sector(h)), 16, VIRTQ_NEXT, 1);
	table_desc(h, n, status_byte(h, 0), 1, VIRTQ_WRITE, 0);
	set_desc(h, 0, scratch_at(h, SCRATCH_TABLE), 16 * (n + 1), VIRTQ_INDIRECT, 0);
	return send(h, 0);
}

static enum verdict same_head_twice(struct hostile *h)
{
	chain(h, 0, VBLK_IN, some_sector(h), scratch_at(h, SCRATCH_DATA), 4096);
	for (unsigned n = 2 + pick(h, 6); n; n--)
		push(h, 0);
	kick(h);
	return ALL_BACK;
}

static enum verdict avail_jumps(struct hostile *h)
{
	chain(h, 0, VBLK_IN, some_sector(h), scratch_at(h, SCRATCH_DATA), 512);
	for (unsigned i = 0; i < h->q->size; i++)
		h->q->avail->ring[i] = 0;
	h->q->avail->idx = (uint16_t)(h->q->avail_next + h->q->size + 1 + pick(h, 30000));
	kick(h);
	delay_usec(500);
	return ANYTHING;
}

/* Many chains at once; descriptors and headers change under the device's hands. */
static enum verdict change_in_flight(struct hostile *h)
{
	unsigned n = MIN(2 + pick(h, 30), h->q->size / 3u);

	for (unsigned i = 0; i < n; i++) {
		chain(h, 3 * i, in_or_out(h), some_sector(h),
			scratch_at(h, SCRATCH_DATA + 65536 * i), 4096);
		push(h, (uint16_t)(3 * i));
	}
	kick(h);
	for (unsigned k = 0; k < 200; k++) {
		unsigned i = 3 * pick(h, n);

		switch (pick(h, 4)) {
		case 0:
			header(h, i, pick(h, 9), bad_sector(h));
			break;
		case 1:
			h->q->desc[i + 1].len = bad_length(h);
			break;
		case 2:
			h->q->desc[i + 1].addr = bad_address(h, true);
			break;
		default:
			h->q->desc[i + 1].next = (uint16_t)pick(h, 65536);
			break;
		}
	}
	return ALL_BACK;
}

/* A chain of anything. */
static enum verdict random_chain(struct hostile *h)
{
	unsigned n = 1 + pick(h, 20);

	for (unsigned i = 0; i < n; i++) {
		unsigned flags = (i + 1 < n ? VIRTQ_NEXT : 0) | (pick(h, 2) ? VIRTQ_WRITE : 0);
		uint64_t addr =
			pick(h, 4) ? scratch_at(h, SCRATCH_DATA + 65536 * i) : bad_address(h, true);
		uint32_t bytes = pick(h, 3) ? 1 + pick(h, 5000) : bad_length(h);

		if (pick(h, 10) == 0)
			flags |= VIRTQ_INDIRECT;
		set_desc(h, i, addr, bytes, flags, i + 1);
	}
	if (pick(h, 4))
		set_desc(h, 0,
			header(h, 0, pick(h, 12), pick(h, 2) ? some_sector(h) : bad_sector(h)), 16,
			n > 1 ? VIRTQ_NEXT : 0, 1);
	return send(h, 0);
}

const struct hostile_case hostile_chains[] = {
	{"loop_in_ring", loop_in_ring},
	{"next_out_of_ring", next_out_of_ring},
	{"head_out_of_ring", head_out_of_ring},
	{"too_few_descriptors", too_few_descriptors},
	{"short_header", short_header},
	{"odd_framing", odd_framing},
	{"wrong_direction", wrong_direction},
	{"zero_length", zero_length},
	{"address_out_of_ram", address_out_of_ram},
	{"length_out_of_ram", length_out_of_ram},
	{"sector_out_of_range", sector_out_of_range},
	{"length_not_sectors", length_not_sectors},
	{"unknown_type", unknown_type},
	{"flush_with_data", flush_with_data},
	{"bad_indirect", bad_indirect},
	{"longer_than_the_ring", longer_than_the_ring},
	{"same_head_twice", same_head_twice},
	{"avail_jumps", avail_jumps},
	{"change_in_flight", change_in_flight},
	{"random_chain", random_chain},
};
const unsigned n_hostile_chains = ARRAY_SIZE(hostile_chains);
