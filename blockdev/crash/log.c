/* SPDX-License-Identifier: MIT */
/*
 * log.c - see log.h; at the end the trace filter.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/log.h"

void crash_log_init(struct crash_log *log)
{
	*log = (struct crash_log){0};
}

void crash_log_fini(struct crash_log *log)
{
	for (uint64_t i = 0; i < log->n_host; i++)
		free(log->host[i].data);
	free(log->host);
	free(log->guest);
	crash_log_init(log);
}

static void *more(void *p, uint64_t n, uint64_t *room, size_t each)
{
	if (n < *room)
		return p;
	*room = *room ? *room * 2 : 256;
	p = realloc(p, *room * each);
	if (!p) {
		fprintf(stderr, "crash log: out of memory\n");
		abort();
	}
	return p;
}

uint64_t crash_log_submit(struct crash_log *log, const struct guest_op *op)
{
	log->guest = more(log->guest, log->n_guest, &log->room_guest, sizeof(*log->guest));
	log->guest[log->n_guest] = *op;
	log->guest[log->n_guest].submitted = ++log->clock;
	log->guest[log->n_guest].acknowledged = NEVER;
	return log->n_guest++;
}

void crash_log_ack(struct crash_log *log, uint64_t i, bool wce, int err)
{
	log->guest[i].acknowledged = ++log->clock;
	log->guest[i].wce_at_end = wce;
	log->guest[i].err = err;
}

/* ---- the filter ---- */

struct trace {
	struct file f;
	struct crash_log *log;
};

struct traced {
	struct file_req below;
	struct file_req *r;
	struct crash_log *log;
	uint64_t i; /* in log->host */
};

static void traced_done(struct file_req *below, int err)
{
	struct traced *t = container_of(below, struct traced, below);
	struct file_req *r = t->r;

	if (r->op != FILE_READ) {
		t->log->host[t->i].completed = ++t->log->clock;
		t->log->host[t->i].err = err;
	}
	free(t);
	r->done(r, err);
}

static uint8_t *copy_data(const struct file_req *r)
{
	uint8_t *data = malloc(r->len), *to = data;

	if (!data)
		abort();
	for (int i = 0; i < r->niov; i++) {
		memcpy(to, r->iov[i].iov_base, r->iov[i].iov_len);
		to += r->iov[i].iov_len;
	}
	return data;
}

static void trace_submit(struct file *f, struct file_req *r)
{
	struct trace *tr = container_of(f, struct trace, f);
	struct crash_log *log = tr->log;
	struct traced *t = calloc(1, sizeof(*t));

	if (!t)
		abort();
	t->below = (struct file_req){.done = traced_done,
		.op = r->op,
		.iov = r->iov,
		.niov = r->niov,
		.off = r->off,
		.len = r->len};
	t->r = r;
	t->log = log;
	if (r->op != FILE_READ) {
		log->host = more(log->host, log->n_host, &log->room_host, sizeof(*log->host));
		t->i = log->n_host++;
		log->host[t->i] = (struct host_op){.op = r->op,
			.off = r->off,
			.len = r->len,
			.data = r->op == FILE_WRITE ? copy_data(r) : NULL,
			.submitted = ++log->clock,
			.completed = NEVER};
	}
	file_submit(f->below, &t->below);
}

static uint64_t trace_size(struct file *f)
{
	return file_size(f->below);
}

static void trace_close(struct file *f)
{
	free(container_of(f, struct trace, f));
}

static const struct file_ops trace_ops = {
	.name = "trace",
	.submit = trace_submit,
	.size = trace_size,
	.close = trace_close,
};

int trace_open(struct file *f, struct crash_log *log, struct file **out)
{
	struct trace *tr = calloc(1, sizeof(*tr));

	if (!tr)
		return -ENOMEM;
	tr->f = *f;
	tr->f.ops = &trace_ops;
	tr->f.below = f;
	tr->log = log;
	*out = &tr->f;
	return 0;
}
