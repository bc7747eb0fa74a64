/* SPDX-License-Identifier: MIT */
/*
 * bench.c - sluice img bench: how long many equal requests take on an image.
 *
 * A number of slots, each with one request in flight.  After every so many completions a flush: by
 * default nothing else is in flight meanwhile, with --no-drain the other slots go on.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/open.h"

struct options {
	struct img_source src;
	uint64_t count, depth, bytes, step, offset, flush_interval;
	int pattern;
	bool no_drain;
	enum loop_aio aio;
};

struct bench;

struct slot {
	struct blk_req r;
	struct iovec iov;
	struct bench *b;
};

struct bench {
	const struct options *o;
	struct disk *disk;
	struct slot *slots;
	unsigned n_slots;
	uint64_t offset, size;
	uint64_t submitted, completed;
	unsigned in_flight, flushes;
	bool flush_due, stopped;
	struct blk_req flush;
	int err;
};

static void start_slot(struct slot *s);

static void slots_go(struct bench *b)
{
	for (unsigned i = 0; i < b->n_slots; i++)
		if (!b->slots[i].r.done)
			start_slot(&b->slots[i]);
}

static void flush_done(struct blk_req *r, int err)
{
	struct bench *b = container_of(r, struct bench, flush);

	b->flushes--;
	if (err && !b->err)
		b->err = err;
	b->stopped = false;
	slots_go(b);
}

/* With --no-drain one that is still running serves for this one too. */
static void start_flush(struct bench *b)
{
	b->flush_due = false;
	if (b->flushes)
		return;
	b->flushes++;
	b->flush = (struct blk_req){.done = flush_done, .op = BLK_FLUSH};
	disk_submit(b->disk, &b->flush);
}

static void slot_done(struct blk_req *r, int err)
{
	struct slot *s = container_of(r, struct slot, r);
	struct bench *b = s->b;

	r->done = NULL;
	b->in_flight--;
	b->completed++;
	if (err && !b->err)
		b->err = err;
	if (b->o->flush_interval && b->completed % b->o->flush_interval == 0) {
		b->flush_due = true;
		b->stopped = !b->o->no_drain;
	}
	if (b->flush_due && (!b->stopped || !b->in_flight))
		start_flush(b);
	start_slot(s);
}

static void start_slot(struct slot *s)
{
	struct bench *b = s->b;

	if (b->stopped || b->err || b->submitted == b->o->count)
		return;
	s->r = (struct blk_req){.done = slot_done,
		.op = b->o->src.writable ? BLK_WRITE : BLK_READ,
		.iov = &s->iov,
		.niov = 1,
		.off = b->offset,
		.len = b->o->bytes};
	b->submitted++;
	b->in_flight++;
	b->offset += b->o->step;
	if (b->size <= b->o->bytes)
		b->offset = 0;
	else
		b->offset %= b->size - b->o->bytes;
	disk_submit(b->disk, &s->r);
}

static int run(struct bench *b, struct loop *l)
{
	int err = 0;

	slots_go(b);
	while (!err && (b->in_flight || b->flushes))
		err = loop_turn(l, true);
	err = err ? err : b->err;
	if (err) /* past the end of the disk is an error of the disk to qemu-img */
		log_error("Failed request: %s", strerror(err == -EINVAL ? EIO : -err));
	return err;
}

static int bench(const struct options *o, struct loop *l, struct disk *d)
{
	struct bench b = {.o = o, .disk = d, .offset = o->offset, .size = disk_size(d)};
	uint64_t start, took, bytes;
	uint8_t *buf = NULL;
	int err = -ENOMEM;

	b.n_slots = (unsigned)min_u64(o->depth, o->count ? o->count : 1);
	b.slots = calloc(b.n_slots, sizeof(*b.slots));
	if (b.slots && !__builtin_mul_overflow(o->bytes, b.n_slots, &bytes))
		buf = img_data_buf(bytes);
	if (!buf) {
		log_error("%s", strerror(ENOMEM));
		goto out;
	}
	if (o->src.writable)
		memset(buf, o->pattern, bytes);
	for (unsigned i = 0; i < b.n_slots; i++) {
		b.slots[i].b = &b;
		b.slots[i].iov = (struct iovec){buf + i * o->bytes, o->bytes};
	}
	printf("Sending %" PRIu64 " %s requests, %" PRIu64 " bytes each, %" PRIu64
	       " in parallel (starting at offset %" PRIu64 ", step size %" PRIu64 ")\n",
		o->count, o->src.writable ? "write" : "read", o->bytes, o->depth, o->offset,
		o->step);
	if (o->flush_interval)
		printf("Sending flush every %" PRIu64 " requests\n", o->flush_interval);
	fflush(stdout);
	start = loop_now_ns();
	err = run(&b, l);
	took = loop_now_ns() - start;
	if (!err)
		printf("Run completed in %3.3f seconds.\n", (double)took / 1e9);
out:
	free(buf);
	free(b.slots);
	return err;
}

/* ---- the command line ---- */

static int parse_count(const char *what, const char *text, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	if (errno || end == text || *end || *text == '-' || *out > max) {
		log_error("Invalid %s specified", what);
		return 1;
	}
	return 0;
}

static int parse_aio(const char *text, enum loop_aio *out)
{
	if (!strcmp(text, "threads"))
		*out = LOOP_AIO_THREADS;
	else if (!strcmp(text, "io_uring") || !strcmp(text, "native"))
		*out = LOOP_AIO_URING;
	else {
		log_error("Invalid aio option: %s", text);
		return 1;
	}
	return 0;
}

enum { OPT_FLUSH_INTERVAL = 256, OPT_PATTERN, OPT_NO_DRAIN, OPT_IMAGE_OPTS };

static const struct option longs[] = {
	{"flush-interval", required_argument, NULL, OPT_FLUSH_INTERVAL},
	{"pattern", required_argument, NULL, OPT_PATTERN},
	{"no-drain", no_argument, NULL, OPT_NO_DRAIN},
	{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
	{"force-share", no_argument, NULL, 'U'}, {NULL, 0, NULL, 0},
};

static int set_flag(struct options *o, int c, char **argv)
{
	uint64_t n;

	switch (c) {
	case 'n': /* kept for scripts: the ring is the native way */
	case 'q':
		return 0;
	case 'w':
		o->src.writable = true;
		return 0;
	case 'U':
		o->src.unlocked = true;
		return 0;
	case OPT_NO_DRAIN:
		o->no_drain = true;
		return 0;
	case OPT_IMAGE_OPTS:
		o->src.image_opts = true;
		return 0;
	case OPT_FLUSH_INTERVAL:
		return parse_count("flush interval", optarg, INT32_MAX, &o->flush_interval);
	case OPT_PATTERN:
		if (parse_count("pattern byte", optarg, 255, &n))
			return 1;
		o->pattern = (int)n;
		return 0;
	default:
		return img_opt_error(c, argv);
	}
}

static int set_option(struct options *o, int c, char **argv)
{
	switch (c) {
	case 'c':
		return parse_count("request count", optarg, INT32_MAX, &o->count);
	case 'd':
		return parse_count("queue depth", optarg, INT32_MAX, &o->depth);
	case 'f':
		o->src.format = optarg;
		return 0;
	case 'i':
		return parse_aio(optarg, &o->aio);
	case 'o':
		return img_parse_number("offset", optarg, 0, INT64_MAX, &o->offset) != 0;
	case 's':
		return img_parse_number("buffer size", optarg, 0, INT32_MAX, &o->bytes) != 0;
	case 'S':
		return img_parse_number("step_size", optarg, 0, INT32_MAX, &o->step) != 0;
	case 't':
		if (!cache_mode_parse(optarg, &o->src.cache))
			return 0;
		log_error("Invalid cache mode");
		return 1;
	default:
		return set_flag(o, c, argv);
	}
}

static int parse(int argc, char **argv, struct options *o)
{
	int c;

	while ((c = getopt_long(argc, argv, ":c:d:f:ni:o:qs:S:t:wU", longs, NULL)) != -1)
		if (set_option(o, c, argv))
			return 1;
	if (optind != argc - 1)
		return img_try_help("Expecting one image file name");
	o->src.name = argv[optind];
	if (o->flush_interval && !o->src.writable) {
		log_error("--flush-interval is only available in write tests");
		return 1;
	}
	if (o->flush_interval && o->flush_interval < o->depth) {
		log_error("Flush interval can't be smaller than depth");
		return 1;
	}
	if (!o->step)
		o->step = o->bytes;
	return 0;
}

static int bench_main(int argc, char **argv)
{
	struct options o = {.count = 75000, .depth = 64, .bytes = 4096, .aio = LOOP_AIO_AUTO};
	struct loop *loop;
	struct disk *d;
	int err;

	if (parse(argc, argv, &o) || img_loop_new(o.aio, &loop))
		return 1;
	err = img_disk_open(loop, &o.src, &d);
	if (!err) {
		int e;

		err = bench(&o, loop, d);
		e = img_disk_close(d);
		err = err ? err : e;
	}
	loop_free(loop);
	return err ? 1 : 0;
}

const struct img_cmd img_bench = {
	.name = "bench",
	.run = bench_main,
	.summary = "measures how long requests take on an image",
	.help = "[OPTIONS] FILENAME\n"
		"\n"
		"  -c COUNT                requests (default: 75000)\n"
		"  -d DEPTH                so many in flight (default: 64)\n"
		"  -s SIZE                 bytes of a request (default: 4096)\n"
		"  -o OFFSET, -S STEP      where the first one is, and how far to the next one\n"
		"                          (default: 0 and SIZE)\n"
		"  -w                      write, instead of read\n"
		"      --pattern BYTE      what is written (default: 0)\n"
		"      --flush-interval N  flush after every N writes\n"
		"      --no-drain          do not wait for the others before a flush\n"
		"  -f FMT, --image-opts    format of the image; FILENAME is driver=...\n"
		"  -t CACHE                cache mode (default: writeback)\n"
		"  -i AIO                  threads, native, io_uring (default: the best there is)\n"
		"  -n, -q                  accepted for scripts\n"
		"  -U, --force-share       take no lock\n"
		"\n"
		"  sluice img bench -c 10000 -d 1 -t none disk.qcow2\n"
		"  sluice img bench -w --pattern 7 --flush-interval 100 -d 10 disk.qcow2\n",
};
