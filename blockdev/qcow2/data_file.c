/* SPDX-License-Identifier: MIT */
/*
 * data_file.c - images whose data lies in a file of its own.
 *
 * There every guest cluster has its place at its own offset, so nothing is allocated, counted, or
 * kept in quarantine; tables and counts stay in the image.  What that means for the rules:
 *
 *   R2  entries wait for the data.  The data file has numbers of its own (fmt.data_sync), and one
 *       place minds them: commit.c makes all data written so far durable before it writes L2
 *       entries.  A place that has no entry may hold anything, so its first write is one of the
 *       whole cluster.
 *   R6  a place that lost its entry is the same guest cluster's for ever; what it held is gone by
 *       the guest's own wish, so it may be punched at once.
 *   R9  an fdatasync of the data file that failed is as final as one of the image.
 *
 * If the file is to be good as a raw image at any time, zeros are written there before the
 * entries say so.
 *
 * Source: qcow2 specification, "External data file", "Standard Cluster Descriptor".
 */
#include "blockdev/qcow2/qcow2.h"

int qcow2_data_alloc(struct qcow2 *q, uint64_t off, uint64_t n, struct run *out)
{
	if (!q->external)
		return qcow2_alloc(q, n, out);
	*out = (struct run){.first = off >> q->h.cluster_bits, .n = n};
	return 0;
}

int qcow2_data_check(struct qcow2 *q, uint64_t host_off, uint64_t len)
{
	if (q->external)
		return q->corrupt ? -ENOMEDIUM : 0;
	return qcow2_overlap_check(q, 0, host_off, len);
}

void qcow2_data_unalloc(struct qcow2 *q, const struct run *r)
{
	if (!q->external)
		qcow2_alloc_add(q, &(struct run){r->first, r->n, false, r->need});
}

int qcow2_data_free(struct qcow2 *q, uint64_t first, uint64_t n)
{
	return q->external ? 0 : qcow2_clusters_free(q, first, n, 0);
}

int qcow2_data_clear(struct qcow2 *q, uint64_t off, uint64_t len, bool unmap)
{
	uint64_t end = min_u64(off + len, q->external ? file_size(q->fmt.data_file) : 0);
	int err;

	if (off >= end || !(q->raw_data || (unmap && q->fmt.unmap)))
		return 0;
	err = file_punch(q->fmt.data_file, off, end - off);
	if (!err)
		format_data_note(&q->fmt);
	return err;
}

int qcow2_data_sync(struct qcow2 *q)
{
	int err = q->external ? sync_to(&q->fmt.data_sync, q->fmt.data_sync.writes) : 0;

	return sync_give_up(&q->fmt.sync, err);
}

uint64_t qcow2_data_need(const struct qcow2 *q)
{
	return q->external ? 0 : q->fmt.sync.writes;
}

int qcow2_data_resize(struct qcow2 *q, uint64_t size)
{
	int err = q->external ? file_truncate(q->fmt.data_file, size) : 0;

	if (err || !q->external)
		return err;
	format_data_note(&q->fmt);
	return qcow2_data_sync(q);
}

void qcow2_data_event(struct qcow2 *q)
{
	file_event(q->fmt.file, EV_WRITE_AIO);
	if (q->external)
		file_event(q->fmt.data_file, EV_WRITE_AIO);
}
