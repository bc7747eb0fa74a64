/* SPDX-License-Identifier: MIT */
/*
 * flushes.c - sluice powercut flushes: which flushes a guest's software needs.
 *
 * One flush at a time is taken for one that the disk ignored.  The cuts from its acknowledgement to
 * the end of the next one that covers as much are judged, those in which something is lost that
 * only this flush had made durable.  One of them fails: it bears a load.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/powercut/recording.h"

static const char help[] =
	"Usage: sluice powercut flushes LOG --check CMD --image IMAGE [OPTION]...\n"
	"Leaves out one flush of a recorded guest at a time, and says which bear a load and which\n"
	"were never needed.\n"
	"\n"
	"Options are those of sluice powercut explore; --states N is for each flush (50).\n"
	"Exit status: 0 all flushes were tried, 1 it could not be done.\n"
	"\n"
	"Example:\n"
	"  sluice powercut flushes run.log --image before.raw --check 'e2fsck -fn {}'\n";

enum verdict_of { NOT_TRIED, BEARS, NEVER_NEEDED };

struct one_flush {
	uint32_t op;
	uint64_t writes, bytes, from, to, cuts, failed; /* writes that only it makes durable */
	enum verdict_of verdict;
	char why[260];
};

static bool is_flush(const struct guest_op *g)
{
	return (g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF) && !g->err &&
	       g->acknowledged != NEVER;
}

/* When all that it covers is covered by another one; NEVER: not in this log. */
static uint64_t covered_again(const struct crash_log *log, uint32_t flush)
{
	uint64_t at = NEVER;

	for (uint32_t i = 0; i < log->n_guest; i++)
		if (i != flush && is_flush(&log->guest[i]) &&
			log->guest[i].submitted >= log->guest[flush].submitted)
			at = min_u64(at, log->guest[i].acknowledged);
	return at;
}

/* only: by operation, is it a write that nothing but this flush makes durable before `to`? */
static void what_it_covers(const struct recording *r, struct one_flush *f, uint8_t *only)
{
	struct guest_op *flush = &r->log.guest[f->op];
	uint64_t *durable, again = covered_again(&r->log, f->op);
	int err = flush->err;

	flush->err = -EIO;
	durable = recording_durable(r);
	flush->err = err;
	f->from = flush->acknowledged;
	f->to = again == NEVER ? r->log.clock : again - 1;
	for (uint32_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];

		only[i] = g->kind == GUEST_WRITE && !g->err && g->acknowledged < flush->submitted &&
			  durable[i] > f->from;
		f->writes += only[i];
		f->bytes += only[i] ? g->n * SECTOR : 0;
	}
	free(durable);
}

static void judge_by(
	const struct recording *r, struct one_flush *f, const struct search *s, const uint8_t *only)
{
	f->cuts = s->states;
	f->failed = s->failed;
	f->verdict = NEVER_NEEDED;
	for (uint32_t i = 0; i < s->n_reasons; i++) {
		const struct reason *why = &s->reason[i];

		for (uint32_t k = 0; k < why->n_lost; k++) {
			if (!only[why->lost[k]])
				continue;
			f->verdict = BEARS;
			reason_title(r, why, f->why, sizeof(f->why));
			return;
		}
	}
	if (s->failed)
		snprintf(f->why, sizeof(f->why), "fails with it as well");
}

static int try_without(struct loop *l, const struct judge_args *a, struct recording *r,
	struct one_flush *f, uint8_t *only, struct why *why)
{
	struct guest_op *flush = &r->log.guest[f->op];
	struct search_opts o = judge_args_search(a, r);
	struct search s;
	int err;

	what_it_covers(r, f, only);
	if (!f->writes || f->to < f->from) {
		f->verdict = NEVER_NEEDED;
		snprintf(f->why, sizeof(f->why), "nothing to make durable");
		return 0;
	}
	o.from = f->from;
	o.to = f->to;
	o.one_of = only;
	o.reasons = 3;
	flush->err = -EIO;
	err = search_run(l, &s, &o, &r->log, why);
	flush->err = 0;
	if (err)
		return err;
	judge_by(r, f, &s, only);
	search_fini(&s);
	return 0;
}

/* ---- the report ---- */

static const char *const words_of[] = {"not tried", "bears a load", "never needed"};

static uint64_t count(const struct one_flush *f, uint64_t n, enum verdict_of v)
{
	uint64_t k = 0;

	for (uint64_t i = 0; i < n; i++)
		k += f[i].verdict == v;
	return k;
}

static void print_text(const struct recording *r, const struct one_flush *f, uint64_t n)
{
	printf("%8s %9s %8s %10s %6s  %s\n", "flush", "event", "writes", "bytes", "cuts", "");
	for (uint64_t i = 0; i < n; i++)
		printf("%8" PRIu64 " %9" PRIu64 " %8" PRIu64 " %10" PRIu64 " %6" PRIu64
		       "  %s%s%s\n",
			i + 1, r->log.guest[f[i].op].submitted, f[i].writes, f[i].bytes, f[i].cuts,
			words_of[f[i].verdict], f[i].why[0] ? ": " : "", f[i].why);
	printf("%" PRIu64 " flushes: %" PRIu64 " bear a load, %" PRIu64 " were never needed\n", n,
		count(f, n, BEARS), count(f, n, NEVER_NEEDED));
}

static void print_json(const struct recording *r, const struct one_flush *f, uint64_t n)
{
	json_t *all = json_array(), *top;

	for (uint64_t i = 0; i < n; i++)
		json_array_append_new(
			all, json_pack("{s:I, s:I, s:I, s:I, s:b, s:s}", "event",
				     (json_int_t)r->log.guest[f[i].op].submitted, "writes",
				     (json_int_t)f[i].writes, "bytes", (json_int_t)f[i].bytes,
				     "cuts", (json_int_t)f[i].cuts, "load_bearing",
				     f[i].verdict == BEARS, "why", f[i].why));
	top = json_pack("{s:s, s:I, s:I, s:o}", "log", r->path, "load_bearing",
		(json_int_t)count(f, n, BEARS), "never_needed",
		(json_int_t)count(f, n, NEVER_NEEDED), "flushes", all);
	json_dumpf(top, stdout, JSON_INDENT(4));
	putchar('\n');
	json_decref(top);
}

static int write_html(const struct judge_args *a, const struct recording *r,
	const struct one_flush *f, uint64_t n, struct why *why)
{
	struct timeline t = {.r = r};
	uint8_t *verdicts = calloc(r->n_flushes + 1, 1);
	char words[120];
	int err;

	if (!verdicts)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++)
		verdicts[recording_flush_number(r, f[i].op) - 1] = (uint8_t)f[i].verdict;
	snprintf(words, sizeof(words), "%" PRIu64 " of %" PRIu64 " flushes bear a load",
		count(f, n, BEARS), n);
	t.verdicts = verdicts;
	t.verdict = words;
	err = timeline_write(&t, a->html, why);
	free(verdicts);
	return err;
}

static int try_all(struct loop *l, const struct judge_args *a, struct recording *r, struct why *why)
{
	struct one_flush *f = calloc(r->n_flushes + 1, sizeof(*f));
	uint8_t *only = malloc(r->log.n_guest + 1);
	uint64_t n = 0;
	int err = f && only ? 0 : -ENOMEM;

	for (uint32_t i = 0; i < r->log.n_guest && !err; i++) {
		if (!is_flush(&r->log.guest[i]))
			continue;
		if (a->progress)
			fprintf(stderr, "\r\033[Kflush %" PRIu64 " of %" PRIu64, n + 1,
				r->n_flushes);
		f[n].op = i;
		err = try_without(l, a, r, &f[n++], only, why);
	}
	if (a->progress)
		fprintf(stderr, "\r\033[K");
	if (!err && a->html)
		err = write_html(a, r, f, n, why);
	if (!err && a->json)
		print_json(r, f, n);
	else if (!err)
		print_text(r, f, n);
	free(f);
	free(only);
	return err;
}

int powercut_flushes(int argc, char **argv)
{
	struct judge_args a;
	struct recording r;
	struct why why = {""};
	int err, status = judge_args_begin(&a, &r, argc, argv, help);

	if (status)
		return status < 0 ? 0 : 1;
	if (!a.states_given)
		a.states = 50;
	err = try_all(a.loop, &a, &r, &why);
	if (err)
		log_error("%s", why_text(&why, err));
	judge_args_over(&a, &r);
	return err ? 1 : 0;
}
