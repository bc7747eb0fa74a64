/* SPDX-License-Identifier: MIT */
/*
 * model.h - what a power cut may leave of a host file.
 *
 * At tick T a host operation is durable if an fdatasync that was submitted after it
 * completed has completed by T.  Every other operation submitted by T is pending: after the
 * cut it may have happened or not, each 512-byte sector of a write for itself (or each
 * 4096-byte block, if the choice says so), in any order.  How long the file is, is a fact of its
 * own: growth may be lost while data written inside the file is kept, and the other way round;
 * bytes past the end are gone.
 *
 * An operation that goes through the cache is durable once it has completed, with no fdatasync.
 * What it wrote has then overtaken what was still pending there and had completed before it was
 * submitted: that part of the older operation is gone for good, kept or not.
 */
#ifndef CRASH_MODEL_H
#define CRASH_MODEL_H

#include "blockdev/crash/log.h"
#include "blockdev/crash/memfile.h"

struct crash_range {
	uint64_t off, len;
};

struct crash_model {
	const struct crash_log *log;
	struct mem_image durable; /* the image with all durable operations */
	uint64_t at;              /* the cut's tick */
	uint64_t epoch;           /* changes whenever durable does */
	uint32_t *pending;        /* indices into log->host, by submission */
	uint32_t n_pending, room_pending;
	uint64_t next; /* host operations before it are durable, pending or failed */
	/* Where durable has changed; who takes note of it sets n_changed to 0. */
	struct crash_range *changed;
	uint64_t n_changed, room_changed;
	/* Parts of pending operations that something durable has overtaken. */
	struct crash_clip {
		uint64_t off, len, submitted; /* of that */
	} * clips;
	uint64_t n_clips, room_clips;
};

/* start: the image when the log began, all of it durable; stays the caller's. */
void model_init(struct crash_model *m, const struct crash_log *log, const struct mem_image *start);
void model_fini(struct crash_model *m);
/* Moves the cut forward to tick at. */
void model_advance(struct crash_model *m, uint64_t at);

/* One state: which pending operations happened, and how far. */
enum fate { FATE_LOST, FATE_WHOLE, FATE_TORN };
struct crash_choice {
	uint8_t *fate; /* enum fate, by pending operation */
	uint64_t tear; /* seed: which pieces of the torn ones */
	uint32_t unit; /* bytes of a piece, a power of two */
	uint64_t size; /* of the file */
	bool reversed; /* overlapping operations in the other order */
};

/* Does losing it change what the file holds, apart from its length? */
bool model_has_data(const struct host_op *o);
/*
 * Which pieces of operation i of the pending ones the choice keeps, in order of the file: *at is 0
 * at first, and the operation's next piece afterwards.  False: no more.
 */
struct crash_piece {
	uint64_t at, len;   /* bytes from the operation's start */
	uint64_t tear, end; /* end: of what is kept in one go, some of it maybe overtaken */
	bool begun;
};
bool model_next_piece(const struct crash_model *m, const struct crash_choice *c, uint32_t i,
	struct crash_piece *p);
/* The file lengths that may be found after the cut; at most max of them.  Returns how many. */
uint32_t model_sizes(const struct crash_model *m, uint64_t *sizes, uint32_t max);
/* Builds the state into out, which is reset. */
void model_build(const struct crash_model *m, const struct crash_choice *c, struct mem_image *out);

#endif
