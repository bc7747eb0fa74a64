/* SPDX-License-Identifier: MIT */
/*
 * fake_driver.h - the driver's side of a virtio PCI device, for tests; after fake_machine.h.
 *
 * Guest memory has a region at 0 and one at 4 GiB, each between pages that nobody may touch,
 * so that a device which leaves it is caught.  Structures are found through the capabilities,
 * as a driver would.
 */
#ifndef TESTS_FAKE_DRIVER_H
#define TESTS_FAKE_DRIVER_H

#include <sys/mman.h>
#include <time.h>
#include "devices/virtio_pci_regs.h"
#include "devices/virtqueue.h"
#include "tests/support/fake_machine.h"

#define FAKE_LOW_BYTES	(2 * MiB)
#define FAKE_HIGH	(4 * GiB)
#define FAKE_HIGH_BYTES (1 * MiB)
#define FAKE_GUARD	4096

static inline void *fake_region(uint64_t len)
{
	uint8_t *p = mmap(NULL, len + 2 * FAKE_GUARD, PROT_NONE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	int err;

	assert(p != MAP_FAILED);
	err = mprotect(p + FAKE_GUARD, len, PROT_READ | PROT_WRITE);
	assert(!err);
	return p + FAKE_GUARD;
}

static inline void fake_mem_init(struct gmem *m)
{
	m->n = 2;
	m->r[0] = (struct gmem_region){0, FAKE_LOW_BYTES, fake_region(FAKE_LOW_BYTES)};
	m->r[1] = (struct gmem_region){FAKE_HIGH, FAKE_HIGH_BYTES, fake_region(FAKE_HIGH_BYTES)};
}

static inline void fake_mem_fini(struct gmem *m)
{
	for (int i = 0; i < m->n; i++)
		munmap((uint8_t *)m->r[i].host - FAKE_GUARD, m->r[i].len + 2 * FAKE_GUARD);
}

/* A split ring in guest memory. */
struct fake_ring {
	struct gmem *mem;
	struct virtq_layout l;
	uint16_t avail_idx, seen_used;
};

/* Where ring n lies; size at most 256. */
static inline void fake_ring_init(struct fake_ring *r, struct gmem *mem, unsigned n, uint16_t size)
{
	uint64_t at = 0x10000 + 0x4000 * n;

	*r = (struct fake_ring){.mem = mem,
		.l = {.size = size, .desc = at, .avail = at + 0x2000, .used = at + 0x3000}};
	memset(gmem_ptr(mem, at, 0x4000), 0, 0x4000);
}

static inline void fake_desc_at(struct gmem *mem, uint64_t table, unsigned i, uint64_t addr,
	uint32_t len, uint16_t flags, uint16_t next)
{
	struct virtq_desc d = {le64_make(addr), le32_make(len), le16_make(flags), le16_make(next)};

	memcpy(gmem_ptr(mem, table + 16 * i, 16), &d, 16);
}

static inline void fake_desc(struct fake_ring *r, unsigned i, uint64_t addr, uint32_t len,
	uint16_t flags, uint16_t next)
{
	fake_desc_at(r->mem, r->l.desc, i, addr, len, flags, next);
}

static inline _Atomic uint16_t *fake_u16(struct fake_ring *r, uint64_t gpa)
{
	return gmem_ptr(r->mem, gpa, 2);
}

/* Makes the chain that begins at head available; fake_ring_publish() shows it. */
static inline void fake_avail(struct fake_ring *r, uint16_t head)
{
	atomic_store_explicit(fake_u16(r, r->l.avail + 4 + 2 * (r->avail_idx % r->l.size)), head,
		memory_order_relaxed);
	r->avail_idx++;
}

static inline void fake_publish(struct fake_ring *r)
{
	atomic_store(fake_u16(r, r->l.avail + 2), r->avail_idx);
}

static inline uint16_t fake_used_idx(struct fake_ring *r)
{
	return atomic_load(fake_u16(r, r->l.used + 2));
}

/* The next used element; false: there is none. */
static inline bool fake_used(struct fake_ring *r, uint32_t *id, uint32_t *len)
{
	struct virtq_used_elem e;

	if (fake_used_idx(r) == r->seen_used)
		return false;
	memcpy(&e, gmem_ptr(r->mem, r->l.used + 4 + 8 * (r->seen_used % r->l.size), 8), 8);
	r->seen_used++;
	*id = le32_get(e.id);
	*len = le32_get(e.len);
	return true;
}

/* A virtio PCI function. */
struct fake_virtio {
	struct fake_machine *m;
	unsigned slot;
	uint64_t bar, common, notify, isr, config;
	unsigned notify_stride, msix_cap;
	uint64_t msix_table, msix_pba;
};

static inline uint64_t vread(struct fake_virtio *d, uint64_t addr, unsigned len)
{
	return fake_read(d->m, BUS_MMIO, addr, len);
}

static inline void vwrite(struct fake_virtio *d, uint64_t addr, uint64_t v, unsigned len)
{
	fake_write(d->m, BUS_MMIO, addr, v, len);
}

/* False: that is not a modern virtio function. */
static inline bool fake_virtio_find(struct fake_virtio *d, struct fake_machine *m, unsigned slot)
{
	unsigned cap = 0, bar;

	*d = (struct fake_virtio){.m = m, .slot = slot};
	if (fake_cfg_read(m, slot, 0, 2) != 0x1af4 || fake_cfg_read(m, slot, 2, 2) < 0x1000)
		return false;
	cap = fake_cap_find(m, slot, CAP_ID_VENDOR, 0);
	bar = 0x10 + 4 * (fake_cfg_read(m, slot, cap + 4, 1) & 7);
	cap = 0;
	d->bar = (fake_cfg_read(m, slot, bar, 4) & ~15u) |
		(uint64_t)fake_cfg_read(m, slot, bar + 4, 4) << 32;
	while ((cap = fake_cap_find(m, slot, CAP_ID_VENDOR, cap)) != 0) {
		uint64_t at = d->bar + fake_cfg_read(m, slot, cap + CAP_OFFSET, 4);

		switch (fake_cfg_read(m, slot, cap + 3, 1)) {
		case CAP_TYPE_COMMON:
			d->common = at;
			break;
		case CAP_TYPE_NOTIFY:
			d->notify = at;
			d->notify_stride = fake_cfg_read(m, slot, cap + 16, 4);
			break;
		case CAP_TYPE_ISR:
			d->isr = at;
			break;
		case CAP_TYPE_DEVICE:
			d->config = at;
			break;
		default:
			break;
		}
	}
	d->msix_cap = fake_cap_find(m, slot, 0x11, 0);
	d->msix_table = d->bar + (fake_cfg_read(m, slot, d->msix_cap + 4, 4) & ~7u);
	d->msix_pba = d->bar + (fake_cfg_read(m, slot, d->msix_cap + 8, 4) & ~7u);
	return d->common && d->notify && d->isr && d->config && d->msix_cap;
}

static inline uint8_t vstatus(struct fake_virtio *d)
{
	return (uint8_t)vread(d, d->common + COMMON_STATUS, 1);
}

static inline void vstatus_add(struct fake_virtio *d, uint8_t bits)
{
	vwrite(d, d->common + COMMON_STATUS, vstatus(d) | bits, 1);
}

static inline uint64_t voffered(struct fake_virtio *d)
{
	uint64_t f;

	vwrite(d, d->common + COMMON_OFFERED_SELECT, 1, 4);
	f = vread(d, d->common + COMMON_OFFERED, 4) << 32;
	vwrite(d, d->common + COMMON_OFFERED_SELECT, 0, 4);
	return f | vread(d, d->common + COMMON_OFFERED, 4);
}

/* Reset, and negotiation up to FEATURES_OK; true if that was accepted. */
static inline bool vnegotiate(struct fake_virtio *d, uint64_t features)
{
	vwrite(d, d->common + COMMON_STATUS, 0, 1);
	vstatus_add(d, STATUS_ACKNOWLEDGE);
	vstatus_add(d, STATUS_DRIVER);
	for (unsigned i = 0; i < 2; i++) {
		vwrite(d, d->common + COMMON_FEATURES_SELECT, i, 4);
		vwrite(d, d->common + COMMON_FEATURES, features >> 32 * i, 4);
	}
	vstatus_add(d, STATUS_FEATURES_OK);
	return vstatus(d) & STATUS_FEATURES_OK;
}

static inline void vqueue_setup(struct fake_virtio *d, unsigned q, const struct virtq_layout *l)
{
	vwrite(d, d->common + COMMON_QUEUE_SELECT, q, 2);
	vwrite(d, d->common + COMMON_QUEUE_SIZE, l->size, 2);
	vwrite(d, d->common + COMMON_QUEUE_DESC, l->desc, 4);
	vwrite(d, d->common + COMMON_QUEUE_DESC + 4, l->desc >> 32, 4);
	vwrite(d, d->common + COMMON_QUEUE_AVAIL, l->avail, 8);
	vwrite(d, d->common + COMMON_QUEUE_USED, l->used, 8);
	vwrite(d, d->common + COMMON_QUEUE_ENABLE, 1, 2);
}

static inline void vkick(struct fake_virtio *d, unsigned q)
{
	vwrite(d, d->notify + (uint64_t)d->notify_stride * q, q, 2);
}

/* Entry of the MSI-X table, unmasked; and the whole of MSI-X on or off. */
static inline void vmsix_entry(struct fake_virtio *d, unsigned i, uint32_t data)
{
	vwrite(d, d->msix_table + 16 * i, 0xfee00000, 4);
	vwrite(d, d->msix_table + 16 * i + 4, 0, 4);
	vwrite(d, d->msix_table + 16 * i + 8, data, 4);
	vwrite(d, d->msix_table + 16 * i + 12, 0, 4);
}

static inline void vmsix_control(struct fake_virtio *d, uint16_t bits)
{
	fake_cfg_write(d->m, d->slot, d->msix_cap + 2, bits, 2);
}

/* Waits until the condition holds, 10 seconds at most; its value. */
#define fake_wait(cond)                                                                            \
	({                                                                                         \
		bool ok_ = false;                                                                  \
		for (int ms_ = 0; ms_ < 10000 && !(ok_ = (cond)); ms_++)                           \
			nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);                   \
		ok_;                                                                               \
	})

#endif
