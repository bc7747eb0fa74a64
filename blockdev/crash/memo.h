/* SPDX-License-Identifier: MIT */
/*
 * memo.h - verdicts that follow from earlier ones.
 *
 * Opening an image (repair included), mapping and checking it is a function of what is read
 * meanwhile and of the file's length: nothing else goes in, neither time nor chance.  So when a
 * state was judged in full, and another one agrees with it in length and in every sector that was
 * read, all of that would come out the same; only the guest's data, which nobody has read for it,
 * must be judged anew, and where it lies is known.
 *
 * A set is the sectors that were read; a leaf is what came of one content of them.
 */
#ifndef CRASH_MEMO_H
#define CRASH_MEMO_H

#include "blockdev/crash/facts.h"

#define MEMO_ZEROS UINT64_MAX
#define MEMO_SETS  16

struct memo_run {
	uint64_t guest, host, n; /* sectors; host may be MEMO_ZEROS */
};

/* What came of opening, mapping and checking; it was all right, or it would not be kept. */
struct memo_leaf {
	uint64_t key;
	struct memo_leaf *next;
	bool dirty, leaks;
	uint32_t n_runs;
	struct memo_run run[]; /* all sectors ever written, in the guest's order */
};

struct memo_set;
struct memo {
	struct memo_set *set[MEMO_SETS]; /* the last one that was of use first */
	unsigned n_sets;
	struct memo_leaf **bucket;
	uint64_t bytes;
	/* of the state that is being judged in full */
	uint8_t *mark; /* by sector: bits MEMO_READ, MEMO_WRITTEN */
	uint64_t n_mark;
	uint64_t *noted; /* sectors with a mark */
	uint64_t n_noted, room_noted;
	struct memo_run *run;
	uint64_t n_runs, room_runs;
	bool unfit; /* unfit: something that this scheme does not know */
};

void memo_init(struct memo *m);
void memo_fini(struct memo *m);
/* NULL: none is known. */
const struct memo_leaf *memo_find(struct memo *m, const struct facts *f);

/* Nothing is noted yet. */
void memo_begin(struct memo *m);
/* From here on what is read of img, and written, is noted. */
void memo_watch(struct memo *m, struct mem_image *img);
void memo_unwatch(struct mem_image *img);
/* n sectors of the guest from guest on lie at host. */
void memo_map(struct memo *m, uint64_t guest, uint64_t host, uint64_t n);
/* All that was noted, as a leaf; nothing is kept if it would not hold for other states. */
void memo_keep(struct memo *m, const struct facts *f, bool dirty, bool leaks);
/* Does what was noted agree with this leaf? */
bool memo_same(const struct memo *m, const struct memo_leaf *l, bool dirty, bool leaks);

#endif
