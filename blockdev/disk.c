/* SPDX-License-Identifier: MIT */
/*
 * disk.c - opening and closing disks: cache modes, format probing, figures.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/block_int.h"
#include "blockdev/disk_file.h"
#include "blockdev/file/inject.h"
#include "blockdev/name.h"

const char *const cache_mode_names[] = {
	"writeback", "none", "writethrough", "directsync", "unsafe", NULL};
const char *const detect_zeroes_names[] = {"off", "on", "unmap", NULL};

int cache_mode_parse(const char *name, enum cache_mode *out)
{
	for (int i = 0; cache_mode_names[i]; i++) {
		if (!strcmp(name, cache_mode_names[i])) {
			*out = (enum cache_mode)i;
			return 0;
		}
	}
	return -EINVAL;
}

const char *cache_mode_name(enum cache_mode m)
{
	return cache_mode_names[m];
}

static bool mode_wce(enum cache_mode m)
{
	return m != CACHE_WRITETHROUGH && m != CACHE_DIRECTSYNC;
}

/* Best guess first does not matter: the surest wins. */
static const struct format_ops *const formats[] = {&qcow2_format, &raw_format};

static const struct format_ops *format_by_name(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++)
		if (!strcmp(formats[i]->name, name))
			return formats[i];
	return NULL;
}

/* In a fiber.  0 with *out, or -errno. */
static int format_probe(
	struct file *f, const struct disk_opts *o, const char *path, const struct format_ops **out)
{
	uint64_t len = min_u64(file_size(f), 512);
	uint8_t head[512] = {0};
	int best = -1, err;

	err = file_pread(f, head, len, 0);
	if (err)
		return err;
	for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
		int sure = formats[i]->probe(head, len);

		if (sure > best) {
			best = sure;
			*out = formats[i];
		}
	}
	if (*out == &raw_format && !o->readonly && !o->quiet)
		log_warn("%s: no format given, taken for raw; say format=raw to be sure", path);
	return 0;
}

struct open_args {
	struct file *f;
	const struct disk_opts *o;
	struct disk *d;
	struct why *why;
};

/* In a fiber; the file stays the caller's on error. */
static int open_fiber(void *arg)
{
	struct open_args *a = arg;
	const struct format_ops *ops = NULL;
	int err;

	if (a->o->format)
		ops = format_by_name(a->o->format);
	else if ((err = format_probe(a->f, a->o, a->d->path, &ops)) != 0)
		return err;
	if (!ops)
		return why_set(a->why, -EINVAL, "unknown format '%s': expected raw or qcow2",
			a->o->format);
	return ops->open(a->f, a->o, &a->d->fmt, a->why);
}

static void disk_free(struct disk *d)
{
	if (d->backing && !d->backing_lent)
		disk_free(d->backing);
	if (d->fmt)
		d->fmt->ops->free(d->fmt);
	free(d->path);
	free(d->data_path);
	free(d->driver);
	free(d);
}

static int disk_new(struct file *f, const struct disk_opts *o, struct disk **out)
{
	struct disk *d = calloc(1, sizeof(*d));

	*out = d;
	if (!d)
		return -ENOMEM;
	d->path = strdup(o->path ? o->path : "(file)");
	d->loop = f->loop;
	d->mode = o->cache;
	d->readonly = o->readonly;
	d->wce = mode_wce(o->cache);
	d->level = o->level;
	d->told = o->quiet;
	d->tap = o->tap;
	d->detect = o->detect_zeroes;
	d->on_read_error = o->on_read_error;
	d->on_write_error = o->on_write_error;
	block_init(d);
	return d->path ? 0 : -ENOMEM;
}

static uint32_t block_size(const struct format *fmt)
{
	uint32_t a = fmt->file->align_off, b = format_data(fmt)->align_off;

	return (uint32_t)max_u64(SECTOR, max_u64(a, b));
}

static int open_file_above(struct file *f, const struct disk_opts *o, struct disk *above,
	struct disk **out, struct why *why)
{
	struct open_args a = {f, o, NULL, why};
	int err = disk_new(f, o, &a.d);

	if (!err)
		err = fiber_pool_init(f->loop);
	if (!err)
		err = fiber_run(f->loop, open_fiber, &a);
	if (err) {
		file_close(f);
		if (o->data_file)
			file_close(o->data_file);
	} else {
		a.d->above = above;
		hold_sized(a.d);
		a.d->fmt->unmap = o->unmap;
		a.d->fmt->level = o->level;
		a.d->fmt->sync.never = o->nosync;
		err = data_file_open(a.d, o, why);
		if (!err)
			err = chain_open(a.d, o, why);
	}
	if (!err) {
		a.d->block_size = block_size(a.d->fmt);
		a.d->cluster_size = a.d->fmt->cluster_size;
		*out = a.d;
	} else if (a.d) {
		disk_free(a.d);
	}
	return err;
}

int disk_open_file(struct file *f, const struct disk_opts *o, struct disk **out, struct why *why)
{
	return open_file_above(f, o, NULL, out, why);
}

int disk_tap_file(const struct disk_opts *o, bool data, struct file **f, struct why *why)
{
	struct disk_tap *t = o->tap;
	int err = t && t->file ? t->file(t, *f, data, f, why) : 0;

	if (err)
		file_close(*f);
	return err;
}

int disk_open_above(struct loop *l, const struct disk_opts *o, struct disk *above,
	struct disk **out, struct why *why)
{
	struct image_name name;
	struct file *f;
	int err;

	if (o->file)
		return open_file_above(o->file, o, above, out, why);
	err = name_read(&name, o, why);
	if (!err)
		err = name_open(l, &name, &f, why);
	if (!err)
		err = disk_tap_file(o, false, &f, why);
	if (!err)
		err = open_file_above(f, &name.o, above, out, why);
	if (!err) {
		(*out)->copy_on_read = (name.copy_on_read || o->copy_on_read) && !o->readonly;
		if (name.driver && !((*out)->driver = strdup(name.driver))) {
			disk_free(*out);
			err = -ENOMEM;
		}
	}
	name_fini(&name);
	return err;
}

int disk_open(struct loop *l, const struct disk_opts *o, struct disk **out, struct why *why)
{
	return disk_open_above(l, o, NULL, out, why);
}

struct close_args {
	struct disk *d;
	struct why *why;
};

static int close_fiber(void *arg)
{
	struct close_args *a = arg;
	struct format *fmt = a->d->fmt;

	return fmt->ops->close(fmt, a->why);
}

void disk_stats_get(const struct disk *d, struct disk_stats *out)
{
	const struct file_stats none = {0}, *f = d->fmt->file->stats;
	const struct file_stats *x = d->fmt->data_file ? d->fmt->data_file->stats : &none;

	const struct disk_stats *p = &d->past;

	*out = d->stats;
	out->host_reads = p->host_reads + f->reads + x->reads;
	out->host_writes = p->host_writes + f->writes + x->writes;
	out->host_fdatasyncs = p->host_fdatasyncs + f->fdatasyncs + x->fdatasyncs;
	out->host_fallocates = p->host_fallocates + f->fallocates + x->fallocates;
	out->host_read_bytes = p->host_read_bytes + f->read_bytes + x->read_bytes;
	out->metadata_bytes = p->metadata_bytes + d->fmt->metadata_bytes;
	out->data_bytes = p->data_bytes + f->written_bytes + x->written_bytes -
		d->fmt->metadata_bytes;
}

int disk_close_stats(struct disk *d, struct disk_stats *out, struct why *why)
{
	struct close_args a = {d, why};
	int err, e;

	disk_drain(d);
	err = fiber_run(d->loop, close_fiber, &a);
	if (out)
		disk_stats_get(d, out);
	e = disk_file_finish(d->fmt->file, err ? NULL : why);
	err = err ? err : e;
	disk_free(d);
	return err;
}

int disk_close(struct disk *d, struct why *why)
{
	return disk_close_stats(d, NULL, why);
}

void disk_abandon(struct disk *d)
{
	disk_drain(d);
	disk_free(d);
}

struct disk *disk_inner(const struct disk *d)
{
	return d->fmt->ops == &raw_format ? disk_file_disk(d->fmt->file) : NULL;
}

uint64_t disk_size(const struct disk *d)
{
	return __atomic_load_n(&d->size, __ATOMIC_ACQUIRE);
}

uint32_t disk_block_size(const struct disk *d)
{
	return d->block_size;
}

uint32_t disk_cluster_size(const struct disk *d)
{
	return d->cluster_size;
}

const char *disk_format(const struct disk *d)
{
	return d->fmt->ops->name;
}

const char *disk_driver(const struct disk *d)
{
	return d->driver ? d->driver : disk_format(d);
}

const char *disk_path(const struct disk *d)
{
	return d->path;
}

const char *disk_data_path(const struct disk *d)
{
	return d->data_path ? d->data_path : d->path;
}

bool disk_readonly(const struct disk *d)
{
	return d->readonly;
}

enum cache_mode disk_cache_mode(const struct disk *d)
{
	return d->mode;
}

bool disk_wce_default(const struct disk *d)
{
	return mode_wce(d->mode);
}

uint64_t disk_vmstate_offset(const struct disk *d)
{
	return d->fmt->ops->vmstate_offset ? d->fmt->ops->vmstate_offset(d->fmt) : 0;
}

/* ---- break points ---- */

static struct inject *inject_below(const struct disk *d)
{
	while (!d->fmt->file->inject && disk_file_disk(d->fmt->file))
		d = disk_file_disk(d->fmt->file);
	return d->fmt->file->inject;
}

int disk_break(struct disk *d, const char *event, const char *tag)
{
	return inject_below(d) ? inject_break(inject_below(d), event, tag) : -ENOTSUP;
}

int disk_break_resume(struct disk *d, const char *tag)
{
	return inject_below(d) ? inject_resume(inject_below(d), tag) : -ENOTSUP;
}

int disk_break_remove(struct disk *d, const char *tag)
{
	return inject_below(d) ? inject_unbreak(inject_below(d), tag) : -ENOTSUP;
}

bool disk_break_held(const struct disk *d, const char *tag)
{
	return inject_below(d) && inject_held(inject_below(d), tag);
}
