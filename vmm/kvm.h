/* SPDX-License-Identifier: MIT */
/*
 * kvm.h - one virtual machine in the kernel: all that is asked of the VM as a whole.
 *
 * Together with vcpu.c, kvm.c is the only place that speaks to /dev/kvm.  Everything here
 * may be called from any thread once the VM is there.
 */
#ifndef VMM_KVM_H
#define VMM_KVM_H

#include "vmm/util/base.h"
#include "vmm/util/log.h"

struct kvm;
struct kvm_cpuid2;

/*
 * A VM with interrupt controllers (two PICs, an I/O APIC with 24 pins, local APICs) and a
 * PIT in the kernel.  0, or -errno with words that say what to do.
 */
must_check int kvm_open(struct kvm **out, struct why *why);
void kvm_close(struct kvm *k);
unsigned kvm_max_vcpus(const struct kvm *k);

must_check int kvm_mem_add(struct kvm *k, unsigned slot, uint64_t gpa, uint64_t len, void *host);

/* The same, but the guest cannot write there: its writes go to the bus. */
must_check int kvm_rom_add(struct kvm *k, unsigned slot, uint64_t gpa, uint64_t len, void *host);

/* A write of len bytes (0: of any width) to addr signals fd and goes no further. */
must_check int kvm_doorbell(
	struct kvm *k, bool port, uint64_t addr, unsigned len, int fd, bool add);

/*
 * Writes to these ports wait in the ring that kvm_held_ring() finds.  -ENOTSUP: this KVM cannot.
 */
must_check int kvm_hold_back(struct kvm *k, uint64_t port, unsigned len);
/* Where in a vCPU's shared pages that ring is, one page; 0: nowhere. */
uint64_t kvm_held_ring(struct kvm *k);

/* The first GSI that is not a pin; MSI routes start there. */
#define KVM_GSI_PINS 24
must_check int kvm_irq_line(struct kvm *k, unsigned gsi, bool level);
must_check int kvm_irqfd(struct kvm *k, unsigned gsi, int fd, bool add);
struct kvm_msi_route {
	unsigned gsi;
	uint64_t addr;
	uint32_t data;
};
/* Replaces the whole table in one step: the pins, and these. */
must_check int kvm_routes_set(struct kvm *k, const struct kvm_msi_route *r, unsigned n);

/* The interrupt controllers and the PIT, as they are and as they were. */
struct kvm_chips;
must_check int kvm_chips_save(struct kvm *k, struct kvm_chips **out);
must_check int kvm_chips_restore(struct kvm *k, const struct kvm_chips *c);

/* For vcpu.c: a new vCPU's descriptor, the size of its shared page, what CPUID may say. */
must_check int kvm_vcpu_create(struct kvm *k, unsigned id, int *fd);
uint64_t kvm_run_bytes(const struct kvm *k);
must_check int kvm_cpuid_supported(struct kvm *k, struct kvm_cpuid2 **out);
/* The MSRs that make up a vCPU's state; *out belongs to the caller. */
must_check int kvm_msr_list(struct kvm *k, uint32_t **out, unsigned *n);
bool kvm_has(struct kvm *k, int cap);

#endif
