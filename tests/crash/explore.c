/* SPDX-License-Identifier: MIT */
/*
 * explore.c - enumerates the cuts of a recorded run.
 *
 * A situation is a set of durable and a set of pending host operations; it lasts for some
 * ticks, and is judged at its last one, where the oracle is strictest.
 *
 * Exhaustive: with at most EXHAUSTIVE_MAX writes pending every subset of them is judged, with
 * every length of the file, and in both orders if two of them overlap.
 * Sampled (seeded): with more, and for torn writes always.  The two extremes, all writes of one
 * role lost or kept, one write lost or kept, and random subsets.
 * Without explore_opts.exhaustive a situation is exhausted only if that fits its share of the
 * budget; the tally tells how many were.  What one does not use goes to those that follow.
 *
 * No state is judged twice.  Two states are the same if the image holds the same bytes and the
 * guest was promised the same (oracle.promises): the later one is legal if the earlier one was.
 * So a count of states is one of distinct ones.  Whether a choice gives a new one is seen from the
 * facts (facts.h), without building it; and most are judged without that, see memo.h.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/crash/explore.h"

#define EXHAUSTIVE_MAX 12 /* pending writes */
#define STATES_MIN     6  /* of one situation */
#define TRIES          4  /* for one state that was not seen before */
#define AGREE_EVERY    8  /* states in full: one is compared with what it was taken for */
#define FULL_EVERY     64 /* states: one is judged in full although its verdict is known */

/* ---- one choice ---- */

static void print_choice(const struct explorer *e, const struct crash_choice *c)
{
	printf("crash --row '%s' --seed %" PRIu64, e->r->row->name, e->r->seed);
	if (c->unit != SECTOR)
		printf(" --tear %u", c->unit);
	printf(" --state %" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%d:", e->model.at, c->size, c->tear,
		c->reversed);
	for (uint32_t i = 0; i < e->model.n_pending; i++)
		putchar("-+~"[c->fate[i]]);
	putchar('\n');
}

bool explorer_is_new(struct explorer *e)
{
	uint64_t d;

	e->t->tried++;
	if (e->facts.usable) {
		facts_choose(&e->facts, &e->c);
		d = facts_digest(&e->facts);
	} else {
		model_build(&e->model, &e->c, &e->state);
		d = mem_digest(&e->state);
	}
	d = (d ^ e->c.size * 0x9E3779B97F4A7C15ULL) + e->oracle.promises;
	return !seen_before(e->seen, rng_next(&d));
}

bool explorer_verdict(struct explorer *e)
{
	const struct memo_leaf *known = memo_find(e->memo, &e->facts);
	bool ok, in_full = !known || e->o->in_full || e->t->states % FULL_EVERY == 0;

	e->t->states++;
	if (!in_full && explorer_judge_data(e, known)) {
		e->t->dirty += known->dirty;
		e->t->leaks += known->leaks;
		return true;
	}
	e->t->in_full++;
	model_build(&e->model, &e->c, &e->state);
	if (e->facts.usable && (known || e->t->in_full % AGREE_EVERY == 0) &&
		!facts_agree(&e->facts, &e->state)) {
		snprintf(e->why, sizeof(e->why), "the image is not what it was taken for");
		return false;
	}
	ok = explorer_judge_noting(e, known);
	if (ok && !in_full) {
		snprintf(e->why, sizeof(e->why), "was found at fault, but not when read in full");
		return false;
	}
	return ok;
}

bool explorer_holds(struct explorer *e)
{
	model_build(&e->model, &e->c, &e->state);
	return explorer_judge(e);
}

/* Fewest lost operations with which it still fails; lost rather than torn. */
static void minimise(struct explorer *e)
{
	char first[sizeof(e->why)];

	memcpy(first, e->why, sizeof(first));
	for (uint32_t i = 0; i < e->model.n_pending; i++) {
		uint8_t was = e->c.fate[i];

		if (was == FATE_WHOLE)
			continue;
		e->c.fate[i] = FATE_WHOLE;
		if (!explorer_holds(e))
			continue;
		e->c.fate[i] = FATE_LOST;
		if (was == FATE_TORN && explorer_holds(e))
			e->c.fate[i] = was;
	}
	(void)!explorer_holds(e);
	if (!e->why[0])
		memcpy(e->why, first, sizeof(first));
}

void explorer_print_pending(const struct explorer *e)
{
	static const char *const ops[] = {
		"read", "write", "fdatasync", "extend", "punch", "truncate"};

	for (uint32_t i = 0; i < e->model.n_pending; i++) {
		const struct host_op *o = &e->r->log.host[e->model.pending[i]];

		printf("    %c %s %#" PRIx64 "+%#" PRIx64 " %s submitted %" PRIu64
		       " completed %" PRId64 "\n",
			"-+~"[e->c.fate[i]], ops[o->op], o->off, o->len,
			model_has_data(o) ? role_names[role_of(&e->roles, o)] : "", o->submitted,
			(int64_t)o->completed);
	}
}

void explorer_violation(struct explorer *e)
{
	struct tally before = *e->t;

	e->t->violations++;
	if (e->t->violations > 3)
		return;
	printf("VIOLATION %s: %s\n  repeat: ", e->r->row->name, e->why);
	print_choice(e, &e->c);
	minimise(e);
	printf("  smallest: %s\n  ", e->why);
	print_choice(e, &e->c);
	explorer_print_pending(e);
	case_from(e);
	e->t->dirty = before.dirty;
	e->t->leaks = before.leaks;
}

/* Sparse: what the state does not hold is not written. */
static int write_out(const struct mem_image *m, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), err = 0;

	if (fd < 0)
		return -errno;
	for (uint64_t i = 0; i < div_round_up(m->size, MEM_PAGE) && !err; i++)
		if (mem_page(m, i) &&
			pwrite(fd, mem_page(m, i), MEM_PAGE, (off_t)(i * MEM_PAGE)) != MEM_PAGE)
			err = -EIO;
	if (ftruncate(fd, (off_t)m->size))
		err = -errno;
	close(fd);
	return err;
}

static void qemu_judges(struct explorer *e)
{
	char cmd[400];
	int st;

	model_build(&e->model, &e->c, &e->state);
	if (explorer_dirty(&e->state))
		return; /* it would rightly find errors before the repair */
	if (write_out(&e->state, e->o->scratch)) {
		printf("%s: cannot be written: qemu-img judges nothing\n", e->o->scratch);
		return;
	}
	snprintf(cmd, sizeof(cmd), "qemu-img check -q '%s' >/dev/null 2>&1", e->o->scratch);
	st = system(cmd);
	e->t->qemu_judged++;
	unlink(e->o->scratch);
	/* 0 clean, 3 leaks only */
	if (WIFEXITED(st) && (WEXITSTATUS(st) == 0 || WEXITSTATUS(st) == 3))
		return;
	snprintf(e->why, sizeof(e->why), "qemu-img check disagrees: status %d", WEXITSTATUS(st));
	explorer_violation(e);
}

static void try_choice(struct explorer *e)
{
	if (!explorer_is_new(e))
		return;
	if (!explorer_verdict(e))
		explorer_violation(e);
	else if (e->o->qemu_every && e->t->states % e->o->qemu_every == 0 &&
		 !strcmp(e->r->row->format, "qcow2"))
		qemu_judges(e);
}

/* ---- the choices of one situation ---- */

void explorer_set_all(struct explorer *e, enum fate f)
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

static const struct host_op *data_op(const struct explorer *e, uint32_t k)
{
	return &e->r->log.host[e->model.pending[e->data[k]]];
}

/* Do pending writes overlap, so that their order matters? */
static bool overlaps(const struct explorer *e)
{
	for (uint32_t i = 0; i < e->n_data; i++)
		for (uint32_t k = 0; k < i; k++)
			if (ranges_overlap(data_op(e, i)->off, data_op(e, i)->len,
				    data_op(e, k)->off, data_op(e, k)->len))
				return true;
	return false;
}

/* Every subset, with every length, in both orders where the order matters. */
static void exhaustive(struct explorer *e, bool both)
{
	for (uint32_t z = 0; z < e->n_sizes << both; z++) {
		for (uint64_t mask = 0; mask < 1ULL << e->n_data; mask++) {
			explorer_set_all(e, FATE_LOST);
			e->c.size = e->sizes[z >> both];
			e->c.reversed = both && (z & 1);
			for (uint32_t k = 0; k < e->n_data; k++)
				e->c.fate[e->data[k]] = mask >> k & 1 ? FATE_WHOLE : FATE_LOST;
			try_choice(e);
		}
	}
}

/* All pending writes of one role lost and the rest kept, or the other way round. */
static void choose_role(struct explorer *e, enum role role, enum fate f)
{
	explorer_set_all(e, f == FATE_LOST ? FATE_WHOLE : FATE_LOST);
	for (uint32_t k = 0; k < e->n_data; k++)
		if (role_of(&e->roles, data_op(e, k)) == role)
			e->c.fate[e->data[k]] = f;
}

/* One write; tables are as likely as data, of which there is more. */
static void choose_one(struct explorer *e, enum fate f)
{
	bool table = rng_next(&e->rng) & 1;
	uint32_t k = 0;

	for (unsigned tries = 0; tries < 8; tries++) {
		k = (uint32_t)(rng_next(&e->rng) % e->n_data);
		if (!table || role_of(&e->roles, data_op(e, k)) != ROLE_DATA)
			break;
	}
	explorer_set_all(e, f == FATE_LOST ? FATE_WHOLE : FATE_LOST);
	e->c.fate[e->data[k]] = f;
}

static void choose_sample(struct explorer *e)
{
	uint64_t k = rng_next(&e->rng) % 8;
	enum fate f = k & 1 ? FATE_LOST : FATE_WHOLE;

	if (k < 4)
		explorer_random(e);
	else if (k < 6)
		choose_one(e, f);
	else
		choose_role(e, (enum role)(rng_next(&e->rng) % N_ROLES), f);
}

/* Until so many new states are found, or hardly any are new. */
static void sample(struct explorer *e, uint64_t want)
{
	uint64_t end = e->t->states + want;

	for (uint64_t i = 0; i < want * TRIES && e->t->states < end; i++) {
		choose_sample(e);
		try_choice(e);
	}
}

/* Returns how many states of the budget were used up. */
static uint64_t situation(struct explorer *e, uint64_t budget)
{
	uint64_t before = e->t->states, all;
	bool both;

	e->t->situations++;
	explorer_set_all(e, FATE_LOST);
	try_choice(e);
	if (!e->n_data && e->n_sizes == 1) {
		e->t->exhausted++;
		return 1;
	}
	both = overlaps(e);
	all = e->n_data <= EXHAUSTIVE_MAX ? (uint64_t)e->n_sizes << both << e->n_data : UINT64_MAX;
	if (all <= budget || (e->o->exhaustive && all < UINT64_MAX)) {
		exhaustive(e, both);
		e->t->exhausted++;
		budget /= 4; /* torn ones */
		if (e->o->exhaustive)
			before = e->t->states;
	} else {
		explorer_set_all(e, FATE_WHOLE);
		try_choice(e);
	}
	if (e->n_data && e->t->states - before < budget)
		sample(e, budget - (e->t->states - before));
	return e->t->states - before;
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

void explorer_situation(struct explorer *e)
{
	facts_update(&e->facts, &e->model);
	e->n_sizes = model_sizes(&e->model, e->sizes, SIZES_MAX);
	e->n_data = 0;
	for (uint32_t i = 0; i < e->model.n_pending; i++)
		if (model_has_data(&e->model.log->host[e->model.pending[i]]))
			e->data[e->n_data++] = i;
}

void explorer_at(struct explorer *e, uint64_t tick)
{
	model_advance(&e->model, tick);
	oracle_at(&e->oracle, tick);
	explorer_situation(e);
}

static void init(struct explorer *e, const struct crash_log *log, const struct mem_image *start)
{
	model_init(&e->model, log, start);
	if (oracle_init(&e->oracle, &e->r->log,
		    max_u64(e->r->row->create.size, e->r->row->grow) / SECTOR))
		abort();
	mem_init(&e->state);
	roles_init(&e->roles, e->r);
	facts_init(&e->facts, &e->model);
	memo_init(&e->own_memo);
	e->c.unit = e->o->tear ? e->o->tear : SECTOR;
	e->c.fate = calloc(log->n_host + 1, 1);
	e->data = calloc(log->n_host + 1, sizeof(*e->data));
	e->buf = malloc(EXPLORER_BUF_SECTORS * SECTOR);
	if (!e->c.fate || !e->data || !e->buf)
		abort();
}

void explorer_init(struct explorer *e, struct loop *l, const struct run_log *r,
	const struct explore_opts *o, struct tally *t)
{
	*e = (struct explorer){.loop = l, .r = r, .o = o, .t = t, .rng = r->seed ^ 0x5eed};
	init(e, &r->log, &r->start);
	e->seen = o->seen ? o->seen : &e->own_seen;
	e->memo = &e->own_memo;
}

void explorer_init_on(struct explorer *in, struct explorer *e, const struct crash_log *log,
	const struct mem_image *start)
{
	*in = (struct explorer){.loop = e->loop, .r = e->r, .o = e->o, .t = e->t,
		.rng = rng_next(&e->rng), .seen = e->seen, .memo = e->memo};
	init(in, log, start);
}

void explorer_fini(struct explorer *e)
{
	model_fini(&e->model);
	oracle_fini(&e->oracle);
	mem_fini(&e->state);
	roles_fini(&e->roles);
	seen_fini(&e->own_seen);
	facts_fini(&e->facts);
	memo_fini(&e->own_memo);
	free(e->c.fate);
	free(e->data);
	free(e->buf);
}

void explore(struct loop *l, const struct run_log *r, const struct explore_opts *o, struct tally *t)
{
	struct explorer e;
	uint64_t n, *ticks = explorer_ticks(&r->log, &n), left = o->states;

	explorer_init(&e, l, r, o, t);
	/* With fewer states than situations want, some situations are left out, at random. */
	for (uint64_t i = 0; i < n && (left || o->exhaustive); i++) {
		uint64_t share = left / (n - i);

		if (share < STATES_MIN && !o->exhaustive &&
			rng_next(&e.rng) % ((n - i) * STATES_MIN) >= left)
			continue;
		explorer_at(&e, ticks[i]);
		left -= min_u64(left, situation(&e, max_u64(share, STATES_MIN)));
	}
	explorer_fini(&e);
	free(ticks);
}

bool explore_one(
	struct loop *l, const struct run_log *r, const struct explore_opts *o, const char *spec)
{
	struct tally t = {0};
	struct explorer e;
	uint64_t at = 0;
	int rev = 0, used = 0;
	bool ok;

	explorer_init(&e, l, r, o, &t);
	if (sscanf(spec, "%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%d:%n", &at, &e.c.size, &e.c.tear,
		    &rev, &used) < 4) {
		explorer_fini(&e);
		return false;
	}
	e.c.reversed = rev;
	explorer_at(&e, at);
	for (uint32_t i = 0; i < e.model.n_pending && spec[used]; i++, used++)
		e.c.fate[i] = spec[used] == '+'   ? FATE_WHOLE
			      : spec[used] == '~' ? FATE_TORN
						  : FATE_LOST;
	ok = explorer_holds(&e);
	printf("%s\n", ok ? "holds" : e.why);
	explorer_print_pending(&e);
	explorer_fini(&e);
	return ok;
}
