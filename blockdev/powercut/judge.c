/* SPDX-License-Identifier: MIT */
/*
 * judge.c - sluice powercut judge: did the host keep what the guest was told?
 *
 * The other commands take the guest's side for what a disk does.  This one looks at the host's:
 * each state that a cut may leave of the image file is opened, checked, and read by what the guest
 * had been promised by then (explorer.h).
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/powercut/findings.h"

static const char help[] =
	"Usage: sluice powercut judge LOG --image IMAGE [OPTION]...\n"
	"Judges the disk itself: is all that the guest was told is durable in every state that a\n"
	"power cut may leave of the image file?\n"
	"\n"
	"  --image IMAGE     the image file as it was when the log began; only read; its backing\n"
	"                    file, if it has one, must be as it was, too\n"
	"  --data-file FILE  the same for its external data file (the one that the image names)\n"
	"  --states N        about how many states to judge (10000)\n"
	"  --seed N          another choice of them (1)\n"
	"  --reasons N       tell at most so many broken promises apart (10)\n"
	"  --html FILE       the log as a timeline, with what was promised and lost\n"
	"  --json            the result for programs\n"
	"  -p                show progress\n"
	"\n"
	"Exit status: 0 the promises are kept, 1 it could not be done, 2 a promise was broken.\n"
	"\n"
	"Example:\n"
	"  sluice powercut judge run.log --image before.qcow2 --states 100000\n";

#define COPY_BYTES  (256 * KiB)
#define REASONS_MAX 1000

struct mapped {
	void *at; /* NULL: nothing */
	size_t len;
};

struct judging {
	const char *image, *data, *html; /* data: its external data file, or NULL */
	bool json, progress;
	uint64_t states, seed, reasons;
	const struct recording *r;
	struct mem_image start, before;
	struct mapped image_file, data_file;
	uint8_t *written; /* by page of the disk */
	struct disk *d;
	uint64_t fingerprint;
	char *backing; /* path; NULL: none */
	struct findings found;
	struct explorer_counts n;
};

static void judged(struct explorer *e, bool ok)
{
	struct judging *j = e->arg;

	if (!ok)
		findings_add(&j->found, e);
	if (j->progress && e->n->states % 64 == 0)
		fprintf(stderr, "\r\033[K%" PRIu64 " of about %" PRIu64 " states judged, %" PRIu64
			" break a promise", e->n->states, j->states, j->found.failed);
}

/* The file as it is, at the end of m: what it holds is lent. */
static int map_file(const char *path, struct mem_image *m, struct mapped *f)
{
	uint64_t base = m->size;
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;
	off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END), at = 0, end;
	void *p = MAP_FAILED;

	if (size > 0)
		p = mmap(NULL, (size_t)size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (size < 0 || (size && p == MAP_FAILED))
		err = -errno;
	mem_set_size(m, base + (size > 0 ? (uint64_t)size : 0));
	while (!err && at < size && (at = lseek(fd, at, SEEK_DATA)) >= 0) {
		end = lseek(fd, at, SEEK_HOLE);
		mem_lend(m, (uint8_t *)p + at, (uint64_t)(end - at), base + (uint64_t)at);
		at = end;
	}
	if (!err && at < 0 && errno != ENXIO)
		err = -errno;
	if (fd >= 0)
		close(fd);
	if (p != MAP_FAILED)
		*f = (struct mapped){p, (size_t)size};
	return err;
}

/* One bit for each page of the disk: will the guest write to it? */
static uint8_t *written_pages(const struct recording *r)
{
	uint8_t *map = calloc(1, r->size / MEM_PAGE / 8 + 1);

	for (uint64_t i = 0; map && i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];
		uint64_t at = g->sector * SECTOR / MEM_PAGE;

		for (; g->n && at <= (g->sector + g->n - 1) * SECTOR / MEM_PAGE; at++)
			map[at / 8] |= (uint8_t)(1 << at % 8);
	}
	return map;
}

/* Nobody asks for the rest. */
static void keep_written(struct judging *j, const uint8_t *buf, uint64_t len, uint64_t off)
{
	for (uint64_t at = 0, n; at < len; at += n) {
		uint64_t page = (off + at) / MEM_PAGE;

		n = min_u64(len - at, (page + 1) * MEM_PAGE - off - at);
		if (off + at < j->r->size && j->written[page / 8] >> page % 8 & 1)
			mem_write(&j->before, buf + at, n, off + at, false);
	}
}

/* In a fiber: what the guest read in it. */
static int read_disk(void *arg)
{
	struct judging *j = arg;
	uint64_t size = disk_size(j->d), n;
	uint8_t *buf = malloc(COPY_BYTES);
	int err = buf && j->written ? 0 : -ENOMEM;

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
		if (err)
			break;
		keep_written(j, buf, n, at);
		j->fingerprint += trace_fingerprint_of(buf, n, at);
	}
	free(buf);
	return err;
}

/* What the image says lies below it, by its whole name: states lie in no folder. */
static int note_backing(struct judging *j)
{
	struct disk *below = disk_backing(j->d);

	if (!below)
		return 0;
	j->backing = realpath(disk_path(below), NULL);
	return j->backing ? 0 : -errno;
}

static int report(struct judging *j, struct why *why)
{
	int err = j->html ? findings_draw(&j->found, j->n.states, j->html, why) : 0;

	if (err)
		return err;
	if (j->json)
		findings_json(&j->found, j->n.states, j->image);
	else
		findings_print(&j->found, j->n.states);
	return 0;
}

static void judge_all(struct judging *j, struct loop *l, const struct subject *s)
{
	struct explorer e;

	explorer_init(&e, l, s, j->seed, &j->n);
	e.judged = judged;
	e.arg = j;
	cuts_run(&e.k, j->states);
	explorer_fini(&e);
	if (j->progress)
		fprintf(stderr, "\r\033[K");
}

/* As options for a data file: a comma is said twice. */
static void data_options(const char *path, char *out, size_t room)
{
	size_t n = (size_t)snprintf(out, room, "filename=");

	for (; *path && n + 3 < room; path++) {
		out[n++] = *path;
		if (*path == ',')
			out[n++] = ',';
	}
	out[n] = 0;
}

/* The data file, as it was, before the image.  Its name is the image's word or the user's. */
static int read_files(struct judging *j, struct subject *s, const char *data, struct why *words)
{
	int err = 0;

	s->data_bytes = j->r->trace->info.data_bytes;
	if (!s->data_bytes && data)
		return why_set(words, -EINVAL, "has a data file, of which the log knows nothing");
	if (s->data_bytes && !data)
		return why_set(words, -EINVAL, "has no data file, as it had when the log began");
	if (data)
		err = map_file(data, &j->start, &j->data_file);
	if (err)
		return why_set(words, err, "%s: %s", data, strerror(-err));
	if (data && j->start.size != s->data_bytes)
		return why_set(words, -EINVAL, "%s: is not as long as when the log began", data);
	return map_file(j->image, &j->start, &j->image_file);
}

/* words: of what is wrong with the image, as yet without its name. */
static int read_image(struct judging *j, struct loop *l, struct subject *s, struct why *words)
{
	char options[4200];
	struct disk_opts o = {.path = j->image,
		.format = s->format,
		.readonly = true,
		.quiet = true,
		.data_options = j->data ? options : NULL};
	int err;

	if (j->data)
		data_options(j->data, options, sizeof(options));
	err = disk_open(l, &o, &j->d, words);
	if (err)
		return err;
	s->cluster_size = disk_cluster_size(j->d);
	err = note_backing(j);
	if (j->backing) {
		s->backing = j->backing;
		s->backing_format = disk_format(disk_backing(j->d));
	}
	j->written = written_pages(j->r);
	if (!err)
		err = fiber_run(l, read_disk, j);
	if (!err)
		err = read_files(j, s,
			strcmp(disk_data_path(j->d), disk_path(j->d)) ? disk_data_path(j->d) : NULL,
			words);
	disk_abandon(j->d);
	return err;
}

static int run(struct judging *j, struct loop *l, struct why *why)
{
	struct subject s = {.log = &j->r->log,
		.start = &j->start,
		.before = &j->before,
		.format = j->r->trace->info.format,
		.sectors = j->r->size / SECTOR,
		.either = true};
	struct why inner = {""};
	int err = read_image(j, l, &s, &inner);

	if (err)
		return why_set(why, err, "%s: %s", j->image, why_text(&inner, err));
	err = recording_began_with(j->r, j->image, j->before.size, j->fingerprint, why);
	if (err)
		return err;
	findings_init(&j->found, j->r, (uint32_t)j->reasons);
	judge_all(j, l, &s);
	return report(j, why);
}

/* ---- the command line ---- */

static int number(const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 10);
	if (*text >= '0' && *text <= '9' && !*end && !errno && *out >= min && *out <= max)
		return 0;
	log_error("%s: '%s' is not a number from %" PRIu64 " to %" PRIu64, name, text, min, max);
	return 1;
}

/* An option with a value; -1: it is none. */
static int with_value(struct judging *j, const char *w, const char *v)
{
	if (!strcmp(w, "--image") || !strcmp(w, "--html") || !strcmp(w, "--data-file")) {
		*(w[2] == 'i' ? &j->image : w[2] == 'h' ? &j->html : &j->data) = v;
		if (v && *v)
			return 0;
		log_error("'%s' needs a value", w);
		return 1;
	}
	if (!strcmp(w, "--states"))
		return number(w, v ? v : "", 1, 1000000000, &j->states);
	if (!strcmp(w, "--seed"))
		return number(w, v ? v : "", 0, UINT64_MAX, &j->seed);
	if (!strcmp(w, "--reasons"))
		return number(w, v ? v : "", 1, REASONS_MAX, &j->reasons);
	return -1;
}

/* 0; 1 with words printed; 2: help was asked for. */
static int parse(struct judging *j, const char **log, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *w = argv[i];
		int bad = with_value(j, w, argv[i + 1]);

		if (!strcmp(w, "--help") || !strcmp(w, "-h"))
			return 2;
		if (bad >= 0) {
			i++;
			if (bad)
				return bad;
		} else if (!strcmp(w, "--json")) {
			j->json = true;
		} else if (!strcmp(w, "-p")) {
			j->progress = true;
		} else if (*w == '-' || *log) {
			log_error(*w == '-' ? "unknown option '%s'" : "unexpected argument '%s'",
				w);
			return 1;
		} else {
			*log = w;
		}
	}
	if (*log && j->image)
		return 0;
	log_error(*log ? "--image is missing: the image file as it was when the log began"
		       : "which log?");
	return 1;
}

int powercut_judge(int argc, char **argv)
{
	struct judging j = {.states = 10000, .seed = 1, .reasons = 10};
	const char *path = NULL;
	struct recording r = {0};
	struct loop *l = NULL;
	struct why why = {""};
	int status = parse(&j, &path, argc, argv), err;

	if (status == 2)
		fputs(help, stdout);
	if (status)
		return status == 1;
	j.progress |= isatty(STDERR_FILENO);
	mem_init(&j.start);
	mem_init(&j.before);
	j.r = &r;
	err = recording_open(&r, path, TRACE_LOG_HOST | TRACE_LOG_DATA, j.progress, &why);
	if (!err && !*r.trace->info.format)
		err = why_set(&why, -EINVAL, "%s: this log knows nothing of an image file", path);
	if (!err)
		err = loop_new(LOOP_AIO_AUTO, &l);
	if (!err)
		err = fiber_pool_init(l);
	if (!err)
		err = run(&j, l, &why);
	if (err)
		log_error("%s", why_text(&why, err));
	status = err ? 1 : j.found.failed ? 2 : 0;
	findings_fini(&j.found);
	if (l)
		loop_free(l);
	recording_close(&r);
	mem_fini(&j.start);
	mem_fini(&j.before);
	if (j.image_file.at)
		munmap(j.image_file.at, j.image_file.len);
	if (j.data_file.at)
		munmap(j.data_file.at, j.data_file.len);
	free(j.backing);
	free(j.written);
	return status;
}
