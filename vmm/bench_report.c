/* SPDX-License-Identifier: MIT */
/*
 * bench_report.c - the results: what is computed from them, the table, the JSON.
 *
 * Seconds are the median of the repeats.  The ratio to raw is of medians in the same mode; the
 * ratio to QEMU is the median of the pairs' ratios, as a pair's two ran one after the other.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>
#include "vmm/bench.h"
#include "vmm/util/loop.h"

#define UNKNOWN (-1.0)

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* Sorts v. */
static double median(double *v, unsigned n)
{
	if (n == 0)
		return UNKNOWN;
	qsort(v, n, sizeof(*v), by_value);
	return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

static bool good(const struct bench_sample *s)
{
	return !s->failed[0] && s->guest.usec;
}

static double seconds(const struct bench_sample *s)
{
	return (double)s->guest.usec / 1e6;
}

/* The good samples' seconds, in order; how many. */
static unsigned collect(const struct bench_row *r, enum bench_who who, double *v)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->n[who]; i++)
		if (good(&r->samples[who][i]))
			v[n++] = seconds(&r->samples[who][i]);
	return n;
}

static double pick(const struct bench_row *r, enum bench_who who, double at)
{
	double *v = malloc((r->n[who] + 1) * sizeof(*v)), x = UNKNOWN;
	unsigned n = v ? collect(r, who, v) : 0;

	if (n) {
		x = median(v, n); /* sorted from here on */
		if (at >= 0)
			x = v[(unsigned)(at * (n - 1))];
	}
	free(v);
	return x;
}

double bench_seconds(const struct bench_row *r, enum bench_who who)
{
	return pick(r, who, -1);
}

double bench_min(const struct bench_row *r, enum bench_who who)
{
	return pick(r, who, 0);
}

double bench_max(const struct bench_row *r, enum bench_who who)
{
	return pick(r, who, 1);
}

double bench_ratio_raw(const struct bench *b, const struct bench_row *r)
{
	double mine = bench_seconds(r, BENCH_SLUICE), raw;

	for (unsigned i = 0; i < b->n_rows && mine > 0; i++) {
		const struct bench_row *o = &b->rows[i];

		if (o->bus != r->bus || o->cache != r->cache || strcmp(o->format->name, "raw") != 0)
			continue;
		raw = bench_seconds(o, BENCH_SLUICE);
		return raw > 0 ? mine / raw : UNKNOWN;
	}
	return UNKNOWN;
}

double bench_ratio_qemu(const struct bench_row *r)
{
	unsigned n = r->n[BENCH_SLUICE] < r->n[BENCH_QEMU] ? r->n[BENCH_SLUICE] : r->n[BENCH_QEMU];
	double *v = malloc((n + 1) * sizeof(*v)), x;
	unsigned pairs = 0;

	if (!v)
		return UNKNOWN;
	for (unsigned i = 0; i < n; i++) {
		const struct bench_sample *us = &r->samples[BENCH_SLUICE][i];
		const struct bench_sample *them = &r->samples[BENCH_QEMU][i];

		if (good(us) && good(them))
			v[pairs++] = seconds(us) / seconds(them);
	}
	x = median(v, pairs);
	free(v);
	return x;
}

const char *bench_row_failed(const struct bench_row *r)
{
	for (int who = 0; who < BENCH_WHO; who++)
		for (unsigned i = 0; i < r->n[who]; i++)
			if (r->samples[who][i].failed[0])
				return r->samples[who][i].failed;
	return NULL;
}

/* The last sample counts: the guest does the same each time, and the host nearly so. */
static const struct bench_sample *last_sample(const struct bench_row *r)
{
	unsigned n = r->n[BENCH_SLUICE];

	return n ? &r->samples[BENCH_SLUICE][n - 1] : NULL;
}

static double host_figure(const struct bench_row *r, const char *key)
{
	const struct bench_sample *s = last_sample(r);
	json_t *drive = s ? json_array_get(json_object_get(s->stats, "drives"), 0) : NULL;
	json_t *v = json_object_get(drive, key);

	return json_is_number(v) ? json_number_value(v) : UNKNOWN;
}

static double column_seconds(const struct bench *b, const struct bench_row *r)
{
	return bench_seconds(r, BENCH_SLUICE);
}

static double column_spread(const struct bench *b, const struct bench_row *r)
{
	double mid = bench_seconds(r, BENCH_SLUICE);
	double range = bench_max(r, BENCH_SLUICE) - bench_min(r, BENCH_SLUICE);

	return mid > 0 ? 100 * range / mid : UNKNOWN;
}

static double column_writes(const struct bench *b, const struct bench_row *r)
{
	return last_sample(r) ? (double)last_sample(r)->guest.writes : UNKNOWN;
}

static double column_flushes(const struct bench *b, const struct bench_row *r)
{
	return last_sample(r) ? (double)last_sample(r)->guest.flushes : UNKNOWN;
}

static double column_fdatasyncs(const struct bench *b, const struct bench_row *r)
{
	return host_figure(r, "host_fdatasyncs");
}

static double column_data(const struct bench *b, const struct bench_row *r)
{
	double bytes = host_figure(r, "data_bytes");

	return bytes < 0 ? bytes : bytes / MiB;
}

static double column_metadata(const struct bench *b, const struct bench_row *r)
{
	double bytes = host_figure(r, "metadata_bytes");

	return bytes < 0 ? bytes : bytes / MiB;
}

static double column_qemu(const struct bench *b, const struct bench_row *r)
{
	return bench_seconds(r, BENCH_QEMU);
}

static double column_ratio_qemu(const struct bench *b, const struct bench_row *r)
{
	return bench_ratio_qemu(r);
}

enum { ALWAYS, IF_REPEATED, IF_QEMU };
static const struct column {
	const char *title;
	int width, digits, when;
	double (*value)(const struct bench *b, const struct bench_row *r);
} columns[] = {
	{ "seconds",	9, 2, ALWAYS,	   column_seconds },
	{ "spread%",	9, 0, IF_REPEATED, column_spread },
	{ "x raw",	7, 2, ALWAYS,	   bench_ratio_raw },
	{ "QEMU s",	8, 2, IF_QEMU,	   column_qemu },
	{ "x QEMU",	8, 2, IF_QEMU,	   column_ratio_qemu },
	{ "writes",	8, 0, ALWAYS,	   column_writes },
	{ "flushes",	9, 0, ALWAYS,	   column_flushes },
	{ "fdatasyncs", 12, 0, ALWAYS,	   column_fdatasyncs },
	{ "data MiB",	10, 1, ALWAYS,	   column_data },
	{ "meta MiB",	10, 2, ALWAYS,	   column_metadata },
};

static bool shown(const struct bench *b, const struct column *c)
{
	return c->when == ALWAYS || (c->when == IF_REPEATED && b->o.repeats > 1) ||
	       (c->when == IF_QEMU && b->o.qemu);
}

static void print_names(const struct bench *b, const char *bus, const char *cache,
	const char *format)
{
	if (strchr(b->o.buses, ','))
		printf("%-7s ", bus);
	printf("%-13s %-11s", cache, format);
}

void bench_print_head(const struct bench *b)
{
	print_names(b, "bus", "cache", "format");
	for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
		if (shown(b, &columns[i]))
			printf("%*s", columns[i].width, columns[i].title);
	printf("\n");
	fflush(stdout);
}

void bench_print_row(const struct bench *b, const struct bench_row *r)
{
	const char *failed = bench_row_failed(r);

	print_names(b, r->bus->name, r->cache, r->format->name);
	for (size_t i = 0; i < ARRAY_SIZE(columns) && !failed; i++) {
		double v;

		if (!shown(b, &columns[i]))
			continue;
		v = columns[i].value(b, r);
		if (v < 0)
			printf("%*s", columns[i].width, "-");
		else
			printf("%*.*f", columns[i].width, columns[i].digits, v);
	}
	if (failed)
		printf(" FAILED: %s", failed);
	printf("\n");
	fflush(stdout);
}

void bench_progress(struct bench *b)
{
	const struct bench_row *r = b->now;
	const struct bench_sample *s = r ? &r->samples[b->who][r->n[b->who]] : NULL;
	double elapsed = (double)(loop_now_ns() - b->t_start_ns) / 1e9, share;
	char left[32] = "";

	if (!b->o.progress || !s)
		return;
	share = (b->samples_done + (double)s->guest.percent / 100) / b->n_samples;
	if (b->samples_done && share < 1) {
		unsigned sec = (unsigned)(elapsed / share * (1 - share));

		snprintf(left, sizeof(left), ", about %u:%02u left", sec / 60, sec % 60);
	}
	fprintf(stderr, "\r\033[K%u of %u: %s %s %s %u%%%s", b->samples_done + 1, b->n_samples,
		b->who == BENCH_QEMU ? "QEMU" : "sluice", r->cache, r->format->name,
		(unsigned)s->guest.percent, left);
	fflush(stderr);
}

void bench_progress_clear(struct bench *b)
{
	if (b->o.progress)
		fprintf(stderr, "\r\033[K");
	fflush(stderr);
}

/* The value of the first "key : value" line of a file; NULL or a new string. */
static json_t *field_of_file(const char *path, const char *key)
{
	char line[512];
	json_t *v = NULL;
	FILE *f = fopen(path, "re");

	while (f && !v && fgets(line, sizeof(line), f)) {
		char *value = strchr(line, ':');

		if (!value || strncmp(line, key, strlen(key)) != 0)
			continue;
		value += 1 + strspn(value + 1, " \t");
		value[strcspn(value, "\n")] = 0;
		v = json_string(value);
	}
	if (f)
		fclose(f);
	return v;
}

/* "ext4 on /dev/vda", from the mount table. */
static json_t *file_system_of(const char *dir)
{
	char line[4096], type[64], source[256], dev[32];
	FILE *f = fopen("/proc/self/mountinfo", "re");
	json_t *v = NULL;
	struct stat st;

	if (!f)
		return NULL;
	if (stat(dir, &st) < 0)
		st.st_dev = 0;
	snprintf(dev, sizeof(dev), "%u:%u", major(st.st_dev), minor(st.st_dev));
	while (!v && fgets(line, sizeof(line), f)) {
		const char *tail = strstr(line, " - ");
		char at[32];

		if (tail && sscanf(line, "%*s %*s %31s", at) == 1 && strcmp(at, dev) == 0 &&
			sscanf(tail, " - %63s %255s", type, source) == 2)
			v = json_sprintf("%s on %s", type, source);
	}
	fclose(f);
	return v;
}

json_t *bench_machine(const char *dir)
{
	json_t *m = json_object();
	double load = 0;
	struct utsname u;

	uname(&u);
	getloadavg(&load, 1);
	json_object_set_new(m, "kernel", json_sprintf("%s %s", u.sysname, u.release));
	json_object_set_new(m, "cpu", field_of_file("/proc/cpuinfo", "model name"));
	json_object_set_new(m, "cpus", json_integer(sysconf(_SC_NPROCESSORS_ONLN)));
	json_object_set_new(m, "memory_bytes",
		json_integer((json_int_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE)));
	json_object_set_new(m, "scratch_directory", json_string(dir));
	json_object_set_new(m, "file_system", file_system_of(dir));
	json_object_set_new(m, "load_at_start", json_real(load));
	return m;
}

static json_t *number_or_null(double v)
{
	return v < 0 || !isfinite(v) ? json_null() : json_real(v);
}

static json_t *samples_json(const struct bench_row *r, enum bench_who who)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < r->n[who]; i++) {
		const struct bench_sample *s = &r->samples[who][i];
		json_t *o = json_object();

		json_object_set_new(o, "seconds", number_or_null(good(s) ? seconds(s) : UNKNOWN));
		json_object_set_new(o, "process_seconds", json_real(s->wall_s));
		json_object_set_new(o, "failed",
			s->failed[0] ? json_string(s->failed) : json_null());
		json_object_set_new(o, "guest", bench_guest_json(&s->guest));
		if (s->stats)
			json_object_set(o, "stats", s->stats);
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *row_json(const struct bench *b, const struct bench_row *r)
{
	json_t *o = json_object();

	json_object_set_new(o, "bus", json_string(r->bus->name));
	json_object_set_new(o, "cache", json_string(r->cache));
	json_object_set_new(o, "format", json_string(r->format->name));
	json_object_set_new(o, "seconds", number_or_null(bench_seconds(r, BENCH_SLUICE)));
	json_object_set_new(o, "ratio_to_raw", number_or_null(bench_ratio_raw(b, r)));
	json_object_set_new(o, "sluice", samples_json(r, BENCH_SLUICE));
	if (b->o.qemu) {
		json_object_set_new(o, "seconds_qemu",
			number_or_null(bench_seconds(r, BENCH_QEMU)));
		json_object_set_new(o, "ratio_to_qemu", number_or_null(bench_ratio_qemu(r)));
		json_object_set_new(o, "qemu", samples_json(r, BENCH_QEMU));
	}
	return o;
}

int bench_write_json(const struct bench *b, struct why *why)
{
	json_t *all = json_object(), *rows = json_array();
	time_t now = time(NULL);
	struct tm tm;
	char date[32];
	int err;

	gmtime_r(&now, &tm);
	strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%SZ", &tm);
	json_object_set_new(all, "bench", json_string("install"));
	json_object_set_new(all, "date", json_string(date));
	json_object_set(all, "machine", b->machine);
	json_object_set_new(all, "guest_memory_mib", json_integer((json_int_t)b->memory_mib));
	json_object_set_new(all, "disk_bytes", json_integer((json_int_t)b->disk_bytes));
	json_object_set_new(all, "repeats", json_integer(b->o.repeats));
	for (unsigned i = 0; i < b->n_rows; i++)
		json_array_append_new(rows, row_json(b, &b->rows[i]));
	json_object_set_new(all, "rows", rows);
	err = json_dump_file(all, b->o.json, JSON_INDENT(1) | JSON_PRESERVE_ORDER);
	json_decref(all);
	return err ? why_set(why, -EIO, "%s: cannot be written", b->o.json) : 0;
}
