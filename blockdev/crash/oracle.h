/* SPDX-License-Identifier: MIT */
/*
 * oracle.h - which contents of a guest sector are legal after a power cut.
 *
 * From the guest's log alone, by the text of the specifications (virtio 1.2, 5.2.6; ATA8-ACS,
 * FLUSH CACHE and SET FEATURES).  A write is stable at tick T if it was acknowledged by T and
 *
 *   - the cache was off for all of its life, or it was FUA, or
 *   - a FLUSH, or a change of the cache bit to off, was submitted after that
 *     acknowledgement and succeeded by T.
 *
 * Sluice itself promises more: a write is stable too if the cache was off at either end of its
 * life.
 *
 * A sector may hold what any write submitted by T wrote, unless some stable write was
 * submitted after that one's end; and what it held first, unless any stable write covers it.
 */
#ifndef CRASH_ORACLE_H
#define CRASH_ORACLE_H

#include "blockdev/crash/log.h"
#include "blockdev/crash/memfile.h"

struct oracle {
	const struct crash_log *log;
	uint64_t n_sectors;
	uint32_t *first; /* by sector: index into links, or UINT32_MAX */
	struct oracle_link {
		uint32_t op, next;
		uint64_t word; /* what that operation wrote there */
	} * links;
	uint64_t n_links;
	uint64_t *runs; /* pairs: first sector, how many */
	uint64_t n_runs;
	uint64_t *legal; /* by sector: a word that is known to be legal at this tick */
	/* By sector: what was there at first; NULL: zeros.  With it, words are facts_hash()es. */
	uint64_t *before;
	/*
	 * How many acknowledgements by now made something stable.  While it stays the same, what
	 * was legal stays legal: a later tick only adds writes that may be found.
	 */
	uint64_t promises;
	uint64_t at, horizon; /* writes acknowledged before the horizon are stable */
	bool either;          /* judges by Sluice's own promise; set after oracle_init() */
	bool live;            /* no cut: whatever was acknowledged is what a read must find */
};

/* The log must be complete.  0 or -ENOMEM. */
must_check int oracle_init(struct oracle *o, const struct crash_log *log, uint64_t n_sectors);
/*
 * Contents do not name their sectors: they are known by their hashes, from the data of the log.
 * before: what the disk held when that began, as far as it is long.  0 or -ENOMEM.
 */
must_check int oracle_contents(struct oracle *o, const struct mem_image *before);
void oracle_fini(struct oracle *o);
void oracle_at(struct oracle *o, uint64_t tick);

enum verdict { LEGAL, LOST_DURABLE, STALE, FOREIGN, GARBAGE };
const char *verdict_name(enum verdict v);
/*
 * A sector's content in one word: 0 for zeros, sector << 24 | version for what oracle_fill() makes,
 * ORACLE_GARBAGE for anything else.  content: 512 bytes, aligned to 8.
 */
#define ORACLE_GARBAGE UINT64_MAX
uint64_t oracle_word(const void *content);
/* The same, or its hash, as this oracle knows contents. */
uint64_t oracle_word_of(const struct oracle *o, const void *content);
enum verdict oracle_judge_word(struct oracle *o, uint64_t sector, uint64_t word);
enum verdict oracle_judge(struct oracle *o, uint64_t sector, const void *content);
/* A word that is known to be legal there, not zeros; it may be none. */
static inline uint64_t oracle_legal_word(const struct oracle *o, uint64_t sector)
{
	return o->legal[sector];
}
/* The next run of sectors that were ever written, from *at on; false: there is none. */
bool oracle_next_run(const struct oracle *o, uint64_t *at, uint64_t *n);

/* The content of one sector that names (sector, version); version < 2^24, 0: zeros. */
void oracle_fill(void *buf, uint64_t sector, uint32_t version);

#endif
