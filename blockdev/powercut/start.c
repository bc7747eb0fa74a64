/* SPDX-License-Identifier: MIT */
/*
 * start.c - the image that a log began with: found, and held against the log's fingerprint of it.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/powercut/recording.h"

#define READ_BYTES (256 * KiB)

struct look {
	struct disk *d;
	uint64_t fingerprint;
};

static int look_fiber(void *arg)
{
	struct look *k = arg;
	uint64_t size = disk_size(k->d), n;
	uint8_t *buf = malloc(READ_BYTES);
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < size && !err; at += n) {
		struct extent x;

		n = min_u64(READ_BYTES, size - at);
		err = disk_map(k->d, at, n, &x);
		if (err)
			break;
		n = x.len;
		if (x.kind != EXTENT_DATA)
			continue;
		err = disk_pread(k->d, buf, n, at);
		if (!err)
			k->fingerprint += trace_fingerprint_of(buf, n, at);
	}
	free(buf);
	return err;
}

int recording_began_with(const struct recording *r, const char *image, uint64_t size,
	uint64_t fingerprint, struct why *why)
{
	const struct trace_info *i = &r->trace->info;

	if (size != r->size)
		return why_set(why, -EINVAL,
			"%s is of %" PRIu64 " bytes, the disk of the log of %" PRIu64, image, size,
			r->size);
	if ((i->blank || i->fingerprint) && fingerprint != i->fingerprint)
		return why_set(why, -EINVAL,
			"%s does not hold what the disk held when the log began", image);
	return 0;
}

static int compare(const struct judge_args *a, const struct recording *r, struct why *why)
{
	struct disk_opts o = {
		.path = a->image, .format = a->image_format, .readonly = true, .quiet = true};
	struct look k = {0};
	uint64_t size;
	int err = disk_open(a->loop, &o, &k.d, why);

	if (err)
		return why_set(why, err, "%s: %s", a->image, why_text(why, err));
	err = fiber_run(a->loop, look_fiber, &k);
	size = disk_size(k.d);
	disk_abandon(k.d);
	if (err)
		return why_set(why, err, "%s: %s", a->image, strerror(-err));
	return recording_began_with(r, a->image, size, k.fingerprint, why);
}

/* The disk held nothing: an empty file will do. */
static int make_empty(struct judge_args *a, const struct recording *r, struct why *why)
{
	const char *tmp = getenv("TMPDIR");
	int fd, err = 0;

	if (asprintf(&a->made, "%s/sluice-powercut.XXXXXX", tmp && *tmp ? tmp : "/var/tmp") < 0) {
		a->made = NULL;
		return -ENOMEM;
	}
	fd = mkstemp(a->made);
	if (fd < 0 || ftruncate(fd, (off_t)r->size))
		err = why_set(why, -errno, "%s: %s", a->made, strerror(errno));
	if (fd >= 0)
		close(fd);
	a->image = a->made;
	a->image_format = "raw";
	return err;
}

int judge_args_start(struct judge_args *a, const struct recording *r, struct why *why)
{
	if (a->image)
		return compare(a, r, why);
	if (!r->trace->info.blank)
		return why_set(
			why, -EINVAL, "--image is missing: the image as it was when the log began");
	return make_empty(a, r, why);
}
