/* SPDX-License-Identifier: MIT */
/*
 * memfile.h - image contents in memory, in layers, and a file engine on them.
 *
 * A mem_image is a sparse array of pages over an optional base that is only read, so a
 * state after a power cut costs the pages that differ.  The engine completes requests later
 * and in random order (seeded), so that what is in flight together is really in flight together;
 * seed 0 completes in order.
 */
#ifndef CRASH_MEMFILE_H
#define CRASH_MEMFILE_H

#include "blockdev/file/file.h"

#define MEM_PAGE 4096u

struct mem_image {
	/* Told of every transfer through the engine; NULL: nobody. */
	void (*watch)(void *arg, bool write, uint64_t off, uint64_t len);
	void *watch_arg;
	const struct mem_image *base; /* read where this has no page; NULL: zeros */
	uint8_t **pages; /* the lowest bit is set: a lent one */
	uint64_t n_pages; /* in the table */
	uint64_t size;    /* bytes */
	uint64_t limit;   /* the engine answers -EFBIG beyond it; 0: none */
	uint64_t *used;   /* indices of pages that are here, for a quick reset */
	uint64_t n_used, room_used;
	uint8_t **spare; /* pages to reuse after a reset */
	uint64_t n_spare, room_spare;
};

void mem_init(struct mem_image *m);
void mem_fini(struct mem_image *m);
/* Empty again, over base, with base's size; keeps its memory for the next state. */
void mem_reset(struct mem_image *m, const struct mem_image *base);

void mem_read(const struct mem_image *m, void *buf, uint64_t len, uint64_t off);
/* Page i as it is read; NULL: all zeros. */
const uint8_t *mem_page(const struct mem_image *m, uint64_t i);
/* Beyond the size: dropped if !grow. */
void mem_write(struct mem_image *m, const void *buf, uint64_t len, uint64_t off, bool grow);
/*
 * The same; whole pages stay the caller's, who does not change them while they are here: a state
 * that consists of them costs no memory.
 */
void mem_lend(struct mem_image *m, const void *buf, uint64_t len, uint64_t off);
/* Shrinking drops contents: a later growth reads as zeros. */
void mem_set_size(struct mem_image *m, uint64_t size);

/*
 * Equal contents give equal numbers, however they came about (and different ones different numbers,
 * but for one in 2^64).
 */
uint64_t mem_digest(const struct mem_image *m);

/* The image stays the caller's.  0 or -ENOMEM. */
must_check int memfile_open(struct loop *l, struct mem_image *m, uint64_t seed, struct file **out);

#endif
