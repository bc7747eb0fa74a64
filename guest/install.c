/* SPDX-License-Identifier: MIT */
/*
 * install.c - job install: replays a trace as deep in flight as its waits allow.
 *
 * Operations go out in order; one that waits for [0, W) goes when the completed prefix reaches W.
 * An operation larger than a request may be is split; it is complete when all its parts are.
 * Data lives in chunks of an arena, taken last in, first out, so that they stay in the CPU's cache.
 *
 * Reads are checked when they complete, against the version of each sector; a sector that a
 * concurrent write may have changed, or that this trace never wrote, must only not hold something
 * foreign.  Without a write cache flushes are not sent, as a Linux guest would not send them, but
 * keep their place in the order.
 */
#include "guest/pattern.h"
#include "guest/trace.h"

#define ARENA_BYTES (32u << 20)
#define CHUNK_BYTES (64u << 10)
#define N_CHUNKS    (ARENA_BYTES / CHUNK_BYTES)
#define SLOTS_MAX   256
#define REQ_CHUNKS  32           /* 2 MiB: no more than a Linux guest sends */
#define KICK_BYTES  (256u << 10) /* do not let the device wait while more is being filled */

struct slot {
	struct vblk_req req; /* tag: the operation */
	uint32_t sectors, n_chunks;
	uint16_t chunk[REQ_CHUNKS];
};

struct replay {
	struct vblk *d;
	struct virtq *q;
	struct trace *t;
	uint8_t *arena;
	uint16_t free_chunk[N_CHUNKS];
	unsigned n_free_chunks;
	struct slot *slots, *free_slot[SLOTS_MAX];
	unsigned n_slots, n_free_slots;
	uint32_t req_sectors;     /* the largest request */
	uint32_t *left;           /* by operation: sectors not yet done; 1 for a flush */
	uint32_t next, next_done; /* next operation, and how much of it is sent */
	uint32_t prefix;          /* operations complete without a gap */
	bool begun;               /* next is noted, and perhaps partly sent */
	bool send_flushes;
	uint32_t depth_max, flushes, errors, wrong, progress;
	uint64_t reads, writes, read_sectors, write_sectors, fill_tsc, check_tsc;
};

static uint8_t *slot_data(const struct replay *rp, const struct slot *s, uint32_t sector)
{
	uint32_t per = CHUNK_BYTES / SECTOR_SIZE;

	return rp->arena + (uint64_t)s->chunk[sector / per] * CHUNK_BYTES +
	       sector % per * SECTOR_SIZE;
}

static void fill(struct replay *rp, const struct slot *s)
{
	uint64_t begin = rdtsc();

	for (uint32_t i = 0; i < s->sectors; i++)
		pattern_fill(slot_data(rp, s, i), s->req.head.sector + i, (uint32_t)s->req.tag + 1);
	rp->fill_tsc += rdtsc() - begin;
}

/* A sector whose content the trace does not decide: its own, of any version, or untouched. */
static bool plausible(const void *data, uint64_t sector)
{
	uint32_t version;
	uint64_t of;
	enum pattern_kind kind = pattern_check(data, &of, &version);

	return kind == PATTERN_ZERO || (kind == PATTERN_OK && of == sector);
}

static void check_read(struct replay *rp, const struct slot *s)
{
	uint32_t op = (uint32_t)s->req.tag, wait_for = rp->t->ops[op].wait_for;
	uint64_t begin = rdtsc();

	for (uint32_t i = 0; i < s->sectors; i++) {
		uint64_t sector = s->req.head.sector + i;
		uint32_t v = rp->t->versions[sector] & VERSION_MASK;
		const void *data = slot_data(rp, s, i);
		bool decided = v != 0 && v <= wait_for;

		if (decided ? trace_sector_ok(rp->t, data, sector) : plausible(data, sector))
			continue;
		rp->wrong++;
		trace_report_bad(rp->t, data, sector);
	}
	rp->check_tsc += rdtsc() - begin;
}

static void release(struct replay *rp, struct slot *s)
{
	while (s->n_chunks)
		rp->free_chunk[rp->n_free_chunks++] = s->chunk[--s->n_chunks];
	rp->free_slot[rp->n_free_slots++] = s;
}

/* The next part of operation `next`.  False: no room in the ring, or no memory, for now. */
static bool send_part(struct replay *rp, uint32_t type)
{
	const struct trace_op *op = &rp->t->ops[rp->next];
	uint32_t sectors = MIN(trace_length(op) - rp->next_done, rp->req_sectors);
	uint32_t bytes = sectors * SECTOR_SIZE, chunks = (bytes + CHUNK_BYTES - 1) / CHUNK_BYTES;
	struct slot *s;

	if (!rp->n_free_slots || rp->n_free_chunks < chunks)
		return false;
	s = rp->free_slot[--rp->n_free_slots];
	s->sectors = sectors;
	s->req.tag = rp->next;
	vblk_req_init(&s->req, type, type == VBLK_FLUSH ? 0 : op->sector + rp->next_done);
	for (uint32_t at = 0; at < bytes; at += CHUNK_BYTES) {
		s->chunk[s->n_chunks] = rp->free_chunk[--rp->n_free_chunks];
		if (!vblk_req_add(rp->d, &s->req, slot_data(rp, s, at / SECTOR_SIZE),
			    MIN(bytes - at, CHUNK_BYTES)))
			fail(STATUS_DEVICE, "install: a request of %u bytes has too many segments",
				bytes);
		s->n_chunks++;
	}
	if (type == VBLK_OUT)
		fill(rp, s);
	if (!vblk_submit(rp->q, &s->req)) {
		release(rp, s);
		return false;
	}
	rp->next_done += sectors;
	rp->depth_max = MAX(rp->depth_max, rp->n_slots - rp->n_free_slots);
	return true;
}

/* False: the operation must wait, or is not all sent yet. */
static bool send_op(struct replay *rp)
{
	const struct trace_op *op = &rp->t->ops[rp->next];
	unsigned kind = trace_kind(op);

	if (op->wait_for > rp->prefix)
		return false;
	if (kind == TRACE_FLUSH) {
		if (rp->send_flushes && !send_part(rp, VBLK_FLUSH))
			return false;
		rp->flushes += rp->send_flushes;
		rp->left[rp->next] = rp->send_flushes;
		trace_apply(rp->t);
	} else {
		if (!rp->begun) {
			rp->begun = true;
			rp->left[rp->next] = trace_length(op);
			rp->reads += kind == TRACE_READ;
			rp->writes += kind == TRACE_WRITE;
			*(kind == TRACE_READ ? &rp->read_sectors : &rp->write_sectors) +=
				trace_length(op);
			trace_apply(rp->t);
		}
		while (rp->next_done < trace_length(op))
			if (!send_part(rp, kind == TRACE_READ ? VBLK_IN : VBLK_OUT))
				return false;
	}
	rp->next++;
	rp->next_done = 0;
	rp->begun = false;
	return true;
}

static void finish(struct replay *rp, struct slot *s)
{
	uint32_t op = (uint32_t)s->req.tag;

	if (s->req.status != VBLK_S_OK)
		rp->errors++;
	else if (s->req.head.type == VBLK_IN)
		check_read(rp, s);
	rp->left[op] -= s->req.head.type == VBLK_FLUSH ? 1 : s->sectors;
	release(rp, s);
}

static void advance(struct replay *rp)
{
	uint32_t percent;

	while (rp->prefix < rp->next && rp->left[rp->prefix] == 0)
		rp->prefix++;
	percent = (uint32_t)((uint64_t)rp->prefix * 100 / rp->t->n_ops);
	if (percent / 10 > rp->progress / 10 && percent < 100)
		report("progress percent=%u", percent);
	rp->progress = percent;
}

static void send_ready(struct replay *rp)
{
	uint64_t unkicked = 0;

	while (rp->next < rp->t->n_ops && send_op(rp)) {
		advance(rp); /* flushes that are not sent complete here */
		unkicked += (uint64_t)trace_length(&rp->t->ops[rp->next - 1]) * SECTOR_SIZE;
		if (unkicked < KICK_BYTES)
			continue;
		unkicked = 0;
		virtq_kick(rp->q);
	}
	virtq_kick(rp->q);
}

static void run(struct replay *rp)
{
	struct vblk_req *r;

	for (;;) {
		send_ready(rp);
		if (rp->prefix == rp->t->n_ops)
			return;
		if (rp->n_free_slots == rp->n_slots) /* each wait is for earlier operations */
			fail(STATUS_USAGE, "install: op %u can never be sent", rp->next);
		vblk_check_queue(rp->q, virtq_wait(rp->q, vblk_timeout()));
		while ((r = vblk_reap(rp->q)) != NULL)
			finish(rp, (struct slot *)r);
		vblk_check_queue(rp->q, true);
		advance(rp);
	}
}

static void prepare(struct replay *rp)
{
	uint32_t per_chunk = (CHUNK_BYTES + rp->d->seg_bytes - 1) / rp->d->seg_bytes;
	uint32_t chunks = MIN(rp->d->seg_max / per_chunk, REQ_CHUNKS);

	rp->req_sectors = chunks ? chunks * CHUNK_BYTES / SECTOR_SIZE
				 : rp->d->seg_max * (rp->d->seg_bytes / SECTOR_SIZE);
	rp->n_slots = MIN(rp->q->size, SLOTS_MAX);
	rp->slots = memory_alloc(rp->n_slots * sizeof(*rp->slots), PAGE_SIZE, "requests");
	rp->left = memory_alloc(rp->t->n_ops * sizeof(*rp->left), PAGE_SIZE, "operations");
	rp->arena = memory_alloc(ARENA_BYTES, PAGE_SIZE, "the data arena");
	for (unsigned i = 0; i < rp->n_slots; i++)
		rp->free_slot[rp->n_free_slots++] = &rp->slots[i];
	for (unsigned i = N_CHUNKS; i-- > 0;)
		rp->free_chunk[rp->n_free_chunks++] = (uint16_t)i;
}

int job_install(void)
{
	static struct replay rp;
	const char *flush = option_str("flush", "auto");
	uint64_t begin, usec;

	if (strcmp(flush, "auto") != 0 && strcmp(flush, "always") != 0)
		fail(STATUS_USAGE, "flush=%s: expected auto or always", flush);
	rp.d = vblk_open();
	rp.q = &rp.d->q[0];
	rp.t = trace_open(rp.d);
	if (rp.d->features & F_RO)
		fail(STATUS_DEVICE, "install: disk %u is read-only", rp.d->number);
	rp.send_flushes = strcmp(flush, "always") == 0 ||
			  ((rp.d->features & F_FLUSH) && vblk_write_cache_on(rp.d));
	prepare(&rp);
	begin = rdtsc();
	run(&rp);
	usec = usec_since(begin);
	report("install ops=%u reads=%lu writes=%lu flushes=%u read_kib=%lu write_kib=%lu usec=%lu "
	       "depth_max=%u errors=%u irqs=%u wrong=%u fill_usec=%lu check_usec=%lu kicks=%lu "
	       "missed_irqs=%lu",
		rp.t->n_ops, rp.reads, rp.writes, rp.flushes, rp.read_sectors / 2,
		rp.write_sectors / 2, usec, rp.depth_max, rp.errors, vblk_irqs(rp.d), rp.wrong,
		rp.fill_tsc * 1000 / tsc_khz, rp.check_tsc * 1000 / tsc_khz, rp.q->kicks,
		vblk_missed_irqs(rp.d));
	return rp.errors ? STATUS_DEVICE : rp.wrong ? STATUS_DATA : STATUS_OK;
}
