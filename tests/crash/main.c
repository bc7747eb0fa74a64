/* SPDX-License-Identifier: MIT */
/*
 * main.c - the crash explorer's command line; see usage().
 *
 * First the states that once failed (cases.c), then a line per row: how many distinct states were
 * judged, how fast, what the safety costs in flushes and bytes, violations.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "blockdev/crash/jobs.h"
#include "tests/crash/crash.h"

#define CASES      "tests/crash/cases/found"
#define QEMU_EVERY 500

struct args {
	uint64_t states, seeds, seed, repairs, faults, jobs;
	const char *row, *state, *qemu, *cases, *keep;
	uint32_t tear;
	bool no_cases, until_caught, exhaustive, in_full;
	/* made from these */
	struct crash_case *first_case;
	const struct row **rows;
	unsigned n_rows, n_tasks;
	bool with_cases; /* as the first task */
};

static int usage(FILE *to)
{
	fprintf(to,
		"usage: crash [OPTION...]                        explore all rows\n"
		"       crash --row NAME --seed S --state SPEC   one state again, as it was said\n"
		"  --states N      distinct states to judge, in all (30000)\n"
		"  --exhaustive    besides, in the first recording, every subset of the pending\n"
		"                  writes where they are 12 at most\n"
		"  --seeds N       recordings of each row (2)\n"
		"  --row NAME      only this one\n"
		"  --tear BYTES    what a torn write consists of: 512 (default) or 4096\n"
		"  --repairs N     cut N repairs of each row that needs some, N times each\n"
		"  --faults STEP   let every STEP-th operation of the host fail, each way (89);\n"
		"                  0: none\n"
		"  --qemu DIR      one state in %d is written there and judged by qemu-img too\n"
		"  --cases FILE    states that failed once, tried first (" CASES ")\n"
		"  --no-cases      do not\n"
		"  --keep FILE     add a case for each violation\n"
		"  --in-full       open, read and check each state, also where the verdict\n"
		"                  follows from an earlier one; one in 64 of those anyway\n"
		"  --until-caught  end with the first row that fails\n"
		"  --jobs N        rows at once (as many as there are processors)\n",
		QEMU_EVERY);
	return to == stdout ? 0 : 2;
}

static bool number(const char *s, uint64_t *out)
{
	char *end;

	*out = strtoull(s, &end, 0);
	return *s && !*end;
}

enum { OPT_STATES, OPT_SEEDS, OPT_SEED, OPT_REPAIRS, OPT_FAULTS, OPT_JOBS, OPT_TEAR, OPT_ROW,
	OPT_STATE, OPT_QEMU, OPT_CASES, OPT_KEEP, OPT_NO_CASES, OPT_UNTIL_CAUGHT,
	OPT_EXHAUSTIVE, OPT_IN_FULL, OPT_HELP };

static const struct option opts[] = {{"states", 1, NULL, OPT_STATES},
	{"seeds", 1, NULL, OPT_SEEDS}, {"seed", 1, NULL, OPT_SEED},
	{"repairs", 1, NULL, OPT_REPAIRS}, {"faults", 1, NULL, OPT_FAULTS},
	{"jobs", 1, NULL, OPT_JOBS}, {"tear", 1, NULL, OPT_TEAR}, {"row", 1, NULL, OPT_ROW},
	{"state", 1, NULL, OPT_STATE}, {"qemu", 1, NULL, OPT_QEMU}, {"cases", 1, NULL, OPT_CASES},
	{"keep", 1, NULL, OPT_KEEP}, {"no-cases", 0, NULL, OPT_NO_CASES},
	{"until-caught", 0, NULL, OPT_UNTIL_CAUGHT}, {"exhaustive", 0, NULL, OPT_EXHAUSTIVE},
	{"in-full", 0, NULL, OPT_IN_FULL},
	{"help", 0, NULL, OPT_HELP}, {NULL, 0, NULL, 0}};

static int parse(int argc, char **argv, struct args *a)
{
	uint64_t tear = SECTOR;
	uint64_t *numbers[] = {&a->states, &a->seeds, &a->seed, &a->repairs, &a->faults, &a->jobs,
		&tear};
	const char **words[] = {&a->row, &a->state, &a->qemu, &a->cases, &a->keep};
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		if (c == OPT_NO_CASES)
			a->no_cases = true;
		else if (c == OPT_UNTIL_CAUGHT)
			a->until_caught = true;
		else if (c == OPT_EXHAUSTIVE)
			a->exhaustive = true;
		else if (c == OPT_IN_FULL)
			a->in_full = true;
		else if (c == OPT_HELP)
			exit(usage(stdout));
		else if (c == '?' || (c <= OPT_TEAR && !number(optarg, numbers[c])))
			return usage(stderr);
		else if (c >= OPT_ROW)
			*words[c - OPT_ROW] = optarg;
	}
	a->tear = (uint32_t)tear;
	if ((tear != SECTOR && tear != 4096) || !a->seeds || !a->jobs || optind < argc ||
		(a->state && !a->row))
		return usage(stderr);
	return 0;
}

static uint64_t dear(const struct row *row)
{
	return row->dear ? row->dear : 1;
}

/* The states of one recording: all the same, but for rows whose states are dear. */
static uint64_t share(const struct args *a, const struct row *row)
{
	double all = 0;

	for (unsigned i = 0; i < a->n_rows; i++)
		all += 1.0 / (double)dear(a->rows[i]);
	if (!a->states)
		return 0;
	return (uint64_t)((double)a->states / all / (double)dear(row) / (double)a->seeds) + 1;
}

static double cpu_seconds(void)
{
	struct timespec t;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double per_core(const struct tally *t)
{
	return t->cpu_ns ? (double)t->n.states * 1e9 / (double)t->cpu_ns : 0;
}

static void print_row(const struct row *row, const struct tally *t, const struct disk_stats *all)
{
	printf("%s %s: %" PRIu64 " distinct states of %" PRIu64 ", %" PRIu64
	       " in full (%.0f/s/core)",
		t->violations ? "FAIL" : "ok", row->name, t->n.states, t->n.tried, t->n.in_full,
		per_core(t));
	printf("; %" PRIu64 " of %" PRIu64 " situations exhausted; %" PRIu64 " leak, %" PRIu64
	       " repaired",
		t->exhausted, t->situations, t->n.leaks, t->n.dirty);
	if (t->repairs)
		printf("; %" PRIu64 " repairs cut %" PRIu64 " times", t->repairs, t->second);
	if (t->qemu_judged)
		printf("; %" PRIu64 " judged by qemu-img", t->qemu_judged);
	if (t->faults)
		printf("; %" PRIu64 " host failures, %" PRIu64 " states after them", t->faults,
			t->fault_states);
	printf("; depth %u: a write costs %.2f fdatasyncs, %" PRIu64 " metadata bytes; %" PRIu64
	       " violations\n",
		row->depth,
		all->writes ? (double)all->host_fdatasyncs / (double)all->writes : 0.0,
		all->writes ? all->metadata_bytes / all->writes : 0, t->violations);
}

static void with_faults(struct loop *l, const struct row *row, uint64_t seed,
	const struct args *a, struct tally *t)
{
	struct tally f = {.violations = t->violations};

	explore_faults(l, row, seed, (unsigned)a->faults, &f);
	t->violations = f.violations;
	t->faults += f.faults;
	t->fault_states += f.n.states;
}

static void do_row(struct loop *l, const struct row *row, const struct args *a, struct tally *t)
{
	struct disk_stats all = {0};
	double cpu = 0;
	char scratch[300];

	snprintf(scratch, sizeof(scratch), "%s/crash-state.%d", a->qemu ? a->qemu : "", getpid());
	for (uint64_t s = 1; s <= a->seeds; s++) {
		struct seen seen = {0};
		struct explore_opts o = {.states = share(a, row),
			.qemu_every = a->qemu ? QEMU_EVERY : 0,
			.scratch = scratch,
			.keep = a->keep,
			.tear = a->tear,
			.exhaustive = a->exhaustive && s == 1,
			.in_full = a->in_full,
			.seen = &seen};
		struct run_log r;

		workload_run(l, row, s, &r);
		cpu -= cpu_seconds();
		explore(l, &r, &o, t);
		if (s == 1 && a->repairs && (row->create.lazy_refcounts || row_snapshots(row)))
			explore_repair(l, &r, &o, a->repairs, a->repairs, t);
		cpu += cpu_seconds();
		all.writes += r.stats.writes;
		all.host_fdatasyncs += r.stats.host_fdatasyncs;
		all.metadata_bytes += r.stats.metadata_bytes;
		workload_free(&r);
		seen_fini(&seen);
		if (a->faults)
			with_faults(l, row, s, a, t);
	}
	t->cpu_ns = (uint64_t)(cpu * 1e9);
	print_row(row, t, &all);
}

static void do_cases(struct loop *l, const struct args *a, struct tally *t)
{
	double cpu = cpu_seconds();
	unsigned n = 0, bad = 0;

	for (const struct crash_case *c = a->first_case; c; c = c->next) {
		if (a->row && strcmp(a->row, c->row))
			continue;
		n++;
		bad += !case_replay(l, c, t);
	}
	printf("%s cases: %u states that failed once, %u fail or are stale; %" PRIu64
	       " distinct states of %" PRIu64 " (%.1f s)\n",
		bad ? "FAIL" : "ok", n, bad, t->n.states, t->n.tried, cpu_seconds() - cpu);
}

/* ---- tasks: the cases, then each row ---- */

static const char *task_name(unsigned i, void *arg)
{
	const struct args *a = arg;

	return a->with_cases && !i ? "cases" : a->rows[i - a->with_cases]->name;
}

static struct loop *make_loop(void)
{
	struct loop *l;

	if (loop_new(LOOP_AIO_AUTO, &l) || fiber_pool_init(l)) {
		fprintf(stderr, "crash: no event loop\n");
		exit(3);
	}
	return l;
}

static void task(unsigned i, void *result, void *arg)
{
	const struct args *a = arg;
	struct tally *t = result;
	struct loop *l = make_loop();

	if (a->with_cases && !i)
		do_cases(l, a, t);
	else
		do_row(l, a->rows[i - a->with_cases], a, t);
	fflush(stdout);
	loop_free(l);
}

static uint64_t *task_failures(void *result)
{
	return &((struct tally *)result)->violations;
}

static void progress(const void *results, unsigned n, char *line, size_t room)
{
	const struct tally *t = results;
	uint64_t states = 0, violations = 0;

	for (unsigned i = 0; i < n; i++) {
		states += t[i].n.states;
		violations += t[i].violations;
	}
	snprintf(line, room, "%" PRIu64 " states, %" PRIu64 " violations", states, violations);
}

static int one_state(const struct args *a)
{
	struct explore_opts o = {.verbose = true, .tear = a->tear};
	struct loop *l = make_loop();
	struct run_log r;
	bool ok;

	workload_run(l, a->rows[0], a->seed, &r);
	ok = explore_one(l, &r, &o, a->state);
	workload_free(&r);
	loop_free(l);
	return ok ? 0 : 1;
}

static int summary(const struct args *a, const struct tally *t, uint64_t ns)
{
	struct tally sum = {0};

	for (unsigned i = 0; i < a->n_tasks; i++) {
		if (i || !a->with_cases) { /* the cases' states are in the rows' runs too */
			sum.n.states += t[i].n.states;
			sum.n.tried += t[i].n.tried;
			sum.n.in_full += t[i].n.in_full;
			sum.cpu_ns += t[i].cpu_ns;
		}
		sum.qemu_judged += t[i].qemu_judged;
		sum.faults += t[i].faults;
		sum.fault_states += t[i].fault_states;
		sum.second += t[i].second;
		sum.violations += t[i].violations;
	}
	printf("%" PRIu64 " distinct states of %" PRIu64 ", %" PRIu64
	       " in full (%.0f/s/core), %" PRIu64
	       " cuts of repairs, %" PRIu64 " host failures (%" PRIu64 " more states), %" PRIu64
	       " judged by qemu-img; %.0f s; %" PRIu64 " violations\n",
		sum.n.states, sum.n.tried, sum.n.in_full, per_core(&sum), sum.second, sum.faults,
		sum.fault_states, sum.qemu_judged, (double)ns / 1e9, sum.violations);
	return sum.violations ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct args a = {.states = 30000, .seeds = 2, .seed = 1, .faults = 89,
		.cases = CASES, .jobs = (uint64_t)sysconf(_SC_NPROCESSORS_ONLN)};
	struct jobs j = {.run = task, .name = task_name, .failures = task_failures,
		.progress = progress, .result_size = sizeof(struct tally), .arg = &a};
	void *results;
	uint64_t ns = loop_now_ns();

	if (parse(argc, argv, &a))
		return 2;
	/* Here, not in a job, which ends without removing it. */
	for (unsigned i = 0; i < n_rows; i++)
		below_path(&rows[i]);
	log_level_set(LOG_ERROR);
	a.rows = calloc(n_rows, sizeof(*a.rows));
	for (unsigned i = 0; a.rows && i < n_rows; i++)
		if (!a.row || !strcmp(a.row, rows[i].name))
			a.rows[a.n_rows++] = &rows[i];
	if (!a.n_rows) {
		fprintf(stderr, "crash: there is no such row\n");
		return 2;
	}
	if (a.state)
		return one_state(&a);
	if (!a.no_cases && cases_read(a.cases, &a.first_case))
		return 2;
	a.with_cases = a.first_case != NULL;
	j.n = a.n_tasks = a.n_rows + a.with_cases;
	j.at_once = (unsigned)a.jobs;
	j.until_caught = a.until_caught;
	if (jobs_run(&j, &results))
		return 1;
	return summary(&a, results, loop_now_ns() - ns);
}
