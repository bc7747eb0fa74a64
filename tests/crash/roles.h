/* SPDX-License-Identifier: MIT */
/*
 * roles.h - what a write of a recorded run was about: the role of the cluster where it begins.
 *
 * From the recording alone, by the qcow2 specification: clusters that a header, an L1 table
 * or a refcount table named at any time.  Roles survive changes of the source that move clusters
 * and shuffle the order of things, which offsets and ticks do not.
 */
#ifndef TESTS_CRASH_ROLES_H
#define TESTS_CRASH_ROLES_H

#include "tests/crash/crash.h"

enum role { ROLE_DATA, ROLE_HEADER, ROLE_L1, ROLE_L2, ROLE_REFTABLE, ROLE_REFBLOCK, N_ROLES };
extern const char *const role_names[N_ROLES];

struct roles {
	uint32_t cluster_bits;
	uint64_t n; /* clusters */
	uint8_t *of; /* enum role, by cluster */
};

void roles_init(struct roles *p, const struct run_log *r);
void roles_fini(struct roles *p);
enum role role_of(const struct roles *p, const struct host_op *o);

#endif
