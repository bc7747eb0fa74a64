/* SPDX-License-Identifier: MIT */
/*
 * log.h - messages for people, one line each, on standard error.
 *
 * "sluice run: a.qcow2: No such file or directory".  An error is printed once,
 * by whoever gives up; below that it travels as -errno plus, where words help,
 * a struct why that the caller provides.
 */
#ifndef UTIL_LOG_H
#define UTIL_LOG_H

#include "vmm/util/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/* Text to put before every message; points to static storage ("sluice run"). */
void log_prefix(const char *prefix);
void log_level_set(enum log_level level);
bool log_shows(enum log_level level);
void log_msg(enum log_level level, const char *fmt, ...) printf_like(2, 3);
/* An error as other programs' users know it: without the prefix. */
void log_bare(const char *fmt, ...) printf_like(1, 2);

#define log_error(...) log_msg(LOG_ERROR, __VA_ARGS__)
#define log_warn(...)  log_msg(LOG_WARN, __VA_ARGS__)
#define log_info(...)  log_msg(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_msg(LOG_DEBUG, __VA_ARGS__)

/*
 * The words that go with a -errno on its way up.  Every function that takes one
 * either leaves it empty (strerror says it all) or fills it; NULL is allowed.
 */
struct why {
	char text[1280]; /* file names may be long */
};

/* Sets the words if nobody below has yet; returns err, so that 'return why_set(...)' reads well. */
int why_set(struct why *why, int err, const char *fmt, ...) printf_like(3, 4);
/* The words, or strerror(-err) where there are none. */
const char *why_text(const struct why *why, int err);

#endif
