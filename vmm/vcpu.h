/* SPDX-License-Identifier: MIT */
/*
 * vcpu.h - the machine's processors, one thread each.
 *
 *   new -> PARKED --vcpus_resume()--> RUNNING --vcpus_pause()--> PARKED -> free
 *
 * State is only read or set while all are parked.
 */
#ifndef VMM_VCPU_H
#define VMM_VCPU_H

#include "vmm/boot.h"
#include "vmm/bus.h"
#include "vmm/guest_mem.h"
#include "vmm/util/log.h"

struct kvm;
struct vcpus;

/* Called on a vCPU thread, which leaves the guest afterwards and waits to be paused. */
enum vcpu_end {
	VCPU_TRIPLE_FAULT,
	VCPU_RESET,    /* the guest asked KVM itself */
	VCPU_POWEROFF, /* likewise */
	VCPU_FAILED,   /* KVM cannot go on; said so already */
};

struct vcpu_config {
	struct kvm *kvm;
	struct bus *bus; /* vCPU i is its reader i, what KVM holds back comes by reader n */
	struct gmem *mem;
	unsigned n;
	void (*ended)(void *arg, enum vcpu_end how);
	void *arg;
};

must_check int vcpus_new(const struct vcpu_config *c, struct vcpus **out, struct why *why);
void vcpus_free(struct vcpus *vs); /* pauses first */

/* As after power-on, except that vCPU 0 stands where *start says.  0 or -errno. */
must_check int vcpus_power_on(struct vcpus *vs, const struct boot_start *start);
void vcpus_resume(struct vcpus *vs);
/* Any thread: asks for that.  A vCPU that is out of the guest does not enter it any more. */
void vcpus_pause_soon(struct vcpus *vs);
/* Returns when every vCPU is out of the guest and its last access is complete. */
void vcpus_pause(struct vcpus *vs);

/* Port writes that KVM holds back reach their devices before it returns.  Any thread. */
void vcpus_settle(struct vcpus *vs);

/* The kernel's number of vCPU i's thread. */
int vcpus_thread(const struct vcpus *vs, unsigned i);

/* CLOCK_MONOTONIC when vCPU 0 first entered the guest; 0: not yet. */
uint64_t vcpus_started_ns(const struct vcpus *vs);

#endif
