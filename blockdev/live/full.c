/* SPDX-License-Identifier: MIT */
/*
 * full.c - a filter that is a host without room; see slow.h.
 *
 * A block takes room when it is written or reserved for the first time, unless the host's file had
 * data there already.  Which ones this run has paid for is a map of bits.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/live/slow.h"

#define BLOCK 4096u

struct full {
	struct file file;
	struct file *host; /* who knows what has room */
	uint64_t room; /* blocks that are left */
	uint8_t *paid; /* by block */
	uint64_t n_paid; /* blocks that the map has bits for, a multiple of 8 */
};

static bool is_paid(const struct full *u, uint64_t block)
{
	return block < u->n_paid && u->paid[block / 8] >> block % 8 & 1;
}

static int map_reach(struct full *u, uint64_t blocks)
{
	uint64_t want = round_up(max_u64(blocks, 2 * u->n_paid), 4096);
	uint8_t *more;

	if (blocks <= u->n_paid)
		return 0;
	more = realloc(u->paid, want / 8);
	if (!more)
		return -ENOMEM;
	memset(more + u->n_paid / 8, 0, (want - u->n_paid) / 8);
	u->paid = more;
	u->n_paid = want;
	return 0;
}

/* Blocks in [first, end) that the host has no room for yet. */
static uint64_t price(struct full *u, uint64_t first, uint64_t end)
{
	uint64_t n = 0, known = 0; /* up to where has_data holds */
	bool has_data = false;

	for (uint64_t b = first; b < end; b++) {
		if (is_paid(u, b))
			continue;
		if (b >= known && b * BLOCK < file_size(u->host)) {
			uint64_t len;

			has_data = file_find_data(u->host, b * BLOCK, &len);
			known = b + max_u64(len / BLOCK, 1);
		} else if (b >= known) {
			has_data = false;
			known = end;
		}
		n += !has_data;
	}
	return n;
}

static int pay(struct full *u, const struct file_req *r)
{
	uint64_t first = r->off / BLOCK, end, n;
	int err;

	if (__builtin_add_overflow(r->off, r->len, &end) || end > INT64_MAX)
		return 0; /* who is asked below says so */
	end = div_round_up(end, BLOCK);
	n = price(u, first, end);
	if (n > u->room)
		return -ENOSPC;
	err = n ? map_reach(u, end) : 0;
	if (err)
		return err;
	u->room -= n;
	for (uint64_t b = first; b < end && n; b++)
		u->paid[b / 8] |= (uint8_t)(1 << b % 8);
	return 0;
}

static void full_submit(struct file *f, struct file_req *r)
{
	struct full *u = container_of(f, struct full, file);
	int err = r->op == FILE_WRITE || r->op == FILE_EXTEND ? pay(u, r) : 0;

	if (err)
		file_finish(f, r, err);
	else
		file_submit(f->below, r);
}

static uint64_t full_size(struct file *f)
{
	return file_size(f->below);
}

static void full_close(struct file *f)
{
	struct full *u = container_of(f, struct full, file);

	free(u->paid);
	free(u);
}

static const struct file_ops full_ops = {
	.name = "full",
	.submit = full_submit,
	.size = full_size,
	.close = full_close,
};

int full_open(struct file *f, struct file *host, uint64_t bytes, struct file **out)
{
	struct full *u = calloc(1, sizeof(*u));

	if (!u)
		return -ENOMEM;
	u->file = *f;
	u->file.ops = &full_ops;
	u->file.below = f;
	u->host = host;
	u->room = bytes / BLOCK;
	*out = &u->file;
	return 0;
}
