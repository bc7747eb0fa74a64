/* SPDX-License-Identifier: MIT */
/*
 * overlay.c - a new image over the one that a disk is made of; and one to be thrown away.
 *
 * The disk stays the same for whoever uses it: its layers change.  What could fail is done
 * first: the overlay is made and opened, the image is opened once more, read-only.  Then all that
 * was written to the image is durable, and only then the overlay is on top and takes writes:
 * a flush after that covers the overlay alone.
 *
 * Nothing is in flight, and nothing is submitted.  Not in a fiber.
 */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block_int.h"
#include "blockdev/file/engine.h"
#include "blockdev/file/lock.h"
#include "blockdev/qcow2/format.h"

struct creation {
	struct file *file;
	struct qcow2_create_opts q;
	struct why *why;
};

static int create_fiber(void *arg)
{
	struct creation *c = arg;

	return qcow2_create(c->file, &c->q, c->why);
}

/* A new file is only there for sure when its directory is durable too. */
static int sync_directory(const char *path)
{
	char *copy = strdup(path);
	int fd = copy ? open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	int err = fd < 0 || (fsync(fd) && errno != EINVAL) ? -errno : 0;

	free(copy);
	if (fd >= 0)
		close(fd);
	return err == -EACCES ? 0 : err; /* one may write where one may not list */
}

/* Makes the image in a new file; after an error that is gone.  nosync: it need not last. */
static int create(struct loop *l, int fd, const char *path, const struct qcow2_create_opts *q,
	bool nosync, struct why *why)
{
	struct creation c = {.q = *q, .why = why};
	int err = engine_open(l, fd, false, false, &c.file);

	if (err) {
		close(fd);
	} else {
		c.file->nosync = nosync;
		err = fiber_run(l, create_fiber, &c);
		file_close(c.file);
	}
	if (!err && !nosync)
		err = sync_directory(path);
	if (err) {
		why_set(why, err, "%s: %s", path, strerror(-err));
		unlink(path);
	}
	return err;
}

/* How the overlay's header names the image: so that it is found from wherever. */
static char *name_of(const struct disk *d)
{
	char *full = realpath(d->path, NULL);

	return full ? full : strdup(d->path);
}

static int create_over(struct disk *d, const struct disk_opts *over, struct why *why)
{
	char *below = name_of(d);
	struct creation c = {.file = over->file, .why = why};
	int err = below ? 0 : -ENOMEM, fd;

	c.q = (struct qcow2_create_opts){.size = disk_size(d), .backing_file = below,
		.backing_format = d->fmt->ops->name};
	if (!err)
		err = qcow2_create_check(&c.q, why);
	if (!err && over->file) {
		err = fiber_run(d->loop, create_fiber, &c);
	} else if (!err) {
		fd = open(over->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		err = fd < 0 ? why_set(why, -errno, "%s: %s", over->path, strerror(errno)) :
			       create(d->loop, fd, over->path, &c.q, false, why);
	}
	free(below);
	return err;
}

/* The image once more, for reading, and without its own layers below. */
static int open_again(struct disk *d, const struct disk_opts *now, struct disk **out,
	struct why *why)
{
	struct disk_opts o = *now;

	o.readonly = o.nobacking = o.nolock = o.quiet = true;
	o.copy_on_read = false;
	o.tap = NULL;
	return disk_open_above(d->loop, &o, NULL, out, why);
}

static int flush_fiber(void *arg)
{
	struct disk *d = arg;

	return d->fmt->ops->flush(d->fmt);
}

static int close_fiber(void *arg)
{
	struct disk *d = arg;
	struct why why = {""};
	int err = d->fmt->ops->close(d->fmt, &why);

	if (err)
		log_warn("%s: not left clean below its overlay: %s", d->path, why_text(&why, err));
	return err;
}

static void lock_late(struct disk *d)
{
	struct file *f = d->fmt->file;
	struct why why = {""};

	while (f->below)
		f = f->below;
	if (!strcmp(f->ops->name, "engine") && image_lock(engine_fd(f), false, &why))
		log_warn("%s: %s", d->path, why.text);
}

/* Cannot fail. */
static void put_on_top(struct disk *d, struct disk *top, struct disk *base)
{
	struct disk old = *d;
	struct disk_stats past;

	/* All is durable; what closing writes only concerns its tidiness. */
	(void)fiber_run(d->loop, close_fiber, d);
	disk_stats_get(d, &past);
	d->past = past;
	d->fmt->ops->free(d->fmt);
	lock_late(base);
	base->backing = old.backing;
	base->backing_lent = old.backing_lent;
	base->fmt->backing = old.backing ? old.backing->fmt : NULL;
	if (old.backing)
		old.backing->above = base;
	base->above = d;
	d->fmt = top->fmt;
	d->backing = base;
	d->backing_lent = false;
	d->fmt->backing = base->fmt;
	d->path = top->path;
	d->data_path = top->data_path;
	d->driver = top->driver;
	free(old.path);
	free(old.data_path);
	free(old.driver);
	free(top);
	/* Somebody else may have made the overlay: the first flush covers that. */
	d->committed = d->acked++;
}

static int may_be_below(const struct disk *d, struct why *why)
{
	if (d->readonly)
		return why_set(why, -EROFS, "the disk is read-only");
	if (d->backing_lent || d->copy_on_read)
		return why_set(why, -EBUSY, "the disk shares its layers");
	return 0;
}

static int all_durable(struct disk *d, struct why *why)
{
	int err = fiber_run(d->loop, flush_fiber, d);

	if (err)
		return why_set(why, err, "what was written cannot be made durable: %s",
			strerror(-err));
	owed_clear(d);
	d->committed = d->acked;
	return 0;
}

static int open_top(struct disk *d, const struct disk_opts *over, struct disk **out,
	struct why *why)
{
	struct disk_opts o = *over;
	int err;

	o.nobacking = true;
	o.level = d->level;
	err = disk_open_above(d->loop, &o, NULL, out, why);
	if (err || disk_size(*out) == disk_size(d))
		return err;
	disk_abandon(*out);
	return why_set(why, -EINVAL, "%s has another size than the disk", over->path);
}

static void close_unopened(const struct disk_opts *o)
{
	if (o->file)
		file_close(o->file);
}

int overlay_put(struct disk *d, const struct disk_opts *now, const struct disk_opts *over,
	bool create_it, struct why *why)
{
	struct disk *top = NULL, *base = NULL;
	bool made = false;
	int err = may_be_below(d, why);

	if (!err)
		err = all_durable(d, why);
	if (!err && create_it) {
		err = create_over(d, over, why);
		made = !err && !over->file;
	}
	if (err)
		close_unopened(over);
	else
		err = open_top(d, over, &top, why);
	if (err) {
		close_unopened(now);
	} else {
		err = open_again(d, now, &base, why);
		if (err)
			disk_abandon(top);
	}
	if (!err)
		put_on_top(d, top, base);
	else if (made)
		unlink(over->path);
	return err;
}

/* ---- an overlay to be thrown away ---- */

int disk_open_throwaway(
	struct loop *l, const struct disk_opts *o, struct disk **out, struct why *why)
{
	const char *dir = getenv("TMPDIR");
	struct disk_opts below = *o, over = {.format = "qcow2", .cache = o->cache, .nosync = true,
		.l2_cache_bytes = o->l2_cache_bytes, .base_depth = 1,
		.refcount_cache_bytes = o->refcount_cache_bytes, .unmap = true,
		.on_read_error = o->on_read_error, .on_write_error = o->on_write_error,
		.detect_zeroes = o->detect_zeroes};
	struct qcow2_create_opts q = {.backing_file = "thrown-away", .backing_format = "raw"};
	struct disk *base;
	char path[4096];
	int err, fd;

	below.readonly = true;
	below.tap = NULL;
	err = disk_open(l, &below, &base, why);
	if (err)
		return err;
	snprintf(path, sizeof(path), "%s/sluice.XXXXXX", dir && *dir ? dir : "/tmp");
	q.size = disk_size(base);
	over.path = path;
	over.base = base;
	fd = mkstemp(path);
	err = fd < 0 ? why_set(why, -errno, "%s: %s", path, strerror(errno)) :
		       create(l, fd, path, &q, true, why);
	if (!err) {
		err = disk_open(l, &over, out, why);
		unlink(path);
	}
	if (err) {
		disk_abandon(base);
		return err;
	}
	(*out)->backing_lent = false; /* closed with its overlay */
	return 0;
}
