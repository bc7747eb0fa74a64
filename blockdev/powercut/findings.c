/* SPDX-License-Identifier: MIT */
/*
 * findings.c - see findings.h.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/powercut/findings.h"

void findings_init(struct findings *f, const struct recording *r, uint32_t max)
{
	*f = (struct findings){.r = r, .max = max, .all = calloc(max, sizeof(*f->all))};
	if (!f->all)
		abort();
}

void findings_fini(struct findings *f)
{
	free(f->all);
	free(f->failed_at);
}

/* ---- whose promise it was ---- */

/* The first flush that covers what had completed before this tick, if it was over by then. */
static uint32_t flush_after(const struct recording *r, uint64_t completed, uint64_t at)
{
	for (uint32_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];

		if ((g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF) && !g->err &&
			g->submitted > completed && g->acknowledged <= at)
			return i;
	}
	return SEARCH_NONE;
}

/* Sluice's own promise: with the cache off at either end of its life. */
static bool by_itself(const struct guest_op *g)
{
	return g->fua || !g->wce_at_submit || !g->wce_at_end;
}

/* The last write of that sector that was promised by then. */
static void blame_guest(const struct recording *r, struct finding *f)
{
	for (uint32_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];
		uint32_t flush = SEARCH_NONE;

		if (g->kind != GUEST_WRITE || g->err || g->acknowledged > f->at ||
			f->sector - g->sector >= g->n)
			continue;
		if (!by_itself(g)) {
			flush = flush_after(r, g->acknowledged, f->at);
			if (flush == SEARCH_NONE)
				continue;
		}
		f->write = i;
		f->flush = flush;
	}
}

/* Of what is lost, the host writes that have to be, and the first flush that covered one. */
static void blame_host(const struct findings *all, struct finding *f, const struct explorer *e)
{
	for (uint32_t i = 0; i < e->k.model.n_pending; i++) {
		const struct host_op *o = &e->k.model.log->host[e->k.model.pending[i]];
		uint32_t flush;

		if (e->k.c.fate[i] == FATE_WHOLE || !model_has_data(o))
			continue;
		if (f->n_lost < FINDING_LOST) {
			f->lost[f->n_lost].op = *o;
			f->lost[f->n_lost].op.data = NULL;
			f->lost[f->n_lost++].role = role_of(&e->roles, o);
		}
		flush = flush_after(all->r, o->completed, f->at);
		if (flush < f->flush)
			f->flush = flush;
	}
	f->shorter = e->k.c.size < e->k.sizes[e->k.n_sizes - 1];
}

/* One flush is told once, and so are all writes with FUA, and all without a cache. */
static bool same(const struct recording *r, const struct finding *a, const struct finding *b)
{
	const struct guest_op *g = r->log.guest;

	if ((a->sector == UINT64_MAX) != (b->sector == UINT64_MAX) || a->flush != b->flush)
		return false;
	return a->write == SEARCH_NONE || b->write == SEARCH_NONE || a->flush != SEARCH_NONE ||
	       g[a->write].fua == g[b->write].fua;
}

static void note_tick(struct findings *f, uint64_t at)
{
	if (f->failed == f->room) {
		f->room = f->room ? 2 * f->room : 256;
		f->failed_at = realloc(f->failed_at, f->room * sizeof(*f->failed_at));
		if (!f->failed_at)
			abort();
	}
	f->failed_at[f->failed++] = at;
}

void findings_add(struct findings *f, struct explorer *e)
{
	struct finding one = {.at = e->k.model.at,
		.states = 1,
		.sector = e->sector,
		.write = SEARCH_NONE,
		.flush = SEARCH_NONE};

	note_tick(f, one.at);
	if (f->n == f->max) {
		f->more++;
		return;
	}
	/* Smaller first: then what is lost is to blame, and nothing else. */
	if (one.sector == UINT64_MAX)
		explorer_minimise(e);
	one.sector = e->sector;
	memcpy(one.why, e->why, sizeof(one.why));
	if (one.sector == UINT64_MAX)
		blame_host(f, &one, e);
	else
		blame_guest(f->r, &one);
	for (uint32_t i = 0; i < f->n; i++)
		if (same(f->r, &f->all[i], &one)) {
			f->all[i].states++;
			return;
		}
	f->all[f->n++] = one;
}

/* ---- in words ---- */

/* "" if nothing was promised. */
static void promised(const struct recording *r, const struct finding *f, char *out, size_t room)
{
	char text[200];

	*out = 0;
	if (f->flush != SEARCH_NONE) {
		recording_tell(r, f->flush, text, sizeof(text));
		snprintf(out, room, "promised by flush #%" PRIu64 ": %s",
			recording_flush_number(r, f->flush), text);
	} else if (f->write != SEARCH_NONE) {
		snprintf(out, room, "promised at once: %s",
			r->log.guest[f->write].fua ? "with FUA" : "the cache was off");
	}
}

static void title(const struct recording *r, const struct finding *f, char *out, size_t room)
{
	if (f->flush != SEARCH_NONE)
		snprintf(out, room, "breaks what flush #%" PRIu64 " promised: %s",
			recording_flush_number(r, f->flush), f->why);
	else if (f->write != SEARCH_NONE)
		snprintf(out, room, "breaks what a write promised: %s", f->why);
	else
		snprintf(out, room, "breaks the image: %s", f->why);
}

static void tell_lost(const struct finding *f, uint32_t i, char *out, size_t room)
{
	const struct host_op *o = &f->lost[i].op;
	size_t n = (size_t)snprintf(out, room,
		"the host's write of %" PRIu64 " bytes at %" PRIu64 " (%s), event %" PRIu64, o->len,
		o->off, role_names[f->lost[i].role], o->submitted);

	if (o->completed != NEVER && n < room)
		snprintf(out + n, room - n, ", completed at %" PRIu64, o->completed);
}

static void print_one(const struct recording *r, const struct finding *f)
{
	char text[300];

	printf("after event %" PRIu64 ": %s (%" PRIu64 " of the states)\n", f->at, f->why,
		f->states);
	if (f->write != SEARCH_NONE) {
		recording_tell(r, f->write, text, sizeof(text));
		printf("  it was written by the %s\n", text);
	}
	for (uint32_t i = 0; i < f->n_lost; i++) {
		tell_lost(f, i, text, sizeof(text));
		printf("  lost: %s\n", text);
	}
	if (f->shorter)
		printf("  lost: that the file has grown\n");
	promised(r, f, text, sizeof(text));
	if (*text)
		printf("  and %s\n", text);
	else
		printf("  no flush of the guest's had covered it; the image itself needs that "
		       "order\n");
}

void findings_print(const struct findings *f, uint64_t states)
{
	for (uint32_t i = 0; i < f->n; i++)
		print_one(f->r, &f->all[i]);
	if (f->more)
		printf("%" PRIu64 " more states fail, and were not looked into\n", f->more);
	printf("%" PRIu64 " states of %" PRIu64 " events judged: %" PRIu64 " break a promise\n",
		states, f->r->log.clock, f->failed);
}

/* ---- as JSON ---- */

static json_t *number_or_null(bool is, uint64_t n)
{
	return is ? json_integer((json_int_t)n) : json_null();
}

static json_t *json_lost(const struct finding *f)
{
	json_t *all = json_array();

	for (uint32_t i = 0; i < f->n_lost; i++) {
		const struct host_op *o = &f->lost[i].op;

		json_array_append_new(all,
			json_pack("{s:I, s:I, s:s, s:I, s:o}", "offset", (json_int_t)o->off,
				"bytes", (json_int_t)o->len, "role", role_names[f->lost[i].role],
				"event", (json_int_t)o->submitted, "completed",
				number_or_null(o->completed != NEVER, o->completed)));
	}
	return all;
}

static json_t *json_one(const struct recording *r, const struct finding *f)
{
	const struct guest_op *g = r->log.guest;
	bool write = f->write != SEARCH_NONE, flush = f->flush != SEARCH_NONE;
	char text[300];

	promised(r, f, text, sizeof(text));
	return json_pack("{s:I, s:I, s:s, s:o, s:o, s:o, s:o, s:s, s:o}", "at", (json_int_t)f->at,
		"states", (json_int_t)f->states, "why", f->why, "sector",
		number_or_null(f->sector != UINT64_MAX, f->sector), "write",
		number_or_null(write, write ? g[f->write].submitted : 0), "flush",
		number_or_null(flush, flush ? recording_flush_number(r, f->flush) : 0),
		"flush_event", number_or_null(flush, flush ? g[f->flush].submitted : 0), "promised",
		text, "lost", json_lost(f));
}

void findings_json(const struct findings *f, uint64_t states, const char *image)
{
	json_t *all = json_array(), *top;

	for (uint32_t i = 0; i < f->n; i++)
		json_array_append_new(all, json_one(f->r, &f->all[i]));
	top = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:o}", "log", f->r->path, "image", image,
		"events", (json_int_t)f->r->log.clock, "states", (json_int_t)states, "failed",
		(json_int_t)f->failed, "unexplained", (json_int_t)f->more, "findings", all);
	json_dumpf(top, stdout, JSON_INDENT(4));
	putchar('\n');
	json_decref(top);
}

/* ---- as a page ---- */

static struct told tell(const struct recording *r, const struct finding *f)
{
	uint32_t by = f->flush != SEARCH_NONE ? f->flush : f->write;
	struct told t = {.at = f->at,
		.lost = &f->write,
		.n_lost = f->write != SEARCH_NONE,
		.has_gap = by != SEARCH_NONE,
		.gap_to = f->at};
	char text[280];

	if (t.has_gap)
		t.gap_from = r->log.guest[by].acknowledged;
	title(r, f, t.title, sizeof(t.title));
	promised(r, f, text, sizeof(text));
	if (*text)
		snprintf(t.text[0], sizeof(t.text[0]), "It was %s.", text);
	if (f->n_lost) {
		tell_lost(f, 0, text, sizeof(text));
		snprintf(t.text[1], sizeof(t.text[1]), "Lost: %s.", text);
	}
	return t;
}

int findings_draw(const struct findings *f, uint64_t states, const char *path, struct why *why)
{
	struct told *told = calloc(f->n + 1, sizeof(*told));
	char words[100];
	struct timeline t = {.r = f->r,
		.judged = true,
		.states = states,
		.n_failed = f->failed,
		.failed_at = f->failed_at,
		.told = told,
		.n_told = f->n,
		.gap = "this was promised, and lost",
		.verdict = words};
	int err;

	if (!told)
		return -ENOMEM;
	snprintf(words, sizeof(words), "%" PRIu64 " states judged, %" PRIu64 " break a promise",
		states, f->failed);
	for (uint32_t i = 0; i < f->n; i++)
		told[i] = tell(f->r, &f->all[i]);
	err = timeline_write(&t, path, why);
	free(told);
	return err;
}
