/* SPDX-License-Identifier: MIT */
/*
 * dd.c - sluice img dd: blocks of one image as a new one of any format, in the words of dd(1).
 *
 * The part between skip and count is one stretch of the source; it is copied as convert copies,
 * several requests in flight and holes left out, so the block size is but a unit of counting.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/copy.h"
#include "blockdev/img/options.h"

struct options {
	struct img_source src;
	const char *out, *out_format;
	uint64_t bs, count, skip;
	bool counted;
};

#define BLOCKS_MAX ((uint64_t)INT64_MAX)

static int set_operand(struct options *o, const char *word)
{
	const char *value = strchr(word, '=');
	size_t n = value ? (size_t)(value - word) : 0;

	value = value ? value + 1 : NULL;
	if (n == 2 && !strncmp(word, "if", n)) {
		o->src.name = value;
	} else if (n == 2 && !strncmp(word, "of", n)) {
		o->out = value;
	} else if (n == 2 && !strncmp(word, "bs", n)) {
		return img_parse_number("bs", value, 1, INT32_MAX, &o->bs) != 0;
	} else if (n == 5 && !strncmp(word, "count", n)) {
		o->counted = true;
		return img_parse_number("count", value, 0, BLOCKS_MAX, &o->count) != 0;
	} else if (n == 4 && !strncmp(word, "skip", n)) {
		return img_parse_number("skip", value, 0, BLOCKS_MAX, &o->skip) != 0;
	} else {
		log_error("unrecognized operand %.*s", (int)(value ? n : strlen(word)), word);
		return 1;
	}
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_IMAGE_OPTS = 256 };
	static const struct option longs[] = {{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"force-share", no_argument, NULL, 'U'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, ":f:O:U", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->src.format = optarg;
			break;
		case 'O':
			o->out_format = optarg;
			break;
		case 'U':
			o->src.unlocked = true;
			break;
		case OPT_IMAGE_OPTS:
			o->src.image_opts = true;
			break;
		default:
			return img_opt_error(c, argv);
		}
	}
	for (; optind < argc; optind++)
		if (set_operand(o, argv[optind]))
			return 1;
	if (!o->src.name || !o->out) {
		log_error("Must specify both input and output files");
		return 1;
	}
	if (o->src.image_opts && o->src.format) {
		log_error("--image-opts and --format are mutually exclusive");
		return 1;
	}
	return 0;
}

/* Which bytes of the source are meant: count counts from its start, as in qemu-img. */
static void extent_of(const struct options *o, uint64_t size, uint64_t *from, uint64_t *end)
{
	uint64_t len;

	*end = size;
	if (o->counted && !__builtin_mul_overflow(o->count, o->bs, &len) && len < size)
		*end = len;
	if (__builtin_mul_overflow(o->skip, o->bs, from))
		*from = UINT64_MAX;
}

static int create_target(const struct options *o, uint64_t size)
{
	struct why why = {""};
	struct img_opts t;
	char who[1100];
	int err;

	img_opts_init(&t, o->out_format, false);
	t.nosync = true;
	err = img_opts_set_number(&t, OPT_SIZE, size);
	if (!err)
		err = img_opts_defaults(&t);
	if (!err)
		err = img_create_file(o->out, &t, &why);
	if (err) {
		snprintf(who, sizeof(who), "%.1000s: error while creating output image", o->out);
		img_say_why(who, &why, err);
	}
	img_opts_fini(&t);
	return err;
}

static int copy_part(const struct options *o, struct copy *c, uint64_t from)
{
	struct img_source s = {.name = o->out,
		.format = o->out_format,
		.writable = true,
		.unmap = true,
		.cache = CACHE_UNSAFE};
	int err = create_target(o, c->total), e;

	if (err)
		return err;
	err = img_disk_open(c->loop, &s, &c->dst);
	if (err)
		return err;
	c->src->skip = from;
	if (c->total)
		err = copy_run(c);
	e = img_disk_close(c->dst);
	return err ? err : e;
}

static int dd(const struct options *o, struct copy *c)
{
	struct copy_source src = {.name = o->src.name};
	uint64_t from, end;
	int err, e;

	if (!img_format_known(o->out_format)) {
		log_error("Unknown file format");
		return -EINVAL;
	}
	err = img_disk_open(c->loop, &o->src, &src.disk);
	if (err)
		return err;
	extent_of(o, disk_size(src.disk), &from, &end);
	if (from > end) {
		log_error("%s: cannot skip to specified offset", o->src.name);
		from = end;
	}
	c->src = &src;
	c->n_src = 1;
	c->total = end - from;
	err = copy_part(o, c, from);
	e = img_disk_close(src.disk);
	return err ? err : e;
}

static int dd_main(int argc, char **argv)
{
	struct options o = {.out_format = "raw", .bs = SECTOR};
	struct progress progress;
	struct copy c = {.progress = &progress,
		.workers = 8,
		.min_sparse = 4 * KiB,
		.zero_init = true};
	int err;

	if (parse(argc, argv, &o) || img_loop_new(LOOP_AIO_THREADS, &c.loop))
		return 1;
	progress_start(&progress, false, false);
	err = dd(&o, &c);
	progress_end(&progress);
	loop_free(c.loop);
	return err ? 1 : 0;
}

const struct img_cmd img_dd = {
	.name = "dd",
	.run = dd_main,
	.summary = "copies a part of an image into a new one",
	.help = "[-f FMT] [-O FMT] [--image-opts] [-U] [bs=SIZE] [count=N] [skip=N] if=INPUT "
		"of=OUTPUT\n"
		"\n"
		"  -f FMT                  format of the input (default: by its first bytes)\n"
		"  -O FMT                  format of the output (default: raw)\n"
		"      --image-opts        INPUT is driver=...,file.filename=...\n"
		"  -U, --force-share       read an image that a guest is using (take no lock)\n"
		"  bs=SIZE                 size of a block (default: 512)\n"
		"  count=N                 stop after so many blocks of the input\n"
		"  skip=N                  leave so many out at the start; count counts them too\n"
		"\n"
		"  sluice img dd -O qcow2 bs=1M count=100 if=disk.raw of=disk.qcow2\n",
};
