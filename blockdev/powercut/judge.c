/* SPDX-License-Identifier: MIT */
/*
 * judge.c - sluice powercut judge: did the host keep what the guest was told?
 *
 * The other commands take the guest's side for what a disk does.  This one looks at the host's:
 * each state that a cut may leave of the image file is opened, checked, and read by what the guest
 * had been promised by then (explorer.h).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/explorer.h"
#include "blockdev/powercut/recording.h"

static const char help[] =
	"Usage: sluice powercut judge LOG --image IMAGE [--states N] [--seed N]\n"
	"Judges the disk itself: is all that the guest was told is durable in every state that a\n"
	"power cut may leave of the image file?\n"
	"\n"
	"  --image IMAGE     the image file as it was when the log began; only read\n"
	"  --states N        about how many states to judge (10000)\n"
	"  --seed N          another choice of them (1)\n"
	"\n"
	"Exit status: 0 the promises are kept, 1 it could not be done, 2 a promise was broken.\n"
	"\n"
	"Example:\n"
	"  sluice powercut judge run.log --image before.qcow2 --states 100000\n";

#define TOLD_MAX   3
#define COPY_BYTES (256 * KiB)

struct judging {
	const char *image;
	uint64_t states, seed, failed;
	const struct recording *r;
	struct mem_image start, before;
	struct disk *d;
};

/* What had the sector been promised, and by which flush? */
static void tell_blame(const struct recording *r, uint64_t sector, uint64_t at)
{
	uint32_t write = SEARCH_NONE, flush = SEARCH_NONE;
	const struct guest_op *g = r->log.guest;
	char text[200];

	for (uint32_t i = 0; i < r->log.n_guest; i++) {
		bool done = g[i].acknowledged <= at && !g[i].err;

		if (done && g[i].kind == GUEST_WRITE && sector - g[i].sector < g[i].n)
			for (uint32_t k = i; k < r->log.n_guest; k++)
				if ((g[k].kind == GUEST_FLUSH || g[k].kind == GUEST_WCE_OFF) &&
					!g[k].err && g[k].submitted > g[i].acknowledged &&
					g[k].acknowledged <= at) {
					write = i;
					flush = k;
					break;
				}
	}
	if (write == SEARCH_NONE)
		return;
	recording_tell(r, write, text, sizeof(text));
	printf("  it was written by the %s\n", text);
	recording_tell(r, flush, text, sizeof(text));
	printf("  and promised by flush #%" PRIu64 ": %s\n", recording_flush_number(r, flush),
		text);
}

static void judged(struct explorer *e, bool ok)
{
	struct judging *j = e->arg;

	if (ok || j->failed++ >= TOLD_MAX)
		return;
	printf("after event %" PRIu64 ": %s\n", e->k.model.at, e->why);
	if (e->sector != UINT64_MAX)
		tell_blame(j->r, e->sector, e->k.model.at);
}

/* The file as it is. */
static int read_file(const char *path, struct mem_image *m)
{
	FILE *f = fopen(path, "re");
	uint8_t *buf = calloc(1, COPY_BYTES);
	uint64_t at = 0;
	size_t n = 0;
	int err = !f ? -errno : !buf ? -ENOMEM : 0;

	while (!err && (n = fread(buf, 1, COPY_BYTES, f)) > 0) {
		mem_set_size(m, at + n);
		for (size_t i = 0; i < n; i += MEM_PAGE) {
			static const uint8_t zeros[MEM_PAGE];
			size_t len = min_u64(MEM_PAGE, n - i);

			if (memcmp(buf + i, zeros, len))
				mem_write(m, buf + i, len, at + i, false);
		}
		at += n;
	}
	if (f && ferror(f))
		err = -EIO;
	if (f)
		fclose(f);
	free(buf);
	return err;
}

/* In a fiber: what the guest read in it. */
static int read_disk(void *arg)
{
	struct judging *j = arg;
	uint64_t size = disk_size(j->d), n;
	uint8_t *buf = malloc(COPY_BYTES);
	int err = buf ? 0 : -ENOMEM;

	mem_set_size(&j->before, size);
	for (uint64_t at = 0; at < size && !err; at += n) {
		struct extent x;

		n = min_u64(COPY_BYTES, size - at);
		err = disk_map(j->d, at, n, &x);
		if (err)
			break;
		n = x.len;
		if (x.kind != EXTENT_DATA)
			continue;
		err = disk_pread(j->d, buf, n, at);
		if (!err)
			mem_write(&j->before, buf, n, at, false);
	}
	free(buf);
	return err;
}

static int run(struct judging *j, struct loop *l, struct why *why)
{
	const char *format = j->r->trace->info.format;
	struct disk_opts o = {.path = j->image, .format = format, .readonly = true, .quiet = true};
	struct explorer_counts n = {0};
	struct subject s = {.log = &j->r->log,
		.start = &j->start,
		.before = &j->before,
		.format = format,
		.sectors = j->r->size / SECTOR,
		.either = true};
	struct explorer e;
	int err = disk_open(l, &o, &j->d, why);

	if (err)
		return err;
	s.cluster_size = disk_cluster_size(j->d);
	if (disk_backing(j->d))
		err = why_set(why, -ENOTSUP, "images with a backing file cannot be judged");
	if (!err)
		err = fiber_run(l, read_disk, j);
	disk_abandon(j->d);
	if (!err)
		err = read_file(j->image, &j->start);
	if (err)
		return err;
	explorer_init(&e, l, &s, j->seed, &n);
	e.judged = judged;
	e.arg = j;
	cuts_run(&e.k, j->states);
	explorer_fini(&e);
	printf("%" PRIu64 " states of %" PRIu64 " events judged: %" PRIu64 " break a promise\n",
		n.states, j->r->log.clock, j->failed);
	return 0;
}

static bool number(const char *text, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	return *text >= '0' && *text <= '9' && !*end && !errno;
}

/* 0; 1 with words printed; 2: help was asked for. */
static int parse(struct judging *j, const char **log, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *w = argv[i], *v = i + 1 < argc ? argv[i + 1] : "";
		bool states = !strcmp(w, "--states"), image = !strcmp(w, "--image");

		if (!strcmp(w, "--help") || !strcmp(w, "-h"))
			return 2;
		if (states || image || !strcmp(w, "--seed")) {
			i++;
			if (image)
				j->image = v;
			else if (!number(v, states ? &j->states : &j->seed)) {
				log_error("%s: '%s' is not a number", w, v);
				return 1;
			}
		} else if (*w == '-' || *log) {
			log_error(*w == '-' ? "unknown option '%s'" : "unexpected argument '%s'",
				w);
			return 1;
		} else {
			*log = w;
		}
	}
	if (*log && j->image && *j->image)
		return 0;
	log_error(*log ? "--image is missing: the image file as it was when the log began"
		       : "which log?");
	return 1;
}

int powercut_judge(int argc, char **argv)
{
	struct judging j = {.states = 10000, .seed = 1};
	const char *path = NULL;
	struct recording r = {0};
	struct loop *l = NULL;
	struct why why = {""}, inner = {""};
	int status = parse(&j, &path, argc, argv), err;

	if (status == 2)
		fputs(help, stdout);
	if (status)
		return status == 1;
	mem_init(&j.start);
	mem_init(&j.before);
	j.r = &r;
	err = recording_open(&r, path, &why);
	if (!err && !*r.trace->info.format)
		err = why_set(&why, -EINVAL, "%s: this log knows nothing of an image file", path);
	if (!err)
		err = loop_new(LOOP_AIO_AUTO, &l);
	if (!err)
		err = fiber_pool_init(l);
	if (!err) {
		err = run(&j, l, &inner);
		if (err)
			why_set(&why, err, "%s: %s", j.image, why_text(&inner, err));
	}
	if (err)
		log_error("%s", why_text(&why, err));
	if (l)
		loop_free(l);
	recording_close(&r);
	mem_fini(&j.start);
	mem_fini(&j.before);
	return err ? 1 : j.failed ? 2 : 0;
}
