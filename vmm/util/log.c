/* SPDX-License-Identifier: MIT */
/*
 * log.c - one message, one line, one write(2).
 *
 * A line is put together in memory and written at once, so that threads do not
 * mix theirs.  Bytes that could steer a terminal are shown as '?': messages
 * quote file names and fields of image files, and both may be hostile.
 */
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "vmm/util/log.h"

#define LINE_MAX_BYTES 1024 /* longer messages are cut: nobody reads them on one line */

static const char *_Atomic log_before = NULL;
static _Atomic enum log_level log_upto = LOG_WARN;

void log_prefix(const char *prefix)
{
	log_before = prefix;
}

void log_level_set(enum log_level level)
{
	log_upto = level;
}

bool log_shows(enum log_level level)
{
	return level <= log_upto;
}

static void make_printable(char *s)
{
	for (; *s; s++)
		if ((unsigned char)*s < 0x20 || *s == 0x7f)
			*s = '?';
}

static void say(const char *before, const char *kind, const char *fmt, va_list ap)
{
	int saved = errno;
	char line[LINE_MAX_BYTES];
	size_t n = (size_t)snprintf(
		line, sizeof(line) - 1, "%s%s%s", before ? before : "", before ? ": " : "", kind);

	if (n < sizeof(line) - 1)
		vsnprintf(line + n, sizeof(line) - 1 - n, fmt, ap);
	make_printable(line);
	n = strlen(line);
	line[n++] = '\n';
	/* Nowhere to complain if standard error is gone. */
	if (write(STDERR_FILENO, line, n) < 0)
		errno = 0;
	errno = saved;
}

void log_msg(enum log_level level, const char *fmt, ...)
{
	static const char *const kind[] = {"", "warning: ", "", "debug: "};
	va_list ap;

	if (!log_shows(level))
		return;
	va_start(ap, fmt);
	say(log_before, kind[level], fmt, ap);
	va_end(ap);
}

void log_bare(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	say(NULL, "", fmt, ap);
	va_end(ap);
}

int why_set(struct why *why, int err, const char *fmt, ...)
{
	va_list ap;

	if (why && !why->text[0]) {
		va_start(ap, fmt);
		vsnprintf(why->text, sizeof(why->text), fmt, ap);
		va_end(ap);
	}
	return err;
}

const char *why_text(const struct why *why, int err)
{
	return why && why->text[0] ? why->text : strerror(-err);
}
