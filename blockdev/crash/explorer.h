/* SPDX-License-Identifier: MIT */
/*
 * explorer.h - judges the cuts of an image file by what its guest was promised.
 *
 * A state of the file is met as a user would meet it: opened for writing (which repairs an image
 * that is marked dirty), every sector that the guest ever wrote read and put to the oracle, then
 * checked. Most are judged without that, see memo.h.
 */
#ifndef CRASH_EXPLORER_H
#define CRASH_EXPLORER_H

#include "blockdev/crash/cuts.h"
#include "blockdev/crash/memo.h"
#include "blockdev/crash/roles.h"

/* What was recorded. */
struct subject {
	const struct crash_log *log;    /* both sides */
	const struct mem_image *start;  /* the image file when the log began */
	const struct mem_image *before; /* what the disk held then; NULL: zeros, and contents name
					   their sector and version (oracle_fill()) */
	const char *format;
	/* The file's first bytes are an external data file, the image follows (window.h); 0: not */
	uint64_t data_bytes;
	/*
	 * The file's first bytes are the image at first, and from tick overlaid_at on what lies
	 * below the qcow2 image that follows; 0: not.  If it is raw it has that length, else
	 * at most half.
	 */
	uint64_t below_bytes, overlaid_at;
	uint32_t cluster_size;                /* bytes, of qcow2 */
	uint64_t sectors;                     /* the most that the disk ever had */
	const char *backing, *backing_format; /* NULL: none */
	bool flags_may_lag;                   /* snapshots, in version 2: see judge.c */
	bool either;                          /* see oracle.h */
};

struct explorer_counts {
	/*
	 * States that were judged.  All are distinct: no two of one run agree in what the image
	 * holds and in what the guest was promised.
	 */
	uint64_t states;
	uint64_t tried;   /* chosen; those seen before are not judged again */
	uint64_t in_full; /* of states: opened, read and checked, and not inferred, see memo.h */
	uint64_t leaks, dirty; /* states with leaks; states that were repaired at open */
};

struct explorer {
	struct loop *loop;
	const struct subject *s;
	struct explorer_counts *n;
	struct cuts k;
	struct oracle oracle;
	uint8_t *buf;
	char why[256];   /* what the last judgement found */
	uint64_t sector; /* of the guest, if that was about one; else UINT64_MAX */
	struct roles roles;
	struct memo own_memo, *memo;
	/* The user's, set after explorer_init(). */
	bool in_full;                                /* every state is opened, read and checked */
	void (*report)(void *arg, const char *line); /* of the check; NULL: nobody wants them */
	void (*judged)(struct explorer *e, bool ok); /* the state in hand, by cuts_run() */
	/* Is what else there is to be judged all right?  It may find e->memo unfit; or NULL. */
	bool (*also)(struct explorer *e);
	bool (*first)(struct explorer *e); /* the same before anything has opened the state */
	void *arg;
};

#define EXPLORER_BUF_SECTORS 2048 /* in one read */

/* All stays the caller's.  seed: of cuts that are drawn. */
void explorer_init(struct explorer *e, struct loop *l, const struct subject *s, uint64_t seed,
	struct explorer_counts *n);
/* Like e, but for cuts of another log, which begins at another image. */
void explorer_init_on(struct explorer *in, struct explorer *e, const struct crash_log *log,
	const struct mem_image *start);
void explorer_fini(struct explorer *e);
/* Moves the cut of model and oracle, and fills in what the choices are made from. */
void explorer_at(struct explorer *e, uint64_t tick);
/* Takes e->k.c as the state; false if it was judged before. */
bool explorer_is_new(struct explorer *e);
/* Judges what explorer_is_new() took, in full or from what is known. */
bool explorer_verdict(struct explorer *e);
/* Builds and judges e->k.c, whether it was judged before or not. */
bool explorer_holds(struct explorer *e);
/* e->k.c fails: makes it the smallest that does (cuts_minimise()); why says of what. */
void explorer_minimise(struct explorer *e);

/* judge.c: does e->k.state keep the contract?  If not e->why says why.  Uses the state up. */
bool explorer_judge(struct explorer *e);
/* The same, noting in e->memo what it came from; known: what was noted before, must agree. */
bool explorer_judge_noting(struct explorer *e, const struct memo_leaf *known);
/* The guest's data where the leaf says it lies, by e->k.facts alone. */
bool explorer_judge_data(struct explorer *e, const struct memo_leaf *l);
bool explorer_dirty(const struct explorer *e, const struct mem_image *m);
/* Does the image at the cut lie over another one in the same file? */
bool explorer_overlaid(const struct explorer *e);

#endif
