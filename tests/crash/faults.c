/* SPDX-License-Identifier: MIT */
/*
 * faults.c - the host fails: every n-th operation, each kind, each way, to the end of the run.
 *
 * What must hold then: the run ends (no hang, no crash); a read returns what was acknowledged, or
 * what a failed write may have left; whatever the guest was told is durable survives the cuts after
 * the failure; the image checks without errors.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/file/fault.h"
#include "tests/crash/explore.h"

struct way {
	const char *name;
	enum file_op op;
	int err;
	bool for_good;
	uint64_t partly;
};

static const struct way ways[] = {
	{"write EIO once", FILE_WRITE, -EIO, false, 0},
	{"write EIO for good", FILE_WRITE, -EIO, true, 0},
	{"write ENOSPC for good", FILE_WRITE, -ENOSPC, true, 0},
	{"write cut short", FILE_WRITE, -EIO, false, 512},
	{"fdatasync EIO once", FILE_FDATASYNC, -EIO, false, 0},
	{"fdatasync EIO for good", FILE_FDATASYNC, -EIO, true, 0},
	{"read EIO once", FILE_READ, -EIO, false, 0},
	{"read EIO for good", FILE_READ, -EIO, true, 0},
	{"fallocate ENOSPC once", FILE_EXTEND, -ENOSPC, false, 0},
	{"fallocate ENOSPC for good", FILE_EXTEND, -ENOSPC, true, 0},
	{"truncate EIO once", FILE_TRUNCATE, -EIO, false, 0},
};

#define CUT_STATES 12 /* after each failure */

struct look {
	struct fault_rule *rule;
	struct run_log *r;
	char why[128];
};

/* What the guest reads now, on a host that works again. */
static int look_at(struct disk *d, void *arg)
{
	struct look *k = arg;
	struct oracle o;
	uint64_t at = 0, n;
	uint8_t *buf = malloc(128 * SECTOR);

	fault_remove(k->rule);
	if (oracle_init(&o, &k->r->log, max_u64(k->r->row->create.size, k->r->row->grow) / SECTOR))
		abort();
	oracle_at(&o, k->r->log.clock);
	o.live = true;
	for (; oracle_next_run(&o, &at, &n); at += n) {
		n = min_u64(n, 128);
		if (at + n > disk_size(d) / SECTOR)
			break; /* it failed to grow */
		if (disk_pread(d, buf, n * SECTOR, at * SECTOR)) {
			/* No table can be evicted any more, so some cannot be read. */
			if (k->rule->ops == FAULT_ON(FILE_FDATASYNC))
				break;
			snprintf(k->why, sizeof(k->why), "sector %" PRIu64 " cannot be read", at);
			break;
		}
		for (uint64_t s = 0; s < n; s++) {
			enum verdict v = oracle_judge(&o, at + s, buf + s * SECTOR);

			if (v != LEGAL)
				snprintf(k->why, sizeof(k->why), "sector %" PRIu64 " reads: %s",
					at + s, verdict_name(v));
		}
	}
	oracle_fini(&o);
	free(buf);
	return 0;
}

/* true if the failure came to pass. */
static bool one_fault(struct loop *l, const struct row *row, uint64_t seed, const struct way *w,
	uint64_t nth, struct tally *t)
{
	struct fault_rule rule = {.ops = FAULT_ON(w->op),
		.nth = nth,
		.and_all_after = w->for_good,
		.err = w->err,
		.partly = w->partly};
	struct explore_opts o = {.states = CUT_STATES};
	uint64_t before = t->violations;
	struct run_log r;
	struct look k = {.rule = &rule, .r = &r};

	workload_run_faulty(l, row, seed, &rule, look_at, &k, &r);
	if (k.why[0]) {
		t->violations++;
		printf("VIOLATION %s: %s\n", row->name, k.why);
	}
	explore(l, &r, &o, t);
	if (t->violations > before)
		printf("  after fault: row '%s' seed %" PRIu64 ", %s, operation %" PRIu64 "\n",
			row->name, seed, w->name, nth);
	workload_free(&r);
	t->faults += rule.failed > 0;
	return rule.failed > 0;
}

void explore_faults(
	struct loop *l, const struct row *row, uint64_t seed, unsigned step, struct tally *t)
{
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++)
		for (uint64_t nth = 1 + seed % step; one_fault(l, row, seed, &ways[i], nth, t);)
			nth += step;
}
