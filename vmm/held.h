/* SPDX-License-Identifier: MIT */
/*
 * held.h - port writes that KVM holds back in a ring instead of leaving the guest for each.
 */
#ifndef VMM_HELD_H
#define VMM_HELD_H

#include <pthread.h>
#include "vmm/bus.h"

struct kvm_coalesced_mmio_ring;

struct held {
	struct kvm_coalesced_mmio_ring *ring; /* NULL: this KVM holds nothing back */
	unsigned slots;
	struct bus *bus;
	unsigned reader; /* of the bus; nobody else's */
	pthread_mutex_t lock;
};

/* ring: one page of `bytes`, shared with KVM; or NULL. */
void held_init(struct held *h, void *ring, unsigned bytes, struct bus *bus, unsigned reader);
void held_fini(struct held *h);
/*
 * When it returns, every write that was in the ring has reached its device, in order.  Any thread,
 * several at once, but not one that is inside a handler.
 */
void held_settle(struct held *h);

#endif
