/* SPDX-License-Identifier: MIT */
/*
 * explore.c - sluice powercut explore: which power cuts a guest's software would not survive.
 *
 * The guest's log alone decides what a cut may leave (guest_disk.h); whether that is all right
 * decides a command of the user's (checker.h).
 */
#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/progress.h"
#include "blockdev/powercut/recording.h"

static const char help[] =
	"Usage: sluice powercut explore LOG --check CMD --image IMAGE [OPTION]...\n"
	"Tries the power cuts of a recorded guest and says which ones its software would not "
	"survive.\n"
	"\n"
	"  --check CMD       judges one image: sh runs it, exit status 0 means all right; {} is "
	"the\n"
	"                    image's path, as are $1 and $IMAGE; $SCRATCH is an empty directory,\n"
	"                    $MARK the last mark before the cut\n"
	"  --image IMAGE     the image as it was when the log began; only read\n"
	"  --image-format F  raw or qcow2; default: probed\n"
	"  --as raw|qcow2    what CMD is given; qcow2: an overlay over IMAGE, for sluice run "
	"(raw)\n"
	"  --states N        about how many cuts to judge (1000)\n"
	"  --exhaustive      besides, every subset wherever at most 12 writes are at risk\n"
	"  --tear 512|4096|none  what a torn write consists of (512)\n"
	"  --seed N          another choice of cuts where not all are tried (1)\n"
	"  --jobs N          commands at once (as many as there are processors)\n"
	"  --reasons N       make at most so many failing cuts smaller (10)\n"
	"  --html FILE       the log as a timeline, with what fails\n"
	"  --json            the result for programs\n"
	"  -p                show progress\n"
	"\n"
	"Exit status: 0 no cut failed, 1 it could not be done, 2 cuts failed.\n"
	"\n"
	"Examples:\n"
	"  sluice powercut explore run.log --image before.raw --check 'e2fsck -fn {}'\n"
	"  sluice powercut explore run.log --image before.raw --html run.html --check '\n"
	"      debugfs -R \"dump db $SCRATCH/db\" {} && sqlite3 $SCRATCH/db \"pragma "
	"integrity_check\" | grep -qx ok'\n"
	"  sluice powercut explore run.log --image base.qcow2 --as qcow2 --check '\n"
	"      sluice run -m 256M -kernel vmlinuz -append verify -drive file={},format=qcow2'\n";

static volatile bool interrupted;

static void on_interrupt(int sig)
{
	interrupted = true;
}

static void catch_interrupts(void)
{
	struct sigaction sa = {.sa_handler = on_interrupt};

	sigaction(SIGINT, &sa, NULL);
	sigaction(SIGTERM, &sa, NULL);
}

static void progress(void *arg, uint64_t done, uint64_t failed)
{
	const struct judge_args *a = arg;

	if (!a->progress)
		return;
	fprintf(stderr, "\r\033[K%" PRIu64 " of about %" PRIu64 " cuts judged, %" PRIu64 " failed",
		done, a->states, failed);
	fflush(stderr);
}

static void progress_over(const struct judge_args *a)
{
	if (a->progress)
		fprintf(stderr, "\r\033[K");
}

/* ---- the report ---- */

static void print_some(const struct recording *r, const char *what, const uint32_t *op, uint32_t n)
{
	char words[200];

	for (uint32_t i = 0; i < n && i < 5; i++) {
		recording_tell(r, op[i], words, sizeof(words));
		printf("   %s: %s\n", what, words);
	}
	if (n > 5)
		printf("   %s: %u more\n", what, n - 5);
}

static void print_output(const char *output)
{
	const char *last = output;

	for (int lines = 0; *last && lines < 4; lines++) {
		size_t n = strcspn(last, "\n");

		printf("   | %.*s\n", (int)n, last);
		last += n + (last[n] == '\n');
	}
}

static void print_reason(
	const struct recording *r, const struct reason *why, unsigned i, uint32_t unit)
{
	char words[300], *replay = reason_replay(r, why, unit);

	reason_title(r, why, words, sizeof(words));
	printf("\n%u. %s (%" PRIu64 " of the cuts; here at event %" PRIu64 ")\n", i, words,
		why->states, why->at);
	print_some(r, "lost", why->lost, why->n_lost);
	print_some(r, "kept", why->kept, why->n_kept);
	reason_flush(r, why, words, sizeof(words));
	if (*words)
		printf("   missing: %s\n", words);
	if (why->mark)
		printf("   the guest had set the mark \"%s\"\n", r->mark[why->mark - 1].text);
	printf("   the check ended with status %d\n", why->status);
	print_output(why->output);
	printf("   again: %s\n", replay ? replay : "");
	free(replay);
}

static void summary(const struct recording *r, const struct search *s, char *out, size_t room)
{
	snprintf(out, room, "%" PRIu64 " cuts judged, %" PRIu64 " failed", s->states, s->failed);
}

static void print_text(const struct recording *r, const struct search *s, uint32_t unit)
{
	char words[200];

	printf("%s: %" PRIu64 " events: %" PRIu64 " writes, %" PRIu64 " flushes, %" PRIu64
	       " marks\n",
		r->path, r->log.clock, r->n_writes, r->n_flushes, r->n_marks);
	summary(r, s, words, sizeof(words));
	printf("%s; in %" PRIu64 " of %" PRIu64 " situations every subset\n", words, s->exhausted,
		s->situations);
	for (uint32_t i = 0; i < s->n_reasons; i++)
		print_reason(r, &s->reason[i], i + 1, unit);
	if (s->unexplained)
		printf("\n%" PRIu64 " more failing cuts were not looked into\n", s->unexplained);
}

static json_t *json_ops(const struct recording *r, const uint32_t *op, uint32_t n)
{
	json_t *all = json_array();

	for (uint32_t i = 0; i < n; i++) {
		const struct guest_op *g = &r->log.guest[op[i]];

		json_array_append_new(
			all, json_pack("{s:I, s:I, s:I, s:o}", "event", (json_int_t)g->submitted,
				     "sector", (json_int_t)g->sector, "sectors", (json_int_t)g->n,
				     "acknowledged",
				     g->acknowledged == NEVER
					     ? json_null()
					     : json_integer((json_int_t)g->acknowledged)));
	}
	return all;
}

static json_t *json_reason(const struct recording *r, const struct reason *why, uint32_t unit)
{
	char title[300], flush[300], *replay = reason_replay(r, why, unit);
	json_t *output = json_string(why->output), *missing = json_null(), *j;
	const struct guest_op *g = r->log.guest;

	reason_title(r, why, title, sizeof(title));
	reason_flush(r, why, flush, sizeof(flush));
	if (why->after != SEARCH_NONE)
		missing = json_pack("{s:I, s:I}", "after", (json_int_t)g[why->after].acknowledged,
			"before",
			(json_int_t)(why->before == SEARCH_NONE ? why->at
								: g[why->before].submitted));
	j = json_pack("{s:s, s:I, s:I, s:i, s:o, s:o, s:o, s:o, s:s, s:s}", "reason", title, "at",
		(json_int_t)why->at, "cuts", (json_int_t)why->states, "status", why->status,
		"output", output ? output : json_string(""), "lost",
		json_ops(r, why->lost, why->n_lost), "kept", json_ops(r, why->kept, why->n_kept),
		"missing_flush", missing, "missing", flush, "replay", replay ? replay : "");
	if (why->mark)
		json_object_set_new(j, "mark", json_string(r->mark[why->mark - 1].text));
	free(replay);
	return j;
}

static void print_json(const struct recording *r, const struct search *s, uint32_t unit)
{
	json_t *reasons = json_array(), *all;

	for (uint32_t i = 0; i < s->n_reasons; i++)
		json_array_append_new(reasons, json_reason(r, &s->reason[i], unit));
	all = json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o}", "log", r->path,
		"events", (json_int_t)r->log.clock, "writes", (json_int_t)r->n_writes, "flushes",
		(json_int_t)r->n_flushes, "cuts", (json_int_t)s->states, "failed",
		(json_int_t)s->failed, "situations", (json_int_t)s->situations, "exhausted",
		(json_int_t)s->exhausted, "unexplained", (json_int_t)s->unexplained, "reasons",
		reasons);
	json_dumpf(all, stdout, JSON_INDENT(4));
	putchar('\n');
	json_decref(all);
}

static int draw(const struct judge_args *a, const struct recording *r, const struct search *s,
	struct why *why)
{
	struct told *told = calloc(s->n_reasons + 1, sizeof(*told));
	char words[200];
	struct timeline t = {.r = r,
		.judged = true,
		.states = s->states,
		.n_failed = s->failed,
		.failed_at = s->failed_at,
		.told = told,
		.n_told = s->n_reasons,
		.gap = "a flush is missing here",
		.verdict = words};
	int err;

	if (!told)
		return -ENOMEM;
	summary(r, s, words, sizeof(words));
	for (uint32_t i = 0; i < s->n_reasons; i++)
		told[i] = reason_told(r, &s->reason[i], a->unit);
	err = timeline_write(&t, a->html, why);
	for (uint32_t i = 0; i < s->n_reasons; i++)
		free(told[i].replay);
	free(told);
	return err;
}

static int report(const struct judge_args *a, const struct recording *r, const struct search *s)
{
	struct why why = {""};
	int err = a->html ? draw(a, r, s, &why) : 0;

	if (err) {
		log_error("%s", why_text(&why, err));
		return 1;
	}
	if (a->json)
		print_json(r, s, a->unit);
	else
		print_text(r, s, a->unit);
	return s->failed ? 2 : 0;
}

static int judge(struct loop *l, const struct judge_args *a, const struct recording *r)
{
	struct search_opts o = judge_args_search(a, r);
	struct why why = {""};
	struct search s;
	int err, status;

	o.progress = progress;
	o.progress_arg = (void *)(uintptr_t)a;
	o.interrupted = &interrupted;
	catch_interrupts();
	err = search_run(l, &s, &o, &r->log, &why);
	progress_over(a);
	if (err && err != -EINTR) {
		log_error("%s", why_text(&why, err));
		return 1;
	}
	status = report(a, r, &s);
	search_fini(&s);
	if (err)
		log_error("interrupted: that is not all");
	return err ? 1 : status;
}

int powercut_explore(int argc, char **argv)
{
	struct judge_args a;
	struct recording r;
	int status = judge_args_begin(&a, &r, argc, argv, help);

	if (status)
		return status < 0 ? 0 : 1;
	status = judge(a.loop, &a, &r);
	judge_args_over(&a, &r);
	return status;
}
