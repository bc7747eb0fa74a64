/* SPDX-License-Identifier: MIT */
/*
 * recording.h - a log as the commands that judge it use it, and how they speak of it.
 */
#ifndef POWERCUT_RECORDING_H
#define POWERCUT_RECORDING_H

#include <stdio.h>
#include "blockdev/crash/search.h"
#include "blockdev/crash/trace.h"

struct recording {
	const char *path;     /* of the log */
	const char *image;    /* that it began with, as the user named it; NULL: an empty one */
	const char *image_format; /* likewise; NULL: probed */
	struct crash_log log; /* both sides, with the guest's data */
	struct crash_mark *mark;
	uint64_t n_marks;
	uint64_t size; /* bytes, of the guest's disk */
	uint64_t n_writes, n_flushes, n_discards, written;
	struct trace *trace; /* who owns the data */
};

/*
 * what: TRACE_LOG_HOST, TRACE_LOG_DATA.  progress: on a terminal, how far it is.  0, or -errno with
 * words, path included; then closing it does no harm.
 */
must_check int recording_open(
	struct recording *r, const char *path, unsigned what, bool progress, struct why *why);
void recording_close(struct recording *r);

/*
 * Is an image of that size (bytes), with that fingerprint (trace.h), what the disk held at first?
 * Not every log knows.  0, or -EINVAL with words.
 */
must_check int recording_began_with(const struct recording *r, const char *image, uint64_t size,
	uint64_t fingerprint, struct why *why);

/* Which flush of the guest is operation i of its log: from 1; also turning the cache off is one. */
uint64_t recording_flush_number(const struct recording *r, uint32_t i);

/* "write of 8 sectors at 2048, event 812, acknowledged at 815" */
void recording_tell(const struct recording *r, uint32_t i, char *out, size_t room);
/* What a reason says in one line: what fails and when. */
void reason_title(const struct recording *r, const struct reason *why, char *out, size_t room);
/* Where a flush was missing; "" if none would have helped. */
void reason_flush(const struct recording *r, const struct reason *why, char *out, size_t room);
/* The line that builds the failing image again.  The caller frees. */
char *reason_replay(const struct recording *r, const struct reason *why, uint32_t unit);

/* When each guest operation became durable, by the contract; NEVER: it did not.  Caller frees. */
uint64_t *recording_durable(const struct recording *r);

/* One reason for failures, as the timeline tells it. */
struct told {
	char title[300], text[2][300]; /* "": no such line */
	const char *output;            /* of a check */
	char *replay;                  /* command line; NULL: none */
	uint64_t at;                   /* tick of the cut */
	const uint32_t *lost, *kept;   /* into the guest's log */
	uint32_t n_lost, n_kept;
	bool has_gap; /* is there a place for timeline.gap, between these ticks? */
	uint64_t gap_from, gap_to;
};
/* What the timeline shows; all may be NULL or 0 but the recording. */
struct timeline {
	const struct recording *r;
	bool judged;               /* the next five say something */
	uint64_t states, n_failed; /* cuts */
	const uint64_t *failed_at; /* ticks, ascending */
	const struct told *told;
	uint32_t n_told;
	const char *gap;         /* what a reason's gap is called */
	const uint8_t *verdicts; /* by flush: 0 not tried, 1 load-bearing, 2 never needed */
	const char *verdict;     /* one line */
};
/* Writes the page.  0, or -errno with words. */
must_check int timeline_write(const struct timeline *t, const char *path, struct why *why);
/* A reason that the search found; all that is pointed to stays why's, but for replay. */
struct told reason_told(const struct recording *r, const struct reason *why, uint32_t unit);

/* The options that explore and flushes share. */
struct judge_args {
	const char *log, *check, *image, *image_format, *html;
	bool overlay, json, progress, exhaustive, states_given;
	uint64_t states, seed, jobs, reasons;
	uint32_t unit;
	struct loop *loop;
	char *made; /* path of a starting image that is ours */
};
/*
 * Reads the options, opens the log, starts a loop, makes sure that there is a starting image and
 * the right one.  0: judge_args_over() is owed; 1: words were printed; -1: help was.
 */
int judge_args_begin(
	struct judge_args *a, struct recording *r, int argc, char **argv, const char *help);
void judge_args_over(struct judge_args *a, struct recording *r);
/* start.c's part of that.  0 or -errno with words. */
must_check int judge_args_start(struct judge_args *a, const struct recording *r, struct why *why);
struct search_opts judge_args_search(const struct judge_args *a, const struct recording *r);

int powercut_explore(int argc, char **argv);
int powercut_flushes(int argc, char **argv);
int powercut_judge(int argc, char **argv);
int powercut_verify(int argc, char **argv);
int powercut_info(int argc, char **argv);
int powercut_replay(int argc, char **argv);
int powercut_export(int argc, char **argv);
int powercut_import(int argc, char **argv);

#endif
