/* SPDX-License-Identifier: MIT */
/*
 * aio.c - aio_read, aio_write, aio_flush: requests that run on while other commands do.
 *
 * A request is in flight from the command until it is reported; what becomes of it no
 * command's status tells.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/io/cmd.h"

struct aio {
	struct blk_req r;
	struct io *io;
	uint64_t start_ns;
	bool terse, quiet, dump, verify, zeroes;
	int pattern;
	unsigned flags;
	struct iovec *iov; /* NULL: zeroes */
};

static void aio_free(struct aio *a)
{
	if (a->iov)
		io_iov_free(a->io, a->iov);
	free(a);
}

static void aio_done(struct blk_req *r, int err)
{
	struct aio *a = container_of(r, struct aio, r);
	bool read = r->op == BLK_READ;

	a->io->in_flight--;
	err = io_told_err(a->io, r->off, r->len, err);
	if (err) {
		printf("%s failed: %s\n", read ? "readv" : "aio_write", strerror(-err));
		aio_free(a);
		return;
	}
	/* A failed check is told, and that is all. */
	if (read && a->verify && io_verify(a->iov[0].iov_base, r->len, a->pattern, r->off) != 0)
		err = -EINVAL;
	if (!a->quiet) {
		if (a->dump)
			io_dump(a->iov[0].iov_base, r->off, r->len);
		io_report(&(struct io_report){.op = read ? "read" : "wrote",
			.start_ns = a->start_ns,
			.off = r->off,
			.asked = r->len,
			.done = r->len,
			.ops = 1,
			.terse = a->terse});
	}
	aio_free(a);
}

/* The letters that both commands know.  1: the user asked for a request that cannot be. */
static int parse(
	const struct io_cmd *cmd, const char *letters, int argc, char **argv, struct aio *a)
{
	int c;

	while ((c = getopt(argc, argv, letters)) != -1) {
		switch (c) {
		case 'C':
			a->terse = true;
			break;
		case 'f':
			a->flags |= BLK_FUA;
			break;
		case 'i':
			printf("injecting invalid %s request\n", cmd->writes ? "write" : "read");
			return 1;
		case 'P':
			a->verify = true;
			if (io_pattern(optarg, &a->pattern))
				return -EINVAL;
			break;
		case 'q':
			a->quiet = true;
			break;
		case 'u':
			a->flags |= BLK_UNMAP;
			break;
		case 'v':
			a->dump = true;
			break;
		case 'z':
			a->zeroes = true;
			break;
		default:
			return io_usage(cmd);
		}
	}
	return optind > argc - 2 ? io_usage(cmd) : 0;
}

static int zero_range(struct aio *a, int n, char **words)
{
	if (n != 1) {
		printf("-z supports only a single length parameter\n");
		return -EINVAL;
	}
	a->r.op = BLK_ZEROES;
	return io_number(words[0], &a->r.len);
}

/* What follows the letters: offset and lengths. */
static int range(struct aio *a, int n, char **words)
{
	int err;

	if (!a->zeroes && (a->flags & BLK_UNMAP)) {
		printf("-u requires -z to be specified\n");
		return -EINVAL;
	}
	err = io_number(words[0], &a->r.off);
	if (err)
		return err;
	if (a->zeroes)
		return zero_range(a, n - 1, words + 1);
	a->r.niov = n - 1;
	return io_iov(a->io, n - 1, words + 1, a->pattern, &a->iov, &a->r.len);
}

static int run_aio(struct io *io, const char *name, const char *letters, int argc, char **argv)
{
	const struct io_cmd *cmd = io_find(name);
	struct aio *a = calloc(1, sizeof(*a));
	int err;

	if (!a)
		return -ENOMEM;
	a->io = io;
	a->r.op = cmd->writes ? BLK_WRITE : BLK_READ;
	a->r.done = aio_done;
	a->pattern = cmd->writes ? 0xcd : 0xab;
	err = parse(cmd, letters, argc, argv, a);
	if (!err)
		err = range(a, argc - optind, argv + optind);
	if (err) {
		aio_free(a);
		return err < 0 ? err : 0;
	}
	a->r.flags = a->flags;
	a->r.iov = a->iov;
	a->start_ns = loop_now_ns();
	io->in_flight++;
	disk_submit(io->disk, &a->r);
	return 0;
}

static int run_aio_read(struct io *io, int argc, char **argv)
{
	return run_aio(io, "aio_read", "CP:iqv", argc, argv);
}

static int run_aio_write(struct io *io, int argc, char **argv)
{
	return run_aio(io, "aio_write", "CfiP:quz", argc, argv);
}

static int run_aio_flush(struct io *io, int argc, char **argv)
{
	io_drain(io);
	return 0;
}

static const char help_aio_read[] =
	"\n"
	" asynchronously reads a range of bytes from the given offset\n"
	"\n"
	" Example:\n"
	" 'aio_read -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file\n"
	"\n"
	" Reads a segment of the currently open file, optionally dumping it to the\n"
	" standard output stream (with -v option) for subsequent inspection.\n"
	" The read is performed asynchronously and the aio_flush command must be\n"
	" used to ensure all outstanding aio requests have been completed.\n"
	" Note that due to its asynchronous nature, this command will be\n"
	" considered successful once the request is submitted, independently\n"
	" of potential I/O errors or pattern mismatches.\n"
	" -C, -- report statistics in a machine parsable format\n"
	" -P, -- use a pattern to verify read data\n"
	" -i, -- treat request as invalid, for exercising stats\n"
	" -v, -- dump buffer to standard output\n"
	" -q, -- quiet mode, do not show I/O statistics\n"
	"\n";

static const char help_aio_write[] =
	"\n"
	" asynchronously writes a range of bytes from the given offset source\n"
	" from multiple buffers\n"
	"\n"
	" Example:\n"
	" 'aio_write 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file\n"
	"\n"
	" Writes into a segment of the currently open file, using a buffer\n"
	" filled with a set pattern (0xcdcdcdcd).\n"
	" The write is performed asynchronously and the aio_flush command must be\n"
	" used to ensure all outstanding aio requests have been completed.\n"
	" Note that due to its asynchronous nature, this command will be\n"
	" considered successful once the request is submitted, independently\n"
	" of potential I/O errors or pattern mismatches.\n"
	" -P, -- use different pattern to fill file\n"
	" -C, -- report statistics in a machine parsable format\n"
	" -f, -- use Force Unit Access semantics\n"
	" -i, -- treat request as invalid, for exercising stats\n"
	" -q, -- quiet mode, do not show I/O statistics\n"
	" -u, -- with -z, allow unmapping\n"
	" -z, -- write zeroes using blk_aio_pwrite_zeroes\n"
	"\n";

const struct io_cmd io_aio_cmds[] = {
	{.name = "aio_read",
		.run = run_aio_read,
		.words_min = 2,
		.words_max = -1,
		.args = "[-Ciqv] [-P pattern] off len [len..]",
		.summary = "asynchronously reads a number of bytes",
		.help = help_aio_read},
	{.name = "aio_write",
		.run = run_aio_write,
		.words_min = 2,
		.words_max = -1,
		.writes = true,
		.args = "[-Cfiquz] [-P pattern] off len [len..]",
		.summary = "asynchronously writes a number of bytes",
		.help = help_aio_write},
	{.name = "aio_flush",
		.run = run_aio_flush,
		.summary = "completes all outstanding aio requests"},
	{0},
};
