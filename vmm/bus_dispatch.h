/* SPDX-License-Identifier: MIT */
/*
 * bus_dispatch.h - making a bus, and the vCPUs' side of it.
 */
#ifndef VMM_BUS_DISPATCH_H
#define VMM_BUS_DISPATCH_H

#include "vmm/bus.h"

struct kvm;

/* kvm may be NULL (unit tests): then there are no doorbells. */
must_check int bus_new(struct kvm *kvm, unsigned n_readers, struct bus **out);
/* No reader is inside. */
void bus_free(struct bus *b);

/*
 * One access by reader number 0..n_readers-1; each reader is one thread at a time.  len is at most
 * 8 and the access may straddle ranges.  Not from inside a handler.
 */
void bus_read(struct bus *b, unsigned reader, enum bus_kind kind, uint64_t addr, void *data,
	unsigned len);
void bus_write(struct bus *b, unsigned reader, enum bus_kind kind, uint64_t addr, const void *data,
	unsigned len);
/* n elements of len bytes at one port; in or out is NULL. */
void bus_string(struct bus *b, unsigned reader, uint64_t port, void *in, const void *out,
	unsigned len, unsigned n);

#endif
