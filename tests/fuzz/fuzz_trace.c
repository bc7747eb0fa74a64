/* SPDX-License-Identifier: MIT */
/*
 * fuzz_trace.c - hostile logs of disks: read, turned into what the commands search, cut.
 *
 * Anything may be refused or taken for damage; nothing may crash, hang or reach outside.  Checksums
 * are mended first, or no damage would get past them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>
#include "blockdev/block.h"
#include "blockdev/crash/cuts.h"
#include "blockdev/crash/guest_disk.h"
#include "blockdev/crash/trace.h"
#include "blockdev/crash/trace_int.h"
#include "tests/fuzz/fuzz.h"

const char fuzz_name[] = "trace";

#define SIZE        (64 * MiB)
#define SECTORS_MAX (1 << 20) /* a log may say in few bytes that much was written */

static char path[512];

static void setup(void)
{
	const char *tmp = getenv("TMPDIR");

	log_level_set(LOG_ERROR);
	snprintf(path, sizeof(path), "%s/fuzz-trace-%d.log", tmp ? tmp : "/tmp", (int)getpid());
}

/* ---- seeds ---- */

static void done(struct trace_writer *w, enum trace_kind kind, uint64_t of, unsigned flags)
{
	struct trace_event e = {.kind = kind, .other = of, .flags = (uint8_t)flags};

	trace_writer_append(w, &e);
}

static void write_some(struct trace_writer *w, unsigned n, unsigned file)
{
	static uint8_t data[3 * TRACE_BLOCK];
	unsigned wce = n % 3 ? TRACE_WCE : 0;

	for (unsigned i = 0; i < 6; i++) {
		struct trace_event e = {.kind = TRACE_GUEST,
			.op = BLK_WRITE,
			.flags = (uint8_t)(wce | (i == 4 ? TRACE_FUA : 0)),
			.off = i * 5000 / SECTOR * SECTOR * (n + 1),
			.len = (1 + i * 4) * SECTOR,
			.data = data};
		struct trace_event h = {.kind = TRACE_HOST,
			.op = FILE_WRITE,
			.flags = (uint8_t)(TRACE_SAME | file),
			.off = e.off,
			.len = e.len};
		uint64_t guest, host;

		memset(data, (int)(i + n), i * 1500);
		guest = trace_writer_append(w, &e);
		h.same = guest;
		host = trace_writer_append(w, &h);
		done(w, TRACE_HOST_DONE, host, 0);
		done(w, TRACE_GUEST_DONE, guest, wce);
	}
}

size_t fuzz_seed(uint8_t *data, size_t size, unsigned n)
{
	struct trace_info info = {.disk_bytes = SIZE, .image = "disk", .format = "raw"};
	static const uint8_t ops[] = {
		BLK_FLUSH, BLK_ZEROES, BLK_DISCARD, TRACE_WCE_OFF, TRACE_WCE_ON, BLK_FLUSH};
	struct trace_writer *w;
	ssize_t got;
	int fd;

	if (n >= 6)
		return 0;
	setup();
	unlink(path);
	info.data_bytes = n == 3 ? SIZE : 0;
	if (trace_writer_open(path, &info, &w, NULL))
		abort();
	trace_writer_compress(w, n == 1);
	write_some(w, n, n == 3 ? TRACE_DATA_FILE : 0);
	for (unsigned i = 0; i < sizeof(ops); i++) {
		struct trace_event e = {.kind = TRACE_GUEST, .op = ops[i], .flags = TRACE_WCE};
		struct trace_event m = {.kind = TRACE_MARK, .len = 4, .data = "mark"};

		if (ops[i] == BLK_ZEROES || ops[i] == BLK_DISCARD)
			e.len = 1 * MiB;
		done(w, TRACE_GUEST_DONE, trace_writer_append(w, &e), TRACE_WCE);
		trace_writer_append(w, &m);
		if (n == 5)
			(void)!trace_writer_flush(w);
	}
	write_some(w, n + 1, 0);
	if (trace_writer_close(w))
		abort();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	got = fd < 0 ? -1 : read(fd, data, size);
	if (got < 0)
		abort();
	close(fd);
	return (size_t)got;
}

/* ---- one input ---- */

static void mend_checksums(uint8_t *data, size_t size)
{
	struct trace_head h;
	struct trace_frame f;
	uint64_t at;

	if (size < sizeof(h))
		return;
	memcpy(&h, data, sizeof(h));
	for (at = le32_get(h.header); at < size && size - at >= sizeof(f);
		at += sizeof(f) + le32_get(f.stored)) {
		memcpy(&f, data + at, sizeof(f));
		if (le32_get(f.stored) > size - at - sizeof(f))
			return;
		f.crc = le32_make((uint32_t)crc32(0, data + at + sizeof(f), le32_get(f.stored)));
		memcpy(data + at, &f, sizeof(f));
	}
}

static int nothing(struct guest_start *s, void *buf, uint64_t len, uint64_t off)
{
	memset(buf, 0, len);
	return 0;
}

static int no_data(struct guest_start *s, uint64_t off, uint64_t len, uint64_t *at, uint64_t *n)
{
	*n = 0;
	return 0;
}

static void visit(struct cuts *k)
{
	model_build(&k->model, &k->c, &k->state);
	/* What facts say of a state is what it holds. */
	if (k->facts.usable && !facts_agree(&k->facts, &k->state))
		abort();
}

static void cut(const struct crash_log *log)
{
	struct guest_start blank = {nothing, no_data};
	struct guest_disk g;
	struct cuts k;
	uint64_t n = 0;

	for (uint64_t i = 0; i < log->n_guest; i++)
		n += log->guest[i].data ? log->guest[i].n : 0;
	if (n > SECTORS_MAX || guest_disk_init(&g, log, &blank))
		return;
	cuts_init(&k, &g.log, &g.start, true);
	k.visit = visit;
	k.rng = 1;
	cuts_run(&k, 60);
	cuts_fini(&k);
	guest_disk_fini(&g);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t *copy = malloc(size + 1);
	struct crash_mark *marks;
	struct crash_log log;
	struct trace *t;
	uint64_t n;
	int fd;

	setup();
	memcpy(copy, data, size);
	mend_checksums(copy, size);
	fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, copy, size) != (ssize_t)size)
		abort();
	close(fd);
	free(copy);
	if (!trace_reader_open(path, &t, NULL)) {
		if (!trace_crash_log(t, TRACE_LOG_HOST | TRACE_LOG_DATA, &log, &marks, &n, NULL,
			    NULL)) {
			cut(&log);
			crash_log_fini(&log);
			free(marks);
		}
		trace_reader_close(t);
	}
	unlink(path);
	return 0;
}
