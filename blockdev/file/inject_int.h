/* SPDX-License-Identifier: MIT */
/*
 * inject_int.h - the fault filter from the inside; for inject.c and inject_rules.c only.
 */
#ifndef FILE_INJECT_INT_H
#define FILE_INJECT_INT_H

#include "blockdev/file/inject.h"

enum inject_act { INJECT_ERROR, INJECT_SET_STATE, INJECT_SUSPEND };

/* What an error applies to, as bits. */
enum inject_io { IO_READ, IO_WRITE, IO_ZEROES, IO_DISCARD, IO_FLUSH, IO_STATUS, N_INJECT_IO };
extern const char *const inject_io_names[]; /* NULL-terminated */

struct inject_rule {
	struct list link;
	enum inject_act act;
	enum file_event event;
	uint64_t state;     /* only in this state; 0: in any */
	uint64_t new_state; /* SET_STATE */
	int err;            /* ERROR: -errno, or 0 */
	unsigned io;        /* bits of enum inject_io */
	bool once, immediately, active;
	bool anywhere;
	uint64_t off; /* else only what touches this byte */
	char *tag;    /* SUSPEND */
};

struct inject {
	struct file file;
	struct list rules;
	struct list held; /* requests at a break point */
	uint64_t state, new_state;
};

/* The event of that name, or N_FILE_EVENTS. */
enum file_event inject_event_named(const char *name);
/* Of the filter; a copy. */
must_check int inject_add(struct inject *in, const struct inject_rule *rule);
struct inject *inject_of(struct file *f);

#endif
