/* SPDX-License-Identifier: MIT */
/*
 * read.c - read and readv.
 */
#include <stdio.h>
#include <string.h>
#include "blockdev/io/cmd.h"

struct read_opts {
	bool terse, quiet, dump, vmstate;
	bool verify, has_start, has_len;
	int pattern;
	uint64_t start, len;
};

static int parse(
	const struct io_cmd *cmd, const char *letters, int argc, char **argv, struct read_opts *o)
{
	int c;

	while ((c = getopt(argc, argv, letters)) != -1) {
		int err = 0;

		switch (c) {
		case 'b':
			o->vmstate = true;
			break;
		case 'C':
			o->terse = true;
			break;
		case 'l':
			o->has_len = true;
			err = io_number(optarg, &o->len);
			break;
		case 'p': /* once chose between two calls */
			break;
		case 'P':
			o->verify = true;
			err = io_pattern(optarg, &o->pattern);
			break;
		case 'q':
			o->quiet = true;
			break;
		case 's':
			o->has_start = true;
			err = io_number(optarg, &o->start);
			break;
		case 'v':
			o->dump = true;
			break;
		default:
			return io_usage(cmd);
		}
		if (err)
			return err;
	}
	return 0;
}

/* After the read: what was asked to be seen of it. */
static int show(
	const struct read_opts *o, const void *buf, uint64_t off, uint64_t len, uint64_t start_ns)
{
	int err = 0;

	if (o->verify)
		err = io_verify((const char *)buf + o->start, o->has_len ? o->len : len - o->start,
			o->pattern, off + o->start);
	if (o->quiet)
		return err;
	if (o->dump)
		io_dump(buf, off, len);
	io_report(&(struct io_report){.op = "read",
		.start_ns = start_ns,
		.off = off,
		.asked = len,
		.done = len,
		.ops = 1,
		.terse = o->terse});
	return err;
}

static int run_read(struct io *io, int argc, char **argv)
{
	const struct io_cmd *cmd = io_find("read");
	struct read_opts o = {0};
	struct iovec iov;
	uint64_t off, len, t;
	int err = parse(cmd, "bCl:pP:qs:v", argc, argv, &o);

	if (err)
		return err;
	if (optind != argc - 2)
		return io_usage(cmd);
	if (io_number(argv[optind], &off) || io_number(argv[optind + 1], &len))
		return -EINVAL;
	if (len > IO_BYTES_MAX) {
		printf("length cannot exceed %llu, given %s\n", IO_BYTES_MAX, argv[optind + 1]);
		return -EINVAL;
	}
	if (!o.verify && (o.has_len || o.has_start))
		return io_usage(cmd);
	if (o.start > len || (o.has_len && o.len > len - o.start)) {
		printf("pattern verification range exceeds end of read data\n");
		return -EINVAL;
	}
	if (o.vmstate && io_not_aligned(off, len))
		return -EINVAL;
	iov = (struct iovec){io_buf(io, len, 0xab), len};
	if (!iov.iov_base)
		return -ENOMEM;
	t = loop_now_ns();
	err = o.vmstate ? io_vmstate(io, iov.iov_base, off, len, false)
			: io_request(io, BLK_READ, 0, &iov, 1, off, len);
	if (err)
		printf("read failed: %s\n", strerror(-err));
	else
		err = show(&o, iov.iov_base, off, len, t);
	io_buf_free(io, iov.iov_base);
	return err;
}

static int run_readv(struct io *io, int argc, char **argv)
{
	const struct io_cmd *cmd = io_find("readv");
	struct read_opts o = {0};
	struct iovec *iov;
	uint64_t off, len, t;
	int err = parse(cmd, "CP:qv", argc, argv, &o);

	if (err)
		return err;
	if (optind > argc - 2)
		return io_usage(cmd);
	if (io_number(argv[optind], &off))
		return -EINVAL;
	optind++;
	err = io_iov(io, argc - optind, argv + optind, 0xab, &iov, &len);
	if (err)
		return err;
	t = loop_now_ns();
	err = io_request(io, BLK_READ, 0, iov, argc - optind, off, len);
	if (err)
		printf("readv failed: %s\n", strerror(-err));
	else
		err = show(&o, iov[0].iov_base, off, len, t);
	io_iov_free(io, iov);
	return err;
}

static const char help_read[] =
	"\n"
	" reads a range of bytes from the given offset\n"
	"\n"
	" Example:\n"
	" 'read -v 512 1k' - dumps 1 kilobyte read from 512 bytes into the file\n"
	"\n"
	" Reads a segment of the currently open file, optionally dumping it to the\n"
	" standard output stream (with -v option) for subsequent inspection.\n"
	" -b, -- read from the VM state rather than the virtual disk\n"
	" -C, -- report statistics in a machine parsable format\n"
	" -l, -- length for pattern verification (only with -P)\n"
	" -p, -- ignored for backwards compatibility\n"
	" -P, -- use a pattern to verify read data\n"
	" -q, -- quiet mode, do not show I/O statistics\n"
	" -s, -- start offset for pattern verification (only with -P)\n"
	" -v, -- dump buffer to standard output\n"
	"\n";

static const char help_readv[] =
	"\n"
	" reads a range of bytes from the given offset into multiple buffers\n"
	"\n"
	" Example:\n"
	" 'readv -v 512 1k 1k ' - dumps 2 kilobytes read from 512 bytes into the file\n"
	"\n"
	" Reads a segment of the currently open file, optionally dumping it to the\n"
	" standard output stream (with -v option) for subsequent inspection.\n"
	" Uses multiple iovec buffers if more than one byte range is specified.\n"
	" -C, -- report statistics in a machine parsable format\n"
	" -P, -- use a pattern to verify read data\n"
	" -v, -- dump buffer to standard output\n"
	" -q, -- quiet mode, do not show I/O statistics\n"
	"\n";

const struct io_cmd io_read_cmds[] = {
	{.name = "read",
		.alias = "r",
		.run = run_read,
		.words_min = 2,
		.words_max = -1,
		.args = "[-abCqv] [-P pattern [-s off] [-l len]] off len",
		.summary = "reads a number of bytes at a specified offset",
		.help = help_read},
	{.name = "readv",
		.run = run_readv,
		.words_min = 2,
		.words_max = -1,
		.args = "[-Cqv] [-P pattern] off len [len..]",
		.summary = "reads a number of bytes at a specified offset",
		.help = help_readv},
	{0},
};
