/* SPDX-License-Identifier: MIT */
/*
 * verify.c - sluice powercut verify: may a power cut at the end of a log have left this image?
 *
 * For an image that came from somewhere else: from sluice run with powercut=, from a machine whose
 * plug was pulled.  Every sector that the guest wrote is read and put to the oracle.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/guest_disk.h"
#include "blockdev/crash/oracle.h"
#include "blockdev/powercut/recording.h"

static const char help[] =
	"Usage: sluice powercut verify LOG IMAGE [OPTION]...\n"
	"Says whether IMAGE is what a power cut at the end of the log may have left: whether it\n"
	"holds all that the guest had been told is durable, and else nothing but what the guest\n"
	"wrote since. How whole the image is otherwise, sluice img check says.\n"
	"\n"
	"  -f raw|qcow2      what IMAGE is; default: as the log says\n"
	"  --image BEFORE    the image as it was when the log began; only read\n"
	"  --image-format F  raw or qcow2; default: probed\n"
	"\n"
	"Exit status: 0 it is, 1 it could not be found out, 2 it is not.\n"
	"\n"
	"Example:\n"
	"  sluice powercut verify run.log disk.qcow2 --image before.qcow2\n";

#define READ_SECTORS 2048
#define TOLD_MAX     10 /* sectors that are named */

struct verify {
	struct judge_args a;
	const char *left, *format; /* the image in question */
	struct oracle oracle;
	struct mem_image before;
	struct disk *d;
	uint64_t sectors, n[GARBAGE + 1]; /* by verdict */
};

static void judge_run(struct verify *v, uint64_t at, const uint8_t *buf, uint64_t n)
{
	for (uint64_t i = 0; i < n; i++) {
		enum verdict is = oracle_judge(&v->oracle, at + i, buf + i * SECTOR);

		v->n[is]++;
		v->sectors++;
		if (is != LEGAL && v->sectors - v->n[LEGAL] <= TOLD_MAX)
			printf("sector %" PRIu64 ": %s\n", at + i, verdict_name(is));
	}
}

/* In a fiber. */
static int read_all(void *arg)
{
	struct verify *v = arg;
	uint8_t *buf = file_buf(READ_SECTORS * SECTOR);
	uint64_t at = 0, n, size = disk_size(v->d) / SECTOR;
	int err = buf ? 0 : -ENOMEM;

	while (!err && oracle_next_run(&v->oracle, &at, &n)) {
		n = min_u64(n, READ_SECTORS);
		if (!range_within(at, n, size))
			err = -ERANGE;
		else
			err = disk_pread(v->d, buf, n * SECTOR, at * SECTOR);
		if (!err)
			judge_run(v, at, buf, n);
		at += n;
	}
	free(buf);
	return err;
}

/* What the sectors that were written held when the log began. */
static void read_before(struct verify *v, const struct guest_disk *g)
{
	uint8_t sector[SECTOR];

	for (uint64_t i = 0; i < g->n_runs; i++)
		for (uint64_t k = 0; k < g->run[i].n; k++) {
			mem_read(&g->start, sector, SECTOR, (g->run[i].at + k) * SECTOR);
			mem_write(&v->before, sector, SECTOR, (g->run[i].sector + k) * SECTOR,
				true);
		}
}

static int verify(struct verify *v, const struct recording *r, struct why *why)
{
	struct disk_opts o = {.path = v->left, .readonly = true, .quiet = true};
	struct guest_disk g;
	struct why inner = {""};
	int err = guest_disk_open(v->a.loop, &g, &r->log, v->a.image, v->a.image_format, why);

	if (err)
		return err;
	read_before(v, &g);
	guest_disk_fini(&g);
	err = oracle_init(&v->oracle, &r->log, r->size / SECTOR);
	if (!err)
		err = oracle_contents(&v->oracle, &v->before);
	if (err)
		return err;
	v->oracle.either = true;
	oracle_at(&v->oracle, r->log.clock);
	o.format = v->format ? v->format : r->trace->info.format;
	err = disk_open(v->a.loop, &o, &v->d, &inner);
	if (!err) {
		err = fiber_run(v->a.loop, read_all, v);
		disk_abandon(v->d);
	}
	return err ? why_set(why, err, "%s: %s", v->left, why_text(&inner, err)) : 0;
}

static int take(struct verify *v, int c, char **argv)
{
	if (c == 'f')
		v->format = optarg;
	else if (c == 1)
		v->a.image = optarg;
	else if (c == 2)
		v->a.image_format = optarg;
	else
		log_error(c == ':' ? "'%s' needs a value" : "unknown option '%s'",
			argv[optind - 1]);
	return c == ':' || c == '?';
}

/* 0; 1 with words printed; 2: help was asked for. */
static int parse(struct verify *v, int argc, char **argv)
{
	static const struct option options[] = {{"image", 1, NULL, 1}, {"image-format", 1, NULL, 2},
		{"help", 0, NULL, 3}, {NULL, 0, NULL, 0}};
	int c, bad = 0;

	optind = 0;
	while (!bad && (c = getopt_long(argc, argv, ":f:", options, NULL)) != -1) {
		if (c == 3)
			return 2;
		bad = take(v, c, argv);
	}
	if (bad)
		return bad;
	if (argc - optind != 2) {
		log_error("expected a log and an image");
		return 1;
	}
	v->a.log = argv[optind];
	v->left = argv[optind + 1];
	return 0;
}

static int run(struct verify *v, struct recording *r, struct why *why)
{
	int err = recording_open(r, v->a.log, TRACE_LOG_DATA, false, why);

	if (!err)
		err = loop_new(LOOP_AIO_AUTO, &v->a.loop);
	if (!err)
		err = fiber_pool_init(v->a.loop);
	if (!err)
		err = judge_args_start(&v->a, r, why);
	return err ? err : verify(v, r, why);
}

int powercut_verify(int argc, char **argv)
{
	struct recording r = {0};
	struct verify v = {0};
	struct why why = {""};
	uint64_t bad;
	int err, status = parse(&v, argc, argv);

	if (status == 2)
		fputs(help, stdout);
	if (status)
		return status == 1;
	mem_init(&v.before);
	err = run(&v, &r, &why);
	bad = v.sectors - v.n[LEGAL];
	if (err)
		log_error("%s", why_text(&why, err));
	else
		printf("%s: %" PRIu64 " sectors were written, %" PRIu64 " break a promise\n",
			v.left, v.sectors, bad);
	oracle_fini(&v.oracle);
	mem_fini(&v.before);
	judge_args_over(&v.a, &r);
	return err ? 1 : bad ? 2 : 0;
}
