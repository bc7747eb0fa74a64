/* SPDX-License-Identifier: MIT */
/*
 * words.c - how the commands speak of requests, flushes and reasons.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/powercut/recording.h"

static bool is_flush(const struct guest_op *g)
{
	return g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF;
}

uint64_t recording_flush_number(const struct recording *r, uint32_t i)
{
	uint64_t n = 0;

	for (uint32_t k = 0; k <= i && k < r->log.n_guest; k++)
		n += is_flush(&r->log.guest[k]);
	return n;
}

void recording_tell(const struct recording *r, uint32_t i, char *out, size_t room)
{
	static const char *const names[] = {
		"write", "discard", "flush", "cache turned off", "cache turned on"};
	const struct guest_op *g = &r->log.guest[i];
	size_t n = (size_t)snprintf(out, room, "%s%s",
		g->kind == GUEST_WRITE && !g->data ? "write of zeros" : names[g->kind],
		g->fua ? " with FUA" : "");

	if (g->n && n < room)
		n += (size_t)snprintf(out + n, room - n, " of %" PRIu64 " sector%s at %" PRIu64,
			g->n, g->n == 1 ? "" : "s", g->sector);
	if (n < room)
		n += (size_t)snprintf(out + n, room - n, ", event %" PRIu64, g->submitted);
	if (n < room && g->acknowledged != NEVER)
		snprintf(out + n, room - n, ", acknowledged at %" PRIu64, g->acknowledged);
	else if (n < room)
		snprintf(out + n, room - n, ", never acknowledged");
}

void reason_title(const struct recording *r, const struct reason *why, char *out, size_t room)
{
	const struct guest_op *g = r->log.guest;
	size_t n;

	if (!why->n_lost) {
		snprintf(out, room,
			"fails with nothing lost%s: all that was written up to event %" PRIu64
			" is there",
			why->choice.reversed ? ", overlapping writes in the other order" : "",
			why->at);
		return;
	}
	n = (size_t)snprintf(
		out, room, "fails if the write of event %" PRIu64, g[why->lost[0]].submitted);
	if (why->n_lost > 1 && n < room)
		n += (size_t)snprintf(out + n, room - n, " and %u more", why->n_lost - 1);
	if (n < room)
		n += (size_t)snprintf(out + n, room - n, " %s", why->n_lost > 1 ? "are" : "is");
	for (uint32_t i = 0; i < why->n_pending && n < room; i++)
		if (why->pending[i].op == why->lost[0]) {
			n += (size_t)snprintf(out + n, room - n, " %s",
				why->pending[i].fate == FATE_TORN ? "torn" : "lost");
			break;
		}
	if (why->n_kept && n < room)
		n += (size_t)snprintf(out + n, room - n,
			" while the write of event %" PRIu64 "%s is kept",
			g[why->kept[0]].submitted, why->n_kept > 1 ? " with others" : "");
	if (n < room && !why->n_kept)
		snprintf(out + n, room - n, ", whatever else is");
}

/* The last flush that was submitted before this tick and the first after it; SEARCH_NONE: none. */
static void flushes_around(
	const struct recording *r, uint64_t after, uint64_t before, uint32_t *early, uint32_t *late)
{
	*early = *late = SEARCH_NONE;
	for (uint32_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];

		if (!is_flush(g))
			continue;
		if (g->submitted <= after)
			*early = i;
		else if (*late == SEARCH_NONE && (g->acknowledged >= before || g->err))
			*late = i;
	}
}

void reason_flush(const struct recording *r, const struct reason *why, char *out, size_t room)
{
	const struct guest_op *g = r->log.guest;
	uint64_t after, before;
	uint32_t early, late;
	size_t n;

	*out = 0;
	if (!why->n_lost) {
		snprintf(out, room, "%s",
			why->mark ? "an fsync in the guest: all that it had written is there"
				  : "not a flush: all that had been written is there");
		return;
	}
	if (why->after == SEARCH_NONE) {
		snprintf(
			out, room, "no flush would have helped: the two were on their way at once");
		return;
	}
	after = g[why->after].acknowledged;
	before = why->before == SEARCH_NONE ? why->at : g[why->before].submitted;
	n = (size_t)snprintf(out, room, "a flush after event %" PRIu64 " and before event %" PRIu64,
		after, before);
	flushes_around(r, after, before, &early, &late);
	if (early != SEARCH_NONE && n < room)
		n += (size_t)snprintf(out + n, room - n,
			"; flush #%" PRIu64 " (event %" PRIu64 ") is too early",
			recording_flush_number(r, early), g[early].submitted);
	if (late != SEARCH_NONE && n < room)
		snprintf(out + n, room - n, "%s flush #%" PRIu64 " (event %" PRIu64 ") too late",
			early == SEARCH_NONE ? ";" : ",", recording_flush_number(r, late),
			g[late].submitted);
}

/* As one word of a shell's. */
static void put_word(FILE *f, const char *s)
{
	size_t plain = strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
				 "/._-+,:=@%");

	if (*s && !s[plain]) {
		fputs(s, f);
		return;
	}
	fputc('\'', f);
	for (; *s; s++)
		fputs(*s == '\'' ? "'\\''" : (char[]){*s, 0}, f);
	fputc('\'', f);
}

/* Exceptions from "all is kept": -EVENT lost, ~EVENT torn. */
char *reason_replay(const struct recording *r, const struct reason *why, uint32_t unit)
{
	char *out = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&out, &size);

	if (!f)
		return NULL;
	fputs("sluice powercut replay ", f);
	put_word(f, r->path);
	fprintf(f, " --at %" PRIu64 " --policy subset=all", why->at);
	for (uint32_t i = 0; i < why->n_pending; i++)
		if (why->pending[i].fate != FATE_WHOLE && r->log.guest[why->pending[i].op].n)
			fprintf(f, ",%c%" PRIu64, why->pending[i].fate == FATE_TORN ? '~' : '-',
				r->log.guest[why->pending[i].op].submitted);
	fprintf(f, " --seed %" PRIu64, why->choice.tear);
	if (unit != SECTOR)
		fprintf(f, unit ? " --tear %u" : " --tear none", unit);
	if (r->image) {
		fputs(" --image ", f);
		put_word(f, r->image);
	}
	if (r->image && r->image_format)
		fprintf(f, " --image-format %s", r->image_format);
	fprintf(f, "%s -o cut.raw", why->choice.reversed ? " --reverse" : "");
	return fclose(f) ? NULL : out;
}

struct told reason_told(const struct recording *r, const struct reason *why, uint32_t unit)
{
	struct told t = {.output = why->output,
		.replay = reason_replay(r, why, unit),
		.at = why->at,
		.lost = why->lost,
		.kept = why->kept,
		.n_lost = why->n_lost,
		.n_kept = why->n_kept,
		.has_gap = why->after != SEARCH_NONE};
	const struct guest_op *g = r->log.guest;
	char flush[280];

	if (t.has_gap) {
		t.gap_from = g[why->after].acknowledged;
		t.gap_to = why->before == SEARCH_NONE ? why->at : g[why->before].submitted;
	}
	reason_title(r, why, t.title, sizeof(t.title));
	reason_flush(r, why, flush, sizeof(flush));
	if (*flush)
		snprintf(t.text[0], sizeof(t.text[0]), "Missing: %s.", flush);
	snprintf(t.text[1], sizeof(t.text[1]),
		"%" PRIu64 " of the cuts, here at event %" PRIu64 "%s%.80s%s", why->states, why->at,
		why->mark ? ", after the mark \"" : "",
		why->mark ? r->mark[why->mark - 1].text : "", why->mark ? "\"." : ".");
	return t;
}

uint64_t *recording_durable(const struct recording *r)
{
	uint64_t n = r->log.n_guest, *durable = malloc((n + 1) * sizeof(*durable)), k = 0;
	uint64_t *sub = malloc((n + 1) * sizeof(*sub)), *done = malloc((n + 1) * sizeof(*done));

	if (!durable || !sub || !done)
		abort();
	/* Of the flushes that were submitted at this tick or later, when the first is over. */
	for (uint64_t i = 0; i < n; i++) {
		const struct guest_op *g = &r->log.guest[i];

		if (!is_flush(g) || g->err)
			continue;
		sub[k] = g->submitted;
		done[k++] = g->acknowledged;
	}
	for (uint64_t i = k; i > 1; i--)
		done[i - 2] = min_u64(done[i - 2], done[i - 1]);
	for (uint64_t i = 0; i < n; i++) {
		const struct guest_op *g = &r->log.guest[i];
		uint64_t lo = 0, hi = k;

		while (lo < hi) {
			uint64_t mid = lo + (hi - lo) / 2;

			if (sub[mid] <= g->acknowledged)
				lo = mid + 1;
			else
				hi = mid;
		}
		durable[i] = lo < k ? done[lo] : NEVER;
		if (g->fua || (!g->wce_at_submit && !g->wce_at_end) || is_flush(g))
			durable[i] = g->acknowledged;
	}
	free(sub);
	free(done);
	return durable;
}
