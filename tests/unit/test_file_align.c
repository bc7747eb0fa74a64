/* SPDX-License-Identifier: MIT */
/*
 * test_file_align.c - the align filter: O_DIRECT for callers that keep no alignment.
 *
 * Part of the tests run on a file system with O_DIRECT, part on an invented layer below that
 * checks alignment itself and holds requests back until told, so that they meet.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/file/engine.h"
#include "blockdev/file/file.h"
#include "tests/support/scratch.h"

#define BLOCK 512U
#define DISK  (64 * 1024U)

/* The layer below: a disk in memory with blocks. */
struct held {
	struct file file;
	char disk[DISK];
	struct list queue;
	bool hold_writes;
	unsigned writes, reads;
};

static void held_do(struct held *h, struct file_req *r)
{
	uint64_t at = r->off;

	for (int i = 0; i < r->niov; i++) {
		char *p = r->iov[i].iov_base;

		if (r->op == FILE_READ)
			memcpy(p, h->disk + at, r->iov[i].iov_len);
		else
			memcpy(h->disk + at, p, r->iov[i].iov_len);
		at += r->iov[i].iov_len;
	}
	if (r->op == FILE_PUNCH)
		memset(h->disk + r->off, 0, r->len);
	file_finish(&h->file, r, 0);
}

static void held_submit(struct file *f, struct file_req *r)
{
	struct held *h = container_of(f, struct held, file);

	ck_assert_uint_eq(r->off % BLOCK, 0);
	ck_assert_uint_eq(r->len % BLOCK, 0);
	ck_assert_uint_le(r->off + r->len, DISK);
	for (int i = 0; i < r->niov; i++) {
		ck_assert_uint_eq((uintptr_t)r->iov[i].iov_base % BLOCK, 0);
		ck_assert_uint_eq(r->iov[i].iov_len % BLOCK, 0);
	}
	h->reads += r->op == FILE_READ;
	h->writes += r->op != FILE_READ;
	if (h->hold_writes && r->op != FILE_READ)
		list_add_tail(&h->queue, &r->link);
	else
		held_do(h, r);
}

static uint64_t held_size(struct file *f)
{
	return DISK;
}

static void held_close(struct file *f)
{
}

static const struct file_ops held_ops = {
	.name = "held", .submit = held_submit, .size = held_size, .close = held_close};

static struct held disk; /* each test is a process of its own */

static struct file *open_held(struct loop *l)
{
	struct file *f;

	disk.file = (struct file){
		.ops = &held_ops, .loop = l, .align_off = BLOCK, .align_mem = BLOCK};
	list_init(&disk.queue);
	for (unsigned i = 0; i < DISK; i++)
		disk.disk[i] = (char)scratch_byte(i);
	ck_assert_int_eq(align_open(&disk.file, &f), 0);
	return f;
}

static void turns(struct loop *l)
{
	for (int i = 0; i < 5; i++)
		ck_assert_int_eq(loop_turn(l, false), 0);
}

static void release_one(struct loop *l)
{
	struct list *n = list_pop(&disk.queue);

	ck_assert_ptr_nonnull(n);
	held_do(&disk, list_entry(n, struct file_req, link));
	turns(l);
}

struct write {
	struct file_req r;
	struct iovec iov;
	char *buf;
	bool done;
};

static void write_done(struct file_req *r, int err)
{
	ck_assert_int_eq(err, 0);
	container_of(r, struct write, r)->done = true;
}

/* Memory is aligned as the layer below wants it, so only place and length decide. */
static struct write *start_write(struct file *f, int byte, uint64_t off, uint64_t len)
{
	struct write *w = calloc(1, sizeof(*w));

	w->buf = file_buf(len);
	memset(w->buf, byte, len);
	w->iov = (struct iovec){w->buf, len};
	w->r = (struct file_req){.done = write_done, .op = FILE_WRITE, .iov = &w->iov, .niov = 1,
		.off = off, .len = len};
	file_submit(f, &w->r);
	turns(f->loop);
	return w;
}

static void drop(struct write *w)
{
	ck_assert(w->done);
	free(w->buf);
	free(w);
}

START_TEST(an_aligned_write_passes_without_reading_and_together_with_others)
{
	struct loop *l = scratch_loop(0);
	struct file *f = open_held(l);
	struct write *a, *b;

	disk.hold_writes = true;
	a = start_write(f, 1, 512, 1024);
	b = start_write(f, 2, 1024, 1024); /* overlaps, both whole blocks: nobody's business */
	ck_assert_uint_eq(disk.writes, 2);
	ck_assert_uint_eq(disk.reads, 0);
	release_one(l);
	release_one(l);
	drop(a);
	drop(b);
	file_close(f);
	loop_free(l);
}
END_TEST

START_TEST(two_writes_into_one_block_keep_each_others_bytes)
{
	struct loop *l = scratch_loop(0);
	struct file *f = open_held(l);
	struct write *a, *b, *c;

	disk.hold_writes = true;
	a = start_write(f, 1, 100, 50);
	b = start_write(f, 2, 200, 50);
	c = start_write(f, 3, 2100, 50); /* elsewhere: does not wait */
	ck_assert_uint_eq(disk.writes, 2);
	ck_assert_uint_eq(disk.reads, 2);
	release_one(l);
	ck_assert(a->done && !b->done);
	release_one(l);
	release_one(l);
	ck_assert(scratch_same(disk.disk, 100, 0));
	ck_assert_int_eq(disk.disk[100] + disk.disk[149], 2);
	ck_assert_int_eq(disk.disk[200] + disk.disk[249], 4);
	ck_assert_int_eq(disk.disk[2100] + disk.disk[2149], 6);
	ck_assert(scratch_same(disk.disk + 250, 1850, 250));
	drop(a);
	drop(b);
	drop(c);
	file_close(f);
	loop_free(l);
}
END_TEST

START_TEST(an_aligned_write_waits_for_a_partial_one_and_the_other_way_round)
{
	struct loop *l = scratch_loop(0);
	struct file *f = open_held(l);
	struct write *a, *b, *c, *d;

	disk.hold_writes = true;
	a = start_write(f, 1, 100, 50);	    /* block 0, partly */
	b = start_write(f, 2, 0, 1024);	    /* blocks 0 and 1: after a */
	c = start_write(f, 3, 1000, 10);    /* block 1, partly: after b */
	d = start_write(f, 4, 512, 512);    /* block 1: after c, although a is not near */
	ck_assert_uint_eq(disk.writes, 1);
	for (int i = 0; i < 4; i++) {
		ck_assert_uint_eq(disk.writes, i + 1);
		release_one(l);
	}
	drop(a);
	drop(b);
	drop(c);
	drop(d);
	for (int i = 0; i < 512; i++)
		ck_assert_int_eq(disk.disk[i], 2);
	for (int i = 512; i < 1024; i++)
		ck_assert_int_eq(disk.disk[i], 4);
	file_close(f);
	loop_free(l);
}
END_TEST

/* Random requests against a model; all memory is as unaligned as it gets. */
static int random_work(void *arg)
{
	struct file *f = arg;
	char *model = malloc(DISK), *buf = malloc(DISK);
	unsigned seed = 7;

	for (unsigned i = 0; i < DISK; i++)
		model[i] = (char)scratch_byte(i);
	for (int k = 0; k < 2000; k++) {
		uint64_t off = (unsigned)rand_r(&seed) % DISK, len;
		struct iovec iov[2];

		len = 1 + (unsigned)rand_r(&seed) % min_u64(DISK - off, k % 10 ? 3000 : DISK);
		iov[0] = (struct iovec){buf + 1, len / 3};
		iov[1] = (struct iovec){buf + 1 + len / 3, len - len / 3};
		switch (k % 3) {
		case 0:
			memset(buf, k, DISK);
			memset(model + off, k, len);
			ck_assert_int_eq(file_pwritev(f, iov, 2, off), 0);
			break;
		case 1:
			ck_assert_int_eq(file_preadv(f, iov, 2, off), 0);
			ck_assert_mem_eq(buf + 1, model + off, len);
			break;
		default:
			len = min_u64(len, 2000);
			memset(model + off, 0, len);
			ck_assert_int_eq(file_punch(f, off, len), 0);
		}
	}
	ck_assert_int_eq(file_pread(f, buf, DISK, 0), 0);
	ck_assert_mem_eq(buf, model, DISK);
	free(model);
	free(buf);
	return 0;
}

START_TEST(random_work_is_as_in_memory)
{
	struct loop *l = scratch_loop(_i);
	struct file *f = open_held(l);

	ck_assert_int_eq(fiber_run(l, random_work, f), 0);
	file_close(f);
	loop_free(l);
}
END_TEST

START_TEST(random_work_on_a_real_file)
{
	struct loop *l = scratch_loop(_i);
	const char *path = scratch_file(DISK);
	struct why why = {""};
	struct file *f;
	int err = file_open(l, path, FILE_RDWR | FILE_DIRECT, &f, &why);

	/* Some file systems cannot: they must say so. */
	if (err) {
		ck_assert_int_eq(err, -EINVAL);
		ck_assert_int_ne(why.text[0], 0);
		loop_free(l);
		return;
	}
	ck_assert_int_eq(fiber_run(l, random_work, f), 0);
	file_close(f);
	loop_free(l);
}
END_TEST

static int large_unaligned(void *arg)
{
	enum { LEN = 3 * 1024 * 1024 + 777 };
	struct file *f = arg;
	char *out = malloc(LEN), *in = malloc(LEN);

	for (int i = 0; i < LEN; i++)
		out[i] = (char)scratch_byte((uint64_t)i * 3);
	ck_assert_int_eq(file_pwrite(f, out, LEN, 333), 0);
	ck_assert_uint_ge(file_size(f), 333 + LEN);
	ck_assert_uint_lt(file_size(f), 333 + LEN + 4096);
	ck_assert_int_eq(file_pread(f, in, LEN, 333), 0);
	ck_assert_mem_eq(in, out, LEN);
	memset(in, 1, LEN);
	ck_assert_int_eq(file_pread(f, in, 333, 0), 0);
	for (int i = 0; i < 333; i++)
		ck_assert_int_eq(in[i], 0);
	free(out);
	free(in);
	return 0;
}

START_TEST(longer_than_the_bounce_buffer_and_beyond_the_end)
{
	struct loop *l = scratch_loop(_i);
	struct file *f;

	if (file_open(l, scratch_file(0), FILE_RDWR | FILE_DIRECT, &f, NULL) == 0) {
		ck_assert_int_eq(fiber_run(l, large_unaligned, f), 0);
		file_close(f);
	}
	loop_free(l);
}
END_TEST

/* As many fibers as there are, each waiting for a bounced request. */
struct crowd {
	struct fiber_start s;
	struct file *f;
	int i;
};

static int crowd_done;

static void crowd_main(struct fiber_start *s)
{
	struct crowd *c = container_of(s, struct crowd, s);
	char byte = (char)c->i;

	ck_assert_int_eq(file_pwrite(c->f, &byte, 1, (uint64_t)c->i), 0);
	crowd_done++;
}

START_TEST(fibers_that_wait_for_bounced_requests_do_not_starve_them)
{
	enum { N = 2 * FIBERS_MAX };
	struct loop *l = scratch_loop(0);
	struct file *f = open_held(l);
	struct crowd *c = calloc(N, sizeof(*c));

	for (int i = 0; i < N; i++) {
		c[i] = (struct crowd){.s.fn = crowd_main, .f = f, .i = i};
		fiber_start(l, &c[i].s);
	}
	for (int i = 0; i < 100 * N && crowd_done < N; i++)
		ck_assert_int_eq(loop_turn(l, false), 0);
	ck_assert_int_eq(crowd_done, N);
	for (int i = 0; i < N; i++)
		ck_assert_int_eq(disk.disk[i], (char)i);
	free(c);
	file_close(f);
	loop_free(l);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file align");
	TCase *t = tcase_create("align");

	tcase_set_timeout(t, 30);
	tcase_add_test(t, an_aligned_write_passes_without_reading_and_together_with_others);
	tcase_add_test(t, two_writes_into_one_block_keep_each_others_bytes);
	tcase_add_test(t, an_aligned_write_waits_for_a_partial_one_and_the_other_way_round);
	tcase_add_loop_test(t, random_work_is_as_in_memory, 0, N_AIO);
	tcase_add_loop_test(t, random_work_on_a_real_file, 0, N_AIO);
	tcase_add_loop_test(t, longer_than_the_bounce_buffer_and_beyond_the_end, 0, N_AIO);
	tcase_add_test(t, fibers_that_wait_for_bounced_requests_do_not_starve_them);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
