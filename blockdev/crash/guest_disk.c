/* SPDX-License-Identifier: MIT */
/*
 * guest_disk.c - see guest_disk.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/guest_disk.h"

#define READ_BYTES (64 * KiB)

static bool has_range(const struct guest_op *g)
{
	return (g->kind == GUEST_WRITE || g->kind == GUEST_DISCARD) && g->n;
}

static int by_sector(const void *a, const void *b)
{
	const struct guest_run *x = a, *y = b;

	return x->sector < y->sector ? -1 : x->sector > y->sector;
}

static void find_runs(struct guest_disk *g, const struct crash_log *log)
{
	uint64_t n = 0, k = 0;

	for (uint64_t i = 0; i < log->n_guest; i++)
		if (has_range(&log->guest[i]))
			g->run[n++] = (struct guest_run){log->guest[i].sector, log->guest[i].n, 0};
	qsort(g->run, n, sizeof(*g->run), by_sector);
	for (uint64_t i = 0; i < n; i++) {
		struct guest_run *last = &g->run[k ? k - 1 : 0];

		if (k && g->run[i].sector <= last->sector + last->n)
			last->n = max_u64(last->n, g->run[i].sector + g->run[i].n - last->sector);
		else
			g->run[k++] = g->run[i];
	}
	g->n_runs = k;
	for (uint64_t i = 0; i < k; i++) {
		g->run[i].at = g->sectors;
		g->sectors += g->run[i].n;
	}
}

/* The last run that begins at or before it, by sector or by place. */
static const struct guest_run *run_of_sector(const struct guest_disk *g, uint64_t sector)
{
	uint64_t lo = 0, hi = g->n_runs;

	while (hi - lo > 1) {
		uint64_t mid = lo + (hi - lo) / 2;

		if (g->run[mid].sector <= sector)
			lo = mid;
		else
			hi = mid;
	}
	return &g->run[lo];
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

static struct host_op on_file(const struct guest_disk *g, const struct guest_op *o)
{
	struct host_op h = {.op = FILE_FDATASYNC,
		.submitted = o->submitted,
		.completed = o->acknowledged,
		.err = o->err};

	if (has_range(o)) {
		const struct guest_run *r = run_of_sector(g, o->sector);

		h.op = o->data ? FILE_WRITE : FILE_PUNCH;
		h.off = (r->at + o->sector - r->sector) * SECTOR;
		h.len = o->n * SECTOR;
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

		if (!has_range(o) && o->kind != GUEST_FLUSH && o->kind != GUEST_WCE_OFF)
			continue;
		g->guest[g->log.n_host] = (uint32_t)i;
		g->log.host[g->log.n_host++] = on_file(g, o);
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

static int read_start(struct guest_disk *g,
	int (*read)(void *arg, void *buf, uint64_t len, uint64_t off), void *arg)
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
			err = read(arg, buf, n, r->sector * SECTOR + at);
			if (!err)
				keep(g, buf, n, r->at * SECTOR + at);
		}
	}
	mem_set_size(&g->start, g->sectors * SECTOR);
	free(buf);
	return err;
}

int guest_disk_init(struct guest_disk *g, const struct crash_log *log,
	int (*read)(void *arg, void *buf, uint64_t len, uint64_t off), void *arg)
{
	uint64_t n = log->n_guest + 1;
	int err;

	*g = (struct guest_disk){
		.run = malloc(n * sizeof(*g->run)), .guest = malloc(n * sizeof(*g->guest))};
	crash_log_init(&g->log);
	mem_init(&g->start);
	g->log.host = malloc(n * sizeof(*g->log.host));
	err = g->run && g->guest && g->log.host ? 0 : -ENOMEM;
	if (!err) {
		find_runs(g, log);
		fill_log(g, log);
		err = read_start(g, read, arg);
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

struct start {
	struct guest_disk *g;
	const struct crash_log *log;
	struct disk *d;
};

static int read_disk(void *arg, void *buf, uint64_t len, uint64_t off)
{
	struct start *st = arg;
	uint64_t size = disk_size(st->d), n = off < size ? min_u64(len, size - off) : 0;

	memset((uint8_t *)buf + n, 0, len - n);
	return n ? disk_pread(st->d, buf, n, off) : 0;
}

static int start_fiber(void *arg)
{
	struct start *st = arg;

	return guest_disk_init(st->g, st->log, read_disk, st);
}

int guest_disk_open(struct loop *l, struct guest_disk *g, const struct crash_log *log,
	const char *image, const char *format, struct why *why)
{
	struct disk_opts o = {.path = image, .format = format, .readonly = true, .quiet = true};
	struct start st = {g, log, NULL};
	int err = disk_open(l, &o, &st.d, why);

	if (err)
		return why_set(why, err, "%s: %s", image, why_text(why, err));
	err = fiber_run(l, start_fiber, &st);
	disk_abandon(st.d);
	return err ? why_set(why, err, "%s: %s", image, strerror(-err)) : 0;
}
