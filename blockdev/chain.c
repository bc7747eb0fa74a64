/* SPDX-License-Identifier: MIT */
/*
 * chain.c - the layers of an image: opening what lies below, and what lies where.
 *
 * Each layer is a disk of its own, read-only below the top, and its format reads through
 * fmt->backing where it holds nothing itself.  A relative name is relative to the folder of
 * the image that gives it.  A chain that comes back to a file it has been through is refused:
 * it could never be read.
 */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include "blockdev/block_int.h"
#include "blockdev/file/inject.h"
#include "blockdev/opts.h"

/* Deeper chains exist only by mistake; each layer costs a file and its caches. */
#define CHAIN_MAX 200

/* "proto:rest", as in json:{...} or nbd://...: not the name of a file beside the image. */
static bool has_protocol(const char *name)
{
	size_t n = strcspn(name, ":/");

	return n && name[n] == ':';
}

int disk_backing_path(const char *image, const char *name, char *out, size_t len)
{
	const char *slash = strrchr(image, '/');
	int dir = slash ? (int)(slash - image) + 1 : 0;
	int n;

	if (name[0] == '/' || has_protocol(name))
		dir = 0;
	n = snprintf(out, len, "%.*s%s", dir, image, name);
	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

/* Is the file one that the chain down to d has been through? */
static bool comes_back(const struct disk *d, const char *path)
{
	struct stat a, b;

	if (stat(path, &a) != 0)
		return false; /* opening it says what is wrong */
	for (; d; d = d->above)
		if (!stat(d->path, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino)
			return true;
	return false;
}

static unsigned depth_of(const struct disk *d)
{
	unsigned n = 0;

	for (; d->above; d = d->above)
		n++;
	return n;
}

/* What the options for the backing file say about it themselves. */
static int overrides(const char *text, bool *driver, bool *file, struct why *why)
{
	struct opts o = {0};
	int err = text ? opts_parse(&o, text, why) : 0;

	*driver = opts_has(&o, "driver");
	*file = opts_has_under(&o, "file") || (*driver && opts_has(&o, "size"));
	opts_fini(&o);
	return err;
}

int chain_open(struct disk *d, const struct disk_opts *o, struct why *why)
{
	const char *name = o->backing ? o->backing : d->fmt->backing_name;
	const char *format = o->backing ? o->backing_format : d->fmt->backing_format;
	struct disk_opts below = {.format = format && format[0] ? format : NULL,
		.options = o->backing_options,
		.cache = o->cache,
		.readonly = true,
		.level = d->level,
		.nolock = o->nolock,
		.base = o->base,
		.base_depth = o->base_depth,
		.cache_clean_s = o->cache_clean_s,
		.l2_cache_bytes = o->l2_cache_bytes,
		.refcount_cache_bytes = o->refcount_cache_bytes};
	struct why inner = {""};
	bool driver, file;
	char path[4096];
	int err = overrides(o->backing_options, &driver, &file, why);

	if (err || o->nobacking || (!file && (!name || !name[0])))
		return err;
	if (driver)
		below.format = NULL;
	if (!file)
		err = disk_backing_path(d->path, name, path, sizeof(path));
	if (!file && !err && (comes_back(d, path) || depth_of(d) >= CHAIN_MAX))
		return why_set(
			why, -ELOOP, "Backing file '%.1023s' creates an infinite loop.", path);
	below.path = file ? NULL : path;
	if (!err && !file && o->base && depth_of(d) + 1 == o->base_depth) {
		d->backing = o->base;
		d->backing_lent = true;
	} else if (!err)
		err = disk_open_above(d->loop, &below, d, &d->backing, &inner);
	if (err && inner.text[0])
		return why_set(why, err, "Could not open backing file: %.1200s", inner.text);
	if (err)
		return why_set(why, err, "Could not open backing file: Could not open '%.900s': %s",
			path, strerror(-err));
	d->fmt->backing = d->backing->fmt;
	return 0;
}

const char *disk_backing_name(const struct disk *d)
{
	return d->fmt->backing_name ? d->fmt->backing_name : "";
}

struct disk *disk_backing(const struct disk *d)
{
	return d->backing;
}

/* What a fault filter under a raw disk, where its map is the disk's own, says to being asked. */
static int asked(const struct disk *d, uint64_t off, uint64_t len)
{
	struct inject *in = d->fmt->ops == &raw_format ? d->fmt->file->inject : NULL;

	return in ? inject_status(in, off, len) : 0;
}

int disk_extent(struct disk *d, uint64_t off, uint64_t len, struct extent *e)
{
	int err;

	*e = (struct extent){.layer = d};
	if (!range_within(off, len, d->fmt->size))
		return -EINVAL;
	err = asked(d, off, len);
	if (err)
		return err;
	if (disk_inner(d))
		return disk_extent(
			disk_inner(d), off, min_u64(len, disk_size(disk_inner(d)) - off), e);
	err = d->fmt->ops->extent(d->fmt, off, len, e);
	assert(err || (e->len && e->len <= len));
	return err;
}

int disk_map(struct disk *d, uint64_t off, uint64_t len, struct extent *e)
{
	uint64_t limit = len;

	if (disk_inner(d)) {
		int err = asked(d, off, len);

		return err ? err : disk_map(disk_inner(d), off, len, e);
	}
	for (int depth = 0;; depth++) {
		uint64_t size;
		int err = disk_extent(d, off, limit, e);

		if (err)
			return err;
		e->depth = depth;
		if (e->kind != EXTENT_HOLE || !d->backing)
			return 0;
		limit = e->len;
		size = d->backing->fmt->size;
		if (off >= size) /* the layer below is shorter: zeros, by this one's word */
			return 0;
		limit = min_u64(limit, size - off);
		d = d->backing;
	}
}
