/* SPDX-License-Identifier: MIT */
/*
 * workload.c - random guests: writes, flushes, FUA and changes of the cache bit, through the
 * public block API, every request logged at submission and acknowledgement.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/crash/window.h"
#include "blockdev/file/fault.h"
#include "tests/crash/bitmaps.h"
#include "tests/crash/snapshots.h"
#include "tests/crash/upkeep.h"

struct guest {
	struct run_log *r;
	struct disk *d;
	uint64_t rng;
	unsigned left, workers;
	uint32_t version;
	bool grown;
	struct snapshots snapshots;
	struct bitmaps_work bitmaps;
	struct fault_rule *rule; /* the host fails: so may requests */
	struct disk_opts now;    /* of the disk */
	struct file *again, *over; /* for the overlay, until it is made */
	unsigned next_live;        /* when so many requests are left */
};

static void must(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "crash: %s: %s\n", what, strerror(-err));
	abort();
}

static void must_unless_faulty(const struct guest *g, int err, const char *what)
{
	if (!g->rule)
		must(err, what);
}

enum change { WRITE, ZERO, DISCARD, PACK };

static int change(struct guest *g, const struct guest_op *op, enum change what)
{
	uint64_t len = op->n * SECTOR, off = op->sector * SECTOR;
	uint8_t *buf;
	int err;

	if (what == ZERO)
		return disk_zeroes(g->d, len, off,
			(op->fua ? BLK_FUA : 0) | (rng_next(&g->rng) & 1 ? BLK_UNMAP : 0));
	if (what == DISCARD)
		return disk_discard(g->d, len, off);
	buf = malloc(len);
	for (uint64_t s = 0; s < op->n; s++)
		oracle_fill(buf + s * SECTOR, op->sector + s, op->version);
	err = disk_pwrite(
		g->d, buf, len, off, (op->fua ? BLK_FUA : 0) | (what == PACK ? BLK_COMPRESSED : 0));
	free(buf);
	return err;
}

static void do_change(struct guest *g, enum change what, bool fua)
{
	static const char *const names[] = {
		"write", "write of zeros", "discard", "compressed write"};
	const struct row *row = g->r->row;
	struct guest_op op = {.kind = what == DISCARD ? GUEST_DISCARD : GUEST_WRITE, .fua = fua};
	uint64_t n_sectors = disk_size(g->d) / SECTOR, i;
	int err;

	op.n = 1 + rng_next(&g->rng) % row->max;
	op.sector = rng_next(&g->rng) % (row->span - op.n + 1);
	if (rng_next(&g->rng) % 4 == 0)
		op.sector += n_sectors / 2 - row->span / 2;
	if (what == PACK) {
		uint64_t unit = disk_cluster_size(g->d) / SECTOR;

		op.sector -= op.sector % unit;
		/* Where a write may be half refused, nobody could say what a snapshot holds. */
		op.n = unit * (row->snapshot ? 1 : 1 + rng_next(&g->rng) % 2);
		op.n = min_u64(op.n, n_sectors - op.sector);
	}
	if (row->live_resize && op.sector + op.n > n_sectors)
		op.sector = n_sectors - op.n;
	op.version = what == WRITE || what == PACK ? ++g->version : 0;
	op.wce_at_submit = disk_wce(g->d);
	bitmaps_wrote(&g->bitmaps, &op);
	snapshots_writes(&g->snapshots, &op);
	i = crash_log_submit(&g->r->log, &op);
	err = change(g, &op, what);
	crash_log_ack(&g->r->log, i, disk_wce(g->d), err);
	/* What is there already is not packed over. */
	if (what == PACK && err == -EIO) {
		snapshots_refused(&g->snapshots, &op);
		return;
	}
	/* The disk became smaller while it waited. */
	if (row->live_resize && err == -EINVAL)
		return;
	must_unless_faulty(g, err, names[what]);
	snapshots_wrote(&g->snapshots, &g->r->log.guest[i], err);
}

struct flip {
	struct wce_change c;
	struct fiber *f;
	bool over;
	int err;
};

static void flip_done(struct wce_change *c, int err)
{
	struct flip *f = container_of(c, struct flip, c);

	f->err = err;
	f->over = true;
	fiber_wake(f->f);
}

static void do_flip(struct guest *g)
{
	struct flip f = {.c = {.done = flip_done, .enable = !disk_wce(g->d)}, .f = fiber_self()};
	struct guest_op op = {.kind = f.c.enable ? GUEST_WCE_ON : GUEST_WCE_OFF};
	uint64_t i = crash_log_submit(&g->r->log, &op);

	disk_set_wce(g->d, &f.c);
	while (!f.over)
		fiber_suspend();
	crash_log_ack(&g->r->log, i, disk_wce(g->d), f.err);
	must_unless_faulty(g, f.err, "cache bit");
}

static void do_flush(struct guest *g)
{
	struct guest_op op = {.kind = GUEST_FLUSH};
	uint64_t i = crash_log_submit(&g->r->log, &op);
	int err = disk_flush(g->d);

	crash_log_ack(&g->r->log, i, disk_wce(g->d), err);
	must_unless_faulty(g, err, "flush");
}

static void do_grow(struct guest *g)
{
	must_unless_faulty(g, disk_grow(g->d, g->r->row->grow), "grow");
}

static void do_snapshot(struct guest *g)
{
	must_unless_faulty(g, snapshots_step(&g->snapshots, g->r, g->d, &g->rng), "snapshot");
}

static void do_bitmaps(struct guest *g)
{
	must_unless_faulty(g, bitmaps_step(&g->bitmaps, g->r, g->d, &g->rng), "bitmap");
}

static void do_upkeep(struct guest *g)
{
	must_unless_faulty(g, upkeep_step(g->r, g->d, &g->rng), "upkeep");
}

struct worker {
	struct fiber_start start;
	struct guest *g;
};

static enum change which(const struct row *row, unsigned k)
{
	if (k < row->zero)
		return ZERO;
	if (k < row->zero + row->discard)
		return DISCARD;
	return k < row->zero + row->discard + row->pack ? PACK : WRITE;
}

static void worker_fiber(struct fiber_start *s)
{
	struct guest *g = container_of(s, struct worker, start)->g;
	const struct row *row = g->r->row;

	while (g->left) {
		unsigned k = rng_next(&g->rng) % 100, own = row->flush + row->flip;

		g->left--;
		if (row->grow && !g->grown && g->left < row->ops / 2) {
			g->grown = true;
			do_grow(g);
		} else if (k < row->flush)
			do_flush(g);
		else if (k < own)
			do_flip(g);
		else if (k < own + row->snapshot)
			do_snapshot(g);
		else if (k < own + row->snapshot + row->bitmaps)
			do_bitmaps(g);
		else if (k < own + row->snapshot + row->upkeep)
			do_upkeep(g);
		else
			do_change(g, which(row, rng_next(&g->rng) % 100),
				k < own + row->snapshot + row->bitmaps + row->upkeep + row->fua);
	}
	g->workers--;
}

/* The guest's requests wait meanwhile; some are in flight. */
static void put_overlay(struct guest *g)
{
	struct disk_opts now = g->now, over = g->now;
	int err;

	now.file = g->again;
	over.format = "qcow2";
	over.file = g->over;
	g->over = NULL;
	g->r->overlay_began = g->r->log.clock;
	err = disk_online_overlay(g->d, &now, &over, true, NULL);
	if (!err)
		g->r->overlaid_at = g->r->log.clock;
	must_unless_faulty(g, err, "overlay");
}

static void live_change(struct guest *g)
{
	const struct row *row = g->r->row;
	bool snapshot = row->live_snapshot > 0;

	g->next_live = g->left - min_u64(g->left, snapshot ? row->live_snapshot : row->live_resize);
	must_unless_faulty(g,
		snapshot ? snapshots_step(&g->snapshots, g->r, g->d, &g->rng) :
			   upkeep_resize_live(g->r, g->d, &g->rng),
		"live change");
}

static void work(struct loop *l, struct guest *g, unsigned ops)
{
	const struct row *row = g->r->row;
	struct worker w[64];

	g->left = g->next_live = ops;
	g->workers = row->depth;
	for (unsigned i = 0; i < row->depth; i++) {
		w[i] = (struct worker){.g = g, .start.fn = worker_fiber};
		fiber_start(l, &w[i].start);
	}
	while (g->workers) {
		must(loop_turn(l, true), "loop");
		if (g->over && g->left < ops / 2)
			put_overlay(g);
		if ((row->live_snapshot || row->live_resize) && g->left < g->next_live)
			live_change(g);
	}
}

struct create_args {
	struct file *f;
	const struct row *row;
};

static int create_fiber(void *arg)
{
	struct create_args *a = arg;

	return qcow2_create(a->f, &a->row->create, NULL);
}

/*
 * Free clusters with something in them, as a discard or a repair leaves them: data, or, worse,
 * an L2 table that names what others use, which no repair can tell from a good one.
 */
static void add_junk(struct mem_image *m, uint32_t clusters, uint32_t cluster_size)
{
	be64_t sector[SECTOR / 8];

	for (uint64_t i = 0; i < clusters; i++)
		for (uint64_t at = 0; at < cluster_size; at += SECTOR) {
			uint64_t target = i * cluster_size % round_up(m->size, cluster_size);

			oracle_fill(sector, 0xdead, 0xbad);
			for (unsigned k = 0; i % 2 && k < ARRAY_SIZE(sector); k++)
				sector[k] = be64_make(target | QCOW2_OFLAG_COPIED);
			mem_write(m, sector, SECTOR, m->size, true);
		}
}

/* A data file holds something where no entry says so, unless it has to read as zeros. */
static void add_data_file(const struct row *row, struct mem_image *m)
{
	uint8_t sector[SECTOR];

	mem_set_size(m, row_data_bytes(row));
	for (uint64_t at = 0; at < m->size && !row->create.data_file_raw; at += SECTOR) {
		oracle_fill(sector, 0xdead, 0xbad);
		mem_write(m, sector, SECTOR, at, false);
	}
}

static void create(struct loop *l, const struct row *row, struct mem_image *m)
{
	struct create_args a = {.row = row};

	if (!strcmp(row->format, "raw")) {
		mem_set_size(m, row->create.size);
		return;
	}
	add_data_file(row, m);
	must(memfile_open(l, m, 0, &a.f), "memfile");
	if (row->create.data_file)
		must(window_pair(a.f, row_data_bytes(row), NULL, &a.f), "window");
	must(fiber_run(l, create_fiber, &a), "create");
	file_close(a.f);
	add_junk(m, row->junk, row->create.cluster_size);
}

/* false: the (failing) host did not let it. */
static bool open_traced(struct loop *l, struct guest *g, uint64_t seed)
{
	struct run_log *r = g->r;
	struct disk_opts o = {.format = r->row->format,
		.cache = r->row->mode,
		.unmap = true,
		.backing = below_path(r->row),
		.backing_format = "raw",
		.l2_cache_bytes = r->row->tiny,
		.refcount_cache_bytes = r->row->tiny};
	struct file *f, *t;
	int err;

	must(memfile_open(l, &r->live, seed, &f), "memfile");
	/* A host that has failed is mended before the disk is opened anew. */
	if (g->rule && !(r->reopened_at && g->rule->failed)) {
		must(fault_open(f, &t), "fault");
		uint64_t matched = g->rule->matched, failed = g->rule->failed;

		fault_add(t, g->rule);
		g->rule->matched = matched; /* when the disk is opened anew, the count goes on */
		g->rule->failed = failed;
		f = t;
	}
	must(trace_open(f, &r->log, &t), "trace");
	if (row_data_bytes(r->row))
		must(window_pair(t, row_data_bytes(r->row), &o.data_file, &t), "window");
	if (r->row->overlay) {
		must(window_pair(t, row_below_bytes(r->row), &t, &g->over), "window");
		must(window_again(t, &g->again), "window");
		if (strcmp(r->row->format, "raw"))
			window_grows(t, r->below_size);
	}
	g->now = o;
	bitmaps_opening(r);
	err = disk_open_file(t, &o, &g->d, NULL);
	bitmaps_opened(r);
	must_unless_faulty(g, err, "open");
	if (err && g->over) {
		file_close(g->again);
		file_close(g->over);
	}
	return !err;
}

struct look_args {
	struct disk *d;
	int (*look)(struct disk *d, void *arg);
	void *arg;
};

static int look_fiber(void *arg)
{
	struct look_args *a = arg;

	return a->look(a->d, a->arg);
}

/* A clean close promises what a flush promises. */
static void power_off(struct guest *g)
{
	struct guest_op op = {.kind = GUEST_FLUSH};
	uint64_t i = crash_log_submit(&g->r->log, &op);
	int err;

	if (g->r->row->bitmaps)
		bitmaps_closing(&g->bitmaps, g->r);
	err = disk_close(g->d, NULL);
	crash_log_ack(&g->r->log, i, false, err);
	if (g->r->row->bitmaps)
		bitmaps_closed(g->r, err);
	must_unless_faulty(g, err, "close");
	faults_reopen(g->r, g->rule, !err);
}

/* What a cut at the end of the run so far may leave, one state of many. */
static void leave_something(struct guest *g, struct mem_image *out)
{
	struct run_log *r = g->r;
	struct crash_choice c = {.unit = SECTOR};
	uint64_t sizes[8];
	uint8_t page[MEM_PAGE];
	struct mem_image state;
	struct crash_model m;

	mem_init(&state);
	model_init(&m, &r->log, &r->start);
	model_advance(&m, r->log.clock);
	c.tear = rng_next(&g->rng) | 1;
	c.reversed = rng_next(&g->rng) & 1;
	c.fate = calloc(m.n_pending + 1, 1);
	for (uint32_t i = 0; i < m.n_pending; i++)
		c.fate[i] = (uint8_t)(rng_next(&g->rng) % (FATE_TORN + 1));
	c.size = sizes[rng_next(&g->rng) % model_sizes(&m, sizes, ARRAY_SIZE(sizes))];
	model_build(&m, &c, &state);
	mem_set_size(out, state.size);
	for (uint64_t at = 0; at < state.size; at += MEM_PAGE) {
		mem_read(&state, page, MEM_PAGE, at);
		if (page[0] || memcmp(page, page + 1, MEM_PAGE - 1))
			mem_write(out, page, MEM_PAGE, at, false);
	}
	free(c.fate);
	model_fini(&m);
	mem_fini(&state);
}

/*
 * The run starts anew from there.  Of the guest's writes so far only those that were promised
 * to be durable count: no later flush brings the others back.
 */
static void power_cut(struct guest *g)
{
	struct run_log *r = g->r;
	struct mem_image left;

	disk_abandon(g->d);
	mem_init(&left);
	leave_something(g, &left);
	mem_fini(&r->live);
	mem_fini(&r->start);
	r->start = left;
	mem_reset(&r->live, &r->start);
	for (uint64_t i = 0; i < r->log.n_host; i++)
		free(r->log.host[i].data);
	r->log.n_host = 0;
	faults_reopen(r, NULL, false);
}

static void run(struct loop *l, struct guest *g, struct look_args *look)
{
	const struct row *row = g->r->row;
	bool again = row->reopen || row->cut || row->bitmaps;
	/* What a failing host has left is opened once. */
	unsigned n = row->bitmaps && !g->rule ? CRASH_SESSIONS : again ? 2 : 1;
	unsigned part = row->ops / n;

	for (unsigned i = 0; i < n; i++) {
		if (i && row->cut)
			power_cut(g);
		else if (i)
			power_off(g);
		if (!open_traced(l, g, g->r->seed * 2 + 1 + i))
			return;
		work(l, g, i + 1 < n ? part : row->ops - (n - 1) * part);
	}
	disk_drain(g->d);
	if (look) {
		look->d = g->d;
		(void)!fiber_run(l, look_fiber, look);
	}
	disk_stats_get(g->d, &g->r->stats);
	disk_abandon(g->d);
}

/* ---- the backing file ---- */

#define STRIPE 24 /* sectors of data, then as many of nothing */

static char below[512];

static void below_unlink(void)
{
	unlink(below);
}

static void fill_stripe(int fd, uint64_t at)
{
	uint8_t buf[STRIPE * SECTOR];

	for (uint64_t s = 0; s < STRIPE; s++)
		oracle_fill(buf + s * SECTOR, at + s, 1);
	if (pwrite(fd, buf, sizeof(buf), (off_t)(at * SECTOR)) != (ssize_t)sizeof(buf))
		must(-EIO, below);
}

uint32_t below_version(const struct row *row, uint64_t sector)
{
	return row->below && sector < BELOW_SECTORS && sector % (2 * STRIPE) < STRIPE;
}

const char *below_path(const struct row *row)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	if (!row->below)
		return NULL;
	if (below[0])
		return below;
	snprintf(below, sizeof(below), "%s/sluice-crash-below-%d", dir ? dir : "/tmp",
		(int)getpid());
	fd = open(below, O_CREAT | O_TRUNC | O_WRONLY, 0600);
	if (fd < 0)
		must(-errno, below);
	for (uint64_t at = 0; at < BELOW_SECTORS; at += 2 * STRIPE)
		fill_stripe(fd, at);
	close(fd);
	atexit(below_unlink);
	return below;
}

/* What the guest finds when it first looks is as good as written and flushed long ago. */
static void log_below(struct guest *g)
{
	g->version = 1;
	for (uint64_t at = 0; at < BELOW_SECTORS; at += 2 * STRIPE) {
		struct guest_op op = {
			.kind = GUEST_WRITE, .fua = true, .sector = at, .n = STRIPE, .version = 1};
		uint64_t i = crash_log_submit(&g->r->log, &op);

		g->r->log.guest[i].submitted = g->r->log.guest[i].acknowledged = 0;
	}
	g->r->log.clock = 0;
}

static void prepare(struct loop *l, const struct row *row, uint64_t seed, struct run_log *out)
{
	*out = (struct run_log){.row = row, .seed = seed, .overlaid_at = NEVER};
	crash_log_init(&out->log);
	mem_init(&out->start);
	mem_init(&out->live);
	create(l, row, &out->start);
	if (row->overlay) {
		out->below_size = out->start.size;
		mem_set_size(&out->start, row_below_bytes(row));
	}
	mem_reset(&out->live, &out->start);
}

static void snapshots_start(struct guest *g, const struct row *row)
{
	if (!row_snapshots(row))
		return;
	assert((row->depth == 1 || !row->snapshot) && !row->cut && !row->discard);
	snapshots_init(&g->snapshots, row->create.size / SECTOR, row->live_snapshot);
	for (uint64_t i = 0; i < g->snapshots.n_sectors; i++)
		g->snapshots.now[i] = below_version(row, i);
}

void workload_run(struct loop *l, const struct row *row, uint64_t seed, struct run_log *out)
{
	struct guest g = {.r = out, .rng = seed};

	prepare(l, row, seed, out);
	snapshots_start(&g, row);
	g.bitmaps.n_sectors = row->create.size / SECTOR;
	if (row->below)
		log_below(&g);
	run(l, &g, NULL);
	snapshots_fini(&g.snapshots);
	bitmaps_fini(&g.bitmaps);
}

void workload_run_faulty(struct loop *l, const struct row *row, uint64_t seed,
	struct fault_rule *rule, int (*look)(struct disk *d, void *arg), void *arg,
	struct run_log *out)
{
	struct guest g = {.r = out, .rng = seed, .rule = rule};
	struct look_args look_args = {.look = look, .arg = arg};

	prepare(l, row, seed, out);
	out->bitmaps_unknown = true;
	snapshots_start(&g, row);
	g.bitmaps.n_sectors = row->create.size / SECTOR;
	if (row->below)
		log_below(&g);
	run(l, &g, &look_args);
	snapshots_fini(&g.snapshots);
	bitmaps_fini(&g.bitmaps);
}

void workload_free(struct run_log *r)
{
	crash_log_fini(&r->log);
	snapshots_free(r);
	upkeep_free(r);
	bitmaps_free(r);
	mem_fini(&r->start);
	mem_fini(&r->live);
}
