/* SPDX-License-Identifier: MIT */
/*
 * cuts.c - see cuts.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/cuts.h"

#define TRIES      4 /* for one state that was not met before */
#define STATES_MIN 6 /* of one situation */

static const struct host_op *data_op(const struct cuts *k, uint32_t i)
{
	return &k->model.log->host[k->model.pending[k->data[i]]];
}

void cuts_take(struct cuts *k)
{
	if (k->facts.usable)
		facts_choose(&k->facts, &k->c);
	else
		model_build(&k->model, &k->c, &k->state);
}

uint64_t cuts_key(struct cuts *k)
{
	uint64_t d = k->facts.usable ? facts_digest(&k->facts) : mem_digest(&k->state);

	d = (d ^ k->c.size * 0x9E3779B97F4A7C15ULL) + k->promises;
	return rng_next(&d);
}

bool cuts_is_new(struct cuts *k)
{
	k->tried++;
	cuts_take(k);
	if (seen_before(k->seen, cuts_key(k)))
		return false;
	k->found++;
	return true;
}

/*
 * Tries another fate for all of these operations at once, then for halves of them, and so on down
 * to single ones; where the state still fails they keep it.
 */
static void shrink(struct cuts *k, uint32_t *op, uint32_t n, enum fate to)
{
	uint8_t *was = malloc(k->model.n_pending + 1);

	if (!was)
		abort();
	for (uint32_t step = n; step; step = step > 1 ? (step + 1) / 2 : 0) {
		uint32_t left = 0;

		for (uint32_t i = 0; i < n; i += step) {
			uint32_t end = i + step < n ? i + step : n;

			memcpy(was, k->c.fate, k->model.n_pending);
			for (uint32_t m = i; m < end; m++)
				k->c.fate[op[m]] = (uint8_t)to;
			if (!k->holds(k))
				continue;
			memcpy(k->c.fate, was, k->model.n_pending);
			for (uint32_t m = i; m < end; m++)
				op[left++] = op[m];
		}
		n = left;
	}
	free(was);
}

/* The operations with data whose fate is this one, or is not. */
static uint32_t with_fate(const struct cuts *k, enum fate f, bool is, uint32_t *op)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < k->n_data; i++)
		if ((k->c.fate[k->data[i]] == f) == is)
			op[n++] = k->data[i];
	return n;
}

void cuts_minimise(struct cuts *k)
{
	uint32_t *op = malloc((k->n_data + 1) * sizeof(*op)), n;

	if (!op)
		abort();
	n = with_fate(k, FATE_WHOLE, false, op);
	shrink(k, op, n, FATE_WHOLE);
	n = with_fate(k, FATE_TORN, true, op);
	shrink(k, op, n, FATE_LOST);
	free(op);
}

void cuts_needed(struct cuts *k, uint8_t *needed)
{
	uint32_t *op = malloc((k->n_data + 1) * sizeof(*op)), n;
	uint8_t *was = malloc(k->model.n_pending + 1);

	if (!op || !was)
		abort();
	memcpy(was, k->c.fate, k->model.n_pending);
	n = with_fate(k, FATE_WHOLE, true, op);
	shrink(k, op, n, FATE_LOST);
	memset(needed, 0, k->model.n_pending);
	n = with_fate(k, FATE_WHOLE, true, op);
	for (uint32_t i = 0; i < n; i++)
		needed[op[i]] = 1;
	memcpy(k->c.fate, was, k->model.n_pending);
	free(was);
	free(op);
}

static void try_choice(struct cuts *k)
{
	if (!k->stop && cuts_is_new(k))
		k->visit(k);
}

/* ---- the choices of one situation ---- */

void cuts_set_all(struct cuts *k, enum fate f)
{
	choice_all(&k->model, k->sizes, k->n_sizes, f, &k->c);
}

void cuts_random(struct cuts *k)
{
	choice_random(&k->model, k->sizes, k->n_sizes, k->whole, &k->rng, &k->c);
}

/* Do pending writes overlap, so that their order matters? */
static bool overlaps(const struct cuts *k)
{
	for (uint32_t i = 0; i < k->n_data; i++)
		for (uint32_t n = 0; n < i; n++)
			if (ranges_overlap(data_op(k, i)->off, data_op(k, i)->len,
				    data_op(k, n)->off, data_op(k, n)->len))
				return true;
	return false;
}

/* Every subset, with every length, in both orders where the order matters. */
static void exhaustive(struct cuts *k, bool both)
{
	for (uint32_t z = 0; z < k->n_sizes << both; z++) {
		for (uint64_t mask = 0; mask < 1ULL << k->n_data && !k->stop; mask++) {
			cuts_set_all(k, FATE_LOST);
			k->c.size = k->sizes[z >> both];
			k->c.reversed = both && (z & 1);
			for (uint32_t i = 0; i < k->n_data; i++)
				k->c.fate[k->data[i]] = mask >> i & 1 ? FATE_WHOLE : FATE_LOST;
			try_choice(k);
		}
	}
}

/* All pending writes of one group lost and the rest kept, or the other way round. */
static void choose_group(struct cuts *k, unsigned group, enum fate f)
{
	cuts_set_all(k, f == FATE_LOST ? FATE_WHOLE : FATE_LOST);
	for (uint32_t i = 0; i < k->n_data; i++)
		if (k->group_of(k, data_op(k, i)) == group)
			k->c.fate[k->data[i]] = f;
}

/* One write; group 0, of which there is more than of the others, is as likely as all of those. */
static void choose_one(struct cuts *k, enum fate f)
{
	bool other = rng_next(&k->rng) & 1;
	uint32_t i = 0;

	for (unsigned tries = 0; tries < 8; tries++) {
		i = (uint32_t)(rng_next(&k->rng) % k->n_data);
		if (!other || !k->n_groups || k->group_of(k, data_op(k, i)))
			break;
	}
	cuts_set_all(k, f == FATE_LOST ? FATE_WHOLE : FATE_LOST);
	k->c.fate[k->data[i]] = f;
}

static void choose_sample(struct cuts *k)
{
	uint64_t n = rng_next(&k->rng) % 8;
	enum fate f = n & 1 ? FATE_LOST : FATE_WHOLE;

	if (n < 4)
		cuts_random(k);
	else if (n < 6 || !k->n_groups)
		choose_one(k, f);
	else
		choose_group(k, (unsigned)(rng_next(&k->rng) % k->n_groups), f);
}

/* Until so many new states are found, or hardly any are new. */
static void sample(struct cuts *k, uint64_t want)
{
	uint64_t end = k->found + want;

	for (uint64_t i = 0; i < want * TRIES && k->found < end && !k->stop; i++) {
		choose_sample(k);
		try_choice(k);
	}
}

/* About so many new states of this situation; returns how many. */
static uint64_t enumerate(struct cuts *k, uint64_t budget)
{
	uint64_t before = k->found, subsets;
	bool both, all = true;

	k->situations++;
	cuts_set_all(k, FATE_LOST);
	try_choice(k);
	if (!k->n_data && k->n_sizes == 1) {
		k->exhausted++;
		return 1;
	}
	both = overlaps(k);
	subsets = k->n_data <= CUTS_EXHAUSTIVE ? (uint64_t)k->n_sizes << both << k->n_data
					       : UINT64_MAX;
	if (subsets <= budget || (k->exhaustive && subsets < UINT64_MAX)) {
		exhaustive(k, both);
		budget /= 4; /* torn ones */
		if (k->exhaustive)
			before = k->found;
	} else {
		all = false;
		cuts_set_all(k, FATE_WHOLE);
		try_choice(k);
	}
	k->exhausted += all;
	if (k->n_data && k->found - before < budget)
		sample(k, budget - (k->found - before));
	return k->found - before;
}

/* ---- moving the cut ---- */

/* Is the next event one of the host's (or the last)?  Then the situation ends here. */
uint64_t *cuts_ticks(const struct crash_log *log, uint64_t *n)
{
	uint64_t *at = malloc((2 * log->n_host + 1) * sizeof(*at)), k = 0;
	uint8_t *mark = calloc(log->clock + 2, 1);

	if (!at || !mark)
		abort();
	for (uint64_t i = 0; i < log->n_host; i++) {
		mark[log->host[i].submitted] = 1;
		if ((log->host[i].op == FILE_FDATASYNC || log->host[i].through) &&
			log->host[i].completed != NEVER)
			mark[log->host[i].completed] = 1;
	}
	for (uint64_t t = 1; t <= log->clock; t++)
		if (mark[t])
			at[k++] = t - 1;
	at[k++] = log->clock;
	free(mark);
	*n = k;
	return at;
}

void cuts_situation(struct cuts *k)
{
	facts_update(&k->facts, &k->model);
	k->n_sizes = model_sizes(&k->model, k->sizes, CUT_SIZES);
	k->n_data = 0;
	for (uint32_t i = 0; i < k->model.n_pending; i++)
		if (model_has_data(&k->model.log->host[k->model.pending[i]]))
			k->data[k->n_data++] = i;
}

void cuts_at(struct cuts *k, uint64_t tick)
{
	model_advance(&k->model, tick);
	cuts_situation(k);
}

void cuts_run(struct cuts *k, uint64_t left)
{
	uint64_t n, *ticks = cuts_ticks(k->model.log, &n), first = 0;

	while (first < n && ticks[first] < k->from)
		first++;
	while (n > first && k->to && ticks[n - 1] > k->to)
		n--;
	for (uint64_t i = first; i < n && (left || k->exhaustive) && !k->stop; i++) {
		uint64_t share = left / (n - i);

		if (share < STATES_MIN && !k->exhaustive &&
			rng_next(&k->rng) % ((n - i) * STATES_MIN) >= left)
			continue;
		cuts_at(k, ticks[i]);
		if (k->moved)
			k->moved(k);
		left -= min_u64(left, enumerate(k, max_u64(share, STATES_MIN)));
	}
	free(ticks);
}

void cuts_init(
	struct cuts *k, const struct crash_log *log, const struct mem_image *start, bool hashes)
{
	*k = (struct cuts){.c.unit = SECTOR};
	model_init(&k->model, log, start);
	mem_init(&k->state);
	facts_init(&k->facts, &k->model, hashes);
	k->seen = &k->own_seen;
	k->c.fate = calloc(log->n_host + 1, 1);
	k->data = calloc(log->n_host + 1, sizeof(*k->data));
	if (!k->c.fate || !k->data)
		abort();
}

void cuts_fini(struct cuts *k)
{
	model_fini(&k->model);
	facts_fini(&k->facts);
	mem_fini(&k->state);
	seen_fini(&k->own_seen);
	free(k->c.fate);
	free(k->data);
}
