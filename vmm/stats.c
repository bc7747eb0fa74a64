/* SPDX-License-Identifier: MIT */
/*
 * stats.c - what -stats writes.
 *
 * A drive's figures are those after closing; the object "close" holds the part that closing
 * caused; "powercut", if its power was cut, what became of the writes at risk.  write_us and
 * flush_us count requests by duration: element i those that took from 2^i to 2^(i+1)
 * microseconds.
 */
#include "vmm/stats.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/version.h"

struct stats_out {
	const char *path;
	FILE *f;
};

int stats_open(const char *path, struct stats_out **out, struct why *why)
{
	struct stats_out *o = calloc(1, sizeof(*o));
	int err;

	if (!o)
		return -ENOMEM;
	o->path = path;
	o->f = strcmp(path, "-") ? fopen(path, "we") : stdout;
	if (!o->f) {
		err = -errno;
		free(o);
		return why_set(why, err, "-stats: %s: %s", path, strerror(-err));
	}
	*out = o;
	return 0;
}

void stats_close(struct stats_out *o)
{
	if (o && o->f && o->f != stdout)
		fclose(o->f);
	free(o);
}

static json_t *histogram(const uint64_t *buckets)
{
	json_t *a = json_array();

	for (unsigned i = 0; i < DISK_HIST; i++)
		json_array_append_new(a, json_integer((json_int_t)buckets[i]));
	return a;
}

static void put(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)v));
}

static void put_host(json_t *o, const struct disk_stats *s)
{
	put(o, "host_reads", s->host_reads);
	put(o, "host_writes", s->host_writes);
	put(o, "host_fdatasyncs", s->host_fdatasyncs);
	put(o, "host_fallocates", s->host_fallocates);
	put(o, "host_read_bytes", s->host_read_bytes);
	put(o, "data_bytes", s->data_bytes);
	put(o, "metadata_bytes", s->metadata_bytes);
}

static json_t *left_json(const struct live_left *l)
{
	json_t *o = json_object();

	put(o, "at_risk", l->at_risk);
	put(o, "kept", l->kept);
	put(o, "lost", l->lost);
	put(o, "torn", l->torn);
	return o;
}

static json_t *drive_json(const struct drive_report *r)
{
	const struct disk_stats *s = &r->total, *b = &r->running;
	struct disk_stats closing = {
		.host_reads = s->host_reads - b->host_reads,
		.host_writes = s->host_writes - b->host_writes,
		.host_fdatasyncs = s->host_fdatasyncs - b->host_fdatasyncs,
		.host_fallocates = s->host_fallocates - b->host_fallocates,
		.host_read_bytes = s->host_read_bytes - b->host_read_bytes,
		.data_bytes = s->data_bytes - b->data_bytes,
		.metadata_bytes = s->metadata_bytes - b->metadata_bytes,
	};
	json_t *o = json_object(), *c = json_object();

	json_object_set_new(o, "id", json_string(r->name));
	/* A file name need not be UTF-8; it is left out then. */
	json_object_set_new(o, "file", json_string(r->path));
	json_object_set_new(o, "format", json_string(r->format));
	json_object_set_new(o, "cache", json_string(cache_mode_name(r->cache)));
	json_object_set_new(o, "wce", json_boolean(r->wce));
	put(o, "reads", s->reads);
	put(o, "writes", s->writes);
	put(o, "flushes", s->flushes);
	put(o, "read_bytes", s->read_bytes);
	put(o, "write_bytes", s->write_bytes);
	put(o, "zeroes", s->zeroes);
	put(o, "zero_bytes", s->zero_bytes);
	put(o, "discards", s->discards);
	put(o, "discard_bytes", s->discard_bytes);
	put(o, "failed", s->failed);
	put(o, "wce_changes", s->wce_changes);
	put_host(o, s);
	put_host(c, &closing);
	json_object_set_new(o, "close", c);
	if (r->cut)
		json_object_set_new(o, "powercut", left_json(&r->left));
	json_object_set_new(o, "write_us", histogram(s->write_us));
	json_object_set_new(o, "flush_us", histogram(s->flush_us));
	return o;
}

int stats_write(struct stats_out *o, const struct machine_config *c, const struct machine_report *r,
	struct why *why)
{
	json_t *root = json_object(), *drives = json_array();
	int err = 0;

	json_object_set_new(root, "sluice", json_string(SLUICE_VERSION));
	json_object_set_new(root, "exit", json_integer(r->status));
	json_object_set_new(root, "seconds", json_real(r->seconds));
	json_object_set_new(root, "first_insn_ms",
		r->first_instruction_ms < 0 ? json_null() : json_real(r->first_instruction_ms));
	json_object_set_new(root, "resets", json_integer(r->resets));
	for (unsigned i = 0; i < c->n_drives; i++) {
		if (r->drives[i].known)
			json_array_append_new(drives, drive_json(&r->drives[i]));
	}
	json_object_set_new(root, "drives", drives);
	errno = 0;
	if (json_dumpf(root, o->f, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) ||
		fputc('\n', o->f) == EOF || fflush(o->f))
		err = why_set(why, errno ? -errno : -EIO, "-stats: %s: %s", o->path,
			strerror(errno ? errno : EIO));
	json_decref(root);
	return err;
}
