/* SPDX-License-Identifier: MIT */
/*
 * image.c - one image as a file, for commands that look at it from the outside.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/cmd.h"
#include "blockdev/name.h"
#include "blockdev/qcow2/format.h"

struct probing {
	struct file *file;
	const char *format;
};

static int probe(void *arg)
{
	struct probing *p = arg;
	be32_t head[2];
	int err = file_pread(p->file, head, sizeof(head), 0);

	p->format = !err && be32_get(head[0]) == QCOW2_MAGIC && be32_get(head[1]) >= 2 ? "qcow2"
										       : "raw";
	return err;
}

/* Nothing but a format over a host's file? */
static bool is_plain(const struct image_name *n)
{
	const char *driver = opts_get(&n->file, "driver");

	for (size_t i = 0; i < n->top.n; i++)
		if (strcmp(n->top.v[i].key, "driver") != 0)
			return false;
	for (size_t i = 0; i < n->file.n; i++)
		if (strcmp(n->file.v[i].key, "driver") && strcmp(n->file.v[i].key, "filename"))
			return false;
	return !n->driver && !n->backing && (!driver || !strcmp(driver, "file"));
}

static int add_all(json_t *o, const char *prefix, const struct opts *from)
{
	for (size_t i = 0; i < from->n; i++) {
		char key[512];

		snprintf(key, sizeof(key), "%s%s", prefix, from->v[i].key);
		if (from->v[i].value)
			json_object_set_new(o, key, json_string(from->v[i].value));
	}
	return 0;
}

/* json:{...} with flat keys; NULL: no memory. */
static char *as_json(const struct image_name *n)
{
	json_t *o = json_object();
	char *text, *out = NULL;

	add_all(o, "", &n->top);
	add_all(o, n->driver ? "" : "file.", &n->file);
	text = json_dumps(o, JSON_COMPACT);
	if (text && asprintf(&out, "json:%s", text) < 0)
		out = NULL;
	free(text);
	json_decref(o);
	return out;
}

/* im->loop is there.  What is owed for im is given back by the caller. */
static int open_named(struct img_file *im, struct image_name *n, const char *name, struct why *why)
{
	struct probing p = {0};
	bool plain = is_plain(n);
	int err;

	if (!plain)
		im->shown = n->o.path && strncmp(name, "json:", 5) ? strdup(name) : as_json(n);
	if (!plain && !im->shown)
		return -ENOMEM;
	err = name_open(im->loop, n, &im->file, why);
	if (err)
		return err;
	p = (struct probing){im->file, n->o.format};
	if (!p.format)
		err = fiber_run(im->loop, probe, &p);
	if (err)
		return err;
	im->format = strdup(p.format);
	im->path = strdup(n->path ? n->path : "");
	if (plain)
		im->shown = im->path ? strdup(im->path) : NULL;
	return im->format && im->path && im->shown ? 0 : -ENOMEM;
}

static int open_image(struct img_file *im, const struct disk_opts *o, const char *name)
{
	struct image_name n;
	struct why why = {""};
	int err = name_read(&n, o, &why);

	if (!err)
		err = loop_new(LOOP_AIO_AUTO, &im->loop);
	if (!err)
		err = open_named(im, &n, name, &why);
	if (err && why.text[0])
		img_say_open(name, &why, err);
	else if (err) /* the format's word, and the file's below it */
		log_error("Could not open '%s': Could not open '%s': %s", name, name,
			strerror(-err));
	name_fini(&n);
	if (err)
		img_close(im);
	return err;
}

int img_open(struct img_file *im, const char *name, bool image_opts, const char *format,
	unsigned flags)
{
	struct disk_opts o = {.path = image_opts ? NULL : name,
		.options = image_opts ? name : NULL,
		.format = format,
		.cache = flags & FILE_DIRECT ? CACHE_NONE : CACHE_WRITEBACK,
		.readonly = !(flags & FILE_RDWR),
		.nolock = flags & FILE_NOLOCK};

	*im = (struct img_file){0};
	if (format && !img_format_known(format)) {
		log_error("Could not open '%s': Unknown driver '%s'", name, format);
		return -EINVAL;
	}
	return open_image(im, &o, name);
}

void img_close(struct img_file *im)
{
	if (im->file)
		file_close(im->file);
	if (im->loop)
		loop_free(im->loop);
	free(im->format);
	free(im->path);
	free(im->shown);
	*im = (struct img_file){0};
}
