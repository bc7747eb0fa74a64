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

static int guest_op(struct trace *t, const struct trace_event *e, struct guest_op *g)
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
	if (trace_has_data(e) && !(g->data = trace_data(t, e)))
		return -EIO;
	return 0;
}

static int host_op(struct trace *t, const struct trace_event *e, struct host_op *h)
{
	const uint8_t *data;

	*h = (struct host_op){.op = (enum file_op)e->op,
		.off = e->off,
		.len = e->len,
		.submitted = e->tick,
		.completed = e->other,
		.err = e->err};
	if (!trace_has_data(e))
		return 0;
	data = trace_data(t, e);
	if (!data)
		return -EIO;
	h->data = malloc(e->len);
	if (!h->data)
		return -ENOMEM;
	memcpy(h->data, data, e->len);
	return 0;
}

int trace_crash_log(struct trace *t, bool host, struct crash_log *log, struct crash_mark **marks,
	uint64_t *n_marks, struct why *why)
{
	uint64_t n[TRACE_MARK + 1] = {0};
	int err = 0;

	crash_log_init(log);
	for (uint64_t i = 0; i < t->n_events; i++)
		n[t->event[i].kind]++;
	log->room_guest = n[TRACE_GUEST] + 1;
	log->room_host = n[TRACE_HOST] + 1;
	log->guest = calloc(log->room_guest, sizeof(*log->guest));
	log->host = calloc(log->room_host, sizeof(*log->host));
	*marks = calloc(n[TRACE_MARK] + 1, sizeof(**marks));
	*n_marks = 0;
	if (!log->guest || !log->host || !*marks)
		err = -ENOMEM;
	for (uint64_t i = 0; i < t->n_events && !err; i++) {
		const struct trace_event *e = &t->event[i];

		if (e->kind == TRACE_GUEST && e->op != BLK_READ)
			err = guest_op(t, e, &log->guest[log->n_guest++]);
		else if (e->kind == TRACE_HOST && host)
			err = host_op(t, e, &log->host[log->n_host++]);
		else if (e->kind == TRACE_MARK)
			(*marks)[(*n_marks)++] = (struct crash_mark){e->tick, e->data};
	}
	log->clock = t->n_events;
	if (!err)
		return 0;
	crash_log_fini(log);
	free(*marks);
	return err == -EIO ? why_set(why, err, "data in it cannot be read") : err;
}
