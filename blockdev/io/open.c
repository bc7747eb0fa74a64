/* SPDX-License-Identifier: MIT */
/*
 * open.c - open, close, reopen.
 *
 * reopen opens the image anew with other options, and as before if that fails: the options are
 * looked at before the image is closed, so what fails then is the host.
 *
 * With -s the image is only read: what is written goes to an overlay in the temporary
 * folder, without a name from the start.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block_int.h"
#include "blockdev/io/cmd.h"
#include "blockdev/name.h"
#include "blockdev/qcow2/format.h"

int io_parse_cache(const char *text, struct io_how *how)
{
	if (!strcmp(text, "off"))
		text = "none";
	if (!cache_mode_parse(text, &how->cache))
		return 0;
	log_error("Invalid cache option: %s", text);
	return -EINVAL;
}

int io_parse_discard(const char *text, struct io_how *how)
{
	how->unmap = !strcmp(text, "unmap") || !strcmp(text, "on");
	if (how->unmap || !strcmp(text, "ignore") || !strcmp(text, "off"))
		return 0;
	log_error("Invalid discard option: %s", text);
	return -EINVAL;
}

int io_parse_aio(const char *text, struct io_how *how)
{
	how->native_aio = !strcmp(text, "native");
	if (how->native_aio || !strcmp(text, "threads") || !strcmp(text, "io_uring"))
		return 0;
	log_error("Invalid aio option: %s", text);
	return -EINVAL;
}

/* ---- how ---- */

static void how_fini(struct io_how *h)
{
	free(h->name);
	free(h->options);
	free(h->format);
	*h = (struct io_how){0};
}

static char *copy_of(const char *s)
{
	return s ? strdup(s) : NULL;
}

static int how_copy(struct io_how *out, const struct io_how *h)
{
	*out = *h;
	out->name = copy_of(h->name);
	out->options = copy_of(h->options);
	out->format = copy_of(h->format);
	if ((!h->name || out->name) && (!h->options || out->options) && (!h->format || out->format))
		return 0;
	how_fini(out);
	return -ENOMEM;
}

static struct disk_opts disk_opts_of(const struct io_how *h)
{
	return (struct disk_opts){.path = h->name,
		.options = h->options,
		.format = h->format,
		.cache = h->cache,
		.readonly = h->readonly,
		.nolock = h->unlocked,
		.unmap = h->unmap,
		.copy_on_read = h->copy_on_read,
		.quiet = true,
		.say_repairs = true};
}

/* The hints below a message's first line stand there without the program's name. */
static void say(const struct io_how *h, const struct why *why, int err)
{
	const char *hint = strchr(why->text, '\n');
	int n = hint ? (int)(hint - why->text) : (int)strlen(why->text);

	if (!n && h->name)
		log_error("can't open device %s: Could not open '%s': %s", h->name, h->name,
			strerror(-err));
	else if (h->name)
		log_error("can't open device %s: %.*s", h->name, n, why->text);
	else
		log_error("can't open: %.*s", n ? n : 64, n ? why->text : strerror(-err));
	if (hint)
		fprintf(stderr, "%s\n", hint + 1);
}

/* ---- the overlay of -s ---- */

struct overlay {
	struct file *file;
	uint64_t size;
	struct why *why;
};

static int overlay_fiber(void *arg)
{
	struct overlay *v = arg;
	struct qcow2_create_opts o = {.size = v->size};

	return qcow2_create(v->file, &o, v->why);
}

/* The image below it is opened anew, only to be read, when the overlay is. */
static int open_overlay(struct io *io, const struct io_how *h, struct disk **out, struct why *why)
{
	struct disk_opts o = {.format = "qcow2",
		.cache = CACHE_UNSAFE,
		.unmap = true,
		.backing = h->name,
		.backing_options = h->options,
		.backing_format = h->format};
	const char *dir = getenv("TMPDIR");
	struct overlay v = {.size = disk_size(io->disk), .why = why};
	char path[4096];
	int fd, err;

	snprintf(path, sizeof(path), "%s/sluice-io.XXXXXX", dir ? dir : "/var/tmp");
	fd = mkstemp(path);
	if (fd < 0)
		return why_set(why, -errno, "Could not create temporary overlay '%s': %s", path,
			strerror(errno));
	close(fd);
	err = file_open(io->loop, path, FILE_RDWR, &v.file, why);
	if (!err) {
		err = fiber_run(io->loop, overlay_fiber, &v);
		file_close(v.file);
	}
	o.path = path;
	if (!err && h->name && strncmp(h->name, "json:", 5) != 0 && h->name[0] != '/') {
		/* A backing file's name counts from the overlay's folder. */
		char *full = realpath(h->name, NULL);

		o.backing = full ? full : h->name;
		err = disk_open(io->loop, &o, out, why);
		free(full);
	} else if (!err) {
		err = disk_open(io->loop, &o, out, why);
	}
	unlink(path);
	return err;
}

static int open_disk(struct io *io, const struct io_how *h, struct why *why)
{
	struct disk_opts o = disk_opts_of(h);
	struct disk *top = NULL;
	int err;

	if (h->copy_on_read && h->readonly)
		return why_set(why, -EINVAL, "Can't use copy-on-read on read-only device");
	if (h->unlocked && !h->readonly && !h->temporary)
		return why_set(why, -EINVAL,
			"force-share=on can only be used with read-only images");
	if (h->temporary)
		o.readonly = true;
	err = disk_open(io->loop, &o, &io->disk, why);
	if (!err && h->native_aio && h->cache != CACHE_NONE && h->cache != CACHE_DIRECTSYNC) {
		disk_abandon(io->disk);
		err = why_set(why, -EINVAL, "aio=native was specified, but it requires "
					    "cache.direct=on, which was not specified.");
	}
	if (err) {
		io->disk = NULL;
		return err;
	}
	if (h->temporary) {
		err = open_overlay(io, h, &top, why);
		disk_abandon(io->disk);
		io->disk = err ? NULL : top;
	}
	return err;
}

static void warn_probed(const struct io *io, const struct io_how *h)
{
	if (h->format || h->readonly || h->temporary || !h->name || disk_readonly(io->disk) ||
		strcmp(disk_driver(io->disk), "raw") != 0 || !strncmp(h->name, "json:", 5) ||
		(h->options && strstr(h->options, "driver=")))
		return;
	fprintf(stderr,
		"WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
		"         Automatically detecting the format is dangerous for raw images, write "
		"operations on block 0 will be restricted.\n"
		"         Specify the 'raw' format explicitly to remove the restrictions.\n",
		h->name);
}

int io_open(struct io *io, const struct io_how *how)
{
	struct why why = {""};
	int err = open_disk(io, how, &why);

	if (err) {
		say(how, &why, err);
		return err;
	}
	err = how_copy(&io->how, how);
	if (err) {
		disk_abandon(io->disk);
		io->disk = NULL;
		return err;
	}
	warn_probed(io, how);
	return 0;
}

static void close_disk(struct io *io)
{
	struct disk_stats st;
	struct why why = {""};
	int err;

	io_drain(io);
	err = disk_close_stats(io->disk, &st, &why);
	io->disk = NULL;
	/* Of a corrupt image the user has heard already. */
	if (!err || err == -ENOMEDIUM)
		return;
	/* Nor is there anything to tell if nothing was to reach the file. */
	if (st.writes + st.zeroes + st.discards + st.host_writes + st.host_fallocates) {
		log_error("Failed to flush the L2 table cache: %s", why_text(&why, err));
		log_error("Failed to flush the refcount block cache: %s", why_text(&why, err));
	}
}

void io_close(struct io *io)
{
	if (io->disk)
		close_disk(io);
	how_fini(&io->how);
}

/* ---- commands ---- */

static int run_open(struct io *io, int argc, char **argv)
{
	struct io_how how = {.cache = CACHE_WRITETHROUGH, .unmap = true};
	int c;

	while ((c = getopt(argc, argv, "snCro:ki:t:d:U")) != -1) {
		int err = 0;

		switch (c) {
		case 's':
			how.temporary = true;
			break;
		case 'n':
			how.cache = CACHE_NONE;
			break;
		case 'C':
			how.copy_on_read = true;
			break;
		case 'r':
			how.readonly = true;
			break;
		case 'k':
			err = io_parse_aio("native", &how);
			break;
		case 't':
			err = io_parse_cache(optarg, &how);
			break;
		case 'd':
			err = io_parse_discard(optarg, &how);
			break;
		case 'i':
			err = io_parse_aio(optarg, &how);
			break;
		case 'o':
			how.options = optarg;
			break;
		case 'U':
			how.unlocked = true;
			break;
		default:
			return io_usage(io_find("open"));
		}
		if (err)
			return err;
	}
	if (optind < argc - 1 || (optind == argc && !how.options))
		return io_usage(io_find("open"));
	if (io->disk) {
		log_error("file open already, try 'help close'");
		return -EBUSY;
	}
	if (optind == argc - 1 && io->image_opts)
		how.options = argv[optind];
	else if (optind == argc - 1)
		how.name = argv[optind];
	return io_open(io, &how);
}

static int run_close(struct io *io, int argc, char **argv)
{
	io_close(io);
	return 0;
}

/* What -r, -w and -c say may not be said again by -o. */
static int check_twice(const struct opts *o, bool rw, bool cache)
{
	if (rw && (opts_has(o, "read-only") || opts_has(o, "auto-read-only"))) {
		log_error("Cannot set both -r/-w and 'read-only'");
		return -EINVAL;
	}
	if (cache && (opts_has(o, "cache.direct") || opts_has(o, "cache.no-flush"))) {
		log_error("Cannot set both -c and the cache options");
		return -EINVAL;
	}
	return 0;
}

/* What a key that nobody gave is taken to be. */
static const char *implied(const struct io *io, const char *key)
{
	if (!strcmp(key, "driver"))
		return disk_driver(io->disk);
	if (!strcmp(key, "file.driver"))
		return io->disk->fmt->file->inject ? "blkdebug" : "file";
	if (!strcmp(key, "backing.driver"))
		return io->disk->backing ? disk_driver(io->disk->backing) : NULL;
	return NULL;
}

/* Changes that the image cannot make while it is open are refused; unchanged is fine. */
static int check_changes(const struct io *io, const struct opts *old, const struct opts *new)
{
	for (size_t i = 0; i < new->n; i++) {
		const char *key = new->v[i].key, *dot = strrchr(key, '.');
		const char *was = opts_get(old, key), *last = dot ? dot + 1 : key;

		was = was ? was : implied(io, key);
		if (was && new->v[i].value && !strcmp(was, new->v[i].value))
			continue;
		if (name_may_change(key) && (!dot || name_may_change(last) || strchr(key, '.')))
			continue;
		log_error("Cannot change the option '%s'", last);
		return -EINVAL;
	}
	return 0;
}

/* The old options with the new ones over them. */
static int merged(
	const struct io *io, const char *text, bool rw, bool cache, char **out, struct why *why)
{
	struct opts old = {0}, new = {0};
	int err = io->how.options ? opts_parse(&old, io->how.options, why) : 0;

	if (!err && text)
		err = opts_parse(&new, text, why);
	if (!err)
		err = check_twice(&new, rw, cache);
	if (!err)
		err = check_changes(io, &old, &new);
	if (!err && rw)
		opts_del(&old, "read-only");
	if (!err && cache) {
		opts_del(&old, "cache.direct");
		opts_del(&old, "cache.no-flush");
	}
	/* Sizes given anew stand alone, as do the ways of saying what to check. */
	if (!err && (opts_has(&new, "cache-size") || opts_has(&new, "l2-cache-size") ||
			    opts_has(&new, "refcount-cache-size"))) {
		opts_del(&old, "cache-size");
		opts_del(&old, "l2-cache-size");
		opts_del(&old, "refcount-cache-size");
	}
	if (!err && opts_has(&new, "overlap-check"))
		opts_del(&old, "overlap-check.template");
	if (!err && opts_has(&new, "overlap-check.template"))
		opts_del(&old, "overlap-check");
	if (!err)
		err = opts_add_all(&new, &old);
	if (!err && new.n && !(*out = opts_text(&new)))
		err = -ENOMEM;
	opts_fini(&old);
	opts_fini(&new);
	return err;
}

/* Everything about how that can be found out with the image still open. */
static int try_name(const struct io_how *how, struct why *why)
{
	struct disk_opts o = disk_opts_of(how);
	struct image_name n;
	int err = name_read(&n, &o, why);

	name_fini(&n);
	return err;
}

static int change(struct io *io, struct io_how *how)
{
	struct why why = {""}, again = {""};
	struct io_how old = io->how;
	int err = try_name(how, &why);

	if (!err) {
		close_disk(io);
		err = open_disk(io, how, &why);
		if (err && open_disk(io, &old, &again))
			log_error("%s", why_text(&again, -EIO));
	}
	if (err) {
		const char *hint = strchr(why.text, '\n');

		log_error("%.*s", hint ? (int)(hint - why.text) : 1200, why_text(&why, err));
		return err;
	}
	err = how_copy(&io->how, how);
	how_fini(&old);
	return err;
}

static int run_reopen(struct io *io, int argc, char **argv)
{
	struct io_how how = io->how;
	bool rw = false, cache = false;
	const char *text = NULL;
	struct why why = {""};
	int c, err;

	while ((c = getopt(argc, argv, "c:o:rw")) != -1) {
		switch (c) {
		case 'c':
			cache = true;
			if (io_parse_cache(optarg, &how))
				return -EINVAL;
			break;
		case 'o':
			text = optarg;
			break;
		case 'r':
		case 'w':
			if (rw) {
				log_error("Only one -r/-w option may be given");
				return -EINVAL;
			}
			rw = true;
			how.readonly = c == 'r';
			break;
		default:
			return io_usage(io_find("reopen"));
		}
	}
	if (optind != argc)
		return io_usage(io_find("reopen"));
	how.options = NULL;
	err = merged(io, text, rw, cache, &how.options, &why);
	if (!err)
		err = change(io, &how);
	free(how.options);
	return err;
}

static const char help_open[] =
	"\n"
	" opens a new file in the requested mode\n"
	"\n"
	" Example:\n"
	" 'open -n -o driver=raw /tmp/data' - opens raw data file read-write, uncached\n"
	"\n"
	" Opens a file for subsequent use by all of the other qemu-io commands.\n"
	" -r, -- open file read-only\n"
	" -s, -- use snapshot file\n"
	" -C, -- use copy-on-read\n"
	" -n, -- disable host cache, short for -t none\n"
	" -U, -- force shared permissions\n"
	" -k, -- use kernel AIO implementation (Linux only, prefer use of -i)\n"
	" -i, -- use AIO mode (threads, native or io_uring)\n"
	" -t, -- use the given cache mode for the image\n"
	" -d, -- use the given discard mode for the image\n"
	" -o, -- options to be given to the block driver\n";

static const char help_reopen[] =
	"\n"
	" Changes the open options of an already opened image\n"
	"\n"
	" Example:\n"
	" 'reopen -o lazy-refcounts=on' - activates lazy refcount writeback on a qcow2 image\n"
	"\n"
	" -r, -- Reopen the image read-only\n"
	" -w, -- Reopen the image read-write\n"
	" -c, -- Change the cache mode to the given value\n"
	" -o, -- Changes block driver options (cf. 'open' command)\n"
	"\n";

const struct io_cmd io_open_cmds[] = {
	{.name = "open",
		.alias = "o",
		.run = run_open,
		.words_min = 1,
		.words_max = -1,
		.without_image = true,
		.args = "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
		.summary = "open the file specified by path",
		.help = help_open},
	{.name = "close", .alias = "c", .run = run_close, .summary = "close the current open file"},
	{.name = "reopen",
		.run = run_reopen,
		.words_max = -1,
		.args = "[(-r|-w)] [-c cache] [-o options]",
		.summary = "reopens an image with new options",
		.help = help_reopen},
	{0},
};
