/* SPDX-License-Identifier: MIT */
/*
 * checker.h - lets a command judge states: builds the image of each and runs the command on it.
 *
 * So many places (jobs) as may run at once; each has an image of its own, which turns from one
 * state into the next by writing what differs.  A place whose command wrote to the image begins
 * anew with a copy of the starting image.  Or, on request, each state is a new qcow2 overlay over
 * it.
 *
 * The command is given to sh: "{}" in it is the image's path, which also is $1 and $IMAGE; $SCRATCH
 * is an empty directory of its own, $MARK the last mark that the guest had set before the cut (""
 * if none), $MARKS their number, $EVENT the cut.  Status 0: the state is all right.
 */
#ifndef CRASH_CHECKER_H
#define CRASH_CHECKER_H

#include "blockdev/crash/cuts.h"
#include "blockdev/crash/guest_disk.h"
#include "vmm/util/log.h"

struct checker;

struct checker_opts {
	const char *command;
	const char *start; /* path of the image that the log began with; only ever read */
	const char *start_format;
	bool overlay; /* qcow2 over start, and not raw */
	unsigned jobs;
	uint64_t size; /* bytes, of the guest's disk */
};

struct checker_facts { /* what the command is told besides */
	const char *mark;
	uint64_t marks;
};

struct checker_result {
	uint64_t tag;
	bool holds;
	int status;       /* exit status, or 128 and the signal's number */
	char output[400]; /* the end of what it printed */
};

/* All of opts stays the caller's.  0 or -errno with words. */
must_check int checker_new(struct loop *l, const struct checker_opts *o, const struct guest_disk *g,
	struct checker **out, struct why *why);
/* Ends what runs, removes all files. */
void checker_free(struct checker *c);
/* Is there a place free?  If not checker_wait() makes one. */
bool checker_free_place(const struct checker *c);
/* Begins with the state in k's hand (cuts_is_new() took it).  0 or -errno with words. */
must_check int checker_start(struct checker *c, struct cuts *k, const struct checker_facts *f,
	uint64_t tag, struct why *why);
/* In the place of a command: only the image, under this name.  0 or -errno with words. */
must_check int checker_build(struct checker *c, struct cuts *k, const char *path, struct why *why);
/*
 * Waits for one to end.  1: it did; 0: none runs; -errno with words: the command could not be run
 * (status 126 and 127), or -EINTR.
 */
must_check int checker_wait(struct checker *c, struct checker_result *r, struct why *why);

#endif
