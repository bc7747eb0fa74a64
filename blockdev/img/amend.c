/* SPDX-License-Identifier: MIT */
/*
 * amend.c - sluice img amend: other options for an image that is there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/open.h"
#include "blockdev/img/options.h"
#include "blockdev/img/progress.h"

struct command {
	struct img_source src;
	char *list; /* all -o */
	bool progress, quiet;
	struct img_opts o;
	struct disk_amend a;
	struct disk *d;
	struct why why;
};

/* What is asked for, in the block layer's words. */
static int understand(struct command *c)
{
	const struct img_opts *o = &c->o;
	const char *compat = o->v[OPT_COMPAT].text;
	uint64_t bits = o->v[OPT_REFCOUNT_BITS].n;

	if (compat && !(c->a.version = img_opts_version(compat, NULL)))
		return why_set(&c->why, -EINVAL, "Unknown compatibility level %s", compat);
	for (int i = OPT_ENCRYPT_ITER; i <= OPT_ENCRYPT_STATE; i++)
		if (o->v[i].text)
			return why_set(&c->why, -ENOTSUP,
				"Can't amend encryption options - encryption not present");
	if (o->v[OPT_REFCOUNT_BITS].text && (!is_pow2(bits) || bits > 64))
		return why_set(&c->why, -EINVAL,
			"Refcount width must be a power of two and may not exceed 64 bits");
	c->a.refcount_bits = (uint32_t)bits;
	c->a.set_lazy = o->v[OPT_LAZY].text != NULL;
	c->a.lazy = o->v[OPT_LAZY].n;
	c->a.size = o->v[OPT_SIZE].n;
	c->a.backing = o->v[OPT_BACKING_FILE].text;
	c->a.backing_format = o->v[OPT_BACKING_FMT].text;
	c->a.data_file = o->v[OPT_DATA_FILE].text;
	c->a.set_raw = o->v[OPT_DATA_FILE_RAW].text != NULL;
	c->a.raw = o->v[OPT_DATA_FILE_RAW].n;
	return 0;
}

static void tell(void *arg, uint64_t done, uint64_t total)
{
	progress_set(arg, done, total);
}

static int amend_fiber(void *arg)
{
	struct command *c = arg;

	return disk_amend(c->d, &c->a, &c->why);
}

static int amend_open(struct command *c, struct loop *l)
{
	struct progress p;
	int err;

	if (strcmp(disk_format(c->d), "qcow2") != 0) {
		log_error("Format driver '%s' does not support option amendment",
			disk_format(c->d));
		return -ENOTSUP;
	}
	if (img_opts_want_help(c->list)) {
		img_opts_help("qcow2", true, true);
		return 0;
	}
	err = img_opts_parse(&c->o, c->list, &c->why);
	if (!err)
		err = understand(c);
	if (!err) {
		progress_start(&p, c->progress, c->quiet);
		progress_set(&p, 0, 1);
		c->a.progress = tell;
		c->a.progress_arg = &p;
		err = fiber_run(l, amend_fiber, c);
		if (!err)
			progress_set(&p, 1, 1);
		progress_end(&p);
	}
	if (err)
		img_say_why(NULL, &c->why, err);
	return err;
}

static int amend(struct command *c)
{
	struct loop *l;
	int err = img_loop_new(LOOP_AIO_AUTO, &l), closed;

	if (err)
		return err;
	err = img_disk_open(l, &c->src, &c->d);
	if (!err) {
		err = amend_open(c, l);
		closed = img_disk_close(c->d);
		err = err ? err : closed;
	}
	loop_free(l);
	return err;
}

static int parse_option(struct command *c, int opt, char **argv)
{
	switch (opt) {
	case 'o':
		return img_opts_join(&c->list, optarg) ? 1 : 0;
	case 'f':
		c->src.format = optarg;
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
	case 'O': /* secrets */
	case 'X': /* of encryption keys */
		return 0;
	case 't':
		if (!cache_mode_parse(optarg, &c->src.cache))
			return 0;
		log_error("Invalid cache option: %s", optarg);
		return 1;
	}
	return img_opt_error(opt, argv);
}

static int run(int argc, char **argv, struct command *c)
{
	const char *format = c->src.format;

	if (!c->list)
		return img_try_help("Must specify options (-o)");
	if (img_opts_want_help(c->list) && format) { /* no image is needed to tell */
		if (!strcmp(format, "qcow2"))
			img_opts_help("qcow2", true, true);
		else
			img_cannot(format, "option amendment");
		return strcmp(format, "qcow2") != 0;
	}
	if (optind != argc - 1) {
		log_error("Expecting one image file name");
		return 1;
	}
	c->src.name = argv[optind];
	return amend(c) ? 1 : 0;
}

static int amend_main(int argc, char **argv)
{
	static const struct option longs[] = {{"object", required_argument, NULL, 'O'},
		{"image-opts", no_argument, NULL, 'I'}, {"force", no_argument, NULL, 'X'},
		{NULL, 0, NULL, 0}};
	struct command c = {.src.writable = true, .src.unmap = true};
	int opt, status = 0;

	img_opts_init(&c.o, "qcow2", true);
	while (!status && (opt = getopt_long(argc, argv, ":o:f:t:pq", longs, NULL)) != -1)
		status = parse_option(&c, opt, argv);
	if (!status)
		status = run(argc, argv, &c);
	img_opts_fini(&c.o);
	free(c.list);
	return status;
}

const struct img_cmd img_amend = {
	.name = "amend",
	.run = amend_main,
	.summary = "changes options of an image",
	.help = "[-f FMT] [-p] [-q] [-t CACHE] -o OPTIONS FILENAME\n"
		"\n"
		"  -o OPTIONS            name=value,... ; '-f qcow2 -o help' lists them\n"
		"  -f FMT                format of the image (default: by its first bytes)\n"
		"  -p                    tell how far it is\n"
		"  -t CACHE              cache mode for the image\n"
		"  -q                    print nothing\n"
		"\n"
		"  sluice img amend -o compat=1.1,lazy_refcounts=on disk.qcow2\n"
		"  sluice img amend -o compat=0.10 disk.qcow2\n",
};
