/* SPDX-License-Identifier: MIT */
/*
 * monitor_block.c - the monitor's commands for drives.
 *
 * What a drive's own thread must do is posted to its loop and waited for: the guest goes on
 * meanwhile, the main thread does not.  Figures are read from here; each is exact.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "vmm/monitor.h"

json_t *monitor_fail(struct monitor_error *e, const char *class, const char *fmt, ...)
{
	va_list ap;

	e->class = class;
	va_start(ap, fmt);
	vsnprintf(e->desc, sizeof(e->desc), fmt, ap);
	va_end(ap);
	return NULL;
}

/* ---- on the drive's thread ---- */

struct wce_job {
	struct wce_change change;
	int err;
	bool over;
};

static void wce_done(struct wce_change *c, int err)
{
	struct wce_job *j = container_of(c, struct wce_job, change);

	j->err = err;
	j->over = true;
}

static int job_wce(struct drive *d, void *arg)
{
	struct wce_job *j = arg;

	j->change.done = wce_done;
	disk_set_wce(drive_disk(d), &j->change);
	while (!j->over)
		(void)!loop_turn(drive_loop(d), true); /* it goes on after an error */
	return j->err;
}

static int job_notify(struct drive *d, void *arg)
{
	disk_wce_notify(drive_disk(d), *(int *)arg);
	return 0;
}

void monitor_watch_drive(struct drive *d, int fd)
{
	(void)drive_do(d, job_notify, &fd);
}

/* ---- answers ---- */

static void name_of(const struct drive *d, char *buf, size_t size)
{
	snprintf(buf, size, "drive%u", drive_index(d));
}

static void put(json_t *o, const char *name, uint64_t v)
{
	json_object_set_new(o, name, json_integer((json_int_t)v));
}

json_t *monitor_write_cache(const struct drive *d)
{
	static const char *const by[] = {"power-on", "guest", "monitor"};
	char name[16];

	name_of(d, name, sizeof(name));
	return json_pack("{s:s, s:b, s:s}", "device", name, "enable", (int)disk_wce(drive_disk(d)),
		"by", by[disk_wce_by(drive_disk(d))]);
}

static json_t *one_block(const struct drive *d)
{
	const struct disk *disk = drive_disk(d);
	enum cache_mode mode = disk_cache_mode(disk);
	uint64_t since, owed = disk_owed(disk, &since);
	uint64_t now = loop_now_ns();
	json_t *cache = monitor_write_cache(d), *o, *image, *inserted;
	char name[16];

	name_of(d, name, sizeof(name));
	json_object_del(cache, "device");
	json_object_set_new(cache, "mode", json_string(cache_mode_name(mode)));
	put(cache, "unstable-bytes", owed);
	json_object_set_new(cache, "oldest-ms",
		since ? json_integer((json_int_t)((now > since ? now - since : 0) / 1000000))
		      : json_null());
	/* A file name need not be UTF-8; it is left out then. */
	image = json_pack("{s:s, s:I}", "format", disk_format(disk), "virtual-size",
		(json_int_t)disk_size(disk));
	json_object_set_new(image, "filename", json_string(disk_path(disk)));
	inserted = json_pack("{s:s, s:b, s:o, s:{s:b, s:b, s:b}}", "drv", disk_format(disk), "ro",
		(int)disk_readonly(disk), "image", image, "cache", "writeback", (int)disk_wce(disk),
		"direct", mode == CACHE_NONE || mode == CACHE_DIRECTSYNC, "no-flush",
		mode == CACHE_UNSAFE);
	json_object_set_new(inserted, "file", json_string(disk_path(disk)));
	o = json_pack("{s:s, s:s, s:b, s:b, s:o, s:o}", "device", name, "type", "unknown",
		"removable", 0, "locked", 0, "inserted", inserted, "x-write-cache", cache);
	return o;
}

json_t *monitor_query_block(const struct monitor_host *h, json_t *args, struct monitor_error *e)
{
	json_t *a = json_array();

	for (unsigned i = 0; i < h->n_drives; i++)
		json_array_append_new(a, one_block(h->drives[i]));
	return a;
}

json_t *monitor_query_blockstats(
	const struct monitor_host *h, json_t *args, struct monitor_error *e)
{
	json_t *a = json_array();

	for (unsigned i = 0; i < h->n_drives; i++) {
		json_t *s = json_object();
		struct disk_stats st;
		char name[16];

		name_of(h->drives[i], name, sizeof(name));
		disk_stats_get(drive_disk(h->drives[i]), &st);
		put(s, "rd_operations", st.reads);
		put(s, "rd_bytes", st.read_bytes);
		put(s, "wr_operations", st.writes);
		put(s, "wr_bytes", st.write_bytes);
		put(s, "flush_operations", st.flushes);
		put(s, "unmap_operations", st.discards);
		put(s, "unmap_bytes", st.discard_bytes);
		put(s, "x-zeroes_operations", st.zeroes);
		put(s, "x-zeroes_bytes", st.zero_bytes);
		put(s, "x-failed_operations", st.failed);
		put(s, "x-host_writes", st.host_writes);
		put(s, "x-host_fdatasyncs", st.host_fdatasyncs);
		put(s, "x-write_cache_changes", st.wce_changes);
		json_array_append_new(a, json_pack("{s:s, s:o}", "device", name, "stats", s));
	}
	return a;
}

json_t *monitor_set_write_cache(const struct monitor_host *h, json_t *args, struct monitor_error *e)
{
	const char *device;
	int enable;

	if (json_unpack(args, "{s:s, s:b}", "device", &device, "enable", &enable) ||
		json_object_size(args) != 2)
		return monitor_fail(e, "GenericError",
			"expected device, a string, and enable, a boolean, and nothing else");
	for (unsigned i = 0; i < h->n_drives; i++) {
		struct wce_job j = {.change = {.enable = enable, .monitor = true}};
		char name[16];
		int err;

		name_of(h->drives[i], name, sizeof(name));
		if (strcmp(name, device))
			continue;
		err = drive_do(h->drives[i], job_wce, &j);
		if (err == -EPERM)
			return monitor_fail(e, "GenericError",
				"%s: with cache=unsafe the write cache stays on", name);
		if (err)
			return monitor_fail(e, "GenericError",
				"%s: what was written cannot be made durable, the cache stays on: "
				"%s",
				name, strerror(-err));
		return json_object();
	}
	return monitor_fail(e, "DeviceNotFound", "Device '%s' not found", device);
}
