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

static json_t *snapshots(const struct disk *d)
{
	json_t *a = json_array();
	struct disk_snapshot s;

	for (uint32_t i = 0; disk_snapshot_get(d, i, &s); i++)
		json_array_append_new(a,
			json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "id", s.id, "name", s.name,
				"vm-state-size", (json_int_t)s.vm_state_bytes, "date-sec",
				(json_int_t)s.sec, "date-nsec", (json_int_t)s.nsec, "vm-clock-sec",
				(json_int_t)(s.clock_ns / 1000000000), "vm-clock-nsec",
				(json_int_t)(s.clock_ns % 1000000000)));
	return a;
}

/* A file name need not be UTF-8; it is left out then. */
static json_t *inserted(const struct drive *d)
{
	const struct disk *disk = drive_disk(d);
	enum cache_mode mode = disk_cache_mode(disk);
	const struct disk *below = disk_backing(disk);
	unsigned depth = 0;
	json_t *o, *image, *list = snapshots(disk);
	char name[16];

	name_of(d, name, sizeof(name));
	image = json_pack("{s:s, s:I}", "format", disk_format(disk), "virtual-size",
		(json_int_t)disk_size(disk));
	json_object_set_new(image, "filename", json_string(disk_path(disk)));
	if (below)
		json_object_set_new(image, "backing-filename", json_string(disk_path(below)));
	if (json_array_size(list))
		json_object_set(image, "snapshots", list);
	json_decref(list);
	o = json_pack("{s:s, s:b, s:o, s:{s:b, s:b, s:b}}", "drv", disk_format(disk), "ro",
		(int)disk_readonly(disk), "image", image, "cache", "writeback", (int)disk_wce(disk),
		"direct", mode == CACHE_NONE || mode == CACHE_DIRECTSYNC, "no-flush",
		mode == CACHE_UNSAFE);
	json_object_set_new(o, "node-name", json_string(name));
	json_object_set_new(o, "file", json_string(disk_path(disk)));
	if (below)
		json_object_set_new(o, "backing_file", json_string(disk_path(below)));
	for (; below; below = disk_backing(below))
		depth++;
	json_object_set_new(o, "backing_file_depth", json_integer(depth));
	return o;
}

static json_t *cache_of(const struct drive *d)
{
	const struct disk *disk = drive_disk(d);
	uint64_t since, owed = disk_owed(disk, &since);
	uint64_t now = loop_now_ns();
	json_t *cache = monitor_write_cache(d);

	json_object_del(cache, "device");
	json_object_set_new(cache, "mode", json_string(cache_mode_name(disk_cache_mode(disk))));
	put(cache, "unstable-bytes", owed);
	json_object_set_new(cache, "oldest-ms",
		since ? json_integer((json_int_t)((now > since ? now - since : 0) / 1000000))
		      : json_null());
	return cache;
}

static json_t *one_block(const struct disks *s, unsigned i)
{
	const struct disks_slot *slot = &s->slot[i];
	struct ide_cd_state cd = {0};
	json_t *o;
	char name[16];

	snprintf(name, sizeof(name), "drive%u", i);
	if (slot->c.cdrom)
		ide_cd_state(slot->dev, slot->c.index, &cd);
	o = json_pack("{s:s, s:s, s:b, s:b}", "device", name, "type", "unknown", "removable",
		(int)slot->c.cdrom, "locked", (int)cd.locked);
	if (slot->c.cdrom)
		json_object_set_new(o, "tray_open", json_boolean(cd.open));
	if (!slot->drive)
		return o;
	json_object_set_new(o, "inserted", inserted(slot->drive));
	json_object_set_new(o, "x-write-cache", cache_of(slot->drive));
	if (slot->c.disk.on_write_error != ON_ERROR_REPORT ||
		slot->c.disk.on_read_error != ON_ERROR_REPORT) {
		int err = disk_kept(drive_disk(slot->drive));

		json_object_set_new(o, "io-status",
			json_string(!err                                  ? "ok" :
					err == -ENOSPC || err == -EDQUOT ? "nospace" :
									   "failed"));
	}
	return o;
}

json_t *monitor_query_block(struct monitor *m, json_t *args, struct monitor_error *e)
{
	const struct disks *s = monitor_host(m)->disks;
	json_t *a = json_array();

	for (unsigned i = 0; i < s->n; i++)
		json_array_append_new(a, one_block(s, i));
	return a;
}

/* The top layer of each, which has its drive's name. */
json_t *monitor_query_nodes(struct monitor *m, json_t *args, struct monitor_error *e)
{
	const struct disks *s = monitor_host(m)->disks;
	json_t *a = json_array();

	for (unsigned i = 0; i < s->n; i++)
		if (s->slot[i].drive)
			json_array_append_new(a, inserted(s->slot[i].drive));
	return a;
}

static json_t *stats_of(const struct disk *d)
{
	json_t *s = json_object();
	struct disk_stats st;

	disk_stats_get(d, &st);
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
	return s;
}

json_t *monitor_query_blockstats(struct monitor *m, json_t *args, struct monitor_error *e)
{
	const struct disks *s = monitor_host(m)->disks;
	json_t *a = json_array();

	for (unsigned i = 0; i < s->n; i++) {
		char name[16];

		snprintf(name, sizeof(name), "drive%u", i);
		if (s->slot[i].drive)
			json_array_append_new(a,
				json_pack("{s:s, s:s, s:o}", "device", name, "node-name", name,
					"stats", stats_of(drive_disk(s->slot[i].drive))));
	}
	return a;
}

int monitor_drive(struct monitor *m, json_t *args, struct monitor_error *e)
{
	static const char *const keys[] = {"device", "id", "node-name"};
	const char *name = NULL;
	int i;

	for (unsigned k = 0; k < ARRAY_SIZE(keys) && !name; k++)
		name = json_string_value(json_object_get(args, keys[k]));
	if (!name) {
		monitor_fail(e, "GenericError", "Parameter 'device' is missing");
		return -1;
	}
	i = disks_find(monitor_host(m)->disks, name);
	if (i < 0)
		monitor_fail(e, "DeviceNotFound", "Device '%s' not found", name);
	return i;
}

json_t *monitor_set_write_cache(struct monitor *m, json_t *args, struct monitor_error *e)
{
	struct wce_job j = {.change.monitor = true};
	const char *device;
	int enable, i, err;

	if (json_unpack(args, "{s:s, s:b}", "device", &device, "enable", &enable) ||
		json_object_size(args) != 2)
		return monitor_fail(e, "GenericError",
			"expected device, a string, and enable, a boolean, and nothing else");
	i = monitor_drive(m, args, e);
	if (i < 0)
		return NULL;
	if (!monitor_host(m)->disks->slot[i].drive)
		return monitor_fail(e, "GenericError", "%s: there is no disc in it", device);
	j.change.enable = enable;
	err = drive_do(monitor_host(m)->disks->slot[i].drive, job_wce, &j);
	if (err == -EPERM)
		return monitor_fail(e, "GenericError",
			"%s: with cache=unsafe the write cache stays on", device);
	if (err)
		return monitor_fail(e, "GenericError",
			"%s: what was written cannot be made durable, the cache stays on: %s",
			device, strerror(-err));
	return json_object();
}
