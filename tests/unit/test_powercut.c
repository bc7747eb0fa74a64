/* SPDX-License-Identifier: MIT */
/*
 * test_powercut.c - sluice powercut explore and flushes, from a log to what they say and draw.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/crash/trace.h"
#include "blockdev/powercut/powercut.h"
#include "tests/support/image.h"
#include "tests/support/scratch.h"

#define SIZE (1 * MiB)
#define CHECK                                                                                      \
	"p=$(head -c 1 {}); [ \"$p\" != P ] || "                                                   \
	"[ $(tail -c +51201 {} | head -c 2048 | tr -dc D | wc -c) = 2048 ] || "                    \
	"{ echo no data; exit 3; }"

static uint8_t block_d[4 * SECTOR], block_p[SECTOR], block_x[SECTOR];

static void both(struct trace_writer *w, uint8_t op, uint64_t sector, uint64_t n, const void *data)
{
	struct trace_event e = {.kind = TRACE_GUEST,
		.op = op,
		.flags = TRACE_WCE,
		.off = sector * SECTOR,
		.len = n * SECTOR,
		.data = data};
	struct trace_event done = {.kind = TRACE_GUEST_DONE, .flags = TRACE_WCE};

	done.other = trace_writer_append(w, &e);
	ck_assert_uint_gt(trace_writer_append(w, &done), done.other);
}

static void mark(struct trace_writer *w, const char *text)
{
	struct trace_event e = {
		.kind = TRACE_MARK, .by = TRACE_BY_SERIAL, .data = text, .len = strlen(text)};

	(void)trace_writer_append(w, &e);
}

/* Data, then a pointer that says that they are there; between them a flush, or not. */
static const char *new_log(bool flush, bool blank)
{
	static char path[300];
	struct trace_info info = {.disk_bytes = SIZE, .image = "", .format = "", .blank = blank};
	struct trace_writer *w;

	memset(block_d, 'D', sizeof(block_d));
	memset(block_p, 'P', sizeof(block_p));
	memset(block_x, 'x', sizeof(block_x));
	snprintf(path, sizeof(path), "%s", image_path("log"));
	unlink(path);
	ck_assert_int_eq(trace_writer_open(path, &info, &w, NULL), 0);
	both(w, BLK_WRITE, 500, 1, block_x);
	both(w, BLK_FLUSH, 0, 0, NULL);
	mark(w, "start </script>");
	both(w, BLK_WRITE, 100, 4, block_d);
	if (flush)
		both(w, BLK_FLUSH, 0, 0, NULL);
	both(w, BLK_WRITE, 0, 1, block_p);
	both(w, BLK_FLUSH, 0, 0, NULL);
	both(w, BLK_WRITE, 501, 1, block_x);
	both(w, BLK_FLUSH, 0, 0, NULL);
	ck_assert_int_eq(trace_writer_close(w), 0);
	return path;
}

/* Runs it; what it printed is in out.  Its exit status. */
static int run(char *out, size_t room, const char *const *words)
{
	const char *path = image_path("output");
	int fd, status, argc = 0;
	ssize_t n;
	pid_t pid;

	while (words[argc])
		argc++;
	pid = fork();
	if (!pid) {
		fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		dup2(fd, 1);
		dup2(fd, 2);
		status = powercut_main(argc, (char **)(uintptr_t)words);
		fflush(NULL);
		_exit(status);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	fd = open(path, O_RDONLY);
	n = read(fd, out, room - 1);
	ck_assert_int_ge(n, 0);
	out[n] = 0;
	close(fd);
	unlink(path);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
#define RUN(out, ...) run(out, sizeof(out), (const char *const[]){"powercut", __VA_ARGS__, NULL})

static char *slurp(const char *path)
{
	FILE *f = fopen(path, "r");
	char *s = calloc(1, 1 << 20);

	ck_assert(f && s);
	ck_assert_uint_gt(fread(s, 1, (1 << 20) - 1, f), 0);
	fclose(f);
	return s;
}

START_TEST(a_missing_flush_is_found_and_drawn)
{
	char out[8192], html[300];
	const char *log = new_log(false, true);
	json_t *j, *r;
	char *page;

	snprintf(html, sizeof(html), "%s", image_path("html"));
	ck_assert_int_eq(RUN(out, "explore", log, "--check", CHECK, "--json", "--html", html), 2);
	j = json_loads(out, 0, NULL);
	ck_assert_msg(j != NULL, "%s", out);
	ck_assert_int_gt(json_integer_value(json_object_get(j, "failed")), 0);
	ck_assert_uint_eq(json_array_size(json_object_get(j, "reasons")), 1);
	r = json_array_get(json_object_get(j, "reasons"), 0);
	ck_assert_int_eq(json_integer_value(json_object_get(r, "status")), 3);
	ck_assert_str_eq(json_string_value(json_object_get(r, "output")), "no data");
	ck_assert_str_eq(json_string_value(json_object_get(r, "mark")), "start </script>");
	/* Events: 1 2 write, 3 4 flush, 5 mark, 6 7 data, 8 9 pointer. */
	r = json_object_get(r, "missing_flush");
	ck_assert_int_eq(json_integer_value(json_object_get(r, "after")), 7);
	ck_assert_int_eq(json_integer_value(json_object_get(r, "before")), 8);
	json_decref(j);
	page = slurp(html);
	ck_assert(strstr(page, "const D = {clock:15,disk:"));
	ck_assert(strstr(page, "start \\u003c/script>"));
	ck_assert(strstr(page, "fails if the write of event 6 is lost"));
	free(page);
	unlink(html);
	ck_assert_int_eq(RUN(out, "explore", log, "--check", CHECK), 2);
	ck_assert(
		strstr(out, "missing: a flush after event 7 and before event 8; flush #1 (event 3)"
			    " is too early, flush #2 (event 10) too late"));
	ck_assert(strstr(out, "again: sluice powercut replay "));
	ck_assert(strstr(out, "--policy subset=all,-6 "));
	unlink(log);
}
END_TEST

START_TEST(with_it_nothing_fails)
{
	char out[8192];
	const char *log = new_log(true, true);

	ck_assert_int_eq(RUN(out, "explore", log, "--check", CHECK, "--exhaustive"), 0);
	ck_assert(strstr(out, "0 failed"));
	ck_assert_int_eq(RUN(out, "flushes", log, "--check", CHECK, "--json"), 0);
	json_t *j = json_loads(out, 0, NULL), *f;
	static const bool bears[] = {false, true, false, false};

	ck_assert_msg(j != NULL, "%s", out);
	f = json_object_get(j, "flushes");
	ck_assert_uint_eq(json_array_size(f), 4);
	for (size_t i = 0; i < 4; i++)
		ck_assert_int_eq(
			json_is_true(json_object_get(json_array_get(f, i), "load_bearing")),
			bears[i]);
	json_decref(j);
	ck_assert_int_eq(RUN(out, "flushes", log, "--check", CHECK), 0);
	ck_assert(strstr(out, "4 flushes: 1 bear a load, 3 were never needed"));
	unlink(log);
}
END_TEST

START_TEST(the_users_mistakes)
{
	char out[8192], image[300];
	const char *log = new_log(true, false);

	ck_assert_int_eq(RUN(out, "explore", log), 1);
	ck_assert(strstr(out, "--check is missing"));
	ck_assert_int_eq(RUN(out, "explore", log, "--check", CHECK), 1);
	ck_assert(strstr(out, "--image is missing"));
	ck_assert_int_eq(RUN(out, "explore", log, "--check", CHECK, "--image", "/no/such"), 1);
	ck_assert(strstr(out, "/no/such: No such file"));
	ck_assert_int_eq(RUN(out, "explore", "/no/such", "--check", CHECK), 1);
	ck_assert_int_eq(RUN(out, "explore", "--check", CHECK), 1);
	ck_assert(strstr(out, "which log?"));
	ck_assert_int_eq(RUN(out, "explore", log, log, "--check", CHECK), 1);
	ck_assert_int_eq(RUN(out, "explore", log, "--tear", "7"), 1);
	ck_assert(strstr(out, "expected 512, 4096 or none"));
	ck_assert_int_eq(RUN(out, "explore", log, "--jobs", "0"), 1);
	ck_assert_int_eq(RUN(out, "explore", log, "--frobnicate"), 1);
	ck_assert_int_eq(RUN(out, "nothing"), 1);
	ck_assert_int_eq(RUN(out, "explore", "--help"), 0);
	ck_assert_int_eq(RUN(out, "--help"), 0);
	snprintf(image, sizeof(image), "%s", image_path("start"));
	image_create_raw(image, SIZE);
	ck_assert_int_eq(
		RUN(out, "explore", log, "--image", image, "--check", "no-such-command"), 1);
	ck_assert(strstr(out, "cannot be run"));
	unlink(image);
	unlink(log);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("powercut");
	TCase *t = tcase_create("powercut");

	tcase_set_timeout(t, 120);
	tcase_add_test(t, a_missing_flush_is_found_and_drawn);
	tcase_add_test(t, with_it_nothing_fails);
	tcase_add_test(t, the_users_mistakes);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
