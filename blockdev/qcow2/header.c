/* SPDX-License-Identifier: MIT */
/*
 * header.c - the first cluster of an image: fixed fields and extensions.
 *
 * An image file is hostile until this file has looked at it.  What every reader relies on
 * is checked here once: cluster size, alignment and size of the tables, that L1 covers the
 * disk, that every string lies inside the first cluster.  Where a table ends in the
 * file is not checked: a table past the end reads as zeros, and check reports it.
 *
 * Reading knows more than this build can open, so that `info` and `check` can
 * describe an image which the driver refuses (qcow2_header_supported).
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/format.h"

#define KNOWN_INCOMPAT                                                                             \
	(QCOW2_INCOMPAT_DIRTY | QCOW2_INCOMPAT_CORRUPT | QCOW2_INCOMPAT_DATA_FILE |                \
		QCOW2_INCOMPAT_COMPRESSION | QCOW2_INCOMPAT_EXTL2)
#define EXTL2_CLUSTER_BITS_MIN 14 /* qcow2 spec: a subcluster is never smaller than a sector */
#define REFCOUNT_ORDER_MAX     6
#define CRYPT_METHOD_MAX       2 /* LUKS */

struct ext_head {
	be32_t type, len;
};

struct feature_name {
	uint8_t type, bit; /* type 0: incompatible */
	char name[46];     /* not terminated when full */
};
static_assert(sizeof(struct feature_name) == 48, "qcow2 spec: feature name table");

struct bitmaps_ext {
	be32_t nb, reserved;
	be64_t dir_size, dir_offset;
};
static_assert(sizeof(struct bitmaps_ext) == 24, "qcow2 spec: bitmaps extension");

struct crypto_ext {
	be64_t offset, len;
};

/* A table of metadata: whole, aligned, and at a place that a file can have. */
static int check_table(uint64_t off, uint64_t bytes, uint64_t max, uint32_t cluster_size,
	const char *what, struct why *why)
{
	if (bytes > max)
		return why_set(why, -EFBIG, "%s too large", what);
	/* Nothing lies at 0 but the header: a table there would be written over it. */
	if (off % cluster_size || off > (uint64_t)INT64_MAX - bytes || (bytes && !off))
		return why_set(why, -EINVAL, "%s offset invalid", what);
	return 0;
}

static int fields_from_disk(
	const struct qcow2_disk_header *d, struct qcow2_header *h, struct why *why)
{
	h->version = be32_get(d->version);
	if (h->version != 2 && h->version != 3)
		return why_set(why, -ENOTSUP, "Unsupported qcow2 version %" PRIu32, h->version);
	h->cluster_bits = be32_get(d->cluster_bits);
	if (h->cluster_bits < QCOW2_CLUSTER_BITS_MIN || h->cluster_bits > QCOW2_CLUSTER_BITS_MAX)
		return why_set(
			why, -EINVAL, "Unsupported cluster size: 2^%" PRIu32, h->cluster_bits);
	h->cluster_size = 1u << h->cluster_bits;
	h->size = be64_get(d->size);
	h->crypt_method = be32_get(d->crypt_method);
	h->l1_size = be32_get(d->l1_size);
	h->l1_offset = be64_get(d->l1_offset);
	h->reftable_offset = be64_get(d->reftable_offset);
	h->reftable_clusters = be32_get(d->reftable_clusters);
	h->nb_snapshots = be32_get(d->nb_snapshots);
	h->snapshots_offset = be64_get(d->snapshots_offset);
	h->header_length = QCOW2_V2_HEADER_BYTES;
	h->refcount_order = 4;
	if (h->version == 3) {
		h->incompatible = be64_get(d->incompatible);
		h->compatible = be64_get(d->compatible);
		h->autoclear = be64_get(d->autoclear);
		h->refcount_order = be32_get(d->refcount_order);
		h->header_length = be32_get(d->header_length);
		if (h->header_length < QCOW2_V3_HEADER_BYTES)
			return why_set(why, -EINVAL, "qcow2 header too short");
		if (h->header_length > QCOW2_V3_HEADER_BYTES)
			h->compression_type = d->compression_type;
	}
	if (h->header_length > h->cluster_size)
		return why_set(why, -EINVAL, "qcow2 header exceeds cluster size");
	if (h->refcount_order > REFCOUNT_ORDER_MAX)
		return why_set(why, -EINVAL,
			"Reference count entry width too large; may not exceed 64 bits");
	h->refcount_bits = 1u << h->refcount_order;
	return 0;
}

/* The tables that the fixed fields name, and how they fit each other. */
static int check_fields(const struct qcow2_header *h, struct why *why)
{
	uint64_t needed;
	int err;

	if (h->compression_type > 1 && (h->incompatible & QCOW2_INCOMPAT_COMPRESSION))
		return why_set(
			why, -ENOTSUP, "qcow2: unknown compression type: %u", h->compression_type);
	if (h->compression_type && !(h->incompatible & QCOW2_INCOMPAT_COMPRESSION))
		return why_set(why, -EINVAL,
			"qcow2: Compression type incompatible feature bit must be set");
	if (!h->compression_type && (h->incompatible & QCOW2_INCOMPAT_COMPRESSION))
		return why_set(why, -EINVAL,
			"qcow2: Compression type incompatible feature bit must not be set");
	if ((h->incompatible & QCOW2_INCOMPAT_EXTL2) && h->cluster_bits < EXTL2_CLUSTER_BITS_MIN)
		return why_set(
			why, -EINVAL, "Unsupported subcluster size: %u", h->cluster_size / 32);
	if (h->crypt_method > CRYPT_METHOD_MAX)
		return why_set(
			why, -EINVAL, "Unsupported encryption method %" PRIu32, h->crypt_method);
	err = check_table(h->reftable_offset, (uint64_t)h->reftable_clusters << h->cluster_bits,
		QCOW2_REFTABLE_BYTES_MAX, h->cluster_size, "Reference count table", why);
	if (err)
		return err;
	err = check_table(h->l1_offset, h->l1_size * 8ULL, QCOW2_L1_BYTES_MAX, h->cluster_size,
		"Active L1 table", why);
	if (err)
		return err;
	needed = qcow2_l1_needed(h, h->size);
	if (h->size > (uint64_t)INT64_MAX || needed > QCOW2_L1_BYTES_MAX / 8)
		return why_set(why, -EFBIG, "Image is too big");
	if (h->l1_size < needed)
		return why_set(why, -EINVAL, "L1 table is too small");
	return 0;
}

static int check_snapshots(const struct qcow2_header *h, struct why *why)
{
	if (h->nb_snapshots > QCOW2_SNAPSHOTS_MAX)
		return why_set(why, -EFBIG, "Snapshot table too large");
	return check_table(h->snapshots_offset, h->nb_snapshots ? 1 : 0, 1, h->cluster_size,
		"Snapshot table", why);
}

/* What the first unknown bits are called, from the image's own table where it knows. */
static void name_unknown(struct qcow2_header *h, const uint8_t *names, size_t len)
{
	uint64_t unknown = h->incompatible & ~KNOWN_INCOMPAT;
	size_t used = 0, room = sizeof(h->unknown_features);

	/* The last one may have been cut where its name ends; one without a name is the end. */
	for (size_t i = 0; i < len; i += sizeof(struct feature_name)) {
		struct feature_name n = {0};

		memcpy(&n, names + i, min_u64(len - i, sizeof(n)));
		if (!n.name[0])
			break;
		if (n.type != 0 || n.bit > 63 || !(unknown & (1ULL << n.bit)))
			continue;
		unknown &= ~(1ULL << n.bit);
		if (used < room)
			used += (size_t)snprintf(h->unknown_features + used, room - used, "%s%.46s",
				used ? ", " : "", n.name);
	}
	if (unknown && used < room)
		snprintf(h->unknown_features + used, room - used,
			"%sUnknown incompatible feature: %" PRIx64, used ? ", " : "", unknown);
	for (char *c = h->unknown_features; *c; c++) /* an image must not speak to the terminal */
		if (*c < ' ' || *c > '~')
			*c = '?';
}

/* Words and order of looking are the peer's. */
static int bitmaps_from_disk(
	struct qcow2_header *h, const uint8_t *data, uint32_t len, struct why *why)
{
	struct bitmaps_ext b;

	if (len != sizeof(b))
		return why_set(why, -EINVAL, "bitmaps_ext: Invalid extension length");
	if (!(h->autoclear & QCOW2_AUTOCLEAR_BITMAPS)) {
		h->bitmaps_stale = true; /* as if there were none */
		return 0;
	}
	memcpy(&b, data, sizeof(b));
	h->nb_bitmaps = be32_get(b.nb);
	h->bitmaps_offset = be64_get(b.dir_offset);
	h->bitmaps_bytes = be64_get(b.dir_size);
	if (be32_get(b.reserved))
		return why_set(why, -EINVAL, "bitmaps_ext: Reserved field is not zero");
	if (h->nb_bitmaps > BITMAPS_MAX)
		return why_set(why, -EINVAL,
			"bitmaps_ext: Image has %u bitmaps, exceeding the QEMU supported maximum "
			"of %u",
			h->nb_bitmaps, BITMAPS_MAX);
	if (!h->nb_bitmaps)
		return why_set(why, -EINVAL, "found bitmaps extension with zero bitmaps");
	if (h->bitmaps_offset % h->cluster_size)
		return why_set(why, -EINVAL, "bitmaps_ext: invalid bitmap directory offset");
	if (h->bitmaps_bytes > BITMAP_DIR_BYTES_MAX)
		return why_set(why, -EINVAL,
			"bitmaps_ext: bitmap directory size (%" PRIu64
			") exceeds the maximum supported size (%u)",
			h->bitmaps_bytes, BITMAP_DIR_BYTES_MAX);
	return 0;
}

void qcow2_header_warn(const struct qcow2_header *h)
{
	if (!h->bitmaps_stale || !log_shows(LOG_WARN))
		return;
	if (h->version < 3)
		log_warn("This qcow2 v2 image contains bitmaps, but they may have been modified "
			 "by a program without persistent bitmap support; so now they must all be "
			 "considered inconsistent");
	else
		log_warn("a program lacking bitmap support modified this file, so all bitmaps are "
			 "now considered inconsistent");
	fputs("Some clusters may be leaked, run 'qemu-img check -r' on the image file to fix.\n",
		stderr);
}

/* One extension, data inside the buffer. */
static int ext_from_disk(
	struct qcow2_header *h, uint32_t type, const uint8_t *data, uint32_t len, struct why *why)
{
	const struct crypto_ext *c = (const void *)data;

	switch (type) {
	case QCOW2_EXT_BACKING_FMT:
		if (len >= sizeof(h->backing_format))
			return why_set(why, -EINVAL,
				"ERROR: ext_backing_format: len=%" PRIu32 " too large (>=%zu)", len,
				sizeof(h->backing_format));
		memcpy(h->backing_format, data, len);
		h->backing_format[len] = '\0'; /* the last one counts */
		return 0;
	case QCOW2_EXT_DATA_FILE:
		if (len >= sizeof(h->data_file))
			return why_set(why, -EINVAL, "Name of the external data file too long");
		memcpy(h->data_file, data, len);
		h->data_file[len] = '\0';
		return 0;
	case QCOW2_EXT_FEATURES:
		if (h->incompatible & ~KNOWN_INCOMPAT)
			name_unknown(h, data, len);
		return 0;
	case QCOW2_EXT_BITMAPS:
		return bitmaps_from_disk(h, data, len, why);
	case QCOW2_EXT_CRYPTO:
		if (len != sizeof(*c))
			return why_set(why, -EINVAL,
				"CRYPTO header extension size %" PRIu32 ", but expected size %zu",
				len, sizeof(*c));
		h->crypto_offset = be64_get(c->offset);
		h->crypto_bytes = be64_get(c->len);
		return 0;
	}
	return 0; /* qcow2 spec: an unknown extension can be ignored */
}

/* buf holds the first cluster up to end, where the backing file's name begins. */
static int exts_from_disk(struct qcow2_header *h, const uint8_t *buf, uint64_t end, struct why *why)
{
	uint64_t at = h->header_length;

	while (at < end && range_within(at, sizeof(struct ext_head), h->cluster_size)) {
		const struct ext_head *e = (const void *)(buf + at);
		uint32_t type = be32_get(e->type), len = be32_get(e->len);
		int err;

		at += sizeof(*e);
		if (!range_within(at, len, end))
			return why_set(why, -EINVAL, "Header extension too large");
		if (type == QCOW2_EXT_END)
			return 0;
		err = ext_from_disk(h, type, buf + at, len, why);
		if (err)
			return err;
		at += round_up(len, 8);
	}
	return 0;
}

static int backing_from_disk(const struct qcow2_disk_header *d, struct qcow2_header *h,
	const uint8_t *buf, uint64_t *ext_end, struct why *why)
{
	uint64_t off = be64_get(d->backing_offset);
	uint32_t len = be32_get(d->backing_size);

	*ext_end = h->cluster_size;
	if (!off)
		return 0;
	if (off > h->cluster_size)
		return why_set(why, -EINVAL, "Invalid backing file offset");
	*ext_end = off;
	if (len > QCOW2_BACKING_MAX || !range_within(off, len, h->cluster_size))
		return why_set(why, -EINVAL, "Backing file name too long");
	memcpy(h->backing_file, buf + off, len);
	return 0;
}

int qcow2_header_read_to_check(struct file *f, struct qcow2_header *h, struct why *why)
{
	struct qcow2_disk_header d;
	uint8_t *buf;
	uint64_t ext_end;
	int err;

	memset(h, 0, sizeof(*h));
	err = file_pread(f, &d, sizeof(d), 0);
	if (err)
		return why_set(why, err, "Could not read qcow2 header: %s", strerror(-err));
	if (file_size(f) < 4 || be32_get(d.magic) != QCOW2_MAGIC)
		return why_set(why, -EMEDIUMTYPE, "Image is not in qcow2 format");
	if (file_size(f) < QCOW2_V2_HEADER_BYTES)
		return why_set(why, -EINVAL, "qcow2 header too short");
	err = fields_from_disk(&d, h, why);
	if (err)
		return err;

	buf = file_buf(h->cluster_size);
	if (!buf)
		return -ENOMEM;
	err = file_pread(f, buf, h->cluster_size, 0);
	if (err)
		goto out;
	err = backing_from_disk(&d, h, buf, &ext_end, why);
	if (err)
		goto out;
	err = exts_from_disk(h, buf, ext_end, why);
	if (err)
		goto out;
	if ((h->incompatible & ~KNOWN_INCOMPAT) && !h->unknown_features[0])
		name_unknown(h, NULL, 0);
	err = check_fields(h, why);
out:
	free(buf);
	return err;
}

int qcow2_header_read(struct file *f, struct qcow2_header *h, struct why *why)
{
	int err = qcow2_header_read_to_check(f, h, why);

	return err ? err : check_snapshots(h, why);
}

int qcow2_header_supported(const struct qcow2_header *h, bool writable, struct why *why)
{
	if (h->unknown_features[0])
		return why_set(
			why, -ENOTSUP, "Unsupported qcow2 feature(s): %s", h->unknown_features);
	if (h->crypt_method)
		return why_set(why, -ENOTSUP, "Unsupported qcow2 feature: encryption (%s)",
			h->crypt_method == 1 ? "AES" : "LUKS");
	if (!writable)
		return 0;
	if (h->incompatible & QCOW2_INCOMPAT_CORRUPT)
		return why_set(
			why, -EACCES, "qcow2: Image is corrupt; cannot be opened read/write");
	if (!h->reftable_clusters)
		return why_set(why, -EINVAL, "Image does not contain a reference count table");
	return 0;
}

int qcow2_header_write(struct file *f, const struct qcow2_header *h)
{
	uint8_t sector[SECTOR] __attribute__((aligned(8)));
	struct qcow2_disk_header *d = (void *)sector;
	int err;

	/* Fields and extensions that we do not know stay as they are. */
	err = file_pread(f, sector, sizeof(sector), 0);
	if (err)
		return err;
	if (be32_get(d->magic) != QCOW2_MAGIC || be32_get(d->version) != h->version ||
		be32_get(d->cluster_bits) != h->cluster_bits)
		return -EINVAL; /* somebody else's header: writing ours over it helps nobody */
	d->size = be64_make(h->size);
	d->l1_size = be32_make(h->l1_size);
	d->l1_offset = be64_make(h->l1_offset);
	d->reftable_offset = be64_make(h->reftable_offset);
	d->reftable_clusters = be32_make(h->reftable_clusters);
	d->nb_snapshots = be32_make(h->nb_snapshots);
	d->snapshots_offset = be64_make(h->snapshots_offset);
	if (h->version >= 3) {
		d->incompatible = be64_make(h->incompatible);
		d->compatible = be64_make(h->compatible);
		d->autoclear = be64_make(h->autoclear);
	}
	return file_pwrite(f, sector, sizeof(sector), 0);
}
