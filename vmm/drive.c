/* SPDX-License-Identifier: MIT */
/*
 * drive.c - one thread per drive: opens the disk, turns the loop, closes the disk.
 *
 * The disk is only ever touched on this thread.  The maker waits until it is open (or is not),
 * the closer until the thread is gone.  Others may have something done on it (drive_do()).
 */
#include "vmm/drive.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/stop.h"

struct drive {
	struct drive_config c;
	unsigned index;
	char *image; /* what was closed, for words */
	pthread_t thread;
	struct loop *loop;
	struct disk *disk;
	struct recorder *recorder; /* or NULL */
	struct live *live;         /* or NULL */
	bool abandon;              /* the machine's power was cut; set before the loop is stopped */
	struct drive_report report;
	int close_err;
	bool trace_failed; /* that is the log's, and the image is clean */
	struct why close_why;

	struct job *job; /* to be done when the loop stops; set on the loop */

	pthread_mutex_t lock; /* guards all below, and the jobs' "over" */
	pthread_cond_t cond;
	bool answered;
	int open_err;
	struct why open_why;
};

struct job {
	struct loop_msg msg;
	struct drive *d;
	int (*fn)(struct drive *d, void *arg);
	void *arg;
	int result;
	bool over;
};

static void answer(struct drive *d, int err)
{
	pthread_mutex_lock(&d->lock);
	d->open_err = err;
	d->answered = true;
	pthread_cond_broadcast(&d->cond);
	pthread_mutex_unlock(&d->lock);
}

static void report_disk(struct drive *d)
{
	struct drive_report *r = &d->report;

	snprintf(r->name, sizeof(r->name), "drive%u", d->index);
	snprintf(r->format, sizeof(r->format), "%s", disk_format(d->disk));
	r->path = d->c.disk.path;
	r->cache = disk_cache_mode(d->disk);
	r->wce = disk_wce(d->disk);
	disk_stats_get(d->disk, &r->running);
	d->image = strdup(disk_path(d->disk));
	r->known = true;
}

static void close_disk(struct drive *d)
{
	report_disk(d);
	d->close_err = disk_close_stats(d->disk, &d->report.total, &d->close_why);
}

/* The image is left as it is, or as what lies in a volatile cache says. */
static void lose_power(struct drive *d)
{
	struct drive_report *r = &d->report;
	char said[LIVE_LINE], again[LIVE_LINE];

	report_disk(d);
	r->total = r->running;
	r->cut = true;
	if (d->live && live_is_cut(d->live)) {
		d->close_err = live_leave(d->live, d->loop, said, again);
		r->left = live_left(d->live);
		/* No error, but what the run was for: never left out. */
		log_error("drive%u: %s", d->index, said);
		log_error("drive%u: again: -drive file=%s,...,%s", d->index, r->path, again);
	}
	disk_abandon(d->disk);
}

static void end_disk(struct drive *d)
{
	char said[LIVE_LINE];

	disk_drain(d->disk);
	if (d->live)
		live_watch(d->live, false);
	if (d->abandon || (d->live && live_is_cut(d->live))) {
		lose_power(d);
		return;
	}
	close_disk(d);
	if (d->live && live_missed(d->live, said))
		log_warn("drive%u: %s", d->index, said);
}

static int open_disk(struct drive *d)
{
	struct disk_opts o = d->c.disk;
	struct why why = {""};
	int err = d->c.trace ? recorder_new(d->c.trace, &d->recorder, &d->open_why) : 0;

	if (d->recorder)
		o.tap = recorder_tap(d->recorder);
	if (!err && live_wanted(&d->c.live)) {
		err = live_new(&d->c.live, o.tap, &d->live, &d->open_why);
		if (!err)
			o.tap = live_tap(d->live);
	}
	if (!err)
		err = d->c.throwaway ? disk_open_throwaway(d->loop, &o, &d->disk, &d->open_why) :
				       disk_open(d->loop, &o, &d->disk, &d->open_why);
	if (!err && d->recorder) {
		err = recorder_begin(d->recorder, d->loop, d->disk, &d->open_why);
		if (err && disk_close(d->disk, &why))
			log_error("%s: %s", o.path, why_text(&why, -EIO));
	}
	if (!err && d->live)
		live_watch(d->live, true);
	return err;
}

static void close_recorder(struct drive *d)
{
	struct why why = {""};
	int err = recorder_close(d->recorder, &why);

	if (err && d->report.known && !d->close_err) {
		d->close_err = err;
		d->close_why = why;
		d->trace_failed = true;
	}
}

static void job_run(struct drive *d)
{
	struct job *j = d->job;

	d->job = NULL;
	j->result = j->fn(d, j->arg);
	pthread_mutex_lock(&d->lock);
	j->over = true;
	pthread_cond_broadcast(&d->cond);
	pthread_mutex_unlock(&d->lock);
}

/* Until drive_close() stops it; a job stops the loop for itself. */
static void serve(struct drive *d)
{
	bool told = false;

	for (;;) {
		int err = loop_run(d->loop);

		if (d->job)
			job_run(d);
		else if (!err)
			return;
		if (loop_failed(d->loop) && !told && d->c.failed)
			d->c.failed(d->c.failed_arg);
		told = loop_failed(d->loop);
	}
}

static void *drive_main(void *arg)
{
	struct drive *d = arg;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "drive%u", d->index);
	pthread_setname_np(pthread_self(), name);
	stop_not_here();
	err = loop_new(d->c.aio, &d->loop);
	if (err) {
		why_set(&d->open_why, err, "no event loop: %s", strerror(-err));
		answer(d, err);
		return NULL;
	}
	err = open_disk(d);
	answer(d, err);
	if (!err) {
		serve(d);
		end_disk(d);
	}
	if (d->recorder)
		close_recorder(d);
	live_free(d->live);
	loop_free(d->loop);
	return NULL;
}

static void drive_free(struct drive *d)
{
	pthread_cond_destroy(&d->cond);
	pthread_mutex_destroy(&d->lock);
	free(d->image);
	free(d);
}

int drive_open(const struct drive_config *c, unsigned index, struct drive **out, struct why *why)
{
	struct drive *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->c = *c;
	d->index = index;
	pthread_mutex_init(&d->lock, NULL);
	pthread_cond_init(&d->cond, NULL);
	err = -pthread_create(&d->thread, NULL, drive_main, d);
	if (err) {
		drive_free(d);
		return why_set(why, err, "%s: no thread: %s", c->disk.path, strerror(-err));
	}
	pthread_mutex_lock(&d->lock);
	while (!d->answered)
		pthread_cond_wait(&d->cond, &d->lock);
	pthread_mutex_unlock(&d->lock);
	if (d->open_err) {
		err = d->open_err;
		why_set(why, err, "%s: %s", c->disk.path, why_text(&d->open_why, err));
		pthread_join(d->thread, NULL);
		drive_free(d);
		return err;
	}
	*out = d;
	return 0;
}

int drive_close(struct drive *d, struct drive_report *r, struct why *why)
{
	int err;

	loop_stop(d->loop);
	pthread_join(d->thread, NULL);
	*r = d->report;
	err = d->close_err;
	if (err && d->trace_failed)
		why_set(why, err, "%s", why_text(&d->close_why, err));
	else if (err)
		why_set(why, err, "%s: not left clean: %s", d->image ? d->image : d->c.disk.path,
			why_text(&d->close_why, err));
	drive_free(d);
	return err;
}

static void job_on_loop(struct loop_msg *m)
{
	struct job *j = container_of(m, struct job, msg);

	j->d->job = j;
	loop_stop(j->d->loop);
}

int drive_do(struct drive *d, int (*fn)(struct drive *d, void *arg), void *arg)
{
	struct job j = {.msg.fn = job_on_loop, .d = d, .fn = fn, .arg = arg};

	loop_post(d->loop, &j.msg);
	pthread_mutex_lock(&d->lock);
	while (!j.over)
		pthread_cond_wait(&d->cond, &d->lock);
	pthread_mutex_unlock(&d->lock);
	return j.result;
}

void drive_mark(struct drive *d, enum mark_by by, const char *text, size_t len)
{
	if (d->recorder)
		recorder_mark(d->recorder, by, text, len);
	if (d->live && live_mark_cuts(d->live, by == MARK_BY_SERIAL, text, len))
		drive_powercut(d, by == MARK_BY_SERIAL ? live_by_line : live_by_mark);
}

void drive_on_powercut(struct drive *d, void (*cut)(void *arg), void *arg)
{
	if (d->live)
		live_on_cut(d->live, cut, arg);
}

struct cut_call {
	struct loop_msg msg;
	struct live *live;
	const char *by;
	sem_t done;
};

static void cut_on_loop(struct loop_msg *m)
{
	struct cut_call *c = container_of(m, struct cut_call, msg);

	live_cut(c->live, c->by);
	sem_post(&c->done);
}

void drive_powercut(struct drive *d, const char *by)
{
	struct cut_call c = {.msg.fn = cut_on_loop, .live = d->live, .by = by};

	if (!d->live) {
		d->abandon = true;
		return;
	}
	sem_init(&c.done, 0, 0);
	loop_post(d->loop, &c.msg);
	while (sem_wait(&c.done))
		;
	sem_destroy(&c.done);
}

struct loop *drive_loop(const struct drive *d)
{
	return d->loop;
}

struct disk *drive_disk(const struct drive *d)
{
	return d->disk;
}

unsigned drive_index(const struct drive *d)
{
	return d->index;
}
