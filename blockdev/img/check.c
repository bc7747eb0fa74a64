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
#include "blockdev/img/cmd.h"
#include "blockdev/qcow2/format.h"

enum {
	STATUS_OK = 0,
	STATUS_FAILED = 1,
	STATUS_DAMAGED = 2,
	STATUS_LEAKS = 3,
	STATUS_NO_CHECK = 63
};

struct options {
	const char *filename, *format;
	unsigned fix;
	bool quiet, unlocked;
	enum img_output output;
};

struct job {
	struct file *file;
	unsigned fix;
	struct qcow2_check res;
	struct why why;
};

static int parse_repair(const char *text, unsigned *fix)
{
	if (!strcmp(text, "leaks"))
		*fix = QCOW2_FIX_LEAKS;
	else if (!strcmp(text, "all"))
		*fix = QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS;
	else
		return img_usage(&img_check,
			"Unknown option value for -r (expecting 'leaks' or 'all'): %s", text);
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_OUTPUT = 256 };
	static const struct option longs[] = {{"format", required_argument, NULL, 'f'},
		{"repair", required_argument, NULL, 'r'},
		{"output", required_argument, NULL, OPT_OUTPUT}, {"quiet", no_argument, NULL, 'q'},
		{"force-share", no_argument, NULL, 'U'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "f:r:qU", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->format = optarg;
			break;
		case 'r':
			if (parse_repair(optarg, &o->fix))
				return 1;
			break;
		case OPT_OUTPUT:
			if (img_parse_output(optarg, &o->output))
				return 1;
			break;
		case 'q':
			o->quiet = true;
			break;
		case 'U':
			o->unlocked = true;
			break;
		default:
			return img_bad_option(&img_check, argv);
		}
	}
	if (optind != argc - 1)
		return img_usage(&img_check, "Expecting one image file name");
	o->filename = argv[optind];
	if (o->unlocked && o->fix)
		return img_usage(&img_check, "-U cannot be used with -r: repairing needs the lock");
	return 0;
}

static void print_finding(void *arg, const char *line)
{
	fprintf(stderr, "%s\n", line);
}

static int run_check(void *arg)
{
	struct job *j = arg;

	return qcow2_check(j->file, j->fix, &j->res, &j->why);
}

static int check_once(struct img_file *im, struct job *j, unsigned fix)
{
	int err;

	j->file = im->file;
	j->fix = fix;
	j->res.report = print_finding;
	err = fiber_run(im->loop, run_check, j);
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

static int check_image(struct img_file *im, const struct options *o)
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

static int check_main(int argc, char **argv)
{
	struct options o = {0};
	struct img_file im;
	int status;

	if (parse(argc, argv, &o))
		return 1;
	if (img_open(&im, o.filename, o.format,
		    (o.fix ? FILE_RDWR : FILE_RDONLY) | (o.unlocked ? FILE_NOLOCK : 0)))
		return STATUS_FAILED;
	if (!strcmp(im.format, "raw")) {
		log_error("This image format does not support checks");
		status = STATUS_NO_CHECK;
	} else {
		status = check_image(&im, &o);
	}
	img_close(&im);
	return status;
}

const struct img_cmd img_check = {
	.name = "check",
	.run = check_main,
	.summary = "looks for inconsistencies in an image, and repairs them",
	.help = "[-f FMT] [-r leaks|all] [--output human|json] [-q] [-U] FILENAME\n"
		"\n"
		"  -f, --format FMT      format of the image (default: by its first bytes)\n"
		"  -r, --repair WHAT     leaks: give leaked clusters back; all: errors too\n"
		"      --output FORMAT   human or json\n"
		"  -q, --quiet           print findings only\n"
		"  -U, --force-share     check an image that a guest is using (take no lock)\n"
		"\n"
		"Exit status: 0 consistent, 1 no check was possible, 2 damaged,\n"
		"3 leaked clusters only, 63 the format knows no check (raw).\n"
		"\n"
		"  sluice img check disk.qcow2\n"
		"  sluice img check -r all disk.qcow2\n",
};
