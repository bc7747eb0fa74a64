/* SPDX-License-Identifier: MIT */
/*
 * compress.c - compressed clusters: read, written, given back.
 *
 * Compressed clusters lie packed, one after the other, across the borders of host clusters; each
 * counts as one use of every host cluster that it touches.  They are never changed in place:
 * a normal write onto one is copy on write.
 *
 * Reading: the last few clusters are kept unpacked, so that small reads in a row unpack each
 * once.  A slot is known by the place of its data in the file; whoever puts new data
 * there drops it.
 *
 * Writing, cluster by cluster in order while the next ones are packed by worker threads:
 *
 *   place    the next free bytes: the counts of the host clusters touched go up first (R1)
 *   data     written
 *   entry    with the number of the data, which is higher than that of the counts: what is there
 *            before the data unpacks to nothing, so never-used space is no exception here (R2)
 *
 * Source: qcow2 specification, "Compressed Clusters Descriptor".
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/qcow2/codec.h"
#include "blockdev/qcow2/iov.h"
#include "blockdev/qcow2/qcow2.h"
#include "vmm/util/offload.h"

#define SLOTS	   4		 /* clusters kept unpacked */
#define AHEAD_MAX   8		 /* clusters of one write being packed */
#define AHEAD_BYTES (4 * MiB) /* but no more of the guest's data than that */

struct slot {
	uint64_t host_off, len; /* of the packed data; len 0: empty */
	uint8_t *data;		/* a cluster */
	bool loading;
	uint64_t used;
};

struct compress {
	struct slot slot[SLOTS];
	uint64_t clock;
	struct fiber_queue q; /* some load has ended */
	uint64_t cursor; /* where the next packed cluster goes, in a counted cluster; 0: nowhere */
};

int qcow2_compress_init(struct qcow2 *q)
{
	q->compress = calloc(1, sizeof(*q->compress));
	if (!q->compress)
		return -ENOMEM;
	fiber_queue_init(&q->compress->q);
	return 0;
}

void qcow2_compress_fini(struct qcow2 *q)
{
	for (int i = 0; q->compress && i < SLOTS; i++)
		free(q->compress->slot[i].data);
	free(q->compress);
	q->compress = NULL;
}

void qcow2_compress_forget(struct qcow2 *q, uint64_t host_off, uint64_t len)
{
	struct compress *c = q->compress;

	for (int i = 0; i < SLOTS; i++)
		if (c->slot[i].len && !c->slot[i].loading &&
			ranges_overlap(c->slot[i].host_off, c->slot[i].len, host_off, len))
			c->slot[i].len = 0;
	if (c->cursor >= host_off && c->cursor - host_off < len)
		c->cursor = 0;
}

/* ---- reading ---- */

struct unpack {
	struct offload o;
	enum codec codec;
	const uint8_t *in;
	uint8_t *out;
	uint64_t in_len, len;
	int err;
};

static void unpack_job(struct offload *o)
{
	struct unpack *u = container_of(o, struct unpack, o);

	u->err = codec_unpack(u->codec, u->in, u->in_len, u->out, u->len);
}

/* What lies at host_off, unpacked into data. */
static int load(struct qcow2 *q, uint64_t host_off, uint64_t len, uint8_t *data)
{
	struct unpack u = {.o.fn = unpack_job,
		.codec = q->h.compression_type,
		.in_len = len,
		.out = data,
		.len = q->h.cluster_size};
	uint8_t *in = malloc(len);
	int err;

	if (!in)
		return -ENOMEM;
	file_event(q->fmt.file, EV_READ_COMPRESSED);
	err = file_pread(q->fmt.file, in, len, host_off);
	if (!err) {
		u.in = in;
		offload_start(q->fmt.file->loop, &u.o);
		offload_wait(&u.o);
		err = u.err;
	}
	free(in);
	return err;
}

static struct slot *slot_find(struct compress *c, uint64_t host_off, uint64_t len)
{
	for (int i = 0; i < SLOTS; i++)
		if (c->slot[i].len == len && c->slot[i].host_off == host_off)
			return &c->slot[i];
	return NULL;
}

/* The one that was not used for longest; NULL: all are being loaded. */
static struct slot *slot_victim(struct compress *c)
{
	struct slot *oldest = NULL;

	for (int i = 0; i < SLOTS; i++) {
		struct slot *s = &c->slot[i];

		if (!s->loading && (!oldest || s->used < oldest->used))
			oldest = s;
	}
	return oldest;
}

/* The unpacked cluster; good until the next suspension. */
static int slot_get(struct qcow2 *q, uint64_t host_off, uint64_t len, struct slot **out)
{
	struct compress *c = q->compress;
	struct slot *s;
	int err = 0;

	for (;;) {
		s = slot_find(c, host_off, len);
		if (s && !s->loading)
			break;
		if (!s && (s = slot_victim(c)) != NULL) {
			if (!s->data)
				s->data = malloc(q->h.cluster_size);
			if (!s->data)
				return -ENOMEM;
			s->host_off = host_off;
			s->len = len;
			s->loading = true;
			err = load(q, host_off, len, s->data);
			s->loading = false;
			if (err)
				s->len = 0;
			fiber_queue_wake_all(&c->q);
			break;
		}
		fiber_queue_wait(&c->q);
	}
	s->used = ++c->clock;
	*out = s;
	return err;
}

int qcow2_read_compressed(
	struct qcow2 *q, struct iov_cursor *dst, uint64_t off, const struct mapping *m)
{
	struct slot *s;
	int err = slot_get(q, m->host_off, m->packed_len, &s);

	if (!err)
		iov_copy_in(dst, s->data + (off & (q->h.cluster_size - 1)), m->len);
	return err;
}

/* ---- writing ---- */

/* A cluster of the guest's on its way. */
struct pack {
	struct offload o;
	enum codec codec;
	uint8_t *in, *out;     /* a cluster each */
	uint64_t cluster, len; /* len: of the guest's data, less at the end of the disk */
	uint64_t packed;
	int err;
};

static void pack_job(struct offload *o)
{
	struct pack *p = container_of(o, struct pack, o);

	p->err = codec_pack(p->codec, p->in, p->cluster, p->out, p->cluster - 1, &p->packed);
}

static uint64_t entry_for(const struct qcow2 *q, uint64_t host_off, uint64_t len)
{
	uint64_t sectors = (host_off + len - 1) / SECTOR - host_off / SECTOR;

	return QCOW2_OFLAG_COMPRESSED | host_off | sectors << (62 - (q->h.cluster_bits - 8));
}

/* Can a table entry name that place? */
static bool entry_fits(const struct qcow2 *q, uint64_t host_off)
{
	return host_off >> (62 - (q->h.cluster_bits - 8)) == 0;
}

/* One more packed cluster in a host cluster that is counted already. */
static int use_again(struct qcow2 *q, uint64_t cluster)
{
	int err = qcow2_mark_dirty(q);

	if (!err)
		err = qcow2_refs_add(q, cluster, 1, 1);
	return err || q->lazy ? err : qcow2_write_refs(q);
}

/* Undoes that, and goes on elsewhere. */
static void leave(struct qcow2 *q, uint64_t cluster)
{
	q->compress->cursor = 0;
	if (qcow2_refs_add(q, cluster, 1, -1))
		log_debug("a compressed write leaks a cluster");
}

/*
 * Room for len bytes, with all host clusters that they touch counted.  The caller holds
 * table_lock.
 */
static int place(struct qcow2 *q, uint64_t len, uint64_t *host_off)
{
	uint64_t size = q->h.cluster_size, at = q->compress->cursor, old = 0, room;
	struct run r = {.n = 0};
	int err = at ? use_again(q, at >> q->h.cluster_bits) : 0;

	if (err && err != -ERANGE)
		return err;
	if (at && !err)
		old = at >> q->h.cluster_bits; /* else: as many as a count can hold */
	room = old ? size - at % size : 0;
	err = 0;
	if (room < len)
		err = qcow2_alloc_locked(q, 1, &r);
	if (!err && r.n && (!old || r.first != old + 1)) {
		if (old)
			leave(q, old); /* what room there was is lost */
		old = 0;
		at = r.first << q->h.cluster_bits;
	}
	if (!err && !entry_fits(q, at))
		err = -EFBIG;
	if (err) {
		if (old)
			leave(q, old);
		if (r.n)
			qcow2_alloc_add(q, &r);
		return err;
	}
	if (at < size)
		return qcow2_corrupt(q, true,
			"Preventing invalid allocation of compressed cluster at offset 0");
	*host_off = at;
	at += len;
	q->compress->cursor = at % size ? at : 0;
	return 0;
}

static void clusters_touched(
	const struct qcow2 *q, uint64_t host_off, uint64_t len, uint64_t *first, uint64_t *n)
{
	*first = host_off >> q->h.cluster_bits;
	*n = ((host_off + len - 1) >> q->h.cluster_bits) - *first + 1;
}

/* No table names them: counts go down at once. */
static void unplace(struct qcow2 *q, uint64_t host_off, uint64_t len)
{
	uint64_t first, n;

	clusters_touched(q, host_off, len, &first, &n);
	fiber_lock(&q->table_lock);
	q->compress->cursor = 0;
	if (qcow2_refs_add(q, first, n, -1))
		log_debug("a compressed write leaks clusters");
	fiber_unlock(&q->table_lock);
}

/* The packed cluster becomes what the guest's cluster at off holds; nobody else is there. */
static int store_packed(struct qcow2 *q, uint64_t off, const struct pack *p)
{
	uint64_t host_off = 0, entry;
	int err;

	fiber_lock(&q->table_lock);
	err = place(q, p->packed, &host_off);
	fiber_unlock(&q->table_lock);
	if (err)
		return err;
	for (int i = 0; i < SLOTS; i++) {
		struct slot *s = &q->compress->slot[i];

		if (s->len && ranges_overlap(s->host_off, s->len, host_off, p->packed))
			s->len = 0;
	}
	entry = entry_for(q, host_off, p->packed);
	file_event(q->fmt.file, EV_WRITE_COMPRESSED);
	err = qcow2_overlap_check(q, 0, host_off, p->packed);
	if (!err)
		err = file_pwrite(q->fmt.file, p->out, p->packed, host_off);
	if (!err)
		err = qcow2_l2_set(q, off, 1, entry, sync_note(&q->fmt.sync));
	if (err)
		unplace(q, host_off, p->packed);
	return err;
}

static int store(struct qcow2 *q, uint64_t off, struct pack *p)
{
	struct iovec iov = {p->in, p->len};
	struct pending claim;
	struct mapping m;
	int err = p->err;

	if (err == -ENOSPC) /* it does not shrink */
		return qcow2_write(&q->fmt, &iov, 1, off, p->len);
	if (!err)
		err = qcow2_claim_whole(q, off, p->len, &claim, &m);
	if (err)
		return err;
	/* Packed clusters are written once: to write over anything would lose its space. */
	if (m.kind == MAP_HOLE || m.kind == MAP_ZERO)
		err = store_packed(q, off, p);
	else
		err = -EIO;
	qcow2_unclaim(q, &claim);
	return err;
}

static void pack_start(struct qcow2 *q, struct pack *p, struct iov_cursor *src, uint64_t len)
{
	p->o.fn = pack_job;
	p->codec = q->h.compression_type;
	p->cluster = q->h.cluster_size;
	p->len = len;
	iov_copy_out(src, p->in, len);
	memset(p->in + len, 0, p->cluster - len);
	offload_start(q->fmt.file->loop, &p->o);
}

/* [off, off+len) with n packs, each with memory for two clusters. */
static int write_all(struct qcow2 *q, struct iov_cursor *src, uint64_t off, uint64_t len,
	struct pack *packs, uint64_t n)
{
	uint64_t size = q->h.cluster_size, total = div_round_up(len, size), started = 0;
	int err = 0;

	for (uint64_t i = 0; i < total && (!err || i < started); i++) {
		for (; !err && started < total && started < i + n; started++)
			pack_start(q, &packs[started % n], src,
				min_u64(size, len - started * size));
		offload_wait(&packs[i % n].o);
		if (!err)
			err = store(q, off + i * size, &packs[i % n]);
	}
	return err;
}

int qcow2_write_compressed(
	struct format *fmt, struct iovec *iov, int niov, uint64_t off, uint64_t len)
{
	struct qcow2 *q = qcow2_of(fmt);
	struct iov_cursor src = {iov, niov, 0};
	uint64_t size = q->h.cluster_size;
	uint64_t n = min_u64(AHEAD_MAX, max_u64(2, AHEAD_BYTES / size));
	struct pack packs[AHEAD_MAX];
	uint8_t *mem;
	int err;

	if (q->external)
		return -ENOTSUP;
	if (off % size || (len % size && off + len != fmt->size))
		return -EINVAL;
	n = min_u64(n, div_round_up(len, size));
	mem = malloc(n * 2 * size);
	if (!mem)
		return -ENOMEM;
	for (uint64_t i = 0; i < n; i++) {
		packs[i].in = mem + i * 2 * size;
		packs[i].out = packs[i].in + size;
	}
	err = write_all(q, &src, off, len, packs, n);
	free(mem);
	return err;
}

/* ---- giving back ---- */

void qcow2_compress_restart(struct qcow2 *q)
{
	q->compress->cursor = 0;
}

int qcow2_free_compressed(struct qcow2 *q, const struct mapping *m)
{
	uint64_t host_off = m->host_off, first, n;

	clusters_touched(q, host_off, m->packed_len, &first, &n);
	/* If the cursor's cluster becomes unused, nobody may find it there. */
	if (q->compress->cursor >> q->h.cluster_bits >= first &&
		q->compress->cursor >> q->h.cluster_bits < first + n)
		q->compress->cursor = 0;
	return qcow2_clusters_free(q, first, n, 0);
}
