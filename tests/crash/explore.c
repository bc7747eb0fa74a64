/* SPDX-License-Identifier: MIT */
/*
 * explore.c - judges the cuts of a recorded run.
 *
 * Which cuts, and which states each may leave, says blockdev/crash/cuts.h; a situation is judged at
 * its last tick, where the oracle is strictest.  Without explore_opts.exhaustive a situation is
 * exhausted only if that fits its share of the budget; the tally tells how many were.
 *
 * The number of promises is the oracle's: the later one of two equal states is legal if the earlier
 * one was.  Most are judged without building them, see memo.h.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/crash/explore.h"

#define AGREE_EVERY 8  /* states in full: one is compared with what it was taken for */
#define FULL_EVERY  64 /* states: one is judged in full although its verdict is known */

/* ---- one choice ---- */

static void print_choice(const struct explorer *e, const struct crash_choice *c)
{
	printf("crash --row '%s' --seed %" PRIu64, e->r->row->name, e->r->seed);
	if (c->unit != SECTOR)
		printf(" --tear %u", c->unit);
	printf(" --state %" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%d:", e->k.model.at, c->size, c->tear,
		c->reversed);
	for (uint32_t i = 0; i < e->k.model.n_pending; i++)
		putchar("-+~"[c->fate[i]]);
	putchar('\n');
}

bool explorer_is_new(struct explorer *e)
{
	e->t->tried++;
	return cuts_is_new(&e->k);
}

bool explorer_verdict(struct explorer *e)
{
	const struct memo_leaf *known = memo_find(e->memo, &e->k.facts);
	bool ok, in_full = !known || e->o->in_full || e->t->states % FULL_EVERY == 0;

	e->t->states++;
	if (!in_full && explorer_judge_data(e, known)) {
		e->t->dirty += known->dirty;
		e->t->leaks += known->leaks;
		return true;
	}
	e->t->in_full++;
	model_build(&e->k.model, &e->k.c, &e->k.state);
	if (e->k.facts.usable && (known || e->t->in_full % AGREE_EVERY == 0) &&
		!facts_agree(&e->k.facts, &e->k.state)) {
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
	model_build(&e->k.model, &e->k.c, &e->k.state);
	return explorer_judge(e);
}

static bool cut_holds(struct cuts *k)
{
	return explorer_holds(k->arg);
}

static void minimise(struct explorer *e)
{
	char first[sizeof(e->why)];

	memcpy(first, e->why, sizeof(first));
	cuts_minimise(&e->k);
	(void)!explorer_holds(e);
	if (!e->why[0])
		memcpy(e->why, first, sizeof(first));
}

void explorer_print_pending(const struct explorer *e)
{
	static const char *const ops[] = {
		"read", "write", "fdatasync", "extend", "punch", "truncate"};

	for (uint32_t i = 0; i < e->k.model.n_pending; i++) {
		const struct host_op *o = &e->r->log.host[e->k.model.pending[i]];

		printf("    %c %s %#" PRIx64 "+%#" PRIx64 " %s submitted %" PRIu64
		       " completed %" PRId64 "\n",
			"-+~"[e->k.c.fate[i]], ops[o->op], o -> off, o -> len,
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
	print_choice(e, &e->k.c);
	minimise(e);
	printf("  smallest: %s\n  ", e->why);
	print_choice(e, &e->k.c);
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

	model_build(&e->k.model, &e->k.c, &e->k.state);
	if (explorer_dirty(&e->k.state))
		return; /* it would rightly find errors before the repair */
	if (write_out(&e->k.state, e->o->scratch)) {
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

static void visit(struct cuts *k)
{
	struct explorer *e = k->arg;

	if (!explorer_verdict(e))
		explorer_violation(e);
	else if (e->o->qemu_every && e->t->states % e->o->qemu_every == 0 &&
		 !strcmp(e->r->row->format, "qcow2"))
		qemu_judges(e);
}

static unsigned group_of(struct cuts *k, const struct host_op *o)
{
	struct explorer *e = k->arg;

	return role_of(&e->roles, o);
}

static void moved(struct cuts *k)
{
	struct explorer *e = k->arg;

	oracle_at(&e->oracle, k->model.at);
	k->promises = e->oracle.promises;
}

void explorer_at(struct explorer *e, uint64_t tick)
{
	cuts_at(&e->k, tick);
	moved(&e->k);
}

static void init(struct explorer *e, const struct crash_log *log, const struct mem_image *start)
{
	cuts_init(&e->k, log, start);
	e->k.c.unit = e->o->tear ? e->o->tear : SECTOR;
	e->k.exhaustive = e->o->exhaustive;
	e->k.visit = visit;
	e->k.moved = moved;
	e->k.holds = cut_holds;
	e->k.group_of = group_of;
	e->k.n_groups = N_ROLES;
	e->k.arg = e;
	if (oracle_init(&e->oracle, &e->r->log,
		    max_u64(e->r->row->create.size, e->r->row->grow) / SECTOR))
		abort();
	e->oracle.either = true;
	roles_init(&e->roles, e->r);
	memo_init(&e->own_memo);
	e->buf = malloc(EXPLORER_BUF_SECTORS * SECTOR);
	if (!e->buf)
		abort();
}

void explorer_init(struct explorer *e, struct loop *l, const struct run_log *r,
	const struct explore_opts *o, struct tally *t)
{
	*e = (struct explorer){.loop = l, .r = r, .o = o, .t = t};
	init(e, &r->log, &r->start);
	e->k.rng = r->seed ^ 0x5eed;
	if (o->seen)
		e->k.seen = o->seen;
	e->memo = &e->own_memo;
}

void explorer_init_on(struct explorer *in, struct explorer *e, const struct crash_log *log,
	const struct mem_image *start)
{
	*in = (struct explorer){.loop = e->loop, .r = e->r, .o = e->o, .t = e->t, .memo = e->memo};
	init(in, log, start);
	in->k.rng = rng_next(&e->k.rng);
	in->k.seen = e->k.seen;
}

void explorer_fini(struct explorer *e)
{
	cuts_fini(&e->k);
	oracle_fini(&e->oracle);
	roles_fini(&e->roles);
	memo_fini(&e->own_memo);
	free(e->buf);
}

void explore(struct loop *l, const struct run_log *r, const struct explore_opts *o, struct tally *t)
{
	struct explorer e;

	explorer_init(&e, l, r, o, t);
	cuts_run(&e.k, o->states);
	t->tried += e.k.tried;
	t->situations += e.k.situations;
	t->exhausted += e.k.exhausted;
	explorer_fini(&e);
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
	if (sscanf(spec, "%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%d:%n", &at, &e.k.c.size, &e.k.c.tear,
		    &rev, &used) < 4) {
		explorer_fini(&e);
		return false;
	}
	e.k.c.reversed = rev;
	explorer_at(&e, at);
	for (uint32_t i = 0; i < e.k.model.n_pending && spec[used]; i++, used++)
		e.k.c.fate[i] = spec[used] == '+'   ? FATE_WHOLE
				: spec[used] == '~' ? FATE_TORN
						    : FATE_LOST;
	ok = explorer_holds(&e);
	printf("%s\n", ok ? "holds" : e.why);
	explorer_print_pending(&e);
	explorer_fini(&e);
	return ok;
}
