/* SPDX-License-Identifier: MIT */
/*
 * virtqueue.c - taking buffers from a split virtqueue and giving them back.
 *
 * Two kinds of nonsense.  What makes the ring itself meaningless (an index that jumps,
 * a descriptor number out of range, a chain without end) breaks the queue until the
 * driver resets the device.  A chain that is well-formed but describes an unusable
 * buffer (outside RAM, out of order) comes out marked bad, so that the device can answer
 * it like any other request.
 *
 * Descriptors are copied, then checked, then used.  What they point to is host memory when
 * it leaves here; its content stays the guest's to change.
 */
#include <stdatomic.h>
#include <string.h>
#include "devices/virtqueue.h"

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY	   1
#define RING_IDX	   2 /* offset in both rings */
#define RING_ENTRIES	   4

/* No buffer is longer than what the length field of the used ring can say (2.7.5.2: 2^32 bytes). */
#define CHAIN_BYTES_MAX UINT32_MAX

static uint16_t ring_load(const uint8_t *p, memory_order order)
{
	return le16toh(atomic_load_explicit((const _Atomic uint16_t *)p, order));
}

static void ring_store(uint8_t *p, uint16_t v, memory_order order)
{
	atomic_store_explicit((_Atomic uint16_t *)p, htole16(v), order);
}

static const uint8_t *used_event(const struct virtq *q)
{
	return q->avail + RING_ENTRIES + 2 * q->size;
}

static uint8_t *avail_event(const struct virtq *q)
{
	return q->used + RING_ENTRIES + sizeof(struct virtq_used_elem) * q->size;
}

int virtq_start(struct virtq *q, const struct gmem *mem, const struct virtq_layout *l)
{
	memset(q, 0, sizeof(*q));
	q->broken = true;
	if (!is_pow2(l->size) || l->desc % 16 || l->avail % 2 || l->used % 4)
		return -EINVAL;
	q->mem = mem;
	q->size = l->size;
	q->event_idx = l->event_idx;
	q->indirect = l->indirect;
	/* Both rings end with an event index, read or written only if that was negotiated. */
	q->desc = gmem_ptr(mem, l->desc, 16ULL * l->size);
	q->avail = gmem_ptr(mem, l->avail, 6 + 2ULL * l->size);
	q->used = gmem_ptr(mem, l->used, 6 + 8ULL * l->size);
	if (!q->desc || !q->avail || !q->used)
		return -EINVAL;
	q->broken = false;
	return 0;
}

/* The driver may rewrite it at any time: one look. */
static struct virtq_desc desc_copy(const struct virtq_desc *p)
{
	struct virtq_desc d;

	memcpy(&d, p, sizeof(d));
	atomic_signal_fence(memory_order_seq_cst); /* no second look for the compiler either */
	return d;
}

static void chain_add(const struct virtq *q, struct virtq_chain *c, const struct virtq_desc *d)
{
	bool write = le16_get(d->flags) & VIRTQ_DESC_WRITE;
	uint32_t len = le32_get(d->len);
	struct iovec *v = &c->iov[c->n_out + c->n_in];
	uint8_t *p;

	if (len == 0)
		return;
	p = gmem_ptr(q->mem, le64_get(d->addr), len);
	if (write)
		c->last = p ? p + len - 1 : NULL;
	if (!p || (!write && c->n_in) || c->out_len + c->in_len + len > CHAIN_BYTES_MAX) {
		c->bad = true;
		return;
	}
	*v = (struct iovec){p, len};
	if (write) {
		c->n_in++;
		c->in_len += len;
	} else {
		c->n_out++;
		c->out_len += len;
	}
}

/* The table that an indirect descriptor names; NULL if it may not stand where it does. */
static const struct virtq_desc *indirect_table(const struct virtq *q, const struct virtq_desc *d)
{
	uint32_t len = le32_get(d->len);

	if (!q->indirect || le16_get(d->flags) & VIRTQ_DESC_NEXT || len == 0 ||
		len % sizeof(struct virtq_desc))
		return NULL;
	return gmem_ptr(q->mem, le64_get(d->addr), len);
}

static int chain_walk(const struct virtq *q, struct virtq_chain *c)
{
	const struct virtq_desc *table = q->desc;
	uint32_t n = q->size, i = c->head;
	unsigned seen = 0;
	bool inside = false;

	for (;;) {
		struct virtq_desc d;

		if (i >= n)
			return -EINVAL;
		d = desc_copy(&table[i]);
		if (le16_get(d.flags) & VIRTQ_DESC_INDIRECT) {
			table = indirect_table(q, &d);
			if (!table || inside) /* one level only */
				return -EINVAL;
			inside = true;
			n = le32_get(d.len) / sizeof(d);
			i = 0;
			continue;
		}
		/* A chain without end is caught here, for it is longer than any that is allowed. */
		if (seen++ == c->iov_max)
			return -ELOOP;
		chain_add(q, c, &d);
		if (!(le16_get(d.flags) & VIRTQ_DESC_NEXT))
			return 0;
		i = le16_get(d.next);
	}
}

int virtq_pop(struct virtq *q, struct virtq_chain *c)
{
	int err;

	if (q->broken)
		return -EINVAL;
	if (q->last_avail == q->avail_idx) {
		/* Pairs with the driver's barrier before it raises idx: what it covers is there. */
		uint16_t idx = ring_load(q->avail + RING_IDX, memory_order_acquire);

		if ((uint16_t)(idx - q->last_avail) > q->size) {
			q->broken = true;
			return -EINVAL;
		}
		if (idx == q->last_avail)
			return 0;
		q->avail_idx = idx;
	}
	c->head = ring_load(q->avail + RING_ENTRIES + 2 * (q->last_avail & (q->size - 1)),
		memory_order_relaxed);
	c->n_out = c->n_in = 0;
	c->out_len = c->in_len = 0;
	c->last = NULL;
	c->bad = false;
	err = chain_walk(q, c);
	if (err) {
		q->broken = true;
		return err;
	}
	q->last_avail++;
	return 1;
}

void virtq_push(struct virtq *q, uint16_t head, uint32_t len)
{
	struct virtq_used_elem e = {le32_make(head), le32_make(len)};

	memcpy(q->used + RING_ENTRIES + sizeof(e) * (q->used_idx & (q->size - 1)), &e, sizeof(e));
	q->used_idx++;
	/* Pairs with the driver's load of idx: the element, the data and the status come first. */
	ring_store(q->used + RING_IDX, q->used_idx, memory_order_release);
}

void virtq_hush(struct virtq *q)
{
	/* With event indexes an avail_event that stays behind says the same. */
	if (!q->event_idx)
		ring_store(q->used, USED_NO_NOTIFY, memory_order_relaxed);
}

bool virtq_listen(struct virtq *q)
{
	if (q->event_idx)
		ring_store(avail_event(q), q->last_avail, memory_order_relaxed);
	else
		ring_store(q->used, 0, memory_order_relaxed);
	/*
	 * Pairs with the driver's barrier between raising idx and looking whether we want to
	 * hear of it: either it sees that we do, or we see its idx.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	return !q->broken && ring_load(q->avail + RING_IDX, memory_order_relaxed) != q->last_avail;
}

bool virtq_wants_irq(struct virtq *q)
{
	uint16_t old = q->signalled, new = q->used_idx, event;

	if (new == old)
		return false;
	q->signalled = new;
	/*
	 * Pairs with the driver's barrier between asking for an interrupt and looking at the
	 * used ring once more: either it sees our idx, or we see that it asks.
	 */
	atomic_thread_fence(memory_order_seq_cst);
	if (!q->event_idx)
		return !(ring_load(q->avail, memory_order_relaxed) & AVAIL_NO_INTERRUPT);
	/* 2.7.10: did idx pass used_event, modulo 2^16, on its way from old to new? */
	event = ring_load(used_event(q), memory_order_relaxed);
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}
