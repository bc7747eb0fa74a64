/* SPDX-License-Identifier: MIT */
/*
 * options.h - the -o options of create, convert and amend: names, values, help.
 *
 * A list "a=b,c=d" is read as qemu-img reads it: a doubled comma is a comma, a name alone means
 * "on", "no" before a name means "off", the last of several counts.
 */
#ifndef IMG_OPTIONS_H
#define IMG_OPTIONS_H

#include "blockdev/img/cmd.h"
#include "blockdev/qcow2/format.h"

/* In the order in which "Formatting ..." tells them. */
enum img_opt {
	OPT_ENCRYPTION,
	OPT_ENCRYPT_FORMAT,
	OPT_ENCRYPT_SECRET,
	OPT_ENCRYPT_CIPHER_ALG,
	OPT_ENCRYPT_CIPHER_MODE,
	OPT_ENCRYPT_IVGEN_ALG,
	OPT_ENCRYPT_IVGEN_HASH,
	OPT_ENCRYPT_HASH,
	OPT_ENCRYPT_ITER,
	OPT_ENCRYPT_KEYSLOT,
	OPT_ENCRYPT_NEW_SECRET,
	OPT_ENCRYPT_OLD_SECRET,
	OPT_ENCRYPT_STATE,
	OPT_CLUSTER_SIZE,
	OPT_EXTENDED_L2,
	OPT_QCOW2_PREALLOC,
	OPT_COMPRESSION,
	OPT_SIZE,
	OPT_COMPAT,
	OPT_BACKING_FILE,
	OPT_BACKING_FMT,
	OPT_DATA_FILE,
	OPT_DATA_FILE_RAW,
	OPT_LAZY,
	OPT_REFCOUNT_BITS,
	OPT_NOCOW,
	OPT_RAW_PREALLOC,
	OPT_EXTENT_HINT,
	N_IMG_OPTS,
};

struct img_opts {
	const char *format; /* "raw", "qcow2" */
	bool amend;
	bool nosync; /* the new image need not be durable yet: its content is to come */
	struct {
		char *text; /* as given; NULL: not given */
		uint64_t n; /* numbers and sizes; booleans: 1 or 0 */
	} v[N_IMG_OPTS];
};

/* Adds what one -o says to all that were said (NULL at first).  Prints.  0 or -errno. */
must_check int img_opts_join(char **all, const char *list);
/* Does "help" or "?" stand in the list? */
bool img_opts_want_help(const char *all);
/* with_file: a file is named, so what its host knows is told too. */
void img_opts_help(const char *format, bool amend, bool with_file);

void img_opts_init(struct img_opts *o, const char *format, bool amend);
void img_opts_fini(struct img_opts *o);
/* 0, or -EINVAL or -ENOMEM with words (a hint may follow on a line of its own). */
must_check int img_opts_parse(struct img_opts *o, const char *all, struct why *why);
/* For what is not in a list.  -EINVAL without words: this format has no such option. */
must_check int img_opts_set(
	struct img_opts *o, enum img_opt which, const char *value, struct why *why);
must_check int img_opts_set_number(struct img_opts *o, enum img_opt which, uint64_t n);
/* " a=b c=d", all that are set. */
void img_opts_print(const struct img_opts *o);

/* Fills in what is not set and has a default; the size is set. */
must_check int img_opts_defaults(struct img_opts *o);
/* 0, or -EINVAL with words: a value that does not exist, a feature that is not there. */
must_check int img_opts_qcow2(
	const struct img_opts *o, struct qcow2_create_opts *q, struct why *why);
/* "0.10" and the like: 2 or 3; 0 with words. */
uint32_t img_opts_version(const char *compat, struct why *why);
/* off, metadata, falloc, full: 0 with *out, or -EINVAL. */
must_check int img_parse_prealloc(const char *text, enum prealloc *out);

/*
 * Makes the image that o describes (the size is set), and its data file.  A file that was not
 * there before is removed again if that fails.  0, or -errno with words.
 */
must_check int img_create_file(const char *filename, const struct img_opts *o, struct why *why);

#endif
