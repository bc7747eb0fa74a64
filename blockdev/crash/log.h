/* SPDX-License-Identifier: MIT */
/*
 * log.h - what happened, on both sides of the block layer, on one clock.
 *
 * Every submission and every completion is an event and takes the next tick. The
 * host's side is recorded by a file filter (data included), the guest's by whoever drives
 * the disk.  "A before B" then means: A's completion tick is below B's submission tick;
 * anything else is concurrent, whatever the order of the log.
 */
#ifndef CRASH_LOG_H
#define CRASH_LOG_H

#include "blockdev/file/file.h"
#include "blockdev/file/watch.h"

#define NEVER UINT64_MAX /* tick of something that has not happened */

struct host_op {
	enum file_op op;   /* reads are not recorded */
	uint64_t off, len; /* bytes; FILE_FDATASYNC: what it covers, len 0: all from off on */
	uint8_t *data;     /* FILE_WRITE */
	bool through;      /* durable by itself once it has completed: a write that was FUA */
	uint64_t submitted, completed;
	int err;
};

/* A write of zeros is a GUEST_WRITE of version 0. */
enum guest_kind { GUEST_WRITE, GUEST_DISCARD, GUEST_FLUSH, GUEST_WCE_OFF, GUEST_WCE_ON };

struct guest_op {
	enum guest_kind kind;
	bool fua, wce_at_submit, wce_at_end;
	uint64_t sector, n; /* of 512 bytes */
	uint32_t version;   /* what was written; unique, but for zeros: 0 */
	/* Of a recorded guest, which knows no versions; NULL: zeros.  Lives elsewhere. */
	const uint8_t *data;
	uint64_t submitted, acknowledged;
	int err;
};

struct crash_mark {
	uint64_t at; /* tick */
	const char *text;
};

struct crash_log {
	uint64_t clock; /* of the last event */
	struct host_op *host;
	uint64_t n_host, room_host;
	struct guest_op *guest;
	uint64_t n_guest, room_guest;
	struct file_watch watch; /* trace_open()'s */
	bool lent;               /* the data are somebody else's, who wants to know how much was */
	void (*used)(void *arg, uint64_t bytes); /* looked at, to give memory back; or NULL */
	void *used_arg;
};

void crash_log_init(struct crash_log *log);
void crash_log_fini(struct crash_log *log);

/* A filter that records what passes; the log stays the caller's, and in its place. Takes f over.  0
 * or -ENOMEM. */
must_check int trace_open(struct file *f, struct crash_log *log, struct file **out);

/* The guest's side: the index of the operation, for crash_log_ack(). */
uint64_t crash_log_submit(struct crash_log *log, const struct guest_op *op);
void crash_log_ack(struct crash_log *log, uint64_t i, bool wce, int err);

#endif
