/* SPDX-License-Identifier: MIT */
/*
 * map.c - sluice img map: which layer of an image holds what, and where in its file.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "blockdev/img/open.h"

struct options {
	struct img_source src;
	enum img_output output;
	uint64_t start, max;
};

struct job {
	const struct options *o;
	struct disk *disk;
};

/* Neighbours that say the same are one line. */
struct entry {
	uint64_t off, len;
	struct extent e;
	bool present;
};

static bool joins(const struct entry *a, const struct entry *b)
{
	return a->e.kind == b->e.kind && a->present == b->present && a->e.depth == b->e.depth &&
	       a->e.layer == b->e.layer && a->e.has_host_off == b->e.has_host_off &&
	       (!a->e.has_host_off || a->e.host_off + a->len == b->e.host_off);
}

static const char *yes(bool b)
{
	return b ? "true" : "false";
}

/* 0, or -EINVAL for what the human table has no words for. */
static int print_entry(const struct options *o, const struct entry *n, bool last)
{
	bool data = n->e.kind == EXTENT_DATA, zero = n->len && !data;

	if (o->output == IMG_HUMAN) {
		if (data && !n->e.has_host_off) {
			log_error("File contains external, encrypted or compressed clusters.");
			return -EINVAL;
		}
		if (data)
			printf("%#-16" PRIx64 "%#-16" PRIx64 "%#-16" PRIx64 "%s\n", n->off, n->len,
				n->e.host_off, disk_data_path(n->e.layer));
		return 0;
	}
	printf("{ \"start\": %" PRIu64 ", \"length\": %" PRIu64 ", \"depth\": %d, "
	       "\"present\": %s, \"zero\": %s, \"data\": %s",
		n->off, n->len, n->e.depth, yes(n->present), yes(zero), yes(data));
	if (n->e.has_host_off)
		printf(", \"offset\": %" PRIu64, n->e.host_off);
	printf("}%s\n", last ? "]" : ",");
	return 0;
}

static int run_map(void *arg)
{
	struct job *j = arg;
	const struct options *o = j->o;
	uint64_t size = disk_size(j->disk), off = o->start;
	uint64_t end = off < size ? off + min_u64(o->max, size - off) : off;
	struct entry cur = {.off = off}, next;

	if (o->output == IMG_HUMAN)
		printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
	else
		printf("[");
	while (off < end) {
		int err;

		next = (struct entry){.off = off};
		err = disk_map(j->disk, off, end - off, &next.e);
		if (err) {
			log_error("Failed to read image metadata: %s", strerror(-err));
			return err;
		}
		next.len = next.e.len;
		next.present = next.e.kind != EXTENT_HOLE;
		off += next.len;
		if (cur.len && joins(&cur, &next)) {
			cur.len += next.len;
			continue;
		}
		if (cur.len && (err = print_entry(o, &cur, false)) != 0)
			return err;
		cur = next;
	}
	return print_entry(o, &cur, true);
}

static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_OUTPUT = 256, OPT_IMAGE_OPTS };
	static const struct option longs[] = {{"format", required_argument, NULL, 'f'},
		{"output", required_argument, NULL, OPT_OUTPUT},
		{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"force-share", no_argument, NULL, 'U'},
		{"start-offset", required_argument, NULL, 's'},
		{"max-length", required_argument, NULL, 'l'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, ":f:s:l:U", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->src.format = optarg;
			break;
		case 'U':
			o->src.unlocked = true;
			break;
		case OPT_OUTPUT:
			if (img_parse_output(optarg, &o->output))
				return 1;
			break;
		case OPT_IMAGE_OPTS:
			o->src.image_opts = true;
			break;
		case 's':
			if (img_parse_number("start offset", optarg, 0, INT64_MAX, &o->start))
				return 1;
			break;
		case 'l':
			if (img_parse_number("max length", optarg, 0, INT64_MAX, &o->max))
				return 1;
			break;
		default:
			return img_opt_error(c, argv);
		}
	}
	if (optind != argc - 1)
		return img_try_help("Expecting one image file name");
	o->src.name = argv[optind];
	return 0;
}

static int map_main(int argc, char **argv)
{
	struct options o = {.max = INT64_MAX};
	struct job j = {.o = &o};
	struct loop *loop;
	int err;

	if (parse(argc, argv, &o) || img_loop_new(LOOP_AIO_AUTO, &loop))
		return 1;
	err = img_disk_open(loop, &o.src, &j.disk);
	if (!err) {
		int e;

		err = fiber_run(loop, run_map, &j);
		e = img_disk_close(j.disk);
		err = err ? err : e;
	}
	loop_free(loop);
	return err ? 1 : 0;
}

const struct img_cmd img_map = {
	.name = "map",
	.run = map_main,
	.summary = "tells which file of a chain holds what, and where",
	.help = "[-f FMT] [--image-opts] [-s START] [-l LENGTH] [--output human|json] [-U] "
		"FILENAME\n"
		"\n"
		"  -f, --format FMT        format of the image (default: by its first bytes)\n"
		"      --image-opts        FILENAME is driver=...,file.filename=...\n"
		"  -s, --start-offset N    from this byte of the disk on\n"
		"  -l, --max-length N      as many bytes\n"
		"      --output FORMAT     human (data only) or json (all)\n"
		"  -U, --force-share       look at an image that a guest is using (take no lock)\n"
		"\n"
		"  sluice img map disk.qcow2\n"
		"  sluice img map --output=json -s 1G -l 1M disk.qcow2\n",
};
