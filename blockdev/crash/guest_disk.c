/* SPDX-License-Identifier: MIT */
/*
 * guest_disk.c - see guest_disk.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/guest_disk.h"

#define READ_BYTES   (64 * KiB)
#define PAGE_SECTORS (MEM_PAGE / SECTOR)

struct runs {
	struct guest_run *run;
	uint64_t n, room;
};

/* Only by what it overwrites does it change anything. */
static bool empties(const struct guest_op *g)
{
	return g->n && (g->kind == GUEST_DISCARD || (g->kind == GUEST_WRITE && !g->data));
}

static bool has_data(const struct guest_op *g)
{
	return g->n && g->kind == GUEST_WRITE && g->data;
}

static void add(struct runs *r, uint64_t sector, uint64_t n)
{
	if (r->n == r->room) {
		r->room = r->room ? 2 * r->room : 256;
		r->run = realloc(r->run, r->room * sizeof(*r->run));
		if (!r->run)
			abort();
	}
	r->run[r->n++] = (struct guest_run){sector, n, 0};
}

static int by_sector(const void *a, const void *b)
{
	const struct guest_run *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

/* In order, and none touches the next. */
static void merge(struct runs *r)
{
	uint64_t k = 0;

	if (r->n)
		qsort(r->run, r->n, sizeof(*r->run), by_sector);
	for (uint64_t i = 0; i < r->n; i++) {
		struct guest_run *last = &r->run[k ? k - 1 : 0];

		if (k && r->run[i].sector <= last->sector + last->n)
			last->n = max_u64(last->n, r->run[i].sector + r->run[i].n - last->sector);
		else
			r->run[k++] = r->run[i];
	}
	r->n = k;
}

/* What of these runs held something at first. */
static int add_held(struct runs *to, const struct runs *r, struct guest_start *start)
{
	int err = 0;

	for (uint64_t i = 0; i < r->n && !err; i++) {
		uint64_t off = r->run[i].sector * SECTOR, end = off + r->run[i].n * SECTOR, at, n;

		for (; off < end && !err; off = at + n) {
			err = start->next_data(start, off, end - off, &at, &n);
			if (err || !n)
				break;
			add(to, at / SECTOR, div_round_up(at + n, SECTOR) - at / SECTOR);
		}
	}
	return err;
}

static int find_runs(struct guest_disk *g, const struct crash_log *log, struct guest_start *start)
{
	struct runs all = {0}, emptied = {0};
	int err;

	for (uint64_t i = 0; i < log->n_guest; i++) {
		const struct guest_op *o = &log->guest[i];

		if (has_data(o))
			add(&all, o->sector, o->n);
		else if (empties(o))
			add(&emptied, o->sector, o->n);
	}
	merge(&emptied);
	err = add_held(&all, &emptied, start);
	merge(&all);
	free(emptied.run);
	g->run = all.run;
	g->n_runs = all.n;
	for (uint64_t i = 0; i < all.n; i++) {
		g->run[i].at = g->sectors + (g->run[i].sector - g->sectors) % PAGE_SECTORS;
		g->sectors = g->run[i].at + g->run[i].n;
	}
	return err;
}

/* Where this sector lies in the file, or the first one there that comes after it on the disk. */
static uint64_t place_of(const struct guest_disk *g, uint64_t sector)
{
	uint64_t lo = 0, hi = g->n_runs;

	while (lo < hi) { /* the first run that ends behind it */
		uint64_t mid = lo + (hi - lo) / 2;

		if (g->run[mid].sector + g->run[mid].n <= sector)
			lo = mid + 1;
		else
			hi = mid;
	}
	if (lo == g->n_runs)
		return g->sectors;
	return g->run[lo].at + (sector > g->run[lo].sector ? sector - g->run[lo].sector : 0);
}

const struct guest_run *guest_disk_run(const struct guest_disk *g, uint64_t at)
{
	uint64_t lo = 0, hi = g->n_runs;

	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (g->run[mid].at <= at)
			lo = mid;
		else
			hi = mid;
	}
	return &g->run[lo];
}

/* All sectors of a range that are in the file follow each other there. */
static struct host_op on_file(const struct guest_disk *g, const struct guest_op *o)
{
	struct host_op h = {.op = FILE_FDATASYNC,
		.submitted = o->submitted,
		.completed = o->acknowledged,
		.err = o->err};

	if (has_data(o) || empties(o)) {
		h.op = o->data ? FILE_WRITE : FILE_PUNCH;
		h.off = place_of(g, o->sector) * SECTOR;
		h.len = o->n * SECTOR; /* one run has all of it */
		if (!o->data) /* with the gaps between runs, which are zeros anyway */
			h.len = place_of(g, o->sector + o->n) * SECTOR - h.off;
		h.data = (uint8_t *)(uintptr_t)o->data;
		/* After a discard, nothing says which content is there. */
		h.through =
			o->kind == GUEST_WRITE && (o->fua || (!o->wce_at_submit && !o->wce_at_end));
	}
	return h;
}

static void fill_log(struct guest_disk *g, const struct crash_log *log)
{
	g->log.clock = log->clock;
	g->log.used = log->used;
	g->log.used_arg = log->used_arg;
	for (uint64_t i = 0; i < log->n_guest; i++) {
		const struct guest_op *o = &log->guest[i];
		bool flush = o->kind == GUEST_FLUSH || o->kind == GUEST_WCE_OFF;
		struct host_op h = on_file(g, o);

		if (!flush && !h.len)
			continue;
		g->guest[g->log.n_host] = (uint32_t)i;
		g->log.host[g->log.n_host++] = h;
	}
}

/* Sectors of zeros are as good as none. */
static void keep(struct guest_disk *g, const uint8_t *buf, uint64_t len, uint64_t to)
{
	static const uint8_t zeros[SECTOR];

	for (uint64_t s = 0; s < len; s += SECTOR) {
		uint64_t page = round_down(to + s, MEM_PAGE);

		if (!memcmp(buf + s, zeros, SECTOR))
			continue;
		memcpy(g->content.at + to + s, buf + s, SECTOR);
		mem_lend(&g->start, g->content.at + page, MEM_PAGE, page);
	}
	spill_used(&g->content, len);
}

static int read_start(struct guest_disk *g, struct guest_start *start)
{
	uint64_t size = round_up(g->sectors * SECTOR, MEM_PAGE);
	uint8_t *buf = malloc(READ_BYTES);
	int err = buf ? spill_open(&g->content, size) : -ENOMEM;

	mem_set_size(&g->start, size);
	for (uint64_t i = 0; i < g->n_runs && !err; i++) {
		const struct guest_run *r = &g->run[i];
		uint64_t len = r->n * SECTOR, n;

		for (uint64_t at = 0; at < len && !err; at += n) {
			n = min_u64(len - at, READ_BYTES);
			err = start->read(start, buf, n, r->sector * SECTOR + at);
			if (!err)
				keep(g, buf, n, r->at * SECTOR + at);
		}
	}
	mem_set_size(&g->start, g->sectors * SECTOR);
	free(buf);
	return err;
}

int guest_disk_init(
	struct guest_disk *g, const struct crash_log *log, struct guest_start *start)
{
	uint64_t n = log->n_guest + 1;
	int err;

	*g = (struct guest_disk){.guest = malloc(n * sizeof(*g->guest))};
	crash_log_init(&g->log);
	mem_init(&g->start);
	g->log.host = malloc(n * sizeof(*g->log.host));
	err = g->guest && g->log.host ? 0 : -ENOMEM;
	if (!err)
		err = find_runs(g, log, start);
	if (!err) {
		fill_log(g, log);
		err = read_start(g, start);
	}
	if (err)
		guest_disk_fini(g);
	return err;
}

void guest_disk_fini(struct guest_disk *g)
{
	free(g->log.host); /* not the data: they are the guest log's */
	free(g->run);
	free(g->guest);
	mem_fini(&g->start);
	spill_close(&g->content);
	*g = (struct guest_disk){0};
}

struct image_start {
	struct guest_start s;
	struct guest_disk *g;
	const struct crash_log *log;
	struct disk *d;
};

static int read_disk(struct guest_start *s, void *buf, uint64_t len, uint64_t off)
{
	struct disk *d = container_of(s, struct image_start, s)->d;
	uint64_t size = disk_size(d), n = off < size ? min_u64(len, size - off) : 0;

	memset((uint8_t *)buf + n, 0, len - n);
	return n ? disk_pread(d, buf, n, off) : 0;
}

static int next_data(
	struct guest_start *s, uint64_t off, uint64_t len, uint64_t *at, uint64_t *n)
{
	struct disk *d = container_of(s, struct image_start, s)->d;
	uint64_t size = disk_size(d), end = off < size ? off + min_u64(len, size - off) : off;

	for (*n = 0; off < end; off += *n) {
		struct extent x;
		int err = disk_map(d, off, end - off, &x);

		*at = off;
		*n = x.len;
		if (err || x.kind == EXTENT_DATA)
			return err;
	}
	*n = 0;
	return 0;
}

static int start_fiber(void *arg)
{
	struct image_start *st = arg;

	return guest_disk_init(st->g, st->log, &st->s);
}

int guest_disk_open(struct loop *l, struct guest_disk *g, const struct crash_log *log,
	const char *image, const char *format, struct why *why)
{
	struct disk_opts o = {.path = image, .format = format, .readonly = true, .quiet = true};
	struct image_start st = {{read_disk, next_data}, g, log, NULL};
	int err = disk_open(l, &o, &st.d, why);

	if (err)
		return why_set(why, err, "%s: %s", image, why_text(why, err));
	err = fiber_run(l, start_fiber, &st);
	disk_abandon(st.d);
	return err ? why_set(why, err, "%s: %s", image, strerror(-err)) : 0;
}
