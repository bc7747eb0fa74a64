/* SPDX-License-Identifier: MIT */
/*
 * explorer.c - see explorer.h.
 *
 * Which cuts, and which states each may leave, says cuts.h; a situation is judged at its last tick,
 * where the oracle is strictest.  The number of promises is the oracle's: the later one of two
 * equal states is legal if the earlier one was.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/explorer.h"

#define AGREE_EVERY 8  /* states in full: one is compared with what it was taken for */
#define FULL_EVERY  64 /* states: one is judged in full although its verdict is known */

bool explorer_is_new(struct explorer *e)
{
	e->n->tried++;
	return cuts_is_new(&e->k);
}

bool explorer_verdict(struct explorer *e)
{
	const struct memo_leaf *known = memo_find(e->memo, &e->k.facts);
	bool ok, in_full = !known || e->in_full || e->n->states % FULL_EVERY == 0;

	e->sector = UINT64_MAX;
	e->n->states++;
	if (!in_full && explorer_judge_data(e, known)) {
		e->n->dirty += known->dirty;
		e->n->leaks += known->leaks;
		return true;
	}
	e->n->in_full++;
	model_build(&e->k.model, &e->k.c, &e->k.state);
	if (e->k.facts.usable && (known || e->n->in_full % AGREE_EVERY == 0) &&
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
	e->sector = UINT64_MAX;
	model_build(&e->k.model, &e->k.c, &e->k.state);
	return explorer_judge(e);
}

static bool cut_holds(struct cuts *k)
{
	return explorer_holds(k->arg);
}

void explorer_minimise(struct explorer *e)
{
	char first[sizeof(e->why)];

	memcpy(first, e->why, sizeof(first));
	cuts_minimise(&e->k);
	(void)!explorer_holds(e);
	if (!e->why[0])
		memcpy(e->why, first, sizeof(first));
}

static void visit(struct cuts *k)
{
	struct explorer *e = k->arg;
	bool ok = explorer_verdict(e);

	e->judged(e, ok);
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
	/* That the overlay is the disk is one too. */
	k->promises = e->oracle.promises * 2 + explorer_overlaid(e);
}

void explorer_at(struct explorer *e, uint64_t tick)
{
	cuts_at(&e->k, tick);
	moved(&e->k);
}

static void init(struct explorer *e, const struct crash_log *log, const struct mem_image *start)
{
	cuts_init(&e->k, log, start, e->s->before != NULL);
	e->k.visit = visit;
	e->k.holds = cut_holds;
	e->k.moved = moved;
	e->k.group_of = group_of;
	e->k.n_groups = N_ROLES;
	e->k.arg = e;
	e->sector = UINT64_MAX;
	if (oracle_init(&e->oracle, e->s->log, e->s->sectors))
		abort();
	if (e->s->before && oracle_contents(&e->oracle, e->s->before))
		abort();
	e->oracle.either = e->s->either;
	roles_init(&e->roles, e->s->log, e->s->start, e->s->data_bytes + e->s->below_bytes,
		strcmp(e->s->format, "qcow2") && !e->s->below_bytes ? 0 : e->s->cluster_size);
	memo_init(&e->own_memo);
	e->buf = malloc(EXPLORER_BUF_SECTORS * SECTOR);
	if (!e->buf)
		abort();
}

void explorer_init(struct explorer *e, struct loop *l, const struct subject *s, uint64_t seed,
	struct explorer_counts *n)
{
	*e = (struct explorer){.loop = l, .s = s, .n = n};
	init(e, s->log, s->start);
	e->k.rng = seed ^ 0x5eed;
	e->memo = &e->own_memo;
}

void explorer_init_on(struct explorer *in, struct explorer *e, const struct crash_log *log,
	const struct mem_image *start)
{
	*in = (struct explorer){.loop = e->loop,
		.s = e->s,
		.n = e->n,
		.memo = e->memo,
		.in_full = e->in_full,
		.report = e->report,
		.judged = e->judged,
		.also = e->also,
		.first = e->first,
		.arg = e->arg};
	init(in, log, start);
	in->k.c.unit = e->k.c.unit;
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
