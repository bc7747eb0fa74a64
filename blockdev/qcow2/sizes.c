/* SPDX-License-Identifier: MIT */
/*
 * sizes.c - how much memory the caches take, from the options; and options that contradict
 * each other or the image.
 */
#include "blockdev/qcow2/qcow2.h"

/* QEMU's defaults: enough L2 for 256 GiB at 64 KiB clusters; refcounts are touched rarely. */
#define L2_CACHE_MAX (32 * MiB)
#define REFS_CACHE   (256 * KiB)
/* QEMU keeps no less: a cache that has room for one table has none while it is written. */
#define REFS_CLUSTERS_MIN 4

static int check_together(const struct disk_opts *o, struct why *why)
{
	if (!o->cache_bytes)
		return 0;
	if (o->l2_cache_bytes && o->refcount_cache_bytes)
		return why_set(why, -EINVAL,
			"cache-size, l2-cache-size and refcount-cache-size may not be set at the "
			"same time");
	if (o->l2_cache_bytes > o->cache_bytes)
		return why_set(why, -EINVAL, "l2-cache-size may not exceed cache-size");
	if (o->refcount_cache_bytes > o->cache_bytes)
		return why_set(why, -EINVAL, "refcount-cache-size may not exceed cache-size");
	return 0;
}

/* The tables of an image need no more than l2_all. */
static void share(const struct qcow2_header *h, const struct disk_opts *o, uint64_t l2_all,
	uint64_t *l2, uint64_t *refs)
{
	uint64_t refs_min = (uint64_t)REFS_CLUSTERS_MIN * h->cluster_size;

	*l2 = o->l2_cache_bytes ? o->l2_cache_bytes : min_u64(L2_CACHE_MAX, l2_all);
	*refs = o->refcount_cache_bytes ? o->refcount_cache_bytes : REFS_CACHE;
	if (!o->cache_bytes)
		return;
	if (o->l2_cache_bytes)
		*refs = o->cache_bytes - o->l2_cache_bytes;
	else if (o->refcount_cache_bytes)
		*l2 = o->cache_bytes - o->refcount_cache_bytes;
	else if (o->cache_bytes >= l2_all + refs_min) {
		*l2 = l2_all;
		*refs = o->cache_bytes - l2_all;
	} else {
		*refs = min_u64(o->cache_bytes, refs_min);
		*l2 = o->cache_bytes - *refs;
	}
}

int qcow2_cache_sizes(const struct qcow2_header *h, const struct disk_opts *o, uint64_t *l2,
	uint64_t *refs, struct why *why)
{
	uint64_t entry = o->l2_entry_bytes, l2_all;
	int err = check_together(o, why);

	if (err)
		return err;
	l2_all = qcow2_l1_needed(h, h->size) * h->cluster_size;
	share(h, o, l2_all, l2, refs);
	if (!entry)
		entry = min_u64(h->cluster_size, 64 * KiB);
	if (entry < SECTOR || entry > h->cluster_size || !is_pow2(entry))
		return why_set(why, -EINVAL,
			"L2 cache entry size must be a power of two between %u and the cluster "
			"size (%u)",
			SECTOR, h->cluster_size);
	if (*l2 / entry > INT32_MAX)
		return why_set(why, -EINVAL, "L2 cache size too big");
	if (*refs / h->cluster_size > INT32_MAX)
		return why_set(why, -EINVAL, "Refcount cache size too big");
	if (o->lazy_refcounts > 0 && h->version < 3)
		return why_set(why, -EINVAL,
			"Lazy refcounts require a qcow2 image with at least qemu 1.1 compatibility "
			"level");
	*l2 = min_u64(*l2, l2_all);
	/* No image has more counts than one for each cluster of the largest file. */
	*refs = min_u64(*refs, 1 * GiB);
	return 0;
}
