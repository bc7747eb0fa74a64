/* SPDX-License-Identifier: MIT */
/*
 * alloc_writes.c - what writes into unallocated clusters cost the host, counted.
 *
 * usage: build/tests/bench/alloc_writes [MODE [COUNT [KIB [DEPTH]]]]
 *
 * Default: 1000 sequential writes of 64 KiB, cache=writethrough, depth 1, onto raw, qcow2 and
 * qcow2 with lazy refcounts; through the block layer's public interface, in $TMPDIR.  Beside it
 * `qemu-img bench` with the same figures: timed once, and counted in another run under strace
 * (where these are installed).  Its counts include opening and closing the image, ours end with the
 * last acknowledgement in the modes without a write cache and with a flush in the others.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/file/file.h"
#include "blockdev/qcow2/format.h"

#define DEPTH_MAX 256

static const struct kind {
	const char *name, *format;
	bool lazy;
} kinds[] = {
	{ "raw",	"raw",	 false },
	{ "qcow2",	"qcow2", false },
	{ "qcow2+lazy", "qcow2", true },
};

struct work {
	enum cache_mode mode;
	unsigned count, kib, depth;
	char path[512];
};

struct result {
	double seconds;
	uint64_t fdatasyncs, writes, data_bytes, metadata_bytes;
};

struct slot {
	struct blk_req req;
	struct iovec iov;
	struct flight *flight;
};

struct flight {
	struct disk *disk;
	unsigned next, done, count;
	uint64_t bytes;
	int err;
	struct slot slots[DEPTH_MAX];
};

static _Noreturn void die(const char *what, const struct why *why, int err)
{
	fprintf(stderr, "alloc_writes: %s: %s\n", what, why_text(why, err));
	exit(1);
}

struct creation {
	struct file *file;
	struct qcow2_create_opts opts;
	struct why *why;
};

static int create_fiber(void *arg)
{
	struct creation *c = arg;

	return qcow2_create(c->file, &c->opts, c->why);
}

static void create(struct loop *l, const struct work *w, const struct kind *k)
{
	struct why why = { "" };
	struct creation c = { .why = &why, .opts = {
		.size = round_up((uint64_t)w->count * w->kib * KiB, MiB) + MiB,
		.lazy_refcounts = k->lazy,
	} };
	int err, fd;

	if (strcmp(k->format, "raw") == 0) {
		fd = open(w->path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
		if (fd < 0 || ftruncate(fd, (off_t)c.opts.size) < 0)
			die(w->path, NULL, -errno);
		close(fd);
		return;
	}
	err = file_open(l, w->path, FILE_RDWR | FILE_CREATE, &c.file, &why);
	if (!err) {
		err = fiber_run(l, create_fiber, &c);
		file_close(c.file);
	}
	if (err)
		die(w->path, &why, err);
}

static void launch(struct slot *s)
{
	struct flight *f = s->flight;

	if (f->next == f->count)
		return;
	s->req.op = BLK_WRITE;
	s->req.off = f->next++ * f->bytes;
	s->req.len = f->bytes;
	s->iov.iov_len = f->bytes;
	s->req.iov = &s->iov;
	s->req.niov = 1;
	disk_submit(f->disk, &s->req);
}

static void on_done(struct blk_req *r, int err)
{
	struct slot *s = container_of(r, struct slot, req);

	if (err && !s->flight->err)
		s->flight->err = err;
	s->flight->done++;
	launch(s);
}

static int flush_fiber(void *arg)
{
	return disk_flush(arg);
}

static struct result measure(const struct work *w, const struct kind *k)
{
	struct disk_opts o = { .path = w->path, .format = k->format, .cache = w->mode };
	static struct flight f;
	struct disk_stats st;
	struct why why = { "" };
	struct loop *l;
	uint64_t t0;
	double t;
	int err = loop_new(LOOP_AIO_AUTO, &l);

	if (err)
		die("event loop", NULL, err);
	create(l, w, k);
	f = (struct flight){ .count = w->count, .bytes = w->kib * KiB };
	err = disk_open(l, &o, &f.disk, &why);
	if (err)
		die(w->path, &why, err);
	t0 = loop_now_ns();
	for (unsigned i = 0; i < w->depth; i++) {
		struct slot *s = &f.slots[i];

		if (posix_memalign(&s->iov.iov_base, 4096, f.bytes) != 0)
			die("memory", NULL, -ENOMEM);
		memset(s->iov.iov_base, 'a' + (int)(i % 26), f.bytes);
		s->flight = &f;
		s->req.done = on_done;
		launch(s);
	}
	while (f.done < f.count && !err)
		err = loop_turn(l, true);
	if (!err && disk_wce(f.disk))
		err = fiber_run(l, flush_fiber, f.disk);
	t = (double)(loop_now_ns() - t0) / 1e9;
	if (err || f.err)
		die("writing", NULL, err ? err : f.err);
	disk_stats_get(f.disk, &st);
	err = disk_close(f.disk, &why);
	if (err)
		die("closing", &why, err);
	for (unsigned i = 0; i < w->depth; i++)
		free(f.slots[i].iov.iov_base);
	loop_free(l);
	return (struct result){ t, st.host_fdatasyncs, st.host_writes, st.data_bytes,
		st.metadata_bytes };
}

/* Counts what strace saw: completed writes with their bytes, and fdatasyncs. */
static void count_strace(const char *path, struct result *r, uint64_t data_bytes)
{
	FILE *f = fopen(path, "re");
	char line[4096];
	uint64_t bytes = 0;

	while (f && fgets(line, sizeof(line), f)) {
		const char *eq = strrchr(line, '=');
		long long n = eq ? strtoll(eq + 1, NULL, 10) : -1;

		if (n < 0 || strstr(line, "unfinished"))
			continue;
		if (strstr(line, "fdatasync")) {
			r->fdatasyncs++;
		} else if (strstr(line, "pwrite")) {
			r->writes++;
			bytes += (uint64_t)n;
		}
	}
	if (f)
		fclose(f);
	r->data_bytes = min_u64(data_bytes, bytes);
	r->metadata_bytes = bytes - r->data_bytes;
}

static bool peer(const struct work *w, const struct kind *k, struct result *r)
{
	char cmd[2048], trace[600];
	unsigned long long size = (unsigned long long)w->count * w->kib * KiB + MiB;
	static const char run[] =
		"qemu-img bench -w -f %s -t %s -c %u -s %uk -d %u '%s' >/dev/null";
	uint64_t t0;
	int n;

	*r = (struct result){ 0 };
	if (system("command -v qemu-img >/dev/null && command -v strace >/dev/null") != 0)
		return false;
	snprintf(trace, sizeof(trace), "%s.strace", w->path);
	for (int pass = 0; pass < 2; pass++) {
		snprintf(cmd, sizeof(cmd), "qemu-img create -q -f %s %s '%s' %llu", k->format,
			k->lazy ? "-o lazy_refcounts=on" : "", w->path, size);
		if (system(cmd) != 0)
			return false;
		n = pass ? snprintf(cmd, sizeof(cmd),
				   "strace -f -s 0 -e trace=pwrite64,pwritev,pwritev2,fdatasync "
				   "-o '%s' ",
				   trace) :
			   0;
		snprintf(cmd + n, sizeof(cmd) - (size_t)n, run, k->format, cache_mode_name(w->mode),
			w->count, w->kib, w->depth, w->path);
		t0 = loop_now_ns();
		if (system(cmd) != 0)
			return false;
		if (!pass)
			r->seconds = (double)(loop_now_ns() - t0) / 1e9;
	}
	count_strace(trace, r, (uint64_t)w->count * w->kib * KiB);
	unlink(trace);
	return true;
}

static void print(const struct kind *k, const char *who, const struct work *w,
	const struct result *r)
{
	printf("%-11s %-9s %10.1f %11llu %12llu %9.2f %9.2f\n", k->name, who,
		r->seconds * 1e6 / w->count, (unsigned long long)r->fdatasyncs,
		(unsigned long long)r->writes, (double)r->data_bytes / MiB,
		(double)r->metadata_bytes / MiB);
	fflush(stdout);
}

static unsigned number(const char *text, unsigned max)
{
	char *end;
	unsigned long n = strtoul(text, &end, 10);

	if (*end || n == 0 || n > max) {
		fprintf(stderr, "alloc_writes: %s: expected 1 to %u\n", text, max);
		exit(1);
	}
	return (unsigned)n;
}

int main(int argc, char **argv)
{
	struct work w = { CACHE_WRITETHROUGH, 1000, 64, 1, "" };
	const char *tmp = getenv("TMPDIR");
	struct result r;

	if (argc > 1 && cache_mode_parse(argv[1], &w.mode) != 0) {
		fprintf(stderr, "usage: alloc_writes [MODE [COUNT [KIB [DEPTH]]]]\n");
		return 1;
	}
	w.count = argc > 2 ? number(argv[2], 1000000) : w.count;
	w.kib = argc > 3 ? number(argv[3], 65536) : w.kib;
	w.depth = argc > 4 ? number(argv[4], DEPTH_MAX) : w.depth;
	snprintf(w.path, sizeof(w.path), "%s/alloc-writes-%d.img", tmp ? tmp : "/var/tmp",
		(int)getpid());
	log_prefix("alloc_writes");
	printf("%u sequential allocating writes of %u KiB, cache=%s, depth %u\n", w.count, w.kib,
		cache_mode_name(w.mode), w.depth);
	printf("%-11s %-9s %10s %11s %12s %9s %9s\n", "", "", "us each", "fdatasyncs",
		"host writes", "data MiB", "meta MiB");
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		r = measure(&w, &kinds[i]);
		print(&kinds[i], "sluice", &w, &r);
		if (peer(&w, &kinds[i], &r))
			print(&kinds[i], "qemu-img", &w, &r);
		unlink(w.path);
	}
	return 0;
}
