/* SPDX-License-Identifier: MIT */
/*
 * test_crash_model.c - the model and the oracle, each judged by the other.
 *
 * Random guests write, flush, use FUA and switch the cache, several requests at once.  Whatever a
 * cut of the guest's disk may leave by the model, the oracle must call legal; and where requests
 * come one by one, whatever the oracle calls legal in a sector, some state of the model must hold
 * there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/cuts.h"
#include "blockdev/crash/guest_disk.h"
#include "blockdev/crash/window.h"
#include "tests/support/scratch.h"

#define SECTORS 24
#define OPS     40
#define FIRST   104 /* where the guest's sectors begin: a page begins there */

struct guest {
	struct crash_log log;
	uint8_t *data[OPS];
	uint64_t rng;
	bool wce;
};

static uint64_t below(struct guest *g, uint64_t n)
{
	return rng_next(&g->rng) % n;
}

static uint64_t submit(struct guest *g, unsigned i)
{
	struct guest_op op = {.kind = GUEST_WRITE, .wce_at_submit = g->wce};
	uint64_t k = below(g, 10);

	if (k < 2)
		op.kind = GUEST_FLUSH;
	else if (k == 2)
		op.kind = g->wce ? GUEST_WCE_OFF : GUEST_WCE_ON;
	if (op.kind == GUEST_WRITE) {
		op.fua = below(g, 5) == 0;
		op.n = 1 + below(g, 6);
		op.sector = FIRST + below(g, SECTORS - op.n + 1);
		op.version = i + 1;
		op.data = g->data[i] = malloc(op.n * SECTOR);
		for (uint64_t s = 0; s < op.n; s++)
			oracle_fill(g->data[i] + s * SECTOR, op.sector + s, op.version);
	}
	return crash_log_submit(&g->log, &op);
}

static void finish(struct guest *g, uint64_t i)
{
	if (g->log.guest[i].kind == GUEST_WCE_OFF)
		g->wce = false;
	if (g->log.guest[i].kind == GUEST_WCE_ON)
		g->wce = true;
	crash_log_ack(&g->log, i, g->wce, 0);
}

static void record(struct guest *g, uint64_t seed, unsigned depth)
{
	uint64_t flying[8], n = 0;

	*g = (struct guest){.rng = seed, .wce = seed & 1};
	crash_log_init(&g->log);
	for (unsigned i = 0; i < OPS;) {
		if (n < depth && below(g, 3)) {
			flying[n++] = submit(g, i++);
		} else if (n) {
			uint64_t k = below(g, n);

			finish(g, flying[k]);
			flying[k] = flying[--n];
		}
	}
}

static void forget(struct guest *g)
{
	for (unsigned i = 0; i < OPS; i++)
		free(g->data[i]);
	crash_log_fini(&g->log);
}

static int zeros(struct guest_start *st, void *buf, uint64_t len, uint64_t off)
{
	memset(buf, 0, len);
	return 0;
}

static int no_data(
	struct guest_start *st, uint64_t off, uint64_t len, uint64_t *at, uint64_t *n)
{
	*n = 0;
	return 0;
}

struct pair {
	struct guest_disk d;
	struct oracle o;
	struct cuts k;
	uint64_t met[SECTORS], states; /* bits: the versions that were found there at this cut */
};

static void visit(struct cuts *k)
{
	struct pair *p = k->arg;
	uint64_t content[SECTOR / 8];

	p->states++;
	model_build(&k->model, &k->c, &k->state);
	for (uint64_t at = 0; at < p->d.sectors; at++) {
		const struct guest_run *r = guest_disk_run(&p->d, at);
		uint64_t sector = r->sector + at - r->at, word;
		enum verdict v;

		if (at < r->at || at >= r->at + r->n)
			continue; /* a gap */
		mem_read(&k->state, content, SECTOR, at * SECTOR);
		word = oracle_word(content);
		v = oracle_judge_word(&p->o, sector, word);
		ck_assert_msg(v == LEGAL, "cut at %llu, sector %llu, version %llu: %s",
			(unsigned long long)k->model.at, (unsigned long long)sector,
			(unsigned long long)word & 0xffffff, verdict_name(v));
		ck_assert_uint_eq(facts_get(&k->facts, at)->word, word);
		p->met[sector - FIRST] |= 1ULL << (word & 0xffffff);
	}
}

static void moved(struct cuts *k)
{
	struct pair *p = k->arg;

	oracle_at(&p->o, k->model.at);
	k->promises = p->o.promises;
	memset(p->met, 0, sizeof(p->met));
}

static void start(struct pair *p, struct guest *g)
{
	struct guest_start blank = {zeros, no_data};

	*p = (struct pair){0};
	ck_assert_int_eq(guest_disk_init(&p->d, &g->log, &blank), 0);
	ck_assert_int_eq(oracle_init(&p->o, &g->log, FIRST + SECTORS), 0);
	cuts_init(&p->k, &p->d.log, &p->d.start, false);
	p->k.arg = p;
	p->k.visit = visit;
	p->k.moved = moved;
}

static void end(struct pair *p, struct guest *g)
{
	cuts_fini(&p->k);
	oracle_fini(&p->o);
	guest_disk_fini(&p->d);
	forget(g);
}

START_TEST(what_the_model_leaves_is_legal)
{
	uint64_t states = 0;

	for (uint64_t seed = 1; seed <= 60; seed++) {
		struct guest g;
		struct pair p;

		record(&g, seed, 1 + seed % 8);
		start(&p, &g);
		p.k.rng = seed;
		cuts_run(&p.k, 600);
		states += p.states;
		end(&p, &g);
	}
	ck_assert_uint_gt(states, 10000);
}
END_TEST

/* One request at a time: the model leaves all that the oracle allows. */
START_TEST(what_is_legal_the_model_leaves)
{
	uint64_t checked = 0;

	for (uint64_t seed = 1; seed <= 30; seed++) {
		struct guest g;
		struct pair p;
		uint64_t n, *ticks;

		record(&g, seed, 1);
		start(&p, &g);
		p.k.promises = 0;
		ticks = cuts_ticks(&p.d.log, &n);
		for (uint64_t i = 0; i < n; i++) {
			cuts_at(&p.k, ticks[i]);
			moved(&p.k);
			/* Each kept alone shows each content that may be there. */
			for (uint32_t k = 0; k <= p.k.n_data; k++) {
				cuts_set_all(&p.k, FATE_LOST);
				if (k < p.k.n_data)
					p.k.c.fate[p.k.data[k]] = FATE_WHOLE;
				(void)cuts_is_new(&p.k);
				visit(&p.k);
			}
			for (uint64_t s = 0; s < SECTORS; s++) {
				for (uint32_t v = 0; v <= OPS; v++) {
					bool legal =
						oracle_judge_word(&p.o, FIRST + s,
							v ? (FIRST + s) << 24 | v : 0) == LEGAL;

					if (!p.met[s] && !v)
						continue; /* never written at all */
					ck_assert_msg(legal == (p.met[s] >> v & 1),
						"seed %d cut %d sector %d version %d: legal %d",
						(int)seed, (int)ticks[i], (int)s, (int)v, legal);
					checked++;
				}
			}
		}
		free(ticks);
		end(&p, &g);
	}
	ck_assert_uint_gt(checked, 100000);
}
END_TEST

static struct guest by_hand(void)
{
	struct guest g = {.wce = true};

	crash_log_init(&g.log);
	for (unsigned i = 0; i < 3; i++) {
		g.data[i] = malloc(4 * SECTOR);
		for (uint64_t s = 0; s < 4; s++)
			oracle_fill(g.data[i] + s * SECTOR, FIRST + s, i + 1);
	}
	return g;
}

static uint64_t write_at(struct guest *g, unsigned i, uint64_t sector, uint64_t n, bool fua)
{
	struct guest_op op = {.kind = GUEST_WRITE,
		.wce_at_submit = true,
		.fua = fua,
		.n = n,
		.sector = FIRST + sector,
		.version = i + 1,
		.data = g->data[i] + sector * SECTOR};

	return crash_log_submit(&g->log, &op);
}

static void expect(struct pair *p, const char *versions)
{
	uint64_t content[SECTOR / 8];

	model_build(&p->k.model, &p->k.c, &p->k.state);
	for (uint64_t s = 0; versions[s]; s++) {
		mem_read(&p->k.state, content, SECTOR, s * SECTOR);
		ck_assert_uint_eq(oracle_word(content) & 0xffffff, (uint64_t)(versions[s] - '0'));
	}
}

/* A FUA write in the middle of what is still in the cache: only that part is overtaken. */
START_TEST(a_write_that_goes_through_overtakes)
{
	struct guest g = by_hand();
	struct pair p;
	uint64_t a = write_at(&g, 0, 0, 4, false), b;

	finish(&g, a);
	b = write_at(&g, 1, 1, 2, true);
	finish(&g, b);
	start(&p, &g);
	cuts_at(&p.k, 3); /* the FUA write is on its way */
	ck_assert_uint_eq(p.k.n_data, 2);
	cuts_set_all(&p.k, FATE_LOST);
	expect(&p, "0000");
	p.k.c.fate[p.k.data[0]] = FATE_WHOLE;
	expect(&p, "1111");
	cuts_at(&p.k, 4);
	ck_assert_uint_eq(p.k.n_data, 1);
	cuts_set_all(&p.k, FATE_LOST);
	expect(&p, "0220");
	cuts_set_all(&p.k, FATE_WHOLE);
	expect(&p, "1221");
	p.k.c.reversed = true;
	expect(&p, "1221");
	end(&p, &g);
}
END_TEST

/* An acknowledged flush covers what was acknowledged before it was submitted, and nothing else. */
START_TEST(overlapping_flushes)
{
	struct guest g = by_hand();
	struct guest_op flush = {.kind = GUEST_FLUSH};
	uint64_t a = write_at(&g, 0, 0, 1, false), b = write_at(&g, 1, 1, 1, false), f1, f2;
	struct pair p;

	finish(&g, a);
	f1 = crash_log_submit(&g.log, &flush); /* covers a; not b, which is still on its way */
	finish(&g, b);
	f2 = crash_log_submit(&g.log, &flush);
	finish(&g, f2); /* covers both, and is over first */
	start(&p, &g);
	cuts_at(&p.k, 6);
	ck_assert_uint_eq(p.k.n_data, 2);
	cuts_at(&p.k, 7);
	ck_assert_uint_eq(p.k.n_data, 0);
	end(&p, &g);
	(void)f1;

	g = by_hand();
	a = write_at(&g, 0, 0, 1, false), b = write_at(&g, 1, 1, 1, false);
	finish(&g, a);
	f1 = crash_log_submit(&g.log, &flush);
	finish(&g, b);
	finish(&g, f1);
	start(&p, &g);
	cuts_at(&p.k, 6);
	ck_assert_uint_eq(p.k.n_data, 1);
	cuts_set_all(&p.k, FATE_LOST);
	expect(&p, "10");
	end(&p, &g);
}
END_TEST

/* Fails if sector 0 is old while sectors 2 and 3 are new. */
static bool ordered(struct cuts *k)
{
	uint64_t content[4][SECTOR / 8];

	model_build(&k->model, &k->c, &k->state);
	mem_read(&k->state, content, sizeof(content), 0);
	return oracle_word(content[0]) || !oracle_word(content[2]) || !oracle_word(content[3]);
}

START_TEST(the_smallest_failing_subset)
{
	struct guest g = by_hand();
	uint8_t needed[8];
	struct pair p;

	for (unsigned s = 0; s < 4; s++)
		finish(&g, write_at(&g, 0, s, 1, false));
	start(&p, &g);
	p.k.holds = ordered;
	cuts_at(&p.k, g.log.clock);
	cuts_set_all(&p.k, FATE_WHOLE);
	p.k.c.fate[0] = FATE_TORN;
	p.k.c.fate[1] = FATE_LOST;
	p.k.c.tear = 2; /* keeps nothing of one sector */
	while (ordered(&p.k))
		p.k.c.tear++;
	cuts_minimise(&p.k);
	ck_assert(!ordered(&p.k));
	ck_assert_int_eq(p.k.c.fate[0], FATE_LOST);
	ck_assert_int_eq(p.k.c.fate[1], FATE_WHOLE);
	cuts_needed(&p.k, needed);
	ck_assert(!needed[0] && !needed[1] && needed[2] && needed[3]);
	ck_assert_int_eq(p.k.c.fate[1], FATE_WHOLE);
	end(&p, &g);
}
END_TEST

/* Blocks of 4096 bytes are lost or kept as one; without tearing, all of a write. */
START_TEST(tearing)
{
	struct guest g = {.wce = true};
	struct guest_op op = {
		.kind = GUEST_WRITE, .wce_at_submit = true, .sector = 0, .n = 24, .version = 1};
	bool torn_512 = false;
	struct pair p;

	crash_log_init(&g.log);
	op.data = g.data[0] = malloc(24 * SECTOR);
	for (uint64_t s = 0; s < 24; s++)
		oracle_fill(g.data[0] + s * SECTOR, s, 1);
	finish(&g, crash_log_submit(&g.log, &op));
	start(&p, &g);
	cuts_at(&p.k, g.log.clock);
	for (unsigned i = 0; i < 200; i++) {
		uint64_t kept = 0;

		p.k.c.unit = i < 100 ? 4096 : SECTOR;
		p.k.whole = i % 100 >= 50;
		cuts_random(&p.k);
		facts_choose(&p.k.facts, &p.k.c);
		for (uint64_t s = 0; s < 24; s++)
			kept |= (uint64_t)(facts_get(&p.k.facts, s)->word != 0) << s;
		if (p.k.whole)
			ck_assert(!kept || kept == 0xffffff);
		for (unsigned b = 0; b < 24 && i < 100; b += 8)
			ck_assert((kept >> b & 0xff) == 0 || (kept >> b & 0xff) == 0xff);
		torn_512 |= i >= 100 && ((kept & 0xff) != 0xff) && (kept & 0xff);
	}
	ck_assert(torn_512);
	end(&p, &g);
}
END_TEST

/* ---- two files in one ---- */

struct two {
	struct file *first, *rest;
};

static int write_both(void *arg)
{
	struct two *t = arg;
	char buf[SECTOR] = {1};

	ck_assert_uint_eq(file_size(t->first), MEM_PAGE);
	ck_assert_uint_eq(file_size(t->rest), 0);
	ck_assert_int_eq(file_pwrite(t->first, buf, SECTOR, 0), 0);
	ck_assert_int_eq(file_pwrite(t->rest, buf, SECTOR, SECTOR), 0);
	ck_assert_uint_eq(file_size(t->rest), 2 * SECTOR);
	ck_assert_int_eq(file_fdatasync(t->first), 0);
	ck_assert_int_eq(file_pwrite(t->first, buf, SECTOR, SECTOR), 0);
	ck_assert_int_eq(file_fdatasync(t->rest), 0);
	return 0;
}

START_TEST(an_fdatasync_covers_its_own_file)
{
	struct mem_image start, live;
	struct crash_log log;
	struct crash_model m;
	struct loop *l = scratch_loop(_i);
	struct file *f, *t;
	struct two two;

	crash_log_init(&log);
	mem_init(&start);
	mem_init(&live);
	mem_set_size(&start, MEM_PAGE);
	mem_reset(&live, &start);
	ck_assert_int_eq(memfile_open(l, &live, 0, &f), 0);
	ck_assert_int_eq(trace_open(f, &log, &t), 0);
	ck_assert_int_eq(window_pair(t, MEM_PAGE, &two.first, &two.rest), 0);
	ck_assert_int_eq(fiber_pool_init(l), 0);
	ck_assert_int_eq(fiber_run(l, write_both, &two), 0);
	ck_assert_uint_eq(log.n_host, 5);
	model_init(&m, &log, &start);
	/* After the first file's: its write is durable, the other file's is not. */
	model_advance(&m, log.host[2].completed);
	ck_assert_uint_eq(m.n_pending, 1);
	ck_assert_uint_eq(m.pending[0], 1);
	/* After the other's: what the first file got since is pending. */
	model_advance(&m, log.clock);
	ck_assert_uint_eq(m.n_pending, 1);
	ck_assert_uint_eq(m.pending[0], 3);
	ck_assert_uint_eq(m.durable.size, MEM_PAGE + 2 * SECTOR);
	model_fini(&m);
	file_close(two.first);
	file_close(two.rest);
	mem_fini(&live);
	mem_fini(&start);
	crash_log_fini(&log);
	loop_free(l);
}
END_TEST

/* Sectors 50 and 51 hold something at first. */
static int two_sectors(struct guest_start *st, void *buf, uint64_t len, uint64_t off)
{
	memset(buf, 0, len);
	for (uint64_t s = 0; s < len / SECTOR; s++)
		if (off / SECTOR + s == 50 || off / SECTOR + s == 51)
			memset((uint8_t *)buf + s * SECTOR, 7, SECTOR);
	return 0;
}

static int next_of_two(
	struct guest_start *st, uint64_t off, uint64_t len, uint64_t *at, uint64_t *n)
{
	*at = max_u64(off, 50 * SECTOR);
	*n = min_u64(off + len, 52 * SECTOR) > *at ? min_u64(off + len, 52 * SECTOR) - *at : 0;
	return 0;
}

START_TEST(a_disk_is_as_large_as_what_was_written)
{
	static const uint8_t data[MEM_PAGE] = {1};
	const struct guest_op ops[] = {{.kind = GUEST_DISCARD, .n = 1ULL << 40},
		{.kind = GUEST_WRITE, .sector = 1000, .n = 1ULL << 40}, /* zeros */
		{.kind = GUEST_WRITE, .sector = 3, .n = 1, .data = data},
		{.kind = GUEST_WRITE, .sector = 800000, .n = 8, .data = data},
		{.kind = GUEST_DISCARD, .sector = 60, .n = 100},
		{.kind = GUEST_DISCARD, .sector = 51, .n = 1000000}};
	struct guest_start st = {two_sectors, next_of_two};
	struct crash_log log;
	struct guest_disk d;
	uint8_t page[MEM_PAGE];

	crash_log_init(&log);
	for (unsigned i = 0; i < ARRAY_SIZE(ops); i++)
		crash_log_submit(&log, &ops[i]);
	ck_assert_int_eq(guest_disk_init(&d, &log, &st), 0);
	ck_assert_uint_eq(d.n_runs, 3);
	ck_assert_uint_le(d.sectors, 32);
	for (uint64_t i = 0; i < d.n_runs; i++)
		ck_assert_uint_eq(d.run[i].at % 8, d.run[i].sector % 8);
	ck_assert_uint_eq(d.run[1].sector, 50);
	ck_assert_uint_eq(d.run[1].n, 2);
	mem_read(&d.start, page, SECTOR, d.run[1].at * SECTOR);
	ck_assert_uint_eq(page[0], 7);
	/* The fifth discard empties nothing, the others what there is from their beginning on. */
	ck_assert_uint_eq(d.log.n_host, 5);
	ck_assert_uint_eq(d.log.host[0].len, d.sectors * SECTOR - d.log.host[0].off);
	ck_assert_uint_eq(d.log.host[1].off, d.run[2].at * SECTOR);
	ck_assert_uint_eq(d.log.host[1].len, 8 * SECTOR);
	ck_assert_uint_eq(d.log.host[4].off, (d.run[1].at + 1) * SECTOR);
	ck_assert_uint_eq(d.guest[4], 5);
	ck_assert_uint_eq(d.log.host[2].len, SECTOR); /* and not the gap behind it */
	guest_disk_fini(&d);
	crash_log_fini(&log);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("crash model");
	TCase *t = tcase_create("model");

	tcase_set_timeout(t, 60);
	tcase_add_test(t, what_the_model_leaves_is_legal);
	tcase_add_test(t, what_is_legal_the_model_leaves);
	tcase_add_test(t, a_write_that_goes_through_overtakes);
	tcase_add_test(t, overlapping_flushes);
	tcase_add_test(t, an_fdatasync_covers_its_own_file);
	tcase_add_test(t, the_smallest_failing_subset);
	tcase_add_test(t, tearing);
	tcase_add_test(t, a_disk_is_as_large_as_what_was_written);
	suite_add_tcase(s, t);
	return scratch_main(s);
}
