/* SPDX-License-Identifier: MIT */
/*
 * vcpu_state.h - what a vCPU knows, and what it is told about itself; private to vcpu*.c.
 */
#ifndef VMM_VCPU_STATE_H
#define VMM_VCPU_STATE_H

#include <linux/kvm.h>
#include "vmm/boot.h"
#include "vmm/util/base.h"

struct kvm;
struct vcpu_state;

/* All registers of a vCPU that is not running.  0 or -errno. */
must_check int vcpu_state_save(struct kvm *k, int fd, struct vcpu_state **out);
must_check int vcpu_state_restore(int fd, struct vcpu_state *s);
void vcpu_state_free(struct vcpu_state *s);

/* What the host's KVM supports, with the topology of vCPU id out of n.  Once, before it runs. */
must_check int vcpu_cpuid_set(struct kvm *k, int fd, unsigned id, unsigned n);
/* What firmware would do to every processor before a kernel starts. */
void vcpu_firmware_set(int fd);
/* The registers that a boot protocol wants, over the power-on state. */
must_check int vcpu_start_set(int fd, const struct boot_start *start);

#endif
