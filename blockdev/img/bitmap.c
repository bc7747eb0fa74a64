/* SPDX-License-Identifier: MIT */
/*
 * bitmap.c - sluice img bitmap: the dirty bitmaps that an image keeps; copies of them for convert.
 *
 * What is to be done comes as a list, done in its order.  Where one thing fails, those before it
 * stay done.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/bitmaps.h"
#include "blockdev/img/open.h"

enum action_kind { ADD, REMOVE, CLEAR, ENABLE, DISABLE, MERGE };

static const struct {
	const char *name;
	enum bitmap_op op;
} kinds[] = {
	[ADD] = {"add", BITMAP_ADD},
	[REMOVE] = {"remove", BITMAP_REMOVE},
	[CLEAR] = {"clear", BITMAP_CLEAR},
	[ENABLE] = {"enable", BITMAP_ENABLE},
	[DISABLE] = {"disable", BITMAP_DISABLE},
	[MERGE] = {"merge", BITMAP_CLEAR},
};

struct action {
	enum action_kind kind;
	const char *from; /* MERGE */
};

struct options {
	struct img_source image, other;
	const char *bitmap;
	uint64_t granularity;
	struct action *todo;
	unsigned n;
	bool add, merge;
};

struct job {
	const struct options *o;
	struct disk *d, *other;
	unsigned at; /* of what is to be done */
	struct why why;
};

static int act(const struct job *j, const struct action *a, struct why *why)
{
	const char *name = j->o->bitmap;

	if (a->kind == MERGE)
		return disk_bitmap_merge(j->d, name, j->other ? j->other : j->d, a->from, why);
	return disk_bitmap_change(j->d, kinds[a->kind].op, name, j->o->granularity, why);
}

static int act_fiber(void *arg)
{
	struct job *j = arg;
	int err = 0;

	while (j->at < j->o->n && !(err = act(j, &j->o->todo[j->at], &j->why)))
		j->at++;
	return err;
}

static void say(const struct job *j, int err)
{
	char who[1200];

	snprintf(who, sizeof(who), "Operation %s on bitmap %.1100s failed",
		kinds[j->o->todo[j->at].kind].name, j->o->bitmap);
	img_say_why(who, &j->why, err);
}

static int run(const struct options *o)
{
	struct job j = {.o = o};
	struct loop *l;
	int err = img_loop_new(LOOP_AIO_AUTO, &l), closed;

	if (err)
		return 1;
	err = img_disk_open(l, &o->image, &j.d);
	if (!err && o->other.name)
		err = img_disk_open(l, &o->other, &j.other);
	if (!err && (err = fiber_run(l, act_fiber, &j)) != 0)
		say(&j, err);
	if (j.other) {
		closed = img_disk_close(j.other);
		err = err ? err : closed;
	}
	if (j.d) {
		closed = img_disk_close(j.d);
		err = err ? err : closed;
	}
	loop_free(l);
	return err ? 1 : 0;
}

/* ---- for convert ---- */

static uint32_t count(const struct disk *d)
{
	struct disk_bitmap b;
	uint32_t n = 0;

	while (disk_bitmap_get(d, n, &b))
		n++;
	return n;
}

/* The last one first, here and below, as the peer does it. */
int img_bitmaps_check(struct disk *d, bool skip_broken)
{
	struct disk_bitmap b;

	if (!disk_has_bitmaps(d)) {
		log_error("Source lacks bitmap support");
		return -ENOTSUP;
	}
	for (uint32_t i = count(d); i-- > 0 && !skip_broken && disk_bitmap_get(d, i, &b);) {
		if (!b.inconsistent)
			continue;
		log_error("Cannot copy inconsistent bitmap '%s'", b.name);
		fputs("Try --skip-broken-bitmaps, or use 'qemu-img bitmap --remove' to delete "
		      "it\n",
			stderr);
		return -EINVAL;
	}
	return 0;
}

struct copying {
	struct disk *from, *to;
	const char *failed; /* at what, with which one */
	struct disk_bitmap b;
	struct why why;
};

static int copy_one(struct copying *c, const struct disk_bitmap *b)
{
	int err;

	if (b->inconsistent) {
		log_warn("Skipping inconsistent bitmap '%s'", b->name);
		return 0;
	}
	c->failed = "create";
	err = disk_bitmap_change(c->to, BITMAP_ADD, b->name, b->granularity, &c->why);
	if (err)
		return err;
	c->failed = "populate";
	err = disk_bitmap_merge(c->to, b->name, c->from, b->name, &c->why);
	if (!err && !b->enabled)
		err = disk_bitmap_change(c->to, BITMAP_DISABLE, b->name, 0, &c->why);
	if (err && disk_bitmap_change(c->to, BITMAP_REMOVE, b->name, 0, NULL))
		log_debug("bitmap '%s' stays, empty", b->name);
	return err;
}

static int copy_fiber(void *arg)
{
	struct copying *c = arg;
	int err = 0;

	for (uint32_t i = count(c->from); i-- > 0 && !err;)
		if (disk_bitmap_get(c->from, i, &c->b))
			err = copy_one(c, &c->b);
	return err;
}

int img_bitmaps_copy(struct loop *l, struct disk *from, struct disk *to)
{
	struct copying c = {.from = from, .to = to};
	int err = fiber_run(l, copy_fiber, &c);
	char who[1200];

	if (err) {
		snprintf(who, sizeof(who), "Failed to %s bitmap %s", c.failed, c.b.name);
		img_say_why(who, &c.why, err);
	}
	return err;
}

/* ---- the command line ---- */

enum { OPT_ACTION = 256, OPT_IMAGE_OPTS = OPT_ACTION + MERGE + 1, OPT_OBJECT };

static int add_action(struct options *o, enum action_kind kind, const char *from)
{
	struct action *todo = realloc(o->todo, (o->n + 1) * sizeof(*todo));

	if (!todo) {
		log_error("%s", strerror(ENOMEM));
		return 1;
	}
	o->todo = todo;
	o->todo[o->n++] = (struct action){kind, from};
	o->add |= kind == ADD;
	o->merge |= kind == MERGE;
	return 0;
}

static int set_option(struct options *o, int c, char **argv)
{
	if (c >= OPT_ACTION && c <= OPT_ACTION + MERGE)
		return add_action(o, (enum action_kind)(c - OPT_ACTION), optarg);
	switch (c) {
	case 'b':
		o->other.name = optarg;
		return 0;
	case 'f':
		o->image.format = optarg;
		return 0;
	case 'F':
		o->other.format = optarg;
		return 0;
	case 'g':
		return img_parse_number("granularity", optarg, 0, INT64_MAX, &o->granularity) != 0;
	case OPT_IMAGE_OPTS:
		o->image.image_opts = true;
		return 0;
	case OPT_OBJECT:
		return 0;
	}
	return img_opt_error(c, argv);
}

/* Words that do not go together. */
static int check_words(const struct options *o, int n_names)
{
	const char *wrong = NULL;

	if (!o->n)
		wrong = "Need at least one of --add, --remove, --clear, --enable, --disable, or "
			"--merge";
	else if (n_names != 2)
		wrong = "Expecting filename and bitmap name";
	else if (o->granularity && !o->add)
		wrong = "granularity only supported with --add";
	else if (o->other.format && !o->other.name)
		wrong = "-F only supported with -b";
	else if (o->other.name && !o->merge)
		wrong = "Merge bitmap source file only supported with --merge";
	else if (o->image.image_opts && o->image.format)
		wrong = "--image-opts and --format are mutually exclusive";
	if (wrong)
		log_error("%s", wrong);
	return wrong ? 1 : 0;
}

static int bitmap_main(int argc, char **argv)
{
	static const struct option longs[] = {{"add", no_argument, NULL, OPT_ACTION + ADD},
		{"remove", no_argument, NULL, OPT_ACTION + REMOVE},
		{"clear", no_argument, NULL, OPT_ACTION + CLEAR},
		{"enable", no_argument, NULL, OPT_ACTION + ENABLE},
		{"disable", no_argument, NULL, OPT_ACTION + DISABLE},
		{"merge", required_argument, NULL, OPT_ACTION + MERGE},
		{"granularity", required_argument, NULL, 'g'},
		{"source-file", required_argument, NULL, 'b'},
		{"source-format", required_argument, NULL, 'F'},
		{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"object", required_argument, NULL, OPT_OBJECT}, {NULL, 0, NULL, 0}};
	/* Bitmaps are the top layer's own; what lies below may be the other image. */
	struct options o = {.image = {.writable = true, .nobacking = true},
		.other.nobacking = true};
	int status = 0, c;

	while (!status && (c = getopt_long(argc, argv, ":b:f:F:g:", longs, NULL)) != -1)
		status = set_option(&o, c, argv);
	if (!status)
		status = check_words(&o, argc - optind);
	if (!status) {
		o.image.name = argv[optind];
		o.bitmap = argv[optind + 1];
		status = run(&o);
	}
	free(o.todo);
	return status;
}

const struct img_cmd img_bitmap = {
	.name = "bitmap",
	.run = bitmap_main,
	.summary = "keeps note, in the image, of what is written to",
	.help = "(--add | --remove | --clear | --enable | --disable | --merge SOURCE)...\n"
		"           [-g SIZE] [-b FILE [-F FMT]] [--image-opts | -f FMT] FILENAME BITMAP\n"
		"\n"
		"  --add               make it; from now on what is written is noted in it\n"
		"  --remove            it goes; nothing else helps with an inconsistent one\n"
		"  --clear             nothing is noted any more\n"
		"  --disable, --enable stop, or go on, noting what is written\n"
		"  --merge SOURCE      note what the bitmap SOURCE has noted\n"
		"  -b FILE, -F FMT     where SOURCE is, if not in FILENAME, and its format\n"
		"  -g SIZE             for --add: what one bit stands for, 512 to 2G\n"
		"                      (default: a cluster, within 4k and 64k)\n"
		"  -f FMT, --image-opts\n"
		"                      format of FILENAME; it is driver=...\n"
		"\n"
		"What is to be done is done in the order given.\n"
		"\n"
		"  sluice img bitmap --add disk.qcow2 since-monday\n"
		"  sluice img bitmap --add --disable --merge since-monday disk.qcow2 copy\n",
};
