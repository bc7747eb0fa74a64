/* SPDX-License-Identifier: MIT */
/*
 * create.c - a new, empty image.
 *
 *   cluster 0        header and feature name table
 *   1                refcount table (more clusters only where one cannot name every block)
 *   then             the first refcount block
 *   then             L1, all zero
 *   then             the other refcount blocks, if a big L1 made more than one necessary
 *
 * This is where qemu-img puts things, to the byte, except that it moves a refcount
 * table that has become too small behind L1 (512-byte clusters, disks of 32 GiB and
 * more), where this one is made large enough at once.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/format.h"

#define CLUSTER_DEFAULT  (64u * KiB)
#define REFCOUNT_DEFAULT 16u
/* In smaller clusters the names would crowd out what a header may have to hold. */
#define FEATURE_NAMES_CLUSTER_MIN 8192u
#define ZERO_CHUNK                (1u * MiB)

struct layout {
	struct qcow2_create_opts o; /* defaults filled in */
	uint32_t cluster_bits, refcount_order;
	uint64_t block_entries; /* counts per refcount block */
	uint64_t table_clusters, l1_entries, l1_cluster, l1_clusters;
	uint64_t next;           /* first cluster that nobody has */
	uint64_t blocks;         /* refcount blocks */
	uint64_t *block_cluster; /* where each is; 0: not placed */
};

static const struct {
	uint8_t type, bit;
	const char *name;
} feature_names[] = {
	{0, 0, "dirty bit"},
	{0, 1, "corrupt bit"},
	{0, 2, "external data file"},
	{0, 3, "compression type"},
	{0, 4, "extended L2 entries"},
	{1, 0, "lazy refcounts"},
	{2, 0, "bitmaps"},
	{2, 1, "raw external data"},
};

static struct qcow2_create_opts with_defaults(const struct qcow2_create_opts *o)
{
	struct qcow2_create_opts d = *o;

	d.cluster_size = d.cluster_size ? d.cluster_size : CLUSTER_DEFAULT;
	d.refcount_bits = d.refcount_bits ? d.refcount_bits : REFCOUNT_DEFAULT;
	d.version = d.version ? d.version : 3;
	return d;
}

int qcow2_create_check(const struct qcow2_create_opts *opts, struct why *why)
{
	struct qcow2_create_opts o = with_defaults(opts);

	if (!is_pow2(o.cluster_size) || o.cluster_size < (1u << QCOW2_CLUSTER_BITS_MIN) ||
		o.cluster_size > (1u << QCOW2_CLUSTER_BITS_MAX))
		return why_set(why, -EINVAL,
			"Cluster size must be a power of two between %u and %uk",
			1u << QCOW2_CLUSTER_BITS_MIN, (1u << QCOW2_CLUSTER_BITS_MAX) / 1024);
	if (o.version != 2 && o.version != 3)
		return why_set(why, -EINVAL, "Unsupported qcow2 version %" PRIu32, o.version);
	if (o.lazy_refcounts && o.version < 3)
		return why_set(why, -EINVAL,
			"Lazy refcounts only supported with compatibility level 1.1 and above (use "
			"version=v3 or greater)");
	if (!is_pow2(o.refcount_bits) || o.refcount_bits > 64)
		return why_set(why, -EINVAL,
			"Refcount width must be a power of two and may not exceed 64 bits");
	if (o.refcount_bits != 16 && o.version < 3)
		return why_set(why, -EINVAL,
			"Different refcount widths than 16 bits require compatibility level 1.1 or "
			"above "
			"(use version=v3 or greater)");
	if (o.size > (uint64_t)INT64_MAX - SECTOR ||
		qcow2_l1_needed(o.size, (uint32_t)__builtin_ctz(o.cluster_size)) >
			QCOW2_L1_BYTES_MAX / 8)
		return why_set(why, -EFBIG,
			"The image size is too large for file format 'qcow2' (try using a larger "
			"cluster "
			"size)");
	return 0;
}

/*
 * Gives block b a cluster, and a block to that cluster if it has none.  Bounded: each
 * level of recursion stands for a block further on.
 */
static void place_block(struct layout *l, uint64_t b)
{
	uint64_t at = l->next++;

	assert(b < l->blocks && at / l->block_entries < l->blocks);
	l->block_cluster[b] = at;
	if (!l->block_cluster[at / l->block_entries])
		place_block(l, at / l->block_entries);
}

static int plan(struct layout *l, const struct qcow2_create_opts *opts)
{
	uint64_t cs, fixed, per_table_cluster, l1_end;

	l->o = with_defaults(opts);
	l->o.size = round_up(l->o.size, SECTOR);
	cs = l->o.cluster_size;
	l->cluster_bits = (uint32_t)__builtin_ctz(l->o.cluster_size);
	l->refcount_order = (uint32_t)__builtin_ctz(l->o.refcount_bits);
	l->block_entries = cs * 8 >> l->refcount_order;
	l->l1_entries = qcow2_l1_needed(l->o.size, l->cluster_bits);
	l->l1_clusters = div_round_up(l->l1_entries * 8, cs);

	/* Blocks count themselves, and the table names them all: grow both until they fit. */
	per_table_cluster = cs / 8;
	l->table_clusters = l->blocks = 1;
	do {
		fixed = 1 + l->table_clusters + l->l1_clusters;
		while (l->blocks * l->block_entries < fixed + l->blocks)
			l->blocks++;
	} while (l->blocks > l->table_clusters * per_table_cluster && l->table_clusters++);

	l->block_cluster = calloc(l->blocks, sizeof(*l->block_cluster));
	if (!l->block_cluster)
		return -ENOMEM;
	l->next = 1 + l->table_clusters;
	place_block(l, 0);
	l->l1_cluster = l->next;
	l->next += l->l1_clusters;
	l1_end = l->next;
	for (uint64_t b = 0; b * l->block_entries < l1_end; b++)
		if (!l->block_cluster[b])
			place_block(l, b);
	return 0;
}

static void fill_header(const struct layout *l, uint8_t *buf)
{
	struct qcow2_disk_header *d = (void *)buf;
	be32_t *ext = (void *)(buf + sizeof(*d));
	uint8_t *entry = buf + sizeof(*d) + 8;

	d->magic = be32_make(QCOW2_MAGIC);
	d->version = be32_make(l->o.version);
	d->cluster_bits = be32_make(l->cluster_bits);
	d->size = be64_make(l->o.size);
	d->l1_size = be32_make((uint32_t)l->l1_entries);
	d->l1_offset = be64_make(l->l1_entries ? l->l1_cluster << l->cluster_bits : 0);
	d->reftable_offset = be64_make(1ULL << l->cluster_bits);
	d->reftable_clusters = be32_make((uint32_t)l->table_clusters);
	if (l->o.version < 3)
		return;
	d->compatible = be64_make(l->o.lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0);
	d->refcount_order = be32_make(l->refcount_order);
	d->header_length = be32_make(sizeof(*d));
	if (l->o.cluster_size < FEATURE_NAMES_CLUSTER_MIN)
		return;
	ext[0] = be32_make(QCOW2_EXT_FEATURES);
	ext[1] = be32_make(ARRAY_SIZE(feature_names) * 48);
	for (size_t i = 0; i < ARRAY_SIZE(feature_names); i++, entry += 48) {
		entry[0] = feature_names[i].type;
		entry[1] = feature_names[i].bit;
		strncpy((char *)entry + 2, feature_names[i].name, 46);
	}
}

static int write_refcounts(struct file *f, const struct layout *l, uint8_t *buf)
{
	uint64_t cs = l->o.cluster_size;
	be64_t *table = file_buf(l->table_clusters * cs);
	int err = -ENOMEM;

	if (!table)
		return err;
	for (uint64_t b = 0; b < l->blocks; b++)
		table[b] = be64_make(l->block_cluster[b] << l->cluster_bits);
	err = file_pwrite(f, table, l->table_clusters * cs, cs);
	free(table);
	for (uint64_t b = 0; !err && b < l->blocks; b++) {
		if (!l->block_cluster[b])
			continue;
		memset(buf, 0, cs);
		for (uint32_t i = 0; i < l->block_entries; i++)
			if (b * l->block_entries + i < l->next)
				qcow2_refcount_set(buf, i, l->refcount_order, 1);
		err = file_pwrite(f, buf, cs, l->block_cluster[b] << l->cluster_bits);
	}
	return err;
}

/* L1 reads as zeros: a regular file does so by its length, a block device must be told. */
static int write_l1(struct file *f, const struct layout *l)
{
	uint64_t at = l->l1_cluster << l->cluster_bits, left = l->l1_clusters << l->cluster_bits;
	uint64_t end = at + l->l1_entries * 8;
	uint8_t *zeros;
	int err = 0;

	if (!f->is_block)
		return file_size(f) < end ? file_truncate(f, end) : 0;
	zeros = file_buf(ZERO_CHUNK);
	if (!zeros)
		return -ENOMEM;
	while (left && !err) {
		uint64_t n = min_u64(left, ZERO_CHUNK);

		err = file_pwrite(f, zeros, n, at);
		at += n;
		left -= n;
	}
	free(zeros);
	return err;
}

int qcow2_create(struct file *f, const struct qcow2_create_opts *opts, struct why *why)
{
	struct layout l = {0};
	uint8_t *buf;
	int err;

	err = qcow2_create_check(opts, why);
	if (err)
		return err;
	err = plan(&l, opts);
	if (err)
		return err;
	err = -ENOMEM;
	buf = file_buf(l.o.cluster_size);
	if (!buf)
		goto free_plan;
	if (f->is_block) { /* whatever was here is no image any more */
		err = file_pwrite(f, buf, SECTOR, 0);
		if (!err)
			err = file_fdatasync(f);
		if (err)
			goto free_buf;
	}
	err = write_refcounts(f, &l, buf);
	if (err)
		goto free_buf;
	err = write_l1(f, &l);
	if (err)
		goto free_buf;
	err = file_fdatasync(f);
	if (err)
		goto free_buf;
	memset(buf, 0, l.o.cluster_size);
	fill_header(&l, buf);
	err = file_pwrite(f, buf, l.o.cluster_size, 0);
	if (err)
		goto free_buf;
	err = file_fdatasync(f);
free_buf:
	free(buf);
free_plan:
	free(l.block_cluster);
	return err;
}
