/* SPDX-License-Identifier: MIT */
/*
 * log.c - see log.h.
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
	for (uint64_t i = 0; i < log->n_host && !log->lent; i++)
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

/* ---- the host's side ---- */

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

static uint64_t submitted(struct file_watch *w, const struct file_req *r)
{
	struct crash_log *log = container_of(w, struct crash_log, watch);

	log->host = more(log->host, log->n_host, &log->room_host, sizeof(*log->host));
	log->host[log->n_host] = (struct host_op){.op = r->op,
		.off = r->off,
		.len = r->len,
		.data = r->op == FILE_WRITE ? copy_data(r) : NULL,
		.submitted = ++log->clock,
		.completed = NEVER};
	return log->n_host++;
}

static void completed(struct file_watch *w, uint64_t i, int err)
{
	struct crash_log *log = container_of(w, struct crash_log, watch);

	log->host[i].completed = ++log->clock;
	log->host[i].err = err;
}

int trace_open(struct file *f, struct crash_log *log, struct file **out)
{
	log->watch = (struct file_watch){submitted, completed};
	return watch_open(f, &log->watch, out);
}
