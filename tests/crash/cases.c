/* SPDX-License-Identifier: MIT */
/*
 * cases.c - states that failed once, tried again by every run (tests/crash/cases/found).
 *
 * A line is "row | seed | state | what it caught".  A tick or an offset means nothing once the
 * source has changed (the mended source itself makes another recording), so a state is said in
 * terms that survive that, and is looked for at every cut of the run:
 *
 *   lose=refblock,l2   every pending write with one of these roles (roles.h) is lost, the rest kept
 *   lose=nothing       all is kept: what was written is wrong as it is
 *   alone              each of them alone instead of all at once
 *   torn               torn instead of lost
 *   size=first         and the file has its old length; default: the new one
 *
 * A case that finds nothing to lose in the whole run is stale, and says so: it tests nothing.
 * What cannot be said this way is kept as "exact=DIGEST SPEC", for this recording only; it is
 * stale as soon as the recording is another one.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/crash/explore.h"

#define NOTHING (1u << N_ROLES)

struct selector {
	unsigned roles; /* bit by enum role; or NOTHING */
	bool alone, torn, first_size;
};

static uint64_t log_digest(const struct crash_log *log)
{
	uint64_t d = log->n_host;

	for (uint64_t i = 0; i < log->n_host; i++) {
		const struct host_op *o = &log->host[i];
		uint64_t of[] = {(uint64_t)o->op, o->off, o->len, o->submitted, o->completed};

		for (size_t k = 0; k < ARRAY_SIZE(of); k++) {
			d ^= of[k];
			d = rng_next(&d);
		}
	}
	return d;
}

/* ---- words ---- */

static bool parse_roles(char *list, unsigned *roles)
{
	char *save = NULL;

	if (!strcmp(list, "nothing")) {
		*roles = NOTHING;
		return true;
	}
	for (char *w = strtok_r(list, ",", &save); w; w = strtok_r(NULL, ",", &save)) {
		unsigned k = 0;

		while (k < N_ROLES && strcmp(w, role_names[k]))
			k++;
		if (k == N_ROLES)
			return false;
		*roles |= 1u << k;
	}
	return *roles != 0;
}

static bool parse_selector(const char *words, struct selector *s)
{
	char copy[200], *save = NULL;
	bool ok = true;

	snprintf(copy, sizeof(copy), "%s", words);
	for (char *w = strtok_r(copy, " ", &save); w && ok; w = strtok_r(NULL, " ", &save)) {
		if (!strncmp(w, "lose=", 5))
			ok = parse_roles(w + 5, &s->roles);
		else if (!strcmp(w, "alone"))
			s->alone = true;
		else if (!strcmp(w, "torn"))
			s->torn = true;
		else if (!strcmp(w, "size=first"))
			s->first_size = true;
		else
			ok = false;
	}
	return ok && (s->roles || s->first_size);
}

static void print_selector(const struct selector *s, char *out, size_t room)
{
	size_t n = 0;
	const char *sep = "lose=";

	*out = 0;
	if (s->roles == NOTHING) {
		snprintf(out, room, "lose=nothing");
		return;
	}
	for (unsigned k = 0; k < N_ROLES; k++) {
		if (!(s->roles >> k & 1))
			continue;
		n += (size_t)snprintf(out + n, room - n, "%s%s", sep, role_names[k]);
		sep = ",";
	}
	snprintf(out + n, room - n, "%s%s%s", s->alone ? " alone" : "", s->torn ? " torn" : "",
		!s->first_size ? ""
		: n            ? " size=first"
			       : "size=first");
}

/* ---- choices ---- */

static enum role role_at(const struct explorer *e, uint32_t k)
{
	return role_of(&e->roles, &work_of(e)->r->log.host[e->k.model.pending[e->k.data[k]]]);
}

static bool selected(const struct explorer *e, const struct selector *s, uint32_t k)
{
	return s->roles >> role_at(e, k) & 1;
}

/* k: the one to lose, where it is alone.  False: there is nothing to lose. */
static bool choose(struct explorer *e, const struct selector *s, uint32_t k)
{
	bool any = s->roles == NOTHING || (s->first_size && e->k.n_sizes > 1);

	cuts_set_all(&e->k, FATE_WHOLE);
	if (s->first_size)
		e->k.c.size = e->k.sizes[0];
	e->k.c.tear = 0x5eed;
	for (uint32_t i = 0; i < e->k.n_data; i++) {
		if (!selected(e, s, i) || (s->alone && i != k))
			continue;
		e->k.c.fate[e->k.data[i]] = s->torn ? FATE_TORN : FATE_LOST;
		any = true;
	}
	return any;
}

/* ---- from a failing state to a case ---- */

static bool fails_as(struct explorer *e, const struct selector *s, uint32_t k)
{
	return choose(e, s, k) && !explorer_holds(e);
}

/* The simplest selector that fails at this cut; false: none does. */
static bool find_selector(struct explorer *e, struct selector *s)
{
	unsigned roles = 0;
	uint32_t last = 0;

	for (uint32_t k = 0; k < e->k.n_data; k++) {
		if (e->k.c.fate[e->k.data[k]] == FATE_WHOLE)
			continue;
		roles |= 1u << role_at(e, k);
		last = k;
	}
	*s = (struct selector){.roles = NOTHING};
	if (fails_as(e, s, 0))
		return true;
	for (unsigned how = 0; how < 8; how++) {
		*s = (struct selector){.roles = roles,
			.alone = how >> 1 & 1,
			.torn = how >> 2 & 1,
			.first_size = how & 1};
		if (fails_as(e, s, last))
			return true;
	}
	return false;
}

/* One of a kind: not if there is a line with the same row, seed and state. */
static void keep_line(const char *path, const char *line, size_t same)
{
	char had[512];
	FILE *f = fopen(path, "a+");

	if (!f) {
		fprintf(stderr, "crash: %s: %s\n", path, strerror(errno));
		return;
	}
	rewind(f);
	while (fgets(had, sizeof(had), f))
		if (!strncmp(had, line, same))
			goto out;
	fputs(line, f);
out:
	fclose(f);
}

static void exact_spec(const struct explorer *e, char *out, size_t room)
{
	size_t n = (size_t)snprintf(out, room,
		"exact=%016" PRIx64 " %" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%d:",
		log_digest(&work_of(e)->r->log), e->k.model.at, e->k.c.size, e->k.c.tear,
		e->k.c.reversed);

	for (uint32_t i = 0; i < e->k.model.n_pending && n + 1 < room; i++)
		out[n++] = "-+~"[e->k.c.fate[i]];
	out[n] = 0;
}

void case_from(struct explorer *e)
{
	char state[300], line[768], why[sizeof(e->why)];
	struct selector s;
	int n;

	memcpy(why, e->why, sizeof(why));
	exact_spec(e, state, sizeof(state));
	if (explorer_holds(e)) { /* somebody else found it at fault, qemu-img maybe */
		memcpy(e->why, why, sizeof(why));
		return;
	}
	if (find_selector(e, &s))
		print_selector(&s, state, sizeof(state));
	n = snprintf(line, sizeof(line), "%s | %" PRIu64 " | %s | ", work_of(e)->r->row->name,
		work_of(e)->r->seed, state);
	snprintf(line + n, sizeof(line) - (size_t)n, "%s\n", e->why);
	printf("  case: %s", line);
	if (work_of(e)->o->keep)
		keep_line(work_of(e)->o->keep, line, (size_t)n);
}

/* ---- trying them again ---- */

static char *word_copy(const char *from, const char *to)
{
	char *w;

	while (from < to && (*from == ' ' || *from == '\t'))
		from++;
	while (to > from && strchr(" \t\n", to[-1]))
		to--;
	w = strndup(from, (size_t)(to - from));
	if (!w)
		abort();
	return w;
}

static bool parse_line(const char *line, struct crash_case *c)
{
	const char *a = strchr(line, '|'), *b = a ? strchr(a + 1, '|') : NULL,
		   *d = b ? strchr(b + 1, '|') : NULL;

	if (!d)
		return false;
	c->row = word_copy(line, a);
	c->seed = strtoull(a + 1, NULL, 10);
	c->state = word_copy(b + 1, d);
	c->what = word_copy(d + 1, d + strlen(d));
	return true;
}

int cases_read(const char *path, struct crash_case **out)
{
	struct crash_case **tail = out;
	char line[512];
	unsigned n = 0;
	FILE *f = fopen(path, "r");

	*out = NULL;
	if (!f) {
		int err = -errno;

		fprintf(stderr, "crash: %s: %s\n", path, strerror(-err));
		return err;
	}
	while (fgets(line, sizeof(line), f)) {
		struct crash_case *c;

		n++;
		if (line[0] == '#' || line[0] == '\n')
			continue;
		c = calloc(1, sizeof(*c));
		if (!c || !parse_line(line, c)) {
			fprintf(stderr, "crash: %s:%u: not a case\n", path, n);
			free(c);
			fclose(f);
			return -EINVAL;
		}
		c->line = n;
		*tail = c;
		tail = &c->next;
	}
	fclose(f);
	return 0;
}

static void try_here(struct explorer *e, const struct selector *s, uint64_t *met)
{
	for (uint32_t k = 0; k < (s->alone ? e->k.n_data : 1); k++) {
		if (s->alone && !selected(e, s, k))
			continue;
		if (!choose(e, s, k))
			continue;
		++*met;
		if (!explorer_is_new(e))
			continue;
		if (!explorer_verdict(e) && !work_of(e)->t->violations++) {
			printf("VIOLATION %s: %s\n", work_of(e)->r->row->name, e->why);
			explorer_print_pending(e);
		}
	}
}

/* Returns how many states the case describes in this run. */
static uint64_t replay_selector(struct explorer *e, const struct selector *s)
{
	uint64_t met = 0, n, *ticks = cuts_ticks(&work_of(e)->r->log, &n);

	for (uint64_t i = 0; i < n; i++) {
		explorer_at(e, ticks[i]);
		try_here(e, s, &met);
	}
	free(ticks);
	return met;
}

static uint64_t replay_exact(struct loop *l, const struct run_log *r, const char *state,
	const struct explore_opts *o, struct tally *t)
{
	char *spec;

	if (strtoull(state, &spec, 16) != log_digest(&r->log))
		return 0;
	t->n.states++;
	t->violations += !explore_one(l, r, o, spec + strspn(spec, " "));
	return 1;
}

static const struct row *find_row(const char *name)
{
	for (unsigned i = 0; i < n_rows; i++)
		if (!strcmp(rows[i].name, name))
			return &rows[i];
	return NULL;
}

bool case_replay(struct loop *l, const struct crash_case *c, struct tally *t)
{
	const struct row *row = find_row(c->row);
	struct explore_opts o = {0};
	struct selector s = {0};
	struct tally mine = {0};
	struct run_log r;
	uint64_t met = 0;
	bool exact = !strncmp(c->state, "exact=", 6);

	if (row && (exact || parse_selector(c->state, &s))) {
		struct work w;

		workload_run(l, row, c->seed, &r);
		work_init(&w, l, &r, &o, &mine);
		met = exact ? replay_exact(l, &r, c->state + 6, &o, &mine)
			    : replay_selector(&w.e, &s);
		work_fini(&w);
		workload_free(&r);
	}
	t->n.states += mine.n.states;
	t->n.tried += mine.n.tried;
	t->violations += mine.violations || !met;
	if (mine.violations || !met)
		printf("FAIL case in line %u (%s, seed %" PRIu64 ", %s): %s\n", c->line, c->row,
			c->seed, c->state,
			!met ? "stale: this run has no such state; record it again or drop it"
			     : c->what);
	return met && !mine.violations;
}
