/* SPDX-License-Identifier: MIT */
/*
 * create.c - a new, empty image.
 *
 *   cluster 0        header and feature name table
 *   1                refcount table (more clusters only where one cannot name every block)
 *   then             the first refcount block
 *   then             L1, all zero
 *   then             with preallocation: L2 tables and data (see table_at())
 *   then             the other refcount blocks, if all this made more than one necessary
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

struct layout {
	struct qcow2_create_opts o; /* defaults filled in */
	uint32_t cluster_bits, refcount_order;
	uint64_t block_entries; /* counts per refcount block */
	uint32_t l2_entries;    /* guest clusters per L2 table */
	uint64_t table_clusters, l1_entries, l1_cluster, l1_clusters;
	uint64_t guest_clusters; /* mapped from the start: 0 without preallocation */
	uint64_t l2_cluster;     /* the first L2 table's */
	uint64_t next;           /* first cluster that nobody has */
	uint64_t blocks;         /* refcount blocks */
	uint64_t *block_cluster; /* where each is; 0: not placed */
};

static struct qcow2_create_opts with_defaults(const struct qcow2_create_opts *o)
{
	struct qcow2_create_opts d = *o;

	d.cluster_size = d.cluster_size ? d.cluster_size : CLUSTER_DEFAULT;
	d.refcount_bits = d.refcount_bits ? d.refcount_bits : REFCOUNT_DEFAULT;
	d.version = d.version ? d.version : 3;
	/* A raw data file holds every cluster at its own offset, so all of them are mapped. */
	if (d.data_file_raw && d.prealloc == PREALLOC_OFF)
		d.prealloc = PREALLOC_METADATA;
	return d;
}

/* What version 2 does not know. */
static int check_version(const struct qcow2_create_opts *o, struct why *why)
{
	const char *what = NULL;

	if (o->version != 2 && o->version != 3)
		return why_set(why, -EINVAL, "Unsupported qcow2 version %" PRIu32, o->version);
	if (o->version >= 3)
		return 0;
	if (o->extended_l2)
		what = "Extended L2 entries are only";
	else if (o->lazy_refcounts)
		what = "Lazy refcounts only";
	if (what)
		return why_set(why, -EINVAL,
			"%s supported with compatibility level 1.1 and above (use version=v3 or "
			"greater)",
			what);
	if (o->refcount_bits != REFCOUNT_DEFAULT)
		return why_set(why, -EINVAL,
			"Different refcount widths than 16 bits require compatibility level 1.1 or "
			"above (use version=v3 or greater)");
	if (o->data_file)
		what = "External data files are only";
	else if (o->zstd)
		what = "Non-zlib compression type is only";
	if (what)
		return why_set(why, -EINVAL,
			"%s supported with compatibility level 1.1 and above (use version=v3 or "
			"greater)",
			what);
	return 0;
}

/* The names that an image carries, and what goes with them. */
static int check_names(const struct qcow2_create_opts *o, struct why *why)
{
	if (o->backing_file && o->prealloc != PREALLOC_OFF && !o->extended_l2 &&
		!o->data_file_raw)
		return why_set(why, -EINVAL,
			"Backing file and preallocation can only be used at the same time if "
			"extended_l2 is on");
	if (o->backing_format && !o->backing_file)
		return why_set(
			why, -EINVAL, "Backing format cannot be used without backing file");
	if (o->data_file_raw && !o->data_file)
		return why_set(why, -EINVAL, "data-file-raw requires data-file");
	if (o->data_file_raw && o->backing_file)
		return why_set(why, -EINVAL,
			"Backing file and data-file-raw cannot be used at the same time");
	if ((o->backing_file && strlen(o->backing_file) > QCOW2_BACKING_MAX) ||
		(o->backing_format && strlen(o->backing_format) > QCOW2_BACKING_FORMAT_MAX))
		return why_set(why, -EINVAL,
			"Could not assign backing file '%.900s' with format '%.100s'",
			o->backing_file, o->backing_format ? o->backing_format : "");
	if (o->data_file && strlen(o->data_file) > QCOW2_BACKING_MAX)
		return why_set(why, -EINVAL, "The name of the data file is too long");
	return 0;
}

static uint64_t l1_entries(const struct qcow2_create_opts *o)
{
	uint64_t covers = (uint64_t)o->cluster_size * (o->cluster_size / (o->extended_l2 ? 16 : 8));

	return o->size / covers + (o->size % covers != 0);
}

int qcow2_create_check(const struct qcow2_create_opts *opts, struct why *why)
{
	struct qcow2_create_opts o = with_defaults(opts);
	int err;

	if (!is_pow2(o.cluster_size) || o.cluster_size < (1u << QCOW2_CLUSTER_BITS_MIN) ||
		o.cluster_size > (1u << QCOW2_CLUSTER_BITS_MAX))
		return why_set(why, -EINVAL,
			"Cluster size must be a power of two between %u and %uk",
			1u << QCOW2_CLUSTER_BITS_MIN, (1u << QCOW2_CLUSTER_BITS_MAX) / 1024);
	if (o.extended_l2 && o.version >= 3 && o.cluster_size < QCOW2_EXTL2_CLUSTER_MIN)
		return why_set(why, -EINVAL,
			"Extended L2 entries are only supported with cluster sizes of at least %u "
			"bytes",
			QCOW2_EXTL2_CLUSTER_MIN);
	if (!is_pow2(o.refcount_bits) || o.refcount_bits > 64)
		return why_set(why, -EINVAL,
			"Refcount width must be a power of two and may not exceed 64 bits");
	err = check_version(&o, why);
	if (!err)
		err = check_names(&o, why);
	if (err)
		return err;
	if (o.size > (uint64_t)INT64_MAX - SECTOR || l1_entries(&o) > QCOW2_L1_BYTES_MAX / 8)
		return why_set(why, -EFBIG,
			"The image size is too large for file format 'qcow2' (try using a larger "
			"cluster size)");
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

/* Does the image file hold the guest's clusters? */
static bool data_inside(const struct layout *l)
{
	return l->guest_clusters && !l->o.data_file;
}

/*
 * Where L2 tables and data go: with data not yet there each table stands before the clusters that
 * it maps; with room reserved for the data all of that is one piece.
 */
static uint64_t table_at(const struct layout *l, uint64_t t)
{
	if (data_inside(l) && l->o.prealloc == PREALLOC_METADATA)
		return l->l2_cluster + t * (1 + (uint64_t)l->l2_entries);
	return l->l2_cluster + t;
}

/* Host offset of guest cluster i of table t, in the image or in the data file. */
static uint64_t data_at(const struct layout *l, uint64_t t, uint32_t i)
{
	uint64_t guest = t * l->l2_entries + i;

	if (l->o.data_file)
		return guest << l->cluster_bits;
	if (l->o.prealloc == PREALLOC_METADATA)
		return (table_at(l, t) + 1 + i) << l->cluster_bits;
	return (l->l2_cluster + l->l1_entries + guest) << l->cluster_bits;
}

/* Fills in the sizes; where things go comes after. */
static void measure(struct layout *l, const struct qcow2_create_opts *opts)
{
	uint64_t cs;

	l->o = with_defaults(opts);
	l->o.size = round_up(l->o.size, SECTOR);
	cs = l->o.cluster_size;
	l->cluster_bits = (uint32_t)__builtin_ctz(l->o.cluster_size);
	l->refcount_order = (uint32_t)__builtin_ctz(l->o.refcount_bits);
	l->block_entries = cs * 8 >> l->refcount_order;
	l->l2_entries = l->o.cluster_size / (l->o.extended_l2 ? 16 : 8);
	l->l1_entries = l1_entries(&l->o);
	l->l1_clusters = div_round_up(l->l1_entries * 8, cs);
	if (l->o.prealloc != PREALLOC_OFF)
		l->guest_clusters = div_round_up(l->o.size, cs);
}

static int plan(struct layout *l, struct why *why)
{
	uint64_t fixed, per_table_cluster = l->o.cluster_size / 8, used;

	/* Blocks count themselves, and the table names them all: grow both until they fit. */
	l->table_clusters = l->blocks = 1;
	do {
		fixed = 1 + l->table_clusters + l->l1_clusters;
		if (l->guest_clusters)
			fixed += l->l1_entries;
		if (data_inside(l))
			fixed += l->guest_clusters;
		l->blocks = max_u64(l->blocks, fixed / l->block_entries);
		while (l->blocks * l->block_entries < fixed + l->blocks)
			l->blocks++;
	} while (l->blocks > l->table_clusters * per_table_cluster && l->table_clusters++);
	if (l->table_clusters * l->o.cluster_size > QCOW2_REFTABLE_BYTES_MAX)
		return why_set(why, -EFBIG, "The image size is too large to be preallocated (try "
					    "using a larger cluster size)");

	l->block_cluster = calloc(l->blocks, sizeof(*l->block_cluster));
	if (!l->block_cluster)
		return -ENOMEM;
	l->next = 1 + l->table_clusters;
	place_block(l, 0);
	l->l1_cluster = l->next;
	l->next += l->l1_clusters;
	l->l2_cluster = l->next;
	if (l->guest_clusters)
		l->next += l->l1_entries + (data_inside(l) ? l->guest_clusters : 0);
	used = l->next;
	for (uint64_t b = 0; b * l->block_entries < used; b++)
		if (!l->block_cluster[b])
			place_block(l, b);
	return 0;
}

static int fill_header(const struct layout *l, uint8_t *buf, struct why *why)
{
	const struct qcow2_create_opts *o = &l->o;
	struct qcow2_header h = {.version = o->version,
		.cluster_bits = l->cluster_bits,
		.cluster_size = o->cluster_size,
		.size = o->size,
		.l1_size = (uint32_t)l->l1_entries,
		.l1_offset = l->l1_entries ? l->l1_cluster << l->cluster_bits : 0,
		.reftable_offset = 1ULL << l->cluster_bits,
		.reftable_clusters = (uint32_t)l->table_clusters,
		.refcount_order = l->refcount_order,
		.compression_type = o->zstd};

	h.compatible = o->lazy_refcounts ? QCOW2_COMPAT_LAZY_REFCOUNTS : 0;
	h.incompatible = (o->zstd ? QCOW2_INCOMPAT_COMPRESSION : 0) |
			 (o->extended_l2 ? QCOW2_INCOMPAT_EXTL2 : 0) |
			 (o->data_file ? QCOW2_INCOMPAT_DATA_FILE : 0);
	h.autoclear = o->data_file_raw ? QCOW2_AUTOCLEAR_DATA_RAW : 0;
	/* Their lengths were looked at: check_names(). */
	if (o->backing_file)
		memcpy(h.backing_file, o->backing_file, strlen(o->backing_file));
	if (o->backing_format)
		memcpy(h.backing_format, o->backing_format, strlen(o->backing_format));
	if (o->data_file)
		memcpy(h.data_file, o->data_file, strlen(o->data_file));
	return qcow2_header_build(&h, NULL, buf, why);
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

static int write_l1(struct file *f, const struct layout *l)
{
	uint64_t all = l->l1_clusters << l->cluster_bits;
	uint64_t bytes = f->is_block ? all : round_up(l->l1_entries * 8, SECTOR);
	be64_t *table = file_buf(all);
	int err;

	if (!table)
		return -ENOMEM;
	for (uint64_t t = 0; l->guest_clusters && t < l->l1_entries; t++)
		table[t] = be64_make(
			(table_at(l, t) << l->cluster_bits) | QCOW2_OFLAG_COPIED);
	err = file_pwrite(f, table, bytes, l->l1_cluster << l->cluster_bits);
	free(table);
	return err;
}

/* An empty L1 reads as zeros: a regular file does so by its length, a device must be told. */
static int place_l1(struct file *f, const struct layout *l)
{
	uint64_t end = (l->l1_cluster << l->cluster_bits) + l->l1_entries * 8;

	if (f->is_block || l->guest_clusters)
		return l->l1_clusters ? write_l1(f, l) : 0;
	return file_size(f) < end ? file_truncate(f, end) : 0;
}

static int write_l2(struct file *f, const struct layout *l, uint8_t *buf)
{
	be64_t *e = (void *)buf;
	uint32_t step = l->o.extended_l2 ? 2 : 1;
	uint64_t left = l->guest_clusters;
	int err = 0;

	for (uint64_t t = 0; left && !err; t++) {
		uint32_t n = (uint32_t)min_u64(left, l->l2_entries);

		memset(buf, 0, l->o.cluster_size);
		/* Subclusters have their place, and show what is below until they are written. */
		for (uint32_t i = 0; i < n; i++)
			e[i * step] = be64_make(data_at(l, t, i) | QCOW2_OFLAG_COPIED);
		err = file_pwrite(f, buf, l->o.cluster_size, table_at(l, t) << l->cluster_bits);
		left -= n;
	}
	return err;
}

/* The guest's clusters: on a device they must be zeroed in any case. */
static int place_data(struct file *f, const struct layout *l)
{
	uint64_t end = l->next << l->cluster_bits;
	uint64_t bytes = l->guest_clusters << l->cluster_bits;
	int err;

	if (!data_inside(l))
		return 0;
	if (f->is_block && l->o.prealloc == PREALLOC_METADATA)
		return -ENOTSUP;
	err = file_size(f) < end ? file_truncate(f, end) : 0;
	if (err || l->o.prealloc == PREALLOC_METADATA)
		return err;
	return file_preallocate(
		f, data_at(l, 0, 0), bytes, f->is_block ? PREALLOC_FULL : l->o.prealloc);
}

/* All but the header, durable. */
static int write_body(struct file *f, const struct layout *l, uint8_t *buf)
{
	int err = 0;

	if (f->is_block) { /* whatever was here is no image any more */
		err = file_pwrite(f, buf, SECTOR, 0);
		if (!err)
			err = file_fdatasync(f);
	}
	if (!err)
		err = write_refcounts(f, l, buf);
	if (!err)
		err = place_l1(f, l);
	if (!err)
		err = place_data(f, l);
	if (!err)
		err = write_l2(f, l, buf);
	return err ? err : file_fdatasync(f);
}

int qcow2_create(struct file *f, const struct qcow2_create_opts *opts, struct why *why)
{
	struct layout l = {0};
	uint8_t *buf = NULL;
	int err;

	err = qcow2_create_check(opts, why);
	if (err)
		return err;
	measure(&l, opts);
	err = plan(&l, why);
	if (err)
		return err;
	buf = file_buf(l.o.cluster_size);
	err = buf ? write_body(f, &l, buf) : -ENOMEM;
	if (!err) {
		memset(buf, 0, l.o.cluster_size);
		err = fill_header(&l, buf, why);
	}
	if (!err)
		err = file_pwrite(f, buf, l.o.cluster_size, 0);
	if (!err)
		err = file_fdatasync(f);
	free(buf);
	free(l.block_cluster);
	return err;
}
