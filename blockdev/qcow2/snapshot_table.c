/* SPDX-License-Identifier: MIT */
/*
 * snapshot_table.c - the table of internal snapshots.
 *
 * It is read when an image is opened and kept in memory.  A change is written as a whole new
 * table, which the header then names; so a cut leaves one or the other.  Extra data of an
 * entry that we know nothing of stays with it.
 *
 * Source: qcow2 specification, "Snapshots".
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/snapshot.h"

static void snapshot_fini(struct snapshot *s)
{
	free(s->id);
	free(s->name);
	free(s->unknown);
}

void qcow2_snapshots_fini(struct qcow2 *q)
{
	for (uint32_t i = 0; i < q->n_snapshots; i++)
		snapshot_fini(&q->snapshots[i]);
	free(q->snapshots);
	q->snapshots = NULL;
	q->n_snapshots = 0;
}

int qcow2_snapshots_bytes_check(uint64_t bytes, uint32_t left, struct why *why)
{
	if (bytes <= QCOW2_SNAPSHOTS_BYTES_MAX)
		return 0;
	return why_set(why, -EFBIG,
		"Snapshot table is too big\n"
		"You can force-remove all %u overhanging snapshots with qemu-img check -r all",
		(unsigned)left);
}

int qcow2_snapshot_extra_check(uint32_t bytes, uint32_t i, struct why *why)
{
	if (bytes <= QCOW2_SNAPSHOT_EXTRA_MAX)
		return 0;
	return why_set(why, -EFBIG,
		"Too much extra metadata in snapshot table entry %u\n"
		"You can force-remove this extra metadata with qemu-img check -r all",
		(unsigned)i);
}

/* The part after the fixed fields: extra data, ID, name. */
static int read_rest(struct qcow2 *q, struct snapshot *s, uint32_t extra, uint64_t at)
{
	be64_t known[SNAPSHOT_EXTRA / 8] = {0};
	int err = file_pread(q->fmt.file, known, min_u64(extra, sizeof(known)), at);

	if (err)
		return err;
	if (extra >= 8)
		s->vm_state_bytes = be64_get(known[0]);
	s->disk_bytes = extra >= 16 ? be64_get(known[1]) : q->h.size;
	s->icount = extra >= 24 ? be64_get(known[2]) : UINT64_MAX;
	s->unknown_bytes = extra > sizeof(known) ? extra - (uint32_t)sizeof(known) : 0;
	s->unknown = malloc(s->unknown_bytes + 1);
	s->id = calloc(1, s->id_bytes + 1u);
	s->name = calloc(1, s->name_bytes + 1u);
	if (!s->unknown || !s->id || !s->name)
		return -ENOMEM;
	err = file_pread(q->fmt.file, s->unknown, s->unknown_bytes, at + sizeof(known));
	if (!err)
		err = file_pread(q->fmt.file, s->id, s->id_bytes, at + extra);
	if (!err)
		err = file_pread(q->fmt.file, s->name, s->name_bytes, at + extra + s->id_bytes);
	return err;
}

/* Entry i, at *at; *at moves on to the next. */
static int read_one(struct qcow2 *q, uint32_t i, uint64_t *at, struct why *why)
{
	struct snapshot *s = &q->snapshots[i];
	struct qcow2_disk_snapshot d;
	uint32_t extra;
	int err = file_pread(q->fmt.file, &d, sizeof(d), *at);

	if (err)
		return why_set(why, err, "Failed to read snapshot table");
	extra = be32_get(d.extra_bytes);
	err = qcow2_snapshot_extra_check(extra, i, why);
	if (err)
		return err;
	*s = (struct snapshot){.l1_offset = be64_get(d.l1_offset),
		.l1_size = be32_get(d.l1_size),
		.id_bytes = be16_get(d.id_bytes),
		.name_bytes = be16_get(d.name_bytes),
		.sec = be32_get(d.sec),
		.nsec = be32_get(d.nsec),
		.clock_ns = be64_get(d.vm_clock_ns),
		.vm_state_bytes = be32_get(d.vm_state_bytes),
		.extra_bytes = extra};
	q->n_snapshots = i + 1; /* freed from now on */
	err = read_rest(q, s, extra, *at + sizeof(d));
	if (err)
		return why_set(why, err, "Failed to read snapshot table");
	*at = round_up(*at + sizeof(d) + extra + s->id_bytes + s->name_bytes, 8);
	return qcow2_snapshots_bytes_check(
		*at - q->h.snapshots_offset, q->h.nb_snapshots - i, why);
}

int qcow2_snapshots_read(struct qcow2 *q, struct why *why)
{
	uint64_t at = q->h.snapshots_offset;
	int err = 0;

	if (!q->h.nb_snapshots)
		return 0;
	q->snapshots = calloc(q->h.nb_snapshots, sizeof(*q->snapshots));
	if (!q->snapshots)
		return -ENOMEM;
	for (uint32_t i = 0; i < q->h.nb_snapshots && !err; i++)
		err = read_one(q, i, &at, why);
	q->snapshots_bytes = at - q->h.snapshots_offset;
	return err;
}

int snapshot_add(struct qcow2 *q, const char *id, const char *name, struct snapshot **out)
{
	struct snapshot *all = realloc(q->snapshots, (q->n_snapshots + 1) * sizeof(*all)), *s;

	if (!all)
		return -ENOMEM;
	q->snapshots = all;
	s = &all[q->n_snapshots];
	*s = (struct snapshot){
		.id = strdup(id), .name = strdup(name), .extra_bytes = SNAPSHOT_EXTRA};
	if (!s->id || !s->name) {
		snapshot_fini(s);
		return -ENOMEM;
	}
	s->id_bytes = (uint16_t)strlen(id);
	s->name_bytes = (uint16_t)strlen(name);
	q->n_snapshots++;
	*out = s;
	return 0;
}

void snapshot_remove(struct qcow2 *q, uint32_t i)
{
	snapshot_fini(&q->snapshots[i]);
	memmove(&q->snapshots[i], &q->snapshots[i + 1],
		(--q->n_snapshots - i) * sizeof(*q->snapshots));
}

int64_t snapshot_find(const struct qcow2 *q, const char *id, const char *name)
{
	for (uint32_t i = 0; i < q->n_snapshots; i++)
		if ((!id || !strcmp(q->snapshots[i].id, id)) &&
			(!name || !strcmp(q->snapshots[i].name, name)))
			return i;
	return -1;
}

uint64_t snapshot_new_id(const struct qcow2 *q)
{
	uint64_t highest = 0;

	for (uint32_t i = 0; i < q->n_snapshots; i++)
		highest = max_u64(highest, strtoull(q->snapshots[i].id, NULL, 10));
	return highest + 1;
}

bool qcow2_snapshot_get(struct format *fmt, uint32_t i, struct disk_snapshot *out)
{
	const struct qcow2 *q = qcow2_of(fmt);
	const struct snapshot *s;

	if (i >= q->n_snapshots)
		return false;
	s = &q->snapshots[i];
	*out = (struct disk_snapshot){.id = s->id,
		.name = s->name,
		.sec = s->sec,
		.nsec = s->nsec,
		.clock_ns = s->clock_ns,
		.vm_state_bytes = s->vm_state_bytes,
		.icount = s->icount};
	return true;
}

static uint64_t entry_bytes(const struct snapshot *s)
{
	return sizeof(struct qcow2_disk_snapshot) + SNAPSHOT_EXTRA + s->unknown_bytes +
	       s->id_bytes + s->name_bytes;
}

uint64_t snapshot_table_bytes(const struct qcow2 *q)
{
	uint64_t bytes = 0;

	for (uint32_t i = 0; i < q->n_snapshots; i++)
		bytes = round_up(bytes, 8) + entry_bytes(&q->snapshots[i]);
	return bytes;
}

static void entry_to_disk(const struct snapshot *s, uint8_t *out)
{
	struct qcow2_disk_snapshot *d = (void *)out;
	be64_t *known = (void *)(out + sizeof(*d));

	d->l1_offset = be64_make(s->l1_offset);
	d->l1_size = be32_make(s->l1_size);
	d->id_bytes = be16_make(s->id_bytes);
	d->name_bytes = be16_make(s->name_bytes);
	d->sec = be32_make(s->sec);
	d->nsec = be32_make(s->nsec);
	d->vm_clock_ns = be64_make(s->clock_ns);
	d->vm_state_bytes =
		be32_make(s->vm_state_bytes > UINT32_MAX ? 0 : (uint32_t)s->vm_state_bytes);
	d->extra_bytes = be32_make(SNAPSHOT_EXTRA + s->unknown_bytes);
	known[0] = be64_make(s->vm_state_bytes);
	known[1] = be64_make(s->disk_bytes);
	known[2] = be64_make(s->icount);
	out += sizeof(*d) + SNAPSHOT_EXTRA;
	if (s->unknown_bytes)
		memcpy(out, s->unknown, s->unknown_bytes);
	memcpy(out + s->unknown_bytes, s->id, s->id_bytes);
	memcpy(out + s->unknown_bytes + s->id_bytes, s->name, s->name_bytes);
}

int snapshot_table_write(struct qcow2 *q, struct run *r)
{
	uint64_t bytes = snapshot_table_bytes(q), at = 0, whole;
	uint8_t *buf;
	int err;

	*r = (struct run){.n = 0};
	if (!bytes)
		return 0;
	if (bytes > QCOW2_SNAPSHOTS_BYTES_MAX)
		return -EFBIG;
	whole = round_up(bytes, q->h.cluster_size);
	buf = file_buf(whole);
	if (!buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < q->n_snapshots; i++) {
		at = round_up(at, 8);
		entry_to_disk(&q->snapshots[i], buf + at);
		at += entry_bytes(&q->snapshots[i]);
	}
	err = qcow2_alloc_table(q, whole >> q->h.cluster_bits, r);
	if (!err)
		err = qcow2_meta_write(
			q, 0, buf, round_up(bytes, SECTOR), r->first << q->h.cluster_bits);
	free(buf);
	return err;
}
