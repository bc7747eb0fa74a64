/* SPDX-License-Identifier: MIT */
/*
 * trace.h - the log of one disk: a file that says what its guest and its host did, in order.
 *
 * The events of a log are numbered from 1, in the order in which they happened; that number is
 * the event's tick.  A request has two events, its submission and its completion; what the guest
 * or the user marks has one.  "A before B" means: A's completion has a lower tick than B's
 * submission (log.h).  What was not completed when the log ends has no second event.
 *
 * THE FILE, version 1; or 2, if the image has an external data file.  All numbers are
 * little-endian; a varint has 7 bits a byte, the lowest first, and the highest bit set in all bytes
 * but the last.
 *
 *   0   8  "SLUICLOG"
 *   8   4  version.  A reader refuses what it does not know.
 *   12  4  length of the header: where the first frame begins
 *   16  8  size of the guest's disk, bytes
 *   24  4  sector size: 512
 *   28  4  flags: 1 the disk held nothing but zeros; 2 the disk's cache mode was unsafe
 *   32  8  fingerprint of what the disk held at the beginning: trace_fingerprint(), summed up
 *   40  8  size of the image file at the beginning, bytes
 *   48  4  length of the image's name, and of its format's: behind each other, from byte 56 on
 *   52  4
 *       8  version 2, behind them: size of the external data file, bytes, more than 0
 *
 * Frames follow.  Whatever is behind the last whole one (right checksum) was cut off: it is left
 * out, and so is all behind a damaged one.
 *
 *   0   4  what: 'D' blocks of data, 'E' events; 0x100 set: the payload is compressed (zstd)
 *   4   4  bytes of payload that follow
 *   8   4  bytes of it when not compressed: at most 4 MiB
 *   12  4  CRC-32 (zlib's) of the payload as it is stored
 *
 * 'D': blocks of 4096 bytes, numbered from 1 through the whole file.  A block is there before the
 * events that name it.  'E': events, each a byte that says which, and then
 *
 *   1  guest's request:  op (enum blk_op; 5 cache off, 6 cache on), flags (1 FUA, 2 the cache was
 *      on at submission, 4 unmap), varints: first sector, sectors; of a write also its data
 *   2  its completion:   varint how many ticks after the submission, flags (2: the cache is on at
 *      completion), varint errno or 0
 *   3  host's operation on the image file: op (enum file_op; reads are not recorded), flags (8:
 *      the data are those of a guest's write, of which varint ticks ago comes before the rest; 16:
 *      on the external data file, which never changes its size),
 *      varints: offset, length in bytes; of a write also its data
 *   4  its completion:   as 2
 *   5  mark:             by whom (enum trace_by), varint length, text
 *
 * Data: for each 4096 bytes (the last block of a write may be shorter: padded with zeros) a varint:
 * 0 zeros; else 1 + z, where z = 2d or, if d is negative, -2d-1, and d = the block's number minus
 * that of the block named last and minus 1.  So what is new costs a byte, and equal blocks are
 * there once.
 */
#ifndef CRASH_TRACE_H
#define CRASH_TRACE_H

#include "blockdev/crash/log.h"
#include "vmm/util/log.h"

#define TRACE_BLOCK    4096u
#define TRACE_TEXT_MAX 4096u /* bytes of a mark */

struct trace_info {
	uint64_t disk_bytes;
	const char *image, *format; /* "": none */
	uint64_t image_bytes;
	uint64_t data_bytes;  /* of the external data file; 0: there is none */
	uint64_t fingerprint; /* 0 and blank: nothing but zeros */
	bool blank, unsafe;
};

enum trace_kind {
	TRACE_GUEST = 1,
	TRACE_GUEST_DONE,
	TRACE_HOST,
	TRACE_HOST_DONE,
	TRACE_MARK,
};
enum trace_by { TRACE_BY_PORT, TRACE_BY_SERIAL, TRACE_BY_USER, N_TRACE_BY };

/* Ops of TRACE_GUEST: enum blk_op, and these. */
#define TRACE_WCE_OFF 5
#define TRACE_WCE_ON  6

#define TRACE_FUA   1u /* TRACE_GUEST */
#define TRACE_WCE   2u /* TRACE_GUEST, TRACE_GUEST_DONE */
#define TRACE_UNMAP 4u /* TRACE_GUEST */
#define TRACE_SAME  8u /* TRACE_HOST: its data are those of the guest's request other */
#define TRACE_DATA_FILE 16u /* TRACE_HOST: on the external data file */

struct trace_event {
	enum trace_kind kind;
	uint8_t op, flags;
	enum trace_by by;  /* of a mark */
	int err;           /* of a completion, and of what it completes: 0 or -errno */
	uint64_t off, len; /* bytes */
	uint64_t tick;
	/* A completion's: tick of the submission.  A submission's: of its completion, or NEVER. */
	uint64_t other;
	uint64_t same; /* TRACE_SAME: tick of the guest's request that has the data */
	/* A mark's text, with an end; or, given to trace_writer_append(), the data of a write. */
	const void *data;
	uint64_t ref; /* the reader's own */
};

/* Does it come with data? */
static inline bool trace_has_data(const struct trace_event *e)
{
	return (e->kind == TRACE_GUEST && e->op == 1 /* BLK_WRITE */) ||
	       (e->kind == TRACE_HOST && e->op == FILE_WRITE);
}

/* ---- writing; any thread, but one at a time ---- */

struct trace_writer;
/* Is there nothing under this name, or something that may be written over?  0 or -errno. */
must_check int trace_writer_check(const char *path);
/* The file is made anew, but only in place of nothing or of another log.  0 or -errno with words.
 */
must_check int trace_writer_open(const char *path, const struct trace_info *info,
	struct trace_writer **out, struct why *why);
/*
 * The event gets the next tick, which is returned.  Errors are kept for trace_writer_close(), and
 * nothing more is written after the first.
 */
uint64_t trace_writer_append(struct trace_writer *w, const struct trace_event *e);
/* From now on what is written is compressed, as it is at first, or is not, which is faster. */
void trace_writer_compress(struct trace_writer *w, bool on);
/* All that was appended is given to the host's kernel.  0 or -errno. */
int trace_writer_flush(struct trace_writer *w);
/* Frees w.  0, or -errno: the log ends before its time. */
must_check int trace_writer_close(struct trace_writer *w);

/* What a sector that is not all zeros adds to the fingerprint of a disk. */
uint64_t trace_fingerprint(const void *sector, uint64_t number);
/* The sum of that over len bytes, which are the disk's from off on; whole sectors. */
uint64_t trace_fingerprint_of(const void *data, uint64_t len, uint64_t off);

/* ---- reading; one thread ---- */

struct trace {
	struct trace_info info;
	const struct trace_event *event; /* event[0] has tick 1 */
	uint64_t n_events;
	bool cut_off; /* the file goes on behind the last whole frame */
	struct trace_private *p;
};

/* 0 or -errno with words (path not included). */
must_check int trace_reader_open(const char *path, struct trace **out, struct why *why);
void trace_reader_close(struct trace *t);
/* The data of a write, len bytes, until the reader is closed; NULL: it cannot be read. */
const uint8_t *trace_data(struct trace *t, const struct trace_event *e);
/* Where trace_data() puts them, whether it did or not; NULL: the log has no data. */
const uint8_t *trace_place(const struct trace *t, const struct trace_event *e);
/* So many bytes of them were looked at: memory may be given back. */
void trace_used(struct trace *t, uint64_t bytes);

#define TRACE_LOG_HOST 1u /* with the host's operations */
#define TRACE_LOG_DATA 2u /* without, what data points to is not to be looked at */
/*
 * The log as model and oracle read it: of the guest's side all but what failed to be a request; of
 * an image and its data file as one file (window.h).
 * marks: *n_marks of them, to be freed; their texts and all data belong to the reader.  progress,
 * unless NULL: is told now and then of how many events so many are through.  0, or -errno with
 * words.
 */
must_check int trace_crash_log(struct trace *t, unsigned what, struct crash_log *log,
	struct crash_mark **marks, uint64_t *n_marks, void (*progress)(uint64_t done, uint64_t of),
	struct why *why);

#endif
