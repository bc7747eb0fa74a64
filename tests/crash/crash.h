/* SPDX-License-Identifier: MIT */
/*
 * crash.h - the crash explorer of the block layer: rows, workloads, exploration.
 */
#ifndef TESTS_CRASH_H
#define TESTS_CRASH_H

#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/explorer.h"
#include "blockdev/qcow2/format.h"

/* One configuration.  A feature joins the explorer by adding rows to rows.c. */
struct row {
	const char *name;
	const char *format;
	struct qcow2_create_opts create; /* .size also for raw */
	enum cache_mode mode;
	unsigned depth;
	unsigned span; /* sectors that the work touches, from the start and from the middle */
	unsigned max;  /* sectors of one request */
	unsigned ops;  /* guest requests in one run */
	unsigned flush, fua, flip; /* out of 100 requests */
	unsigned zero, discard;    /* too; half of the zeros may unmap */
	unsigned pack;             /* too; compressed, whole clusters */
	unsigned snapshot;         /* too, with depth 1: created, applied, deleted */
	unsigned bitmaps;          /* too, with depth 1: changed; and two clean closes */
	unsigned upkeep;           /* too, with depth 1: what an image tool does, see upkeep.h */
	bool below;                /* over a backing file */
	bool overlay; /* half way a new image on top, under the requests in flight */
	/* Every so many requests, under those in flight: a snapshot made or deleted; a new size. */
	unsigned live_snapshot, live_resize;
	bool reopen;               /* clean close and reopen half way */
	bool cut;                  /* a power cut half way; work goes on with what it left */
	uint64_t grow; /* bytes that the disk grows to while it is worked on; 0: it does not */
	bool tiny;     /* metadata caches of the smallest size */
	unsigned junk; /* free clusters, not empty, at the end of the new image */
	unsigned dear; /* states cost this many times the usual: that many fewer; 0 is 1 */
};
static inline bool row_snapshots(const struct row *row)
{
	return row->snapshot || row->live_snapshot;
}
/* Of the file that is recorded, the first so many are the data file, see window.h. */
static inline uint64_t row_data_bytes(const struct row *row)
{
	return row->create.data_file ? row->create.size : 0;
}
/* The same for the image that an overlay is put over: twice what it may become. */
static inline uint64_t row_below_bytes(const struct row *row)
{
	bool raw = !strcmp(row->format, "raw");

	return !row->overlay ? 0 : raw ? row->create.size : row->create.size * 4 + 64 * MiB;
}
#define BELOW_SECTORS 1536u
/* Of the backing file that all such rows share; made when first asked for. */
const char *below_path(const struct row *row);
/* What the sector holds there: version 1 or zeros. */
uint32_t below_version(const struct row *row, uint64_t sector);

extern const struct row rows[];
extern const unsigned n_rows;

/* One run of a row's workload, recorded. */
struct run_log {
	const struct row *row;
	uint64_t seed;
	struct mem_image start, live;
	struct crash_log log;
	uint64_t reopened_at; /* tick; 0: it was not */
	uint64_t overlay_began, overlaid_at; /* ticks; overlaid_at NEVER: it was not */
	uint64_t below_size;  /* bytes of what is below it, at the start */
	struct crash_snapshot *snapshots; /* all that there ever were, see snapshots.h */
	uint32_t n_snapshots;
	struct crash_close *closes; /* of rows with bitmaps, see bitmaps.h */
	unsigned n_closes;
	bool bitmaps_unknown; /* on a host that fails */
	struct backing_name *names; /* that the image was given, in turn, see upkeep.h */
	uint32_t n_names;
	struct disk_stats stats; /* of the last disk that was open */
};
/* Asserts that everything succeeds; the disk is abandoned at the end, as by a cut. */
void workload_run(struct loop *l, const struct row *row, uint64_t seed, struct run_log *out);
/*
 * The same on a host that fails as the rule says; requests may fail. At the end, before the disk is
 * abandoned, look() is called in a fiber with it (not if it did not open).
 */
struct fault_rule;
void workload_run_faulty(struct loop *l, const struct row *row, uint64_t seed,
	struct fault_rule *rule, int (*look)(struct disk *d, void *arg), void *arg,
	struct run_log *out);
void workload_free(struct run_log *r);
/* Half way: what the log means once somebody else has opened what a failing host has left. */
void faults_reopen(struct run_log *r, const struct fault_rule *rule, bool closed);

struct tally {
	struct explorer_counts n;
	uint64_t situations, exhausted; /* exhausted: every subset of pending writes was judged */
	uint64_t violations;
	uint64_t repairs, second; /* repairs that were cut; states which that left */
	uint64_t qemu_judged;
	uint64_t cpu_ns; /* spent on states and tried ones */
	uint64_t faults, fault_states; /* host failures injected; states judged after them */
};

struct explore_opts {
	uint64_t states;     /* about how many for this run */
	uint64_t qemu_every; /* let qemu-img check judge one state in so many; 0: none */
	const char *scratch; /* file for that */
	const char *keep;    /* file to which cases are added; NULL: none */
	uint32_t tear;       /* bytes of a piece of a torn write; 0: a sector */
	struct seen *seen;   /* NULL: starts with none */
	bool exhaustive;     /* where few writes are pending, states or not; see cuts.h */
	bool in_full;        /* every state is opened, read and checked */
	bool verbose;
};
void explore(
	struct loop *l, const struct run_log *r, const struct explore_opts *o, struct tally *t);
/*
 * Cuts during the repair at open: up to first dirty states of the run, and for each of them second
 * states that a cut of its repair leaves.  All must be repairable, with no leak left.
 */
void explore_repair(struct loop *l, const struct run_log *r, const struct explore_opts *o,
	uint64_t first, uint64_t second, struct tally *t);
/*
 * Single failures of the host: every n-th operation of each kind, step apart, failing in each way;
 * the run goes on to its end, reads are judged, and the cuts after it.
 */
void explore_faults(
	struct loop *l, const struct row *row, uint64_t seed, unsigned step, struct tally *t);
/* One state again: "TICK:SIZE:TEAR:REV:FATES".  Prints the verdict; false: a violation. */
bool explore_one(
	struct loop *l, const struct run_log *r, const struct explore_opts *o, const char *spec);

/* A state that once failed, see cases.c. */
struct crash_case {
	struct crash_case *next;
	char *row, *state, *what;
	uint64_t seed;
	unsigned line;
};
/* 0 or -errno, with a line on stderr.  The caller never frees: they are needed to the end. */
must_check int cases_read(const char *path, struct crash_case **out);
/* Prints a line; false: it fails, or it is stale. */
bool case_replay(struct loop *l, const struct crash_case *c, struct tally *t);

#endif
