/* SPDX-License-Identifier: MIT */
/*
 * break.c - break, resume, wait_break, remove_break: requests held at an event of the fault
 * filter, to make others overtake them.
 */
#include <stdio.h>
#include <string.h>
#include "blockdev/io/cmd.h"

static int said(const char *what, const char *tag, int err)
{
	if (err)
		printf("Could not %s%s%s: %s\n", what, tag ? " " : "", tag ? tag : "",
			strerror(-err));
	return err;
}

static int run_break(struct io *io, int argc, char **argv)
{
	return said("set breakpoint", NULL, disk_break(io->disk, argv[1], argv[2]));
}

static int run_resume(struct io *io, int argc, char **argv)
{
	return said("resume request", NULL, disk_break_resume(io->disk, argv[1]));
}

static int run_wait(struct io *io, int argc, char **argv)
{
	while (!disk_break_held(io->disk, argv[1]))
		if (loop_turn(io->loop, true))
			break;
	return 0;
}

static int run_remove(struct io *io, int argc, char **argv)
{
	return said("remove breakpoint", argv[1], disk_break_remove(io->disk, argv[1]));
}

const struct io_cmd io_break_cmds[] = {
	{.name = "break",
		.run = run_break,
		.words_min = 2,
		.words_max = 2,
		.args = "event tag",
		.summary = "sets a breakpoint on event and tags the stopped request as tag"},
	{.name = "resume",
		.run = run_resume,
		.words_min = 1,
		.words_max = 1,
		.args = "tag",
		.summary = "resumes the request tagged as tag"},
	{.name = "wait_break",
		.run = run_wait,
		.words_min = 1,
		.words_max = 1,
		.args = "tag",
		.summary = "waits for the suspension of a request"},
	{.name = "remove_break",
		.run = run_remove,
		.words_min = 1,
		.words_max = 1,
		.args = "tag",
		.summary = "remove a breakpoint by tag"},
	{0},
};
