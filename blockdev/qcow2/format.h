/* SPDX-License-Identifier: MIT */
/*
 * format.h - qcow2 as it lies on disk, and the header in host order.
 *
 * Source: QEMU's docs/interop/qcow2 specification.  All integers are big-endian.
 */
#ifndef QCOW2_FORMAT_H
#define QCOW2_FORMAT_H

#include "blockdev/file/file.h"
#include "vmm/util/base.h"
#include "vmm/util/bytes.h"
#include "vmm/util/log.h"

#define QCOW2_MAGIC            0x514649fbU /* "QFI\xfb" */
#define QCOW2_CLUSTER_BITS_MIN 9
#define QCOW2_CLUSTER_BITS_MAX 21
/* 4 Mi entries: 2 EiB at 2 MiB clusters, 2 TiB at 64 KiB would need 32 Ki; a bigger table is an
 * attack. */
#define QCOW2_L1_BYTES_MAX       (32u * MiB)
#define QCOW2_REFTABLE_BYTES_MAX (8u * MiB)
#define QCOW2_SNAPSHOTS_MAX      65536u
#define QCOW2_SNAPSHOTS_BYTES_MAX                                                                  \
	(64u * MiB) /* of the snapshot table; names and IDs are at most 64 KiB each */
#define QCOW2_BACKING_MAX 1023u
#define QCOW2_BACKING_FORMAT_MAX 15u

/* Bytes 0..71 of every image, then 72..103 of version 3. */
struct qcow2_disk_header {
	be32_t magic, version;
	be64_t backing_offset;
	be32_t backing_size, cluster_bits;
	be64_t size;
	be32_t crypt_method, l1_size;
	be64_t l1_offset, reftable_offset;
	be32_t reftable_clusters, nb_snapshots;
	be64_t snapshots_offset;
	/* version 3 */
	be64_t incompatible, compatible, autoclear;
	be32_t refcount_order, header_length;
	uint8_t compression_type;
	uint8_t pad[7];
};
static_assert(sizeof(struct qcow2_disk_header) == 112, "qcow2 spec: header");
static_assert(offsetof(struct qcow2_disk_header, incompatible) == 72, "qcow2 spec: version 3 tail");
static_assert(
	offsetof(struct qcow2_disk_header, header_length) == 100, "qcow2 spec: header_length");

#define QCOW2_V2_HEADER_BYTES 72
#define QCOW2_V3_HEADER_BYTES 104

/* Incompatible features: an opener that does not know a bit must refuse. */
#define QCOW2_INCOMPAT_DIRTY        (1ULL << 0)
#define QCOW2_INCOMPAT_CORRUPT      (1ULL << 1)
#define QCOW2_INCOMPAT_DATA_FILE    (1ULL << 2)
#define QCOW2_INCOMPAT_COMPRESSION  (1ULL << 3)
#define QCOW2_INCOMPAT_EXTL2        (1ULL << 4)
#define QCOW2_COMPAT_LAZY_REFCOUNTS (1ULL << 0)
#define QCOW2_AUTOCLEAR_BITMAPS     (1ULL << 0)
#define QCOW2_AUTOCLEAR_DATA_RAW    (1ULL << 1)

/* L1 and L2 entries. */
#define QCOW2_OFLAG_COPIED      (1ULL << 63) /* refcount is exactly one: write in place */
#define QCOW2_OFLAG_COMPRESSED  (1ULL << 62)
#define QCOW2_OFLAG_ZERO        (1ULL << 0) /* L2, version 3: reads as zeros */
#define QCOW2_OFFSET_MASK       0x00fffffffffffe00ULL
#define QCOW2_SUB_ALLOC         0x00000000ffffffffULL /* extended L2: subclusters with data */
#define QCOW2_SUB_ZERO          0xffffffff00000000ULL /* those that read as zeros */
#define QCOW2_L1_RESERVED       0x7f000000000001ffULL
#define QCOW2_L2_RESERVED       0x3f000000000001feULL
#define QCOW2_REFTABLE_RESERVED 0x00000000000001ffULL

/* Header extensions. */
#define QCOW2_EXT_END         0x00000000U
#define QCOW2_EXT_BACKING_FMT 0xe2792acaU
#define QCOW2_EXT_FEATURES    0x6803f857U
#define QCOW2_EXT_BITMAPS     0x23852875U
#define QCOW2_EXT_CRYPTO      0x0537be77U
#define QCOW2_EXT_DATA_FILE   0x44415441U

/* Entry of the snapshot table; then extra data, ID, name, padding to 8 bytes. */
struct qcow2_disk_snapshot {
	be64_t l1_offset;
	be32_t l1_size;
	be16_t id_bytes, name_bytes;
	be32_t sec, nsec;
	be64_t vm_clock_ns;
	be32_t vm_state_bytes, extra_bytes;
};
static_assert(sizeof(struct qcow2_disk_snapshot) == 40, "qcow2 spec: snapshot table entry");

/* What a program loads, in the peer's words if it is more: 0, or -EFBIG. */
#define QCOW2_SNAPSHOT_EXTRA_MAX 1024u /* bytes of an entry's extra data */
must_check int qcow2_snapshot_extra_check(uint32_t bytes, uint32_t i, struct why *why);
/* The table up to here takes so many bytes; left: entries from the last of them on. */
must_check int qcow2_snapshots_bytes_check(uint64_t bytes, uint32_t left, struct why *why);

#define BITMAPS_MAX          65535u
#define BITMAP_DIR_BYTES_MAX (1024u * BITMAPS_MAX)

/* Entry of the bitmap directory; then extra data, name, padding to 8 bytes. */
struct qcow2_disk_bitmap {
	be64_t table_offset;
	be32_t table_size, flags;
	uint8_t type, granularity_bits;
	be16_t name_bytes;
	be32_t extra_bytes;
};
static_assert(sizeof(struct qcow2_disk_bitmap) == 24, "qcow2 spec: bitmap directory entry");

/* The header in host order, checked. */
struct qcow2_header {
	uint32_t version, cluster_bits, cluster_size;
	uint64_t size;    /* bytes the guest sees */
	uint32_t l1_size; /* entries */
	uint64_t l1_offset, reftable_offset;
	uint32_t reftable_clusters;
	uint32_t nb_snapshots, crypt_method;
	uint64_t snapshots_offset;
	uint64_t incompatible, compatible, autoclear;
	uint32_t refcount_order, refcount_bits, header_length;
	uint8_t compression_type;
	char backing_file[1024], backing_format[16], data_file[1024];
	char unknown_features[200]; /* names of the unknown incompatible bits, "" if none */
	/* Extensions that own clusters, so that check counts them. */
	uint64_t crypto_offset, crypto_bytes;
	uint32_t nb_bitmaps; /* 0: none */
	uint64_t bitmaps_offset, bitmaps_bytes;
	bool bitmaps_stale; /* there were some, and somebody wrote without minding them */
};

/* Geometry. */
static inline uint32_t qcow2_l2_entries(const struct qcow2_header *h)
{
	return h->cluster_size / ((h->incompatible & QCOW2_INCOMPAT_EXTL2) ? 16 : 8);
}

#define QCOW2_SUBCLUSTERS_BITS 5 /* extended L2 entries: 32 to a cluster */

static inline uint32_t qcow2_refblock_entries(const struct qcow2_header *h)
{
	return (h->cluster_size * 8ULL) >> h->refcount_order;
}

#define QCOW2_EXTL2_CLUSTER_MIN 16384u /* a subcluster is never smaller than a sector */

/* L1 entries that a disk of this size (bytes) needs. */
static inline uint64_t qcow2_l1_needed(const struct qcow2_header *h, uint64_t size)
{
	return div_round_up(size, (uint64_t)h->cluster_size * qcow2_l2_entries(h));
}

/*
 * Does a cluster at host_off have no byte in the file?  Openers treat an L2 entry that says so
 * as unallocated, check reports it (qemu-img too), repair drops it.
 */
static inline bool qcow2_past_end(uint64_t host_off, uint64_t file_bytes)
{
	return host_off >= file_bytes;
}

/* What a compressed L2 entry names: bytes [*off, *off + *len), in whole sectors at its end. */
static inline void qcow2_compressed_range(
	uint64_t entry, uint32_t cluster_bits, uint64_t *off, uint64_t *len)
{
	uint32_t x = 62 - (cluster_bits - 8);
	uint64_t sectors = ((entry & ~(QCOW2_OFLAG_COPIED | QCOW2_OFLAG_COMPRESSED)) >> x) + 1;

	*off = entry & ((1ULL << x) - 1);
	*len = sectors * SECTOR - (*off & (SECTOR - 1));
}

/*
 * In a fiber.  Reads and checks the header against the spec and the limits above, and the
 * extensions that matter.  0, -EMEDIUMTYPE (not qcow2), -ENOTSUP (version), -EINVAL
 * (broken) or -EFBIG (beyond the limits above), with words.  Unknown or unbuilt features do not
 * fail here.
 */
must_check int qcow2_header_read(struct file *f, struct qcow2_header *h, struct why *why);
/* The same, but a snapshot table that nobody could load is no reason to fail: check mends those. */
must_check int qcow2_header_read_to_check(
	struct file *f, struct qcow2_header *h, struct why *why);
/*
 * 0, or -ENOTSUP with the name of the first feature that this build cannot read or write;
 * -EINVAL if the image has no refcount table and is to be written.
 */
must_check int qcow2_header_supported(const struct qcow2_header *h, bool writable, struct why *why);
/*
 * In a fiber: rewrites the fixed fields in place (one write of the first sector, extensions
 * kept).  Not durable yet.
 */
must_check int qcow2_header_write(struct file *f, const struct qcow2_header *h);

/*
 * In a fiber: the bitmaps that h names, one call of each (NULL: none) after the other.  0, or
 * -errno with words if the directory is broken.
 */
struct qcow2_bitmap_word {
	const char *name;
	bool in_use, enabled;
	uint64_t granularity; /* bytes */
};
must_check int qcow2_bitmaps_describe(struct file *f, const struct qcow2_header *h,
	int (*each)(void *arg, const struct qcow2_bitmap_word *w), void *arg, struct why *why);

/* Warns if the image had bitmaps that nobody may believe any more. */
void qcow2_header_warn(const struct qcow2_header *h);

/* Refcount i of a refcount block of the given order (bits = 1 << order), any order 0..6. */
uint64_t qcow2_refcount_get(const void *block, uint32_t i, uint32_t order);
void qcow2_refcount_set(void *block, uint32_t i, uint32_t order, uint64_t value);

/*
 * In buf, one zeroed cluster: the header that h describes, extensions and names, as qemu-img
 * orders them.  old (the first cluster as it is now, or NULL) gives what we do not know:
 * fields behind ours, unknown extensions.  0, or -ENOSPC if it does not fit, with words.
 */
must_check int qcow2_header_build(
	const struct qcow2_header *h, const uint8_t *old, uint8_t *buf, struct why *why);
/*
 * The same within the first sector, the backing file's name at name_at and no names of features:
 * for the moment while the rest is being written.
 */
must_check int qcow2_header_build_short(
	const struct qcow2_header *h, const uint8_t *old, uint64_t name_at, uint8_t *buf);

/* Creation: as qemu-img lays a new image out (header, refcount table, first block, L1). */
struct qcow2_create_opts {
	uint64_t size;          /* bytes */
	uint32_t cluster_size;  /* 0: 64 KiB */
	uint32_t refcount_bits; /* 0: 16 */
	uint32_t version;       /* 0: 3 */
	bool lazy_refcounts, extended_l2, zstd;
	bool data_file_raw;     /* the data file is good as a raw image at any time */
	enum prealloc prealloc;
	const char *backing_file, *backing_format, *data_file; /* NULL: none */
};
/* Can such an image be made?  Touches no file.  0, or -EINVAL or -EFBIG with words. */
must_check int qcow2_create_check(const struct qcow2_create_opts *o, struct why *why);
/*
 * In a fiber, on an empty file or a block device: writes the image and makes it durable, the
 * header last, so that a cut leaves a whole image or none.  The data file is the caller's.
 */
must_check int qcow2_create(struct file *f, const struct qcow2_create_opts *o, struct why *why);

/* Check and repair. */
#define QCOW2_FIX_LEAKS  (1u << 0)
#define QCOW2_FIX_ERRORS (1u << 1)
struct qcow2_check {
	uint64_t corruptions, leaks, check_errors;
	uint64_t corruptions_fixed, leaks_fixed;
	uint64_t missing_flags; /* of corruptions: not set where it could be; a copy is made */
	uint64_t allocated_clusters, total_clusters, compressed_clusters, fragmented_clusters;
	uint64_t image_end_offset; /* bytes */
	/* One line per finding, as qemu-img words them; NULL: silent. */
	void (*report)(void *arg, const char *line);
	void *report_arg;
	bool refcounts_rebuilt;
};
/*
 * In a fiber, on a file that nobody else uses.  Linear passes over whole tables; memory is the
 * refcount array (2 bytes a cluster) and one table.  With fix, repairs under the
 * dirty bit: a cut anywhere leaves something that the next repair finishes.
 * 0 if the check ran (see the counts), or -errno.
 */
must_check int qcow2_check(struct file *f, unsigned fix, struct qcow2_check *res, struct why *why);

#endif
