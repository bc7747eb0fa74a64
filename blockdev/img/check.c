/* SPDX-License-Identifier: MIT */
/*
 * check.c - sluice img check.
 *
 * Exit status, as of qemu-img: 0 consistent, 1 the check could not be made, 2 damaged,
 * 3 leaked clusters but no other errors, 63 the format knows no check.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "blockdev/img/open.h"
#include "blockdev/name.h"
#include "blockdev/qcow2/format.h"

enum {
	STATUS_OK = 0,
	STATUS_FAILED = 1,
	STATUS_DAMAGED = 2,
	STATUS_LEAKS = 3,
	STATUS_NO_CHECK = 63
};

struct options {
	const char *filename, *format, *output_text;
	unsigned fix;
	bool quiet, unlocked, image_opts;
	enum cache_mode cache;
	enum img_output output;
};

struct job {
	struct file *file;
	unsigned fix;
	struct qcow2_check res;
	struct why why;
	char data_file[1024];
	bool has_data_file;
};

static int parse_repair(const char *text, unsigned *fix)
{
	if (!strcmp(text, "leaks"))
		*fix = QCOW2_FIX_LEAKS;
	else if (!strcmp(text, "all"))
		*fix = QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS;
	else
		return img_try_help(
			"Unknown option value for -r (expecting 'leaks' or 'all'): %s", text);
	return 0;
}

static int parse_cache(const char *text, enum cache_mode *out)
{
	if (!strcmp(text, "off"))
		text = "none";
	if (!cache_mode_parse(text, out))
		return 0;
	log_error("Invalid source cache option: %s", text);
	return 1;
}

enum { OPT_OUTPUT = 256, OPT_OBJECT, OPT_IMAGE_OPTS };

static int parse_one(int c, char **argv, struct options *o)
{
	switch (c) {
	case 'f':
		o->format = optarg;
		return 0;
	case 'r':
		return parse_repair(optarg, &o->fix);
	case 'T':
		return parse_cache(optarg, &o->cache);
	case OPT_OUTPUT:
		o->output_text = optarg;
		return 0;
	case OPT_OBJECT: /* a secret: what is encrypted is counted without it */
		return 0;
	case OPT_IMAGE_OPTS:
		o->image_opts = true;
		return 0;
	case 'q':
		o->quiet = true;
		return 0;
	case 'U':
		o->unlocked = true;
		return 0;
	default:
		return img_opt_error(c, argv);
	}
}

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option longs[] = {{"format", required_argument, NULL, 'f'},
		{"repair", required_argument, NULL, 'r'},
		{"output", required_argument, NULL, OPT_OUTPUT},
		{"object", required_argument, NULL, OPT_OBJECT},
		{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"quiet", no_argument, NULL, 'q'}, {"force-share", no_argument, NULL, 'U'},
		{NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, ":f:r:T:qU", longs, NULL)) != -1)
		if (parse_one(c, argv, o))
			return 1;
	if (optind != argc - 1)
		return img_try_help("Expecting one image file name");
	o->filename = argv[optind];
	if (o->output_text && img_parse_output(o->output_text, &o->output))
		return 1;
	if (o->image_opts && o->format) {
		log_error("--image-opts and --format are mutually exclusive");
		return 1;
	}
	return 0;
}

/* The value of key in "a=b,c=d", where ",," stands for a comma; NULL: none.  Free it. */
static char *option_value(const char *text, const char *key)
{
	size_t len = strlen(key), n = 0;
	char *value = strdup(text);

	while (value && *text) {
		bool this = !strncmp(text, key, len) && text[len] == '=';

		for (n = 0; *text && (*text != ',' || text[1] == ','); text++) {
			text += *text == ',';
			value[n++] = *text;
		}
		value[n] = 0;
		if (this) {
			memmove(value, value + len + 1, n - len);
			return value;
		}
		text += *text == ',';
	}
	free(value);
	return NULL;
}

/* The image, open; with whatever is said to find it. */
struct image {
	struct img_file f;
	struct file *data; /* an external data file, or NULL */
	bool raw;
};

static void print_finding(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static int run_check(void *arg)
{
	struct job *j = arg;

	return qcow2_check(j->file, j->fix, &j->res, &j->why);
}

static int check_once(struct image *im, struct job *j, unsigned fix)
{
	int err;

	j->file = im->f.file;
	j->fix = fix;
	j->res.report = print_finding;
	err = fiber_run(im->f.loop, run_check, j);
	if (err)
		log_error("Check failed: %s", why_text(&j->why, err));
	return err;
}

static void print_human(const struct qcow2_check *r)
{
	if (!r->corruptions && !r->leaks && !r->check_errors)
		printf("No errors were found on the image.\n");
	if (r->corruptions)
		printf("\n%" PRIu64 " errors were found on the image.\n"
		       "Data may be corrupted, or further writes to the image may corrupt it.\n",
			r->corruptions);
	if (r->leaks)
		printf("\n%" PRIu64 " leaked clusters were found on the image.\n"
		       "This means waste of disk space, but no harm to data.\n",
			r->leaks);
	if (r->check_errors)
		printf("\n%" PRIu64 " internal errors have occurred during the check.\n",
			r->check_errors);
	if (r->total_clusters && r->allocated_clusters)
		printf("%" PRIu64 "/%" PRIu64 " = %0.2f%% allocated, %0.2f%% fragmented, "
		       "%0.2f%% compressed clusters\n",
			r->allocated_clusters, r->total_clusters,
			(double)r->allocated_clusters * 100 / (double)r->total_clusters,
			(double)r->fragmented_clusters * 100 / (double)r->allocated_clusters,
			(double)r->compressed_clusters * 100 / (double)r->allocated_clusters);
	if (r->image_end_offset)
		printf("Image end offset: %" PRIu64 "\n", r->image_end_offset);
}

static void add_nonzero(json_t *o, const char *key, uint64_t v)
{
	if (v)
		json_object_set_new(o, key, json_integer((json_int_t)v));
}

static void print_json(const char *filename, const struct qcow2_check *r)
{
	json_t *o;

	img_json_start();
	o = json_object();
	/* In qemu-img's order, which scripts that compare text have come to rely on. */
	add_nonzero(o, "image-end-offset", r->image_end_offset);
	add_nonzero(o, "compressed-clusters", r->compressed_clusters);
	add_nonzero(o, "total-clusters", r->total_clusters);
	add_nonzero(o, "corruptions", r->corruptions);
	add_nonzero(o, "corruptions-fixed", r->corruptions_fixed);
	json_object_set_new(o, "check-errors", json_integer((json_int_t)r->check_errors));
	add_nonzero(o, "leaks", r->leaks);
	add_nonzero(o, "leaks-fixed", r->leaks_fixed);
	add_nonzero(o, "allocated-clusters", r->allocated_clusters);
	json_object_set_new(o, "filename", json_string(filename));
	json_object_set_new(o, "format", json_string("qcow2"));
	add_nonzero(o, "fragmented-clusters", r->fragmented_clusters);
	json_dumpf(o, stdout, JSON_INDENT(4));
	printf("\n");
	json_decref(o);
}

static int check_image(struct image *im, const struct options *o)
{
	bool human = o->output == IMG_HUMAN && !o->quiet;
	struct job j = {0};
	uint64_t leaks, corruptions;

	if (check_once(im, &j, o->fix))
		return STATUS_FAILED;
	leaks = j.res.leaks_fixed;
	corruptions = j.res.corruptions_fixed;
	if (leaks || corruptions) {
		if (human)
			printf("The following inconsistencies were found and repaired:\n\n"
			       "    %" PRIu64 " leaked clusters\n    %" PRIu64 " corruptions\n\n"
			       "Double checking the fixed image now...\n",
				leaks, corruptions);
		if (check_once(im, &j, 0))
			return STATUS_FAILED;
		j.res.leaks_fixed = leaks;
		j.res.corruptions_fixed = corruptions;
	}
	if (human)
		print_human(&j.res);
	else if (!o->quiet)
		print_json(o->filename, &j.res);
	if (j.res.check_errors) {
		log_error("Check failed");
		return STATUS_FAILED;
	}
	return j.res.corruptions ? STATUS_DAMAGED : j.res.leaks ? STATUS_LEAKS : STATUS_OK;
}

static int look(void *arg)
{
	struct job *j = arg;
	struct qcow2_header h;
	int err = qcow2_header_read_to_check(j->file, &h, &j->why);

	if (!err && h.unknown_features[0])
		err = why_set(&j->why, -ENOTSUP, "Unsupported qcow2 feature(s): %s",
			h.unknown_features);
	j->has_data_file = !err && (h.incompatible & QCOW2_INCOMPAT_DATA_FILE);
	if (j->has_data_file)
		snprintf(j->data_file, sizeof(j->data_file), "%s", h.data_file);
	if (!err)
		qcow2_header_warn(&h);
	return err ? err : qcow2_bitmaps_describe(j->file, &h, NULL, NULL, &j->why);
}

/* Nothing of it is checked, but without it there is no image. */
static int open_data(struct image *im, const struct options *o, const char *name)
{
	char *given = o->image_opts ? option_value(o->filename, "data-file.filename") : NULL;
	char *path = NULL;
	struct disk_opts how = {.cache = o->cache, .readonly = !o->fix, .nolock = o->unlocked};
	struct why why = {""}, inner = {""};
	int err;

	if (given)
		name = given;
	if (!name[0]) {
		err = why_set(&why, -EINVAL, "'data-file' is required for this image");
	} else {
		err = name_open_data(im->f.loop, &how, name, &im->data, &path, &inner);
		if (err && inner.text[0])
			why = inner;
		else if (err)
			why_set(&why, err, "Could not open '%s': %s", name, strerror(-err));
	}
	free(path);
	free(given);
	if (err)
		img_say_open(o->filename, &why, err);
	return err;
}

static int look_at_header(struct image *im, const struct options *o)
{
	struct job j = {.file = im->f.file};
	int err = fiber_run(im->f.loop, look, &j);

	if (err) {
		img_say_open(o->filename, &j.why, err);
		return err;
	}
	return j.has_data_file ? open_data(im, o, j.data_file) : 0;
}

static int image_open(struct image *im, const struct options *o)
{
	bool direct = o->cache == CACHE_NONE || o->cache == CACHE_DIRECTSYNC;
	unsigned flags = (o->fix ? FILE_RDWR : FILE_RDONLY) | (o->unlocked ? FILE_NOLOCK : 0) |
			 (direct ? FILE_DIRECT : 0);

	if (o->unlocked && o->fix) {
		log_error("Could not open '%s': force-share=on can only be used with read-only "
			  "images",
			o->filename);
		return -EINVAL;
	}
	if (img_open(&im->f, o->filename, o->image_opts, o->format, flags))
		return -EIO;
	im->raw = !strcmp(im->f.format, "raw");
	return im->raw ? 0 : look_at_header(im, o);
}

static void image_close(struct image *im)
{
	if (im->data)
		file_close(im->data);
	img_close(&im->f);
}

static int check_main(int argc, char **argv)
{
	struct options o = {0};
	struct image im = {0};
	int status = STATUS_FAILED;

	if (parse(argc, argv, &o))
		return STATUS_FAILED;
	if (!image_open(&im, &o)) {
		status = im.raw ? STATUS_NO_CHECK : check_image(&im, &o);
		if (im.raw)
			log_error("This image format does not support checks");
	}
	image_close(&im);
	return status;
}

const struct img_cmd img_check = {
	.name = "check",
	.run = check_main,
	.summary = "looks for inconsistencies in an image, and repairs them",
	.help = "[-f FMT | --image-opts] [-r leaks|all] [--output human|json] [-q] [-T MODE] [-U]\n"
		"       FILENAME\n"
		"\n"
		"  -f, --format FMT      format of the image (default: by its first bytes)\n"
		"      --image-opts      FILENAME is driver=FMT,file.filename=NAME\n"
		"  -r, --repair WHAT     leaks: give leaked clusters back; all: errors too\n"
		"      --output FORMAT   human or json\n"
		"  -q, --quiet           print findings only\n"
		"  -T MODE               cache mode for reading: none reads around the page cache\n"
		"  -U, --force-share     check an image that a guest is using (take no lock)\n"
		"\n"
		"Exit status: 0 consistent, 1 no check was possible, 2 damaged,\n"
		"3 leaked clusters only, 63 the format knows no check (raw).\n"
		"\n"
		"  sluice img check disk.qcow2\n"
		"  sluice img check -r all disk.qcow2\n",
};
