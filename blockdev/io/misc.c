/* SPDX-License-Identifier: MIT */
/*
 * misc.c - flush, discard, length, truncate, sleep, sigraise, abort.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/file/file.h"
#include "blockdev/io/cmd.h"

static int run_flush(struct io *io, int argc, char **argv)
{
	int err = io_request(io, BLK_FLUSH, 0, NULL, 0, 0, 0);

	if (err)
		printf("flush failed: %s\n", strerror(-err));
	return err;
}

static int run_discard(struct io *io, int argc, char **argv)
{
	const struct io_cmd *cmd = io_find("discard");
	bool terse = false, quiet = false;
	uint64_t off, len, t;
	int c, err;

	while ((c = getopt(argc, argv, "Cq")) != -1) {
		if (c == 'C')
			terse = true;
		else if (c == 'q')
			quiet = true;
		else
			return io_usage(cmd);
	}
	if (optind != argc - 2)
		return io_usage(cmd);
	if (io_number(argv[optind], &off) || io_number(argv[optind + 1], &len))
		return -EINVAL;
	if (len > IO_BYTES_MAX) {
		printf("length cannot exceed %llu, given %s\n", IO_BYTES_MAX, argv[optind + 1]);
		return -EINVAL;
	}
	t = loop_now_ns();
	err = io_request(io, BLK_DISCARD, 0, NULL, 0, off, len);
	if (err)
		printf("discard failed: %s\n", strerror(-err));
	else if (!quiet)
		io_report(&(struct io_report){.op = "discard",
			.start_ns = t,
			.off = off,
			.asked = len,
			.done = len,
			.ops = 1,
			.terse = terse});
	return err;
}

static int run_length(struct io *io, int argc, char **argv)
{
	char text[64];

	printf("%s\n", io_size((double)disk_size(io->disk), text, sizeof(text)));
	return 0;
}

struct resize {
	struct disk *d;
	uint64_t size;
	enum prealloc how;
	struct why why;
};

static int resize_fiber(void *arg)
{
	struct resize *r = arg;

	return disk_resize(r->d, r->size, r->how, &r->why);
}

static int run_truncate(struct io *io, int argc, char **argv)
{
	static const char *const modes[] = {"off", "metadata", "falloc", "full"};
	struct resize r = {.d = io->disk};
	int c, err;

	while ((c = getopt(argc, argv, "m:")) != -1) {
		bool known = false;

		if (c != 'm')
			return io_usage(io_find("truncate"));
		for (size_t i = 0; i < ARRAY_SIZE(modes); i++)
			if (!strcmp(modes[i], optarg)) {
				known = true;
				r.how = (enum prealloc)i;
			}
		if (!known) {
			log_error("Invalid preallocation mode '%s'", optarg);
			return -EINVAL;
		}
	}
	if (optind != argc - 1)
		return io_usage(io_find("truncate"));
	if (io_number(argv[optind], &r.size))
		return -EINVAL;
	if (!strcmp(disk_format(io->disk), "raw")) {
		r.size = round_up(r.size, SECTOR);
	} else if (r.size % SECTOR) {
		log_error("The new size must be a multiple of 512");
		return -EINVAL;
	}
	err = fiber_run(io->loop, resize_fiber, &r);
	if (err)
		log_error("%s%s", r.why.text[0] ? "" : "Failed to resize the image: ",
			why_text(&r.why, err));
	return err;
}

struct nap {
	struct loop_timer timer;
	bool over;
};

static void nap_over(struct loop_timer *t)
{
	container_of(t, struct nap, timer)->over = true;
}

static int run_sleep(struct io *io, int argc, char **argv)
{
	struct nap nap = {.timer.fn = nap_over};
	char *end;
	long ms;

	errno = 0;
	ms = strtol(argv[1], &end, 0);
	if (errno || *end || end == argv[1] || ms < 0 || ms > 1000000000) {
		printf("%s is not a valid number\n", argv[1]);
		return -EINVAL;
	}
	loop_timer_set(io->loop, &nap.timer, loop_now_ns() + (uint64_t)ms * 1000000);
	while (!nap.over)
		if (loop_turn(io->loop, true))
			break;
	loop_timer_cancel(io->loop, &nap.timer);
	return 0;
}

static int run_sigraise(struct io *io, int argc, char **argv)
{
	uint64_t sig;

	if (io_number(argv[1], &sig))
		return -EINVAL;
	if (sig > NSIG) {
		printf("signal argument '%s' is too large to be a valid signal\n", argv[1]);
		return -EINVAL;
	}
	fflush(stdout);
	raise((int)sig);
	return 0;
}

static int run_abort(struct io *io, int argc, char **argv)
{
	abort();
}

static const char help_discard[] =
	"\n"
	" discards a range of bytes from the given offset\n"
	"\n"
	" Example:\n"
	" 'discard 512 1k' - discards 1 kilobyte from 512 bytes into the file\n"
	"\n"
	" Discards a segment of the currently open file.\n"
	" -C, -- report statistics in a machine parsable format\n"
	" -q, -- quiet mode, do not show I/O statistics\n"
	"\n";

static const char help_sigraise[] =
	"\n"
	" raises the given signal\n"
	"\n"
	" Example:\n"
	" 'sigraise 15' - raises SIGTERM\n"
	"\n"
	" Invokes raise(signal), where \"signal\" is the mandatory integer argument\n"
	" given to sigraise.\n"
	"\n";

const struct io_cmd io_misc_cmds[] = {
	{.name = "flush",
		.alias = "f",
		.run = run_flush,
		.summary = "flush all in-core file state to disk"},
	{.name = "discard",
		.alias = "d",
		.run = run_discard,
		.words_min = 2,
		.words_max = -1,
		.writes = true,
		.args = "[-Cq] off len",
		.summary = "discards a number of bytes at a specified offset",
		.help = help_discard},
	{.name = "length",
		.alias = "l",
		.run = run_length,
		.summary = "gets the length of the current file"},
	{.name = "truncate",
		.alias = "t",
		.run = run_truncate,
		.words_min = 1,
		.words_max = 3,
		.writes = true,
		.args = "[-m prealloc_mode] off",
		.summary = "truncates the current file at the given offset"},
	{.name = "sleep",
		.run = run_sleep,
		.words_min = 1,
		.words_max = 1,
		.without_image = true,
		.summary = "waits for the given value in milliseconds"},
	{.name = "sigraise",
		.run = run_sigraise,
		.words_min = 1,
		.words_max = 1,
		.without_image = true,
		.args = "signal",
		.summary = "raises a signal",
		.help = help_sigraise},
	{.name = "abort",
		.run = run_abort,
		.without_image = true,
		.summary = "simulate a program crash using abort(3)"},
	{0},
};
