/* SPDX-License-Identifier: MIT */
/*
 * explore.c - judges the cuts of a recorded run, and says what fails.
 *
 * Without explore_opts.exhaustive a situation is exhausted only if that fits its share of the
 * budget; the tally tells how many were.
 */
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "tests/crash/bitmaps.h"
#include "tests/crash/snapshots.h"
#include "tests/crash/upkeep.h"

/* ---- one choice ---- */

static void print_choice(const struct explorer *e, const struct crash_choice *c)
{
	printf("crash --row '%s' --seed %" PRIu64, work_of(e)->r->row->name, work_of(e)->r->seed);
	if (c->unit != SECTOR)
		printf(" --tear %u", c->unit);
	printf(" --state %" PRIu64 ":%" PRIu64 ":%" PRIu64 ":%d:", e->k.model.at, c->size, c->tear,
		c->reversed);
	for (uint32_t i = 0; i < e->k.model.n_pending; i++)
		putchar("-+~"[c->fate[i]]);
	putchar('\n');
}

void explorer_print_pending(const struct explorer *e)
{
	static const char *const ops[] = {
		"read", "write", "fdatasync", "extend", "punch", "truncate"};

	for (uint32_t i = 0; i < e->k.model.n_pending; i++) {
		const struct host_op *o = &work_of(e)->r->log.host[e->k.model.pending[i]];

		printf("    %c %s %#" PRIx64 "+%#" PRIx64 " %s submitted %" PRIu64
		       " completed %" PRId64 "\n",
			"-+~"[e->k.c.fate[i]], ops[o->op], o -> off, o -> len,
			model_has_data(o) ? role_names[role_of(&e->roles, o)] : "", o->submitted,
			(int64_t)o->completed);
	}
}

void explorer_violation(struct explorer *e)
{
	struct tally before = *work_of(e)->t;

	work_of(e)->t->violations++;
	if (work_of(e)->t->violations > 3)
		return;
	printf("VIOLATION %s: %s\n  repeat: ", work_of(e)->r->row->name, e->why);
	print_choice(e, &e->k.c);
	explorer_minimise(e);
	printf("  smallest: %s\n  ", e->why);
	print_choice(e, &e->k.c);
	explorer_print_pending(e);
	case_from(e);
	e->n->dirty = before.n.dirty;
	e->n->leaks = before.n.leaks;
}

/* Sparse: what the state does not hold is not written. */
static int write_out(const struct mem_image *m, const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), err = 0;

	if (fd < 0)
		return -errno;
	for (uint64_t i = 0; i < div_round_up(m->size, MEM_PAGE) && !err; i++)
		if (mem_page(m, i) &&
			pwrite(fd, mem_page(m, i), MEM_PAGE, (off_t)(i * MEM_PAGE)) != MEM_PAGE)
			err = -EIO;
	if (ftruncate(fd, (off_t)m->size))
		err = -errno;
	close(fd);
	return err;
}

static void qemu_judges(struct explorer *e)
{
	const char *scratch = work_of(e)->o->scratch;
	const struct row *row = work_of(e)->r->row;
	char cmd[600];
	int st;

	model_build(&e->k.model, &e->k.c, &e->k.state);
	if (explorer_dirty(e, &e->k.state))
		return; /* it would rightly find errors before the repair */
	if (row->create.version == 2 && row_snapshots(row))
		return; /* copied flags may lag, see judge.c */
	if (row->create.data_file || row->overlay)
		return; /* it would open that too, or the wrong one */
	if (write_out(&e->k.state, scratch)) {
		printf("%s: cannot be written: qemu-img judges nothing\n", scratch);
		return;
	}
	/* The backing file is none that it could open. */
	snprintf(cmd, sizeof(cmd),
		"qemu-img check -q 'json:{\"driver\":\"qcow2\",\"backing\":null,"
		"\"file\":{\"driver\":\"file\",\"filename\":\"%s\"}}' >/dev/null 2>&1",
		scratch);
	st = system(cmd);
	work_of(e)->t->qemu_judged++;
	unlink(scratch);
	/* 0 clean, 3 leaks only */
	if (WIFEXITED(st) && (WEXITSTATUS(st) == 0 || WEXITSTATUS(st) == 3))
		return;
	snprintf(e->why, sizeof(e->why), "qemu-img check disagrees: status %d", WEXITSTATUS(st));
	explorer_violation(e);
}

static void judged(struct explorer *e, bool ok)
{
	const struct work *w = work_of(e);

	if (!ok)
		explorer_violation(e);
	else if (w->o->qemu_every && e->n->states % w->o->qemu_every == 0 &&
		 !strcmp(e->s->format, "qcow2"))
		qemu_judges(e);
}

static void check_line(void *arg, const char *line)
{
	fprintf(stderr, "  check: %s\n", line);
}

/* Does a data file that is good as a raw image hold what the guest may read? */
static bool raw_data_ok(struct explorer *e)
{
	uint64_t at = 0, n, content[SECTOR / 8];

	for (; oracle_next_run(&e->oracle, &at, &n); at += n)
		for (uint64_t s = at; s < at + n; s++) {
			mem_read(&e->k.state, content, SECTOR, s * SECTOR);
			if (oracle_judge(&e->oracle, s, content) == LEGAL)
				continue;
			snprintf(e->why, sizeof(e->why), "sector %" PRIu64 ": wrong as raw", s);
			return false;
		}
	return true;
}

static bool also(struct explorer *e)
{
	const struct run_log *r = work_of(e)->r;
	bool raw = r->row->create.data_file_raw;

	e->memo->unfit |= r->n_snapshots || raw; /* it knows of one disk only, as qcow2 */
	if (raw && !raw_data_ok(e))
		return false;
	return (!r->n_snapshots || snapshots_judge(e)) && (!r->n_names || upkeep_judge(e));
}

void work_init(struct work *w, struct loop *l, const struct run_log *r,
	const struct explore_opts *o, struct tally *t)
{
	const struct row *row = r->row;
	struct explorer *e = &w->e;

	*w = (struct work){.r = r, .o = o, .t = t};
	w->subject = (struct subject){.log = &r->log,
		.start = &r->start,
		.format = row->format,
		.data_bytes = row_data_bytes(row),
		.below_bytes = row_below_bytes(row),
		.overlaid_at = r->overlaid_at,
		.cluster_size = row->overlay ? 64 * KiB : row->create.cluster_size,
		.sectors = max_u64(row->create.size, row->grow) / SECTOR,
		.backing = below_path(row),
		.backing_format = "raw",
		.flags_may_lag = row_snapshots(row),
		.either = true};
	explorer_init(e, l, &w->subject, r->seed, &t->n);
	e->k.c.unit = o->tear ? o->tear : SECTOR;
	e->k.exhaustive = o->exhaustive;
	if (o->seen)
		e->k.seen = o->seen;
	e->in_full = o->in_full;
	/* Wording a finding costs more than finding it. */
	e->report = o->verbose ? check_line : NULL;
	e->judged = judged;
	e->also = also;
	e->first = row->bitmaps && !r->bitmaps_unknown ? bitmaps_judge : NULL;
	e->arg = w;
}

void work_fini(struct work *w)
{
	explorer_fini(&w->e);
}

void explore(struct loop *l, const struct run_log *r, const struct explore_opts *o, struct tally *t)
{
	struct work w;

	work_init(&w, l, r, o, t);
	cuts_run(&w.e.k, o->states);
	t->n.tried += w.e.k.tried;
	t->situations += w.e.k.situations;
	t->exhausted += w.e.k.exhausted;
	work_fini(&w);
}

bool explore_one(
	struct loop *l, const struct run_log *r, const struct explore_opts *o, const char *spec)
{
	struct tally t = {0};
	struct work w;
	struct explorer *e = &w.e;
	uint64_t at = 0;
	int rev = 0, used = 0;
	bool ok;

	work_init(&w, l, r, o, &t);
	if (sscanf(spec, "%" SCNu64 ":%" SCNu64 ":%" SCNu64 ":%d:%n", &at, &e->k.c.size,
		    &e->k.c.tear, &rev, &used) < 4) {
		work_fini(&w);
		return false;
	}
	e->k.c.reversed = rev;
	explorer_at(e, at);
	for (uint32_t i = 0; i < e->k.model.n_pending && spec[used]; i++, used++)
		e->k.c.fate[i] = spec[used] == '+'   ? FATE_WHOLE
				 : spec[used] == '~' ? FATE_TORN
						     : FATE_LOST;
	ok = explorer_holds(e);
	printf("%s\n", ok ? "holds" : e->why);
	explorer_print_pending(e);
	work_fini(&w);
	return ok;
}
