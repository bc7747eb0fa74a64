/* SPDX-License-Identifier: MIT */
/*
 * monitor_disk.c - the monitor's commands that change drives: size, layers, discs.
 *
 * Names, arguments and answers are QMP's (QEMU's QAPI reference).  The work is disks.c's.
 */
#include <stdio.h>
#include <string.h>
#include "vmm/monitor.h"

/* The words that say which drive, and these. */
static bool allowed(json_t *args, const char *const *keys, struct monitor_error *e)
{
	static const char *const names[] = {"device", "id", "node-name"};
	const char *key;
	json_t *value;

	json_object_foreach(args, key, value) {
		bool known = false;

		for (unsigned i = 0; keys[i]; i++)
			known |= !strcmp(keys[i], key);
		for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
			known |= !strcmp(names[i], key);
		if (!known) {
			monitor_fail(e, "GenericError", "Parameter '%s' is unexpected", key);
			return false;
		}
	}
	return true;
}

/* The string called key; without one there *out stays as it is, unless must. */
static bool text(json_t *args, const char *key, bool must, const char **out,
	struct monitor_error *e)
{
	json_t *v = json_object_get(args, key);

	if (v && !json_is_string(v))
		monitor_fail(e, "GenericError",
			"Invalid parameter type for '%s', expected: string", key);
	else if (!v && must)
		monitor_fail(e, "GenericError", "Parameter '%s' is missing", key);
	else if (v)
		*out = json_string_value(v);
	return v ? json_is_string(v) : !must;
}

static bool flag(json_t *args, const char *key, bool *out, struct monitor_error *e)
{
	json_t *v = json_object_get(args, key);

	if (v && !json_is_boolean(v)) {
		monitor_fail(e, "GenericError",
			"Invalid parameter type for '%s', expected: boolean", key);
		return false;
	}
	*out = v && json_is_true(v);
	return true;
}

static json_t *answer(int err, int drive, const struct why *why, struct monitor_error *e)
{
	if (err)
		return monitor_fail(e, "GenericError", "drive%d: %s", drive, why_text(why, err));
	return json_object();
}

json_t *monitor_resize(struct monitor *m, json_t *args, struct monitor_error *e)
{
	static const char *const keys[] = {"size", NULL};
	json_t *size = json_object_get(args, "size");
	struct why why = {""};
	int i, err;

	if (!allowed(args, keys, e))
		return NULL;
	if (!json_is_integer(size))
		return monitor_fail(e, "GenericError", "expected size, a number of bytes");
	i = monitor_drive(m, args, e);
	if (i < 0)
		return NULL;
	if (json_integer_value(size) <= 0)
		return monitor_fail(
			e, "GenericError", "Parameter 'size' expects a value greater than zero");
	err = disks_resize(
		monitor_host(m)->disks, (unsigned)i, (uint64_t)json_integer_value(size), &why);
	return answer(err, i, &why, e);
}

json_t *monitor_overlay(struct monitor *m, json_t *args, struct monitor_error *e)
{
	static const char *const keys[] = {
		"snapshot-file", "snapshot-node-name", "format", "mode", NULL};
	const char *path = NULL, *format = "qcow2", *mode = "absolute-paths";
	struct why why = {""};
	int i, err;

	if (!allowed(args, keys, e) || !text(args, "snapshot-file", true, &path, e) ||
		!text(args, "format", false, &format, e) || !text(args, "mode", false, &mode, e))
		return NULL;
	i = monitor_drive(m, args, e);
	if (i < 0)
		return NULL;
	if (strcmp(mode, "existing") && strcmp(mode, "absolute-paths"))
		return monitor_fail(e, "GenericError", "Invalid parameter '%s'", mode);
	err = disks_overlay(monitor_host(m)->disks, (unsigned)i, path, format,
		strcmp(mode, "existing") != 0, &why);
	return answer(err, i, &why, e);
}

json_t *monitor_snapshot(struct monitor *m, json_t *args, struct monitor_error *e)
{
	static const char *const keys[] = {"name", NULL};
	const char *name = NULL;
	struct why why = {""};
	int i;

	if (!allowed(args, keys, e) || !text(args, "name", true, &name, e))
		return NULL;
	i = monitor_drive(m, args, e);
	if (i < 0)
		return NULL;
	return answer(
		disks_snapshot(monitor_host(m)->disks, (unsigned)i, name, &why), i, &why, e);
}

json_t *monitor_snapshot_delete(struct monitor *m, json_t *args, struct monitor_error *e)
{
	static const char *const keys[] = {"id", "name", NULL};
	const char *id = NULL, *name = NULL;
	struct disks_snapshot s;
	struct why why = {""};
	int i, err;

	if (!allowed(args, keys, e) || !text(args, "id", false, &id, e) ||
		!text(args, "name", false, &name, e))
		return NULL;
	i = monitor_drive(m, args, e);
	if (i < 0)
		return NULL;
	err = disks_snapshot_delete(monitor_host(m)->disks, (unsigned)i, id, name, &s, &why);
	if (err)
		return answer(err, i, &why, e);
	return json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "id", s.id, "name", s.name,
		"vm-state-size", (json_int_t)s.vm_state_bytes, "date-sec", (json_int_t)s.sec,
		"date-nsec", (json_int_t)s.nsec, "vm-clock-sec",
		(json_int_t)(s.clock_ns / 1000000000), "vm-clock-nsec",
		(json_int_t)(s.clock_ns % 1000000000));
}

/* ---- discs ---- */

static bool tray_is_shut(struct monitor *m, unsigned i)
{
	const struct disks_slot *slot = &monitor_host(m)->disks->slot[i];
	struct ide_cd_state s = {0};

	return slot->c.cdrom && ide_cd_state(slot->dev, slot->c.index, &s) && !s.open;
}

enum what { EJECT, OPEN, CLOSE, REMOVE, CHANGE };

static int disc(struct monitor *m, enum what what, unsigned i, bool force, const char *const *file,
	struct why *why)
{
	struct disks *s = monitor_host(m)->disks;
	int err;

	switch (what) {
	case OPEN:
	case CLOSE:
		err = disks_tray(s, i, what == OPEN, force, why);
		/* Should the guest open it, an event will tell. */
		return err == -EINPROGRESS ? 0 : err;
	case REMOVE:
		return disks_remove(s, i, true, why);
	case EJECT:
		return disks_remove(s, i, force, why);
	default:
		return disks_load(s, i, file[0], file[1], force, why);
	}
}

static json_t *disc_answer(int err, unsigned i, const struct why *why, struct monitor_error *e)
{
	switch (err) {
	case -ENOTBLK:
		return monitor_fail(e, "GenericError", "Device 'drive%u' is not removable", i);
	case -EINPROGRESS:
		return monitor_fail(e, "GenericError",
			"Device 'drive%u' is locked and force was not specified, "
			"wait for tray to open and try again",
			i);
	default:
		return answer(err, (int)i, why, e);
	}
}

/* The drive, by either name; for REMOVE, as with QEMU, by one of them only. */
static int disc_drive(struct monitor *m, enum what what, json_t *args, struct monitor_error *e)
{
	bool id = json_object_get(args, "id"), device = json_object_get(args, "device");

	if (what == REMOVE ? !id : id == device) {
		monitor_fail(e, "GenericError",
			what == REMOVE ? "Parameter 'id' is missing" :
					 "Need exactly one of 'device' and 'id'");
		return -1;
	}
	return monitor_drive(m, args, e);
}

static json_t *do_disc(struct monitor *m, enum what what, json_t *args, struct monitor_error *e)
{
	static const char *const keys[] = {"force", "filename", "format", "read-only-mode", NULL};
	static const char *const force_only[] = {"force", NULL}, *const none[] = {NULL};
	static const char *const *const takes[] = {force_only, force_only, none, none, keys};
	const char *file[2] = {NULL, NULL}, *mode = "retain";
	struct why why = {""};
	bool force;
	int i, err;

	if (!allowed(args, takes[what], e) || !flag(args, "force", &force, e) ||
		!text(args, "filename", what == CHANGE, &file[0], e) ||
		!text(args, "format", false, &file[1], e) ||
		!text(args, "read-only-mode", false, &mode, e))
		return NULL;
	if (file[1] && strcmp(file[1], "raw") && strcmp(file[1], "qcow2"))
		return monitor_fail(e, "GenericError", "Unknown driver '%s'", file[1]);
	if (!strcmp(mode, "read-write"))
		return monitor_fail(e, "GenericError", "a CD-ROM drive does not write");
	if (strcmp(mode, "retain") && strcmp(mode, "read-only"))
		return monitor_fail(e, "GenericError", "Invalid parameter '%s'", mode);
	i = disc_drive(m, what, args, e);
	if (i < 0)
		return NULL;
	if (what == REMOVE && tray_is_shut(m, (unsigned)i))
		return monitor_fail(
			e, "GenericError", "Tray of device 'drive%d' is not open", i);
	err = disc(m, what, (unsigned)i, force, file, &why);
	monitor_tell_trays(m);
	return disc_answer(err, (unsigned)i, &why, e);
}

json_t *monitor_eject(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return do_disc(m, EJECT, args, e);
}

json_t *monitor_open_tray(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return do_disc(m, OPEN, args, e);
}

json_t *monitor_close_tray(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return do_disc(m, CLOSE, args, e);
}

json_t *monitor_remove_medium(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return do_disc(m, REMOVE, args, e);
}

json_t *monitor_change_medium(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return do_disc(m, CHANGE, args, e);
}
