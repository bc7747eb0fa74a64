/* SPDX-License-Identifier: MIT */
/*
 * guest_mem.h - the guest's RAM, and the one door to it.
 *
 * Fixed when the machine is built; read by every thread without locks.
 */
#ifndef VMM_GUEST_MEM_H
#define VMM_GUEST_MEM_H

#include <pthread.h>
#include <stdatomic.h>
#include "vmm/util/base.h"
#include "vmm/util/log.h"

/* RAM below the PCI hole ends here at the latest; the rest continues at 4 GiB. */
#define GMEM_LOW_END     0xc0000000ULL
#define GMEM_REGIONS_MAX 2

struct gmem_region {
	uint64_t gpa, len; /* bytes */
	void *host;
};

struct gmem {
	struct gmem_region r[GMEM_REGIONS_MAX];
	int n;
	/* guest_mem.c's: who fills in a small machine's memory while it starts */
	pthread_t filler;
	bool filling;
	atomic_bool stop;
};

/* Anonymous memory, zeroed, 2 MiB aligned.  0 or -errno with words. */
must_check int gmem_init(struct gmem *m, uint64_t bytes, struct why *why);
void gmem_fini(struct gmem *m);

/* Host pointer for [gpa, gpa+len) if it lies wholly in one region of RAM, else NULL. */
void *gmem_ptr(const struct gmem *m, uint64_t gpa, uint64_t len);
uint64_t gmem_bytes(const struct gmem *m);

#endif
