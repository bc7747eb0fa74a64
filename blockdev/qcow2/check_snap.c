/* SPDX-License-Identifier: MIT */
/*
 * check_snap.c - the snapshot table: reading one that may be broken, counting what it
 * refers to, and writing it anew.
 *
 * More snapshots than a program will load: the header gets a smaller number, before anything
 * else, so that what only they used is a leak like any other.
 *
 * More extra data than a program will keep, or (version 3) less than the specification wants:
 * the table is written anew, behind everything that is referenced, and one write of the header's
 * sector switches to it; the old one's clusters are free after that.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/check.h"

#define NAME_SHOWN  128 /* bytes of a snapshot's name in a message */
#define EXTRA_KNOWN 24  /* those that have a meaning */
#define EXTRA_V3    16  /* those that version 3 must have */
#define STRINGS_MAX (2u * UINT16_MAX)
#define WRITE_BYTES (1u * MiB)

/* The extra data that we know, as a snapshot without any has it. */
struct known_extra {
	be64_t vm_state_bytes, disk_size, icount;
};
static_assert(sizeof(struct known_extra) == EXTRA_KNOWN, "qcow2 spec: snapshot extra data");

static uint64_t snap_bytes(const struct snap *s, uint32_t extra)
{
	return sizeof(struct qcow2_disk_snapshot) + extra + s->id_bytes + s->name_bytes;
}

static bool fixing(const struct chk *c)
{
	return (c->fix & QCOW2_FIX_ERRORS) != 0;
}

static int read_entry(struct chk *c, uint64_t at, uint32_t i, struct snap *s)
{
	struct qcow2_disk_snapshot d;
	int err = file_pread(c->file, &d, sizeof(d), at);

	if (err) {
		chk_error(c,
			"ERROR failed to read the snapshot table: "
			"Failed to read snapshot table: %s",
			strerror(-err));
		return err;
	}
	*s = (struct snap){.at = at,
		.l1_off = be64_get(d.l1_offset),
		.l1_size = be32_get(d.l1_size),
		.extra = be32_get(d.extra_bytes),
		.extra_kept = be32_get(d.extra_bytes),
		.id_bytes = be16_get(d.id_bytes),
		.name_bytes = be16_get(d.name_bytes)};
	if (s->extra <= QCOW2_SNAPSHOT_EXTRA_MAX)
		return 0;
	if (!fixing(c)) {
		chk_error(c,
			"ERROR failed to read the snapshot table: Too much extra metadata in "
			"snapshot table entry %" PRIu32,
			i);
		chk_say(c, "You can force-remove this extra metadata with qemu-img check -r all");
		return -EFBIG;
	}
	chk_say(c,
		"Discarding too much extra metadata in snapshot table entry %" PRIu32 " (%" PRIu32
		" > %u)",
		i, s->extra, QCOW2_SNAPSHOT_EXTRA_MAX);
	c->snaps.corruptions++;
	s->extra_kept = QCOW2_SNAPSHOT_EXTRA_MAX;
	return 0;
}

/* Entries i.. do not fit. */
static int too_long(struct chk *c, uint32_t left)
{
	if (!fixing(c)) {
		chk_error(c, "ERROR failed to read the snapshot table: Snapshot table is too big");
		chk_say(c,
			"You can force-remove all %" PRIu32
			" overhanging snapshots with qemu-img check -r all",
			left);
		return -EFBIG;
	}
	chk_say(c, "Discarding %" PRIu32 " overhanging snapshots (snapshot table is too big)",
		left);
	c->snaps.over += left;
	return 0;
}

static int read_entries(struct chk *c, uint32_t n)
{
	uint64_t start = c->h.snapshots_offset, at = start, kept = 0;
	struct snaps *t = &c->snaps;

	t->file_bytes = c->file_bytes;
	t->s = calloc((size_t)n + 1, sizeof(*t->s));
	if (!t->s)
		return -ENOMEM;
	while (t->n < n) {
		struct snap *s = &t->s[t->n];
		uint64_t end;
		int err;

		at = round_up(at, 8);
		err = read_entry(c, at, t->n, s);
		if (err)
			return err;
		end = at + snap_bytes(s, s->extra);
		kept = round_up(kept, 8) + snap_bytes(s, s->extra_kept);
		if (kept > QCOW2_SNAPSHOTS_BYTES_MAX || end - start > INT32_MAX)
			return too_long(c, n - t->n);
		t->bytes = end - start;
		at = end;
		t->n++;
	}
	return 0;
}

static int forget_over(struct chk *c)
{
	int err;

	c->h.nb_snapshots = c->snaps.n;
	err = qcow2_header_write(c->file, &c->h);
	if (!err)
		err = file_fdatasync(c->file);
	if (!err)
		c->res->corruptions_fixed += c->snaps.over;
	return err;
}

int snaps_read(struct chk *c)
{
	uint32_t n = c->h.nb_snapshots;
	int err;

	if (n > QCOW2_SNAPSHOTS_MAX) {
		uint32_t over = n - QCOW2_SNAPSHOTS_MAX;

		if (!fixing(c)) {
			chk_error(c, "ERROR snapshot table too large");
			chk_say(c,
				"You can force-remove all %" PRIu32
				" overhanging snapshots with qemu-img check -r all",
				over);
			return -EFBIG;
		}
		chk_say(c, "Discarding %" PRIu32 " overhanging snapshots", over);
		c->snaps.over = over;
		n = QCOW2_SNAPSHOTS_MAX;
	}
	if (n && (c->h.snapshots_offset % c->h.cluster_size ||
			 c->h.snapshots_offset > (uint64_t)INT64_MAX - QCOW2_SNAPSHOTS_BYTES_MAX)) {
		chk_error(c, "ERROR snapshot table offset invalid");
		return -EINVAL;
	}
	err = n ? read_entries(c, n) : 0;
	if (!err && c->snaps.over)
		err = forget_over(c);
	for (uint32_t i = 0; i < c->snaps.n && !err && c->h.version >= 3; i++) {
		if (c->snaps.s[i].extra_kept >= EXTRA_V3)
			continue;
		chk_say(c, "%s snapshot table entry %" PRIu32 " is incomplete",
			fixing(c) ? "Repairing" : "ERROR", i);
		c->snaps.corruptions++;
	}
	return err;
}

static bool l1_usable(const struct chk *c, const struct snap *s)
{
	return s->l1_off % c->h.cluster_size == 0 && s->l1_size <= QCOW2_L1_BYTES_MAX / 8;
}

int snaps_mark(struct chk *c)
{
	int err = chk_mark_tables(c, c->h.snapshots_offset, c->snaps.bytes);

	for (uint32_t i = 0; i < c->snaps.n && !err; i++) {
		const struct snap *s = &c->snaps.s[i];

		if (l1_usable(c, s))
			err = chk_mark_tables(c, s->l1_off, s->l1_size * 8ULL);
	}
	return err;
}

/* At most NAME_SHOWN bytes of a string, fit for a terminal. */
static int read_name(struct chk *c, uint64_t off, uint32_t bytes, char *out)
{
	uint32_t n = bytes < NAME_SHOWN ? bytes : NAME_SHOWN;
	int err = file_pread(c->file, out, n, off);

	out[n] = 0;
	for (uint32_t i = 0; i < n && !err; i++)
		if (out[i] < ' ' || out[i] > '~')
			out[i] = '?';
	return err;
}

static int say_l1(struct chk *c, const struct snap *s)
{
	uint64_t strings = s->at + sizeof(struct qcow2_disk_snapshot) + s->extra;
	char id[NAME_SHOWN + 1], name[NAME_SHOWN + 1];
	int err = read_name(c, strings, s->id_bytes, id);

	if (!err)
		err = read_name(c, strings + s->id_bytes, s->name_bytes, name);
	if (err)
		return err;
	if (s->l1_off % c->h.cluster_size)
		chk_say(c,
			"%s snapshot %s (%s) l1_offset=%#" PRIx64
			": L1 table is not cluster aligned; "
			"snapshot table entry corrupted",
			chk_damage(c, false), id, name, s->l1_off);
	else
		chk_say(c,
			"%s snapshot %s (%s) l1_size=%#" PRIx32 ": L1 table is too large; snapshot "
			"table entry corrupted",
			chk_damage(c, false), id, name, s->l1_size);
	return 0;
}

static int walk_all(struct chk *c, bool apply)
{
	int err = 0;

	for (uint32_t i = 0; i < c->snaps.n && !err; i++) {
		const struct snap *s = &c->snaps.s[i];

		if (l1_usable(c, s))
			err = walk_l1(c, s->l1_off, s->l1_size, false, apply);
		else if (!apply)
			err = say_l1(c, s);
	}
	return err;
}

int snaps_count(struct chk *c)
{
	bool outside = false;
	int err;

	if (c->data_file && c->snaps.n)
		chk_say(c, "%s %" PRIu32 " snapshots in image with data file", chk_damage(c, false),
			c->snaps.n);
	err = walk_all(c, false);
	if (!err)
		err = chk_count(c, c->h.snapshots_offset, c->snaps.bytes, &outside);
	c->snaps.counted = !outside;
	if (!err && c->snaps.new_clusters)
		err = chk_count(c, c->snaps.new_first << c->h.cluster_bits,
			c->snaps.new_clusters << c->h.cluster_bits, NULL);
	return err;
}

int snaps_apply(struct chk *c)
{
	return walk_all(c, true);
}

/* The new table on its way to the file, a piece at a time. */
struct table_out {
	struct chk *c;
	uint8_t *buf;
	uint64_t used, at; /* at: where buf goes */
};

static int out_flush(struct table_out *o)
{
	int err = file_pwrite(o->c->file, o->buf, o->used, o->at);

	o->at += o->used;
	o->used = 0;
	return err;
}

static uint32_t new_extra(const struct snap *s)
{
	return s->extra_kept > EXTRA_KNOWN ? s->extra_kept : EXTRA_KNOWN;
}

/* From the old table: what lay past the end of the file was zeros, whatever is there by now. */
static int read_old(struct chk *c, void *buf, uint64_t len, uint64_t off)
{
	uint64_t end = c->snaps.file_bytes, n = off < end ? min_u64(len, end - off) : 0;

	memset((uint8_t *)buf + n, 0, len - n);
	return n ? file_pread(c->file, buf, n, off) : 0;
}

static int out_entry(struct table_out *o, const struct snap *s)
{
	struct qcow2_disk_snapshot *d = (void *)(o->buf + o->used);
	uint8_t *extra = (uint8_t *)(d + 1), *strings = extra + new_extra(s);
	struct known_extra known = {.icount = be64_make(UINT64_MAX)};
	uint64_t next = round_up(o->used + snap_bytes(s, new_extra(s)), 8);
	int err;

	memset(d, 0, next - o->used);
	err = read_old(o->c, d, sizeof(*d), s->at);
	if (err)
		return err;
	known.vm_state_bytes = be64_make(be32_get(d->vm_state_bytes));
	known.disk_size = be64_make(o->c->h.size);
	memcpy(extra, &known, sizeof(known));
	d->extra_bytes = be32_make(new_extra(s));
	err = read_old(o->c, extra, s->extra_kept, s->at + sizeof(*d));
	if (!err)
		err = read_old(o->c, strings, (uint64_t)s->id_bytes + s->name_bytes,
			s->at + sizeof(*d) + s->extra);
	o->used = next;
	return err;
}

static int write_table(struct chk *c)
{
	struct table_out o = {.c = c, .at = c->snaps.new_first << c->h.cluster_bits};
	uint64_t room =
		sizeof(struct qcow2_disk_snapshot) + QCOW2_SNAPSHOT_EXTRA_MAX + STRINGS_MAX + 8;
	int err = 0;

	o.buf = file_buf(WRITE_BYTES);
	if (!o.buf)
		return -ENOMEM;
	for (uint32_t i = 0; i < c->snaps.n && !err; i++) {
		if (WRITE_BYTES - o.used < room)
			err = out_flush(&o);
		if (!err)
			err = out_entry(&o, &c->snaps.s[i]);
	}
	if (!err)
		err = out_flush(&o);
	free(o.buf);
	return err ? err : file_fdatasync(c->file);
}

/* Counts for the clusters of the new table, on disk. */
static int take_clusters(struct chk *c)
{
	struct snaps *t = &c->snaps;
	bool covered = true;
	int err = 0;

	for (uint64_t i = 0; i < t->new_clusters && !err; i++) {
		covered &= repair_has_block(c, t->new_first + i);
		err = refs_set(c->refs, t->new_first + i, 1);
	}
	c->clusters = max_u64(c->clusters, t->new_first + t->new_clusters);
	if (err)
		return err;
	return covered ? repair_in_place(c) : repair_rebuild(c);
}

static int release_old(struct chk *c)
{
	uint64_t first = c->h.snapshots_offset >> c->h.cluster_bits;
	uint64_t n = c->snaps.counted ? div_round_up(c->snaps.bytes, c->h.cluster_size) : 0;
	int err = 0;

	for (uint64_t i = first; i < first + n && !err; i++) {
		uint64_t count = refs_get(c->refs, i);

		c->again |= count > 1; /* flags were set by that count */
		err = refs_set(c->refs, i, count - (count != 0));
	}
	return err;
}

static int rewrite(struct chk *c)
{
	struct snaps *t = &c->snaps;
	uint64_t bytes = 0;
	int err;

	for (uint32_t i = 0; i < t->n; i++)
		bytes = round_up(bytes, 8) + snap_bytes(&t->s[i], new_extra(&t->s[i]));
	if (bytes > QCOW2_SNAPSHOTS_BYTES_MAX)
		return -EFBIG;
	/* A table that reaches past the end was not counted, but is still read. */
	t->new_first = max_u64(repair_first_free(c),
		div_round_up(min_u64(c->h.snapshots_offset + t->bytes, t->file_bytes),
			c->h.cluster_size));
	t->new_clusters = div_round_up(bytes, c->h.cluster_size);
	err = take_clusters(c);
	if (!err && t->n)
		err = write_table(c);
	if (!err)
		err = release_old(c);
	if (err)
		return err;
	c->h.snapshots_offset = t->n ? t->new_first << c->h.cluster_bits : 0;
	c->h.nb_snapshots = t->n;
	err = qcow2_header_write(c->file, &c->h);
	if (!err)
		err = file_fdatasync(c->file);
	return err ? err : repair_in_place(c);
}

int snaps_fix(struct chk *c)
{
	void (*report)(void *, const char *) = c->res->report;
	struct qcow2_check saved = *c->res;
	struct snaps *t = &c->snaps;
	int err;

	if (!t->corruptions || !(c->asked & QCOW2_FIX_ERRORS)) {
		c->res->corruptions += t->corruptions;
		return 0;
	}
	c->res->report = NULL; /* counts that are made right on the way are no finding */
	err = rewrite(c);
	*c->res = saved;
	c->res->report = report;
	if (err) {
		chk_error(c, "ERROR failed to update snapshot table: %s", strerror(-err));
		c->res->check_errors++;
		return err;
	}
	c->res->corruptions_fixed += t->corruptions;
	return 0;
}
