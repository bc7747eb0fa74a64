/* SPDX-License-Identifier: MIT */
/*
 * recording.c - opening and counting a log; see recording.h.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/powercut/recording.h"

static void count(struct recording *r)
{
	for (uint64_t i = 0; i < r->log.n_guest; i++) {
		const struct guest_op *g = &r->log.guest[i];

		r->n_writes += g->kind == GUEST_WRITE;
		r->n_flushes += g->kind == GUEST_FLUSH || g->kind == GUEST_WCE_OFF;
		r->n_discards += g->kind == GUEST_DISCARD;
		r->written += g->kind == GUEST_WRITE ? g->n * SECTOR : 0;
	}
}

static void tell(uint64_t done, uint64_t of)
{
	fprintf(stderr, "\r\033[Kreading the log: %" PRIu64 " %%", done * 100 / of);
}

int recording_open(
	struct recording *r, const char *path, unsigned what, bool progress, struct why *why)
{
	struct why inner = {""};
	int err;

	*r = (struct recording){.path = path};
	err = trace_reader_open(path, &r->trace, &inner);
	if (!err)
		err = trace_crash_log(r->trace, what, &r->log, &r->mark, &r->n_marks,
			progress ? tell : NULL, &inner);
	if (progress)
		fputs("\r\033[K", stderr);
	if (!err) {
		r->size = r->trace->info.disk_bytes;
		count(r);
		if (r->trace->cut_off)
			log_warn("%s: ends before its time; what it has is used", path);
		return 0;
	}
	err = why_set(why, err, "%s: %s", path, why_text(&inner, err));
	if (r->trace)
		trace_reader_close(r->trace);
	*r = (struct recording){.path = path};
	return err;
}

void recording_close(struct recording *r)
{
	if (!r->trace)
		return;
	crash_log_fini(&r->log);
	free(r->mark);
	trace_reader_close(r->trace);
	*r = (struct recording){0};
}
