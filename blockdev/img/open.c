/* SPDX-License-Identifier: MIT */
/*
 * open.c - images opened as disks: what convert, compare, map and the like have in common.
 *
 * A file that could not be opened is named twice, once by the format and once by
 * the file below it, as qemu-img does; scripts look for these lines.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/open.h"

int img_loop_new(enum loop_aio aio, struct loop **out)
{
	int err = loop_new(aio, out);

	if (err)
		log_error("Could not start an event loop: %s", strerror(-err));
	return err;
}

/* What is written to a raw image may make it look like another format the next time. */
static void warn_probed(const char *name)
{
	fprintf(stderr,
		"WARNING: Image format was not specified for '%s' and probing guessed raw.\n"
		"         Automatically detecting the format is dangerous for raw images, write "
		"operations on block 0 will be restricted.\n"
		"         Specify the 'raw' format explicitly to remove the restrictions.\n",
		name);
}

int img_disk_open(struct loop *l, const struct img_source *s, struct disk **out)
{
	struct disk_opts o = {.path = s->name,
		.format = s->format,
		.cache = s->cache,
		.readonly = !s->writable,
		.quiet = true,
		.say_repairs = true,
		.nolock = s->unlocked,
		.nobacking = s->nobacking,
		.nosync = s->cache == CACHE_UNSAFE,
		.unmap = s->unmap};
	struct why why = {""};
	int err;

	if (s->image_opts) {
		o.options = s->name;
		o.path = NULL;
	}
	if (s->format && !img_format_known(s->format)) {
		log_error("Could not open '%s': Unknown driver '%s'", s->name, s->format);
		return -EINVAL;
	}
	err = disk_open(l, &o, out, &why);
	if (!err) {
		if (s->writable && !s->format && !strcmp(disk_format(*out), "raw"))
			warn_probed(s->name);
		return 0;
	}
	if (why.text[0])
		img_say_open(s->name, &why, err);
	else
		log_error("Could not open '%s': Could not open '%s': %s", s->name, s->name,
			strerror(-err));
	return err;
}

int img_disk_close(struct disk *d)
{
	struct why why = {""};
	char *name = strdup(disk_path(d));
	int err = disk_close(d, &why);

	/* That an image is corrupt was said when that was found. */
	if (err && err != -ENOMEDIUM)
		log_error("Could not close '%s': %s", name ? name : "image", why_text(&why, err));
	free(name);
	return err;
}

int img_try_help(const char *fmt, ...)
{
	char text[1024];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("%s", text);
	fprintf(stderr, "Try 'sluice img --help' for more information\n");
	return 1;
}

int img_opt_error(int c, char **argv)
{
	if (c == ':')
		return img_try_help("missing argument for option '%s'", argv[optind - 1]);
	return img_try_help("unrecognized option '%s'", argv[optind - 1]);
}

int img_parse_number(
	const char *what, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	int err = img_parse_size(text, out);

	if (err == -ERANGE || (!err && (*out < min || *out > max))) {
		log_error("Invalid %s specified. Must be between %" PRIu64 " and %" PRIu64 ".",
			what, min, max);
		return -ERANGE;
	}
	if (err) {
		log_error("Invalid %s specified. You may use k, M, G, T, P or E suffixes for",
			what);
		log_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
	}
	return err;
}

/* The first bytes seldom lie; then each byte equals the one 16 before it. */
void *img_data_buf(uint64_t len)
{
	void *p;

	return posix_memalign(&p, 4096, len ? len : 1) ? NULL : p;
}
