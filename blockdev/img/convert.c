/* SPDX-License-Identifier: MIT */
/*
 * convert.c - sluice img convert: images, one after the other, as one image of any format.
 *
 * The order in which mistakes are found is qemu-img's: what is wrong with the words first, then
 * the sources are opened, then the target is made.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/bitmaps.h"
#include "blockdev/img/copy.h"
#include "blockdev/img/options.h"

#define SPARSE_DEFAULT (4 * KiB)
#define SPARSE_MAX     (16 * MiB)
#define WORKERS	       8

struct options {
	const char *format;  /* of the sources */
	const char *out, *out_format, *backing, *backing_format;
	char *list; /* all -o */
	const char *snapshot;
	const char *src_cache, *dst_cache;
	bool image_opts, target_image_opts, target_is_zero, unlocked, skip_create;
	bool compress, progress, quiet, any_order, salvage, offload, sparse_given;
	bool bitmaps, skip_broken;
	uint64_t min_sparse, workers, rate;
	char **names;
	unsigned n_names;
};

enum {
	OPT_IMAGE_OPTS = 256,
	OPT_TARGET_IMAGE_OPTS,
	OPT_TARGET_IS_ZERO,
	OPT_SALVAGE,
	OPT_BITMAPS,
	OPT_SKIP_BROKEN,
};

static const struct option longs[] = {{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
	{"target-image-opts", no_argument, NULL, OPT_TARGET_IMAGE_OPTS},
	{"target-is-zero", no_argument, NULL, OPT_TARGET_IS_ZERO},
	{"force-share", no_argument, NULL, 'U'}, {"salvage", no_argument, NULL, OPT_SALVAGE},
	{"bitmaps", no_argument, NULL, OPT_BITMAPS},
	{"skip-broken-bitmaps", no_argument, NULL, OPT_SKIP_BROKEN}, {NULL, 0, NULL, 0}};

static int set_sparse(struct options *o, const char *text)
{
	if (img_parse_number("buffer size for sparse output", text, 0, INT64_MAX, &o->min_sparse))
		return 1;
	if (o->min_sparse % SECTOR || o->min_sparse > SPARSE_MAX) {
		log_error("Invalid buffer size for sparse output specified. Valid sizes are "
			  "multiples of %u up to %llu. Select 0 to disable sparse detection "
			  "(fully allocates output).",
			SECTOR, SPARSE_MAX);
		return 1;
	}
	o->sparse_given = true;
	return 0;
}

static int set_workers(struct options *o, const char *text)
{
	char *end;
	long n = strtol(text, &end, 10);

	if (end == text || *end || n < 1 || n > COPY_WORKERS_MAX) {
		log_error("Invalid number of coroutines. Allowed number of coroutines is between 1 "
			  "and %d",
			COPY_WORKERS_MAX);
		return 1;
	}
	o->workers = (uint64_t)n;
	return 0;
}

static int set_long(struct options *o, int c, char **argv)
{
	switch (c) {
	case OPT_IMAGE_OPTS:
		o->image_opts = true;
		return 0;
	case OPT_TARGET_IMAGE_OPTS:
		o->target_image_opts = true;
		return 0;
	case OPT_TARGET_IS_ZERO:
		o->target_is_zero = true;
		return 0;
	case OPT_SALVAGE:
		o->salvage = true;
		return 0;
	case OPT_BITMAPS:
		o->bitmaps = true;
		return 0;
	case OPT_SKIP_BROKEN:
		o->skip_broken = true;
		return 0;
	default:
		return img_opt_error(c, argv);
	}
}

static int set_flag(struct options *o, int c, char **argv)
{
	switch (c) {
	case 'C':
		o->offload = true;
		return 0;
	case 'c':
		o->compress = true;
		return 0;
	case 'n':
		o->skip_create = true;
		return 0;
	case 'p':
		o->progress = true;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	case 'U':
		o->unlocked = true;
		return 0;
	case 'W':
		o->any_order = true;
		return 0;
	default:
		return set_long(o, c, argv);
	}
}

static int set_option(struct options *o, int c, char **argv)
{
	switch (c) {
	case 'B':
		o->backing = optarg;
		return 0;
	case 'F':
		o->backing_format = optarg;
		return 0;
	case 'f':
		o->format = optarg;
		return 0;
	case 'O':
		o->out_format = optarg;
		return 0;
	case 'l':
		o->snapshot = optarg;
		return 0;
	case 'm':
		return set_workers(o, optarg);
	case 'o':
		return img_opts_join(&o->list, optarg) != 0;
	case 'r':
		return img_parse_number("rate limit", optarg, 0, INT64_MAX, &o->rate) != 0;
	case 'S':
		return set_sparse(o, optarg);
	case 'T':
		o->src_cache = optarg;
		return 0;
	case 't':
		o->dst_cache = optarg;
		return 0;
	default:
		return set_flag(o, c, argv);
	}
}

static int refuse(const char *words)
{
	log_error("%s", words);
	return 1;
}

/* Words that do not go together. */
static int check_words(const struct options *o)
{
	if (o->image_opts && o->format)
		return refuse("--image-opts and --format are mutually exclusive");
	if (o->target_image_opts && !o->skip_create)
		return refuse("--target-image-opts requires use of -n flag");
	if (o->target_is_zero && !o->skip_create)
		return refuse("--target-is-zero requires use of -n flag");
	if (o->skip_create && o->list)
		return refuse("-o has no effect when skipping image creation");
	if (o->offload && o->sparse_given)
		return refuse("Cannot enable copy offloading when -S is used");
	if (o->offload && o->compress)
		return refuse("Cannot enable copy offloading when -c is used");
	if (o->offload && o->salvage)
		return refuse("Cannot use copy offloading in salvaging mode");
	if (o->skip_broken && !o->bitmaps)
		return refuse("Use of --skip-broken-bitmaps requires --bitmaps");
	if (!o->n_names)
		return refuse("Must specify image file name");
	if (o->snapshot && o->n_names > 1)
		return refuse("No support for concatenating multiple snapshot");
	if (o->bitmaps && o->n_names > 1)
		return refuse("Copying bitmaps only possible with single source");
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	int c;

	while ((c = getopt_long(argc, argv, ":B:CcF:f:l:m:nO:o:pqr:S:T:t:UW", longs, NULL)) != -1)
		if (set_option(o, c, argv))
			return 1;
	o->names = argv + optind;
	o->n_names = argc - optind > 1 ? (unsigned)(argc - optind - 1) : 0;
	o->out = argc > optind ? argv[argc - 1] : NULL;
	return 0;
}

/* ---- sources ---- */

static void close_sources(struct copy *c)
{
	while (c->n_src)
		if (img_disk_close(c->src[--c->n_src].disk))
			log_warn("%s: closing failed", c->src[c->n_src].name);
	free(c->src);
}

static int open_sources(const struct options *o, enum cache_mode cache, struct copy *c)
{
	c->src = calloc(o->n_names, sizeof(*c->src));
	if (!c->src) {
		log_error("%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	for (unsigned i = 0; i < o->n_names; i++) {
		struct img_source s = {.name = o->names[i],
			.format = o->format,
			.image_opts = o->image_opts,
			.unlocked = o->unlocked,
			.cache = cache};
		struct copy_source *src = &c->src[i];
		int err = img_disk_open(c->loop, &s, &src->disk);

		if (err)
			return err;
		c->n_src++;
		if (o->snapshot && (err = img_load_snapshot(c->loop, src->disk, o->snapshot)) != 0)
			return err;
		src->name = s.name;
		src->start = c->total;
		c->total += disk_size(src->disk);
	}
	return 0;
}

/* ---- the target ---- */

static int said_no(const char *words, const char *name)
{
	log_error(words, name);
	return -EINVAL;
}

/* All that is said about a target to be made, in one place. */
static int target_options(const struct options *o, struct img_opts *t)
{
	struct why why = {""};
	int err = img_opts_parse(t, o->list, &why);

	if (err) {
		img_say_why(NULL, &why, err);
		return err;
	}
	if (o->backing && img_opts_set(t, OPT_BACKING_FILE, o->backing, &why))
		return said_no("Backing file not supported for file format '%s'", t->format);
	if (o->backing_format && img_opts_set(t, OPT_BACKING_FMT, o->backing_format, &why))
		return said_no("Backing file format not supported for file format '%s'", t->format);
	return 0;
}

/* Said before anything is made. */
static bool can_have_bitmaps(const struct img_opts *t)
{
	struct why why = {""};
	const char *compat = t->v[OPT_COMPAT].text;

	return !strcmp(t->format, "qcow2") && (!compat || img_opts_version(compat, &why) != 2);
}

static int check_target(const struct options *o, const struct img_opts *t, struct copy *c)
{
	const char *prealloc = t->v[OPT_QCOW2_PREALLOC].text;

	c->over_backing = o->backing || t->v[OPT_BACKING_FILE].text;
	if (c->over_backing && c->n_src > 1)
		return said_no("Having a backing file for the target makes no sense when "
			       "concatenating multiple input images%s", "");
	if (t->v[OPT_BACKING_FILE].text && !t->v[OPT_BACKING_FMT].text)
		return said_no("Use of backing file requires explicit backing format%s", "");
	if (o->bitmaps && !can_have_bitmaps(t))
		return said_no("Format driver '%s' does not support bitmaps", t->format);
	if (o->compress && strcmp(t->format, "qcow2") != 0)
		return said_no("Compression not supported for this file format%s", "");
	if (o->compress && prealloc && strcmp(prealloc, "off") != 0)
		return said_no("Compression and preallocation not supported at the same %s",
			"time");
	return 0;
}

/* The backing file must open, or the target would be made for nothing.  Said as of the target. */
static int check_backing(const struct options *o, const struct img_opts *t, struct loop *l)
{
	const char *name = t->v[OPT_BACKING_FILE].text;
	char path[4096] = "";
	struct disk_opts b = {.path = path,
		.format = t->v[OPT_BACKING_FMT].text,
		.readonly = true,
		.quiet = true,
		.nolock = true};
	struct why inner = {""}, why = {""};
	struct disk *d;
	int err;

	if (!name || !name[0])
		return 0;
	err = disk_backing_path(o->out, name, path, sizeof(path));
	if (!err && !strcmp(path, o->out))
		err = why_set(
			&why, -ELOOP, "Backing file '%.1023s' creates an infinite loop.", path);
	if (!err && (err = disk_open(l, &b, &d, &inner)) == 0)
		err = disk_close(d, &inner);
	if (!err)
		return 0;
	if (inner.text[0])
		why_set(&why, err, "Could not open backing file: %.1200s", inner.text);
	else
		why_set(&why, err, "Could not open backing file: Could not open '%.900s': %s", path,
			strerror(-err));
	img_say_open(o->out, &why, err);
	return err;
}

static int create_target(const struct options *o, struct img_opts *t, uint64_t size)
{
	struct why why = {""};
	char who[1100];
	int err = img_opts_set_number(t, OPT_SIZE, size);

	t->nosync = !o->dst_cache || !strcmp(o->dst_cache, "unsafe");

	if (!err)
		err = img_opts_defaults(t);
	if (!err)
		err = img_create_file(o->out, t, &why);
	if (err) {
		snprintf(who, sizeof(who), "%.1000s: error while converting %s", o->out, t->format);
		img_say_why(who, &why, err);
	}
	return err;
}

static int open_target(const struct options *o, const struct img_opts *t, enum cache_mode cache,
	struct copy *c)
{
	struct img_source s = {.name = o->out,
		.format = o->target_image_opts ? o->out_format : t->format,
		.image_opts = o->target_image_opts,
		.writable = true,
		.unmap = o->min_sparse > 0,
		.cache = cache};
	struct disk *below;
	int err = img_disk_open(c->loop, &s, &c->dst);

	if (err)
		return err;
	if (o->skip_create && disk_size(c->dst) < c->total) {
		log_error("output file is smaller than input file");
		err = -EINVAL;
	} else if (o->bitmaps && !disk_has_bitmaps(c->dst)) {
		err = said_no("Format driver '%s' does not support bitmaps",
			disk_format(c->dst));
	}
	below = disk_backing(c->dst);
	c->backing_size = below ? disk_size(below) : UINT64_MAX;
	return err;
}

static int make_target(const struct options *o, struct img_opts *t, struct copy *c)
{
	enum cache_mode cache = CACHE_UNSAFE;
	int err = o->skip_create ? 0 : target_options(o, t);

	if (!err)
		err = check_target(o, t, c);
	if (!err && o->dst_cache && (err = cache_mode_parse(o->dst_cache, &cache)) != 0)
		log_error("Invalid cache option: %s", o->dst_cache);
	if (!err && !o->skip_create)
		err = check_backing(o, t, c->loop);
	if (!err && !o->skip_create)
		err = create_target(o, t, c->total);
	if (!err)
		err = open_target(o, t, cache, c);
	return err;
}

static int copy_to_target(const struct options *o, struct copy *c)
{
	/* What is told of errors comes in the order of the disk. */
	c->workers = o->salvage ? 1 : (unsigned)o->workers;
	c->min_sparse = o->min_sparse;
	c->compress = o->compress;
	c->any_order = o->any_order;
	c->rate = o->rate;
	c->salvage = o->salvage;
	c->quiet = o->quiet;
	/* What we made is new and holds nothing yet; a device holds what it held. */
	c->zero_init = o->target_is_zero || (!o->skip_create && !c->over_backing);
	return copy_run(c);
}

static int convert(const struct options *o, struct copy *c)
{
	enum cache_mode cache = CACHE_WRITEBACK;
	int err = o->src_cache ? cache_mode_parse(o->src_cache, &cache) : 0;

	if (err) {
		log_error("Invalid source cache option: %s", o->src_cache);
		return err;
	}
	progress_set(c->progress, 0, 1);
	err = open_sources(o, cache, c);
	if (!err && o->bitmaps)
		err = img_bitmaps_check(c->src[0].disk, o->skip_broken);
	if (!err && !img_format_known(o->out_format))
		err = said_no("Unknown file format '%s'", o->out_format);
	if (!err) {
		struct img_opts t;

		img_opts_init(&t, o->out_format, false);
		err = make_target(o, &t, c);
		img_opts_fini(&t);
	}
	if (!err)
		err = copy_to_target(o, c);
	if (!err && o->bitmaps)
		err = img_bitmaps_copy(c->loop, c->src[0].disk, c->dst);
	if (c->dst) {
		int e = img_disk_close(c->dst);

		err = err ? err : e;
	}
	close_sources(c);
	return err;
}

static int convert_checked(const struct options *o)
{
	struct progress progress;
	struct copy c = {.progress = &progress};
	int err;

	/* Most of the work is the host's copying from and to its page cache, so threads do it. */
	if (check_words(o) || img_loop_new(LOOP_AIO_THREADS, &c.loop))
		return 1;
	progress_start(&progress, o->progress, o->quiet);
	err = convert(o, &c);
	progress_end(&progress);
	loop_free(c.loop);
	return err ? 1 : 0;
}

static int convert_main(int argc, char **argv)
{
	struct options o = {
		.min_sparse = SPARSE_DEFAULT, .workers = WORKERS, .out_format = "raw"};
	int status = parse(argc, argv, &o);

	if (!status && img_opts_want_help(o.list)) {
		status = !img_format_known(o.out_format);
		if (status)
			img_cannot(o.out_format, "image creation");
		else
			img_opts_help(o.out_format, false, o.n_names > 0);
	} else if (!status) {
		status = convert_checked(&o);
	}
	free(o.list);
	return status;
}

const struct img_cmd img_convert = {
	.name = "convert",
	.run = convert_main,
	.summary = "copies images into one of another format",
	.help = "[OPTIONS] FILENAME [FILENAME2 ...] OUTPUT\n"
		"\n"
		"  -f FMT                  format of the sources (default: by their first bytes)\n"
		"  -O FMT                  format of the output (default: raw)\n"
		"  -o LIST                 name=value,... of the output; -o help lists them\n"
		"  -B FILE, -F FMT         the output's backing file and its format; what the\n"
		"                          source has from its own is not copied\n"
		"  -c                      compress (qcow2)\n"
		"  -S SIZE                 so many zeros make a hole (default: 4k); 0: none\n"
		"  -m N                    requests in flight, 1 to 16 (default: 8)\n"
		"  -W                      the output may be filled in any order\n"
		"  -n                      write into an output that exists\n"
		"      --target-is-zero    with -n: the output reads as zeros\n"
		"  -l SNAPSHOT             copy an internal snapshot\n"
		"  -r RATE                 at most so many bytes of data in a second\n"
		"      --salvage           what cannot be read becomes zeros\n"
		"  -t CACHE, -T CACHE      cache modes: output (default: unsafe) and sources\n"
		"      --image-opts, --target-image-opts\n"
		"                          the names are driver=...,file.filename=...\n"
		"      --bitmaps           the output gets the source's dirty bitmaps\n"
		"      --skip-broken-bitmaps\n"
		"                          without those that are inconsistent\n"
		"  -p, -q                  print how far it is; print nothing but errors\n"
		"  -U, --force-share       read images that a guest is using (take no lock)\n"
		"\n"
		"  sluice img convert -O qcow2 disk.raw disk.qcow2\n"
		"  sluice img convert -c -O qcow2 -o cluster_size=128k disk.qcow2 small.qcow2\n",
};
