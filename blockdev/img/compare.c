/* SPDX-License-Identifier: MIT */
/*
 * compare.c - sluice img compare: do two images hold the same?
 *
 * What both maps call zeros is not read.  Both images are read at once.  Exit status, as of
 * qemu-img: 0 the same, 1 different or wrong words on the command line, 2 the images could not be
 * opened, 3 a map could not be read, 4 data could not be read.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/open.h"
#include "blockdev/img/progress.h"

#define CHUNK (2 * MiB)

enum { SAME, DIFFERENT, STATUS_OPEN, STATUS_MAP, STATUS_READ };

struct options {
	struct img_source src[2];
	bool strict, progress, quiet;
};

struct job {
	const struct options *o;
	struct disk *disk[2];
	uint8_t *buf[2];
	struct progress progress;
	uint64_t done, total; /* of the progress */
};

/* Two reads in flight, waited for together. */
struct pair {
	struct pair_read {
		struct blk_req r;
		struct iovec iov;
		struct pair *pair;
		int err;
	} read[2];
	struct fiber *waiter;
	unsigned in_flight;
};

static void said(const struct options *o, const char *fmt, uint64_t off)
{
	if (!o->quiet)
		printf(fmt, off);
}

static int read_failed(const struct job *j, int i, uint64_t off, int err)
{
	log_error("Error while reading offset %" PRIu64 " of %s: %s", off, j->o->src[i].name,
		strerror(-err));
	return STATUS_READ;
}

static void read_done(struct blk_req *r, int err)
{
	struct pair_read *p = container_of(r, struct pair_read, r);

	p->err = err;
	if (--p->pair->in_flight == 0)
		fiber_wake(p->pair->waiter);
}

static int read_both(struct job *j, uint64_t off, uint64_t len)
{
	struct pair p = {.waiter = fiber_self(), .in_flight = 2};

	for (int i = 0; i < 2; i++) {
		struct pair_read *pr = &p.read[i];

		pr->pair = &p;
		pr->iov = (struct iovec){j->buf[i], len};
		pr->r = (struct blk_req){.done = read_done,
			.op = BLK_READ,
			.iov = &pr->iov,
			.niov = 1,
			.off = off,
			.len = len};
		disk_submit(j->disk[i], &pr->r);
	}
	fiber_suspend();
	for (int i = 0; i < 2; i++)
		if (p.read[i].err)
			return read_failed(j, i, off, p.read[i].err);
	return SAME;
}

/* Where the first sector lies that differs; len: none does. */
static uint64_t first_difference(const uint8_t *a, const uint8_t *b, uint64_t len)
{
	uint64_t at = 0, n;

	if (!memcmp(a, b, len))
		return len;
	for (; at < len; at += n) {
		n = min_u64(SECTOR, len - at);
		if (memcmp(a + at, b + at, n) != 0)
			break;
	}
	return at;
}

static uint64_t first_nonzero(const uint8_t *a, uint64_t len)
{
	uint64_t at = 0, n;

	if (mem_is_zero(a, len))
		return len;
	for (; at < len; at += n) {
		n = min_u64(SECTOR, len - at);
		if (!mem_is_zero(a + at, n))
			break;
	}
	return at;
}

static void advance(struct job *j, uint64_t len)
{
	j->done += len;
	progress_set(&j->progress, j->done, j->total);
}

static int mismatch(const struct job *j, uint64_t off)
{
	said(j->o, "Content mismatch at offset %" PRIu64 "!\n", off);
	return DIFFERENT;
}

/* Is the range of one image, which holds data, all zeros? */
static int compare_zeros(struct job *j, int i, uint64_t off, uint64_t len)
{
	while (len) {
		uint64_t n = min_u64(len, CHUNK), at;
		int err = disk_pread(j->disk[i], j->buf[i], n, off);

		if (err)
			return read_failed(j, i, off, err);
		at = first_nonzero(j->buf[i], n);
		if (at < n)
			return mismatch(j, off + at);
		advance(j, n);
		off += n;
		len -= n;
	}
	return SAME;
}

static int compare_data(struct job *j, uint64_t off, uint64_t len)
{
	while (len) {
		uint64_t n = min_u64(len, CHUNK), at;
		int status = read_both(j, off, n);

		if (status)
			return status;
		at = first_difference(j->buf[0], j->buf[1], n);
		if (at < n)
			return mismatch(j, off + at);
		advance(j, n);
		off += n;
		len -= n;
	}
	return SAME;
}

static int map_failed(const struct job *j, int i)
{
	log_error("Sector allocation test failed for %s", j->o->src[i].name);
	return STATUS_MAP;
}

/* To a strict eye; whether an extent goes on to the end of the disk counts too, as in qemu-img. */
static bool alike(const struct extent *a, const struct extent *b, uint64_t rest)
{
	return a->kind == b->kind && a->has_host_off == b->has_host_off &&
	       (a->len == rest) == (b->len == rest);
}

static int compare_common(struct job *j, uint64_t size)
{
	uint64_t off = 0;
	int status = SAME;

	while (off < size && !status) {
		struct extent e[2] = {{.len = 0}, {.len = 0}};
		bool data[2];
		uint64_t len;

		for (int i = 0; i < 2; i++) {
			if (disk_map(j->disk[i], off, size - off, &e[i]))
				return map_failed(j, i);
			data[i] = e[i].kind == EXTENT_DATA;
		}
		len = min_u64(e[0].len, e[1].len);
		if (j->o->strict && !alike(&e[0], &e[1], size - off)) {
			said(j->o, "Strict mode: Offset %" PRIu64 " block status mismatch!\n", off);
			return DIFFERENT;
		}
		if (data[0] && data[1])
			status = compare_data(j, off, len);
		else if (data[0] || data[1])
			status = compare_zeros(j, data[0] ? 0 : 1, off, len);
		else
			advance(j, len);
		off += len;
	}
	return status;
}

/* What the larger image has more must be zeros. */
static int compare_rest(struct job *j, int i, uint64_t off)
{
	uint64_t size = disk_size(j->disk[i]);
	int status = SAME;

	while (off < size && !status) {
		struct extent e;

		if (disk_map(j->disk[i], off, size - off, &e))
			return map_failed(j, i);
		if (e.kind == EXTENT_DATA)
			status = compare_zeros(j, i, off, e.len);
		else
			advance(j, e.len);
		off += e.len;
	}
	return status;
}

static int run_compare(void *arg)
{
	struct job *j = arg;
	uint64_t a = disk_size(j->disk[0]), b = disk_size(j->disk[1]);
	int status;

	j->total = max_u64(a, b);
	progress_set(&j->progress, 0, j->total ? j->total : 1);
	if (j->o->strict && a != b) {
		said(j->o, "Strict mode: Image size mismatch!\n", 0);
		return DIFFERENT;
	}
	status = compare_common(j, min_u64(a, b));
	if (!status && a != b) {
		said(j->o, "Warning: Image size mismatch!\n", 0);
		status = compare_rest(j, a > b ? 0 : 1, min_u64(a, b));
	}
	if (!status)
		said(j->o, "Images are identical.\n", 0);
	return status;
}

static int compare_opened(struct loop *l, struct job *j)
{
	int status = STATUS_READ;

	for (int i = 0; i < 2; i++)
		j->buf[i] = img_data_buf(CHUNK);
	if (j->buf[0] && j->buf[1])
		status = fiber_run(l, run_compare, j);
	else
		log_error("%s", strerror(ENOMEM));
	for (int i = 0; i < 2; i++)
		free(j->buf[i]);
	return status;
}

static int source_cache(const char *name, struct options *o)
{
	enum cache_mode m;

	if (cache_mode_parse(name, &m)) {
		log_error("Invalid source cache option: %s", name);
		return STATUS_OPEN;
	}
	o->src[0].cache = o->src[1].cache = m;
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_IMAGE_OPTS = 256 };
	static const struct option longs[] = {{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"force-share", no_argument, NULL, 'U'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, ":f:F:T:pqsU", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->src[0].format = optarg;
			break;
		case 'F':
			o->src[1].format = optarg;
			break;
		case 'T':
			if (source_cache(optarg, o))
				return STATUS_OPEN;
			break;
		case 'p':
			o->progress = true;
			break;
		case 'q':
			o->quiet = true;
			break;
		case 's':
			o->strict = true;
			break;
		case 'U':
			o->src[0].unlocked = o->src[1].unlocked = true;
			break;
		case OPT_IMAGE_OPTS:
			o->src[0].image_opts = o->src[1].image_opts = true;
			break;
		default:
			return img_opt_error(c, argv);
		}
	}
	if (optind != argc - 2)
		return img_try_help("Expecting two image file names");
	o->src[0].name = argv[optind];
	o->src[1].name = argv[optind + 1];
	return 0;
}

static int compare_main(int argc, char **argv)
{
	struct options o = {.strict = false};
	struct job j = {.o = &o};
	struct loop *loop;
	int status, opened = 0;

	status = parse(argc, argv, &o);
	if (status)
		return status;
	if (img_loop_new(LOOP_AIO_THREADS, &loop))
		return STATUS_OPEN;
	status = STATUS_OPEN;
	progress_start(&j.progress, o.progress, o.quiet);
	while (opened < 2 && !img_disk_open(loop, &o.src[opened], &j.disk[opened]))
		opened++;
	if (opened == 2)
		status = compare_opened(loop, &j);
	progress_end(&j.progress);
	while (opened > 0)
		if (img_disk_close(j.disk[--opened]) && status == SAME)
			status = STATUS_READ;
	loop_free(loop);
	return status;
}

const struct img_cmd img_compare = {
	.name = "compare",
	.run = compare_main,
	.summary = "tells whether two images hold the same",
	.help = "[-f FMT] [-F FMT] [--image-opts] [-T CACHE] [-p] [-q] [-s] [-U] FILE1 FILE2\n"
		"\n"
		"  -f FMT, -F FMT          formats of the two (default: by their first bytes)\n"
		"      --image-opts        the names are driver=...,file.filename=...\n"
		"  -T CACHE                cache mode for reading (default: writeback)\n"
		"  -p                      print how far it is\n"
		"  -q                      print nothing but errors\n"
		"  -s                      strict: sizes and allocation must be the same too\n"
		"  -U, --force-share       look at images that a guest is using (take no lock)\n"
		"\n"
		"Exit status: 0 the same, 1 different, 2 not opened, 3 a map or 4 data not read.\n"
		"\n"
		"  sluice img compare disk.qcow2 disk.raw\n"
		"  sluice img compare -s -f qcow2 -F qcow2 disk.qcow2 copy.qcow2\n",
};
