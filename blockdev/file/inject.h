/* SPDX-License-Identifier: MIT */
/*
 * inject.h - the fault filter that users drive: blkdebug's rules, options and break points.
 *
 * The format above names what it is about to do (file_event()).  A rule waits for an event,
 * in a state, and then makes the next operations fail, or changes the state, or holds the
 * request.
 */
#ifndef FILE_INJECT_H
#define FILE_INJECT_H

#include "blockdev/file/file.h"
#include "blockdev/opts.h"

/* Takes over below from success on; closing the result closes both. */
must_check int inject_open(struct file *below, struct file **out);
/* Rules and limits from options (config=, inject-error.N.event= ...), which are taken out of o. */
must_check int inject_options(struct file *f, struct opts *o, struct why *why);
/* What else such a file's options may hold. */
extern const char *const inject_keys[]; /* NULL-terminated */

/* The map of [off, off+len) is asked for.  0, or what a rule says. */
must_check int inject_status(struct inject *in, uint64_t off, uint64_t len);

must_check int inject_break(struct inject *in, const char *event, const char *tag);
must_check int inject_resume(struct inject *in, const char *tag);
must_check int inject_unbreak(struct inject *in, const char *tag);
bool inject_held(const struct inject *in, const char *tag);

#endif
