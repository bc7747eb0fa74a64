/* SPDX-License-Identifier: MIT */
/*
 * snapshot.c - sluice img snapshot: lists, creates, applies and deletes internal snapshots.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/info.h"
#include "blockdev/img/open.h"

enum action { LIST, CREATE, APPLY, DELETE };

struct options {
	struct img_source src;
	enum action action;
	const char *snapshot;
};

struct job {
	struct disk *disk;
	const struct options *o;
};

/* ---- the list ---- */

static void copy_text(char *out, size_t room, const char *text)
{
	snprintf(out, room, "%s", text);
}

static int list(struct disk *d)
{
	struct disk_snapshot s;
	uint32_t n = 0;
	struct snapshot_info *all;

	while (disk_snapshot_get(d, n, &s))
		n++;
	all = calloc(n + 1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	for (uint32_t i = 0; disk_snapshot_get(d, i, &s); i++) {
		struct snapshot_info *to = &all[i];

		copy_text(to->id, sizeof(to->id), s.id);
		copy_text(to->name, sizeof(to->name), s.name);
		to->sec = s.sec;
		to->nsec = s.nsec;
		to->clock_ns = s.clock_ns;
		to->vm_state = s.vm_state_bytes;
		to->icount = s.icount;
		to->has_icount = s.icount != UINT64_MAX;
	}
	info_print_snapshots(all, n);
	free(all);
	return 0;
}

/* ---- changes ---- */

static int change(struct disk *d, const struct options *o)
{
	static const char *const what[] = {
		[CREATE] = "create", [APPLY] = "apply", [DELETE] = "delete"};
	static const enum snapshot_op op[] = {[CREATE] = SNAPSHOT_CREATE,
		[APPLY] = SNAPSHOT_APPLY,
		[DELETE] = SNAPSHOT_DELETE};
	struct why why = {""};
	int err = disk_snapshot_change(d, op[o->action], o->snapshot, &why);
	const char *words = why_text(&why, err);

	if (!err)
		return 0;
	if (o->action == CREATE) {
		log_error("Could not create snapshot '%s': %d (%s)", o->snapshot, err,
			strerror(-err));
	} else if (o->action == APPLY && err != -ENOTSUP && err != -EBUSY) {
		if (why.text[0] && err != -ENOENT)
			log_error("%s", why.text);
		log_error("Could not apply snapshot '%s': Failed to load snapshot: %s",
			o->snapshot, strerror(-err));
	} else {
		if (err == -ENOTSUP)
			words = o->action == APPLY ? "Block driver does not support snapshots"
						   : "snapshot not found";
		log_error("Could not %s snapshot '%s': %s", what[o->action], o->snapshot, words);
	}
	return err;
}

static int run(void *arg)
{
	struct job *j = arg;

	return j->o->action == LIST ? list(j->disk) : change(j->disk, j->o);
}

/* ---- -l of convert and others ---- */

struct load {
	struct disk *disk;
	char *id, *name;
	struct why why;
};

static int load_fiber(void *arg)
{
	struct load *a = arg;
	int err;

	if (a->id || !a->name)
		return disk_snapshot_load(a->disk, a->id, a->name, &a->why);
	err = disk_snapshot_load(a->disk, a->name, NULL, &a->why);
	if (err != -ENOENT)
		return err;
	a->why.text[0] = '\0';
	return disk_snapshot_load(a->disk, NULL, a->name, &a->why);
}

int img_load_snapshot(struct loop *l, struct disk *d, const char *param)
{
	static const char id_key[] = "snapshot.id=", name_key[] = "snapshot.name=";
	struct load a = {.disk = d};
	bool keys = !strncmp(param, id_key, strlen(id_key)) ||
		    !strncmp(param, name_key, strlen(name_key));
	char *copy = strdup(param);
	int err = copy ? 0 : -ENOMEM;

	if (keys && copy) {
		for (char *p = copy, *word; (word = strsep(&p, ",")) != NULL;) {
			if (!strncmp(word, id_key, strlen(id_key)))
				a.id = word + strlen(id_key);
			else if (!strncmp(word, name_key, strlen(name_key)))
				a.name = word + strlen(name_key);
		}
		err = fiber_run(l, load_fiber, &a);
	} else if (copy) {
		a.name = copy;
		err = fiber_run(l, load_fiber, &a);
	}
	free(copy);
	if (err)
		log_error("Failed to load snapshot: %s", why_text(&a.why, err));
	return err;
}

/* ---- the command ---- */

static int set_action(struct options *o, enum action a, bool *given)
{
	if (*given)
		return img_try_help("Cannot mix '-l', '-a', '-c', '-d'");
	*given = true;
	o->action = a;
	o->snapshot = optarg;
	return 0;
}

static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_IMAGE_OPTS = 256 };
	static const struct option longs[] = {{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"force-share", no_argument, NULL, 'U'}, {NULL, 0, NULL, 0}};
	bool given = false;
	int c, err = 0;

	while (!err && (c = getopt_long(argc, argv, ":la:c:d:qU", longs, NULL)) != -1) {
		switch (c) {
		case 'l':
			err = set_action(o, LIST, &given);
			break;
		case 'a':
			err = set_action(o, APPLY, &given);
			break;
		case 'c':
			err = set_action(o, CREATE, &given);
			break;
		case 'd':
			err = set_action(o, DELETE, &given);
			break;
		case 'q': /* there is nothing to be quiet about */
			break;
		case 'U':
			o->src.unlocked = true;
			break;
		case OPT_IMAGE_OPTS:
			o->src.image_opts = true;
			break;
		default:
			return img_opt_error(c, argv);
		}
	}
	if (err)
		return err;
	if (optind != argc - 1)
		return img_try_help("Expecting one image file name");
	o->src.name = argv[optind];
	o->src.writable = o->action != LIST;
	return 0;
}

static int snapshot_main(int argc, char **argv)
{
	struct options o = {.src = {.cache = CACHE_WRITEBACK, .unmap = true}};
	struct job j = {.o = &o};
	struct loop *loop;
	int err;

	if (parse(argc, argv, &o))
		return 1;
	if (o.src.writable && o.src.unlocked) {
		log_error("Could not open '%s': force-share=on can only be used with read-only "
			  "images",
			o.src.name);
		return 1;
	}
	if (img_loop_new(LOOP_AIO_AUTO, &loop))
		return 1;
	err = img_disk_open(loop, &o.src, &j.disk);
	if (!err) {
		err = fiber_run(loop, run, &j);
		/* What failed half way cannot be closed cleanly either: said once is enough. */
		if (err && o.action != LIST)
			(void)!disk_close(j.disk, NULL);
		else
			err = img_disk_close(j.disk);
	}
	loop_free(loop);
	return err ? 1 : 0;
}

const struct img_cmd img_snapshot = {
	.name = "snapshot",
	.run = snapshot_main,
	.summary = "lists, creates, applies and deletes internal snapshots",
	.help = "[--image-opts] [-U] [-q] [-l | -a SNAPSHOT | -c SNAPSHOT | -d SNAPSHOT] FILENAME\n"
		"\n"
		"  -l                    list them (the default)\n"
		"  -c NAME               create one: the disk as it is now\n"
		"  -a NAME|ID            apply: the disk is again what it was then\n"
		"  -d NAME               delete\n"
		"      --image-opts      FILENAME is driver=...,file.filename=...\n"
		"  -U, --force-share     list those of an image that a guest is using (no lock)\n"
		"  -q                    accepted; there is no output but errors\n"
		"\n"
		"  sluice img snapshot -c before-upgrade disk.qcow2\n"
		"  sluice img snapshot disk.qcow2\n",
};
