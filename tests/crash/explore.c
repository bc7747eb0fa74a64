/* SPDX-License-Identifier: MIT */
/*
 * explore.c - enumerates the cuts of a recorded run and judges each state.
 *
 * A situation is a set of durable and a set of pending host operations; it lasts for some
 * ticks, and is judged at its last one, where the oracle is strictest.  With few
 * operations pending every subset is built; otherwise the two extremes, each operation
 * alone lost, each alone kept, and random subsets with torn writes.
 *
 * A state is judged as a user would meet it: opened for writing (which repairs a dirty image),
 * every sector ever written read and put to the oracle, then checked.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/crash/explore.h"

#define EXHAUSTIVE_MAX 12   /* pending operations */
#define READ_MAX       2048 /* sectors in one read */
#define STATES_MIN     6    /* of one situation */

/* ---- judging one state ---- */

struct judge {
	struct explorer *e;
	struct disk *d;
	struct file *f;
	struct qcow2_check check;
};

static int read_run(struct judge *j, uint64_t at, uint64_t n)
{
	struct explorer *e = j->e;
	int err = disk_pread(j->d, e->buf, n * SECTOR, at * SECTOR);

	if (err) {
		snprintf(
			e->why, sizeof(e->why), "sector %" PRIu64 ": read: %s", at, strerror(-err));
		return -1;
	}
	for (uint64_t s = 0; s < n; s++) {
		enum verdict v = oracle_judge(&e->oracle, at + s, e->buf + s * SECTOR);

		if (v == LEGAL)
			continue;
		snprintf(e->why, sizeof(e->why), "sector %" PRIu64 ": %s", at + s, verdict_name(v));
		return -1;
	}
	return 0;
}

/* The disk may still have its old size, if nothing durable lies past it. */
static int too_small(struct judge *j, uint64_t at, uint64_t n)
{
	static const uint64_t zeros[SECTOR / 8];
	uint64_t size = disk_size(j->d) / SECTOR;

	if (at < size && read_run(j, at, size - at))
		return -1;
	for (at = max_u64(at, size); at < j->e->oracle.n_sectors; at++) {
		if (oracle_judge(&j->e->oracle, at, zeros) == LEGAL)
			continue;
		snprintf(j->e->why, sizeof(j->e->why),
			"sector %" PRIu64 ": the disk ends before it", at);
		return -1;
	}
	return 0;
}

/* All sectors that were ever written, in long reads. */
static int read_all(void *arg)
{
	struct judge *j = arg;
	uint64_t at = 0, n;

	for (; oracle_next_run(&j->e->oracle, &at, &n); at += n) {
		n = min_u64(n, READ_MAX);
		if (at + n > disk_size(j->d) / SECTOR)
			return too_small(j, at, n);
		if (read_run(j, at, n))
			return -1;
	}
	return 0;
}

static void check_line(void *arg, const char *line)
{
	fprintf(stderr, "  check: %s\n", line);
}

static int check_image(void *arg)
{
	struct judge *j = arg;

	/* Wording a finding costs more than finding it. */
	j->check.report = j->e->o->verbose ? check_line : NULL;
	return qcow2_check(j->f, 0, &j->check, NULL);
}

bool explorer_dirty(const struct mem_image *m)
{
	struct qcow2_disk_header h;

	mem_read(m, &h, sizeof(h), 0);
	return be32_get(h.version) >= 3 && (be64_get(h.incompatible) & QCOW2_INCOMPAT_DIRTY);
}

static bool check_ok(struct explorer *e, bool was_dirty)
{
	struct judge j = {.e = e};
	int err = memfile_open(e->loop, &e->state, 0, &j.f);

	if (!err) {
		err = fiber_run(e->loop, check_image, &j);
		file_close(j.f);
	}
	if (err || j.check.corruptions || j.check.check_errors || (was_dirty && j.check.leaks)) {
		snprintf(e->why, sizeof(e->why),
			"check: %" PRIu64 " corruptions, %" PRIu64 " leaks%s, error %d",
			j.check.corruptions, j.check.leaks, was_dirty ? " after repair" : "", err);
		return false;
	}
	e->t->leaks += j.check.leaks > 0;
	return true;
}

/* e->state after the cut: true if it keeps the contract.  The state is used up. */
bool explorer_judge(struct explorer *e)
{
	bool qcow2 = !strcmp(e->r->row->format, "qcow2"), was_dirty = false;
	struct disk_opts o = {.format = e->r->row->format,
		.l2_cache_bytes = 64 * KiB,
		.refcount_cache_bytes = 32 * KiB};
	struct judge j = {.e = e};
	struct why why = {{0}};
	int err;

	if (qcow2) {
		was_dirty = explorer_dirty(&e->state);
		e->t->dirty += was_dirty;
	}
	err = memfile_open(e->loop, &e->state, 0, &j.f);
	if (!err)
		err = disk_open_file(j.f, &o, &j.d, &why);
	if (err) {
		snprintf(e->why, sizeof(e->why), "does not open: %.200s", why_text(&why, err));
		return false;
	}
	err = fiber_run(e->loop, read_all, &j);
	disk_abandon(j.d);
	return !err && (!qcow2 || check_ok(e, was_dirty));
}

/* ---- one choice ---- */

static void print_choice(const struct explorer *e, const struct crash_choice *c)
{
	printf("crash --row '%s' --seed %" PRIu64 " --state %" PRIu64 ":%" PRIu64 ":%" PRIu64
	       ":%d:",
		e->r->row->name, e->r->seed, e->model.at, c->size, c->tear, c->reversed);
	for (uint32_t i = 0; i < e->model.n_pending; i++)
		putchar("-+~"[c->fate[i]]);
	putchar('\n');
}

static bool holds(struct explorer *e, const struct crash_choice *c)
{
	model_build(&e->model, c, &e->state);
	return explorer_judge(e);
}

/* Fewest lost operations with which it still fails. */
static void minimise(struct explorer *e)
{
	char first[sizeof(e->why)];

	memcpy(first, e->why, sizeof(first));
	for (uint32_t i = 0; i < e->model.n_pending; i++) {
		uint8_t was = e->c.fate[i];

		if (was == FATE_WHOLE)
			continue;
		e->c.fate[i] = FATE_WHOLE;
		if (holds(e, &e->c))
			e->c.fate[i] = was;
	}
	(void)!holds(e, &e->c);
	if (!e->why[0])
		memcpy(e->why, first, sizeof(first));
}

static void print_pending(const struct explorer *e)
{
	static const char *const ops[] = {
		"read", "write", "fdatasync", "extend", "punch", "truncate"};

	for (uint32_t i = 0; i < e->model.n_pending; i++) {
		const struct host_op *o = &e->r->log.host[e->model.pending[i]];

		printf("    %c %s %#" PRIx64 "+%#" PRIx64 " submitted %" PRIu64
		       " completed %" PRId64 "\n",
			"-+~"[e->c.fate[i]], ops[o->op], o -> off, o -> len, o -> submitted,
			(int64_t)o -> completed);
	}
}

static void violation(struct explorer *e)
{
	uint64_t dirty = e->t->dirty, leaks = e->t->leaks;

	e->t->violations++;
	if (e->t->violations > 3)
		return;
	printf("VIOLATION %s: %s\n  repeat: ", e->r->row->name, e->why);
	print_choice(e, &e->c);
	minimise(e);
	printf("  smallest: %s\n  ", e->why);
	print_choice(e, &e->c);
	print_pending(e);
	e->t->dirty = dirty;
	e->t->leaks = leaks;
}

static void qemu_judges(struct explorer *e)
{
	char path[300], cmd[400];
	uint8_t page[MEM_PAGE];
	int st;
	FILE *f;

	snprintf(path, sizeof(path), "%s/state.qcow2", e->o->scratch);
	model_build(&e->model, &e->c, &e->state);
	if (explorer_dirty(&e->state))
		return; /* it would rightly find errors before the repair */
	f = fopen(path, "w");
	if (!f)
		return;
	for (uint64_t at = 0; at < e->state.size; at += MEM_PAGE) {
		uint64_t k = min_u64(MEM_PAGE, e->state.size - at);

		mem_read(&e->state, page, k, at);
		if (fwrite(page, 1, k, f) != k)
			break;
	}
	fclose(f);
	snprintf(cmd, sizeof(cmd), "qemu-img check -q '%s' >/dev/null 2>&1", path);
	st = system(cmd);
	e->t->qemu_judged++;
	unlink(path);
	/* 0 clean, 3 leaks only */
	if (WIFEXITED(st) && (WEXITSTATUS(st) == 0 || WEXITSTATUS(st) == 3))
		return;
	snprintf(e->why, sizeof(e->why), "qemu-img check disagrees: status %d", WEXITSTATUS(st));
	violation(e);
}

static void try_choice(struct explorer *e)
{
	e->t->states++;
	if (!holds(e, &e->c))
		violation(e);
	else if (e->o->qemu_every && e->t->states % e->o->qemu_every == 0 &&
		 !strcmp(e->r->row->format, "qcow2"))
		qemu_judges(e);
}

/* ---- the choices of one situation ---- */

static void set_all(struct explorer *e, enum fate f)
{
	memset(e->c.fate, f, e->model.n_pending);
	e->c.size = e->sizes[f == FATE_WHOLE ? e->n_sizes - 1 : 0];
	e->c.reversed = false;
	e->c.tear = 1;
}

void explorer_random(struct explorer *e)
{
	uint64_t keep = rng_next(&e->rng) % 5, torn = rng_next(&e->rng) % 3;

	for (uint32_t i = 0; i < e->model.n_pending; i++) {
		uint64_t k = rng_next(&e->rng) % 8;

		e->c.fate[i] = k < keep * 2 ? FATE_WHOLE : FATE_LOST;
		if (rng_next(&e->rng) % 8 < torn)
			e->c.fate[i] = FATE_TORN;
	}
	e->c.tear = rng_next(&e->rng) | 1;
	e->c.reversed = rng_next(&e->rng) & 1;
	e->c.size = e->sizes[rng_next(&e->rng) % e->n_sizes];
}

static void exhaustive(struct explorer *e)
{
	for (uint32_t z = 0; z < e->n_sizes; z++) {
		for (uint64_t mask = 0; mask < 1ULL << e->model.n_pending; mask++) {
			set_all(e, FATE_LOST);
			e->c.size = e->sizes[z];
			for (uint32_t i = 0; i < e->model.n_pending; i++)
				e->c.fate[i] = mask >> i & 1 ? FATE_WHOLE : FATE_LOST;
			try_choice(e);
		}
	}
}

static void sampled(struct explorer *e, uint64_t budget)
{
	uint32_t n = e->model.n_pending;

	set_all(e, FATE_LOST);
	try_choice(e);
	set_all(e, FATE_WHOLE);
	try_choice(e);
	for (uint64_t i = 2; i < budget; i++) {
		uint64_t k = rng_next(&e->rng) % 4;

		if (k < 2) {
			explorer_random(e);
		} else {
			uint32_t one = (uint32_t)(rng_next(&e->rng) % n);

			set_all(e, k == 2 ? FATE_WHOLE : FATE_LOST);
			e->c.fate[one] = k == 2 ? FATE_LOST : FATE_WHOLE;
		}
		try_choice(e);
	}
}

static void situation(struct explorer *e, uint64_t budget)
{
	uint32_t n = e->model.n_pending;

	e->t->situations++;
	oracle_at(&e->oracle, e->model.at);
	e->n_sizes = model_sizes(&e->model, e->sizes, SIZES_MAX);
	if (n == 0) {
		set_all(e, FATE_LOST);
		try_choice(e);
		return;
	}
	if (n <= EXHAUSTIVE_MAX && (e->n_sizes << n) <= budget) {
		exhaustive(e);
		budget -= e->n_sizes << n;
		for (uint64_t i = 0; i < budget / 4; i++) {
			explorer_random(e);
			try_choice(e);
		}
		return;
	}
	sampled(e, budget);
}

/* Is the next event one of the host's (or the last)?  Then the situation ends here. */
uint64_t *explorer_ticks(const struct crash_log *log, uint64_t *n)
{
	uint64_t *at = malloc((2 * log->n_host + 1) * sizeof(*at)), k = 0;
	uint8_t *mark = calloc(log->clock + 2, 1);

	for (uint64_t i = 0; i < log->n_host; i++) {
		mark[log->host[i].submitted] = 1;
		if (log->host[i].op == FILE_FDATASYNC && log->host[i].completed != NEVER)
			mark[log->host[i].completed] = 1;
	}
	for (uint64_t t = 1; t <= log->clock; t++)
		if (mark[t])
			at[k++] = t - 1;
	at[k++] = log->clock;
	free(mark);
	*n = k;
	return at;
}

void explorer_init(struct explorer *e, struct loop *l, const struct run_log *r,
	const struct explore_opts *o, struct tally *t)
{
	*e = (struct explorer){.loop = l, .r = r, .o = o, .t = t, .rng = r->seed ^ 0x5eed};
	model_init(&e->model, &r->log, &r->start);
	if (oracle_init(&e->oracle, &r->log, max_u64(r->row->create.size, r->row->grow) / SECTOR))
		abort();
	mem_init(&e->state);
	e->c.fate = calloc(r->log.n_host + 1, 1);
	e->buf = malloc(READ_MAX * SECTOR);
}

void explorer_fini(struct explorer *e)
{
	model_fini(&e->model);
	oracle_fini(&e->oracle);
	mem_fini(&e->state);
	free(e->c.fate);
	free(e->buf);
}

void explore(struct loop *l, const struct run_log *r, const struct explore_opts *o, struct tally *t)
{
	struct explorer e;
	uint64_t n, *ticks = explorer_ticks(&r->log, &n);

	explorer_init(&e, l, r, o, t);
	/* With fewer states than situations want, some situations are left out, at random. */
	for (uint64_t i = 0; i < n; i++) {
		model_advance(&e.model, ticks[i]);
		if (o->states >= n * STATES_MIN)
			situation(&e, o->states / n);
		else if (rng_next(&e.rng) % (n * STATES_MIN) < o->states)
			situation(&e, STATES_MIN);
	}
	explorer_fini(&e);
	free(ticks);
}

bool explore_one(struct loop *l, const struct run_log *r, const char *spec)
{
	struct explore_opts o = {.verbose = true};
	struct tally t = {0};
	struct explorer e;
	uint64_t at = 0;
	int rev = 0, used = 0;
	bool ok;

	explorer_init(&e, l, r, &o, &t);
	if (sscanf(spec, "%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%d:%n", &at, &e.c.size, &e.c.tear,
		    &rev, &used) < 4)
		return false;
	e.c.reversed = rev;
	model_advance(&e.model, at);
	oracle_at(&e.oracle, at);
	for (uint32_t i = 0; i < e.model.n_pending && spec[used]; i++, used++)
		e.c.fate[i] = spec[used] == '+'   ? FATE_WHOLE
			      : spec[used] == '~' ? FATE_TORN
						  : FATE_LOST;
	ok = holds(&e, &e.c);
	printf("%s\n", ok ? "holds" : e.why);
	print_pending(&e);
	explorer_fini(&e);
	return ok;
}
