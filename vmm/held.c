/* SPDX-License-Identifier: MIT */
/*
 * held.c - the reading end of KVM's ring of held-back port writes (coalesced PIO).
 *
 * A write to a port that bus_hold_back() named costs the guest 1 to 4 us in the kernel instead of
 * an exit of 25.  Whatever leaves the guest for another reason settles first, so a device sees
 * all accesses in the order in which its vCPU made them.
 *
 * KVM writes entries and moves `last`; we handle them and move `first`, only after the handler
 * has run: whoever finds the ring empty knows that all of it has arrived.
 */
#include "vmm/held.h"

#include <linux/kvm.h>
#include "vmm/bus_dispatch.h"

void held_init(struct held *h, void *ring, unsigned bytes, struct bus *bus, unsigned reader)
{
	h->ring = ring;
	h->slots = (unsigned)((bytes - sizeof(*h->ring)) / sizeof(h->ring->coalesced_mmio[0]));
	h->bus = bus;
	h->reader = reader;
	pthread_mutex_init(&h->lock, NULL);
}

void held_fini(struct held *h)
{
	pthread_mutex_destroy(&h->lock);
}

static bool empty(const struct held *h)
{
	return __atomic_load_n(&h->ring->first, __ATOMIC_ACQUIRE) ==
	       __atomic_load_n(&h->ring->last, __ATOMIC_ACQUIRE);
}

void held_settle(struct held *h)
{
	if (!h->ring || empty(h))
		return;
	pthread_mutex_lock(&h->lock);
	while (!empty(h)) {
		struct kvm_coalesced_mmio *e = &h->ring->coalesced_mmio[h->ring->first];
		unsigned len = e->len;

		assert(len <= sizeof(e->data));
		bus_write(h->bus, h->reader, e->pio ? BUS_PORT : BUS_MMIO, e->phys_addr, e->data,
			len);
		__atomic_store_n(
			&h->ring->first, (h->ring->first + 1) % h->slots, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&h->lock);
}
