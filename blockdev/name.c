/* SPDX-License-Identifier: MIT */
/*
 * name.c - see name.h.
 *
 * First the whole name becomes flat options (json: and options given beside it are merged,
 * the latter win), then each level takes its own and hands "file." and "backing." down.  An
 * option that nobody knows is an error, found before anything is opened.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/block_int.h"
#include "blockdev/disk_file.h"
#include "blockdev/file/inject.h"
#include "blockdev/file/null.h"
#include "blockdev/name.h"

/* Levels of "file"; a rules file that names itself as its image ends here. */
#define DEPTH_MAX 8

/* What a level may carry whatever its driver is; a dot at the end: all below it. */
static const char *const common_keys[] = {"driver", "filename", "node-name", "read-only",
	"auto-read-only", "force-share", "discard", "detect-zeroes", "cache.", NULL};
static const char *const no_keys[] = {NULL};
static const char *const file_keys[] = {"locking", "pr-manager", "aio", "aio-max-batch",
	"drop-cache", "x-check-cache-dropped", NULL};
static const char *const null_keys[] = {"size", "latency-ns", "read-zeroes", NULL};
static const char *const raw_keys[] = {"offset", "size", NULL};
static const char *const qcow2_keys[] = {"lazy-refcounts", "pass-discard-request",
	"pass-discard-snapshot", "pass-discard-other", "overlap-check", "overlap-check.",
	"cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size",
	"cache-clean-interval", "backing", NULL};

static bool listed(const char *const *keys, const char *key)
{
	for (; *keys; keys++) {
		size_t n = strlen(*keys);

		if ((*keys)[n - 1] == '.' ? !strncmp(*keys, key, n) : !strcmp(*keys, key))
			return true;
	}
	return false;
}

bool name_may_change(const char *key)
{
	return strcmp(key, "driver") != 0 && strcmp(key, "filename") != 0 &&
	       strcmp(key, "node-name") != 0 && strcmp(key, "backing") != 0 &&
	       (listed(common_keys, key) || listed(qcow2_keys, key));
}

static int refuse_unknown(const struct opts *o, const char *const *keys, const char *kind,
	const char *driver, const char * not, struct why *why)
{
	for (size_t i = 0; i < o->n; i++)
		if (!listed(common_keys, o->v[i].key) && !listed(keys, o->v[i].key))
			return why_set(why, -EINVAL, "Block %s '%s' %s support the option '%s'",
				kind, driver, not, o->v[i].key);
	return 0;
}

bool name_is_protocol(const char *driver)
{
	static const char *const names[] = {
		"file", "host_device", "null-co", "null-aio", "blkdebug", "compress", NULL};

	return listed(names, driver);
}

static bool is_format(const char *driver)
{
	return !strcmp(driver, "raw") || !strcmp(driver, "qcow2");
}

const char *name_host_path(const char *name)
{
	return strncmp(name, "file:", 5) ? name : name + 5;
}

/* What stands before a ':' that comes before any '/'; 0: the name is a file's. */
static size_t protocol_len(const char *name)
{
	size_t n = strcspn(name, ":/");

	return name[n] == ':' ? n : 0;
}

static int parse_filename(struct opts *o, const char *name, struct why *why)
{
	size_t n = protocol_len(name);
	const char *colon;
	char *config;
	int err;

	if (!n)
		return opts_set(o, "filename", name);
	if (n == 4 && !strncmp(name, "file", n)) {
		err = opts_set(o, "filename", name + 5);
		return err ? err : opts_set(o, "driver", "file");
	}
	if (n != 8 || strncmp(name, "blkdebug", n) != 0)
		return why_set(why, -EINVAL, "Unknown protocol '%.*s'", (int)n, name);
	colon = strchr(name + 9, ':');
	if (!colon)
		return why_set(why, -EINVAL, "blkdebug requires both config file and image path");
	config = strndup(name + 9, (size_t)(colon - name - 9));
	if (!config)
		return -ENOMEM;
	err = opts_set(o, "driver", "blkdebug");
	if (!err && *config)
		err = opts_set(o, "config", config);
	if (!err)
		err = opts_set(o, "x-image", colon + 1);
	free(config);
	return err;
}

/* Options given beside a json: name win over those in it. */
static int merge_json(struct opts *o, const char *name, struct why *why)
{
	struct opts inner = {0};
	int err = opts_parse_json(&inner, name + 5, why);

	if (!err)
		err = opts_add_all(o, &inner);
	opts_fini(&inner);
	return err;
}

static bool is_json(const char *name)
{
	return name && !strncmp(name, "json:", 5);
}

static int merge(struct image_name *n, const struct disk_opts *o, struct why *why)
{
	int err = o->options ? opts_parse(&n->top, o->options, why) : 0;

	if (!err && o->format)
		err = opts_set(&n->top, "driver", o->format);
	if (!err && is_json(o->path))
		return merge_json(&n->top, o->path, why);
	if (!err && o->path) {
		const char *driver = opts_get(&n->top, "driver");

		bool protocol = driver && name_is_protocol(driver);
		const char *key = protocol ? "filename" : "file.filename";

		if (!opts_has(&n->top, key))
			err = opts_set(&n->top, key, o->path);
	}
	return err;
}

/* driver=blkdebug and the like at the top: what they give is the disk. */
static int top_protocol(struct image_name *n, const char *driver)
{
	struct opts all = n->top;

	n->top = (struct opts){0};
	n->file = all;
	n->driver = opts_get(&n->file, "driver");
	n->o.format = "raw";
	return driver ? 0 : -EINVAL;
}

/* A format that stood in the place of a file: the name is that of what it is read through. */
static int name_the_file(struct opts *o)
{
	const char *name = opts_get(o, "filename");
	int err = name && !opts_has_under(o, "file") ? opts_set(o, "file.filename", name) : 0;

	if (!err)
		opts_del(o, "filename");
	return err;
}

static int take_file(struct image_name *n, struct why *why)
{
	const char *driver = opts_get(&n->top, "driver"), *ref = opts_get(&n->top, "file");
	int err;

	while (driver && !strcmp(driver, "copy-on-read")) {
		struct opts below = {0};

		if (n->o.readonly)
			return why_set(why, -EACCES, "Block node is read-only");
		err = opts_take(&n->top, "file", &below);
		opts_fini(&n->top);
		n->top = below;
		if (err)
			return err;
		n->copy_on_read = true;
		n->driver = "copy-on-read";
		driver = opts_get(&n->top, "driver");
		err = driver && is_format(driver) ? name_the_file(&n->top) : 0;
		if (err)
			return err;
		ref = opts_get(&n->top, "file");
	}
	if (driver && name_is_protocol(driver))
		return top_protocol(n, driver);
	if (driver && !is_format(driver))
		return why_set(why, -EINVAL, "Unknown driver '%s'", driver);
	if (ref)
		return why_set(
			why, -ENODEV, "Cannot find device='%s' nor node-name='%s'", ref, ref);
	if (!opts_has_under(&n->top, "file"))
		return why_set(why, -EINVAL,
			driver ? "A block device must be specified for \"file\""
			       : "Must specify either driver or file");
	n->o.format = driver;
	return opts_take(&n->top, "file", &n->file);
}

static int take_backing(struct image_name *n, struct why *why)
{
	const char *ref = opts_get(&n->top, "backing");
	int err = opts_take(&n->top, "backing", &n->backing_opts);

	if (!err && ref && *ref)
		err = why_set(why, -ENODEV,
			"Could not open backing file: Cannot find device='%s' nor node-name='%s'",
			ref, ref);
	if (err)
		return err;
	if (opts_has(&n->top, "backing") && !n->backing_opts.n)
		n->o.nobacking = true;
	if (!n->backing_opts.n)
		return 0;
	n->backing = opts_text(&n->backing_opts);
	n->o.backing_options = n->backing;
	return n->backing ? 0 : -ENOMEM;
}

static int take_data_file(struct image_name *n, struct why *why)
{
	const char *ref = opts_get(&n->top, "data-file");
	struct opts data = {0};
	int err = opts_take(&n->top, "data-file", &data);

	if (!err && ref && *ref)
		err = why_set(
			why, -ENODEV, "Cannot find device='%s' nor node-name='%s'", ref, ref);
	if (!err && data.n) {
		n->data = opts_text(&data);
		n->o.data_options = n->data;
		err = n->data ? 0 : -ENOMEM;
	}
	opts_fini(&data);
	return err;
}

static int read_discard(const struct opts *o, struct disk_opts *out, struct why *why)
{
	const char *v = opts_get(o, "discard"), *zeroes = opts_get(o, "detect-zeroes");

	if (v && (!strcmp(v, "unmap") || !strcmp(v, "on")))
		out->unmap = true;
	else if (v && (!strcmp(v, "ignore") || !strcmp(v, "off")))
		out->unmap = false;
	else if (v)
		return why_set(why, -EINVAL, "Invalid discard option");
	for (unsigned i = 0; zeroes && detect_zeroes_names[i]; i++)
		if (!strcmp(zeroes, detect_zeroes_names[i])) {
			out->detect_zeroes = (enum detect_zeroes)i;
			zeroes = NULL;
			break;
		}
	if (zeroes)
		return why_set(why, -EINVAL, "invalid parameter value: %s", zeroes);
	if (out->detect_zeroes == DETECT_UNMAP && !out->unmap)
		return why_set(why, -EINVAL,
			"setting detect-zeroes to unmap is not allowed without setting discard "
			"operation to unmap");
	return 0;
}

static int read_cache(const struct opts *o, struct disk_opts *out, struct why *why)
{
	bool direct = out->cache == CACHE_NONE || out->cache == CACHE_DIRECTSYNC;
	bool wce = out->cache != CACHE_WRITETHROUGH && out->cache != CACHE_DIRECTSYNC;
	bool no_flush = out->cache == CACHE_UNSAFE;
	int err = opts_bool(o, "cache.direct", &direct, why);

	if (!err)
		err = opts_bool(o, "cache.no-flush", &no_flush, why);
	if (!err)
		err = opts_bool(o, "cache.writeback", &wce, why);
	if (no_flush)
		out->cache = CACHE_UNSAFE;
	else if (direct)
		out->cache = wce ? CACHE_NONE : CACHE_DIRECTSYNC;
	else
		out->cache = wce ? CACHE_WRITEBACK : CACHE_WRITETHROUGH;
	return err;
}

static int read_common(const struct opts *o, struct disk_opts *out, struct why *why)
{
	bool readonly = false, other = false;
	int err = opts_bool(o, "read-only", &readonly, why);

	if (!err)
		err = opts_bool(o, "auto-read-only", &other, why);
	if (!err)
		err = opts_bool(o, "force-share", &out->nolock, why);
	if (!err)
		err = read_cache(o, out, why);
	if (!err)
		err = read_discard(o, out, why);
	if (!err && readonly && !out->readonly)
		err = why_set(why, -EACCES, "Block node is read-only");
	return err;
}

static const char *const overlap_kinds[] = {"none", "constant", "cached", "all", NULL};

static int read_overlap(const struct opts *o, unsigned *classes, struct why *why)
{
	static const unsigned kinds[] = {0, OVERLAP_CONSTANT, OVERLAP_CACHED, OVERLAP_ALL};
	static const struct {
		const char *name;
		unsigned bit;
	} bits[] = {{"main-header", OVERLAP_HEADER}, {"active-l1", OVERLAP_ACTIVE_L1},
		{"active-l2", OVERLAP_ACTIVE_L2}, {"refcount-table", OVERLAP_REFCOUNT_TABLE},
		{"refcount-block", OVERLAP_REFCOUNT_BLOCK},
		{"snapshot-table", OVERLAP_SNAPSHOT_TABLE}, {"inactive-l1", OVERLAP_INACTIVE_L1},
		{"inactive-l2", OVERLAP_INACTIVE_L2}, {"bitmap-directory", OVERLAP_BITMAPS}};
	const char *a = opts_get(o, "overlap-check"), *b = opts_get(o, "overlap-check.template");
	int err = 0;

	if (a && b && strcmp(a, b) != 0)
		return why_set(why, -EINVAL,
			"Conflicting values for qcow2 options 'overlap-check' ('%s') and "
			"'overlap-check.template' ('%s')",
			a, b);
	a = a ? a : b;
	if (a && !listed(overlap_kinds, a))
		return why_set(why, -EINVAL,
			"Unsupported value '%s' for qcow2 option 'overlap-check'. Allowed are any "
			"of the following: none, constant, cached, all",
			a);
	*classes = OVERLAP_GIVEN | OVERLAP_CACHED;
	for (size_t i = 0; a && overlap_kinds[i]; i++)
		if (!strcmp(a, overlap_kinds[i]))
			*classes = OVERLAP_GIVEN | kinds[i];
	for (size_t i = 0; i < ARRAY_SIZE(bits) && !err; i++) {
		char key[64];
		bool on = *classes & bits[i].bit;

		snprintf(key, sizeof(key), "overlap-check.%s", bits[i].name);
		err = opts_bool(o, key, &on, why);
		*classes = on ? *classes | bits[i].bit : *classes & ~bits[i].bit;
	}
	return err;
}

static int read_qcow2(const struct opts *o, struct disk_opts *out, struct why *why)
{
	static const char *const passes[] = {
		"pass-discard-request", "pass-discard-snapshot", "pass-discard-other"};
	uint64_t interval = 0;
	bool b = false;
	int err = opts_bool(o, "lazy-refcounts", &b, why);

	if (!err && opts_get(o, "lazy-refcounts"))
		out->lazy_refcounts = b ? 1 : -1;
	for (size_t i = 0; i < ARRAY_SIZE(passes) && !err; i++)
		err = opts_bool(o, passes[i], &b, why);
	if (!err)
		err = read_overlap(o, &out->overlap, why);
	if (!err)
		err = opts_size(o, "cache-size", &out->cache_bytes, why);
	if (!err)
		err = opts_size(o, "l2-cache-size", &out->l2_cache_bytes, why);
	if (!err)
		err = opts_size(o, "l2-cache-entry-size", &out->l2_entry_bytes, why);
	if (!err)
		err = opts_size(o, "refcount-cache-size", &out->refcount_cache_bytes, why);
	if (!err)
		err = opts_number(o, "cache-clean-interval", &interval, why);
	if (!err && opts_has(o, "cache-size") && opts_has(o, "l2-cache-size") &&
		opts_has(o, "refcount-cache-size"))
		err = why_set(why, -EINVAL,
			"cache-size, l2-cache-size and refcount-cache-size may not be set at the "
			"same time");
	if (!err && interval > UINT32_MAX)
		err = why_set(why, -EINVAL, "Cache clean interval too big");
	if (!err && opts_has(o, "cache-clean-interval"))
		out->cache_clean_s = interval ? interval : CACHE_CLEAN_NEVER;
	return err;
}

static int read_top(struct image_name *n, struct why *why)
{
	const char *format = n->o.format;
	int err = read_common(&n->top, &n->o, why);

	if (!err && format && strcmp(format, "qcow2") != 0)
		return refuse_unknown(&n->top, raw_keys, "format", format, "does not", why);
	if (!err)
		err = read_qcow2(&n->top, &n->o, why);
	return err ? err : refuse_unknown(&n->top, qcow2_keys, "format", "qcow2", "does not", why);
}

int name_read(struct image_name *n, const struct disk_opts *o, struct why *why)
{
	int err;

	*n = (struct image_name){.o = *o};
	err = merge(n, o, why);
	if (!err)
		err = take_file(n, why);
	if (!err)
		err = take_backing(n, why);
	if (!err && (!n->o.format || !strcmp(n->o.format, "qcow2")))
		err = take_data_file(n, why);
	if (!err)
		err = read_top(n, why);
	if (!err && n->o.format) {
		n->format = strdup(n->o.format);
		n->o.format = n->format;
		err = n->format ? 0 : -ENOMEM;
	}
	n->o.options = NULL;
	return err;
}

void name_fini(struct image_name *n)
{
	opts_fini(&n->top);
	opts_fini(&n->file);
	opts_fini(&n->backing_opts);
	free(n->path);
	free(n->format);
	free(n->backing);
	free(n->data);
}

/* ---- opening ---- */

struct level {
	struct loop *loop;
	struct image_name *name;
	unsigned depth;
};

static int open_level(struct level *v, struct opts *o, struct file **out, struct why *why);

/* Is the name to be taken apart: does no driver say what it is, or the same as the name? */
static bool names_driver(const struct opts *o, const char *name)
{
	const char *driver = opts_get(o, "driver");
	size_t n = protocol_len(name);

	return !driver || (n && n == strlen(driver) && !strncmp(driver, name, n));
}

static int open_host_file(struct level *v, const struct opts *o, struct file **out, struct why *why)
{
	const struct disk_opts *d = &v->name->o;
	const char *path = opts_get(o, "filename");
	unsigned flags = d->readonly ? FILE_RDONLY : FILE_RDWR;
	bool plain = v->name->o.path && path && !strcmp(path, v->name->o.path);
	struct why inner = {""};
	int err = refuse_unknown(o, file_keys, "protocol", "file", "doesn't", why);

	if (err)
		return err;
	if (!path || !path[0])
		return why_set(why, -EINVAL, "The 'file' block driver requires a file name");
	/* What looks like a protocol is none, once it has been opened. */
	if (asprintf(&v->name->path, "%s%s", protocol_len(path) ? "./" : "", path) < 0) {
		v->name->path = NULL;
		return -ENOMEM;
	}
	if (d->cache == CACHE_NONE || d->cache == CACHE_DIRECTSYNC)
		flags |= FILE_DIRECT;
	if (d->nolock)
		flags |= FILE_NOLOCK;
	err = file_open(v->loop, path, flags, out, &inner);
	v->name->o.path = v->name->path;
	if (!err)
		return 0;
	if (inner.text[0])
		return why_set(why, err, "%s", inner.text);
	/* Who gave a plain name says it himself. */
	return plain ? err : why_set(why, err, "Could not open '%s': %s", path, strerror(-err));
}

static int open_null(struct level *v, const struct opts *o, struct file **out, struct why *why)
{
	uint64_t size = 1 * GiB;
	int err = refuse_unknown(o, null_keys, "protocol", opts_get(o, "driver"), "doesn't", why);

	if (!err)
		err = opts_size(o, "size", &size, why);
	return err ? err : null_file_open(v->loop, size, out);
}

static int open_blkdebug(struct level *v, struct opts *o, struct file **out, struct why *why)
{
	struct opts image = {0};
	struct file *below = NULL;
	const char *ref = opts_get(o, "x-image") ? opts_get(o, "x-image") : opts_get(o, "filename");
	int err = opts_take(o, "image", &image);

	if (!err && ref && !opts_has(&image, "filename"))
		err = opts_set(&image, "filename", ref);
	opts_del(o, "x-image");
	if (!err && !image.n)
		err = why_set(why, -EINVAL, "A block device must be specified for \"image\"");
	if (!err)
		err = open_level(v, &image, &below, why);
	opts_fini(&image);
	if (!err)
		err = inject_open(below, out);
	if (err) {
		if (below)
			file_close(below);
		return err;
	}
	err = inject_options(*out, o, why);
	if (!err)
		err = refuse_unknown(o, inject_keys, "protocol", "blkdebug", "doesn't", why);
	if (err)
		file_close(*out);
	return err;
}

/* An image in the place of a file: what it is read through is its own affair. */
static int open_inner(
	struct level *v, struct opts *o, bool compress, struct file **out, struct why *why)
{
	const struct disk_opts *d = &v->name->o;
	struct disk_opts in = {.cache = d->cache,
		.readonly = d->readonly,
		.nolock = d->nolock,
		.nosync = d->nosync,
		.quiet = true,
		.unmap = true,
		.level = d->level + 2};
	const char *name = opts_get(o, "filename");
	char *path = name ? strdup(name) : NULL, *text = NULL;
	struct disk *disk = NULL;
	int err = name && !path ? -ENOMEM : 0;

	if (in.level + 2 >= FIBER_LEVELS)
		err = why_set(why, -ELOOP, "Too many levels of images");
	/* Its owner flushes it. */
	if (in.cache == CACHE_WRITETHROUGH)
		in.cache = CACHE_WRITEBACK;
	else if (in.cache == CACHE_DIRECTSYNC)
		in.cache = CACHE_NONE;
	opts_del(o, "filename");
	if (!err && !(text = opts_text(o)))
		err = -ENOMEM;
	in.path = path;
	in.options = text;
	if (!err)
		err = disk_open_above(v->loop, &in, NULL, &disk, why);
	free(path);
	free(text);
	if (err)
		return err;
	err = disk_file_open(disk, compress, out);
	if (!err && !(v->name->path = strdup(disk_path(disk)))) {
		file_close(*out);
		return -ENOMEM;
	}
	if (err)
		disk_abandon(disk);
	v->name->o.path = v->name->path;
	return err;
}

/* Writes whole clusters, compressed, to the image below it. */
static int open_compress(struct level *v, struct opts *o, struct file **out, struct why *why)
{
	struct opts below = {0};
	int err = opts_take(o, "file", &below);

	if (!err)
		err = below.n ? refuse_unknown(o, no_keys, "format", "compress", "does not", why)
			      : why_set(why, -EINVAL,
					"A block device must be specified for \"file\"");
	if (!err)
		err = open_inner(v, &below, true, out, why);
	opts_fini(&below);
	return err;
}

static int open_level(struct level *v, struct opts *o, struct file **out, struct why *why)
{
	const char *driver, *name = opts_get(o, "filename");
	struct opts parsed = {0};
	bool readonly = false;
	int err = 0;

	if (++v->depth > DEPTH_MAX)
		return why_set(why, -ELOOP, "Too many levels of images");
	if (is_json(name)) {
		err = merge_json(&parsed, name, why);
	} else if (name && names_driver(o, name)) {
		err = parse_filename(&parsed, name, why);
	}
	if (!err && parsed.n) {
		opts_del(o, "filename");
		err = opts_add_all(o, &parsed);
	}
	opts_fini(&parsed);
	if (!err)
		err = opts_bool(o, "read-only", &readonly, why);
	if (err)
		return err;
	if (readonly && !v->name->o.readonly)
		return why_set(why, -EACCES, "Block node is read-only");
	driver = opts_get(o, "driver");
	if (!driver && !opts_get(o, "filename"))
		return why_set(why, -EINVAL, "Must specify either driver or file");
	if (!driver || !strcmp(driver, "file") || !strcmp(driver, "host_device"))
		return open_host_file(v, o, out, why);
	if (!strncmp(driver, "null-", 5))
		return open_null(v, o, out, why);
	if (!strcmp(driver, "blkdebug"))
		return open_blkdebug(v, o, out, why);
	if (!strcmp(driver, "compress"))
		return open_compress(v, o, out, why);
	if (is_format(driver) || !strcmp(driver, "copy-on-read"))
		return open_inner(v, o, false, out, why);
	return why_set(why, -EINVAL, "Unknown driver '%s'", driver);
}

int name_open(struct loop *l, struct image_name *n, struct file **out, struct why *why)
{
	struct level v = {.loop = l, .name = n};

	return open_level(&v, &n->file, out, why);
}

int name_open_data(struct loop *l, const struct disk_opts *o, const char *name, struct file **out,
	char **path, struct why *why)
{
	struct image_name n = {
		.o = {.cache = o->cache, .readonly = o->readonly, .nolock = o->nolock}};
	int err = o->data_options ? opts_parse(&n.file, o->data_options, why)
				  : opts_set(&n.file, "filename", name);

	if (!err)
		err = name_open(l, &n, out, why);
	if (!err) {
		*path = strdup(n.path ? n.path : opts_get(&n.file, "driver"));
		if (!*path) {
			file_close(*out);
			err = -ENOMEM;
		}
	}
	name_fini(&n);
	return err;
}
