/* SPDX-License-Identifier: MIT */
/*
 * write.c - write and writev.
 */
#include <stdio.h>
#include <string.h>
#include "blockdev/io/cmd.h"

struct write_opts {
	bool vmstate, compressed, terse, fua, no_fallback, quiet, unmap, zeroes;
	bool has_pattern;
	int pattern;
	const char *file;
};

static int parse(
	const struct io_cmd *cmd, const char *letters, int argc, char **argv, struct write_opts *o)
{
	int c;

	o->pattern = 0xcd;
	while ((c = getopt(argc, argv, letters)) != -1) {
		switch (c) {
		case 'b':
			o->vmstate = true;
			break;
		case 'c':
			o->compressed = true;
			break;
		case 'C':
			o->terse = true;
			break;
		case 'f':
			o->fua = true;
			break;
		case 'n':
			o->no_fallback = true;
			break;
		case 'p': /* once chose between two calls */
			break;
		case 'P':
			o->has_pattern = true;
			if (io_pattern(optarg, &o->pattern))
				return -EINVAL;
			break;
		case 'q':
			o->quiet = true;
			break;
		case 's':
			o->file = optarg;
			break;
		case 'u':
			o->unmap = true;
			break;
		case 'z':
			o->zeroes = true;
			break;
		default:
			return io_usage(cmd);
		}
	}
	return 0;
}

static int contradiction(const struct write_opts *o)
{
	const char *what = NULL;

	if (o->vmstate && o->zeroes)
		what = "-b and -z cannot be specified at the same time";
	else if (o->fua && (o->vmstate || o->compressed))
		what = "-f and -b or -c cannot be specified at the same time";
	else if (o->no_fallback && !o->zeroes)
		what = "-n requires -z to be specified";
	else if (o->unmap && !o->zeroes)
		what = "-u requires -z to be specified";
	else if (o->zeroes + o->has_pattern + (o->file != NULL) > 1)
		what = "Only one of -z, -P, and -s can be specified at the same time";
	if (what)
		printf("%s\n", what);
	return what ? -EINVAL : 0;
}

static void report(const struct write_opts *o, uint64_t start_ns, uint64_t off, uint64_t len)
{
	if (o->quiet)
		return;
	io_report(&(struct io_report){.op = "wrote",
		.start_ns = start_ns,
		.off = off,
		.asked = len,
		.done = len,
		.ops = 1,
		.terse = o->terse});
}

struct edge {
	struct disk *d;
	uint64_t off, len;
};

static int edge_fiber(void *arg)
{
	struct edge *g = arg;
	struct extent e;

	for (uint64_t at = g->off; at < g->off + g->len; at += e.len) {
		int err = disk_map(g->d, at, g->off + g->len - at, &e);

		if (err)
			return err;
		if (e.kind == EXTENT_DATA)
			return -ENOTSUP;
	}
	return 0;
}

/* Can it be done by tables alone?  Clusters that are cut must read as zeros already. */
static int check_fast(struct io *io, uint64_t off, uint64_t len)
{
	uint64_t size = disk_cluster_size(io->disk), disk = disk_size(io->disk);
	uint64_t ends[2] = {off, off + len};

	for (int i = 0; size && len && i < 2; i++) {
		uint64_t start = round_down(ends[i], size);
		struct edge g = {io->disk, start, min_u64(size, disk - start)};
		int err;

		if (ends[i] == start || ends[i] == disk)
			continue;
		err = fiber_run(io->loop, edge_fiber, &g);
		if (err)
			return err;
	}
	return 0;
}

static int submit(
	struct io *io, const struct write_opts *o, struct iovec *iov, uint64_t off, uint64_t len)
{
	unsigned flags = (o->fua ? BLK_FUA : 0) | (o->unmap ? BLK_UNMAP : 0);

	if (o->vmstate)
		return io_vmstate(io, iov->iov_base, off, len, true);
	if (o->no_fallback && range_within(off, len, disk_size(io->disk))) {
		int err = check_fast(io, off, len);

		if (err)
			return err;
	}
	if (o->zeroes)
		return io_request(io, BLK_ZEROES, flags, NULL, 0, off, len);
	if (o->compressed)
		flags |= BLK_COMPRESSED;
	return io_request(io, BLK_WRITE, flags, iov, 1, off, len);
}

static int run_write(struct io *io, int argc, char **argv)
{
	const struct io_cmd *cmd = io_find("write");
	struct write_opts o = {0};
	struct iovec iov = {NULL, 0};
	uint64_t off, len, t;
	int err = parse(cmd, "bcCfnpP:qs:uz", argc, argv, &o);

	if (err)
		return err;
	if (optind != argc - 2)
		return io_usage(cmd);
	if (contradiction(&o) || io_number(argv[optind], &off) || io_number(argv[optind + 1], &len))
		return -EINVAL;
	if (len > IO_BYTES_MAX && !o.no_fallback) {
		printf("length cannot exceed %llu without -n, given %s\n", IO_BYTES_MAX,
			argv[optind + 1]);
		return -EINVAL;
	}
	if ((o.vmstate || o.compressed) && io_not_aligned(off, len))
		return -EINVAL;
	if (!o.zeroes) {
		iov.iov_len = len;
		iov.iov_base = o.file ? io_buf_from(io, len, o.file) : io_buf(io, len, o.pattern);
		if (!iov.iov_base)
			return -EINVAL;
	}
	t = loop_now_ns();
	err = submit(io, &o, &iov, off, len);
	if (err)
		printf("write failed: %s\n", strerror(-err));
	else
		report(&o, t, off, len);
	io_buf_free(io, iov.iov_base);
	return err;
}

static int run_writev(struct io *io, int argc, char **argv)
{
	const struct io_cmd *cmd = io_find("writev");
	struct write_opts o = {0};
	struct iovec *iov;
	uint64_t off, len, t;
	int err = parse(cmd, "CfqP:", argc, argv, &o);

	if (err)
		return err;
	if (optind > argc - 2)
		return io_usage(cmd);
	if (io_number(argv[optind], &off))
		return -EINVAL;
	optind++;
	err = io_iov(io, argc - optind, argv + optind, o.pattern, &iov, &len);
	if (err)
		return err;
	t = loop_now_ns();
	err = io_request(io, BLK_WRITE, o.fua ? BLK_FUA : 0, iov, argc - optind, off, len);
	if (err)
		printf("writev failed: %s\n", strerror(-err));
	else
		report(&o, t, off, len);
	io_iov_free(io, iov);
	return err;
}

static const char help_write[] =
	"\n"
	" writes a range of bytes from the given offset\n"
	"\n"
	" Example:\n"
	" 'write 512 1k' - writes 1 kilobyte at 512 bytes into the open file\n"
	"\n"
	" Writes into a segment of the currently open file, using a buffer\n"
	" filled with a set pattern (0xcdcdcdcd).\n"
	" -b, -- write to the VM state rather than the virtual disk\n"
	" -c, -- write compressed data with blk_write_compressed\n"
	" -f, -- use Force Unit Access semantics\n"
	" -n, -- with -z, don't allow slow fallback\n"
	" -p, -- ignored for backwards compatibility\n"
	" -P, -- use different pattern to fill file\n"
	" -s, -- use a pattern file to fill the write buffer\n"
	" -C, -- report statistics in a machine parsable format\n"
	" -q, -- quiet mode, do not show I/O statistics\n"
	" -u, -- with -z, allow unmapping\n"
	" -z, -- write zeroes using blk_co_pwrite_zeroes\n"
	"\n";

static const char help_writev[] =
	"\n"
	" writes a range of bytes from the given offset source from multiple buffers\n"
	"\n"
	" Example:\n"
	" 'writev 512 1k 1k' - writes 2 kilobytes at 512 bytes into the open file\n"
	"\n"
	" Writes into a segment of the currently open file, using a buffer\n"
	" filled with a set pattern (0xcdcdcdcd).\n"
	" -P, -- use different pattern to fill file\n"
	" -C, -- report statistics in a machine parsable format\n"
	" -f, -- use Force Unit Access semantics\n"
	" -q, -- quiet mode, do not show I/O statistics\n"
	"\n";

const struct io_cmd io_write_cmds[] = {
	{.name = "write",
		.alias = "w",
		.run = run_write,
		.words_min = 2,
		.words_max = -1,
		.writes = true,
		.args = "[-bcCfnquz] [-P pattern | -s source_file] off len",
		.summary = "writes a number of bytes at a specified offset",
		.help = help_write},
	{.name = "writev",
		.run = run_writev,
		.words_min = 2,
		.words_max = -1,
		.writes = true,
		.args = "[-Cfq] [-P pattern] off len [len..]",
		.summary = "writes a number of bytes at a specified offset",
		.help = help_writev},
	{0},
};
