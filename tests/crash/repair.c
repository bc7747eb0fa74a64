/* SPDX-License-Identifier: MIT */
/*
 * repair.c - the power fails again while the image is being repaired.
 *
 * A dirty state of a run is opened with its host operations recorded; that recording is cut
 * like any other, and what it leaves is judged by the same oracle, at the tick of the first
 * cut: the guest has seen nothing since.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include "blockdev/crash/window.h"
#include "tests/crash/explore.h"

/* Without an overlay that is not in use.  Only what lies below one is lazy in any row. */
static bool image_of(struct explorer *e, struct file **f)
{
	struct file *over;

	if (!e->s->below_bytes)
		return true;
	assert(!explorer_overlaid(e));
	if (window_pair(*f, e->s->below_bytes, f, &over))
		return false;
	file_close(over);
	window_grows(*f, e->s->below_bytes / 2);
	return true;
}

/* Opens a copy of the first state, which repairs it; what that did to the host goes to log. */
static bool record_repair(struct explorer *e, const struct mem_image *first, struct crash_log *log)
{
	struct disk_opts o = {.format = work_of(e)->r->row->format};
	struct mem_image copy;
	struct file *f, *t;
	struct disk *d;
	bool ok = false;

	mem_init(&copy);
	mem_reset(&copy, first);
	if (!memfile_open(e->loop, &copy, rng_next(&e->k.rng), &f) && !trace_open(f, log, &t) &&
		image_of(e, &t) && !disk_open_file(t, &o, &d, NULL)) {
		disk_abandon(d);
		ok = true;
	}
	mem_fini(&copy);
	return ok;
}

/* in: an explorer of its own, whose model is one of the repair. */
static void one_second_cut(struct explorer *in, uint64_t first_at)
{
	cuts_random(&in->k);
	work_of(in)->t->second++;
	if (!explorer_is_new(in) || explorer_verdict(in))
		return;
	work_of(in)->t->violations++;
	printf("VIOLATION %s seed %" PRIu64 ": cut at %" PRIu64 ", then at %" PRIu64
	       " of its repair: %s\n",
		work_of(in)->r->row->name, work_of(in)->r->seed, first_at, in->k.model.at, in->why);
}

static void second_cuts(struct explorer *e, const struct mem_image *first, uint64_t n)
{
	uint64_t n_ticks, *ticks;
	struct crash_log log;
	struct explorer in;

	crash_log_init(&log);
	if (!record_repair(e, first, &log)) {
		work_of(e)->t->violations++;
		printf("VIOLATION %s: a repair failed\n", work_of(e)->r->row->name);
		crash_log_fini(&log);
		return;
	}
	ticks = cuts_ticks(&log, &n_ticks);
	explorer_init_on(&in, e, &log, first);
	oracle_at(&in.oracle, e->k.model.at);
	in.k.promises = in.oracle.promises;
	for (uint64_t i = 0; i < n_ticks; i++) {
		model_advance(&in.k.model, ticks[i]);
		cuts_situation(&in.k);
		for (uint64_t k = n * i / n_ticks; k < n * (i + 1) / n_ticks; k++)
			one_second_cut(&in, e->k.model.at);
	}
	explorer_fini(&in);
	free(ticks);
	crash_log_fini(&log);
}

void explore_repair(struct loop *l, const struct run_log *r, const struct explore_opts *o,
	uint64_t first, uint64_t second, struct tally *t)
{
	struct mem_image state;
	uint64_t n, *ticks = cuts_ticks(&r->log, &n), done = 0;
	struct work w;
	struct explorer *e = &w.e;

	work_init(&w, l, r, o, t);
	mem_init(&state);
	for (uint64_t i = 0; i < n && done < first; i++) {
		/* Spread over the run; each situation once. */
		if (rng_next(&e->k.rng) % (n - i) >= first - done)
			continue;
		explorer_at(e, ticks[i]);
		cuts_random(&e->k);
		model_build(&e->k.model, &e->k.c, &state);
		if (!explorer_dirty(e, &state))
			continue;
		t->repairs++;
		second_cuts(e, &state, second);
		done++;
	}
	mem_fini(&state);
	work_fini(&w);
	free(ticks);
}
