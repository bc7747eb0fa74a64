/* SPDX-License-Identifier: MIT */
/*
 * bus.h - which device answers which port or guest-physical address.
 *
 * Handlers run on the vCPU thread that accessed the range, several at once if
 * several vCPUs do.  An access that no range claims reads as all ones and writes
 * nowhere.  An access that straddles the end of a range is cut to bytes by the bus.
 */
#ifndef VMM_BUS_H
#define VMM_BUS_H

#include "vmm/util/base.h"

struct bus;
enum bus_kind { BUS_PORT, BUS_MMIO };

struct bus_range {
	/* off is relative to base; len is 1, 2, 4 or 8 (ports: 1, 2 or 4) and any alignment. */
	void (*read)(struct bus_range *r, uint64_t off, void *data, unsigned len);
	void (*write)(struct bus_range *r, uint64_t off, const void *data, unsigned len);
	/*
	 * A string instruction: n elements of len bytes, all at off, one after another; in or out
	 * is NULL.  NULL: read and write, element by element.
	 */
	void (*string)(struct bus_range *r, uint64_t off, void *in, const void *out, unsigned len,
		unsigned n);
	uint64_t base, len;
	const char *name;
};

/*
 * 0, or -EEXIST if it overlaps another range, -EINVAL if it is empty or wraps around, -ENOSPC.
 * The range belongs to the caller.  May be called from a handler.
 */
must_check int bus_add(struct bus *b, enum bus_kind kind, struct bus_range *r);
/*
 * After it returns no new call into r starts and no other thread is inside one.
 * May be called from a handler (a BAR that moves), also from r's own, which then may finish; but
 * two handlers must not each wait for the other's range to be left.
 */
void bus_remove(struct bus *b, enum bus_kind kind, struct bus_range *r);

/*
 * A doorbell: a guest write to addr signals the eventfd without leaving the kernel (ioeventfd).
 * len 0 means any width.  0 or -errno.
 */
must_check int bus_doorbell_add(
	struct bus *b, enum bus_kind kind, uint64_t addr, unsigned len, int eventfd);
void bus_doorbell_del(struct bus *b, enum bus_kind kind, uint64_t addr, unsigned len, int eventfd);

/*
 * Writes to these ports may come late: before any other access of their vCPU to anything, or when
 * services->settle() is called.  They stay so as long as the machine.  -ENOTSUP: they will not.
 */
must_check int bus_hold_back(struct bus *b, uint64_t port, unsigned len);

#endif
