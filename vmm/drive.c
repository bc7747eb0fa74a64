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
	struct drive_report report;
	int close_err;
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
	err = disk_open(d->loop, &d->c->disk, &d->disk, &d->open_why);
	answer(d, err);
	if (!err) {
		/* A loop that can no longer turn cannot close the disk either; it will say so. */
		err = loop_run(d->loop);
		if (err)
			log_error("drive%u: its event loop failed: %s", d->index, strerror(-err));
		close_disk(d);
	}
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
	if (err)
		why_set(why, err, "%s: not left clean: %s", d->c->disk.path,
			why_text(&d->close_why, err));
	drive_free(d);
	return err;
}

struct loop *drive_loop(const struct drive *d)
{
	return d->loop;
}

struct disk *drive_disk(const struct drive *d)
{
	return d->disk;
}
