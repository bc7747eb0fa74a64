/* SPDX-License-Identifier: MIT */
/*
 * vmstate.c - the room behind the disk where a machine's state is kept.
 *
 * It begins where the disk ends, rounded up to what an L2 table maps, and goes on as far as an L1
 * table can.  Its clusters are those of the disk, by the same tables and the same rules; snapshots
 * take it along.  The L1 table grows to where something is written.  Nothing lies below it: a
 * backing file's content there would be another disk's.
 *
 * Source: qcow2 specification, "Snapshots" (VM state).
 */
#include "blockdev/qcow2/qcow2.h"

uint64_t qcow2_vmstate_offset(const struct format *fmt)
{
	const struct qcow2 *q = container_of(fmt, struct qcow2, fmt);

	return round_up(q->h.size, (uint64_t)q->l2_entries << q->h.cluster_bits);
}

int qcow2_vmstate(
	struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len, bool write)
{
	struct qcow2 *q = qcow2_of(fmt);
	uint64_t start = qcow2_vmstate_offset(fmt);
	int err;

	if (q->external) /* the data file ends with the disk */
		return -ENOTSUP;
	if (off > (uint64_t)INT64_MAX - start || len > (uint64_t)INT64_MAX - start - off)
		return -EFBIG;
	file_event(fmt->file, write ? EV_VMSTATE_SAVE : EV_VMSTATE_LOAD);
	if (!write)
		return qcow2_read(fmt, iov, niov, start + off, len);
	err = fmt->sync.err ? fmt->sync.err : qcow2_l1_reach(q, start + off + len);
	return err ? err : qcow2_write(fmt, iov, niov, start + off, len);
}
