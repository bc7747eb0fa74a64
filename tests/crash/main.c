/* SPDX-License-Identifier: MIT */
/*
 * main.c - the crash explorer's command line.
 *
 *   crash [--states N] [--seeds N] [--row NAME] [--repairs N] [--faults STEP] [--until-caught]
 * [--qemu DIR] explore crash --row NAME --seed S --state SPEC                      one state again
 *
 * Prints a line per row: states, what they cost in flushes and bytes, violations.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/crash.h"

struct args {
	uint64_t states, seeds, seed, repairs, faults;
	const char *row, *state, *qemu;
	bool until_caught; /* end with the first row that fails */
};

static int usage(void)
{
	fprintf(stderr, "usage: crash [--states N] [--seeds N] [--row NAME] [--repairs N] "
			"[--faults STEP] [--until-caught] [--qemu DIR]\n"
			"       crash --row NAME --seed S --state SPEC\n");
	return 2;
}

static int parse(int argc, char **argv, struct args *a)
{
	static const struct option opts[] = {{"states", 1, NULL, 'n'}, {"seeds", 1, NULL, 's'},
		{"row", 1, NULL, 'r'}, {"seed", 1, NULL, 'S'}, {"state", 1, NULL, 'x'},
		{"qemu", 1, NULL, 'q'}, {"repairs", 1, NULL, 'R'}, {"until-caught", 0, NULL, 'u'},
		{"faults", 1, NULL, 'F'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 'n':
			a->states = strtoull(optarg, NULL, 0);
			break;
		case 's':
			a->seeds = strtoull(optarg, NULL, 0);
			break;
		case 'S':
			a->seed = strtoull(optarg, NULL, 0);
			break;
		case 'u':
			a->until_caught = true;
			break;
		case 'F':
			a->faults = strtoull(optarg, NULL, 0);
			break;
		case 'R':
			a->repairs = strtoull(optarg, NULL, 0);
			break;
		case 'r':
			a->row = optarg;
			break;
		case 'x':
			a->state = optarg;
			break;
		case 'q':
			a->qemu = optarg;
			break;
		default:
			return usage();
		}
	}
	return 0;
}

static void do_row(struct loop *l, const struct row *row, const struct args *a, struct tally *sum)
{
	struct tally t = {0};
	uint64_t writes = 0, syncs = 0, meta = 0, ns = loop_now_ns();

	for (uint64_t s = 1; s <= a->seeds; s++) {
		struct explore_opts o = {
			.states = a->states / n_rows / a->seeds / (row->dear ? row->dear : 1),
			.qemu_every = a->qemu ? 200 : 0,
			.scratch = a->qemu};
		struct run_log r;

		workload_run(l, row, s, &r);
		explore(l, &r, &o, &t);
		if (a->repairs && row->create.lazy_refcounts)
			explore_repair(l, &r, a->repairs, a->repairs, &t);
		writes += r.stats.writes;
		syncs += r.stats.host_fdatasyncs;
		meta += r.stats.metadata_bytes;
		workload_free(&r);
		if (a->faults)
			explore_faults(l, row, s, (unsigned)a->faults, &t);
	}
	ns = loop_now_ns() - ns;
	printf("%s %s: %" PRIu64 " states (%" PRIu64 " leak, %" PRIu64 " repaired, %" PRIu64
	       " judged by qemu-img, %" PRIu64
	       " host failures), %.0f/s; a write costs %.2f fdatasyncs, %" PRIu64
	       " metadata bytes; %" PRIu64 " violations\n",
		t.violations ? "FAIL" : "ok", row->name, t.states, t.leaks, t.dirty, t.qemu_judged,
		t.faults, (double)t.states * 1e9 / (double)ns,
		writes ? (double)syncs / (double)writes : 0.0, writes ? meta / writes : 0,
		t.violations);
	fflush(stdout);
	sum->states += t.states;
	sum->violations += t.violations;
}

int main(int argc, char **argv)
{
	struct args a = {.states = 26000, .seeds = 2, .seed = 1, .faults = 89};
	struct tally sum = {0};
	struct loop *l;
	bool any = false;

	if (parse(argc, argv, &a))
		return 2;
	log_level_set(LOG_ERROR);
	if (loop_new(LOOP_AIO_AUTO, &l) || fiber_pool_init(l))
		return 1;
	for (unsigned i = 0; i < n_rows; i++) {
		if (a.row && strcmp(a.row, rows[i].name))
			continue;
		any = true;
		if (a.state) {
			struct run_log r;
			bool ok;

			workload_run(l, &rows[i], a.seed, &r);
			ok = explore_one(l, &r, a.state);
			workload_free(&r);
			return ok ? 0 : 1;
		}
		do_row(l, &rows[i], &a, &sum);
		if (a.until_caught && sum.violations)
			break;
	}
	loop_free(l);
	if (!any)
		return usage();
	printf("%" PRIu64 " states, %" PRIu64 " violations\n", sum.states, sum.violations);
	return sum.violations ? 1 : 0;
}
