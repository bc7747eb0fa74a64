/* SPDX-License-Identifier: MIT */
/* damaged.c - see damaged.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/damaged.h"

static void must(bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "test support: %s failed\n", what);
	abort();
}

struct create_args {
	struct cutfile *m;
	const struct qcow2_create_opts *o;
	struct qcow2_header h;
};

static int create_fiber(void *arg)
{
	struct create_args *a = arg;
	int err = qcow2_create(&a->m->file, a->o, NULL);

	return err ? err : qcow2_header_read(&a->m->file, &a->h, NULL);
}

void damaged_init(
	struct damaged *d, struct cutfile *m, struct loop *l, const struct qcow2_create_opts *o)
{
	struct create_args a = {.m = m, .o = o};
	uint64_t cs, end;

	cutfile_init(m, l);
	must(fiber_run(l, create_fiber, &a) == 0, "creating an image");
	*d = (struct damaged){.m = m, .h = a.h};
	cs = d->h.cluster_size;
	d->refblock = mem_be64(m, d->h.reftable_offset);
	d->l2 = round_up(m->size, cs);
	d->data = d->l2 + cs;
	end = d->data + DAMAGED_DATA * cs;
	mem_resize(m, end);
	mem_set_be64(m, d->h.l1_offset, d->l2 | QCOW2_OFLAG_COPIED);
	damaged_set_count(d, d->l2 / cs, 1);
	for (uint32_t i = 0; i < DAMAGED_DATA; i++) {
		memset(m->data + d->data + i * cs, 'A' + (int)i, cs);
		damaged_set_entry(d, i, (d->data + i * cs) | QCOW2_OFLAG_COPIED);
		damaged_set_count(d, d->data / cs + i, 1);
	}
}

uint64_t damaged_entry(const struct damaged *d, uint32_t i)
{
	return mem_be64(d->m, d->l2 + i * 8ULL);
}

void damaged_set_entry(struct damaged *d, uint32_t i, uint64_t v)
{
	mem_set_be64(d->m, d->l2 + i * 8ULL, v);
}

void damaged_set_count(struct damaged *d, uint64_t cluster, uint64_t count)
{
	must(cluster < qcow2_refblock_entries(&d->h), "counting in the first block");
	qcow2_refcount_set(d->m->data + d->refblock, (uint32_t)cluster, d->h.refcount_order, count);
}

static uint64_t data_cluster(const struct damaged *d, uint32_t i)
{
	return d->data / d->h.cluster_size + i;
}

static void none(struct damaged *d)
{
}

static void leak(struct damaged *d)
{
	damaged_set_entry(d, 3, 0);
}

static void zero_counts(struct damaged *d)
{
	for (uint32_t i = 0; i < DAMAGED_DATA; i++)
		damaged_set_count(d, data_cluster(d, i), 0);
}

static void shared(struct damaged *d)
{
	damaged_set_entry(d, 2, damaged_entry(d, 1));
}

static void not_copied(struct damaged *d)
{
	damaged_set_entry(d, 1, damaged_entry(d, 1) & ~QCOW2_OFLAG_COPIED);
}

static void past_end(struct damaged *d)
{
	damaged_set_entry(d, 9, QCOW2_OFLAG_COPIED | round_up(d->m->size, d->h.cluster_size));
}

static void far_past_end(struct damaged *d)
{
	damaged_set_entry(d, 9, QCOW2_OFLAG_COPIED | (1ULL << 55));
}

static void unaligned(struct damaged *d)
{
	damaged_set_entry(d, 9, (d->data + SECTOR) | QCOW2_OFLAG_COPIED | QCOW2_OFLAG_ZERO);
}

static void reserved(struct damaged *d)
{
	damaged_set_entry(d, 1, damaged_entry(d, 1) | 2);
}

static void l1_to_refblock(struct damaged *d)
{
	mem_set_be64(d->m, d->h.l1_offset + 8, d->refblock | QCOW2_OFLAG_COPIED);
}

static void l1_past_end(struct damaged *d)
{
	mem_set_be64(d->m, d->h.l1_offset + 8, QCOW2_OFLAG_COPIED | (1ULL << 50));
}

static void no_block(struct damaged *d)
{
	mem_set_be64(d->m, d->h.reftable_offset, 0);
}

static void block_outside(struct damaged *d)
{
	mem_set_be64(d->m, d->h.reftable_offset, 1ULL << 40);
}

static void no_table(struct damaged *d)
{
	mem_set_be32(d->m, offsetof(struct qcow2_disk_header, reftable_clusters), 0);
}

static void block_in_data(struct damaged *d)
{
	damaged_set_entry(d, 9, d->refblock);
}

static void no_counts_marked_dirty(struct damaged *d)
{
	zero_counts(d);
	mem_set_be64(d->m, offsetof(struct qcow2_disk_header, incompatible), QCOW2_INCOMPAT_DIRTY);
}

/*
 * A snapshot of nothing, its entry alone in the table, with extra data that is all 0x5a.  The table
 * lies at the end of the file, from the last data cluster on if that is shared.
 */
static void add_snapshot(struct damaged *d, uint32_t extra, bool in_data)
{
	static const char strings[] = "7name";
	uint64_t cs = d->h.cluster_size, at = round_up(d->m->size, cs) - (in_data ? cs : 0);
	uint64_t bytes = sizeof(struct qcow2_disk_snapshot) + extra + strlen(strings);
	struct qcow2_disk_snapshot s = {.id_bytes = be16_make(1),
		.name_bytes = be16_make(4),
		.vm_state_bytes = be32_make(77),
		.extra_bytes = be32_make(extra)};

	mem_resize(d->m, round_up(at + bytes, cs));
	memcpy(d->m->data + at, &s, sizeof(s));
	memset(d->m->data + at + sizeof(s), 0x5a, extra);
	memcpy(d->m->data + at + sizeof(s) + extra, strings, strlen(strings));
	for (uint64_t i = at / cs; i < d->m->size / cs; i++)
		damaged_set_count(d, i, 1 + (in_data && i == at / cs));
	mem_set_be32(d->m, offsetof(struct qcow2_disk_header, nb_snapshots), 1);
	mem_set_be64(d->m, offsetof(struct qcow2_disk_header, snapshots_offset), at);
}

static void snapshot_incomplete(struct damaged *d)
{
	add_snapshot(d, 8, false);
}

static void snapshot_lost_block(struct damaged *d)
{
	add_snapshot(d, 0, false);
	mem_set_be64(d->m, d->h.reftable_offset, 0);
}

/* The table moves, and the data has its cluster for itself again. */
static void snapshot_in_data(struct damaged *d)
{
	add_snapshot(d, 8, true);
}

#define EXCEEDS "counting reference for region exceeding the end of the file"
const struct damage damages[] = {
	{"nothing", none, "", 0, 0, 0},
	{"leak", leak, "Leaked cluster", 0, 1, 1u << 3},
	{"counts are zero", zero_counts, "refcount=0 reference=1", 12, 0, 0},
	{"two entries share a cluster", shared, "refcount=1 reference=2", 1, 1, 1u << 2},
	{"copied flag missing", not_copied, "OFLAG_COPIED data cluster", 1, 0, 0},
	{"entry past the end", past_end, EXCEEDS, 2, 0, 0},
	{"entry far past the end", far_past_end, EXCEEDS, 2, 0, 0},
	{"entry of zeros unaligned", unaligned, "not properly aligned", 0, 0,
		0}, /* 512-byte clusters: shared */
	{"reserved bits", reserved, "reserved bits set", 1, 0, 0},
	{"L1 entry to a refcount block", l1_to_refblock, "refcount block 0 refcount=2", 0, 0, 0},
	{"L1 entry past the end", l1_past_end, EXCEEDS, 2, 0, 0},
	{"refcount block gone", no_block, "refcount=0 reference=1", 0, 0, 0},
	{"refcount block outside", block_outside, "refcount block 0 is outside image", 0, 0, 0},
	{"refcount table gone", no_table, "refcount=0 reference=1", 0, 0, 0},
	{"refcount block mapped as data", block_in_data, "refcount block 0 refcount=2", 0, 0, 0},
	{"snapshot incomplete", snapshot_incomplete, "snapshot table entry 0 is incomplete", 1, 0,
		0},
	{"snapshots in data", snapshot_in_data, "entry 0 is incomplete", 0, 0,
		1u << (DAMAGED_DATA - 1)},
	{"snapshot incomplete, no counts", snapshot_lost_block, "entry 0 is incomplete", 0, 0, 0},
	{"dirty, counts are zero", no_counts_marked_dirty, "refcount=0 reference=1", 12, 0, 0},
};
const int n_damages = ARRAY_SIZE(damages);

struct check_args {
	struct cutfile *m;
	unsigned fix;
	struct qcow2_check *res;
	struct why why;
};

static int check_fiber(void *arg)
{
	struct check_args *a = arg;

	return qcow2_check(&a->m->file, a->fix, a->res, &a->why);
}

static void collect(void *arg, const char *line)
{
	struct lines *l = arg;

	l->used += (size_t)snprintf(l->text + l->used, sizeof(l->text) - l->used, "%s\n", line);
	if (l->used >= sizeof(l->text))
		l->used = sizeof(l->text) - 1;
}

int check_run(struct cutfile *m, unsigned fix, struct qcow2_check *res, struct lines *lines)
{
	struct check_args a = {.m = m, .fix = fix, .res = res};

	*res = (struct qcow2_check){0};
	if (lines) {
		memset(lines, 0, sizeof(*lines));
		res->report = collect;
		res->report_arg = lines;
	}
	return fiber_run(m->file.loop, check_fiber, &a);
}
