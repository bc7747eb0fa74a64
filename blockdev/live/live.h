/* SPDX-License-Identifier: MIT */
/*
 * live.h - a running guest's disk with a personality: its power can be cut, it fails, it is slow,
 * it gets full.
 *
 * live_new(), then disk_open() with live_tap(), live_watch(), the guest's life, live_watch(),
 * live_leave() if the power was cut, disk_close() or disk_abandon(), live_free().  Everything here
 * is called on the disk's loop except where it says otherwise.
 *
 * The power is cut between two events of the disk's thread.  A request of the guest arms the cut,
 * and it comes before the next fdatasync of the image begins or that request is answered, whatever
 * is first: so the power fails in that request.  After it every request fails with -ESHUTDOWN.
 */
#ifndef LIVE_LIVE_H
#define LIVE_LIVE_H

#include <stdio.h>
#include "blockdev/block.h"
#include "blockdev/crash/policy.h"
#include "blockdev/live/slow.h"

/* When the power is cut. */
enum live_trigger {
	LIVE_NEVER,   /* no powercut= */
	LIVE_FLUSH,   /* in the n-th flush */
	LIVE_WRITE,   /* in the n-th write (or write of zeros) */
	LIVE_BYTE,    /* in the write of the n-th byte */
	LIVE_SECTOR,  /* in the first write to sectors n to last */
	LIVE_AFTER,   /* when the n-th request that is no read has been answered */
	LIVE_SERIAL,  /* by a line on the serial port that matches text */
	LIVE_MARK,    /* by a mark that is text */
	LIVE_ASKED,  /* only when somebody asks for it, as may be with all others */
};

/* One request that fails with EIO: the n-th of its kind, or all that touch sectors. */
struct live_fail {
	enum { FAIL_READ, FAIL_WRITE, FAIL_FLUSH, FAIL_SECTOR } what;
	uint64_t n, last;
};
#define LIVE_FAILS_MAX 8

struct live_config {
	enum live_trigger trigger;
	uint64_t n, last;
	const char *text;
	enum cut_policy policy;
	uint64_t seed;
	uint32_t unit; /* of a torn write, in bytes; 0: none is torn */
	struct live_fail fail[LIVE_FAILS_MAX];
	unsigned n_fails;
	struct slow_delays delays;
	bool has_room;
	uint64_t room; /* bytes */
};

/* ---- words.c ---- */

/* The values of -drive's keys; NULL: not given. */
struct live_words {
	const char *powercut, *policy, *seed, *tear, *fail, *delay, *full;
};
/* The words stay the caller's.  0, or -EINVAL with words that name the key. */
must_check int live_parse(const struct live_words *w, struct live_config *out, struct why *why);
/* What is on: is there anything to be done? */
bool live_wanted(const struct live_config *c);
/* What asks for this cut again: "powercut=flush:12,policy=random,seed=7". */
void live_again(const struct live_config *c, char *out, size_t size);

/* ---- live.c ---- */

struct live;

/*
 * c stays the caller's; next (or NULL) is the tap of somebody else, outlives this one, and sees
 * what is above all this.  0, or -errno with words.
 */
must_check int live_new(
	const struct live_config *c, struct disk_tap *next, struct live **out, struct why *why);
void live_free(struct live *l);
struct disk_tap *live_tap(struct live *l);
/* Before the first request: cut(arg) is called on the loop when the power is cut. */
void live_on_cut(struct live *l, void (*cut)(void *arg), void *arg);
/* Now.  by: who asked, as in "by a signal", static; NULL: another drive's power is cut. */
void live_cut(struct live *l, const char *by);
extern const char live_by_line[], live_by_mark[]; /* when live_mark_cuts() says so */
/*
 * From now on requests are the guest's: they count, may fail and may be cut in; or are no more.  At
 * first they are not.
 */
void live_watch(struct live *l, bool on);
bool live_is_cut(const struct live *l);
/* Any thread, while the guest runs: does this line, or mark, cut the power? */
bool live_mark_cuts(const struct live *l, bool serial, const char *text, size_t len);
/*
 * The power was cut, nothing is in flight, not in a fiber: the image's file becomes what is left.
 * said: a line for the user, and again: one that repeats the cut, each LIVE_LINE bytes.  0, or
 * -errno.
 */
#define LIVE_LINE 512
must_check int live_leave(struct live *l, struct loop *loop, char *said, char *again);
/* What a cut, once live_leave() has returned, has left: writes, and ranges made zeros. */
struct live_left {
	uint64_t at_risk, kept, lost, torn;
};
struct live_left live_left(const struct live *l);
/* The trigger has not come: a line that says so and what did come; else false. */
bool live_missed(const struct live *l, char *said);

#endif
