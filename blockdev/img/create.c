/* SPDX-License-Identifier: MIT */
/*
 * create.c - sluice img create.
 *
 * Every option is looked at before a file is touched.  A file that this command made is
 * removed again if the image could not be finished.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include "blockdev/img/cmd.h"
#include "blockdev/qcow2/format.h"

struct options {
	const char *filename, *format;
	bool quiet, size_given;
	struct qcow2_create_opts q;
	const char *compat, *prealloc; /* as given */
};

struct creation {
	struct file *file;
	const struct options *o;
	struct why why;
};

/* One -o option; set() says what is wrong with the value (NULL: there was no '='). */
struct create_opt {
	const char *name, *kind, *help;
	bool raw; /* known to raw images too */
	int (*set)(struct options *o, const char *value);
};

static int bad_value(const struct options *o, const char *fmt, const char *name, const char *value)
{
	char text[256];

	snprintf(text, sizeof(text), fmt, name, value);
	log_error("%s: %s", o->filename, text);
	return -EINVAL;
}

static int opt_size(const struct options *o, const char *name, const char *value, uint64_t *out)
{
	if (!value || img_parse_size(value, out)) {
		bad_value(o, "Parameter '%s' expects a non-negative number below 2^64%s", name, "");
		fprintf(stderr,
			"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
			"peta-\nand exabytes, respectively.\n");
		return -EINVAL;
	}
	return 0;
}

static int opt_u32(const struct options *o, const char *name, const char *value, uint32_t *out)
{
	uint64_t v;
	int err = opt_size(o, name, value, &v);

	if (err)
		return err;
	if (v == 0 || v > UINT32_MAX) /* 0 would mean the default further down */
		return bad_value(o, "Parameter '%s' does not accept value '%s'", name, value);
	*out = (uint32_t)v;
	return 0;
}

/* For options that exist to be off: the good value is accepted, others are refused by name. */
static int opt_only(const struct options *o, const char *name, const char *value, const char *good)
{
	if (value && !strcasecmp(value, good))
		return 0;
	log_error("%s: %s=%s is not supported (only %s=%s)", o->filename, name,
		value ? value : "on", name, good);
	return -EINVAL;
}

static int set_cluster_size(struct options *o, const char *v)
{
	return opt_u32(o, "cluster_size", v, &o->q.cluster_size);
}

static int set_compat(struct options *o, const char *v)
{
	static const struct {
		const char *name;
		uint32_t version;
	} levels[] = {{"0.10", 2}, {"v2", 2}, {"1.1", 3}, {"v3", 3}};

	for (size_t i = 0; i < ARRAY_SIZE(levels); i++)
		if (v && !strcmp(levels[i].name, v)) {
			o->compat = levels[i].name;
			o->q.version = levels[i].version;
			return 0;
		}
	return bad_value(o, "Parameter '%s' does not accept value '%s' (good: 0.10, 1.1, v2, v3)",
		"compat", v ? v : "on");
}

static int set_compression(struct options *o, const char *v)
{
	return opt_only(o, "compression_type", v, "zlib");
}

static int set_extended_l2(struct options *o, const char *v)
{
	return opt_only(o, "extended_l2", v, "off");
}

static int set_lazy(struct options *o, const char *v)
{
	if (!v || !strcmp(v, "on") || !strcmp(v, "yes") || !strcmp(v, "true") || !strcmp(v, "y"))
		o->q.lazy_refcounts = true;
	else if (!strcmp(v, "off") || !strcmp(v, "no") || !strcmp(v, "false") || !strcmp(v, "n"))
		o->q.lazy_refcounts = false;
	else
		return bad_value(o, "Parameter '%s' expects 'on' or 'off'%s", "lazy_refcounts", "");
	return 0;
}

static int set_prealloc(struct options *o, const char *v)
{
	o->prealloc = "off";
	return opt_only(o, "preallocation", v, "off");
}

static int set_refcount_bits(struct options *o, const char *v)
{
	return opt_u32(o, "refcount_bits", v, &o->q.refcount_bits);
}

static int set_size(struct options *o, const char *v)
{
	o->size_given = true;
	return opt_size(o, "size", v, &o->q.size);
}

static const struct create_opt create_opts[] = {
	{"cluster_size", "<size>", "qcow2 cluster size", false, set_cluster_size},
	{"compat", "<str>", "Compatibility level (v2 [0.10] or v3 [1.1])", false, set_compat},
	{"compression_type", "<str>", "Compression method (allowed value: zlib)", false,
		set_compression},
	{"extended_l2", "<bool (on/off)>", "Extended L2 tables (allowed value: off)", false,
		set_extended_l2},
	{"lazy_refcounts", "<bool (on/off)>", "Postpone refcount updates", false, set_lazy},
	{"preallocation", "<str>", "Preallocation mode (allowed value: off)", true, set_prealloc},
	{"refcount_bits", "<num>", "Width of a reference count entry in bits", false,
		set_refcount_bits},
	{"size", "<size>", "Virtual disk size", true, set_size},
};

static bool is_raw(const struct options *o)
{
	return !strcmp(o->format, "raw");
}

static void print_opts_help(const struct options *o)
{
	printf("Supported %s options:\n", o->format);
	for (size_t i = 0; i < ARRAY_SIZE(create_opts); i++)
		if (create_opts[i].raw || !is_raw(o)) {
			char left[64];

			snprintf(left, sizeof(left), "%s=%s", create_opts[i].name,
				create_opts[i].kind);
			printf("  %-22s - %s\n", left, create_opts[i].help);
		}
}

static int set_one(struct options *o, char *word)
{
	char *value = strchr(word, '=');

	if (value)
		*value++ = 0;
	for (size_t i = 0; i < ARRAY_SIZE(create_opts); i++)
		if (!strcmp(create_opts[i].name, word) && (create_opts[i].raw || !is_raw(o)))
			return create_opts[i].set(o, value);
	log_error("%s: Invalid parameter '%s'", o->filename, word);
	fprintf(stderr, "Good for %s:", o->format);
	for (size_t i = 0; i < ARRAY_SIZE(create_opts); i++)
		if (create_opts[i].raw || !is_raw(o))
			fprintf(stderr, " %s", create_opts[i].name);
	fprintf(stderr, "\n");
	return -EINVAL;
}

/* "a=b,c=d" */
static int set_list(struct options *o, const char *list)
{
	char *copy = strdup(list), *rest = copy, *word;
	int err = 0;

	if (!copy) {
		log_error("%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	if (!*list || *list == ',' || list[strlen(list) - 1] == ',') {
		log_error("Invalid option list: %s", list);
		err = -EINVAL;
	}
	while (!err && (word = strsep(&rest, ",")))
		err = set_one(o, word);
	free(copy);
	return err;
}

static int size_argument(struct options *o, const char *text)
{
	int err = img_parse_size(text, &o->q.size);

	if (o->size_given) {
		log_error("%s: The image size must be specified only once", o->filename);
		return -EINVAL;
	}
	o->size_given = true;
	if (err == -ERANGE || (!err && o->q.size > (uint64_t)INT64_MAX)) {
		log_error("Invalid image size specified. Must be between 0 and %" PRId64 ".",
			INT64_MAX);
		return -ERANGE;
	}
	if (err) {
		log_error("Invalid image size specified. You may use k, M, G, T, P or E suffixes "
			  "for");
		log_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
	}
	return err;
}

static int check_options(struct options *o)
{
	struct why why = {0};
	int err;

	if (!o->size_given) {
		log_error("%s: Image creation needs a size parameter", o->filename);
		return -EINVAL;
	}
	if (is_raw(o)) {
		if (o->q.size <= (uint64_t)INT64_MAX - SECTOR)
			return 0;
		log_error("%s: The image size is too large for file format 'raw'", o->filename);
		return -EFBIG;
	}
	err = qcow2_create_check(&o->q, &why);
	if (err)
		log_error("%s: %s", o->filename, why_text(&why, err));
	return err;
}

static void announce(const struct options *o)
{
	const struct qcow2_create_opts *q = &o->q;

	if (o->quiet)
		return;
	if (is_raw(o)) {
		printf("Formatting '%s', fmt=raw size=%" PRIu64 "%s%s\n", o->filename, q->size,
			o->prealloc ? " preallocation=" : "", o->prealloc ? o->prealloc : "");
	} else {
		printf("Formatting '%s', fmt=qcow2 cluster_size=%" PRIu32 " extended_l2=off%s%s "
		       "compression_type=zlib size=%" PRIu64
		       "%s%s lazy_refcounts=%s refcount_bits=%" PRIu32 "\n",
			o->filename, q->cluster_size ? q->cluster_size : 65536,
			o->prealloc ? " preallocation=" : "", o->prealloc ? o->prealloc : "",
			q->size, o->compat ? " compat=" : "", o->compat ? o->compat : "",
			q->lazy_refcounts ? "on" : "off", q->refcount_bits ? q->refcount_bits : 16);
	}
	fflush(stdout);
}

static int write_image(void *arg)
{
	struct creation *c = arg;
	int err;

	if (!is_raw(c->o))
		return qcow2_create(c->file, &c->o->q, &c->why);
	if (c->file->is_block) /* what it is worth is its size */
		return file_size(c->file) >= c->o->q.size
			       ? 0
			       : why_set(&c->why, -ENOSPC, "The device is smaller than the image");
	err = file_truncate(c->file, round_up(c->o->q.size, SECTOR));
	return err ? err : file_fdatasync(c->file);
}

/* A new file is only there for sure when its directory is durable too. */
static int sync_directory(const char *filename)
{
	char *copy = strdup(filename);
	int fd, err = 0;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return errno == EACCES ? 0 : -errno; /* one may write where one may not list */
	if (fsync(fd) && errno != EINVAL)
		err = -errno;
	close(fd);
	return err;
}

static int create_image(const struct options *o)
{
	bool existed = access(o->filename, F_OK) == 0;
	struct creation c = {.o = o};
	struct loop *loop;
	int err;

	err = loop_new(LOOP_AIO_AUTO, &loop);
	if (err) {
		log_error("Could not start an event loop: %s", strerror(-err));
		return err;
	}
	err = file_open(loop, o->filename, FILE_RDWR | FILE_CREATE, &c.file, &c.why);
	if (err) {
		log_error("%s: Could not create '%s': %s", o->filename, o->filename,
			why_text(&c.why, err));
		goto free_loop;
	}
	err = fiber_run(loop, write_image, &c);
	file_close(c.file);
	if (!err)
		err = sync_directory(o->filename);
	if (err) {
		log_error("%s: %s", o->filename, why_text(&c.why, err));
		if (!existed)
			unlink(o->filename);
	}
free_loop:
	loop_free(loop);
	return err;
}

/* Options are collected first: what -o may hold depends on -f, wherever it stands. */
#define LISTS_MAX   32
#define PARSED_HELP (-1)

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {{"format", required_argument, NULL, 'f'},
		{"options", required_argument, NULL, 'o'}, {"quiet", no_argument, NULL, 'q'},
		{NULL, 0, NULL, 0}};
	const char *lists[LISTS_MAX];
	int c, n = 0;

	while ((c = getopt_long(argc, argv, "f:o:qub:F:", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->format = optarg;
			break;
		case 'o':
			if (n == LISTS_MAX)
				return img_usage(&img_create, "More than %d times -o", LISTS_MAX);
			lists[n++] = optarg;
			break;
		case 'q':
			o->quiet = true;
			break;
		case 'u': /* of the backing file, which we never open */
			break;
		case 'b':
		case 'F':
			return img_usage(&img_create, "-%c: backing files are not supported", c);
		default:
			return img_bad_option(&img_create, argv);
		}
	}
	if (!img_format_known(o->format)) {
		log_error("%s: Unknown file format '%s' (known: raw, qcow2)",
			optind < argc ? argv[optind] : "create", o->format);
		return 1;
	}
	for (int i = 0; i < n; i++)
		if (!strcmp(lists[i], "help") || !strcmp(lists[i], "?")) {
			print_opts_help(o);
			return PARSED_HELP;
		}
	if (optind >= argc)
		return img_usage(&img_create, "Expecting image file name");
	o->filename = argv[optind++];
	for (int i = 0; i < n; i++)
		if (set_list(o, lists[i]))
			return 1;
	if (optind < argc && size_argument(o, argv[optind++]))
		return 1;
	if (optind < argc)
		return img_usage(&img_create, "Unexpected argument: %s", argv[optind]);
	return 0;
}

static int create_main(int argc, char **argv)
{
	struct options o = {.format = "raw"};

	int err = parse(argc, argv, &o);

	if (err)
		return err == PARSED_HELP ? 0 : 1;
	if (check_options(&o))
		return 1;
	announce(&o);
	return create_image(&o) ? 1 : 0;
}

const struct img_cmd img_create = {
	.name = "create",
	.run = create_main,
	.summary = "makes a new image",
	.help = "[-f FMT] [-o OPTIONS] [-q] FILENAME SIZE\n"
		"\n"
		"  -f, --format FMT      raw (default) or qcow2\n"
		"  -o, --options LIST    name=value,... ; '-f qcow2 -o help' lists them\n"
		"  -q, --quiet           print nothing\n"
		"\n"
		"SIZE is in bytes, or with a suffix k, M, G, T, P, E (powers of 1024).\n"
		"\n"
		"  sluice img create -f qcow2 disk.qcow2 20G\n"
		"  sluice img create -f qcow2 -o cluster_size=2M,lazy_refcounts=on disk.qcow2 1T\n",
};
