/* SPDX-License-Identifier: MIT */
/*
 * opts.h - options as QEMU users write them, "a.b=c,d=e" or as JSON, kept as flat pairs.
 *
 * A key names its way down: {"file": {"filename": "x"}} is file.filename=x, and element 2
 * of a list is key.2.  Numbers and booleans are kept as text.
 */
#ifndef BLOCKDEV_OPTS_H
#define BLOCKDEV_OPTS_H

#include "vmm/util/base.h"
#include "vmm/util/log.h"

struct opt {
	char *key;
	char *value; /* NULL: JSON's null */
};

struct opts {
	struct opt *v;
	size_t n;
};

/* All 0 or -errno with words. */
must_check int opts_parse(struct opts *o, const char *text, struct why *why);
must_check int opts_parse_json(struct opts *o, const char *text, struct why *why);
/* In place of a pair with that key, or behind the others. */
must_check int opts_set(struct opts *o, const char *key, const char *value);
/* What o does not have yet. */
must_check int opts_add_all(struct opts *o, const struct opts *from);
/* Moves all "prefix.rest" to out, as "rest". */
must_check int opts_take(struct opts *o, const char *prefix, struct opts *out);
bool opts_has(const struct opts *o, const char *key);
bool opts_has_under(const struct opts *o, const char *prefix);
/* NULL: not there, or null. */
const char *opts_get(const struct opts *o, const char *key);
void opts_del(struct opts *o, const char *key);
void opts_fini(struct opts *o);
/* "key=value,..." that opts_parse() reads; nulls are left out.  NULL: no memory. */
char *opts_text(const struct opts *o);

/* Values; *out is left alone if the key is not there. */
must_check int opts_bool(const struct opts *o, const char *key, bool *out, struct why *why);
must_check int opts_size(const struct opts *o, const char *key, uint64_t *out, struct why *why);
must_check int opts_number(const struct opts *o, const char *key, uint64_t *out, struct why *why);

#endif
