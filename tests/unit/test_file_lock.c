/* SPDX-License-Identifier: MIT */
/*
 * test_file_lock.c - image locks: between ourselves, and with QEMU's tools where installed.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "blockdev/file/file.h"
#include "blockdev/file/lock.h"
#include "tests/support/scratch.h"

static struct loop *l;
static const char *path;

static int try_open(unsigned flags, struct file **f, struct why *why)
{
	why->text[0] = 0;
	return file_open(l, path, flags, f, why);
}

static void setup(void)
{
	l = scratch_loop(0);
	path = scratch_file(1 * MiB);
}

static void teardown(void)
{
	loop_free(l);
}

static const char no_write[] = "Failed to get \"write\" lock\nIs another process using the image [";
static const char no_sharing[] =
	"Failed to get shared \"write\" lock\nIs another process using the image [";

START_TEST(a_second_writer_and_a_reader_beside_a_writer_are_refused)
{
	struct file *a, *b;
	struct why why;

	ck_assert_int_eq(try_open(FILE_RDWR, &a, &why), 0);
	ck_assert_int_eq(try_open(FILE_RDWR, &b, &why), -EAGAIN);
	ck_assert_ptr_eq(strstr(why.text, no_write), why.text);
	ck_assert_int_eq(try_open(FILE_RDONLY, &b, &why), -EAGAIN);
	ck_assert_ptr_eq(strstr(why.text, no_sharing), why.text);
	ck_assert_int_eq(try_open(FILE_RDONLY | FILE_NOLOCK, &b, &why), 0);
	file_close(b);
	file_close(a);
	/* The refused ones left nothing behind, and the lock went with its file. */
	ck_assert_int_eq(try_open(FILE_RDWR, &a, &why), 0);
	file_close(a);
}
END_TEST

START_TEST(readers_share_and_keep_a_writer_out)
{
	struct file *a, *b, *c;
	struct why why;

	ck_assert_int_eq(try_open(FILE_RDONLY, &a, &why), 0);
	ck_assert_int_eq(try_open(FILE_RDONLY, &b, &why), 0);
	ck_assert_int_eq(try_open(FILE_RDWR, &c, &why), -EAGAIN);
	ck_assert_ptr_eq(strstr(why.text, no_write), why.text);
	file_close(a);
	file_close(b);
}
END_TEST

static void *let_go(void *fd)
{
	usleep(120 * 1000);
	close(*(int *)fd);
	return NULL;
}

/* As that of a process that was killed, while the kernel clears up after it. */
START_TEST(a_lock_that_goes_soon_is_waited_for)
{
	int fd = open(path, O_RDWR | O_CLOEXEC);
	pthread_t thread;
	struct file *f;
	struct why why;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(image_lock(fd, true, &why), 0);
	ck_assert_int_eq(pthread_create(&thread, NULL, let_go, &fd), 0);
	ck_assert_int_eq(try_open(FILE_RDWR, &f, &why), 0);
	ck_assert_int_eq(pthread_join(thread, NULL), 0);
	file_close(f);
}
END_TEST

START_TEST(a_refused_create_changes_nothing)
{
	struct file *a, *b;
	struct why why;
	char buf[4096];

	ck_assert_int_eq(try_open(FILE_RDONLY, &a, &why), 0);
	ck_assert_int_eq(try_open(FILE_RDWR | FILE_CREATE, &b, &why), -EAGAIN);
	scratch_read(path, buf, sizeof(buf), 1 * MiB - sizeof(buf));
	ck_assert(scratch_same(buf, sizeof(buf), 1 * MiB - sizeof(buf)));
	file_close(a);
}
END_TEST

/* Exit status of a shell command that gets the image as $F; output in out. */
static int sh(const char *cmd, char *out, size_t size)
{
	char line[1024];
	FILE *p;
	size_t n;
	int status;

	snprintf(line, sizeof(line), "F='%s'; exec 2>&1; %s", path, cmd);
	p = popen(line, "r");
	ck_assert_ptr_nonnull(p);
	n = fread(out, 1, size - 1, p);
	out[n] = 0;
	status = pclose(p);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* Of a raw image QEMU shares everything; metadata it wants for itself. */
static void make_qcow2(void)
{
	char out[512];

	ck_assert_int_eq(sh("qemu-img create -q -f qcow2 \"$F\" 1M", out, sizeof(out)), 0);
}

START_TEST(qemu_respects_our_locks)
{
	struct file *f;
	struct why why;
	char out[4096];

	make_qcow2();
	ck_assert_int_eq(try_open(FILE_RDWR, &f, &why), 0);
	ck_assert_int_ne(sh("qemu-io -f qcow2 -c 'write 0 512' \"$F\"", out, sizeof(out)), 0);
	ck_assert_ptr_nonnull(strstr(out, "Failed to get \"write\" lock"));
	ck_assert_int_ne(sh("qemu-img info \"$F\"", out, sizeof(out)), 0);
	ck_assert_ptr_nonnull(strstr(out, "Failed to get shared \"write\" lock"));
	ck_assert_int_eq(sh("qemu-img info -U \"$F\"", out, sizeof(out)), 0);
	file_close(f);
	ck_assert_int_eq(try_open(FILE_RDONLY, &f, &why), 0);
	ck_assert_int_eq(sh("qemu-img info \"$F\"", out, sizeof(out)), 0);
	ck_assert_int_ne(sh("qemu-io -f qcow2 -c 'write 0 512' \"$F\"", out, sizeof(out)), 0);
	ck_assert_ptr_nonnull(strstr(out, "Failed to get \"write\" lock"));
	file_close(f);
	ck_assert_int_eq(sh("qemu-io -f qcow2 -c 'write 0 512' \"$F\"", out, sizeof(out)), 0);
}
END_TEST

/* qemu-io keeps the image open as long as its standard input is; it answers when it has it. */
static FILE *qemu_holds(const char *options)
{
	char line[1024];
	FILE *p;

	snprintf(line, sizeof(line), "qemu-io -f qcow2 %s '%s' >'%s.out' 2>&1", options, path,
		path);
	p = popen(line, "w");
	ck_assert_ptr_nonnull(p);
	fputs("length\n", p);
	fflush(p);
	snprintf(line, sizeof(line),
		"for i in $(seq 500); do grep -q MiB '%s.out' && exit; sleep .01; done; exit 1",
		path);
	ck_assert_int_eq(system(line), 0);
	return p;
}

static void qemu_ends(FILE *p)
{
	char out[512];

	ck_assert_int_eq(pclose(p), 0);
	snprintf(out, sizeof(out), "%s.out", path);
	unlink(out);
}

START_TEST(we_respect_the_locks_of_qemu)
{
	struct file *f;
	struct why why;
	FILE *p;

	make_qcow2();
	p = qemu_holds("");
	ck_assert_int_eq(try_open(FILE_RDWR, &f, &why), -EAGAIN);
	ck_assert_ptr_eq(strstr(why.text, no_write), why.text);
	ck_assert_int_eq(try_open(FILE_RDONLY, &f, &why), -EAGAIN);
	ck_assert_ptr_eq(strstr(why.text, no_sharing), why.text);
	ck_assert_int_eq(try_open(FILE_RDONLY | FILE_NOLOCK, &f, &why), 0);
	file_close(f);
	qemu_ends(p);
	p = qemu_holds("-r");
	ck_assert_int_eq(try_open(FILE_RDONLY, &f, &why), 0);
	file_close(f);
	ck_assert_int_eq(try_open(FILE_RDWR, &f, &why), -EAGAIN);
	ck_assert_ptr_eq(strstr(why.text, no_write), why.text);
	qemu_ends(p);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("file lock");
	TCase *t = tcase_create("lock");

	tcase_set_timeout(t, 30);
	tcase_add_checked_fixture(t, setup, teardown);
	tcase_add_test(t, a_second_writer_and_a_reader_beside_a_writer_are_refused);
	tcase_add_test(t, readers_share_and_keep_a_writer_out);
	tcase_add_test(t, a_lock_that_goes_soon_is_waited_for);
	tcase_add_test(t, a_refused_create_changes_nothing);
	if (system("command -v qemu-io >/dev/null && command -v qemu-img >/dev/null") == 0) {
		tcase_add_test(t, qemu_respects_our_locks);
		tcase_add_test(t, we_respect_the_locks_of_qemu);
	} else {
		puts("skip qemu_and_our_locks: qemu-utils is not installed");
	}
	suite_add_tcase(s, t);
	return scratch_main(s);
}
