/* SPDX-License-Identifier: MIT */
/*
 * faults.c - the host fails: every n-th operation, each kind, each way, to the end of the run.
 *
 * What must hold then: the run ends (no hang, no crash); a read returns what was acknowledged, or
 * what a failed write may have left, and does so although the host may take no write any more;
 * nothing is called durable after a failed fdatasync; whatever the guest was told is durable
 * survives the cuts after the failure; the image checks without errors.
 *
 * Short reads and short writes of the host end in the engine (tests/unit/test_file_engine.c); what
 * is left to fail here is a write that was carried out in part.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
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
	{"write ENOSPC once", FILE_WRITE, -ENOSPC, false, 0},
	{"write ENOSPC for good", FILE_WRITE, -ENOSPC, true, 0},
	{"write cut short", FILE_WRITE, -EIO, false, 512},
	{"write cut short, ENOSPC for good", FILE_WRITE, -ENOSPC, true, 512},
	{"fdatasync EIO once", FILE_FDATASYNC, -EIO, false, 0},
	{"fdatasync EIO for good", FILE_FDATASYNC, -EIO, true, 0},
	{"fdatasync ENOSPC once", FILE_FDATASYNC, -ENOSPC, false, 0},
	{"read EIO once", FILE_READ, -EIO, false, 0},
	{"read EIO for good", FILE_READ, -EIO, true, 0},
	{"fallocate ENOSPC once", FILE_EXTEND, -ENOSPC, false, 0},
	{"fallocate ENOSPC for good", FILE_EXTEND, -ENOSPC, true, 0},
	{"fallocate EIO once", FILE_EXTEND, -EIO, false, 0},
	{"truncate EIO once", FILE_TRUNCATE, -EIO, false, 0},
	{"truncate EIO for good", FILE_TRUNCATE, -EIO, true, 0},
};

#define CUTS         2  /* situations after each failure */
#define STATES       4  /* of one situation */
#define HANG_SECONDS 60 /* one run takes milliseconds */

/* ---- what must hold while the disk is still open ---- */

struct look {
	struct fault_rule *rule;
	struct run_log *r;
	char why[128];
};

/* What the guest reads now; only a host that cannot read may keep it from doing so. */
static int look_at(struct disk *d, void *arg)
{
	struct look *k = arg;
	struct oracle o;
	uint64_t at = 0, n;
	uint8_t *buf = malloc(128 * SECTOR);

	if (k->rule->ops == FAULT_ON(FILE_READ))
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

static bool promises(const struct guest_op *g)
{
	if (g->kind == GUEST_WRITE)
		return g->fua || !g->wce_at_submit || !g->wce_at_end;
	return g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF;
}

static void keep_promises_only(struct crash_log *log)
{
	uint64_t horizon = 0;

	for (uint64_t i = 0; i < log->n_guest; i++) {
		const struct guest_op *g = &log->guest[i];

		if ((g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF) && !g->err)
			horizon = max_u64(horizon, g->submitted);
	}
	for (uint64_t i = 0; i < log->n_guest; i++) {
		struct guest_op *g = &log->guest[i];

		if (g->kind == GUEST_WRITE && !promises(g) && g->acknowledged >= horizon)
			g->err = -EIO;
	}
}

/* ---- what the log must say ---- */

void faults_reopen(struct run_log *r, const struct fault_rule *rule, bool closed)
{
	r->reopened_at = r->log.clock;
	/* Not closed: the user was told.  What no flush covered is not promised any more. */
	if (!closed)
		keep_promises_only(&r->log);
	/*
	 * Nobody knows how much of a failed write was done, until somebody reads it.  We are going
	 * to, and what is there now will not turn into something else.
	 */
	for (uint64_t i = 0; rule && i < r->log.n_host; i++) {
		struct host_op *o = &r->log.host[i];

		if (!o->err || o->op == FILE_FDATASYNC)
			continue;
		o->len = o->op == FILE_WRITE ? min_u64(rule->partly, o->len) : 0;
		o->off = o->op == FILE_WRITE ? o->off : 0;
		o->op = FILE_WRITE;
		o->err = 0;
	}
}

/*
 * Of an overlay that came to nothing; or of what is below one, when that was closed and all that
 * was promised there was durable.
 */
static bool nothing_hangs_on(const struct run_log *r, const struct host_op *o)
{
	bool below = o->off < row_below_bytes(r->row);

	if (r->overlaid_at == NEVER)
		return r->row->overlay && !below;
	return below && o->submitted > r->overlay_began && o->completed <= r->overlaid_at;
}

/* R9: from a failed fdatasync on, until the disk is opened anew, nothing is promised. */
static void promises_after_failed_sync(struct run_log *r, char *why, size_t room)
{
	uint64_t failed = NEVER, until = NEVER;

	for (uint64_t i = 0; i < r->log.n_host; i++) {
		const struct host_op *o = &r->log.host[i];

		if (o->op == FILE_FDATASYNC && o->err && o->completed < failed &&
			!nothing_hangs_on(r, o))
			failed = o->completed;
	}
	if (failed <= r->reopened_at)
		until = r->reopened_at;
	for (uint64_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];

		if (g->submitted > failed && g->submitted < until && !g->err && promises(g))
			snprintf(why, room,
				"promise %" PRIu64 " kept after a failed fdatasync at %" PRIu64 "",
				g->submitted, failed);
	}
}

/* The tick from which on the run is not the one that other tests know. */
static uint64_t first_failure(const struct crash_log *log)
{
	uint64_t at = NEVER;

	for (uint64_t i = 0; i < log->n_host; i++)
		if (log->host[i].err)
			at = min_u64(at, log->host[i].submitted);
	for (uint64_t i = 0; i < log->n_guest; i++)
		if (log->guest[i].err)
			at = min_u64(at, log->guest[i].submitted);
	return at == NEVER ? 0 : at;
}

/* ---- the cuts ---- */

static void one_cut(struct explorer *e, uint64_t tick, bool extreme, char *why, size_t room)
{
	uint32_t n = e->k.model.n_pending;

	cuts_random(&e->k);
	if (extreme) {
		memset(e->k.c.fate, rng_next(&e->k.rng) & 1 ? FATE_WHOLE : FATE_LOST, n);
		e->k.c.size = e->k.sizes[e->k.c.fate[0] == FATE_WHOLE ? e->k.n_sizes - 1 : 0];
	}
	model_build(&e->k.model, &e->k.c, &e->k.state);
	e->n->states++;
	if (explorer_judge(e))
		return;
	work_of(e)->t->violations++;
	snprintf(why, room, "cut at tick %" PRIu64 ": %s", tick, e->why);
}

/* A few situations from the failure on, the last one always. */
static void cuts(struct loop *l, const struct run_log *r, uint64_t salt, struct tally *t, char *why,
	size_t room)
{
	uint64_t n, from = 0, *ticks = cuts_ticks(&r->log, &n);
	uint64_t fail = first_failure(&r->log), left = CUTS;
	struct explore_opts o = {0};
	struct work w;
	struct explorer *e = &w.e;

	work_init(&w, l, r, &o, t);
	e->k.rng ^= salt * 0x9E3779B97F4A7C15ULL;
	while (from + 1 < n && ticks[from] < fail)
		from++;
	for (uint64_t i = from; i < n && left; i++) {
		if (i + 1 < n && rng_next(&e->k.rng) % (n - i) >= left)
			continue;
		left--;
		model_advance(&e->k.model, ticks[i]);
		oracle_at(&e->oracle, ticks[i]);
		e->k.n_sizes = model_sizes(&e->k.model, e->k.sizes, CUT_SIZES);
		t->situations++;
		for (int k = 0; k < STATES; k++)
			one_cut(e, ticks[i], k < STATES / 2, why, room);
	}
	work_fini(&w);
	free(ticks);
}

/* ---- one failure ---- */

static char now[256]; /* what is being tried, for the alarm */
static volatile sig_atomic_t seconds_left;

/* Once a second: a process that was stopped for a minute does not hang. */
static void hung(int sig)
{
	static const char words[] = "VIOLATION it hangs: ";

	if (--seconds_left > 0) {
		alarm(1);
		return;
	}
	(void)!write(STDOUT_FILENO, words, sizeof(words) - 1);
	(void)!write(STDOUT_FILENO, now, strlen(now));
	(void)!write(STDOUT_FILENO, "\n", 1);
	_exit(1);
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
	char why[400] = "";
	struct run_log r;
	struct look k = {.rule = &rule, .r = &r};

	snprintf(now, sizeof(now), "row '%s' seed %" PRIu64 ", %s, operation %" PRIu64, row->name,
		seed, w->name, nth);
	seconds_left = HANG_SECONDS;
	alarm(1);
	workload_run_faulty(l, row, seed, &rule, look_at, &k, &r);
	if (rule.failed) {
		promises_after_failed_sync(&r, k.why, sizeof(k.why));
		cuts(l, &r, nth, t, why, sizeof(why));
	}
	alarm(0);
	t->violations += k.why[0] != 0;
	if (k.why[0] || why[0])
		printf("VIOLATION %s%s%s\n  after fault: %s\n", k.why,
			k.why[0] && why[0] ? "; " : "", why, now);
	workload_free(&r);
	t->faults += rule.failed > 0;
	return rule.failed > 0;
}

void explore_faults(
	struct loop *l, const struct row *row, uint64_t seed, unsigned step, struct tally *t)
{
	signal(SIGALRM, hung);
	fflush(stdout);
	for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
		uint64_t rng = seed * 64 + i, nth = 1 + rng_next(&rng) % step;

		while (one_fault(l, row, seed, &ways[i], nth, t))
			nth += step;
	}
}
