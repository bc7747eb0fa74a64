/* SPDX-License-Identifier: MIT */
/*
 * cmd.h - what the commands of sluice io share.
 *
 * A group of commands is one file that ends in its table; shell.c knows all tables, finds
 * the command, checks the number of its words, and that there is an image it may write to.
 * A command that fails has said why, and returns -errno.
 */
#ifndef IO_CMD_H
#define IO_CMD_H

#include <getopt.h>
#include <sys/uio.h>
#include "blockdev/block.h"

/* What one request may carry: all of a signed 32-bit count that is whole sectors. */
#define IO_BYTES_MAX 2147483136ULL

/* How the image was opened, to open it again with changes. */
struct io_how {
	char *name;    /* as given; NULL: all is in options */
	char *options; /* key=value,... or NULL */
	char *format;
	enum cache_mode cache;
	bool readonly, unlocked, unmap, temporary, copy_on_read;
	bool native_aio; /* changes nothing, but that the cache must be bypassed */
};

struct io {
	struct loop *loop;
	struct disk *disk; /* NULL: none open */
	struct io_how how;
	unsigned in_flight; /* asynchronous requests */
	bool misaligned;    /* buffers start at odd addresses */
	bool image_opts;    /* what open is given are options */
	bool quit;
};

struct io_cmd {
	const char *name, *alias;
	int (*run)(struct io *io, int argc, char **argv); /* 0 or -errno */
	int words_min, words_max;                         /* after the name; max -1: no limit */
	bool without_image;                               /* can do without an open image */
	bool writes;
	const char *args, *summary;
	const char *help; /* NULL: there is no more to say */
};
extern const struct io_cmd io_read_cmds[], io_write_cmds[], io_aio_cmds[], io_misc_cmds[],
	io_map_cmds[], io_open_cmds[], io_break_cmds[], io_shell_cmds[];

/* ---- shell.c ---- */

/* One line: 0 or -errno. */
int io_run_line(struct io *io, const char *line);
/* Prints the one line of usage; returns -EINVAL, for a command to end with. */
int io_usage(const struct io_cmd *cmd);
/* The command of that name or alias, or NULL. */
const struct io_cmd *io_find(const char *name);

/* ---- open.c ---- */

/* Opens what how says, and keeps it from then on.  0, or -errno said. */
must_check int io_open(struct io *io, const struct io_how *how);
/* Closes the image, if one is open. */
void io_close(struct io *io);
/* cache=, discard=, aio= as users write them; said if wrong. */
must_check int io_parse_cache(const char *text, struct io_how *how);
must_check int io_parse_discard(const char *text, struct io_how *how);
must_check int io_parse_aio(const char *text, struct io_how *how);

/* ---- text.c ---- */

/* An offset or a length, 0..INT64_MAX; said if it is none. */
must_check int io_number(const char *text, uint64_t *out);
/* For what is done by whole sectors; said. */
bool io_not_aligned(uint64_t off, uint64_t len);
/* "1.500 KiB" */
const char *io_size(double bytes, char *buf, size_t room);
must_check int io_pattern(const char *text, int *out);
/* The bytes in lines of 16, beginning with off. */
void io_dump(const void *buf, uint64_t off, uint64_t len);

/* What a request did, as one line or two; op is a word like "wrote". */
struct io_report {
	const char *op;
	uint64_t start_ns, off, asked, done;
	int ops;
	bool terse;
};
void io_report(const struct io_report *r);

/* ---- buf.c ---- */

/* Memory for a request, filled with a byte; io_buf_free() gives it back.  NULL: said. */
void *io_buf(const struct io *io, uint64_t len, int fill);
void io_buf_free(const struct io *io, void *buf);
/* The same, filled with a file's bytes over and over. */
void *io_buf_from(const struct io *io, uint64_t len, const char *path);
/* Words of lengths to an iov on one buffer.  0 or -EINVAL, said. */
must_check int io_iov(
	const struct io *io, int n, char **words, int fill, struct iovec **iov, uint64_t *len);
void io_iov_free(const struct io *io, struct iovec *iov);
/* All of [buf, buf+len) is pattern; else says where it is not, as an offset into the image. */
must_check int io_verify(const void *buf, uint64_t len, int pattern, uint64_t off);

/* One request, waited for.  0 or -errno. */
must_check int io_request(struct io *io, enum blk_op op, unsigned flags, struct iovec *iov,
	int niov, uint64_t off, uint64_t len);
/* The same in the room behind the disk where a machine's state is kept. */
must_check int io_vmstate(struct io *io, void *buf, uint64_t off, uint64_t len, bool write);
/* Until no request is in flight. */
void io_drain(struct io *io);
/* What a request that touches bytes outside of the disk, or fails, is said to have failed with. */
int io_told_err(const struct io *io, uint64_t off, uint64_t len, int err);

#endif
