/* SPDX-License-Identifier: MIT */
/*
 * hostile.h - between the harness (hostile.c) and what it throws (hostile_*.c).
 *
 * A case writes descriptors and rings by hand.  What it lets the device write to lies in `scratch`,
 * at the upper end of RAM, so that even a device that clips a length only hits nothing of ours.
 */
#ifndef GUEST_HOSTILE_H
#define GUEST_HOSTILE_H

#include "guest/virtio_blk.h"

#define SCRATCH_BYTES  (4u << 20)
#define SCRATCH_HEADER 0u          /* headers, and a status byte behind each */
#define SCRATCH_TABLE  (64u << 10) /* indirect tables */
#define SCRATCH_DATA   (1u << 20)
#define SAFE_SECTORS   2048u /* the first MiB of the disk: for valid requests only */

/* What must be true after a case. */
enum verdict {
	ALL_BACK, /* every chain comes back once, unless the device asks for a reset */
	ANYTHING, /* anything but a hang; the device is reset */
};

struct hostile {
	struct vblk *d;
	struct virtq *q;
	uint64_t rng;
	uint8_t *scratch;
	uint32_t ram_top;                     /* where RAM below 4 GiB ends */
	uint16_t outstanding[VIRTQ_SIZE_MAX]; /* by head */
	unsigned n_outstanding;
	uint32_t bad_head; /* this id may come back too */
	uint32_t chains, returned, needs_reset, resets, valid, lost, strays, wrong, failed_valid;
};

struct hostile_case {
	const char *name;
	enum verdict (*run)(struct hostile *h);
};

extern const struct hostile_case hostile_chains[], hostile_registers[];
extern const unsigned n_hostile_chains, n_hostile_registers;

/* hostile.c */
uint32_t pick(struct hostile *h, uint32_t n); /* 0 .. n-1 */
void set_desc(
	struct hostile *h, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next);
void push(struct hostile *h, uint16_t head); /* into the ring; nothing is kicked */
void kick(struct hostile *h);
/* A header in scratch; its address. */
uint64_t header(struct hostile *h, unsigned slot, uint32_t type, uint64_t sector);
uint64_t status_byte(struct hostile *h, unsigned slot);
void restart(struct hostile *h); /* reset, set up, and check that it works */

static inline uint64_t scratch_at(const struct hostile *h, uint32_t off)
{
	return (uintptr_t)h->scratch + off;
}

#endif
