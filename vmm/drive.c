/* SPDX-License-Identifier: MIT */
/*
 * drive.c - one thread per drive: opens the disk, turns the loop, closes the disk.
 *
 * The disk is only ever touched on this thread.  The maker waits until it is open (or is not),
 * the closer until the thread is gone.
 */
#include "vmm/drive.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/stop.h"

struct drive {
	const struct drive_config *c;
	unsigned index;
	pthread_t thread;
	struct loop *loop;
	struct disk *disk;
	struct recorder *recorder; /* or NULL */
	struct drive_report report;
	int close_err;
	bool trace_failed; /* that is the log's, and the image is clean */
	struct why close_why;

	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t cond;
	bool answered;
	int open_err;
	struct why open_why;
};

static void answer(struct drive *d, int err)
{
	pthread_mutex_lock(&d->lock);
	d->open_err = err;
	d->answered = true;
	pthread_cond_broadcast(&d->cond);
	pthread_mutex_unlock(&d->lock);
}

static void close_disk(struct drive *d)
{
	struct drive_report *r = &d->report;

	snprintf(r->name, sizeof(r->name), "drive%u", d->index);
	snprintf(r->format, sizeof(r->format), "%s", disk_format(d->disk));
	r->path = d->c->disk.path;
	r->cache = disk_cache_mode(d->disk);
	r->wce = disk_wce(d->disk);
	disk_stats_get(d->disk, &r->running);
	d->close_err = disk_close_stats(d->disk, &r->total, &d->close_why);
	r->known = true;
}

static int open_disk(struct drive *d)
{
	struct disk_opts o = d->c->disk;
	struct why why = {""};
	int err = d->c->trace ? recorder_new(d->c->trace, &d->recorder, &d->open_why) : 0;

	if (d->recorder)
		o.tap = recorder_tap(d->recorder);
	if (!err)
		err = disk_open(d->loop, &o, &d->disk, &d->open_why);
	if (!err && d->recorder) {
		err = recorder_begin(d->recorder, d->loop, d->disk, &d->open_why);
		if (err && disk_close(d->disk, &why))
			log_error("%s: %s", o.path, why_text(&why, -EIO));
	}
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

static void *drive_main(void *arg)
{
	struct drive *d = arg;
	char name[16];
	int err;

	snprintf(name, sizeof(name), "drive%u", d->index);
	pthread_setname_np(pthread_self(), name);
	stop_not_here();
	err = loop_new(d->c->aio, &d->loop);
	if (err) {
		why_set(&d->open_why, err, "no event loop: %s", strerror(-err));
		answer(d, err);
		return NULL;
	}
	err = open_disk(d);
	answer(d, err);
	if (!err) {
		/* A loop that can no longer turn cannot close the disk either; it will say so. */
		err = loop_run(d->loop);
		if (err)
			log_error("drive%u: its event loop failed: %s", d->index, strerror(-err));
		close_disk(d);
	}
	if (d->recorder)
		close_recorder(d);
	loop_free(d->loop);
	return NULL;
}

static void drive_free(struct drive *d)
{
	pthread_cond_destroy(&d->cond);
	pthread_mutex_destroy(&d->lock);
	free(d);
}

int drive_open(const struct drive_config *c, unsigned index, struct drive **out, struct why *why)
{
	struct drive *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->c = c;
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
		why_set(why, err, "%s: not left clean: %s", d->c->disk.path,
			why_text(&d->close_why, err));
	drive_free(d);
	return err;
}

void drive_mark(struct drive *d, enum mark_by by, const char *text, size_t len)
{
	if (d->recorder)
		recorder_mark(d->recorder, by, text, len);
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
