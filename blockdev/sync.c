/* SPDX-License-Identifier: MIT */
/*
 * sync.c - see sync.h.  At most one fdatasync is in flight: one that was submitted
 * while another runs could finish no earlier, and those who wait for it gather.
 */
#include "blockdev/sync.h"

#define LONG_NS	       (20 * 1000 * 1000ULL)
#define CAUTIOUS_AFTER 64 /* fdatasyncs in a worker thread after one that took that long */

void sync_init(struct sync *s, struct file *f)
{
	*s = (struct sync){.file = f, .writes = 1};
	fiber_queue_init(&s->q);
}

static int make_durable(struct sync *s)
{
	uint64_t start = loop_now_ns();
	int err;

	if (s->never)
		return 0;
	if (s->cautious)
		s->cautious--;
	if (s->alone && !s->cautious)
		err = file_fdatasync_here(s->file);
	else
		err = file_fdatasync(s->file);
	if (loop_now_ns() - start > LONG_NS)
		s->cautious = CAUTIOUS_AFTER;
	return err;
}

int sync_to(struct sync *s, uint64_t number)
{
	assert(number <= s->writes);
	while (s->durable < number) {
		uint64_t covers;
		int err;

		if (s->err)
			return s->err;
		if (s->running) {
			fiber_queue_wait(&s->q);
			continue;
		}
		s->running = true;
		covers = s->writes;
		err = make_durable(s);
		s->running = false;
		if (err)
			s->err = err;
		else
			s->durable = covers;
		fiber_queue_wake_all(&s->q);
	}
	return s->err;
}
