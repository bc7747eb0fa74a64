/* SPDX-License-Identifier: MIT */
/*
 * info.c - sluice img info: what an image says about itself, also if we cannot open it.
 */
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include "blockdev/block.h"
#include "blockdev/img/info.h"

struct options {
	const char *filename, *format;
	bool unlocked, chain, image_opts;
	enum img_output output;
};

struct job {
	struct file *file;
	struct image_info *info;
	struct why why;
};

static int parse(int argc, char **argv, struct options *o)
{
	enum { OPT_OUTPUT = 256, OPT_CHAIN, OPT_OBJECT, OPT_IMAGE_OPTS };
	static const struct option longs[] = {{"format", required_argument, NULL, 'f'},
		{"output", required_argument, NULL, OPT_OUTPUT},
		{"backing-chain", no_argument, NULL, OPT_CHAIN},
		{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
		{"object", required_argument, NULL, OPT_OBJECT},
		{"force-share", no_argument, NULL, 'U'}, {NULL, 0, NULL, 0}};
	int c;

	while ((c = getopt_long(argc, argv, "f:U", longs, NULL)) != -1) {
		switch (c) {
		case 'f':
			o->format = optarg;
			break;
		case OPT_OUTPUT:
			if (img_parse_output(optarg, &o->output))
				return 1;
			break;
		case OPT_CHAIN:
			o->chain = true;
			break;
		case OPT_IMAGE_OPTS:
			o->image_opts = true;
			break;
		case OPT_OBJECT:
			break;
		case 'U':
			o->unlocked = true;
			break;
		default:
			return img_bad_option(&img_info, argv);
		}
	}
	if (optind != argc - 1)
		return img_usage(&img_info, "Expecting one image file name");
	o->filename = argv[optind];
	return 0;
}

/* Where a backing file's name leads, seen from the image; caller frees. */
static char *full_backing_name(const char *image, const char *backing)
{
	const char *slash = strrchr(image, '/'), *colon = strchr(backing, ':');
	char *out = NULL;

	if (!slash || backing[0] == '/' ||
		(colon && !memchr(backing, '/', (size_t)(colon - backing))))
		return strdup(backing);
	if (asprintf(&out, "%.*s/%s", (int)(slash - image), image, backing) < 0)
		return NULL;
	return out;
}

/* Names come from the file: what is not text is not sent to the terminal. */
static void print_name(const char *name)
{
	for (; *name; name++)
		putchar((unsigned char)*name >= ' ' && *name != 127 ? *name : '?');
}

void info_print_snapshots(const struct snapshot_info *all, uint32_t n)
{
	if (!n)
		return;
	printf("Snapshot list:\n%-9s %-16s %8s %19s %12s %10s\n", "ID", "TAG", "VM SIZE", "DATE",
		"VM CLOCK", "ICOUNT");
	for (uint32_t i = 0; i < n; i++) {
		const struct snapshot_info *s = &all[i];
		char date[32] = "", size[32], clock[48], icount[24] = "";
		uint64_t sec = s->clock_ns / 1000000000;
		time_t when = (time_t)s->sec;
		struct tm tm;

		if (localtime_r(&when, &tm))
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M:%S", &tm);
		snprintf(clock, sizeof(clock), "%02" PRIu64 ":%02u:%02u.%03u", sec / 3600,
			(unsigned)(sec / 60 % 60), (unsigned)(sec % 60),
			(unsigned)(s->clock_ns / 1000000 % 1000));
		if (s->has_icount)
			snprintf(icount, sizeof(icount), "%" PRIu64, s->icount);
		print_name(s->id);
		printf("%*s ", strlen(s->id) < 9 ? (int)(9 - strlen(s->id)) : 0, "");
		print_name(s->name);
		printf("%*s ", strlen(s->name) < 16 ? (int)(16 - strlen(s->name)) : 0, "");
		printf("%8s %19s %12s %10s\n", img_human_size(s->vm_state, size, sizeof(size)),
			date, clock, icount);
	}
}

static void print_bitmaps(const struct image_info *info)
{
	if (!info->nb_bitmaps)
		return;
	printf("    bitmaps:\n");
	for (uint32_t i = 0; i < info->nb_bitmaps; i++) {
		const struct bitmap_info *b = &info->bitmaps[i];
		int n = 0;

		printf("        [%" PRIu32 "]:\n            flags:\n", i);
		if (b->in_use)
			printf("                [%d]: in-use\n", n++);
		if (b->enabled)
			printf("                [%d]: auto\n", n);
		printf("            name: ");
		print_name(b->name);
		printf("\n            granularity: %" PRIu64 "\n", b->granularity);
	}
}

static const char *yes(bool b)
{
	return b ? "true" : "false";
}

static bool data_raw(const struct qcow2_header *h)
{
	return (h->autoclear & QCOW2_AUTOCLEAR_DATA_RAW) != 0;
}

void info_print_specific(const struct image_info *info)
{
	const struct qcow2_header *h = &info->h;
	bool v3 = h->version >= 3;

	printf("Format specific information:\n    compat: %s\n    compression type: %s\n",
		v3 ? "1.1" : "0.10", h->compression_type ? "zstd" : "zlib");
	if (v3)
		printf("    lazy refcounts: %s\n",
			yes(h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS));
	print_bitmaps(info);
	printf("    refcount bits: %" PRIu32 "\n", h->refcount_bits);
	if (h->crypt_method)
		printf("    encrypt:\n        format: %s\n", h->crypt_method == 1 ? "aes" : "luks");
	if (h->data_file[0]) {
		printf("    data file: ");
		print_name(h->data_file);
		printf("\n");
	}
	if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
		printf("    data file raw: %s\n", yes(data_raw(h)));
	if (v3)
		printf("    corrupt: %s\n    extended l2: %s\n",
			yes(h->incompatible & QCOW2_INCOMPAT_CORRUPT),
			yes(h->incompatible & QCOW2_INCOMPAT_EXTL2));
}

static void print_backing(const struct image_info *info)
{
	const struct qcow2_header *h = &info->h;
	char *full;

	if (!h->backing_file[0])
		return;
	full = full_backing_name(info->path, h->backing_file);
	printf("backing file: ");
	print_name(h->backing_file);
	if (full && strcmp(full, h->backing_file) != 0) {
		printf(" (actual path: ");
		print_name(full);
		printf(")");
	}
	printf("\n");
	free(full);
	if (h->backing_format[0]) {
		printf("backing file format: ");
		print_name(h->backing_format);
		printf("\n");
	}
}

static void print_human(const struct image_info *info)
{
	char virt[32], disk[32];
	const struct qcow2_header *h = &info->h;

	printf("image: %s\nfile format: %s\nvirtual size: %s (%" PRIu64 " bytes)\ndisk size: %s\n",
		info->filename, info->format,
		img_human_size(info->virtual_bytes, virt, sizeof(virt)), info->virtual_bytes,
		img_human_size(info->disk_bytes, disk, sizeof(disk)));
	if (strcmp(info->format, "qcow2") != 0)
		return;
	if (h->crypt_method)
		printf("encrypted: yes\n");
	printf("cluster_size: %" PRIu32 "\n", h->cluster_size);
	if (h->incompatible & QCOW2_INCOMPAT_DIRTY)
		printf("cleanly shut down: no\n");
	print_backing(info);
	info_print_snapshots(info->snapshots, info->h.nb_snapshots);
	info_print_specific(info);
}

static void set_int(json_t *o, const char *key, uint64_t v)
{
	json_object_set_new(o, key, json_integer((json_int_t)v));
}

/* Bytes that are not UTF-8 become '?', as JSON knows no others. */
static void set_text(json_t *o, const char *key, const char *text)
{
	json_t *s = json_string(text);

	if (!s) {
		char *copy = strdup(text);

		if (!copy) {
			log_error("%s", strerror(ENOMEM));
			exit(1);
		}
		for (char *p = copy; *p; p++)
			if (*p & 0x80)
				*p = '?';
		s = json_string(copy);
		free(copy);
	}
	json_object_set_new(o, key, s);
}

static json_t *json_snapshots(const struct image_info *info)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < info->h.nb_snapshots; i++) {
		const struct snapshot_info *s = &info->snapshots[i];
		json_t *o = json_object();

		if (s->has_icount)
			set_int(o, "icount", s->icount);
		set_int(o, "vm-clock-nsec", s->clock_ns % 1000000000);
		set_text(o, "name", s->name);
		set_int(o, "date-sec", s->sec);
		set_int(o, "date-nsec", s->nsec);
		set_int(o, "vm-clock-sec", s->clock_ns / 1000000000);
		set_text(o, "id", s->id);
		set_int(o, "vm-state-size", s->vm_state);
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *json_bitmaps(const struct image_info *info)
{
	json_t *list = json_array();

	for (uint32_t i = 0; i < info->nb_bitmaps; i++) {
		const struct bitmap_info *b = &info->bitmaps[i];
		json_t *o = json_object(), *flags = json_array();

		if (b->in_use)
			json_array_append_new(flags, json_string("in-use"));
		if (b->enabled)
			json_array_append_new(flags, json_string("auto"));
		json_object_set_new(o, "flags", flags);
		set_text(o, "name", b->name);
		set_int(o, "granularity", b->granularity);
		json_array_append_new(list, o);
	}
	return list;
}

/* The order of members is qemu-img's, here and below: people compare text. */
static json_t *json_specific(const struct image_info *info)
{
	const struct qcow2_header *h = &info->h;
	json_t *o = json_object(), *data = json_object();
	bool v3 = h->version >= 3;

	set_text(o, "type", "qcow2");
	set_text(data, "compat", v3 ? "1.1" : "0.10");
	set_text(data, "compression-type", h->compression_type ? "zstd" : "zlib");
	if (v3)
		json_object_set_new(data, "lazy-refcounts",
			json_boolean(h->compatible & QCOW2_COMPAT_LAZY_REFCOUNTS));
	if (info->nb_bitmaps)
		json_object_set_new(data, "bitmaps", json_bitmaps(info));
	set_int(data, "refcount-bits", h->refcount_bits);
	if (h->crypt_method) {
		json_t *e = json_object();

		set_text(e, "format", h->crypt_method == 1 ? "aes" : "luks");
		json_object_set_new(data, "encrypt", e);
	}
	if (h->data_file[0])
		set_text(data, "data-file", h->data_file);
	if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
		json_object_set_new(data, "data-file-raw", json_boolean(data_raw(h)));
	if (v3) {
		json_object_set_new(
			data, "corrupt", json_boolean(h->incompatible & QCOW2_INCOMPAT_CORRUPT));
		json_object_set_new(
			data, "extended-l2", json_boolean(h->incompatible & QCOW2_INCOMPAT_EXTL2));
	}
	json_object_set_new(o, "data", data);
	return o;
}

static json_t *json_image(const struct image_info *info)
{
	const struct qcow2_header *h = &info->h;
	bool qcow2 = !strcmp(info->format, "qcow2");
	json_t *o = json_object();

	if (h->backing_file[0] && h->backing_format[0])
		set_text(o, "backing-filename-format", h->backing_format);
	if (h->nb_snapshots)
		json_object_set_new(o, "snapshots", json_snapshots(info));
	set_int(o, "virtual-size", info->virtual_bytes);
	set_text(o, "filename", info->filename);
	if (qcow2)
		set_int(o, "cluster-size", h->cluster_size);
	set_text(o, "format", info->format);
	set_int(o, "actual-size", info->disk_bytes);
	if (h->crypt_method)
		json_object_set_new(o, "encrypted", json_true());
	if (qcow2)
		json_object_set_new(o, "format-specific", json_specific(info));
	if (h->backing_file[0]) {
		char *full = full_backing_name(info->path, h->backing_file);

		set_text(o, "full-backing-filename", full ? full : h->backing_file);
		set_text(o, "backing-filename", h->backing_file);
		free(full);
	}
	json_object_set_new(o, "dirty-flag", json_boolean(h->incompatible & QCOW2_INCOMPAT_DIRTY));
	return o;
}

static void print_json(const struct options *o, const struct image_info *infos, size_t n)
{
	json_t *list;

	img_json_start();
	list = json_array();
	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, json_image(&infos[i]));
	json_dumpf(o->chain ? list : json_array_get(list, 0), stdout, JSON_INDENT(4));
	printf("\n");
	json_decref(list);
}

static int run_info(void *arg)
{
	struct job *j = arg;

	if (!strcmp(j->info->format, "qcow2"))
		return info_read_qcow2(j->file, j->info, &j->why);
	/* The last sector may be there in part only; a guest sees it whole. */
	j->info->virtual_bytes = round_up(file_size(j->file), SECTOR);
	return 0;
}

/* One layer.  Prints why not. */
static int look_at(const struct options *o, const char *name, bool image_opts, const char *format,
	struct image_info *info)
{
	struct img_file im;
	struct stat st = {0};
	struct job j = {.info = info};
	int err = img_open(&im, name, image_opts, format,
		FILE_RDONLY | (o->unlocked ? FILE_NOLOCK : 0));

	if (err)
		return err;
	info->filename = im.shown;
	info->format = im.format;
	info->path = im.path;
	im.shown = im.format = im.path = NULL;
	if (!stat(info->path, &st))
		info->disk_bytes = (uint64_t)st.st_blocks * 512;
	info->dev = st.st_dev;
	info->ino = st.st_ino;
	j.file = im.file;
	err = fiber_run(im.loop, run_info, &j);
	if (err)
		img_say_open(info->filename, &j.why, err);
	img_close(&im);
	return err;
}

/* Has the chain been at this file before? */
static bool seen_before(const struct image_info *infos, size_t n, const char *path)
{
	struct stat st;

	if (stat(path, &st) != 0)
		return false; /* opening it says what is wrong */
	for (size_t i = 0; i < n; i++)
		if (infos[i].dev == st.st_dev && infos[i].ino == st.st_ino)
			return true;
	return false;
}

/* More layers than that are a mistake. */
#define CHAIN_MAX 200

static bool has_below(const struct image_info *infos, size_t n)
{
	return infos[n - 1].h.backing_file[0] && n < CHAIN_MAX;
}

/* What is below infos[n - 1], which is at hand and names it. */
static int look_below(const struct options *o, struct image_info *infos, size_t n)
{
	const struct qcow2_header *h = &infos[n - 1].h;
	const char *format = h->backing_format[0] ? h->backing_format : NULL;
	char path[4096];

	if (disk_backing_path(infos[n - 1].path, h->backing_file, path, sizeof(path)))
		return -ENAMETOOLONG;
	if (seen_before(infos, n, path)) {
		log_error("Backing file '%s' creates an infinite loop.", path);
		return -ELOOP;
	}
	return look_at(o, path, false, format, &infos[n]);
}

static int info_main(int argc, char **argv)
{
	struct options o = {0};
	struct image_info *infos;
	size_t n = 1;
	int err;

	if (parse(argc, argv, &o))
		return 1;
	infos = calloc(CHAIN_MAX, sizeof(*infos));
	if (!infos) {
		log_error("%s", strerror(ENOMEM));
		return 1;
	}
	err = look_at(&o, o.filename, o.image_opts, o.format, &infos[0]);
	while (!err && o.chain && has_below(infos, n))
		err = look_below(&o, infos, n++);
	if (!err && o.output == IMG_JSON)
		print_json(&o, infos, n);
	for (size_t i = 0; !err && o.output == IMG_HUMAN && i < n; i++) {
		if (i)
			printf("\n");
		print_human(&infos[i]);
	}
	for (size_t i = 0; i < CHAIN_MAX; i++)
		info_free(&infos[i]);
	free(infos);
	return err ? 1 : 0;
}

const struct img_cmd img_info = {
	.name = "info",
	.run = info_main,
	.summary = "tells what an image is",
	.help = "[-f FMT] [--image-opts] [--output human|json] [--backing-chain] [-U] FILENAME\n"
		"\n"
		"  -f, --format FMT      format of the image (default: by its first bytes)\n"
		"      --image-opts      FILENAME is driver=...,file.filename=...\n"
		"      --output FORMAT   human or json\n"
		"      --backing-chain   and the images below it\n"
		"  -U, --force-share     look at an image that a guest is using (take no lock)\n"
		"\n"
		"  sluice img info disk.qcow2\n"
		"  sluice img info --backing-chain --output=json disk.qcow2\n",
};
