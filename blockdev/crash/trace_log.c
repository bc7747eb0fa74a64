/* SPDX-License-Identifier: MIT */
/*
 * trace_log.c - what was read from a file (trace.h) as a log for model and oracle (log.h).
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/block.h"
#include "blockdev/crash/trace.h"

static const enum guest_kind guest_kinds[] = {
	[BLK_WRITE] = GUEST_WRITE,
	[BLK_ZEROES] = GUEST_WRITE,
	[BLK_DISCARD] = GUEST_DISCARD,
	[BLK_FLUSH] = GUEST_FLUSH,
	[TRACE_WCE_OFF] = GUEST_WCE_OFF,
	[TRACE_WCE_ON] = GUEST_WCE_ON,
};

#define TELL_EVERY 4096 /* events */

/* Data of a write: read, or only said where they would be. */
static int data_of(
	struct trace *t, const struct trace_event *e, unsigned what, const uint8_t **data)
{
	if (!trace_has_data(e))
		return 0;
	*data = what & TRACE_LOG_DATA ? trace_data(t, e) : trace_place(t, e);
	return *data ? 0 : -EIO;
}

static int guest_op(
	struct trace *t, const struct trace_event *e, unsigned what, struct guest_op *g)
{
	*g = (struct guest_op){.kind = guest_kinds[e->op],
		.fua = e->flags & TRACE_FUA,
		.wce_at_submit = e->flags & TRACE_WCE,
		.sector = e->off / SECTOR,
		.n = e->len / SECTOR,
		.submitted = e->tick,
		.acknowledged = e->other,
		.err = e->err};
	g->wce_at_end = e->other == NEVER ? g->wce_at_submit
					  : t->event[e->other - 1].flags & TRACE_WCE;
	return data_of(t, e, what, &g->data);
}

static int host_op(struct trace *t, const struct trace_event *e, unsigned what, struct host_op *h)
{
	const uint8_t *data = NULL;
	int err = data_of(t, e, what, &data);

	*h = (struct host_op){.op = (enum file_op)e->op,
		.off = e->off,
		.len = e->len,
		.data = (uint8_t *)(uintptr_t)data,
		.submitted = e->tick,
		.completed = e->other,
		.err = e->err};
	if (e->op == FILE_FDATASYNC)
		h->off = h->len = 0;
	if (!(e->flags & TRACE_DATA_FILE))
		h->off += t->info.data_bytes;
	else if (e->op == FILE_FDATASYNC)
		h->len = t->info.data_bytes;
	return err;
}

static void used(void *arg, uint64_t bytes)
{
	trace_used(arg, bytes);
}

static int alloc(const struct trace *t, struct crash_log *log, struct crash_mark **marks)
{
	uint64_t n[TRACE_MARK + 1] = {0};

	for (uint64_t i = 0; i < t->n_events; i++)
		n[t->event[i].kind]++;
	log->room_guest = n[TRACE_GUEST] + 1;
	log->room_host = n[TRACE_HOST] + 1;
	log->guest = calloc(log->room_guest, sizeof(*log->guest));
	log->host = calloc(log->room_host, sizeof(*log->host));
	*marks = calloc(n[TRACE_MARK] + 1, sizeof(**marks));
	return log->guest && log->host && *marks ? 0 : -ENOMEM;
}

int trace_crash_log(struct trace *t, unsigned what, struct crash_log *log,
	struct crash_mark **marks, uint64_t *n_marks, void (*progress)(uint64_t done, uint64_t of),
	struct why *why)
{
	int err;

	crash_log_init(log);
	log->lent = true;
	log->used = used;
	log->used_arg = t;
	*n_marks = 0;
	err = alloc(t, log, marks);
	for (uint64_t i = 0; i < t->n_events && !err; i++) {
		const struct trace_event *e = &t->event[i];

		if (e->kind == TRACE_GUEST && e->op != BLK_READ)
			err = guest_op(t, e, what, &log->guest[log->n_guest++]);
		else if (e->kind == TRACE_HOST && (what & TRACE_LOG_HOST))
			err = host_op(t, e, what, &log->host[log->n_host++]);
		else if (e->kind == TRACE_MARK)
			(*marks)[(*n_marks)++] = (struct crash_mark){e->tick, e->data};
		if (progress && i % TELL_EVERY == 0)
			progress(i, t->n_events);
	}
	log->clock = t->n_events;
	if (!err)
		return 0;
	crash_log_fini(log);
	free(*marks);
	return err == -EIO ? why_set(why, err, "data in it cannot be read") : err;
}
