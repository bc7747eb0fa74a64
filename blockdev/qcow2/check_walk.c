/* SPDX-License-Identifier: MIT */
/*
 * check_walk.c - every L1 and L2 entry: what it refers to, and whether it makes sense.
 *
 * One walk serves twice.  The counting walk reports each damage, and where it is to be
 * repaired it leaves the reference out of the count.  The applying walk comes later,
 * when the image is marked dirty: it makes the same decisions (they depend on the entry and
 * on the file's length alone) and writes them.
 *
 * What repair does to an entry that no opener can use:
 *   L1 or L2 entry past the end of the file   dropped: unallocated, or plain zero if it said so
 *   L1 entry to the header or another table   dropped: writing there would destroy the table
 *   unaligned L1 entry                        dropped: it names no table
 *   unaligned entry of a zero cluster         dropped, zeros kept
 *   reserved bits                             cleared
 *   copied flag on a compressed cluster       cleared
 *   bitmap beside a compressed cluster        cleared
 * Stay, as findings: an unaligned entry of data (somewhere near is what a guest wrote), a bitmap
 * of subclusters that contradicts itself or its entry, a compressed cluster of an image whose data
 * is in a file of its own.
 * qemu-img 7.2 repairs only a part of these; it finds the same ones.
 */
#include <inttypes.h>
#include "blockdev/qcow2/check.h"

struct walk {
	struct chk *c;
	bool active; /* of the L1 that the guest sees: counts for the statistics */
	bool apply;
};

/* An L2 entry as it will be; bitmap: of its subclusters, 0 without them. */
struct l2_slot {
	uint64_t entry, bitmap;
};

static bool fixing(const struct walk *w)
{
	return (w->c->fix & QCOW2_FIX_ERRORS) != 0;
}

/* Announces a damage that repair mends: once, in the counting walk.  True: mend it. */
static bool mend(struct walk *w, const char **word)
{
	*word = w->apply ? NULL : chk_damage(w->c, fixing(w));
	w->c->drops |= fixing(w);
	return fixing(w);
}

/* A region as the counting walk meets it; true if the entry that names it is to be dropped. */
static int count_or_drop(struct walk *w, uint64_t off, uint64_t len, bool *drop)
{
	struct chk *c = w->c;
	uint64_t end = c->file_bytes + c->h.cluster_size;
	const char *word;

	*drop = false;
	if (fixing(w) && (off >= end || len >= end - off)) {
		if (mend(w, &word) && word)
			chk_say(c,
				"%s: counting reference for region exceeding the end of the file "
				"by one "
				"cluster or more: offset 0x%" PRIx64 " size 0x%" PRIx64,
				word, off, len);
		*drop = true;
		return 0;
	}
	return w->apply ? 0 : chk_count(c, off, len, NULL);
}

/* An entry that names no cluster any more; zeros that it promised are still promised. */
static void drop_entry(const struct walk *w, struct l2_slot *s)
{
	if (w->c->ext)
		s->bitmap &= QCOW2_SUB_ZERO;
	s->entry = w->c->ext || !(s->entry & QCOW2_OFLAG_ZERO) ? 0 : QCOW2_OFLAG_ZERO;
}

/* What makes a compressed entry none at all; true: nothing of it counts. */
static bool compressed_nonsense(struct walk *w, struct l2_slot *s, uint64_t index)
{
	struct chk *c = w->c;
	const char *word;
	bool fix;

	if (c->data_file) { /* where are its sectors? */
		if (!w->apply)
			chk_say(c,
				"%s compressed cluster %" PRIu64
				" with data file, entry=0x%" PRIx64,
				chk_damage(c, false), index, s->entry);
		return true;
	}
	if (!s->bitmap)
		return false;
	fix = mend(w, &word);
	if (word)
		chk_say(c,
			"%s compressed cluster %" PRIu64 " with non-zero subcluster allocation "
			"bitmap, entry=0x%" PRIx64,
			word, index, s->entry);
	if (fix)
		s->bitmap = 0;
	return !fix;
}

static int compressed_entry(struct walk *w, struct l2_slot *s, uint64_t index)
{
	struct chk *c = w->c;
	uint64_t off, len;
	const char *word;
	bool drop;
	int err;

	qcow2_compressed_range(s->entry, c->h.cluster_bits, &off, &len);
	if (s->entry & QCOW2_OFLAG_COPIED) {
		bool fix = mend(w, &word);

		if (word)
			chk_say(c,
				"%s: coffset=0x%" PRIx64 ": copied flag must never be set for "
				"compressed clusters",
				word, off);
		if (fix)
			s->entry &= ~QCOW2_OFLAG_COPIED;
	}
	if (compressed_nonsense(w, s, index))
		return 0;
	err = count_or_drop(w, off, len, &drop);
	if (err)
		return err;
	if (drop) {
		s->entry = 0;
	} else if (w->active && !w->apply) {
		c->res->allocated_clusters++;
		c->res->compressed_clusters++;
		c->res->fragmented_clusters++; /* by nature */
	}
	return 0;
}

static void mend_reserved(struct walk *w, struct l2_slot *s)
{
	struct chk *c = w->c;
	uint64_t reserved = QCOW2_L2_RESERVED;
	const char *word;
	bool fix;

	if (c->h.version < 3) /* the zero flag came with version 3 */
		reserved |= QCOW2_OFLAG_ZERO;
	if (!(s->entry & reserved))
		return;
	fix = mend(w, &word);
	if (word)
		chk_say(c, "%s found l2 entry with reserved bits set: %" PRIx64, word, s->entry);
	if (fix)
		s->entry &= ~reserved;
}

/* Does the entry name a cluster?  In a data file the first one has a place too. */
static bool names_cluster(const struct chk *c, uint64_t entry)
{
	return (entry & QCOW2_OFFSET_MASK) || (c->data_file && (entry & QCOW2_OFLAG_COPIED));
}

/* What the bitmap says where it cannot be so.  Nobody knows which half is wrong: not mended. */
static void judge_bitmap(struct walk *w, const struct l2_slot *s)
{
	struct chk *c = w->c;
	uint64_t off = s->entry & QCOW2_OFFSET_MASK;

	if (w->apply)
		return;
	if (!names_cluster(c, s->entry)) {
		if (s->bitmap & QCOW2_SUB_ALLOC)
			chk_say(c,
				"%s: Unallocated cluster has non-zero subcluster allocation map",
				chk_damage(c, false));
	} else if (s->bitmap >> 32 & s->bitmap) {
		chk_say(c,
			"%s offset=%" PRIx64
			": Allocated cluster has corrupted subcluster allocation bitmap",
			chk_damage(c, false), off);
	}
}

static int standard_entry(struct walk *w, struct l2_slot *s, uint64_t *next_off)
{
	struct chk *c = w->c;
	bool data, drop = false;
	const char *word;
	uint64_t off;
	int err;

	mend_reserved(w, s);
	judge_bitmap(w, s);
	if (!names_cluster(c, s->entry))
		return 0;
	off = s->entry & QCOW2_OFFSET_MASK;
	data = c->ext ? s->bitmap & QCOW2_SUB_ALLOC
		      : !(s->entry & QCOW2_OFLAG_ZERO) || c->h.version < 3;
	if (off % c->h.cluster_size) {
		drop = !data && mend(w, &word);
		if (data)
			word = w->apply ? NULL : chk_damage(c, false);
		if (word)
			chk_say(c,
				"%s offset=%" PRIx64
				": %s cluster is not properly aligned; L2 entry "
				"corrupted.",
				word, off, data ? "Data" : "Preallocated");
	}
	if (!drop && !c->data_file) {
		err = count_or_drop(w, off, c->h.cluster_size, &drop);
		if (err)
			return err;
	}
	if (drop) {
		drop_entry(w, s);
	} else if (w->active && !w->apply) {
		c->res->allocated_clusters++;
		if (*next_off && off != *next_off)
			c->res->fragmented_clusters++;
		*next_off = off + c->h.cluster_size;
	}
	return 0;
}

static int one_slot(struct walk *w, struct table_buf *t, uint64_t i, uint64_t *next_off)
{
	uint64_t at = w->c->ext ? 2 * i : i;
	struct l2_slot old = {.entry = be64_get(t->entry[at])}, s;
	int err;

	if (w->c->ext)
		old.bitmap = be64_get(t->entry[at + 1]);
	if (!old.entry && !old.bitmap)
		return 0;
	s = old;
	if (s.entry & QCOW2_OFLAG_COMPRESSED)
		err = compressed_entry(w, &s, i);
	else
		err = standard_entry(w, &s, next_off);
	if (s.entry != old.entry && w->apply)
		table_set(t, at, s.entry);
	if (s.bitmap != old.bitmap && w->apply)
		table_set(t, at + 1, s.bitmap);
	return err;
}

static int walk_l2(struct walk *w, uint64_t l2_off)
{
	struct chk *c = w->c;
	uint64_t n = qcow2_l2_entries(&c->h), next_off = 0;
	struct table_buf t;
	int err;

	/* Several L1 entries may share a table, but not more than snapshots explain. */
	if (c->l2_walks++ > (c->clusters + 1) * 2 * (1 + c->snaps.n))
		return why_set(
			c->why, -EFBIG, "L1 tables refer to more L2 tables than the file can hold");
	err = table_read(c, l2_off, c->h.cluster_size / 8, &t);
	if (err)
		return err;
	for (uint64_t i = 0; i < n && !err; i++)
		err = one_slot(w, &t, i, &next_off);
	if (!err && w->apply)
		err = table_write_back(c, &t);
	table_free(&t);
	return err;
}

static int l1_entry(struct walk *w, uint64_t *entry)
{
	struct chk *c = w->c;
	uint64_t off = *entry & QCOW2_OFFSET_MASK;
	const char *word;
	bool drop = false;
	int err;

	if (*entry & QCOW2_L1_RESERVED) {
		bool fix = mend(w, &word);

		if (word)
			chk_say(c, "%s found L1 entry with reserved bits set: %" PRIx64, word,
				*entry);
		if (fix)
			*entry &= ~QCOW2_L1_RESERVED;
	}
	if (!off)
		return 0;
	if (fixing(w) && off % c->h.cluster_size == 0 &&
		refs_is_table(c->refs, off >> c->h.cluster_bits)) {
		drop = mend(w, &word);
		if (word)
			chk_say(c, "%s l2_offset=%" PRIx64 ": not an L2 table; L1 entry corrupted",
				word, off);
	} else if (fixing(w) && off % c->h.cluster_size) {
		drop = true; /* said below */
	} else {
		err = count_or_drop(w, off, c->h.cluster_size, &drop);
		if (err)
			return err;
	}
	if (off % c->h.cluster_size) {
		mend(w, &word);
		if (word)
			chk_say(c,
				"%s l2_offset=%" PRIx64 ": Table is not cluster aligned; L1 entry "
				"corrupted",
				word, off);
	}
	if (drop) {
		*entry = 0;
		return 0;
	}
	return walk_l2(w, off);
}

int walk_l1(struct chk *c, uint64_t l1_off, uint32_t l1_size, bool active, bool apply)
{
	struct walk w = {.c = c, .active = active, .apply = apply};
	struct table_buf t;
	bool outside;
	int err;

	if (!l1_size)
		return 0;
	if (!apply) {
		err = chk_count(c, l1_off, l1_size * 8ULL, &outside);
		if (err)
			return err;
		c->l1_lost |= outside;
	}
	err = table_read(c, l1_off, l1_size, &t);
	if (err)
		return err;
	for (uint64_t i = 0; i < l1_size && !err; i++) {
		uint64_t old = be64_get(t.entry[i]), entry = old;

		if (!entry)
			continue;
		err = l1_entry(&w, &entry);
		if (entry != old && apply)
			table_set(&t, i, entry);
	}
	if (!err && apply)
		err = table_write_back(c, &t);
	table_free(&t);
	return err;
}

/* A flag that does not say what the count says; how the line about it begins. */
static const char *wrong_flag(struct chk *c, uint64_t entry, bool repair)
{
	if (!repair && !(entry & QCOW2_OFLAG_COPIED))
		c->res->missing_flags++;
	return chk_damage(c, repair);
}

/*
 * Does the flag say what the count says?  A cluster of a data file has one user.  Counts that
 * cannot be read contradict nobody.
 */
static bool copied_ok(struct chk *c, uint64_t entry, bool in_data_file, uint64_t *count)
{
	uint64_t cluster = (entry & QCOW2_OFFSET_MASK) >> c->h.cluster_bits;

	*count = in_data_file ? 1 : refs_count(c->refs, cluster);
	return (*count == 1) == ((entry & QCOW2_OFLAG_COPIED) != 0) ||
	       (!in_data_file && compare_unreadable(c, cluster));
}

static int copied_l2(struct chk *c, uint64_t l2_off, bool repair)
{
	uint64_t step = c->ext ? 2 : 1, n = qcow2_l2_entries(&c->h) * step, count;
	struct table_buf t;
	int err = table_read(c, l2_off, c->h.cluster_size / 8, &t);

	if (err)
		return err;
	for (uint64_t i = 0; i < n; i += step) {
		uint64_t entry = be64_get(t.entry[i]);

		if ((entry & QCOW2_OFLAG_COMPRESSED) || !names_cluster(c, entry) ||
			copied_ok(c, entry, c->data_file, &count))
			continue;
		chk_say(c, "%s OFLAG_COPIED data cluster: l2_entry=%" PRIx64 " refcount=%" PRIu64,
			wrong_flag(c, entry, repair), entry, count);
		if (repair)
			table_set(&t, i, entry ^ QCOW2_OFLAG_COPIED);
	}
	err = table_write_back(c, &t);
	table_free(&t);
	return err;
}

int walk_copied(struct chk *c, bool repair)
{
	struct table_buf t;
	uint64_t count;
	int err = table_read(c, c->h.l1_offset, c->h.l1_size, &t);

	for (uint64_t i = 0; i < c->h.l1_size && !err; i++) {
		uint64_t entry = be64_get(t.entry[i]);

		if (!(entry & QCOW2_OFFSET_MASK))
			continue;
		if (!copied_ok(c, entry, false, &count)) {
			chk_say(c,
				"%s OFLAG_COPIED L2 cluster: l1_index=%" PRIu64 " l1_entry=%" PRIx64
				" refcount=%" PRIu64,
				wrong_flag(c, entry, repair), i, entry, count);
			if (repair)
				table_set(&t, i, entry ^ QCOW2_OFLAG_COPIED);
		}
		err = copied_l2(c, entry & QCOW2_OFFSET_MASK, repair);
	}
	if (!err)
		err = table_write_back(c, &t);
	table_free(&t);
	return err;
}
