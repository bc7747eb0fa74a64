/* SPDX-License-Identifier: MIT */
/*
 * disks.c - what the user does to the machine's drives while the guest runs.
 *
 * Whatever touches a disk is done on its drive's thread (drive_do()); this one waits meanwhile, so
 * that one thing happens at a time.
 */
#include "vmm/disks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices/virtio_blk.h"

int disks_find(const struct disks *s, const char *name)
{
	for (unsigned i = 0; i < s->n; i++) {
		char have[16];

		snprintf(have, sizeof(have), "drive%u", i);
		if (!strcmp(have, name))
			return (int)i;
	}
	return -1;
}

static int job_notify(struct drive *d, void *arg)
{
	disk_notify(drive_disk(d), *(int *)arg);
	return 0;
}

void disks_watch(struct disks *s, int fd)
{
	s->wake_fd = fd;
	for (unsigned i = 0; i < s->n; i++) {
		if (s->slot[i].drive)
			(void)drive_do(s->slot[i].drive, job_notify, &fd);
		if (s->slot[i].c.cdrom)
			ide_cd_watch(s->slot[i].dev, s->slot[i].c.index, fd);
	}
}

static int job_retry(struct drive *d, void *arg)
{
	disk_retry(drive_disk(d));
	return 0;
}

void disks_retry(struct disks *s)
{
	for (unsigned i = 0; i < s->n; i++)
		if (s->slot[i].drive)
			(void)drive_do(s->slot[i].drive, job_retry, NULL);
}

struct work {
	struct disks_slot *slot;
	uint64_t size;
	const char *path, *format, *id, *name;
	bool make;
	struct disks_snapshot *deleted;
	struct why *why;
};

/* With words for what the disk has none. */
static int run(struct disks_slot *slot, int (*fn)(struct drive *d, void *arg), struct work *w)
{
	int err;

	if (!slot->drive)
		return why_set(w->why, -ENOMEDIUM, "there is no disc in it");
	w->slot = slot;
	err = drive_do(slot->drive, fn, w);
	return err ? why_set(w->why, err, "%s", strerror(-err)) : 0;
}

/* ---- another size ---- */

static int job_resize(struct drive *d, void *arg)
{
	struct work *w = arg;

	return disk_online_resize(drive_disk(d), w->size, w->why);
}

int disks_resize(struct disks *s, unsigned i, uint64_t size, struct why *why)
{
	struct disks_slot *slot = &s->slot[i];
	struct work w = {.size = size, .why = why};
	int err;

	if (size % SECTOR || !size)
		return why_set(why, -EINVAL, "the size must be a multiple of %d", SECTOR);
	err = run(slot, job_resize, &w);
	/* An IDE drive has no way to say it: the guest sees it when it identifies it again. */
	if (!err && slot->c.iface == DRIVE_VIRTIO)
		virtio_blk_resized(slot->dev);
	return err;
}

/* ---- an overlay ---- */

static struct disk_opts opts_over(const struct disks_slot *slot, const char *path,
	const char *format)
{
	const struct disk_opts *now = &slot->c.disk;

	return (struct disk_opts){.path = path,
		.format = format,
		.cache = now->cache,
		.nosync = now->nosync,
		.unmap = now->unmap,
		.detect_zeroes = now->detect_zeroes,
		.cache_clean_s = now->cache_clean_s,
		.l2_cache_bytes = now->l2_cache_bytes,
		.refcount_cache_bytes = now->refcount_cache_bytes,
		.on_read_error = now->on_read_error,
		.on_write_error = now->on_write_error};
}

static int job_overlay(struct drive *d, void *arg)
{
	struct work *w = arg;
	struct disk_opts over = opts_over(w->slot, w->path, w->format);

	return disk_online_overlay(drive_disk(d), &w->slot->c.disk, &over, w->make, w->why);
}

int disks_overlay(struct disks *s, unsigned i, const char *path, const char *format,
	bool make, struct why *why)
{
	struct disks_slot *slot = &s->slot[i];
	struct work w = {.path = strdup(path), .format = "qcow2", .make = make, .why = why};
	int err = 0;

	if (!w.path)
		return -ENOMEM;
	if (strcmp(format, "qcow2"))
		err = why_set(why, -EINVAL, "format '%s': an overlay is in qcow2 format", format);
	else if (slot->c.throwaway)
		err = why_set(why, -EBUSY, "the disk is thrown away at the end (-snapshot)");
	else
		err = run(slot, job_overlay, &w);
	if (err) {
		free((char *)(uintptr_t)w.path);
		return err;
	}
	slot->c.disk = opts_over(slot, w.path, w.format);
	free(slot->path);
	slot->path = (char *)(uintptr_t)w.path;
	return 0;
}

/* ---- snapshots inside the image ---- */

/* The snapshot with this ID and name; false: none.  many: there are others of its name. */
static bool find(const struct disk *d, const char *id, const char *name,
	struct disk_snapshot *out, bool *many)
{
	struct disk_snapshot one;
	unsigned same = 0;
	bool found = false;

	for (uint32_t i = 0; disk_snapshot_get(d, i, &one); i++) {
		if (found || (id && strcmp(one.id, id)) || (name && strcmp(one.name, name)))
			continue;
		*out = one;
		found = true;
	}
	for (uint32_t i = 0; found && disk_snapshot_get(d, i, &one); i++)
		same += !strcmp(one.name, out->name);
	*many = same > 1;
	return found;
}

static int job_snapshot(struct drive *d, void *arg)
{
	struct work *w = arg;
	struct disk_snapshot one;
	bool many;

	if (find(drive_disk(d), NULL, w->name, &one, &many))
		return why_set(w->why, -EEXIST, "there is a snapshot '%s' already", w->name);
	return disk_online_snapshot(drive_disk(d), SNAPSHOT_CREATE, w->name, w->why);
}

int disks_snapshot(struct disks *s, unsigned i, const char *name, struct why *why)
{
	struct work w = {.name = name, .why = why};

	if (!*name)
		return why_set(why, -EINVAL, "a snapshot needs a name");
	return run(&s->slot[i], job_snapshot, &w);
}

static int job_delete(struct drive *d, void *arg)
{
	struct work *w = arg;
	struct disks_snapshot *out = w->deleted;
	struct disk_snapshot one;
	bool many;

	if (!find(drive_disk(d), w->id, w->name, &one, &many))
		return why_set(w->why, -ENOENT, "there is no such snapshot");
	if (many)
		return why_set(w->why, -EEXIST, "there are several snapshots '%s'", one.name);
	*out = (struct disks_snapshot){.vm_state_bytes = one.vm_state_bytes,
		.sec = one.sec,
		.nsec = one.nsec,
		.clock_ns = one.clock_ns};
	snprintf(out->id, sizeof(out->id), "%s", one.id);
	snprintf(out->name, sizeof(out->name), "%s", one.name);
	return disk_online_snapshot(drive_disk(d), SNAPSHOT_DELETE, out->name, w->why);
}

int disks_snapshot_delete(struct disks *s, unsigned i, const char *id, const char *name,
	struct disks_snapshot *out, struct why *why)
{
	struct work w = {.id = id, .name = name, .deleted = out, .why = why};

	if (!id && !name)
		return why_set(why, -EINVAL, "which snapshot? give its id or name");
	return run(&s->slot[i], job_delete, &w);
}

/* ---- discs ---- */

int disks_tray(struct disks *s, unsigned i, bool open, bool force, struct why *why)
{
	struct disks_slot *slot = &s->slot[i];
	int err = slot->c.cdrom ? ide_cd_tray(slot->dev, slot->c.index, open, force) : -ENOTBLK;

	if (err == -EINPROGRESS)
		return why_set(why, err, "the guest has locked the tray; it is asked to open it");
	return err ? why_set(why, err, "it is no CD-ROM drive") : 0;
}

/* The guest no longer has it. */
static void close_disc(struct disks_slot *slot)
{
	struct drive_report r;
	struct why why = {""};
	int err = slot->drive ? drive_close(slot->drive, &r, &why) : 0;

	if (err)
		log_warn("%s", why_text(&why, err));
	slot->drive = NULL;
	free(slot->path);
	slot->path = NULL;
	slot->c.disk.path = NULL;
}

int disks_remove(struct disks *s, unsigned i, bool force, struct why *why)
{
	struct disks_slot *slot = &s->slot[i];
	int err = disks_tray(s, i, true, force, why);

	if (!err)
		err = ide_cd_change(slot->dev, slot->c.index, NULL, NULL);
	if (!err)
		close_disc(slot);
	return err;
}

int disks_load(struct disks *s, unsigned i, const char *path, const char *format, bool force,
	struct why *why)
{
	struct disks_slot *slot = &s->slot[i];
	struct drive_config c = slot->c;
	struct drive *drive = NULL;
	struct drive_report r;
	struct why ignored = {""};
	char *own;
	int err;

	if (!c.cdrom)
		return disks_tray(s, i, true, force, why);
	own = strdup(path);
	if (!own)
		return -ENOMEM;
	c.disk.path = own;
	c.disk.format = format && !strcmp(format, "qcow2") ? "qcow2" : "raw";
	err = drive_open(&c, i, &drive, why);
	if (!err) {
		(void)drive_do(drive, job_notify, &s->wake_fd);
		err = disks_tray(s, i, true, force, why);
		if (!err)
			err = ide_cd_change(
				slot->dev, c.index, drive_loop(drive), drive_disk(drive));
		if (err && drive_close(drive, &r, &ignored))
			log_warn("%s", ignored.text);
	}
	if (err) {
		free(own);
		return err;
	}
	close_disc(slot);
	slot->c = c;
	slot->path = own;
	slot->drive = drive;
	return disks_tray(s, i, false, false, why);
}
