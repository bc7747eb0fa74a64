/* SPDX-License-Identifier: MIT */
/*
 * header_build.c - the first cluster of an image, made anew.
 *
 *   fixed fields | fields we do not know | extensions | end mark | name of the backing file
 *
 * What we do not know is carried over from the cluster that is there: fields behind ours
 * (header_length says so) and extensions.  The order of extensions is qemu-img's.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "blockdev/qcow2/format.h"

/* In smaller clusters the names would crowd out what a header may have to hold. */
#define FEATURE_NAMES_CLUSTER_MIN 8192u
#define FEATURE_NAME_BYTES        48

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

struct builder {
	const struct qcow2_header *h;
	uint8_t *buf;
	uint64_t at;    /* bytes of buf that are taken */
	uint64_t limit; /* of them */
	bool full, no_names;
};

static uint8_t *room(struct builder *b, uint64_t n)
{
	uint8_t *p = b->buf + b->at;

	if (b->full || !range_within(b->at, n, b->limit)) {
		b->full = true;
		return NULL;
	}
	b->at += n;
	return p;
}

static void add_ext(struct builder *b, uint32_t type, const void *data, uint32_t len)
{
	be32_t head[2] = {be32_make(type), be32_make(len)};
	uint8_t *p = room(b, sizeof(head) + round_up(len, 8));

	if (!p)
		return;
	memcpy(p, head, sizeof(head));
	if (len)
		memcpy(p + sizeof(head), data, len);
}

static void add_text(struct builder *b, uint32_t type, const char *text)
{
	if (text[0])
		add_ext(b, type, text, (uint32_t)strlen(text));
}

static void add_names(struct builder *b)
{
	uint8_t names[ARRAY_SIZE(feature_names) * FEATURE_NAME_BYTES] = {0}, *entry = names;

	if (b->no_names || b->h->version < 3 ||
		b->h->cluster_size < FEATURE_NAMES_CLUSTER_MIN)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(feature_names); i++, entry += FEATURE_NAME_BYTES) {
		entry[0] = feature_names[i].type;
		entry[1] = feature_names[i].bit;
		memcpy(entry + 2, feature_names[i].name, strlen(feature_names[i].name));
	}
	add_ext(b, QCOW2_EXT_FEATURES, names, sizeof(names));
}

static void add_ours(struct builder *b)
{
	const struct qcow2_header *h = b->h;
	struct {
		be32_t nb, reserved;
		be64_t dir_size, dir_offset;
	} bitmaps = {be32_make(h->nb_bitmaps), be32_make(0), be64_make(h->bitmaps_bytes),
		be64_make(h->bitmaps_offset)};
	be64_t crypto[2] = {be64_make(h->crypto_offset), be64_make(h->crypto_bytes)};

	add_text(b, QCOW2_EXT_BACKING_FMT, h->backing_format);
	if (h->incompatible & QCOW2_INCOMPAT_DATA_FILE)
		add_text(b, QCOW2_EXT_DATA_FILE, h->data_file);
	if (h->crypto_bytes)
		add_ext(b, QCOW2_EXT_CRYPTO, crypto, sizeof(crypto));
	add_names(b);
	if (h->nb_bitmaps)
		add_ext(b, QCOW2_EXT_BITMAPS, &bitmaps, sizeof(bitmaps));
}

static bool is_ours(uint32_t type)
{
	return type == QCOW2_EXT_BACKING_FMT || type == QCOW2_EXT_DATA_FILE ||
	       type == QCOW2_EXT_CRYPTO || type == QCOW2_EXT_FEATURES || type == QCOW2_EXT_BITMAPS;
}

static uint32_t old_header_length(const uint8_t *old)
{
	const struct qcow2_disk_header *d = (const void *)old;

	return be32_get(d->version) >= 3 ? be32_get(d->header_length) : QCOW2_V2_HEADER_BYTES;
}

/* qcow2_header_read() has walked the same list, so it is well formed. */
static void keep_unknown(struct builder *b, const uint8_t *old)
{
	const struct qcow2_disk_header *d = (const void *)old;
	uint64_t end = be64_get(d->backing_offset), at = old_header_length(old);
	be32_t head[2];

	if (!end)
		end = b->h->cluster_size;
	while (range_within(at, sizeof(head), end)) {
		uint32_t type, len;

		memcpy(head, old + at, sizeof(head));
		type = be32_get(head[0]);
		len = be32_get(head[1]);
		at += sizeof(head);
		if (type == QCOW2_EXT_END || !range_within(at, len, end))
			return;
		if (!is_ours(type))
			add_ext(b, type, old + at, len);
		at += round_up(len, 8);
	}
}

static void put_fields(const struct qcow2_header *h, struct qcow2_disk_header *d)
{
	d->magic = be32_make(QCOW2_MAGIC);
	d->version = be32_make(h->version);
	d->cluster_bits = be32_make(h->cluster_bits);
	d->size = be64_make(h->size);
	d->crypt_method = be32_make(h->crypt_method);
	d->l1_size = be32_make(h->l1_size);
	d->l1_offset = be64_make(h->l1_offset);
	d->reftable_offset = be64_make(h->reftable_offset);
	d->reftable_clusters = be32_make(h->reftable_clusters);
	d->nb_snapshots = be32_make(h->nb_snapshots);
	d->snapshots_offset = be64_make(h->snapshots_offset);
	if (h->version < 3)
		return;
	d->incompatible = be64_make(h->incompatible);
	d->compatible = be64_make(h->compatible);
	d->autoclear = be64_make(h->autoclear);
	d->refcount_order = be32_make(h->refcount_order);
	d->compression_type = h->compression_type;
}

/* All but the name of the backing file. */
static void build(struct builder *b, const uint8_t *old)
{
	struct qcow2_disk_header *d = (void *)b->buf;
	uint32_t kept = old ? old_header_length(old) : 0;

	b->at = QCOW2_V2_HEADER_BYTES;
	if (b->h->version >= 3) {
		b->at = sizeof(*d);
		if (kept > b->at && kept <= b->limit) { /* one who knows more has been here */
			memcpy(b->buf + b->at, old + b->at, kept - b->at);
			b->at = round_up(kept, 8);
		}
		d->header_length = be32_make((uint32_t)b->at);
	}
	put_fields(b->h, d);
	add_ours(b);
	if (old)
		keep_unknown(b, old);
	add_ext(b, QCOW2_EXT_END, NULL, 0);
}

static void put_backing(const struct qcow2_header *h, uint8_t *buf, uint64_t at)
{
	struct qcow2_disk_header *d = (void *)buf;
	size_t n = strlen(h->backing_file);

	if (!n)
		return;
	d->backing_offset = be64_make(at);
	d->backing_size = be32_make((uint32_t)n);
}

int qcow2_header_build(
	const struct qcow2_header *h, const uint8_t *old, uint8_t *buf, struct why *why)
{
	struct builder b = {.h = h, .buf = buf, .limit = h->cluster_size};
	size_t n = strlen(h->backing_file);
	uint8_t *p;

	build(&b, old);
	put_backing(h, buf, b.at);
	p = room(&b, n);
	if (!p)
		return why_set(why, -ENOSPC, "The header does not fit into the first cluster");
	memcpy(p, h->backing_file, n);
	return 0;
}

int qcow2_header_build_short(
	const struct qcow2_header *h, const uint8_t *old, uint64_t name_at, uint8_t *buf)
{
	struct builder b = {.h = h, .buf = buf, .limit = SECTOR, .no_names = true};

	build(&b, old);
	put_backing(h, buf, name_at);
	return b.full ? -ENOSPC : 0;
}
