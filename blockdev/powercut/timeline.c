/* SPDX-License-Identifier: MIT */
/*
 * timeline.c - one log as a page: timeline.html with the data in it, and nothing outside.
 *
 * Every request is a record of eight numbers, as differences, so that 100,000 of them are two
 * megabytes; the page draws what a pixel stands for.  Of longer logs, writes that follow each
 * other are one record.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/powercut/recording.h"

#define RECORDS 150000

extern const char powercut_page[], powercut_page_end[];
static const char data_here[] = "/*DATA*/";

static unsigned kind_of(const struct guest_op *g)
{
	static const unsigned kinds[] = {0, 2, 3, 4, 5};

	return g->kind == GUEST_WRITE && !g->data ? 1 : kinds[g->kind];
}

static unsigned flags_of(const struct guest_op *g)
{
	bool through = g->fua || (!g->wce_at_submit && !g->wce_at_end);

	return (g->fua ? 1u : 0) | (through && g->kind == GUEST_WRITE ? 2u : 0) | (g->err ? 4u : 0);
}

static int64_t later(uint64_t at, uint64_t than)
{
	return at == NEVER || than == NEVER ? -1 : (int64_t)(at - than);
}

/* A write that can be told together with the one before it. */
static bool joins(const struct guest_op *g, const struct guest_op *last)
{
	return g->kind == GUEST_WRITE && last->kind == GUEST_WRITE && kind_of(g) == kind_of(last) &&
	       flags_of(g) == flags_of(last) && g->sector > last->sector;
}

/* place: by operation, its record. */
static void put_ops(FILE *f, const struct timeline *t, uint32_t *place)
{
	const struct crash_log *log = &t->r->log;
	uint64_t *durable = recording_durable(t->r), last = 0, step, n = 0, many;

	step = log->n_guest / RECORDS + 1;
	fputs("ops:[", f);
	for (uint64_t i = 0; i < log->n_guest; i += many) {
		const struct guest_op *g = &log->guest[i];
		uint64_t end = g->sector + g->n;

		for (many = 1; many < step && i + many < log->n_guest &&
			       joins(&log->guest[i + many], &log->guest[i + many - 1]);
			many++)
			end = max_u64(end, log->guest[i + many].sector + log->guest[i + many].n);
		fprintf(f,
			"%u,%" PRIu64 ",%" PRId64 ",%" PRId64 ",%" PRIu64 ",%" PRIu64 ",%u,%" PRIu64
			",",
			kind_of(g), g->submitted - last, later(g->acknowledged, g->submitted),
			later(durable[i + many - 1], g->acknowledged), g->sector, end - g->sector,
			flags_of(g), many);
		last = g->submitted;
		for (uint64_t k = 0; k < many; k++)
			place[i + k] = (uint32_t)n;
		n++;
	}
	fputs("],\n", f);
	free(durable);
}

static json_t *text(const char *s)
{
	json_t *j = json_string(s);

	/* What a check prints need not be UTF-8. */
	return j ? j : json_string("(not text)");
}

static json_t *marks(const struct timeline *t)
{
	json_t *all = json_array();

	for (uint64_t i = 0; i < t->r->n_marks; i++)
		json_array_append_new(all, json_pack("[I, o]", (json_int_t)t->r->mark[i].at,
						   text(t->r->mark[i].text)));
	return all;
}

static json_t *fails(const struct timeline *t)
{
	json_t *all = json_array();
	uint64_t n;

	for (uint64_t i = 0; i < t->n_failed; i += n) {
		for (n = 1; i + n < t->n_failed && t->failed_at[i + n] == t->failed_at[i];)
			n++;
		json_array_append_new(
			all, json_pack("[I, I]", (json_int_t)t->failed_at[i], (json_int_t)n));
	}
	return all;
}

static void card(json_t *all, uint64_t n, const char *of, const char *class)
{
	json_array_append_new(all, json_pack("[I, s, s]", (json_int_t)n, of, class));
}

static json_t *cards(const struct timeline *t)
{
	json_t *all = json_array();

	card(all, t->r->log.clock, "events", "");
	card(all, t->r->n_writes, "writes", "");
	card(all, t->r->n_flushes, "flushes", "");
	if (t->r->n_marks)
		card(all, t->r->n_marks, "marks", "");
	if (t->judged) {
		card(all, t->states, "cuts judged", "");
		card(all, t->n_failed, "failed", t->n_failed ? "bad" : "good");
	}
	if (t->verdicts) {
		uint64_t needed = 0, never = 0;

		for (uint64_t i = 0; i < t->r->n_flushes; i++) {
			needed += t->verdicts[i] == 1;
			never += t->verdicts[i] == 2;
		}
		card(all, needed, "flushes bear a load", "");
		card(all, never, "flushes never needed", "");
	}
	return all;
}

static json_t *places(const uint32_t *op, uint32_t n, const uint32_t *place)
{
	json_t *all = json_array();

	for (uint32_t i = 0; i < n; i++)
		json_array_append_new(all, json_integer(place[op[i]]));
	return all;
}

static json_t *one_reason(const struct told *r, const uint32_t *place)
{
	json_t *lines = json_array(), *gap = json_null();

	for (unsigned i = 0; i < ARRAY_SIZE(r->text); i++)
		if (*r->text[i])
			json_array_append_new(lines, text(r->text[i]));
	if (r->has_gap)
		gap = json_pack("[I, I]", (json_int_t)r->gap_from, (json_int_t)r->gap_to);
	return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:s}", "at", (json_int_t)r->at,
		"title", text(r->title), "text", lines, "lost", places(r->lost, r->n_lost, place),
		"kept", places(r->kept, r->n_kept, place), "gap", gap, "output",
		text(r->output ? r->output : ""), "replay", r->replay ? r->replay : "");
}

/* As part of a script: nothing in it ends that. */
static void put_json(FILE *f, const char *name, json_t *j)
{
	char *s = json_dumps(j, JSON_COMPACT | JSON_ENCODE_ANY);

	fprintf(f, "%s:", name);
	for (const char *at = s ? s : "null"; *at; at++) {
		if (*at == '<')
			fputs("\\u003c", f);
		else
			fputc(*at, f);
	}
	fputs(",\n", f);
	free(s);
	json_decref(j);
}

static void put_data(FILE *f, const struct timeline *t)
{
	uint32_t *place = calloc(t->r->log.n_guest + 1, sizeof(*place));
	json_t *reasons = json_array(), *verdicts = json_array();
	const char *name = strrchr(t->r->path, '/');

	if (!place)
		abort();
	fprintf(f, "const D = {clock:%" PRIu64 ",disk:%" PRIu64 ",written:%" PRIu64 ",judged:%s,\n",
		t->r->log.clock, t->r->size, t->r->written,
		t->judged || t->verdicts ? "true" : "false");
	put_ops(f, t, place);
	for (uint32_t i = 0; i < t->n_told; i++)
		json_array_append_new(reasons, one_reason(&t->told[i], place));
	for (uint64_t i = 0; i < t->r->n_flushes; i++)
		json_array_append_new(verdicts, json_integer(t->verdicts ? t->verdicts[i] : 0));
	put_json(f, "log", text(name ? name + 1 : t->r->path));
	put_json(f, "marks", marks(t));
	put_json(f, "fails", fails(t));
	put_json(f, "cards", cards(t));
	put_json(f, "reasons", reasons);
	put_json(f, "verdicts", verdicts);
	put_json(f, "gap", json_string(t->gap ? t->gap : ""));
	put_json(f, "verdict", json_string(t->verdict ? t->verdict : ""));
	fputs("};", f);
	free(place);
}

int timeline_write(const struct timeline *t, const char *path, struct why *why)
{
	size_t len = (size_t)(powercut_page_end - powercut_page);
	const char *here = memmem(powercut_page, len, data_here, sizeof(data_here) - 1);
	FILE *f = fopen(path, "we");
	int err = 0;

	assert(here);
	if (!f)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	fwrite(powercut_page, 1, (size_t)(here - powercut_page), f);
	put_data(f, t);
	here += sizeof(data_here) - 1;
	fwrite(here, 1, (size_t)(powercut_page_end - here), f);
	if (ferror(f))
		err = -EIO;
	if (fclose(f) && !err)
		err = -errno;
	return err ? why_set(why, err, "%s: %s", path, strerror(-err)) : 0;
}
