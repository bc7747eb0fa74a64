/* SPDX-License-Identifier: MIT */
/*
 * oracle.c - see oracle.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/facts.h"
#include "blockdev/crash/oracle.h"

#define MIX     0x9E3779B97F4A7C15ULL
#define UNMIX   0xF1DE83E19937733DULL /* MIX * UNMIX == 1 modulo 2^64 */
#define NO_LINK UINT32_MAX

#define VERSION_BITS 24
#define VERSION_MASK ((1u << VERSION_BITS) - 1)

void oracle_fill(void *buf, uint64_t sector, uint32_t version)
{
	uint64_t *w = buf;

	for (unsigned k = 0; k < SECTOR / 8; k++)
		w[k] = version ? (sector << VERSION_BITS | version) * MIX + k : 0;
}

/* Two words at a time: every sector of every state passes through here. */
typedef uint64_t pair __attribute__((vector_size(16), aligned(8)));

uint64_t oracle_word(const void *content)
{
	const pair *w = content;
	uint64_t w0 = w[0][0], step = w0 ? 1 : 0, word = w0 * UNMIX;
	pair want = {w0, w0 + step}, steps = {2 * step, 2 * step}, bad = {0, 0};

	for (unsigned k = 0; k < SECTOR / sizeof(pair); k++) {
		bad |= w[k] ^ want;
		want += steps;
	}
	return (bad[0] | bad[1]) || (w0 && !(word & VERSION_MASK)) ? ORACLE_GARBAGE : word;
}

static bool has_range(const struct guest_op *g)
{
	return g->kind == GUEST_WRITE || g->kind == GUEST_DISCARD;
}

static void find_runs(struct oracle *o)
{
	for (uint64_t s = 0; s < o->n_sectors; s++) {
		if (o->first[s] == NO_LINK)
			continue;
		if (!s || o->first[s - 1] == NO_LINK) {
			o->runs[2 * o->n_runs] = s;
			o->runs[2 * o->n_runs++ + 1] = 0;
		}
		o->runs[2 * o->n_runs - 1]++;
	}
}

int oracle_init(struct oracle *o, const struct crash_log *log, uint64_t n_sectors)
{
	uint64_t links = 0;

	for (uint64_t i = 0; i < log->n_guest; i++)
		links += has_range(&log->guest[i]) ? log->guest[i].n : 0;
	*o = (struct oracle){.log = log, .n_sectors = n_sectors};
	o->first = malloc(n_sectors * sizeof(*o->first));
	o->links = malloc((links + 1) * sizeof(*o->links));
	/* No more runs than writes. */
	o->legal = malloc((n_sectors + 1) * sizeof(*o->legal));
	o->runs = malloc((log->n_guest + 1) * 2 * sizeof(*o->runs));
	if (!o->first || !o->links || !o->runs || !o->legal) {
		oracle_fini(o);
		return -ENOMEM;
	}
	memset(o->first, 0xff, n_sectors * sizeof(*o->first));
	memset(o->legal, 0xff, n_sectors * sizeof(*o->legal));
	for (uint64_t i = 0; i < log->n_guest; i++) {
		const struct guest_op *g = &log->guest[i];

		for (uint64_t s = g->sector; has_range(g) && s < g->sector + g->n; s++) {
			o->links[o->n_links] = (struct oracle_link){(uint32_t)i, o->first[s],
				g->version ? s << VERSION_BITS | g->version : 0};
			o->first[s] = (uint32_t)o->n_links++;
		}
	}
	find_runs(o);
	return 0;
}

void oracle_fini(struct oracle *o)
{
	free(o->first);
	free(o->links);
	free(o->runs);
	free(o->legal);
	free(o->before);
	*o = (struct oracle){0};
}

static bool stable_by_itself(const struct oracle *o, const struct guest_op *w)
{
	if (w->fua || (!w->wce_at_submit && !w->wce_at_end))
		return true;
	return o->either && (!w->wce_at_submit || !w->wce_at_end);
}

void oracle_at(struct oracle *o, uint64_t tick)
{
	memset(o->legal, 0xff, o->n_sectors * sizeof(*o->legal));
	o->at = tick;
	o->horizon = o->promises = 0;
	for (uint64_t i = 0; i < o->log->n_guest; i++) {
		const struct guest_op *g = &o->log->guest[i];
		bool flush = g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF;

		if (g->err || g->acknowledged > tick)
			continue;
		if (flush)
			o->horizon = max_u64(o->horizon, g->submitted);
		o->promises += flush || (g->kind == GUEST_WRITE && stable_by_itself(o, g));
	}
}

static bool stable(const struct oracle *o, const struct guest_op *w)
{
	if (w->acknowledged > o->at || w->err)
		return false;
	return o->live || stable_by_itself(o, w) || w->acknowledged < o->horizon;
}

bool oracle_next_run(const struct oracle *o, uint64_t *at, uint64_t *n)
{
	for (uint64_t i = 0; i < o->n_runs; i++) {
		uint64_t end = o->runs[2 * i] + o->runs[2 * i + 1];

		if (*at >= end)
			continue;
		*at = max_u64(*at, o->runs[2 * i]);
		*n = end - *at;
		return true;
	}
	return false;
}

/* Was something stable written after all of found?  NULL: after the beginning. */
static bool overtaken(const struct oracle *o, uint64_t sector, const struct guest_op *found)
{
	for (uint32_t l = o->first[sector]; l != NO_LINK; l = o->links[l].next) {
		const struct guest_op *w = &o->log->guest[o->links[l].op];

		if (w == found || w->kind != GUEST_WRITE || !stable(o, w))
			continue;
		if (!found || w->submitted > found->acknowledged)
			return true;
	}
	return false;
}

static uint64_t before(const struct oracle *o, uint64_t sector)
{
	return o->before ? o->before[sector] : 0;
}

/* Zeros may be what was there first, or what any write of zeros or discard left. */
static enum verdict judge_word(const struct oracle *o, uint64_t sector, uint64_t word)
{
	bool first = word == before(o, sector);
	enum verdict v = GARBAGE;

	if (first && !overtaken(o, sector, NULL))
		return LEGAL;
	for (uint32_t l = o->first[sector]; l != NO_LINK; l = o->links[l].next) {
		const struct guest_op *g = &o->log->guest[o->links[l].op];

		if (o->links[l].word != word || g->submitted > o->at)
			continue;
		if (!overtaken(o, sector, g))
			return LEGAL;
		v = STALE;
	}
	return first ? LOST_DURABLE : v;
}

enum verdict oracle_judge_word(struct oracle *o, uint64_t sector, uint64_t word)
{
	enum verdict v;

	if (word == ORACLE_GARBAGE)
		return GARBAGE;
	if (!o->before && word && word >> VERSION_BITS != sector)
		return FOREIGN;
	if (o->legal[sector] == word)
		return LEGAL;
	v = judge_word(o, sector, word);
	if (v == LEGAL)
		o->legal[sector] = word;
	return v;
}

uint64_t oracle_word_of(const struct oracle *o, const void *content)
{
	return o->before ? facts_hash(content) : oracle_word(content);
}

static uint64_t word_written(const struct guest_op *g, uint64_t sector)
{
	uint64_t content[SECTOR / 8];

	if (!g->data)
		return 0;
	memcpy(content, g->data + (sector - g->sector) * SECTOR, SECTOR);
	return facts_hash(content);
}

int oracle_contents(struct oracle *o, const struct mem_image *first)
{
	uint64_t content[SECTOR / 8];

	o->before = calloc(o->n_sectors + 1, sizeof(*o->before));
	if (!o->before)
		return -ENOMEM;
	for (uint64_t s = 0; s < o->n_sectors; s++) {
		if (o->first[s] == NO_LINK)
			continue;
		mem_read(first, content, SECTOR, s * SECTOR);
		o->before[s] = facts_hash(content);
		for (uint32_t l = o->first[s]; l != NO_LINK; l = o->links[l].next) {
			o->links[l].word = word_written(&o->log->guest[o->links[l].op], s);
			if (o->log->used)
				o->log->used(o->log->used_arg, SECTOR);
		}
	}
	return 0;
}

enum verdict oracle_judge(struct oracle *o, uint64_t sector, const void *content)
{
	return oracle_judge_word(o, sector, oracle_word_of(o, content));
}

const char *verdict_name(enum verdict v)
{
	static const char *const names[] = {"legal", "durable data lost",
		"older than what is durable", "another sector's data",
		"never written by the guest"};

	return names[v];
}
