/* SPDX-License-Identifier: MIT */
/*
 * options.h - option tables: one row is the parser, the help text and the man page's line.
 *
 * A table ends with a row without a name.  Values go to the offset that the row gives in the
 * caller's structure.  Errors name the bad word and the good ones.
 */
#ifndef VMM_OPTIONS_H
#define VMM_OPTIONS_H

#include <stdio.h>
#include "vmm/util/base.h"
#include "vmm/util/log.h"

enum opt_kind {
	OPT_FLAG,   /* bool; takes no value */
	OPT_ON_OFF, /* bool: on or off */
	OPT_STRING, /* const char *, into the words given */
	OPT_UINT,   /* unsigned, min..max */
	OPT_SIZE,   /* uint64_t bytes, min..max; suffixes k M G T; scale: of a bare number (0: 1) */
	OPT_ENUM,   /* int: index in names */
	OPT_CALL,   /* set() takes the value; may come more than once */
};

struct opt {
	const char *name;
	enum opt_kind kind;
	size_t off;
	const char *arg;  /* what the help calls the value */
	const char *help; /* one line or more */
	uint64_t min, max, scale;
	const char *const *names; /* NULL-terminated */
	int (*set)(void *obj, const char *value, struct why *why);
};

/* The columns that every row has. */
#define OPT(n, k, o, a, h) .name = (n), .kind = (k), .off = (o), .arg = (a), .help = (h)

#define OPTIONS_HELP 1
/*
 * A command's words (without the command's name), each -option or --option, values in the
 * next word or after '='.  0; OPTIONS_HELP if -h, -help or --help is among them; or -EINVAL with
 * words.
 */
must_check int options_parse(
	const struct opt *table, void *obj, int argc, char **argv, struct why *why);
/*
 * "key=value,key=value", where ",," is a comma in a value.  text is cut up and must stay.
 * what names the option in errors.
 */
must_check int options_parse_list(
	const struct opt *table, void *obj, char *text, const char *what, struct why *why);
/* The table as text; keys of a list are shown without the dash. */
void options_help(FILE *f, const struct opt *table, bool list);

/* "128M" and the like; 0 or -EINVAL. */
must_check int size_parse(const char *s, uint64_t scale, uint64_t *out);

#endif
