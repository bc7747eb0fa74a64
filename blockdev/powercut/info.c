/* SPDX-License-Identifier: MIT */
/*
 * info.c - sluice powercut info: what is in a log, and what was at risk when.
 *
 * At risk at an event: writes and discards that were submitted by then and are not durable by the
 * contract.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/powercut/recording.h"

static const char help[] =
	"Usage: sluice powercut info LOG [--json]\n"
	"Says what a log contains: requests, host operations, marks, and in twenty parts of its\n"
	"time how much was written, flushed and at most at risk.\n"
	"\n"
	"Example:\n"
	"  sluice powercut info run.log\n";

#define PARTS 20

struct part {
	uint64_t from, to; /* events */
	uint64_t writes, bytes, flushes, marks, risk_writes, risk_bytes;
	const char *mark; /* the first one, or NULL */
};

struct facts_of {
	uint64_t fua, zeroes, cache_off, cache_on, failed, unfinished, flush_with_nothing;
	uint64_t host_writes, host_bytes, host_syncs, host_other;
	uint64_t risk_writes, risk_bytes, risk_at; /* the most, and when */
	struct part part[PARTS];
	unsigned n_parts;
};

static void count_guest(const struct recording *r, struct facts_of *f)
{
	for (uint64_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];

		f->fua += g->fua;
		f->zeroes += g->kind == GUEST_WRITE && !g->data;
		f->cache_off += g->kind == GUEST_WCE_OFF;
		f->cache_on += g->kind == GUEST_WCE_ON;
		f->failed += g->err != 0;
		f->unfinished += g->acknowledged == NEVER;
	}
}

static void count_host(const struct recording *r, struct facts_of *f)
{
	for (uint64_t i = 0; i < r->log.n_host; i++) {
		const struct host_op *h = &r->log.host[i];

		if (h->op == FILE_WRITE) {
			f->host_writes++;
			f->host_bytes += h->len;
		} else if (h->op == FILE_FDATASYNC) {
			f->host_syncs++;
		} else {
			f->host_other++;
		}
	}
}

/* What changes at one event: writes and bytes that begin and end to be at risk. */
struct step {
	int64_t writes, bytes;
};

static bool writes_data(const struct guest_op *g)
{
	return (g->kind == GUEST_WRITE || g->kind == GUEST_DISCARD) && g->n;
}

static struct part *part_at(struct facts_of *f, uint64_t tick)
{
	for (unsigned i = 0; i < f->n_parts; i++)
		if (tick <= f->part[i].to)
			return &f->part[i];
	return NULL;
}

static void fill_parts(const struct recording *r, struct facts_of *f, const struct step *step)
{
	uint64_t n = r->log.clock;
	int64_t writes = 0, bytes = 0;

	f->n_parts = (unsigned)min_u64(PARTS, n);
	for (unsigned i = 0; i < f->n_parts; i++) {
		f->part[i].from = n * i / f->n_parts + 1;
		f->part[i].to = n * (i + 1) / f->n_parts;
	}
	for (uint64_t t = 1; t <= n; t++) {
		struct part *p = part_at(f, t);

		writes += step[t].writes;
		bytes += step[t].bytes;
		p->risk_writes = max_u64(p->risk_writes, (uint64_t)writes);
		p->risk_bytes = max_u64(p->risk_bytes, (uint64_t)bytes);
		if ((uint64_t)bytes > f->risk_bytes) {
			f->risk_bytes = (uint64_t)bytes;
			f->risk_writes = (uint64_t)writes;
			f->risk_at = t;
		}
	}
	for (uint64_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];
		struct part *p = part_at(f, g->submitted);

		p->writes += g->kind == GUEST_WRITE;
		p->bytes += g->kind == GUEST_WRITE ? g->n * SECTOR : 0;
		p->flushes += g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF;
	}
	for (uint64_t i = 0; i < r->n_marks; i++) {
		struct part *p = part_at(f, r->mark[i].at);

		p->mark = p->mark ? p->mark : r->mark[i].text;
		p->marks++;
	}
}

static int find_facts(const struct recording *r, struct facts_of *f)
{
	uint64_t *durable = recording_durable(r);
	struct step *step = calloc(r->log.clock + 2, sizeof(*step));

	*f = (struct facts_of){0};
	if (!durable || !step) {
		free(durable);
		free(step);
		return -ENOMEM;
	}
	count_guest(r, f);
	count_host(r, f);
	for (uint64_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];
		int64_t bytes = (int64_t)(g->n * SECTOR);

		if (!writes_data(g))
			continue;
		step[g->submitted].writes++;
		step[g->submitted].bytes += bytes;
		if (durable[i] == NEVER)
			continue;
		step[durable[i]].writes--;
		step[durable[i]].bytes -= bytes;
	}
	fill_parts(r, f, step);
	free(durable);
	free(step);
	return 0;
}

/* ---- as text ---- */

/* "12.5 MiB" in a buffer that the next call but three uses again. */
static const char *size_text(uint64_t bytes)
{
	static char text[4][24];
	static unsigned at;
	char *out = text[at++ % ARRAY_SIZE(text)];

	if (bytes < 1 * MiB)
		snprintf(out, sizeof(text[0]), "%.1f KiB", (double)bytes / (double)KiB);
	else if (bytes < 1 * GiB)
		snprintf(out, sizeof(text[0]), "%.1f MiB", (double)bytes / (double)MiB);
	else
		snprintf(out, sizeof(text[0]), "%.1f GiB", (double)bytes / (double)GiB);
	return out;
}

static void print_parts(const struct facts_of *f)
{
	printf("\n%20s %8s %10s %8s %8s %10s  %s\n", "events", "writes", "bytes", "flushes",
		"at risk", "bytes", "marks");
	for (unsigned i = 0; i < f->n_parts; i++) {
		const struct part *p = &f->part[i];
		char events[48];

		snprintf(events, sizeof(events), "%" PRIu64 "-%" PRIu64, p->from, p->to);
		printf("%20s %8" PRIu64 " %10s %8" PRIu64 " %8" PRIu64 " %10s", events, p->writes,
			size_text(p->bytes), p->flushes, p->risk_writes, size_text(p->risk_bytes));
		if (p->marks)
			printf("  %" PRIu64 ": %.40s%s", p->marks, p->mark,
				p->marks > 1 ? ", ..." : "");
		printf("\n");
	}
}

static void print(const struct recording *r, const struct facts_of *f)
{
	const struct trace_info *i = &r->trace->info;

	printf("%s: %" PRIu64 " events of a disk of %s%s\n", r->path, r->log.clock,
		size_text(i->disk_bytes), r->trace->cut_off ? "; it ends before its time" : "");
	printf("image: %s, %s%s%s\n", *i->image ? i->image : "(not known)",
		*i->format ? i->format : "(not known)",
		i->blank ? ", held nothing but zeros" : "",
		i->unsafe ? ", cache=unsafe: its flushes were not carried out" : "");
	printf("guest: %" PRIu64 " writes (%s), of them %" PRIu64 " with FUA and %" PRIu64
	       " of zeros; %" PRIu64 " discards, %" PRIu64 " flushes; cache off %" PRIu64
	       ", on %" PRIu64 " times\n",
		r->n_writes, size_text(r->written), f->fua, f->zeroes, r->n_discards,
		r->n_flushes - f->cache_off, f->cache_off, f->cache_on);
	if (f->failed || f->unfinished)
		printf("       %" PRIu64 " failed, %" PRIu64 " were never answered\n", f->failed,
			f->unfinished);
	printf("host:  %" PRIu64 " writes (%s), %" PRIu64 " fdatasyncs, %" PRIu64 " others\n",
		f->host_writes, size_text(f->host_bytes), f->host_syncs, f->host_other);
	printf("marks: %" PRIu64 "\n", r->n_marks);
	if (f->risk_bytes)
		printf("at risk at most: %" PRIu64 " writes, %s, at event %" PRIu64 "\n",
			f->risk_writes, size_text(f->risk_bytes), f->risk_at);
	else
		printf("at risk at most: nothing\n");
	if (f->n_parts)
		print_parts(f);
}

/* ---- as JSON ---- */

static void put(json_t *j, const char *key, uint64_t n)
{
	json_object_set_new(j, key, json_integer((json_int_t)n));
}

static json_t *part_json(const struct part *p)
{
	json_t *j = json_object();

	put(j, "from", p->from);
	put(j, "to", p->to);
	put(j, "writes", p->writes);
	put(j, "bytes", p->bytes);
	put(j, "flushes", p->flushes);
	put(j, "marks", p->marks);
	put(j, "at_risk_writes", p->risk_writes);
	put(j, "at_risk_bytes", p->risk_bytes);
	return j;
}

static json_t *guest_json(const struct recording *r, const struct facts_of *f)
{
	json_t *j = json_object();

	put(j, "writes", r->n_writes);
	put(j, "write_bytes", r->written);
	put(j, "fua", f->fua);
	put(j, "zeroes", f->zeroes);
	put(j, "discards", r->n_discards);
	put(j, "flushes", r->n_flushes - f->cache_off);
	put(j, "cache_off", f->cache_off);
	put(j, "cache_on", f->cache_on);
	put(j, "failed", f->failed);
	put(j, "unanswered", f->unfinished);
	return j;
}

static int print_json(const struct recording *r, const struct facts_of *f)
{
	const struct trace_info *i = &r->trace->info;
	json_t *j = json_object(), *host = json_object(), *risk = json_object(),
	       *parts = json_array();
	int bad;

	put(j, "events", r->log.clock);
	put(j, "disk_bytes", i->disk_bytes);
	json_object_set_new(j, "cut_off", json_boolean(r->trace->cut_off));
	json_object_set_new(j, "image", json_string(i->image));
	json_object_set_new(j, "format", json_string(i->format));
	json_object_set_new(j, "blank", json_boolean(i->blank));
	json_object_set_new(j, "unsafe", json_boolean(i->unsafe));
	json_object_set_new(j, "guest", guest_json(r, f));
	put(host, "writes", f->host_writes);
	put(host, "write_bytes", f->host_bytes);
	put(host, "fdatasyncs", f->host_syncs);
	put(host, "others", f->host_other);
	json_object_set_new(j, "host", host);
	put(j, "marks", r->n_marks);
	put(risk, "writes", f->risk_writes);
	put(risk, "bytes", f->risk_bytes);
	put(risk, "event", f->risk_at);
	json_object_set_new(j, "at_risk_most", risk);
	for (unsigned k = 0; k < f->n_parts; k++)
		json_array_append_new(parts, part_json(&f->part[k]));
	json_object_set_new(j, "parts", parts);
	bad = json_dumpf(j, stdout, JSON_INDENT(2));
	printf("\n");
	json_decref(j);
	return bad ? -ENOMEM : 0;
}

int powercut_info(int argc, char **argv)
{
	const char *path = NULL;
	struct recording r;
	struct facts_of f;
	struct why why = {""};
	bool json = false;
	int err;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			fputs(help, stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if (argv[i][0] == '-' || path) {
			log_error(argv[i][0] == '-' ? "unknown option '%s'"
						    : "unexpected argument '%s'",
				argv[i]);
			return 1;
		} else {
			path = argv[i];
		}
	}
	if (!path) {
		log_error("which log?");
		return 1;
	}
	err = recording_open(&r, path, TRACE_LOG_HOST, false, &why);
	if (!err) {
		err = find_facts(&r, &f);
		if (!err && json)
			err = print_json(&r, &f);
		else if (!err)
			print(&r, &f);
		recording_close(&r);
	}
	if (err)
		log_error("%s", why_text(&why, err));
	return err != 0;
}
