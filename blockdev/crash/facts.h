/* SPDX-License-Identifier: MIT */
/*
 * facts.h - what each sector of a state holds, without building its image.
 *
 * A recording writes few different contents, and a state is a choice among them.  So each content
 * is looked at once, when it is first met; after that a state is, for each sector that pending
 * operations write, the number of a fact, and what is durable for the rest.
 */
#ifndef CRASH_FACTS_H
#define CRASH_FACTS_H

#include "blockdev/crash/model.h"
#include "blockdev/crash/oracle.h"

struct fact {
	uint64_t hash; /* of the content; 0: zeros */
	uint64_t word; /* oracle_word(), or the hash */
};

struct facts {
	const struct crash_model *m;
	/* All begins and ends at sectors, or none of this can be used. */
	bool usable;
	bool hashes;       /* contents do not name their sector: words are hashes */
	struct fact *fact; /* 0 is zeros */
	uint64_t n, room;
	uint32_t *of_op;   /* by host operation: its first sector's fact; 0: not looked at yet */
	uint32_t *durable; /* by sector of the file */
	uint32_t *over;    /* by sector: the fact that the state has instead, and 1; 0: none */
	uint64_t n_sectors;
	uint64_t *touched; /* the sectors that have one */
	uint64_t n_touched;
	uint64_t bytes, size; /* of the state; in sectors, the last may be there in part */
	uint64_t digest;      /* of what is durable */
	uint64_t stamp; /* another one whenever that changes; no two explorers have the same */
};

/* The model stays the caller's; it may have been moved. */
void facts_init(struct facts *f, struct crash_model *m, bool hashes);
void facts_fini(struct facts *f);
/* The model was moved. */
void facts_update(struct facts *f, struct crash_model *m);
/* Makes it the state of this choice. */
void facts_choose(struct facts *f, const struct crash_choice *c);
/* Equal contents in equal files give equal numbers, as mem_digest() does. */
uint64_t facts_digest(const struct facts *f);

/* Does img, which was built by the same choice, hold just that? */
bool facts_agree(const struct facts *f, const struct mem_image *img);

/* A sector's content in one word; 0 is for zeros.  content: aligned to 8. */
uint64_t facts_hash(const void *content);

/* What a fact adds to a digest, at its sector. */
static inline uint64_t fact_at(const struct fact *k, uint64_t sector)
{
	uint64_t x = (k->hash ^ sector * 0x9E3779B97F4A7C15ULL) * 0xD6E8FEB86659FD93ULL;

	return k->hash ? (x ^ x >> 32) * 0x94D049BB133111EBULL : 0;
}

static inline const struct fact *facts_durable(const struct facts *f, uint64_t sector)
{
	return &f->fact[sector < f->n_sectors ? f->durable[sector] : 0];
}

/* What the state has there. */
static inline const struct fact *facts_get(const struct facts *f, uint64_t sector)
{
	if (sector >= f->size || sector >= f->n_sectors)
		return &f->fact[0];
	return &f->fact[f->over[sector] ? f->over[sector] - 1 : f->durable[sector]];
}

#endif
