/* SPDX-License-Identifier: MIT */
/*
 * commit.c - sluice img commit: what an image holds goes into a backing file.
 *
 * The chain is looked through once to find that file; then the file is opened for writing,
 * and the chain again, above it.  What the layers above it hold is copied and made durable
 * before the image is emptied.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "blockdev/img/open.h"
#include "blockdev/img/progress.h"

#define CHUNK (2 * MiB)

struct command {
	struct img_source src;
	const char *base; /* -b, or NULL */
	bool keep;        /* -d: the image keeps what it holds */
	bool progress, quiet;
	char *base_path, *base_format; /* found */
	int depth;                     /* of the base below the image */
	struct disk *d, *to;
	uint8_t *buf;
	struct progress p;
	struct why why;
};

static bool same_file(const char *x, const char *y)
{
	struct stat a, b;

	return !stat(x, &a) && !stat(y, &b) && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

/* Is this layer, the one below above, what the user calls name?  Relative to above. */
static bool is_called(const struct disk *layer, const struct disk *above, const char *name)
{
	char path[PATH_MAX];

	return !strcmp(disk_backing_name(above), name) ||
	       (!disk_backing_path(disk_path(above), name, path, sizeof(path)) &&
		       same_file(path, disk_path(layer)));
}

/* 0 with base_path and depth, or -errno, told. */
static int find_base(struct command *c, struct disk *top)
{
	struct disk *d = disk_backing(top), *above = top;

	c->depth = 1;
	if (!d && !c->base) {
		log_error("Image does not have a backing file");
		return -EINVAL;
	}
	for (; d && c->base; above = d, d = disk_backing(d), c->depth++)
		if (is_called(d, above, c->base))
			break;
	if (!d) {
		log_error("Did not find '%s' in the backing chain of '%s'", c->base, c->src.name);
		return -EINVAL;
	}
	/* Driver and all, if the layer above names them. */
	c->base_path = strdup(strncmp(disk_backing_name(above), "json:", 5)
			? disk_path(d)
			: disk_backing_name(above));
	c->base_format = strdup(disk_format(d));
	if (c->base_path && c->base_format)
		return 0;
	log_error("%s", strerror(ENOMEM));
	return -ENOMEM;
}

static int look_through(struct command *c, struct loop *l)
{
	struct img_source s = c->src;
	struct disk *top;
	int err;

	s.writable = false;
	err = img_disk_open(l, &s, &top);
	if (err)
		return err;
	progress_start(&c->p, c->progress, c->quiet);
	progress_set(&c->p, 0, 1);
	err = find_base(c, top);
	return img_disk_close(top) && !err ? -EIO : err;
}

static int copy_extent(struct command *c, const struct extent *e, uint64_t off)
{
	int err;

	if (e->kind == EXTENT_ZERO)
		return disk_zeroes(c->to, e->len, off, BLK_UNMAP);
	err = disk_pread(c->d, c->buf, e->len, off);
	return err ? err : disk_pwrite(c->to, c->buf, e->len, off, 0);
}

static int copy_all(struct command *c)
{
	uint64_t size = disk_size(c->d);

	for (uint64_t off = 0; off < size;) {
		struct extent e;
		int err = disk_map(c->d, off, min_u64(CHUNK, size - off), &e);

		/* Behind the end of a layer there are zeros, and they hide what is below. */
		if (!err && e.depth < c->depth && e.kind == EXTENT_HOLE)
			e.kind = EXTENT_ZERO;
		if (!err && e.depth < c->depth)
			err = copy_extent(c, &e, off);
		if (err)
			return err;
		off += e.len;
		progress_set(&c->p, off, size);
	}
	return 0;
}

static int commit_fiber(void *arg)
{
	struct command *c = arg;
	int err = 0;

	if (disk_size(c->d) > disk_size(c->to))
		err = disk_resize(c->to, disk_size(c->d), PREALLOC_OFF, &c->why);
	if (!err)
		err = copy_all(c);
	if (!err)
		err = disk_flush(c->to);
	if (err)
		return why_set(&c->why, err, "Block job failed: %s",
			c->why.text[0] ? c->why.text : strerror(-err));
	if (!c->keep) {
		err = disk_make_empty(c->d);
		if (err == -ENOTSUP) /* then it goes on hiding the same content */
			err = 0;
		if (err)
			return why_set(&c->why, err, "Failed to empty %s: %s", c->src.name,
				strerror(-err));
	}
	return err;
}

static int open_top(struct command *c, struct loop *l)
{
	struct disk_opts o = {.path = c->src.name,
		.format = c->src.format,
		.cache = c->src.cache,
		.base = c->to,
		.base_depth = (unsigned)c->depth,
		.unmap = true,
		.say_repairs = true,
		.readonly = c->keep};
	struct why why = {""};
	int err = disk_open(l, &o, &c->d, &why);

	if (err)
		img_say_open(c->src.name, &why, err);
	return err;
}

static int commit_into(struct command *c, struct loop *l)
{
	int err = open_top(c, l);

	if (err)
		return err;
	c->buf = img_data_buf(CHUNK);
	err = c->buf ? fiber_run(l, commit_fiber, c) : -ENOMEM;
	free(c->buf);
	if (err)
		img_say_why(NULL, &c->why, err);
	/* What failed half way cannot be closed cleanly either: said once is enough. */
	if (err)
		(void)!disk_close(c->d, NULL);
	else
		err = img_disk_close(c->d);
	return err;
}

static int commit(struct command *c)
{
	struct img_source base = {.writable = true, .cache = c->src.cache, .unmap = true};
	struct loop *l;
	int err = img_loop_new(LOOP_AIO_AUTO, &l), closed;

	if (err)
		return err;
	err = look_through(c, l);
	base.name = c->base_path;
	base.format = c->base_format;
	if (!err)
		err = img_disk_open(l, &base, &c->to);
	if (!err) {
		err = commit_into(c, l);
		closed = img_disk_close(c->to);
		err = err ? err : closed;
	}
	progress_end(&c->p);
	loop_free(l);
	free(c->base_path);
	free(c->base_format);
	return err;
}

static int parse_option(struct command *c, int opt, char **argv)
{
	switch (opt) {
	case 'f':
		c->src.format = optarg;
		return 0;
	case 'b': /* the layers between would show through an emptied image */
		c->base = optarg;
		c->keep = true;
		return 0;
	case 'd':
		c->keep = true;
		return 0;
	case 'p':
		c->progress = true;
		return 0;
	case 'q':
		c->quiet = true;
		return 0;
	case 'I':
		c->src.image_opts = true;
		return 0;
	case 'O':
		return 0;
	case 'r': { /* a limit that the local disk keeps by itself */
		uint64_t rate;

		return img_parse_number("rate limit", optarg, 1, INT64_MAX, &rate) ? 1 : 0;
	}
	case 't':
		if (!cache_mode_parse(optarg, &c->src.cache))
			return 0;
		log_error("Invalid cache option: %s", optarg);
		return 1;
	}
	return img_opt_error(opt, argv);
}

static int commit_main(int argc, char **argv)
{
	static const struct option longs[] = {{"object", required_argument, NULL, 'O'},
		{"image-opts", no_argument, NULL, 'I'}, {"quiet", no_argument, NULL, 'q'},
		{NULL, 0, NULL, 0}};
	struct command c = {.src.writable = true};
	int opt;

	while ((opt = getopt_long(argc, argv, ":f:t:b:dpqr:", longs, NULL)) != -1)
		if (parse_option(&c, opt, argv))
			return 1;
	if (optind != argc - 1)
		return img_try_help("Expecting one image file name");
	c.src.name = argv[optind];
	if (commit(&c))
		return 1;
	if (!c.quiet)
		printf("Image committed.\n");
	return 0;
}

const struct img_cmd img_commit = {
	.name = "commit",
	.run = commit_main,
	.summary = "puts what an image holds into its backing file",
	.help = "[-f FMT] [-b BASE] [-d] [-p] [-q] [-t CACHE] FILENAME\n"
		"\n"
		"  -f FMT                format of the image (default: by its first bytes)\n"
		"  -b BASE               into this file of the chain, and not the next one below;\n"
		"                        the image keeps what it holds, as with -d\n"
		"  -d                    the image keeps what it holds\n"
		"  -p                    tell how far it is\n"
		"  -t CACHE              cache mode for the files that are written\n"
		"  -q, --quiet           print nothing\n"
		"\n"
		"  sluice img commit today.qcow2\n"
		"  sluice img commit -b base.qcow2 today.qcow2\n",
};
