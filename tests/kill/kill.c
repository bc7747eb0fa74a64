/* SPDX-License-Identifier: MIT */
/*
 * kill.c - a writer to an image is killed at any moment: what it acknowledged is there.
 *
 *   kill [--rounds N] [--seed N] [--sluice PATH] [--qemu PATH] DIR
 *   kill --decode [--rw] --format FORMAT IMAGE
 *                                every sector is zeros, or was written there once; --rw: opened for
 *                                writing, and closed
 *
 * A round: a child opens the image as a drive does (repairing it if need be), perhaps makes the
 * disk larger, and writes with several fibers, with flushes and changes of the cache bit; the
 * parent kills it with SIGKILL, somewhere between its first breath and the end of a clean close.
 * What the child was told stands in memory that both share.  Then sluice img check and qemu-img
 * check judge the image, and every sector of the disk is read.  An image lives for some rounds.
 *
 * A killed process takes nothing from the host's kernel, so a sector holds what was acknowledged
 * last, or what was being written.  The one exception is what a write cache is for: with the cache
 * on, a cluster whose table was never flushed is not there yet, and reads as zeros.
 *
 * No sector has two writes in flight: the disk is cut in stripes, and each has one fiber.  They lie
 * across the clusters' ends, so that fibers meet in clusters.
 */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/file/file.h"
#include "guest/pattern.h"

#define SECTORS	   (96 * MiB / SECTOR) /* the disk's size at the end */
#define SECTORS_AT (32 * MiB / SECTOR) /* and at the start */
#define STRIPE	   128                 /* sectors */
#define FIBERS	   8
#define LIFE	   12 /* rounds */
#define MS	   1000000ULL

struct config {
	const char *name, *format, *options;
	enum cache_mode mode;
	bool lazy;
};
static const struct config configs[] = {
	{"raw writeback", "raw", NULL, CACHE_WRITEBACK, false},
	{"64k writeback", "qcow2", "cluster_size=64k", CACHE_WRITEBACK, false},
	{"64k writethrough", "qcow2", "cluster_size=64k", CACHE_WRITETHROUGH, false},
	{"64k lazy writeback", "qcow2", "cluster_size=64k,lazy_refcounts=on", CACHE_WRITEBACK,
		true},
	{"64k lazy writethrough", "qcow2", "cluster_size=64k,lazy_refcounts=on",
		CACHE_WRITETHROUGH, true},
	{"4k none", "qcow2", "cluster_size=4k", CACHE_NONE, false},
	{"512 lazy directsync", "qcow2", "cluster_size=512,lazy_refcounts=on", CACHE_DIRECTSYNC,
		true},
	{"2M writeback", "qcow2", "cluster_size=2M", CACHE_WRITEBACK, false},
	{"raw writethrough", "raw", NULL, CACHE_WRITETHROUGH, false},
	{"512 writeback", "qcow2", "cluster_size=512", CACHE_WRITEBACK, false},
};

/* Written by the child, read by the parent once the child is dead. */
struct told {
	uint64_t sectors; /* the disk is at least as long */
	uint32_t version; /* last one used */
	int failed;	  /* -errno of something that must not fail */
	char what[32];
	bool opened, closed;
	uint64_t writes, flushes;
	uint32_t started[SECTORS], acked[SECTORS], safe[SECTORS];
};

struct test {
	const struct config *c;
	struct told *told;
	char path[300];
	const char *sluice, *qemu;
	uint64_t rng, writes, flushes, in_open, in_close, grown, lost_cached, checks,
		lock_waits;
};

static uint64_t rnd(uint64_t *s)
{
	uint64_t z = *s += 0x9E3779B97F4A7C15ULL;

	z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9ULL;
	return z ^ z >> 27;
}

/* ---- the child ---- */

struct child {
	struct told *t;
	struct disk *d;
	uint64_t rng, end_ns;
	unsigned working;
};

struct worker {
	struct fiber_start start;
	struct child *c;
	uint64_t index;
	uint8_t buf[STRIPE * SECTOR];
};

static void must(struct child *c, int err, const char *what)
{
	if (!err)
		return;
	c->t->failed = err;
	snprintf(c->t->what, sizeof(c->t->what), "%s", what);
	_exit(1);
}

static void do_write(struct worker *w)
{
	struct child *c = w->c;
	struct told *t = c->t;
	uint64_t stripes = (t->sectors - STRIPE / 2) / STRIPE / FIBERS * FIBERS;
	uint64_t stripe = rnd(&c->rng) % (stripes / FIBERS) * FIBERS + w->index;
	uint64_t n = rnd(&c->rng) % 4 ? 1 + rnd(&c->rng) % 16 : 1 + rnd(&c->rng) % STRIPE;
	uint64_t at = STRIPE / 2 + stripe * STRIPE + rnd(&c->rng) % (STRIPE - n + 1);
	unsigned fua = rnd(&c->rng) % 16 ? 0 : BLK_FUA;
	bool wce = disk_wce(c->d);
	uint32_t v = ++t->version;

	for (uint64_t s = at; s < at + n; s++) {
		pattern_fill(w->buf + (s - at) * SECTOR, s, v);
		t->started[s] = v;
	}
	must(c, disk_pwrite(c->d, w->buf, n * SECTOR, at * SECTOR, fua), "write");
	for (uint64_t s = at; s < at + n; s++) {
		t->acked[s] = v;
		if (fua || (!wce && !disk_wce(c->d)))
			t->safe[s] = v;
	}
	t->writes++;
}

static void do_flush(struct child *c)
{
	struct told *t = c->t;
	uint32_t *seen = malloc(sizeof(t->acked));

	if (!seen)
		must(c, -ENOMEM, "test");
	memcpy(seen, t->acked, sizeof(t->acked));
	must(c, disk_flush(c->d), "flush");
	for (uint64_t s = 0; s < SECTORS; s++)
		if (seen[s] > t->safe[s])
			t->safe[s] = seen[s];
	t->flushes++;
	free(seen);
}

struct flip {
	struct wce_change c;
	struct fiber *f;
	bool over;
	int err;
};

static void flip_done(struct wce_change *wc, int err)
{
	struct flip *f = container_of(wc, struct flip, c);

	f->err = err;
	f->over = true;
	fiber_wake(f->f);
}

static void do_flip(struct child *c)
{
	struct flip f = {.c = {.done = flip_done, .enable = !disk_wce(c->d)}, .f = fiber_self()};

	disk_set_wce(c->d, &f.c);
	while (!f.over)
		fiber_suspend();
	must(c, f.err, "cache bit");
}

static void worker_fiber(struct fiber_start *s)
{
	struct worker *w = container_of(s, struct worker, start);
	struct child *c = w->c;

	while (loop_now_ns() < c->end_ns) {
		uint64_t k = rnd(&c->rng) % 100;

		if (k < 3)
			do_flush(c);
		else if (k < 4)
			do_flip(c);
		else
			do_write(w);
		if (k >= 90) /* or reads from memory alone would starve the others */
			fiber_yield();
	}
	c->working--;
}

static int grow_fiber(void *arg)
{
	struct child *c = arg;
	uint64_t want = min_u64(SECTORS, c->t->sectors + (1 + rnd(&c->rng) % 16) * MiB / SECTOR);
	int err = disk_grow(c->d, want * SECTOR);

	if (!err)
		c->t->sectors = want;
	return err;
}

static void child_main(const struct test *ts, uint64_t seed, uint64_t ms)
{
	struct disk_opts o = {.path = ts->path, .format = ts->c->format, .cache = ts->c->mode};
	struct child c = {.t = ts->told, .rng = seed, .working = FIBERS};
	static struct worker w[FIBERS];
	struct loop *l;

	log_level_set(LOG_ERROR);
	if (rnd(&c.rng) % 2) /* tables must be written while they are still being filled */
		o.l2_cache_bytes = o.refcount_cache_bytes = 1;
	must(&c, loop_new(LOOP_AIO_AUTO, &l), "loop");
	must(&c, disk_open(l, &o, &c.d, NULL), "open");
	c.t->opened = true;
	if (rnd(&c.rng) % 3 == 0)
		must(&c, fiber_run(l, grow_fiber, &c), "grow");
	c.end_ns = loop_now_ns() + ms * MS;
	for (unsigned i = 0; i < FIBERS; i++) {
		w[i] = (struct worker){.c = &c, .index = i, .start.fn = worker_fiber};
		fiber_start(l, &w[i].start);
	}
	while (c.working)
		must(&c, loop_turn(l, true), "turn");
	must(&c, disk_close(c.d, NULL), "close");
	c.t->closed = true;
	for (;;)
		pause();
}

/* ---- the judge ---- */

static bool bad(const struct test *ts, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool bad(const struct test *ts, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	printf("  %s: ", ts->c->name);
	vprintf(fmt, ap);
	printf("\n");
	va_end(ap);
	return false;
}

static bool sector_ok(struct test *ts, uint64_t s, const uint8_t *content)
{
	struct told *t = ts->told;
	uint64_t at;
	uint32_t v;
	enum pattern_kind kind = pattern_check(content, &at, &v);

	if (kind == PATTERN_BAD || (kind == PATTERN_OK && at != s))
		return bad(ts, "sector %" PRIu64 " holds what was never written to it", s);
	if (v != t->acked[s] && v != t->started[s]) {
		if (v || t->safe[s] || !strcmp(ts->c->format, "raw"))
			return bad(ts,
				"sector %" PRIu64 " holds version %u; acknowledged %u, safe %u, "
				"started %u", s, v, t->acked[s], t->safe[s], t->started[s]);
		ts->lost_cached++;
	}
	/* It lies in the file, and the next process must find it there. */
	t->acked[s] = t->started[s] = t->safe[s] = v;
	return true;
}

struct reading {
	struct test *ts;
	struct disk *d;
};

static int read_all(void *arg)
{
	struct reading *r = arg;
	uint64_t n = disk_size(r->d) / SECTOR, step = MiB / SECTOR;
	uint8_t *buf = malloc(MiB);
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < n && !err; at += step) {
		uint64_t k = min_u64(step, n - at);

		err = disk_pread(r->d, buf, k * SECTOR, at * SECTOR);
		for (uint64_t s = 0; s < k && !err; s++)
			if (!sector_ok(r->ts, at + s, buf + s * SECTOR))
				err = -EUCLEAN;
	}
	free(buf);
	return err;
}

static bool reads_back(struct test *ts)
{
	struct disk_opts o = {.path = ts->path, .format = ts->c->format, .readonly = true};
	struct reading r = {.ts = ts};
	struct why why = {{0}};
	struct loop *l;
	int err = loop_new(LOOP_AIO_AUTO, &l);

	if (err)
		return bad(ts, "no loop");
	err = disk_open(l, &o, &r.d, &why);
	if (!err) {
		if (disk_size(r.d) < ts->told->sectors * SECTOR)
			err = bad(ts, "the disk is shorter than it was") - 1;
		ts->told->sectors = min_u64(disk_size(r.d) / SECTOR, SECTORS);
		if (!err)
			err = fiber_run(l, read_all, &r);
		disk_abandon(r.d);
	}
	loop_free(l);
	return err ? bad(ts, "reading back: %s", why_text(&why, err)) : true;
}

static int run(const char *program, const char *words, const char *path)
{
	char cmd[2000];
	int st;

	snprintf(cmd, sizeof(cmd), "'%s' %s '%s' >'%s.log' 2>&1", program, words, path, path);
	st = system(cmd);
	return WIFEXITED(st) ? WEXITSTATUS(st) : 1000;
}

/* 0 clean, 3 leaks only; a lazy image may still be marked dirty, and is repaired now or later. */
static bool checks(struct test *ts, bool repair)
{
	int st;

	if (!strcmp(ts->c->format, "raw"))
		return true;
	ts->checks++;
	if (repair) {
		st = run(ts->sluice, "img check -r all", ts->path);
		if (st)
			return bad(ts, "img check -r all: status %d", st);
	}
	st = run(ts->sluice, "img check", ts->path);
	if (st && st != 3 && !(ts->c->lazy && !repair && st == 2))
		return bad(ts, "img check: status %d", st);
	if (!ts->qemu || (ts->c->lazy && !repair))
		return true;
	st = run(ts->qemu, "check", ts->path);
	return !st || (st == 3 && !repair) ? true : bad(ts, "qemu-img check: status %d", st);
}

static bool judge(struct test *ts, uint64_t round)
{
	bool first = rnd(&ts->rng) % 2, repair = ts->c->lazy ? rnd(&ts->rng) % 2 : round % 8 == 7;

	/* Reading before a repair, or after it. */
	if (first && !reads_back(ts))
		return false;
	return checks(ts, repair) && reads_back(ts);
}

/* ---- an image that somebody else wrote to ---- */

static int decode_all(void *arg)
{
	struct disk *d = arg;
	uint64_t n = disk_size(d) / SECTOR, step = MiB / SECTOR, written = 0, wrong = 0;
	uint8_t *buf = malloc(MiB);
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < n && !err; at += step) {
		uint64_t k = min_u64(step, n - at);

		err = disk_pread(d, buf, k * SECTOR, at * SECTOR);
		for (uint64_t s = 0; s < k && !err; s++) {
			uint64_t sector;
			uint32_t version;
			enum pattern_kind kind = pattern_check(buf + s * SECTOR, &sector, &version);

			written += kind == PATTERN_OK;
			wrong += kind == PATTERN_BAD || (kind == PATTERN_OK && sector != at + s);
		}
	}
	free(buf);
	printf("%" PRIu64 " sectors, %" PRIu64 " sectors written, %" PRIu64 " wrong\n", n, written,
		wrong);
	return err ? err : wrong ? -EUCLEAN : 0;
}

static int decode(const char *path, const char *format, bool rw)
{
	struct disk_opts o = {.path = path, .format = format, .readonly = !rw};
	struct why why = {{0}};
	struct disk *d;
	struct loop *l;
	int err = loop_new(LOOP_AIO_AUTO, &l);

	if (err) {
		fprintf(stderr, "%s: %s\n", path, why_text(&why, err));
		return 1;
	}
	err = disk_open(l, &o, &d, &why);
	if (!err) {
		int close_err;

		err = fiber_run(l, decode_all, d);
		close_err = disk_close(d, &why);
		err = err ? err : close_err;
	}
	loop_free(l);
	if (err)
		fprintf(stderr, "%s: %s\n", path, why_text(&why, err));
	return err ? 1 : 0;
}

/* ---- rounds ---- */

static bool create(struct test *ts)
{
	char words[300];

	unlink(ts->path);
	memset(ts->told, 0, sizeof(*ts->told));
	ts->told->sectors = SECTORS_AT;
	snprintf(words, sizeof(words), "img create -q -f %s -o size=%llu%s%s",
		ts->c->format, (unsigned long long)(SECTORS_AT * SECTOR),
		ts->c->options ? "," : "", ts->c->options ? ts->c->options : "");
	return run(ts->sluice, words, ts->path) == 0 ? true : bad(ts, "cannot be created");
}

static void sleep_us(uint64_t us)
{
	struct timespec ts = {(time_t)(us / 1000000), (long)(us % 1000000 * 1000)};

	while (nanosleep(&ts, &ts))
		;
}

/*
 * The kernel gives the lock back when the last request of the dead process's ring has ended, which
 * may be a moment after the process has.
 */
static bool lock_is_free(struct test *ts)
{
	for (unsigned tries = 0; tries < 5000; tries++) {
		struct file *f;
		struct loop *l;
		int err = loop_new(LOOP_AIO_AUTO, &l);

		if (err)
			return bad(ts, "no loop");
		err = file_open(l, ts->path, FILE_RDWR, &f, NULL);
		if (!err)
			file_close(f);
		loop_free(l);
		if (!err)
			return true;
		ts->lock_waits += !tries;
		sleep_us(1000);
	}
	return bad(ts, "the dead process's lock stays");
}

static bool one_round(struct test *ts, uint64_t round)
{
	uint64_t ms = 10 + rnd(&ts->rng) % 120, us = rnd(&ts->rng) % ((ms + 30) * 1000);
	uint64_t seed = rnd(&ts->rng), had = ts->told->sectors;
	struct told *t = ts->told;
	pid_t pid;
	int st;

	t->opened = t->closed = false;
	t->writes = t->flushes = 0;
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		return bad(ts, "no process");
	if (!pid)
		child_main(ts, seed, ms);
	sleep_us(us);
	kill(pid, SIGKILL);
	if (waitpid(pid, &st, 0) != pid || !WIFSIGNALED(st) || WTERMSIG(st) != SIGKILL)
		return bad(ts, "the writer ended by itself: %s: %s", t->what,
			strerror(-t->failed));
	ts->writes += t->writes;
	ts->flushes += t->flushes;
	ts->in_open += !t->opened;
	ts->in_close += t->closed;
	ts->grown += t->sectors > had;
	return lock_is_free(ts) && judge(ts, round);
}

static int all_rounds(struct test *ts, uint64_t rounds)
{
	size_t first = ts->rng % ARRAY_SIZE(configs);

	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t life = min_u64(LIFE, div_round_up(rounds, ARRAY_SIZE(configs)));

		ts->c = &configs[(first + i / life) % ARRAY_SIZE(configs)];
		if (i % life == 0 && !create(ts))
			return 1;
		if (!one_round(ts, i)) {
			printf("FAIL killed in round %" PRIu64 "; the image is %s\n", i, ts->path);
			return 1;
		}
	}
	unlink(ts->path);
	printf("ok killed %" PRIu64 " times: %" PRIu64 " writes, %" PRIu64 " flushes; %" PRIu64
	       " before it was open, %" PRIu64 " after a clean close, %" PRIu64
	       " grew; %" PRIu64 " sectors were only in the write cache; %" PRIu64
	       " checks of qcow2 images; the lock was %" PRIu64 " times held a moment longer\n",
		rounds, ts->writes, ts->flushes, ts->in_open, ts->in_close, ts->grown,
		ts->lost_cached, ts->checks, ts->lock_waits);
	return 0;
}

int main(int argc, char **argv)
{
	static const struct option opts[] = {{"rounds", 1, NULL, 'n'}, {"seed", 1, NULL, 's'},
		{"sluice", 1, NULL, 'p'}, {"qemu", 1, NULL, 'q'},
		{"decode", 0, NULL, 'd'}, {"rw", 0, NULL, 'w'}, {"format", 1, NULL, 'f'},
		{NULL, 0, NULL, 0}};
	struct test ts = {.rng = 1, .sluice = "build/sluice"};
	const char *format = NULL;
	bool only_decode = false, rw = false;
	uint64_t rounds = 20;
	int c;

	while ((c = getopt_long(argc, argv, "", opts, NULL)) != -1) {
		switch (c) {
		case 'n':
			rounds = strtoull(optarg, NULL, 0);
			break;
		case 's':
			ts.rng = strtoull(optarg, NULL, 0);
			break;
		case 'p':
			ts.sluice = optarg;
			break;
		case 'q':
			ts.qemu = optarg;
			break;
		case 'd':
			only_decode = true;
			break;
		case 'w':
			rw = true;
			break;
		case 'f':
			format = optarg;
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1)
		return 2;
	log_level_set(LOG_ERROR);
	if (only_decode)
		return decode(argv[optind], format, rw);
	snprintf(ts.path, sizeof(ts.path), "%s/killed.img", argv[optind]);
	ts.told = mmap(NULL, sizeof(*ts.told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		-1, 0);
	if (ts.told == MAP_FAILED)
		return 1;
	return all_rounds(&ts, rounds);
}
