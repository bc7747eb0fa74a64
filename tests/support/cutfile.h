/* SPDX-License-Identifier: MIT */
/*
 * cutfile.h - a file in memory that remembers its writes, for tests of power loss and of errors.
 *
 * It can be rebuilt as a cut would have left it: everything that was flushed, and of what came
 * after the last flush any subset of sectors.
 */
#ifndef TESTS_SUPPORT_CUTFILE_H
#define TESTS_SUPPORT_CUTFILE_H

#include "blockdev/file/file.h"

struct cutfile_op {
	enum file_op op;
	uint64_t off, len;
	uint8_t *data; /* of a write */
};

struct cutfile {
	struct file file;
	struct file_stats stats;
	uint8_t *data;
	uint64_t size, room;
	struct cutfile_op *log; /* all but reads, since cutfile_log() */
	unsigned n_log;
	bool logging;
	int fail_at; /* fail the n-th operation that is no read from now, with -EIO; 0: none */
	struct list waiting;
	struct loop_work complete;
};

void cutfile_init(struct cutfile *m, struct loop *l);
void cutfile_free(struct cutfile *m);
/* Same content, nothing logged; a writes to a do not show in b. */
void cutfile_copy(struct cutfile *to, const struct cutfile *from);
/* Starts the log at the content of now; forgets what was logged. */
void cutfile_log(struct cutfile *m);
/*
 * Makes out what a cut just before log entry n leaves, beginning from base (the content when
 * the log started).  Unflushed sectors survive or not as the seed says; seed 0: all do, 1: none.
 */
void cutfile_cut(struct cutfile *out, const struct cutfile *base, const struct cutfile *m,
	unsigned n, unsigned seed);

/* Bytes of the content, for looking and for damaging. */
uint64_t mem_be64(const struct cutfile *m, uint64_t off);
void mem_set_be64(struct cutfile *m, uint64_t off, uint64_t v);
uint32_t mem_be32(const struct cutfile *m, uint64_t off);
void mem_set_be32(struct cutfile *m, uint64_t off, uint32_t v);
void mem_resize(struct cutfile *m, uint64_t size);

#endif
