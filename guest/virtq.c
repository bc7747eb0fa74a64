/* SPDX-License-Identifier: MIT */
/*
 * virtq.c - the driver's side of a split virtqueue (virtio 1.x, 2.7).
 *
 * Free descriptors are a list through `next`.  A chain goes in as one indirect descriptor where the
 * device can, else as descriptors from the list.  Interrupts are asked for only while the guest is
 * about to sleep; kicks are sent only when the device asks for them (event index, both ways).
 *
 * What the device returns is checked: an id that is not in flight breaks the queue.
 */
#include "guest/ide.h"

#define AVAIL_NO_INTERRUPT 1
#define USED_NO_NOTIFY     1

static uint64_t align_up(uint64_t v, uint64_t to)
{
	return (v + to - 1) & -to;
}

void virtq_init(struct virtq *q, uint16_t size)
{
	uint64_t avail_at = 16ull * size, used_at = align_up(avail_at + 6 + 2ull * size, 64);
	uint64_t bytes = used_at + 6 + 8ull * size;

	if (q->ring_memory_size < size) {
		q->ring_memory = memory_alloc(bytes, PAGE_SIZE, "a queue");
		q->ring_memory_size = size;
	}
	memset(q->ring_memory, 0, bytes);
	memset(q->req, 0, sizeof(q->req));
	q->desc = q->ring_memory;
	q->avail = (void *)((char *)q->ring_memory + avail_at);
	q->used = (void *)((char *)q->ring_memory + used_at);
	q->used_event = &q->avail->ring[size];
	q->avail_event = (volatile uint16_t *)&q->used->ring[size];
	q->size = q->n_free = size;
	q->free_head = q->avail_next = q->avail_kicked = q->used_next = 0;
	q->broken = NULL;
	for (unsigned i = 0; i < size; i++)
		q->desc[i].next = (uint16_t)(i + 1);
	q->avail->flags = AVAIL_NO_INTERRUPT;
}

static void set_desc(struct virtq *q, uint16_t i, const struct virtq_desc *from, bool more)
{
	volatile struct virtq_desc *d = &q->desc[i]; /* next is the free list's already */

	d->addr = from->addr;
	d->len = from->len;
	d->flags = (uint16_t)((from->flags & ~VIRTQ_NEXT) | (more ? VIRTQ_NEXT : 0));
}

bool virtq_add(struct virtq *q, struct vblk_req *r)
{
	struct virtq_desc one = {(uintptr_t)r->table, 16u * r->n_descs, VIRTQ_INDIRECT, 0};
	unsigned n = q->indirect ? 1 : r->n_descs;
	uint16_t head = q->free_head, at = head;

	if (q->ide)
		return ide_add(q, r);
	if (n > q->n_free)
		return false;
	for (unsigned i = 0; i < n; i++) {
		set_desc(q, at, q->indirect ? &one : &r->table[i], i + 1 < n);
		at = q->desc[at].next;
	}
	q->free_head = at;
	q->n_free = (uint16_t)(q->n_free - n);
	q->req[head] = r;
	q->avail->ring[q->avail_next % q->size] = head;
	barrier(); /* x86 keeps stores in order: only the compiler must */
	q->avail->idx = ++q->avail_next;
	return true;
}

void virtq_kick(struct virtq *q)
{
	uint16_t now = q->avail_next, before = q->avail_kicked;
	bool wanted;

	if (q->ide) {
		ide_kick(q);
		return;
	}
	if (now == before)
		return;
	full_barrier(); /* our idx before their event index or flags */
	if (q->event_idx)
		wanted = (uint16_t)(now - *q->avail_event - 1) < (uint16_t)(now - before);
	else
		wanted = !(q->used->flags & USED_NO_NOTIFY);
	q->avail_kicked = now;
	if (!wanted)
		return;
	q->kicks++;
	*q->doorbell = q->index;
}

bool virtq_pending(const struct virtq *q)
{
	if (q->ide)
		return ide_pending(q);
	return q->used->idx != q->used_next;
}

struct vblk_req *virtq_take(struct virtq *q)
{
	struct vblk_req *r;
	uint32_t id;

	if (q->ide)
		return ide_take(q);
	if (q->broken || !virtq_pending(q))
		return NULL;
	barrier();
	id = q->used->ring[q->used_next % q->size].id;
	if (id >= q->size || !q->req[id]) {
		q->broken = "the device returned a chain that it did not have";
		return NULL;
	}
	r = q->req[id];
	q->req[id] = NULL;
	r->used_bytes = q->used->ring[q->used_next % q->size].len;
	q->used_next++;

	uint16_t last = (uint16_t)id;

	for (q->n_free++; q->desc[last].flags & VIRTQ_NEXT; q->n_free++)
		last = q->desc[last].next;
	q->desc[last].next = q->free_head;
	q->free_head = (uint16_t)id;
	return r;
}

static void want_interrupt(struct virtq *q, bool on)
{
	q->avail->flags = on || q->event_idx ? 0 : AVAIL_NO_INTERRUPT;
	if (q->event_idx) /* off: an index that is 2^16 - 1 completions away */
		*q->used_event = (uint16_t)(on ? q->used_next : q->used_next - 1);
	full_barrier(); /* before the caller looks at used->idx again */
}

bool virtq_wait(struct virtq *q, uint64_t deadline_tsc)
{
	if (q->ide)
		return ide_wait(q, deadline_tsc);
	while (!virtq_pending(q)) {
		uint32_t seen = irq_events, ours = irq_device[q->irq];

		if (q->broken || rdtsc() > deadline_tsc)
			return false;
		if (q->poll) {
			__builtin_ia32_pause();
			continue;
		}
		want_interrupt(q, true);
		if (!virtq_pending(q)) {
			cpu_idle(seen);
			/* Woken by the timer to find work done: an interrupt late, or lost. */
			q->missed_irqs += virtq_pending(q) && irq_device[q->irq] == ours;
		}
		want_interrupt(q, false);
	}
	return true;
}
