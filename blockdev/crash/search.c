/* SPDX-License-Identifier: MIT */
/*
 * search.c - see search.h.
 *
 * Several commands run at once and end in any order; what is told of them does not depend on that:
 * states are numbered as they are chosen, and whatever is made smaller is taken in the order of
 * cuts and numbers.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/search.h"

/* A state that was begun. */
struct tried {
	uint64_t at, key;
	struct crash_choice c;
	uint32_t n_pending, n_lost;
	struct fate_of *pending;
	uint64_t says; /* what the command printed: see said() */
	bool over, fails;
};

struct search_private {
	struct checker *checker;
	struct cuts k;
	struct seen seen;
	struct loop *loop;
	struct tried *tried;
	uint64_t n_tried, room_tried, left;
	/* Verdicts by key: open addressing, 0 is empty; the lowest bit says whether it holds. */
	uint64_t *verdict, n_verdicts, room_verdicts;
	int err;
	struct why why;
	bool asking; /* one at a time, for cuts_minimise() */
	uint64_t asked_tag;
	struct checker_result answer;
};

static void *must(void *p)
{
	if (!p)
		abort();
	return p;
}

/* ---- verdicts ---- */

static uint64_t *slot_of(uint64_t *verdict, uint64_t room, uint64_t key)
{
	uint64_t i = key >> 1 & (room - 1);

	while (verdict[i] && verdict[i] >> 1 != key >> 1)
		i = (i + 1) & (room - 1);
	return &verdict[i];
}

static void note_verdict(struct search_private *p, uint64_t key, bool holds)
{
	if (2 * p->n_verdicts >= p->room_verdicts) {
		uint64_t room = p->room_verdicts ? 2 * p->room_verdicts : 1024;
		uint64_t *bigger = must(calloc(room, sizeof(*bigger)));

		for (uint64_t i = 0; i < p->room_verdicts; i++)
			if (p->verdict[i])
				*slot_of(bigger, room, p->verdict[i]) = p->verdict[i];
		free(p->verdict);
		p->verdict = bigger;
		p->room_verdicts = room;
	}
	*slot_of(p->verdict, p->room_verdicts, key) = (key & ~1ULL) | holds;
	p->n_verdicts++;
}

static bool known_verdict(struct search_private *p, uint64_t key, bool *holds)
{
	uint64_t v = p->room_verdicts ? *slot_of(p->verdict, p->room_verdicts, key) : 0;

	*holds = v & 1;
	return v != 0;
}

/* ---- running ---- */

/* What a command printed, but for its numbers: "order 3 is lost" is as good as "order 4 is". */
static uint64_t said(const char *output)
{
	uint64_t h = 1;

	for (; *output; output++)
		if (*output < '0' || *output > '9')
			h = (h ^ (uint8_t)*output) * 0x100000001b3ULL;
	return h;
}

static struct checker_facts facts_at(const struct search *s, uint64_t at)
{
	struct checker_facts f = {.marks = 0};

	while (f.marks < s->o->n_marks && s->o->marks[f.marks].at <= at)
		f.marks++;
	f.mark = f.marks ? s->o->marks[f.marks - 1].text : NULL;
	return f;
}

static void tell_progress(struct search *s)
{
	if (s->o->progress)
		s->o->progress(s->o->progress_arg, s->states, s->failed);
}

static void stop(struct search *s, int err)
{
	if (!s->p->err)
		s->p->err = err;
	s->p->k.stop = true;
}

/* Takes in one that has ended; false: none runs. */
static bool collect(struct search *s)
{
	struct search_private *p = s->p;
	struct checker_result r;
	struct tried *t;
	int n = checker_wait(p->checker, &r, &p->why);

	if (s->o->interrupted && *s->o->interrupted)
		n = -EINTR;
	if (n < 0)
		stop(s, n);
	if (n <= 0)
		return false;
	if (p->asking && r.tag == p->asked_tag) {
		p->answer = r;
		return true;
	}
	t = &p->tried[r.tag];
	t->over = true;
	t->fails = !r.holds;
	t->says = said(r.output);
	note_verdict(p, t->key, r.holds);
	s->states++;
	if (t->fails) {
		s->failed++;
	} else {
		free(t->pending);
		t->pending = NULL;
	}
	tell_progress(s);
	return true;
}

static struct fate_of *fates_of(const struct search *s, const struct cuts *k)
{
	struct fate_of *f = must(malloc((k->model.n_pending + 1) * sizeof(*f)));

	for (uint32_t i = 0; i < k->model.n_pending; i++)
		f[i] = (struct fate_of){s->disk.guest[k->model.pending[i]], k->c.fate[i]};
	return f;
}

static uint32_t count_lost(const struct cuts *k)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < k->n_data; i++)
		n += k->c.fate[k->data[i]] != FATE_WHOLE;
	return n;
}

static bool wanted(const struct search *s, const struct cuts *k)
{
	for (uint32_t i = 0; s->o->one_of && i < k->n_data; i++)
		if (k->c.fate[k->data[i]] != FATE_WHOLE &&
			s->o->one_of[s->disk.guest[k->model.pending[k->data[i]]]])
			return true;
	return !s->o->one_of;
}

static void visit(struct cuts *k)
{
	struct search *s = k->arg;
	struct search_private *p = s->p;
	struct checker_facts f = facts_at(s, k->model.at);
	int err;

	if (!wanted(s, k))
		return;
	while (!checker_free_place(p->checker) && !k->stop)
		(void)collect(s);
	if (k->stop || !p->left) {
		k->stop = true;
		return;
	}
	p->left--;
	if (p->n_tried == p->room_tried) {
		p->room_tried = p->room_tried ? 2 * p->room_tried : 256;
		p->tried = must(realloc(p->tried, p->room_tried * sizeof(*p->tried)));
	}
	p->tried[p->n_tried] = (struct tried){.at = k->model.at,
		.key = cuts_key(k),
		.c = k->c,
		.n_pending = k->model.n_pending,
		.n_lost = count_lost(k),
		.pending = fates_of(s, k)};
	err = checker_start(p->checker, k, &f, p->n_tried, &p->why);
	if (err)
		stop(s, err);
	else
		p->n_tried++;
}

static void moved(struct cuts *k)
{
	struct search *s = k->arg;

	k->promises = facts_at(s, k->model.at).marks;
}

/* Asks for one state and waits; what it says besides is in p->answer. */
static bool ask(struct search *s, struct cuts *k)
{
	struct search_private *p = s->p;
	struct checker_facts f = facts_at(s, k->model.at);
	int err;

	p->asking = true;
	p->asked_tag = UINT64_MAX;
	p->answer.tag = 0;
	err = checker_start(p->checker, k, &f, p->asked_tag, &p->why);
	if (err)
		stop(s, err);
	else
		(void)collect(s);
	p->asking = false;
	if (p->answer.tag != UINT64_MAX)
		return true;
	note_verdict(p, cuts_key(k), p->answer.holds);
	return p->answer.holds;
}

static bool holds(struct cuts *k)
{
	struct search *s = k->arg;
	bool is;

	if (s->p->err)
		return true;
	cuts_take(k);
	return known_verdict(s->p, cuts_key(k), &is) ? is : ask(s, k);
}

/* ---- the cuts ---- */

static void cuts_begin(struct search *s, struct cuts *k)
{
	cuts_init(k, &s->disk.log, &s->disk.start, true);
	k->seen = &s->p->seen;
	k->visit = visit;
	k->holds = holds;
	k->moved = moved;
	k->arg = s;
	k->rng = s->o->seed ^ 0x5eed;
	k->c.unit = s->o->unit ? s->o->unit : SECTOR;
	k->whole = !s->o->unit;
	k->exhaustive = s->o->exhaustive;
	k->from = s->o->from;
	k->to = s->o->to;
}

/* Each event, or so many of them, with nothing and with everything lost. */
static void extremes(struct search *s, uint64_t budget)
{
	uint64_t n, *ticks = cuts_ticks(&s->disk.log, &n), first = 0, step;
	struct cuts *k = &s->p->k;

	while (first < n && ticks[first] < k->from)
		first++;
	while (n > first && k->to && ticks[n - 1] > k->to)
		n--;
	step = max_u64(1, div_round_up(2 * (n - first), max_u64(budget, 1)));
	/* Counted from the end, which is always one of them. */
	for (uint64_t i = first; i < n && !k->stop; i++) {
		if ((n - 1 - i) % step)
			continue;
		cuts_at(k, ticks[i]);
		moved(k);
		for (unsigned f = FATE_LOST; f <= FATE_WHOLE && !k->stop; f++) {
			cuts_set_all(k, (enum fate)f);
			if (cuts_is_new(k))
				visit(k);
		}
	}
	free(ticks);
}

static void try_all(struct search *s)
{
	struct search_private *p = s->p;

	p->left = s->o->exhaustive ? UINT64_MAX : s->o->states;
	cuts_begin(s, &p->k);
	extremes(s, s->o->states / 2);
	s->tried = p->k.tried;
	if (!p->k.stop) {
		cuts_fini(&p->k);
		cuts_begin(s, &p->k);
		cuts_run(&p->k, s->o->exhaustive ? s->o->states : p->left);
		s->tried += p->k.tried;
		s->situations = p->k.situations;
		s->exhausted = p->k.exhausted;
	}
	while (!p->err && collect(s))
		;
	cuts_fini(&p->k);
}

/* ---- reasons ---- */

static uint8_t fate_in(const struct tried *t, uint32_t op)
{
	for (uint32_t i = 0; i < t->n_pending; i++)
		if (t->pending[i].op == op)
			return t->pending[i].fate;
	return FATE_WHOLE; /* durable by then, or not written yet; see explains() */
}

static bool was_written(const struct search *s, const struct tried *t, uint32_t op)
{
	return s->log->guest[op].submitted <= t->at;
}

static bool explains(const struct search *s, const struct reason *r, const struct tried *t)
{
	for (uint32_t i = 0; i < r->n_lost; i++)
		if (was_written(s, t, r->lost[i]) && fate_in(t, r->lost[i]) == FATE_WHOLE)
			return false;
	for (uint32_t i = 0; i < r->n_kept; i++)
		if (!was_written(s, t, r->kept[i]) || fate_in(t, r->kept[i]) == FATE_LOST)
			return false;
	if (r->n_lost || r->n_kept)
		return t->at >= r->at || r->n_kept;
	/* Nothing need be lost: then there may be more than one thing that is wrong. */
	return t->at >= r->at && (t->n_lost || t->says == said(r->output));
}

/* What was lost first, and what of the kept ones was submitted only after that was acknowledged. */
static void find_flush(const struct search *s, struct reason *r)
{
	r->after = r->before = SEARCH_NONE;
	for (uint32_t i = 0; i < r->n_lost; i++) {
		uint64_t done = s->log->guest[r->lost[i]].acknowledged;

		for (uint32_t k = 0; k < r->n_kept; k++) {
			if (s->log->guest[r->kept[k]].submitted <= done)
				continue;
			r->after = r->lost[i];
			r->before = r->kept[k];
			return;
		}
	}
	for (uint32_t i = 0; i < r->n_lost && r->after == SEARCH_NONE; i++)
		if (s->log->guest[r->lost[i]].acknowledged <= r->at)
			r->after = r->lost[i];
}

static void list_ops(struct search *s, struct cuts *k, struct reason *r)
{
	uint8_t *needed = must(malloc(k->model.n_pending + 1));

	r->lost = must(calloc(k->n_data + 1, sizeof(*r->lost)));
	r->kept = must(calloc(k->n_data + 1, sizeof(*r->kept)));
	cuts_needed(k, needed);
	for (uint32_t i = 0; i < k->n_data; i++) {
		uint32_t at = k->data[i], op = s->disk.guest[k->model.pending[at]];

		if (k->c.fate[at] != FATE_WHOLE)
			r->lost[r->n_lost++] = op;
		else if (needed[at])
			r->kept[r->n_kept++] = op;
	}
	free(needed);
}

static bool is_over_another(const struct cuts *k, uint32_t i)
{
	const struct host_op *host = k->model.log->host, *o = &host[k->model.pending[i]];

	for (uint32_t n = 0; n < i; n++) {
		const struct host_op *older = &host[k->model.pending[n]];

		if (k->c.fate[n] != FATE_LOST && model_has_data(older) &&
			ranges_overlap(o->off, o->len, older->off, older->len))
			return true;
	}
	return false;
}

/* The other order of overlapping writes mostly is the usual one with the later of them lost. */
static void straighten(struct cuts *k)
{
	uint8_t *was = must(malloc(k->model.n_pending + 1));

	memcpy(was, k->c.fate, k->model.n_pending);
	k->c.reversed = false;
	if (k->holds(k)) {
		for (uint32_t i = k->n_data; i--;)
			if (is_over_another(k, k->data[i]))
				k->c.fate[k->data[i]] = FATE_LOST;
		if (k->holds(k)) {
			memcpy(k->c.fate, was, k->model.n_pending);
			k->c.reversed = true;
		}
	}
	free(was);
}

/* Without chance where chance is not what makes it fail. */
static void drop_chance(struct cuts *k)
{
	uint64_t tear = k->c.tear;

	k->c.tear = 1;
	if (k->holds(k))
		k->c.tear = tear;
}

/* k stands at t's cut. */
static void find_reason(struct search *s, struct cuts *k, const struct tried *t)
{
	struct reason *r = &s->reason[s->n_reasons];

	memset(r, 0, sizeof(*r));
	for (uint32_t i = 0; i < t->n_pending; i++)
		k->c.fate[i] = t->pending[i].fate;
	k->c.tear = t->c.tear;
	k->c.reversed = t->c.reversed;
	k->c.size = t->c.size;
	if (k->c.reversed)
		straighten(k);
	cuts_minimise(k);
	drop_chance(k);
	/* Once more: what does it say, and does it say so every time? */
	cuts_take(k);
	if (s->p->err || ask(s, k)) {
		s->unexplained++;
		return;
	}
	r->at = k->model.at;
	r->mark = facts_at(s, r->at).marks;
	r->status = s->p->answer.status;
	memcpy(r->output, s->p->answer.output, sizeof(r->output));
	r->pending = fates_of(s, k);
	r->n_pending = k->model.n_pending;
	r->choice = k->c;
	r->choice.fate = NULL;
	list_ops(s, k, r);
	find_flush(s, r);
	r->states = 1;
	s->n_reasons++;
}

static int by_cut(const void *a, const void *b)
{
	const struct tried *x = a, *y = b;

	if (x->at != y->at)
		return x->at < y->at ? -1 : 1;
	if (x->n_lost != y->n_lost)
		return x->n_lost < y->n_lost ? -1 : 1;
	return x->key < y->key ? -1 : x->key > y->key;
}

static void explain(struct search *s)
{
	struct search_private *p = s->p;
	uint64_t n = 0;

	qsort(p->tried, p->n_tried, sizeof(*p->tried), by_cut);
	s->failed_at = must(malloc((s->failed + 1) * sizeof(*s->failed_at)));
	s->reason = must(calloc(s->o->reasons + 1, sizeof(*s->reason)));
	cuts_begin(s, &p->k);
	for (uint64_t i = 0; i < p->n_tried; i++) {
		const struct tried *t = &p->tried[i];
		uint32_t r = 0;

		if (!t->over || !t->fails)
			continue;
		s->failed_at[n++] = t->at;
		while (r < s->n_reasons && !explains(s, &s->reason[r], t))
			r++;
		if (r < s->n_reasons) {
			s->reason[r].states++;
		} else if (s->n_reasons == s->o->reasons || p->err) {
			s->unexplained++;
		} else {
			cuts_at(&p->k, t->at);
			moved(&p->k);
			find_reason(s, &p->k, t);
		}
	}
	cuts_fini(&p->k);
}

/* ---- the whole ---- */

int search_run(struct loop *l, struct search *s, const struct search_opts *o,
	const struct crash_log *log, struct why *why)
{
	int err;

	*s = (struct search){.o = o, .log = log, .p = calloc(1, sizeof(*s->p))};
	if (!s->p)
		return -ENOMEM;
	s->p->loop = l;
	err = guest_disk_open(l, &s->disk, log, s->o->check.start, s->o->check.start_format, why);
	if (!err)
		err = checker_new(l, &o->check, &s->disk, &s->p->checker, why);
	if (err) {
		search_fini(s);
		return err;
	}
	try_all(s);
	if (!s->p->err || s->p->err == -EINTR)
		explain(s);
	checker_free(s->p->checker);
	s->p->checker = NULL;
	err = s->p->err;
	if (err && err != -EINTR) {
		why_set(why, err, "%s", why_text(&s->p->why, err));
		search_fini(s);
	}
	return err;
}

void search_fini(struct search *s)
{
	for (uint32_t i = 0; i < s->n_reasons; i++) {
		free(s->reason[i].pending);
		free(s->reason[i].lost);
		free(s->reason[i].kept);
	}
	for (uint64_t i = 0; s->p && i < s->p->n_tried; i++)
		free(s->p->tried[i].pending);
	if (s->p) {
		free(s->p->tried);
		free(s->p->verdict);
		seen_fini(&s->p->seen);
	}
	free(s->p);
	free(s->reason);
	free(s->failed_at);
	guest_disk_fini(&s->disk);
	*s = (struct search){0};
}
