/* SPDX-License-Identifier: MIT */
/*
 * header_rewrite.c - another header in the place of the one that is there.
 *
 * The first sector is written at once or not at all; a header is often longer, as the names of
 * features lie before that of the backing file.  So that a cut shows the old header
 * or the new one and never a mixture:
 *
 *   1. the new backing file's name goes to the end of the first cluster, where no one looks yet
 *   2. a first sector that says all that is new, with the name there and without feature names
 *   3. the sectors behind it, as they shall be
 *   4. the first sector, as it shall be; then the end of the cluster is zeros again
 *
 * each durable before the next.  If all changes are in the first sector, 4 is all there is.
 * A header whose extensions do not fit into one sector, in the short form, is refused.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/qcow2.h"

#define NAME_ROOM 1024u /* QCOW2_BACKING_MAX and a zero, in whole sectors */

struct rewrite {
	struct qcow2 *q;
	const struct qcow2_header *h;
	uint8_t *old, *next, *brief; /* first clusters */
	uint64_t name_at;
	bool touched;
};

static int put(struct rewrite *r, const uint8_t *from, uint64_t off, uint64_t len)
{
	int err = qcow2_meta_write(r->q, OVERLAP_HEADER, from + off, len, off);

	r->touched = true;
	return err ? err : sync_to(&r->q->fmt.sync, r->q->fmt.sync.writes);
}

/* Past the last byte that differs from zero. */
static uint64_t used(const uint8_t *buf, uint64_t n)
{
	while (n && !buf[n - 1])
		n--;
	return n;
}

static int write_long(struct rewrite *r, struct why *why)
{
	uint64_t size = r->h->cluster_size;
	uint64_t end = max_u64(used(r->old, size), used(r->next, size));
	int err;

	end = round_up(end, SECTOR);
	r->name_at = size - min_u64(size, NAME_ROOM);
	if (r->name_at < end || qcow2_header_build_short(r->h, r->old, r->name_at, r->brief))
		return why_set(why, -ENOSPC,
			"The header cannot be replaced safely: its extensions take too much room");
	memcpy(r->brief + r->name_at, r->h->backing_file, strlen(r->h->backing_file));
	err = put(r, r->brief, r->name_at, size - r->name_at);
	if (!err)
		err = put(r, r->brief, 0, SECTOR);
	if (!err)
		err = put(r, r->next, SECTOR, end - SECTOR);
	if (!err)
		err = put(r, r->next, 0, SECTOR);
	return err ? err : put(r, r->next, r->name_at, size - r->name_at);
}

static int rewrite(struct rewrite *r, struct why *why)
{
	uint64_t size = r->h->cluster_size;
	int err = file_pread(r->q->fmt.file, r->old, size, 0);

	if (!err)
		err = qcow2_header_build(r->h, r->old, r->next, why);
	if (err)
		return err;
	if (!memcmp(r->old + SECTOR, r->next + SECTOR, size - SECTOR))
		return put(r, r->next, 0, SECTOR);
	return write_long(r, why);
}

int qcow2_header_replace(struct qcow2 *q, const struct qcow2_header *h, struct why *why)
{
	struct rewrite r = {.q = q, .h = h};
	uint64_t size = h->cluster_size;
	int err = -ENOMEM;

	if (q->fmt.sync.err)
		return q->fmt.sync.err;
	r.old = file_buf(size);
	r.next = file_buf(size);
	r.brief = file_buf(size);
	if (r.old && r.next && r.brief)
		err = rewrite(&r, why);
	if (!err)
		q->h = *h;
	/* Which of the headers is there is not known then. */
	else if (r.touched)
		sync_give_up(&q->fmt.sync, err);
	free(r.old);
	free(r.next);
	free(r.brief);
	return err;
}

int qcow2_set_backing(struct format *fmt, const char *name, const char *format, struct why *why)
{
	struct qcow2 *q = qcow2_of(fmt);
	struct qcow2_header h = q->h;
	int err;

	if (strlen(name) >= sizeof(h.backing_file) || strlen(format) >= sizeof(h.backing_format))
		return why_set(why, -EINVAL, "Invalid argument");
	if (h.autoclear & QCOW2_AUTOCLEAR_DATA_RAW)
		return why_set(why, -EINVAL,
			"Backing file and data-file-raw cannot be used at the same time");
	memset(h.backing_file, 0, sizeof(h.backing_file));
	memset(h.backing_format, 0, sizeof(h.backing_format));
	memcpy(h.backing_file, name, strlen(name));
	memcpy(h.backing_format, format, strlen(format));
	fiber_lock(&q->table_lock);
	err = qcow2_header_replace(q, &h, why);
	fiber_unlock(&q->table_lock);
	return err;
}
