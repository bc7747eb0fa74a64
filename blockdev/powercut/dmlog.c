/* SPDX-License-Identifier: MIT */
/*
 * dmlog.c - sluice powercut export and import: logs of Linux's dm-log-writes.
 *
 * That format (drivers/md/dm-log-writes.c; Documentation/admin-guide/device-mapper/log-writes.rst)
 * is a superblock and then entries, each a sector that says what, and its data.  It knows no
 * submissions and completions, only an order: a write stands before a flush if the flush covers it.
 *
 * So on export a write waits until a flush that was submitted after the write's completion has
 * completed; what goes through the cache (FUA, or the cache was off) stands where it completed.
 * What never completed is left out.  On import each entry is submitted and completed in one go.
 */
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/powercut/recording.h"
#include "vmm/util/bytes.h"

#define DM_MAGIC   0x6a736677736872ULL
#define DM_VERSION 1u

#define DM_FLUSH    1u
#define DM_FUA      2u
#define DM_DISCARD  4u
#define DM_MARK     8u
#define DM_METADATA 16u

struct dm_super {
	le64_t magic, version, n_entries;
	le32_t sector_size;
};

struct dm_entry {
	le64_t sector, n, flags, data_len; /* sectors; bytes of a mark's text */
};
static_assert(sizeof(struct dm_entry) == 32, "as the kernel has it");

#define DM_END      "dm-log-writes-end"
#define DM_TEXT_MAX (SECTOR - sizeof(struct dm_entry) - 1)
#define ZEROS_MAX   (1 * MiB / SECTOR) /* sectors of one entry that stands for a write of zeros */

/* ---- export ---- */

struct out {
	FILE *f;
	uint64_t n;
};

static void put_entry(struct out *o, uint64_t sector, uint64_t n, uint64_t flags, const char *text)
{
	uint8_t block[SECTOR] = {0};
	size_t len = text ? min_u64(strlen(text), DM_TEXT_MAX) : 0;
	struct dm_entry e = {
		le64_make(sector), le64_make(n), le64_make(flags), le64_make(len)};

	memcpy(block, &e, sizeof(e));
	memcpy(block + sizeof(e), text ? text : "", len);
	fwrite(block, 1, sizeof(block), o->f);
	o->n++;
}

static bool through(const struct guest_op *g)
{
	return g->fua || (!g->wce_at_submit && !g->wce_at_end);
}

static void put_zeros(struct out *o, const struct guest_op *g, uint64_t flags)
{
	static const uint8_t zeros[SECTOR];

	for (uint64_t at = 0, n; at < g->n; at += n) {
		n = min_u64(g->n - at, ZEROS_MAX);
		put_entry(o, g->sector + at, n, flags, NULL);
		for (uint64_t i = 0; i < n; i++)
			fwrite(zeros, 1, SECTOR, o->f);
	}
}

static void put_request(struct out *o, const struct guest_op *g)
{
	uint64_t flags = through(g) ? DM_FUA : 0;

	if (g->kind == GUEST_DISCARD) {
		put_entry(o, g->sector, g->n, DM_DISCARD, NULL);
	} else if (!g->data) {
		put_zeros(o, g, flags);
	} else {
		put_entry(o, g->sector, g->n, flags, NULL);
		fwrite(g->data, SECTOR, g->n, o->f);
	}
}

/* One thing that the export does something at. */
struct moment {
	uint64_t at;
	const struct guest_op *g; /* its completion; NULL: a mark */
	const char *text;
};

static int by_tick(const void *a, const void *b)
{
	const struct moment *x = a, *y = b;

	return x->at < y->at ? -1 : x->at > y->at;
}

static struct moment *moments(const struct recording *r, uint64_t *n)
{
	struct moment *m = malloc((r->log.n_guest + r->n_marks + 1) * sizeof(*m));

	*n = 0;
	for (uint64_t i = 0; m && i < r->log.n_guest; i++)
		if (r->log.guest[i].acknowledged != NEVER && !r->log.guest[i].err)
			m[(*n)++] = (struct moment){
				r->log.guest[i].acknowledged, &r->log.guest[i], NULL};
	for (uint64_t i = 0; m && i < r->n_marks; i++)
		m[(*n)++] = (struct moment){r->mark[i].at, NULL, r->mark[i].text};
	if (m)
		qsort(m, *n, sizeof(*m), by_tick);
	return m;
}

static int put_all(struct out *o, const struct recording *r)
{
	uint64_t n, n_held = 0;
	struct moment *m = moments(r, &n);
	const struct guest_op **held = malloc((r->log.n_guest + 1) * sizeof(*held));

	for (uint64_t i = 0; m && held && i < n; i++) {
		const struct guest_op *g = m[i].g;
		uint64_t left = 0;

		if (!g) {
			put_entry(o, 0, 0, DM_MARK, m[i].text);
		} else if (g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF) {
			for (uint64_t k = 0; k < n_held; k++) {
				if (held[k]->acknowledged < g->submitted)
					put_request(o, held[k]);
				else
					held[left++] = held[k];
			}
			n_held = left;
			put_entry(o, 0, 0, DM_FLUSH, NULL);
		} else if (g->n && g->kind == GUEST_WRITE && through(g)) {
			put_request(o, g);
		} else if (g->n) {
			held[n_held++] = g;
		}
	}
	for (uint64_t k = 0; m && held && k < n_held; k++)
		put_request(o, held[k]);
	n = m && held ? 0 : 1;
	free(m);
	free(held);
	put_entry(o, 0, 0, DM_MARK, DM_END);
	return n ? -ENOMEM : 0;
}

static int export_to(const struct recording *r, const char *path, struct why *why)
{
	uint8_t block[SECTOR] = {0};
	struct out o = {.f = fopen(path, "wxe")};
	struct dm_super s;
	int err;

	if (!o.f)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	fwrite(block, 1, sizeof(block), o.f);
	err = put_all(&o, r);
	s = (struct dm_super){le64_make(DM_MAGIC), le64_make(DM_VERSION), le64_make(o.n),
		le32_make(SECTOR)};
	memcpy(block, &s, sizeof(s));
	if (!err && (fseek(o.f, 0, SEEK_SET) || fwrite(block, 1, sizeof(block), o.f) != SECTOR))
		err = -EIO;
	if (ferror(o.f))
		err = -EIO;
	if (fclose(o.f) && !err)
		err = -errno;
	if (!err) {
		printf("%s: %" PRIu64 " entries\n", path, o.n);
		return 0;
	}
	unlink(path);
	return why_set(why, err, "%s: %s", path, strerror(-err));
}

/* ---- import ---- */

struct in {
	FILE *f;
	uint32_t unit; /* bytes of a sector of that log */
	uint64_t n, size; /* entries; bytes of the disk that they need */
	struct trace_writer *w; /* NULL: only looked at */
	uint8_t *data;
	uint64_t room;
};

static int bad_log(struct why *why, uint64_t i, const char *what)
{
	return why_set(why, -EINVAL, "entry %" PRIu64 " %s", i, what);
}

static void put_done(struct in *in, struct trace_event e)
{
	struct trace_event done = {.kind = TRACE_GUEST_DONE, .flags = TRACE_WCE};

	e.kind = TRACE_GUEST;
	e.flags |= TRACE_WCE;
	done.other = trace_writer_append(in->w, &e);
	trace_writer_append(in->w, &done);
}

static int take_mark(struct in *in, const uint8_t *block, uint64_t len, uint64_t i, struct why *why)
{
	struct trace_event e = {.kind = TRACE_MARK, .by = TRACE_BY_USER, .len = len};

	if (len > in->unit - sizeof(struct dm_entry))
		return bad_log(why, i, "is a mark with a text that is too long");
	e.data = block + sizeof(struct dm_entry);
	/* The kernel's own, at the end, and ours: it is made anew on export. */
	if (in->w && (len != strlen(DM_END) || memcmp(e.data, DM_END, len) != 0))
		trace_writer_append(in->w, &e);
	return 0;
}

static int take_data(struct in *in, uint64_t len, uint64_t i, struct why *why)
{
	if (!in->w) {
		if (fseeko(in->f, (off_t)len, SEEK_CUR))
			return -errno;
		return 0;
	}
	if (len > in->room) {
		free(in->data);
		in->data = malloc(len);
		in->room = in->data ? len : 0;
		if (!in->data)
			return -ENOMEM;
	}
	if (fread(in->data, 1, len, in->f) != len)
		return bad_log(why, i, "is cut off");
	return 0;
}

static int take_entry(struct in *in, const uint8_t *block, uint64_t i, struct why *why)
{
	struct dm_entry h;
	struct trace_event e = {.op = BLK_WRITE};
	uint64_t flags, sectors;
	int err;

	memcpy(&h, block, sizeof(h));
	flags = le64_get(h.flags);
	sectors = le64_get(h.n);
	if (flags & ~(uint64_t)(DM_FLUSH | DM_FUA | DM_DISCARD | DM_MARK | DM_METADATA))
		return bad_log(why, i, "has flags that nobody knows");
	if (flags & DM_MARK)
		return take_mark(in, block, le64_get(h.data_len), i, why);
	if (le64_get(h.sector) > INT64_MAX / in->unit || sectors > INT64_MAX / in->unit ||
		(le64_get(h.sector) + sectors) > INT64_MAX / in->unit)
		return bad_log(why, i, "lies beyond any disk");
	e.off = le64_get(h.sector) * in->unit;
	e.len = sectors * in->unit;
	e.flags = flags & DM_FUA ? TRACE_FUA : 0;
	if (!(flags & DM_DISCARD) && e.len > 1 * GiB)
		return bad_log(why, i, "is a write of more than 1 GiB");
	if (in->w && flags & DM_FLUSH)
		put_done(in, (struct trace_event){.op = BLK_FLUSH});
	if (!e.len)
		return 0;
	in->size = max_u64(in->size, e.off + e.len);
	if (flags & DM_DISCARD)
		e.op = BLK_DISCARD;
	err = e.op == BLK_WRITE ? take_data(in, e.len, i, why) : 0;
	if (err || !in->w)
		return err;
	e.data = in->data;
	put_done(in, e);
	return 0;
}

static int take_all(struct in *in, struct why *why)
{
	uint8_t *block = malloc(in->unit);
	int err = block ? 0 : -ENOMEM;

	if (!err && fseeko(in->f, in->unit, SEEK_SET))
		err = -errno;
	for (uint64_t i = 0; i < in->n && !err; i++) {
		if (fread(block, 1, in->unit, in->f) != in->unit)
			err = bad_log(why, i, "is not there: the log is cut off");
		else
			err = take_entry(in, block, i, why);
	}
	free(block);
	return err;
}

static int take_super(struct in *in, struct why *why)
{
	struct dm_super s;

	if (fread(&s, 1, sizeof(s), in->f) != sizeof(s) || le64_get(s.magic) != DM_MAGIC)
		return why_set(why, -EINVAL, "this is no log of dm-log-writes");
	in->n = le64_get(s.n_entries);
	in->unit = le32_get(s.sector_size);
	if (le64_get(s.version) != DM_VERSION)
		return why_set(why, -ENOTSUP, "version %" PRIu64 "; known is 1",
			le64_get(s.version));
	if (in->unit < SECTOR || in->unit > 64 * KiB || !is_pow2(in->unit))
		return why_set(why, -EINVAL, "sectors of %u bytes", in->unit);
	return 0;
}

struct dm_args {
	const char *from, *to;
	uint64_t size; /* 0: as large as the log needs */
	bool blank;
};

static int import_from(const struct dm_args *a, struct why *why)
{
	struct in in = {.f = fopen(a->from, "re")};
	struct trace_info info = {.image = "", .format = "", .blank = a->blank};
	struct why inner = {""};
	int err = in.f ? take_super(&in, &inner) : -errno, end;

	if (!err)
		err = take_all(&in, &inner);
	if (!err && a->size && in.size > a->size)
		err = why_set(&inner, -EINVAL, "writes up to byte %" PRIu64, in.size);
	if (err) {
		if (in.f)
			fclose(in.f);
		return why_set(why, err, "%s: %s", a->from, why_text(&inner, err));
	}
	info.disk_bytes = a->size ? a->size : round_up(in.size, 1 * MiB);
	err = access(a->to, F_OK) ? trace_writer_open(a->to, &info, &in.w, &inner) : -EEXIST;
	if (!err) {
		err = take_all(&in, &inner);
		end = trace_writer_close(in.w);
		err = err ? err : end;
		if (err)
			unlink(a->to);
	}
	fclose(in.f);
	free(in.data);
	return err ? why_set(why, err, "%s: %s", a->to, why_text(&inner, err)) : 0;
}

/* ---- the commands ---- */

static const char export_help[] =
	"Usage: sluice powercut export LOG -o FILE\n"
	"Writes a log in the format of Linux's dm-log-writes, for programs that know that one.\n"
	"The guest's side only, without what never completed.\n";
static const char import_help[] =
	"Usage: sluice powercut import FILE -o LOG [--size BYTES] [--blank]\n"
	"Makes a log of one of Linux's dm-log-writes.\n"
	"\n"
	"  --size BYTES  of the disk (default: what the log writes to, rounded up to 1 MiB)\n"
	"  --blank       the disk held nothing but zeros: no --image will be needed\n";

/* 0; 1 with words printed; 2: help was asked for. */
static int dm_parse(struct dm_args *a, int argc, char **argv, bool import)
{
	static const struct option options[] = {{"size", 1, NULL, 's'}, {"blank", 0, NULL, 'b'},
		{"help", 0, NULL, 'h'}, {NULL, 0, NULL, 0}};
	int c;
	char *end;

	optind = 0;
	while ((c = getopt_long(argc, argv, ":o:h", options, NULL)) != -1) {
		if (c == 'h')
			return 2;
		if (c == 'o') {
			a->to = optarg;
		} else if (c == 'b' && import) {
			a->blank = true;
		} else if (c == 's' && import) {
			a->size = strtoull(optarg, &end, 10);
			if (*end || !a->size || a->size % SECTOR || a->size > INT64_MAX) {
				log_error("--size: '%s' is no multiple of 512", optarg);
				return 1;
			}
		} else {
			log_error(c == ':' ? "'%s' needs a value" : "unknown option '%s'",
				argv[optind - 1]);
			return 1;
		}
	}
	if (optind + 1 != argc || !a->to) {
		log_error(optind >= argc ? "which log?"
			  : !a->to       ? "-o is missing: which file is to be made?"
					 : "one log at a time");
		return 1;
	}
	a->from = argv[optind];
	return 0;
}

static int over(int err, const struct why *why)
{
	if (err)
		log_error("%s", why_text(why, err));
	return err != 0;
}

int powercut_export(int argc, char **argv)
{
	struct dm_args a = {0};
	struct recording r;
	struct why why = {""};
	int status = dm_parse(&a, argc, argv, false), err;

	if (status == 2)
		fputs(export_help, stdout);
	if (status)
		return status == 1;
	err = recording_open(&r, a.from, TRACE_LOG_DATA, false, &why);
	if (!err) {
		err = export_to(&r, a.to, &why);
		recording_close(&r);
	}
	return over(err, &why);
}

int powercut_import(int argc, char **argv)
{
	struct dm_args a = {0};
	struct why why = {""};
	int status = dm_parse(&a, argc, argv, true), err;

	if (status == 2)
		fputs(import_help, stdout);
	if (status)
		return status == 1;
	err = import_from(&a, &why);
	return over(err, &why);
}
