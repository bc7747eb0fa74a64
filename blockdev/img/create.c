/* SPDX-License-Identifier: MIT */
/*
 * create.c - sluice img create.
 *
 * Every option is looked at before a file is touched.  A file that this command made is
 * removed again if the image could not be finished.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/img/open.h"
#include "blockdev/img/options.h"
#include "blockdev/name.h"

/* ---- making the files ---- */

struct creation {
	struct file *file;
	const struct img_opts *o;
	struct qcow2_create_opts q; /* qcow2 */
	enum prealloc prealloc;
	bool data; /* the file is the data file, or a raw image */
	struct why why;
};

#define FIRST_BLOCK 4096

static int write_raw(struct creation *c)
{
	uint64_t size = round_up(c->q.size, SECTOR);
	int err;

	if (c->file->is_block) /* what it is worth is its size */
		return file_size(c->file) >= size
			       ? 0
			       : why_set(&c->why, -ENOSPC, "The device is smaller than the image");
	err = file_truncate(c->file, size);
	if (!err && c->prealloc >= PREALLOC_FALLOC)
		err = file_preallocate(c->file, 0, size, c->prealloc);
	else if (!err) /* what O_DIRECT wants can only be asked where there is a block */
		err = file_preallocate(c->file, 0, min_u64(size, FIRST_BLOCK), PREALLOC_FULL);
	return err ? err : file_fdatasync(c->file);
}

static int write_image(void *arg)
{
	struct creation *c = arg;

	return c->data ? write_raw(c) : qcow2_create(c->file, &c->q, &c->why);
}

/* A new file is only there for sure when its directory is durable too. */
static int sync_directory(const char *filename)
{
	char *copy = strdup(filename);
	int fd, err = 0;

	if (!copy)
		return -ENOMEM;
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	free(copy);
	if (fd < 0)
		return errno == EACCES ? 0 : -errno; /* one may write where one may not list */
	if (fsync(fd) && errno != EINVAL)
		err = -errno;
	close(fd);
	return err;
}

static int make_file(const char *filename, struct creation *c)
{
	bool existed = access(name_host_path(filename), F_OK) == 0;
	struct why inner = {""};
	struct loop *loop;
	int err = loop_new(LOOP_AIO_AUTO, &loop);

	if (err)
		return why_set(&c->why, err, "Could not start an event loop: %s", strerror(-err));
	err = file_open(loop, name_host_path(filename), FILE_RDWR | FILE_CREATE, &c->file, &inner);
	if (err && inner.text[0]) {
		c->why = inner;
	} else if (err) {
		err = why_set(
			&c->why, err, "Could not create '%s': %s", filename, strerror(-err));
	} else {
		c->file->nosync = c->o->nosync;
		err = fiber_run(loop, write_image, c);
		file_close(c->file);
		if (!err && !c->o->nosync)
			err = sync_directory(name_host_path(filename));
		if (err && !existed)
			unlink(name_host_path(filename));
	}
	loop_free(loop);
	return err;
}

static int check_raw(const struct img_opts *o, struct creation *c)
{
	const char *prealloc = o->v[OPT_RAW_PREALLOC].text;

	c->data = true;
	c->q.size = o->v[OPT_SIZE].n;
	if (prealloc && img_parse_prealloc(prealloc, &c->prealloc))
		return why_set(&c->why, -EINVAL, "invalid parameter value: %s", prealloc);
	if (c->prealloc == PREALLOC_METADATA)
		return why_set(
			&c->why, -ENOTSUP, "Unsupported preallocation mode: %s", prealloc);
	if (c->q.size > (uint64_t)INT64_MAX - SECTOR)
		return why_set(&c->why, -EFBIG,
			"The image size is too large for file format 'raw'");
	return 0;
}

static int check_qcow2(const struct img_opts *o, struct creation *c)
{
	int err = img_opts_qcow2(o, &c->q, &c->why);

	return err ? err : qcow2_create_check(&c->q, &c->why);
}

int img_create_file(const char *filename, const struct img_opts *o, struct why *why)
{
	bool raw = !strcmp(o->format, "raw");
	struct creation c = {.o = o};
	int err = raw ? check_raw(o, &c) : check_qcow2(o, &c);

	if (!err && c.q.data_file) {
		struct creation data = {
			.o = o, .data = true, .prealloc = c.q.prealloc, .q.size = c.q.size};

		err = make_file(c.q.data_file, &data);
		c.why = data.why;
	}
	if (!err)
		err = make_file(filename, &c);
	if (err == -EFBIG)
		(void)why_set(&c.why, err, "The image size is too large for file format '%s'%s",
			o->format, raw ? "" : " (try using a larger cluster size)");
	*why = c.why;
	return err;
}

/* ---- the command ---- */

struct command {
	const char *filename, *format, *size, *backing, *backing_format;
	uint64_t bytes; /* that is size, if it is given */
	char *list; /* all -o */
	bool quiet, unchecked;
	struct img_opts o;
	struct why why;
};

struct probing {
	struct file *file;
	const char *format;
};

static int probe_fiber(void *arg)
{
	struct probing *p = arg;
	be32_t magic;
	int err = file_pread(p->file, &magic, sizeof(magic), 0);

	p->format = be32_get(magic) == QCOW2_MAGIC ? "qcow2" : "raw";
	return err;
}

/* What a backing file looks like; NULL: it cannot be read. */
static const char *probe_format(struct loop *l, const char *path, struct why *why, int *err)
{
	struct probing p = {0};

	*err = file_open(l, path, FILE_RDONLY | FILE_NOLOCK, &p.file, why);
	if (*err)
		return NULL;
	*err = fiber_run(l, probe_fiber, &p);
	file_close(p.file);
	return *err ? NULL : p.format;
}

/* Words of a file that did not open go with its name; a format's words stand alone. */
static int backing_failed(struct command *c, const char *path, const struct why *inner, int err)
{
	bool named = !inner->text[0];

	return why_set(&c->why, err, "%s%.900s%s%.300s\nCould not open backing image.",
		named ? "Could not open '" : "", named ? path : "", named ? "': " : "",
		why_text(inner, err));
}

/* Looks at the backing file: it must open, and gives its size if none is given. */
static int look_below(struct command *c, struct loop *l, const char *path, const char *format)
{
	struct disk_opts o = {
		.path = path, .format = format, .readonly = true, .nolock = true};
	struct why inner = {""};
	struct disk *d;
	int err = 0;

	if (!format)
		o.format = probe_format(l, path, &inner, &err);
	else if (!img_format_known(format))
		err = why_set(&inner, -EINVAL, "Unknown driver '%s'", format);
	if (!err)
		err = disk_open(l, &o, &d, &inner);
	if (err)
		return backing_failed(c, path, &inner, err);
	if (!format) {
		log_error("%s: Backing file specified without backing format", c->filename);
		fprintf(stderr, "Detected format of %s.", o.format);
		err = -EINVAL;
	} else if (!c->o.v[OPT_SIZE].text) {
		err = img_opts_set_number(&c->o, OPT_SIZE, disk_size(d));
	}
	return disk_close(d, &c->why) ? -EIO : err;
}

static int check_backing(struct command *c)
{
	const char *name = c->o.v[OPT_BACKING_FILE].text;
	const char *format = c->o.v[OPT_BACKING_FMT].text;
	char path[4096];
	struct loop *l;
	int err;

	if (!name)
		return 0;
	if (!strcmp(c->filename, name))
		return why_set(&c->why, -EINVAL, "Error: Trying to create an image with the same "
						 "filename as the backing file");
	if (!name[0])
		return why_set(
			&c->why, -EINVAL, "Expected backing file name, got empty string");
	if (c->unchecked)
		return format ? 0
			      : why_set(&c->why, -EINVAL,
					"Backing file specified without backing format");
	err = disk_backing_path(c->filename, name, path, sizeof(path));
	if (!err)
		err = loop_new(LOOP_AIO_AUTO, &l);
	if (err)
		return err;
	err = look_below(c, l, path, format);
	loop_free(l);
	return err;
}

/* Everything but the files themselves.  Words in c->why, or already said. */
static int settle(struct command *c)
{
	int err = img_opts_parse(&c->o, c->list, &c->why);

	if (err)
		return err;
	if (c->size && c->o.v[OPT_SIZE].text)
		return why_set(
			&c->why, -EINVAL, "The image size must be specified only once");
	if (c->size)
		err = img_opts_set_number(&c->o, OPT_SIZE, c->bytes);
	if (!err && c->backing && img_opts_set(&c->o, OPT_BACKING_FILE, c->backing, &c->why))
		return why_set(&c->why, -EINVAL,
			"Backing file not supported for file format '%s'", c->format);
	if (!err && c->backing_format &&
		img_opts_set(&c->o, OPT_BACKING_FMT, c->backing_format, &c->why))
		return why_set(&c->why, -EINVAL,
			"Backing file format not supported for file format '%s'", c->format);
	if (!err)
		err = img_opts_defaults(&c->o);
	if (!err)
		err = check_backing(c);
	if (!err && !c->o.v[OPT_SIZE].text)
		return why_set(&c->why, -EINVAL, "Image creation needs a size parameter");
	return err;
}

static int create(struct command *c)
{
	int err;

	if (!img_format_known(c->format)) {
		log_error("%s: Unknown file format '%s'", c->filename, c->format);
		return -EINVAL;
	}
	img_opts_init(&c->o, c->format, false);
	err = settle(c);
	if (!err && !c->quiet) {
		printf("Formatting '%s', fmt=%s", c->filename, c->format);
		img_opts_print(&c->o);
		printf("\n");
		fflush(stdout);
	}
	if (!err)
		err = img_create_file(c->filename, &c->o, &c->why);
	if (err && (c->why.text[0] || err != -EINVAL)) /* else it has been said */
		img_say_why(c->filename, &c->why, err);
	img_opts_fini(&c->o);
	return err;
}

static int size_argument(struct command *c)
{
	int err;

	if (!c->size)
		return 0;
	err = img_parse_size(c->size, &c->bytes);
	if (err == -ERANGE || (!err && c->bytes > (uint64_t)INT64_MAX)) {
		log_error("Invalid image size specified. Must be between 0 and %" PRId64 ".",
			INT64_MAX);
		return -ERANGE;
	}
	if (err) {
		log_error("Invalid image size specified. You may use k, M, G, T, P or E suffixes "
			  "for");
		log_error("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
	}
	return err;
}

static int parse(int argc, char **argv, struct command *c)
{
	static const struct option longs[] = {{"format", required_argument, NULL, 'f'},
		{"options", required_argument, NULL, 'o'}, {"quiet", no_argument, NULL, 'q'},
		{"object", required_argument, NULL, 'O'}, {NULL, 0, NULL, 0}};
	int opt;

	while ((opt = getopt_long(argc, argv, ":f:o:qub:F:", longs, NULL)) != -1) {
		switch (opt) {
		case 'f':
			c->format = optarg;
			break;
		case 'o':
			if (img_opts_join(&c->list, optarg))
				return 1;
			break;
		case 'q':
			c->quiet = true;
			break;
		case 'u':
			c->unchecked = true;
			break;
		case 'b':
			c->backing = optarg;
			break;
		case 'F':
			c->backing_format = optarg;
			break;
		case 'O': /* secrets, for what is refused later */
			break;
		default:
			return img_opt_error(opt, argv);
		}
	}
	c->filename = optind < argc ? argv[optind++] : NULL;
	if (img_opts_want_help(c->list))
		return 0;
	if (!c->filename)
		return img_try_help("Expecting image file name");
	c->size = optind < argc ? argv[optind++] : NULL;
	if (size_argument(c))
		return 1;
	if (optind < argc)
		return img_try_help("Unexpected argument: %s", argv[optind]);
	return 0;
}

static int create_main(int argc, char **argv)
{
	struct command c = {.format = "raw"};
	int err = parse(argc, argv, &c);

	if (!err && img_opts_want_help(c.list)) {
		err = !img_format_known(c.format);
		if (err)
			img_cannot(c.format, "image creation");
		else
			img_opts_help(c.format, false, c.filename != NULL);
	} else if (!err) {
		err = create(&c) ? 1 : 0;
	}
	free(c.list);
	return err;
}

const struct img_cmd img_create = {
	.name = "create",
	.run = create_main,
	.summary = "makes a new image",
	.help = "[-q] [-f FMT] [-b BACKING -F FMT] [-u] [-o OPTIONS] FILENAME [SIZE]\n"
		"\n"
		"  -f, --format FMT      raw (default) or qcow2\n"
		"  -b BACKING            the image below, for what the new one does not hold\n"
		"  -F FMT                format of BACKING\n"
		"  -u                    do not look at BACKING (then SIZE must be given)\n"
		"  -o, --options LIST    name=value,... ; '-f qcow2 -o help' lists them\n"
		"  -q, --quiet           print nothing\n"
		"\n"
		"SIZE is in bytes, or with a suffix k, M, G, T, P, E (powers of 1024);\n"
		"by default that of BACKING.\n"
		"\n"
		"  sluice img create -f qcow2 disk.qcow2 20G\n"
		"  sluice img create -f qcow2 -b disk.qcow2 -F qcow2 today.qcow2\n"
		"  sluice img create -f qcow2 -o preallocation=falloc disk.qcow2 1T\n",
};
