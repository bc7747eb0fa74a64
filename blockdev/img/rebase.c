/* SPDX-License-Identifier: MIT */
/*
 * rebase.c - sluice img rebase: another backing file below an image.
 *
 * Safe: whatever the guest reads through the old backing file and would read differently
 * through the new one is copied into the image, made durable, and only then the header names
 * the new one.  With -u the header is all that changes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/open.h"
#include "blockdev/img/progress.h"

#define CHUNK (2 * MiB)

struct command {
	struct img_source src;
	const char *base, *base_format;
	bool unsafe, progress, quiet;
	enum cache_mode base_cache;
	struct disk *d, *old, *new_base; /* old, new_base: NULL, none */
	uint8_t *was, *will;             /* CHUNK each */
	struct progress p;
	struct why why;
};

/* What a layer below shows at [off, off+len): zeros behind its end, and where there is none. */
static int read_below(struct disk *d, uint8_t *buf, uint64_t off, uint64_t len)
{
	uint64_t size = d ? disk_size(d) : 0, in = off < size ? min_u64(len, size - off) : 0;

	memset(buf + in, 0, len - in);
	return in ? disk_pread(d, buf, in, off) : 0;
}

/* Writes the sectors that differ. */
static int keep_differences(struct command *c, uint64_t off, uint64_t len)
{
	uint64_t at = 0;

	while (at < len) {
		uint64_t n = min_u64(SECTOR, len - at), start = at;
		bool differ = memcmp(c->was + at, c->will + at, n) != 0;
		int err = 0;

		for (at += n; at < len; at += n) {
			n = min_u64(SECTOR, len - at);
			if ((memcmp(c->was + at, c->will + at, n) != 0) != differ)
				break;
		}
		if (differ && c->old && off + start < disk_size(c->old))
			err = disk_pwrite(c->d, c->was + start, at - start, off + start, 0);
		else if (differ)
			err = disk_zeroes(c->d, at - start, off + start, 0);
		if (err)
			return why_set(&c->why, err, "Error while writing to COW image: %s",
				strerror(-err));
	}
	return 0;
}

static int copy_chunk(struct command *c, uint64_t off, uint64_t len)
{
	int err = read_below(c->old, c->was, off, len);

	if (err)
		return why_set(&c->why, err, "error while reading from old backing file");
	err = read_below(c->new_base, c->will, off, len);
	if (err)
		return why_set(&c->why, err, "error while reading from new backing file");
	return keep_differences(c, off, len);
}

static int copy_all(struct command *c)
{
	uint64_t size = disk_size(c->d), old_size = c->old ? disk_size(c->old) : 0;

	for (uint64_t off = 0; off < size;) {
		struct extent e;
		int err = disk_extent(c->d, off, min_u64(CHUNK, size - off), &e);

		if (err)
			return why_set(&c->why, err, "error while reading image metadata");
		/* A piece is either within the old backing file or behind its end. */
		if (off < old_size)
			e.len = min_u64(e.len, old_size - off);
		if (e.kind == EXTENT_HOLE)
			err = copy_chunk(c, off, e.len);
		if (err)
			return err;
		off += e.len;
		progress_set(&c->p, off, size);
	}
	return disk_flush(c->d);
}

static int rebase_fiber(void *arg)
{
	struct command *c = arg;
	const char *base = c->base ? c->base : "";
	const char *format = base[0] && c->base_format ? c->base_format : "";
	struct why inner = {""};
	int err = c->unsafe ? 0 : copy_all(c);

	if (err)
		return err;
	if (base[0] && !format[0] && strcmp(disk_format(c->d), "raw") != 0)
		err = why_set(&inner, -EINVAL, "backing format must be specified");
	else
		err = disk_set_backing(c->d, base, format, &inner);
	if (err == -ENOSPC)
		inner = (struct why){"No space left in the file header"};
	if (err)
		(void)why_set(&c->why, err, "Could not change the backing file to '%s': %.200s",
			base, why_text(&inner, err));
	return err;
}

static int open_new(struct command *c, struct loop *l)
{
	struct disk_opts o = {.format = c->base_format, .cache = c->base_cache, .readonly = true,
		.nolock = c->src.unlocked};
	struct why why = {""};
	char path[4096], who[4200];
	int err;

	if (c->unsafe || !c->base || !c->base[0])
		return 0;
	err = disk_backing_path(c->src.name, c->base, path, sizeof(path));
	o.path = path;
	if (!err)
		err = disk_open(l, &o, &c->new_base, &why);
	if (!err)
		return 0;
	if (!why.text[0])
		why_set(&why, err, "Could not open '%s': %s", path, strerror(-err));
	snprintf(who, sizeof(who), "Could not open new backing file '%s'", path);
	img_say_why(who, &why, err);
	return err;
}

static int rebase_open(struct command *c, struct loop *l)
{
	int err = open_new(c, l);

	c->old = disk_backing(c->d);
	c->was = img_data_buf(CHUNK);
	c->will = img_data_buf(CHUNK);
	if (!err && (!c->was || !c->will)) {
		err = -ENOMEM;
		log_error("%s", strerror(ENOMEM));
	}
	if (!err) {
		err = fiber_run(l, rebase_fiber, c);
		if (!err)
			progress_set(&c->p, 1, 1);
		if (err)
			img_say_why(NULL, &c->why, err);
	}
	free(c->was);
	free(c->will);
	if (c->new_base && disk_close(c->new_base, &c->why) && !err)
		err = -EIO;
	return err;
}

static int rebase(struct command *c)
{
	struct loop *l;
	int err = img_loop_new(LOOP_AIO_AUTO, &l), closed;

	if (err)
		return err;
	progress_start(&c->p, c->progress, c->quiet);
	progress_set(&c->p, 0, 1);
	err = img_disk_open(l, &c->src, &c->d);
	if (!err) {
		err = rebase_open(c, l);
		closed = img_disk_close(c->d);
		err = err ? err : closed;
	}
	progress_end(&c->p);
	loop_free(l);
	return err;
}

static int parse_option(struct command *c, int opt, char **argv)
{
	switch (opt) {
	case 'f':
		c->src.format = optarg;
		return 0;
	case 'b':
		c->base = optarg;
		return 0;
	case 'F':
		c->base_format = optarg;
		return 0;
	case 'u':
		c->unsafe = true;
		return 0;
	case 'p':
		c->progress = true;
		return 0;
	case 'q':
		c->quiet = true;
		return 0;
	case 'U':
		c->src.unlocked = true;
		return 0;
	case 'I':
		c->src.image_opts = true;
		return 0;
	case 'O':
		return 0;
	case 't':
		if (!cache_mode_parse(optarg, &c->src.cache))
			return 0;
		log_error("Invalid cache option: %s", optarg);
		return 1;
	case 'T':
		if (!cache_mode_parse(optarg, &c->base_cache))
			return 0;
		log_error("Invalid source cache option: %s", optarg);
		return 1;
	}
	return img_opt_error(opt, argv);
}

/* Formats of others that are raw here: a name may be written that we would not open by. */
static bool is_protocol(const char *format)
{
	return !strcmp(format, "file") || !strcmp(format, "host_device");
}

static int rebase_main(int argc, char **argv)
{
	static const struct option longs[] = {{"object", required_argument, NULL, 'O'},
		{"image-opts", no_argument, NULL, 'I'}, {"force-share", no_argument, NULL, 'U'},
		{"quiet", no_argument, NULL, 'q'}, {NULL, 0, NULL, 0}};
	struct command c = {.src.writable = true};
	int opt;

	while ((opt = getopt_long(argc, argv, ":f:F:b:upt:T:qU", longs, NULL)) != -1)
		if (parse_option(&c, opt, argv))
			return 1;
	if (c.quiet)
		c.progress = false;
	if (optind != argc - 1)
		return img_try_help("Expecting one image file name");
	if (!c.unsafe && !c.base)
		return img_try_help("Must specify backing file (-b) or use unsafe mode (-u)");
	c.src.name = argv[optind];
	if (c.base_format && !img_format_known(c.base_format) &&
		!(c.unsafe && is_protocol(c.base_format))) {
		log_error("Invalid format name: '%s'", c.base_format);
		return 1;
	}
	c.src.nobacking = c.unsafe;
	return rebase(&c) ? 1 : 0;
}

const struct img_cmd img_rebase = {
	.name = "rebase",
	.run = rebase_main,
	.summary = "puts another backing file below an image",
	.help = "[-f FMT] [-u] [-p] [-q] [-t CACHE] [-T CACHE] -b BACKING [-F FMT] FILENAME\n"
		"\n"
		"  -b BACKING            the new backing file; '' for none\n"
		"  -F FMT                its format\n"
		"  -f FMT                format of the image (default: by its first bytes)\n"
		"  -u                    change the name only: BACKING has the same content\n"
		"  -p                    tell how far it is\n"
		"  -t, -T CACHE          cache mode for the image, and for what is below\n"
		"  -q, --quiet           print nothing\n"
		"\n"
		"What would read differently through BACKING is copied into the image first.\n"
		"\n"
		"  sluice img rebase -b new.qcow2 -F qcow2 disk.qcow2\n"
		"  sluice img rebase -u -b moved/base.qcow2 -F qcow2 disk.qcow2\n"
		"  sluice img rebase -b '' disk.qcow2\n",
};
