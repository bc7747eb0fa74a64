/* SPDX-License-Identifier: MIT */
/* test_drive.c - a drive opens its disk on its own thread, and tells what closing it cost. */
#include <check.h>
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include "tests/support/scratch.h"
#include "vmm/drive.h"

/* One write of a sector, from another thread as a device would. */
struct job {
	struct loop_msg msg;
	struct fiber_start fiber;
	struct disk *disk;
	char thread[16];
	int err;
	sem_t done;
};

static void job_in_fiber(struct fiber_start *s)
{
	struct job *j = container_of(s, struct job, fiber);
	static const char sector[SECTOR] = "written through the drive";

	pthread_getname_np(pthread_self(), j->thread, sizeof(j->thread));
	j->err = disk_pwrite(j->disk, sector, SECTOR, SECTOR, 0);
	sem_post(&j->done);
}

static struct loop *job_loop;

static void job_on_loop(struct loop_msg *m)
{
	struct job *j = container_of(m, struct job, msg);

	fiber_start(job_loop, &j->fiber);
}

START_TEST(a_drive_works_on_its_own_thread_and_reports)
{
	const char *path = scratch_file(8 * SECTOR);
	struct drive_config c = {
		.disk = {.path = path, .format = "raw", .cache = CACHE_WRITETHROUGH},
		.aio = test_aio[_i]};
	struct job j = {.msg.fn = job_on_loop, .fiber.fn = job_in_fiber};
	struct drive_report r;
	struct why why = {{0}};
	struct drive *d;
	char got[SECTOR];

	ck_assert_int_eq(sem_init(&j.done, 0, 0), 0);
	ck_assert_msg(drive_open(&c, 3, &d, &why) == 0, "%s", why.text);
	j.disk = drive_disk(d);
	job_loop = drive_loop(d);
	loop_post(job_loop, &j.msg);
	ck_assert_int_eq(sem_wait(&j.done), 0);
	ck_assert_int_eq(j.err, 0);
	ck_assert_str_eq(j.thread, "drive3");
	ck_assert_int_eq(drive_close(d, &r, &why), 0);
	ck_assert(r.known);
	ck_assert_str_eq(r.name, "drive3");
	ck_assert_str_eq(r.format, "raw");
	ck_assert_str_eq(r.path, path);
	ck_assert_int_eq(r.cache, CACHE_WRITETHROUGH);
	ck_assert(!r.wce);
	ck_assert_uint_eq(r.total.writes, 1);
	ck_assert_uint_eq(r.total.write_bytes, SECTOR);
	ck_assert_uint_ge(r.total.host_fdatasyncs, 1);
	ck_assert_uint_le(r.running.host_fdatasyncs, r.total.host_fdatasyncs);
	scratch_read(path, got, SECTOR, SECTOR);
	ck_assert_str_eq(got, "written through the drive");
}
END_TEST

START_TEST(what_cannot_be_opened_is_told_with_its_name)
{
	static const struct {
		const char *path, *format, *words;
	} cases[] = {
		{"/nonexistent/a.img", "raw", "/nonexistent/a.img: No such file or directory"},
		{"/nonexistent/a.img", NULL, "/nonexistent/a.img: No such file or directory"},
		{"/", "raw", "/: Is a directory"},
		{NULL, "qcow2", "not in qcow2 format"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *path = cases[i].path ? cases[i].path : scratch_file(8192);
		struct drive_config c = {.disk = {.path = path, .format = cases[i].format}};
		struct why why = {{0}};
		struct drive *d;

		ck_assert_int_lt(drive_open(&c, 0, &d, &why), 0);
		ck_assert_msg(strstr(why.text, cases[i].words), "%s", why.text);
		ck_assert_msg(!strncmp(why.text, path, strlen(path)), "%s", why.text);
	}
}
END_TEST

static int job_name(struct drive *d, void *arg)
{
	pthread_getname_np(pthread_self(), arg, 16);
	disk_drain(drive_disk(d));
	return disk_size(drive_disk(d)) == 8 * SECTOR ? -EXDEV : 0;
}

START_TEST(a_job_runs_on_the_drives_thread_and_its_result_comes_back)
{
	struct drive_config c = {.disk = {.path = scratch_file(8 * SECTOR), .format = "raw"},
		.aio = test_aio[_i]};
	struct drive_report r;
	struct why why = {{0}};
	struct drive *d;
	char name[16];

	ck_assert_int_eq(drive_open(&c, 5, &d, &why), 0);
	for (int i = 0; i < 3; i++) {
		name[0] = 0;
		ck_assert_int_eq(drive_do(d, job_name, name), -EXDEV);
		ck_assert_str_eq(name, "drive5");
	}
	ck_assert_int_eq(drive_close(d, &r, &why), 0);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("drive");
	TCase *tc = tcase_create("drive");

	tcase_add_loop_test(tc, a_drive_works_on_its_own_thread_and_reports, 0, N_AIO);
	tcase_add_loop_test(
		tc, a_job_runs_on_the_drives_thread_and_its_result_comes_back, 0, N_AIO);
	tcase_add_test(tc, what_cannot_be_opened_is_told_with_its_name);
	suite_add_tcase(s, tc);
	return scratch_main(s);
}
