/* SPDX-License-Identifier: MIT */
/*
 * measure.c - sluice img measure: how large a file a new image of some content needs.
 *
 * "Fully allocated" counts the data of the whole disk and all tables for it; "required" the data
 * that there is now, and the same tables.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/info.h"
#include "blockdev/img/open.h"
#include "blockdev/img/options.h"

struct options {
	struct img_source src;
	const char *out_format, *snapshot;
	char *list;
	uint64_t size;
	bool sized;
	enum img_output output;
};

struct need {
	uint64_t required, full, bitmaps;
	bool has_bitmaps;
};

/* What the new image's clusters look like. */
struct shape {
	uint64_t cluster, l2_entry;
	uint32_t refcount_bits;
};

/* Counts take clusters themselves, which are counted too: goes on until that adds nothing. */
static uint64_t refcount_bytes(const struct shape *s, uint64_t clusters)
{
	uint64_t per_block = s->cluster * 8 / s->refcount_bits, per_table = s->cluster / 8;
	uint64_t blocks = 0, tables = 0, before;

	do {
		before = blocks + tables;
		blocks = div_round_up(clusters + before, per_block);
		tables = div_round_up(blocks, per_table);
	} while (blocks + tables != before);
	return before * s->cluster;
}

static uint64_t tables_bytes(const struct shape *s, uint64_t size)
{
	uint64_t entries = round_up(size / s->cluster, s->cluster / s->l2_entry);
	uint64_t l2 = entries * s->l2_entry;
	uint64_t l1 = round_up(l2 / s->cluster * 8, s->cluster);
	uint64_t tables = s->cluster + l1 + l2;

	return tables + refcount_bytes(s, (tables + size) / s->cluster);
}

/* ---- the source ---- */

struct job {
	const struct options *o;
	struct disk *disk; /* NULL: a size was given */
	const struct shape *shape;
	uint64_t data; /* bytes of the new image's clusters that hold some */
};

/* In a fiber: the clusters of the new image in which the source has data. */
static int count_fiber(void *arg)
{
	struct job *j = arg;
	uint64_t size = disk_size(j->disk), off = 0, cluster = j->shape->cluster;

	while (off < size) {
		struct extent e;
		int err = disk_map(j->disk, off, size - off, &e);

		if (err) {
			log_error("Unable to get block status: %s", strerror(-err));
			return err;
		}
		if (e.kind == EXTENT_DATA) { /* on to the end of the cluster */
			uint64_t end = round_up(off + e.len, cluster);

			j->data += end - round_down(off, cluster);
			e.len = end - off;
		}
		off += e.len;
	}
	return 0;
}

/* The bitmaps that a copy of the source would carry on. */
static uint64_t bitmap_bytes(const struct disk *d, uint64_t cluster)
{
	uint64_t bytes = 0, directory = 0;
	struct disk_bitmap b;

	for (uint32_t i = 0; disk_bitmap_get(d, i, &b); i++) {
		uint64_t bits = div_round_up(disk_size(d), b.granularity);
		uint64_t clusters = div_round_up(div_round_up(bits, 8), cluster);

		bytes += clusters * cluster + round_up(clusters * 8, cluster);
		directory += round_up(24 + strlen(b.name), 8);
	}
	return bytes + round_up(directory, cluster);
}

/* ---- the result ---- */

static int measure_raw(struct job *j, struct need *n)
{
	n->full = j->disk ? disk_size(j->disk) : round_up(j->o->size, SECTOR);
	n->required = n->full;
	return 0;
}

static int measure_qcow2(struct loop *l, struct job *j, const struct qcow2_create_opts *q,
	struct need *n)
{
	struct shape s = {.cluster = q->cluster_size ? q->cluster_size : 64 * KiB,
		.l2_entry = q->extended_l2 ? 16 : 8,
		.refcount_bits = q->refcount_bits ? q->refcount_bits : 16};
	uint64_t size = round_up(q->size, s.cluster);
	int err = 0;

	j->shape = &s;
	if (j->disk && !q->backing_file)
		err = fiber_run(l, count_fiber, j);
	else if (j->disk) /* nothing is known of what the two have in common */
		j->data = size;
	if (q->prealloc == PREALLOC_FALLOC || q->prealloc == PREALLOC_FULL)
		j->data = size;
	n->full = size + tables_bytes(&s, size);
	n->required = n->full - size + j->data;
	n->has_bitmaps = j->disk && disk_has_bitmaps(j->disk) && q->version != 2;
	if (n->has_bitmaps)
		n->bitmaps = bitmap_bytes(j->disk, s.cluster);
	return err;
}

static void print_need(const struct options *o, const struct need *n)
{
	if (o->output == IMG_HUMAN) {
		printf("required size: %" PRIu64 "\nfully allocated size: %" PRIu64 "\n",
			n->required, n->full);
		if (n->has_bitmaps)
			printf("bitmaps size: %" PRIu64 "\n", n->bitmaps);
		return;
	}
	printf("{\n");
	if (n->has_bitmaps)
		printf("    \"bitmaps\": %" PRIu64 ",\n", n->bitmaps);
	printf("    \"required\": %" PRIu64 ",\n    \"fully-allocated\": %" PRIu64 "\n}\n",
		n->required, n->full);
}

static int measure_as(struct loop *l, struct job *j, struct img_opts *t, struct need *n)
{
	struct qcow2_create_opts q = {0};
	struct why why = {""};
	int err = img_opts_set_number(t, OPT_SIZE, j->disk ? disk_size(j->disk) : j->o->size);

	if (!err && strcmp(t->format, "qcow2") != 0)
		return measure_raw(j, n);
	if (!err)
		err = img_opts_defaults(t);
	if (!err)
		err = img_opts_qcow2(t, &q, &why);
	if (!err)
		err = qcow2_create_check(&q, &why);
	if (err == -EFBIG) {
		log_error("The image size is too large (try using a larger cluster size)");
		return err;
	}
	if (err) {
		img_say_why(NULL, &why, err);
		return err;
	}
	return measure_qcow2(l, j, &q, n);
}

static int measure(const struct options *o, struct loop *l, struct img_opts *t)
{
	struct job j = {.o = o};
	struct need n = {0};
	int err = 0;

	if (!o->sized)
		err = img_disk_open(l, &o->src, &j.disk);
	if (!err && j.disk && o->snapshot)
		err = img_load_snapshot(l, j.disk, o->snapshot);
	if (!err)
		err = measure_as(l, &j, t, &n);
	if (!err)
		print_need(o, &n);
	if (j.disk) {
		int e = img_disk_close(j.disk);

		err = err ? err : e;
	}
	return err;
}

/* ---- the command line ---- */

static int set_option(struct options *o, int c, char **argv)
{
	switch (c) {
	case 'f':
		o->src.format = optarg;
		return 0;
	case 'l':
		o->snapshot = optarg;
		return 0;
	case 'o':
		return img_opts_join(&o->list, optarg) != 0;
	case 'O':
		o->out_format = optarg;
		return 0;
	case 'U':
		o->src.unlocked = true;
		return 0;
	default:
		return img_opt_error(c, argv);
	}
}

static int check_words(const struct options *o, int n_names)
{
	const char *wrong = NULL;

	if (n_names > 1)
		wrong = "At most one filename argument is allowed.";
	else if (n_names == 1 && o->sized)
		wrong = "--size N cannot be used together with a filename.";
	else if (!n_names && (o->src.image_opts || o->src.format || o->snapshot))
		wrong = "--image-opts, -f, and -l require a filename argument.";
	else if (!n_names && !o->sized)
		wrong = "Either --size N or one filename must be specified.";
	if (wrong)
		log_error("%s", wrong);
	return wrong ? 1 : 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_OUTPUT = 256, OPT_IMAGE_OPTS, OPT_MEASURE_SIZE };
	static const struct option longs[] = {{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"output", required_argument, NULL, OPT_OUTPUT},
		{"size", required_argument, NULL, OPT_MEASURE_SIZE},
		{"force-share", no_argument, NULL, 'U'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, ":f:l:o:O:U", longs, NULL)) != -1) {
		if (c == OPT_OUTPUT) {
			if (img_parse_output(optarg, &o->output))
				return 1;
		} else if (c == OPT_IMAGE_OPTS) {
			o->src.image_opts = true;
		} else if (c == OPT_MEASURE_SIZE) {
			o->sized = true;
			if (img_parse_number("image size", optarg, 0, INT64_MAX, &o->size))
				return 1;
		} else if (set_option(o, c, argv)) {
			return 1;
		}
	}
	o->src.name = argv[optind];
	return check_words(o, argc - optind);
}

static int measure_parsed(const struct options *o)
{
	struct why why = {""};
	struct img_opts t;
	struct loop *loop;
	int err;

	if (!img_format_known(o->out_format)) {
		log_error("Unknown file format '%s'", o->out_format);
		return 1;
	}
	if (img_loop_new(LOOP_AIO_AUTO, &loop))
		return 1;
	img_opts_init(&t, o->out_format, false);
	err = img_opts_parse(&t, o->list, &why);
	if (err) {
		img_say_why(NULL, &why, err);
		log_error("Invalid options for file format '%s'", o->out_format);
	} else {
		err = measure(o, loop, &t);
	}
	img_opts_fini(&t);
	loop_free(loop);
	return err ? 1 : 0;
}

static int measure_main(int argc, char **argv)
{
	struct options o = {.out_format = "raw"};
	int status = parse(argc, argv, &o);

	if (!status)
		status = measure_parsed(&o);
	free(o.list);
	return status;
}

const struct img_cmd img_measure = {
	.name = "measure",
	.run = measure_main,
	.summary = "tells how large the file of a new image will be",
	.help = "[-O FMT] [-o LIST] [--output human|json] (--size SIZE | FILENAME)\n"
		"\n"
		"  -O FMT                  format of the new image (default: raw)\n"
		"  -o LIST                 its options, as for create\n"
		"      --size SIZE         of a new and empty disk\n"
		"  -f FMT, --image-opts    format of the source; FILENAME is driver=...\n"
		"  -l SNAPSHOT             measure an internal snapshot of the source\n"
		"      --output FORMAT     human or json\n"
		"  -U, --force-share       look at an image that a guest is using (take no lock)\n"
		"\n"
		"  sluice img measure -O qcow2 disk.raw\n"
		"  sluice img measure --size 100G -O qcow2 -o preallocation=full\n",
};
