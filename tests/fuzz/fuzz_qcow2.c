/* SPDX-License-Identifier: MIT */
/*
 * fuzz_qcow2.c - hostile qcow2 images, and what can be done to them.
 *
 * An input is an image and behind it PLAN bytes, each of which says one thing to do with it: read
 * and write, zero, discard, compress, snapshot, resize, amend, keep bitmaps, save a machine's
 * state, map, check, repair and so on. Anything may fail; nothing may crash, hang, grow without
 * bound or reach outside the file.  At the end the image is repaired.  If that left no error, a
 * second check finds nothing; and then it is an image as good as any: used once more, it reads
 * back what was written, and no check finds an error.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/crash/memfile.h"
#include "blockdev/qcow2/format.h"
#include "tests/fuzz/fuzz.h"

#define PLAN	 12
#define FILE_MAX (256 * MiB) /* what the host allows; more is an error of its own */
#define BASE	 (300 * KiB) /* of the backing file */
#define EXTENTS	 1000	     /* of a map; a disk may have any number */

const char fuzz_name[] = "qcow2";

static struct mem_image image, data_image;
static char base_dir[300]; /* where images find their backing file: base */
static struct loop *loop;
static bool strict; /* the image is good: nothing may surprise */
static bool data_file;
static bool verbose; /* FUZZ_VERBOSE: says what is done, and what checks find */

#define must(cond) ((cond) ? (void)0 : broken(#cond, __LINE__))

static void broken(const char *what, int line)
{
	fprintf(stderr, "fuzz_qcow2.c:%d: not so: %s\n", line, what);
	abort();
}

static char *in_dir(const char *name)
{
	static char path[350];

	snprintf(path, sizeof(path), "%s/%s", base_dir, name);
	return path;
}

static void clean_up(void)
{
	unlink(in_dir("base"));
	rmdir(base_dir);
}

static void setup(void)
{
	const char *tmp = getenv("TMPDIR");
	int fd;

	if (loop)
		return;
	log_level_set(LOG_ERROR);
	verbose = getenv("FUZZ_VERBOSE");
	image.limit = data_image.limit = FILE_MAX;
	snprintf(base_dir, sizeof(base_dir), "%s/fuzz-qcow2-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(base_dir))
		abort();
	fd = open(in_dir("base"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	for (unsigned i = 0; i < BASE / sizeof(base_dir); i++)
		if (write(fd, base_dir, sizeof(base_dir)) != sizeof(base_dir))
			abort();
	close(fd);
	atexit(clean_up);
	if (loop_new(LOOP_AIO_AUTO, &loop) != 0)
		abort();
}

static struct file *memory(struct mem_image *m, uint64_t seed)
{
	struct file *f;

	if (memfile_open(loop, m, seed, &f) != 0)
		abort();
	return f;
}

/* ---- what can be done; each in a fiber, arg 0 to 15 ---- */

static uint8_t buf[64 * KiB], got[64 * KiB];

static void write_some(struct disk *d, uint64_t off, uint64_t len, unsigned flags)
{
	memset(buf, (int)(off / 512 * 7 + len + flags), len);
	if (disk_pwrite(d, buf, len, off, flags) != 0 || !strict)
		return;
	must(disk_pread(d, got, len, off) == 0);
	must(!memcmp(buf, got, len));
}

static void rw(struct disk *d, unsigned arg)
{
	uint64_t size = disk_size(d);

	for (unsigned i = 0; i < 12; i++) {
		uint64_t off = i < 6 ? (i + arg) * 5000 : size / 16 * (i + arg - 6);
		uint64_t len = 512ULL << (i + arg) % 6;

		if (off >= size || len > size - off)
			continue;
		if ((i + arg) % 3)
			write_some(d, off, len, i % 4 ? 0 : BLK_FUA);
		else
			(void)!disk_pread(d, got, len, off);
	}
	(void)!disk_flush(d);
}

static void zero(struct disk *d, unsigned arg)
{
	uint64_t size = disk_size(d), off = round_down(size / 16 * arg, SECTOR);
	uint64_t len = min_u64(MiB >> arg % 8, size - off);

	if (arg % 4 == 0)
		(void)!disk_discard(d, len, off);
	else
		(void)!disk_zeroes(d, len, off, arg % 2 ? BLK_UNMAP : 0);
}

static void compress(struct disk *d, unsigned arg)
{
	uint64_t cluster = disk_cluster_size(d), size = disk_size(d);

	for (unsigned i = 0; i < 4; i++) {
		uint64_t off = cluster * (arg * 2 + i);

		if (cluster <= sizeof(buf) && off < size)
			write_some(d, off, min_u64(cluster, size - off), BLK_COMPRESSED);
	}
}

static void snapshot(struct disk *d, unsigned arg)
{
	static const char *const names[] = { "a", "b", "c", "1" };
	struct why why = { "" };

	(void)!disk_snapshot_change(d, (enum snapshot_op)(arg % 3), names[arg / 4], &why);
}

static void resize(struct disk *d, unsigned arg)
{
	static const uint64_t to[] = { 0, SECTOR, 3 * SECTOR, 4096, 65 * KiB, MiB, 3 * MiB,
		5 * MiB };
	struct why why = { "" };
	uint64_t size = arg < 8 ? to[arg] : disk_size(d) + to[arg % 8];

	(void)!disk_resize(d, size, arg % 5 ? PREALLOC_OFF : PREALLOC_METADATA, &why);
}

static void amend(struct disk *d, unsigned arg)
{
	struct why why = { "" };
	const struct disk_amend a = { .version = arg & 1 ? 2 + arg / 8 : 0,
		.set_lazy = arg & 2,
		.lazy = arg & 4 };

	(void)!disk_amend(d, &a, &why);
}

static void map(struct disk *d, unsigned arg)
{
	uint64_t off = 0, size = disk_size(d);
	struct extent e;

	for (unsigned i = 0; i < EXTENTS && off < size; i++, off += e.len)
		if ((arg % 2 ? disk_map : disk_extent)(d, off, size - off, &e) != 0)
			return;
}

static void backing(struct disk *d, unsigned arg)
{
	struct why why = { "" };

	(void)!disk_set_backing(d, arg % 2 ? "base" : "", arg % 2 ? "raw" : "", &why);
}

static void empty(struct disk *d, unsigned arg)
{
	(void)!disk_make_empty(d);
}

static void bitmap(struct disk *d, unsigned arg)
{
	static const enum bitmap_op ops[] = { BITMAP_ADD, BITMAP_ADD, BITMAP_ENABLE, BITMAP_DISABLE,
		BITMAP_CLEAR, BITMAP_REMOVE };
	const char *name = arg & 1 ? "b" : "a", *other = arg & 1 ? "a" : "b";
	unsigned op = arg / 2;
	struct disk_bitmap first;
	struct why why = { "" };

	if (op < ARRAY_SIZE(ops)) {
		(void)!disk_bitmap_change(d, ops[op], name, op ? 0 : 512, &why);
		return;
	}
	if (op == ARRAY_SIZE(ops) && disk_bitmap_get(d, 0, &first))
		other = first.name;
	(void)!disk_bitmap_merge(d, name, d, other, &why);
}

static void vmstate(struct disk *d, unsigned arg)
{
	static const uint64_t at[] = { 0, 512, 5000, 65 * KiB, MiB, GiB, 1ULL << 40, INT64_MAX };
	uint64_t off = at[arg % 8], len = arg < 8 ? 4096 : 20000;

	if (disk_vmstate(d, got, off, len, false) != 0 && arg % 2)
		return;
	memset(buf, (int)arg + 1, len);
	if (disk_vmstate(d, buf, off, len, true) != 0 || !strict)
		return;
	must(disk_vmstate(d, got, off, len, false) == 0);
	must(!memcmp(buf, got, len));
}

static void (*const steps[])(struct disk *d, unsigned arg) = { rw, zero, compress, snapshot, resize,
	amend, map, backing, empty, bitmap, vmstate, rw };

struct step {
	struct disk *d;
	unsigned what, arg;
};

static int step_fiber(void *arg)
{
	const struct step *s = arg;

	if (verbose)
		fprintf(stderr, "step %u, %u%s\n", s->what, s->arg, strict ? ", strict" : "");
	steps[s->what](s->d, s->arg);
	return 0;
}

/* ---- the image from outside ---- */

static struct disk *open_image(unsigned how)
{
	struct disk_opts o = { .path = in_dir("image"),
		.format = "qcow2",
		.cache = how & 1 ? CACHE_WRITETHROUGH : CACHE_WRITEBACK,
		.readonly = how & 2,
		.unmap = how & 4,
		.quiet = true,
		.l2_cache_bytes = how & 8 ? 1 : 0,
		.overlap = how & 8 ? OVERLAP_GIVEN | OVERLAP_ALL : 0 };
	struct why why = { "" };
	struct disk *d;

	/* No name that an image gives is opened for writing. */
	o.data_file = data_file ? memory(&data_image, how & 8) : NULL;
	return disk_open_file(memory(&image, how & 8), &o, &d, &why) == 0 ? d : NULL;
}

struct checking {
	struct file *file;
	unsigned fix;
	struct qcow2_check res;
};

static int check_fiber(void *arg)
{
	struct checking *c = arg;

	return qcow2_check(c->file, c->fix, &c->res, NULL);
}

static void print(void *arg, const char *line)
{
	if (verbose)
		fprintf(stderr, "%s\n", line);
}

/* Whether the check ran. */
static bool check(unsigned fix, struct qcow2_check *res)
{
	struct checking c = { .file = memory(&image, 0), .fix = fix, .res.report = print };
	int err = fiber_run(loop, check_fiber, &c);

	file_close(c.file);
	*res = c.res;
	return !err;
}

static int read_snapshot_fiber(void *arg)
{
	struct step *s = arg;
	struct why why = { "" };
	struct disk_snapshot snap;

	if (!disk_snapshot_get(s->d, s->arg % 3, &snap) ||
		disk_snapshot_load(s->d, snap.id, NULL, &why) != 0)
		return 0;
	rw(s->d, s->arg);
	(void)!disk_vmstate(s->d, got, 0, min_u64(snap.vm_state_bytes, sizeof(got)), false);
	return 0;
}

static void read_snapshot(unsigned arg)
{
	struct step s = { open_image(2), 0, arg };
	struct why why = { "" };

	if (!s.d)
		return;
	(void)!fiber_run(loop, read_snapshot_fiber, &s);
	(void)!disk_close(s.d, &why);
}

/* Bitmaps whose bits are lost. */
static unsigned lost_bitmaps(const struct disk *d)
{
	struct disk_bitmap b;
	unsigned lost = 0;

	for (uint32_t i = 0; disk_bitmap_get(d, i, &b); i++)
		lost += b.inconsistent;
	return lost;
}

/* Closes the disk and opens it again, something else (what, arg) done between; NULL: could not. */
static struct disk *reopen(struct disk *d, unsigned what, unsigned arg)
{
	unsigned lost = lost_bitmaps(d);
	struct why why = { "" };
	struct qcow2_check res;
	int err = disk_close(d, &why);

	if (what == 12)
		read_snapshot(arg);
	else if (what == 13 && !strict)
		(void)!check(arg & (QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS), &res);
	if (err)
		return NULL;
	d = open_image(arg);
	must(!strict || !d || lost_bitmaps(d) <= lost);
	return d;
}

static void use(const uint8_t *plan)
{
	struct why why = { "" };
	struct disk *d = open_image(plan[0] & 15);
	struct qcow2_check res;

	for (unsigned i = 1; i < PLAN && d; i++) {
		struct step s = { d, plan[i] & 15, plan[i] >> 4 };

		if (s.what < ARRAY_SIZE(steps))
			(void)!fiber_run(loop, step_fiber, &s);
		else
			d = reopen(d, s.what, s.arg);
	}
	if (d && disk_close(d, &why) == 0 && strict) {
		/*
		 * What failed may have left leaks, and of two guest clusters that shared one of the
		 * host, by what the repair had to go by, the last does not know that it is.
		 */
		must(check(0, &res));
		must(res.corruptions == res.missing_flags && !res.check_errors);
	}
}

static void repair(const uint8_t *plan)
{
	struct qcow2_check first, again;

	if (!check(QCOW2_FIX_LEAKS | QCOW2_FIX_ERRORS, &first))
		return;
	if (first.corruptions || first.check_errors || first.leaks)
		return;
	must(check(0, &again));
	must(!again.corruptions && !again.leaks && !again.check_errors);
	strict = true;
	use(plan);
	strict = false;
}

/* ---- the seeds ---- */

static const struct {
	struct qcow2_create_opts o;
	uint8_t plan[PLAN]; /* how it is made, and what is done with it */
} seeds[] = {
	{ { .size = MiB, .cluster_size = 512 }, { 0, 0, 0x10, 2, 6 } },
	{ { .size = MiB, .cluster_size = 4096, .refcount_bits = 1 }, { 1, 0, 1, 0x52, 4 } },
	{ { .size = 8 * MiB, .cluster_size = 512, .refcount_bits = 64, .lazy_refcounts = true },
		{ 4, 0, 0x11, 0x20, 0x44, 0x95 } },
	{ { .size = MiB, .version = 2 }, { 0, 0, 3, 0x35, 0x10 } },
	{ { .size = MiB, .cluster_size = 512, .version = 2 },
		{ 8, 0, 3, 0x10, 0x43, 0x20, 12 } },
	{ { .size = 2 * MiB, .cluster_size = 1024, .refcount_bits = 8 },
		{ 12, 0, 3, 0x10, 0x43, 2, 0x23, 0x20, 12, 0x64 } },
	{ { .size = MiB, .cluster_size = 16384, .extended_l2 = true },
		{ 4, 0, 1, 0x10, 0x21, 6 } },
	{ { .size = 600 * KiB,
		  .cluster_size = 1024,
		  .backing_file = "base",
		  .backing_format = "raw" },
		{ 0, 0, 0x16, 1, 0x30, 8, 0x16 } },
	{ { .size = 256 * KiB, .cluster_size = 4096, .zstd = true },
		{ 8, 2, 0x22, 0, 0x42, 0x16 } },
	{ { .size = MiB, .cluster_size = 2048, .data_file = "data", .data_file_raw = true },
		{ 0, 0, 1, 0x10, 0x64 } },
	{ { .size = 64 * MiB, .cluster_size = 512, .refcount_bits = 4 },
		{ 0, 0, 0x74, 0x54, 0x20 } },
	/* Bitmaps: merged, one cleared, with a snapshot, and the disk resized. */
	{ { .size = 2 * MiB, .cluster_size = 512 },
		{ 0, 0x09, 0, 0x39, 0x10, 0xe9, 14, 3, 0x71, 0x89, 0x20, 0x54 } },
	{ { .size = MiB, .cluster_size = 4096, .data_file = "data" },
		{ 0, 0x29, 0, 0x19, 14, 0x10, 0x64, 0xd9 } },
	/* A machine's state, and a snapshot of it. */
	{ { .size = MiB, .cluster_size = 1024 },
		{ 0, 0x0a, 0, 0xba, 3, 0x10, 0x2a, 12, 0x13 } },
	{ { .size = 600 * KiB,
		  .cluster_size = 16384,
		  .extended_l2 = true,
		  .zstd = true,
		  .backing_file = "base",
		  .backing_format = "raw" },
		{ 8, 0x22, 0x16, 0x09, 0x11, 0x1a, 3, 0x20, 8 } },
};

struct creation {
	struct file *file;
	const struct qcow2_create_opts *opts;
};

static int create_fiber(void *arg)
{
	struct creation *c = arg;

	return qcow2_create(c->file, c->opts, NULL);
}

/* The first snapshot, if there is one, is a machine's: the library makes none that says so. */
static void set_vm_state(uint32_t bytes)
{
	struct qcow2_disk_header h;
	struct qcow2_disk_snapshot snap;
	be64_t wide = be64_make(bytes);
	uint64_t at;

	mem_read(&image, &h, sizeof(h), 0);
	at = be64_get(h.snapshots_offset);
	if (!at)
		return;
	mem_read(&image, &snap, sizeof(snap), at);
	snap.vm_state_bytes = be32_make(bytes);
	mem_write(&image, &snap, sizeof(snap), at, false);
	mem_write(&image, &wide, sizeof(wide), at + sizeof(snap), false);
}

size_t fuzz_seed(uint8_t *data, size_t size, unsigned n)
{
	struct creation c;
	size_t len;

	setup();
	if (n >= ARRAY_SIZE(seeds))
		return 0;
	mem_reset(&image, NULL);
	mem_reset(&data_image, NULL);
	c.file = memory(&image, 0);
	c.opts = &seeds[n].o;
	if (fiber_run(loop, create_fiber, &c) != 0)
		abort();
	file_close(c.file);
	data_file = c.opts->data_file != NULL;
	use(seeds[n].plan);
	set_vm_state(24096);
	len = min_u64(image.size, size - PLAN);
	mem_read(&image, data, len, 0);
	memcpy(data + len, seeds[n].plan, PLAN);
	return len + PLAN;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	setup();
	if (size < PLAN)
		return 0;
	size -= PLAN;
	mem_reset(&image, NULL);
	mem_reset(&data_image, NULL);
	mem_write(&image, data, size, 0, true);
	data_file = size > 80 && data[7] >= 3 && (data[79] & QCOW2_INCOMPAT_DATA_FILE);
	use(data + size);
	repair(data + size);
	return 0;
}
