/* SPDX-License-Identifier: MIT */
/*
 * roles.h - what a write of a recorded run was about: the role of the cluster where it begins.
 *
 * From the recording alone, by the qcow2 specification: clusters that a header, an L1 table
 * or a refcount table named at any time.  Roles survive changes of the source that move clusters
 * and shuffle the order of things, which offsets and ticks do not.
 */
#ifndef CRASH_ROLES_H
#define CRASH_ROLES_H

#include "blockdev/crash/log.h"
#include "blockdev/crash/memfile.h"

enum role { ROLE_DATA, ROLE_HEADER, ROLE_L1, ROLE_L2, ROLE_REFTABLE, ROLE_REFBLOCK, N_ROLES };
extern const char *const role_names[N_ROLES];

struct roles {
	uint64_t base; /* where the image begins */
	uint32_t cluster_bits;
	uint64_t n;  /* clusters */
	uint8_t *of; /* enum role, by cluster */
};

/*
 * cluster_size 0: not qcow2, all is data.  start: the file when the log began; the image begins at
 * base.
 */
void roles_init(struct roles *p, const struct crash_log *log, const struct mem_image *start,
	uint64_t base, uint32_t cluster_size);
void roles_fini(struct roles *p);
enum role role_of(const struct roles *p, const struct host_op *o);

#endif
