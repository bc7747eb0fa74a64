/* SPDX-License-Identifier: MIT */
/*
 * vcpu_state.c - a vCPU's registers: saved when new, put back at every reset.
 *
 * KVM makes a vCPU in the state of a processor after power-on and offers no way back
 * there.  So that state is read once, and a reset writes it again.  The time stamp
 * counter alone goes on: hosts differ in whether it can be set, and one that is set on
 * each vCPU in turn would no longer agree between them.
 */
#include "vmm/vcpu_state.h"

#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include "vmm/kvm.h"

#define MSR_TSC       0x10
#define MSR_MTRR_TYPE 0x2ff

struct vcpu_state {
	struct kvm_regs regs;
	struct kvm_sregs sregs;
	struct kvm_xsave xsave;
	struct kvm_xcrs xcrs;
	bool have_xsave, have_xcrs;
	struct kvm_fpu fpu; /* where there is no xsave */
	struct kvm_debugregs debugregs;
	struct kvm_vcpu_events events;
	struct kvm_mp_state mp;
	struct kvm_lapic_state lapic;
	struct kvm_msrs *msrs;
};

/* Reads one at a time: KVM lists MSRs that some hosts then refuse, and stops at the first. */
static int msrs_save(struct kvm *k, int fd, struct kvm_msrs **out)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} one;
	struct kvm_msrs *m;
	uint32_t *list;
	unsigned n;
	int err = kvm_msr_list(k, &list, &n);

	if (err)
		return err;
	m = calloc(1, sizeof(*m) + n * sizeof(m->entries[0]));
	for (unsigned i = 0; m && i < n; i++) {
		memset(&one, 0, sizeof(one));
		one.head.nmsrs = 1;
		one.e.index = list[i];
		if (list[i] != MSR_TSC && ioctl(fd, KVM_GET_MSRS, &one) == 1)
			m->entries[m->nmsrs++] = one.e;
	}
	free(list);
	if (!m)
		return -ENOMEM;
	*out = m;
	return 0;
}

int vcpu_state_save(struct kvm *k, int fd, struct vcpu_state **out)
{
	struct vcpu_state *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	s->have_xsave = kvm_has(k, KVM_CAP_XSAVE);
	s->have_xcrs = kvm_has(k, KVM_CAP_XCRS);
	if (ioctl(fd, KVM_GET_REGS, &s->regs) || ioctl(fd, KVM_GET_SREGS, &s->sregs) ||
		(s->have_xsave && ioctl(fd, KVM_GET_XSAVE, &s->xsave)) ||
		(s->have_xcrs && ioctl(fd, KVM_GET_XCRS, &s->xcrs)) ||
		(!s->have_xsave && ioctl(fd, KVM_GET_FPU, &s->fpu)) ||
		ioctl(fd, KVM_GET_DEBUGREGS, &s->debugregs) ||
		ioctl(fd, KVM_GET_VCPU_EVENTS, &s->events) || ioctl(fd, KVM_GET_MP_STATE, &s->mp) ||
		ioctl(fd, KVM_GET_LAPIC, &s->lapic)) {
		err = -errno;
		free(s);
		return err;
	}
	err = msrs_save(k, fd, &s->msrs);
	if (err) {
		free(s);
		return err;
	}
	*out = s;
	return 0;
}

/* What refuses to go back to its own earlier value was read-only all along. */
static void msrs_restore(int fd, struct kvm_msrs *m)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} one;

	for (unsigned i = 0; i < m->nmsrs; i++) {
		memset(&one, 0, sizeof(one));
		one.head.nmsrs = 1;
		one.e = m->entries[i];
		(void)ioctl(fd, KVM_SET_MSRS, &one);
	}
}

int vcpu_state_restore(int fd, struct vcpu_state *s)
{
	/* The local APIC needs its base (sregs) first, the deadline timer's MSR the local APIC. */
	if (ioctl(fd, KVM_SET_SREGS, &s->sregs) || ioctl(fd, KVM_SET_REGS, &s->regs) ||
		(s->have_xsave && ioctl(fd, KVM_SET_XSAVE, &s->xsave)) ||
		(s->have_xcrs && ioctl(fd, KVM_SET_XCRS, &s->xcrs)) ||
		(!s->have_xsave && ioctl(fd, KVM_SET_FPU, &s->fpu)) ||
		ioctl(fd, KVM_SET_DEBUGREGS, &s->debugregs) || ioctl(fd, KVM_SET_LAPIC, &s->lapic))
		return -errno;
	msrs_restore(fd, s->msrs);
	if (ioctl(fd, KVM_SET_MP_STATE, &s->mp) || ioctl(fd, KVM_SET_VCPU_EVENTS, &s->events))
		return -errno;
	return 0;
}

void vcpu_state_free(struct vcpu_state *s)
{
	if (s)
		free(s->msrs);
	free(s);
}

static unsigned bits_for(unsigned n)
{
	unsigned b = 0;

	while ((1U << b) < n)
		b++;
	return b;
}

/* One socket with n cores of one thread; the APIC id is the vCPU's number. */
static void cpuid_topology(struct kvm_cpuid_entry2 *e, unsigned id, unsigned n)
{
	unsigned bits = bits_for(n);

	switch (e->function) {
	case 1:
		e->ebx = (e->ebx & 0x0000ffff) | (n > 255 ? 255 : n) << 16 | id << 24;
		e->ecx |= 1U << 24; /* TSC deadline timer: always there with APICs in the kernel */
		e->ecx |= 1U << 31; /* a hypervisor is present */
		e->edx = n > 1 ? e->edx | 1U << 28 : e->edx & ~(1U << 28);
		break;
	case 4:
	case 0x8000001d:
		/* Level-3 caches are shared by all, the others by nobody. */
		if (e->eax & 0x1f) {
			unsigned shared = (e->eax >> 5 & 7) >= 3 ? (1U << bits) - 1 : 0;
			unsigned cores = e->function == 4 ? (1U << bits) - 1 : 0;

			e->eax = (e->eax & 0x3fff) | shared << 14 | (cores & 0x3f) << 26;
		}
		break;
	case 0xb:
	case 0x1f:
		e->eax = e->index == 1 ? bits : 0;
		e->ebx = e->index == 0 ? 1 : e->index == 1 ? n : 0;
		e->ecx = e->index | (e->index < 2 ? (e->index + 1) << 8 : 0);
		e->edx = id;
		break;
	case 0x80000001:
		e->ecx = n > 1 ? e->ecx | 2 : e->ecx & ~2U; /* AMD: cores, not threads */
		break;
	case 0x80000008:
		e->ecx = (e->ecx & ~0xf0ffU) | (n - 1 > 255 ? 255 : n - 1) | bits << 12;
		break;
	case 0x8000001e:
		e->eax = id;
		e->ebx = id;
		e->ecx = 0;
		break;
	}
}

int vcpu_cpuid_set(struct kvm *k, int fd, unsigned id, unsigned n)
{
	struct kvm_cpuid2 *c;
	int err = kvm_cpuid_supported(k, &c);

	if (err)
		return err;
	for (unsigned i = 0; i < c->nent; i++)
		cpuid_topology(&c->entries[i], id, n);
	if (ioctl(fd, KVM_SET_CPUID2, c))
		err = -errno;
	free(c);
	return err;
}

void vcpu_firmware_set(int fd)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry e;
	} one = {.head.nmsrs = 1, .e = {.index = MSR_MTRR_TYPE, .data = 1 << 11 | 6}};

	/* Memory is cached (MTRRs).  Advice only. */
	(void)ioctl(fd, KVM_SET_MSRS, &one);
}

int vcpu_start_set(int fd, const struct boot_start *start)
{
	struct kvm_segment data = {.limit = 0xffffffff,
		.selector = 0x10,
		.type = 3,
		.present = 1,
		.db = 1,
		.s = 1,
		.g = 1};
	struct kvm_regs regs = {.rip = start->entry, .rflags = 2};
	struct kvm_segment code = data;
	struct kvm_sregs sregs;

	if (start->mode == BOOT_FIRMWARE)
		return 0;
	if (ioctl(fd, KVM_GET_SREGS, &sregs))
		return -errno;
	/* Linux wants its code at 0x10 and its data at 0x18; PVH does not say. */
	code.selector = start->mode == BOOT_PVH ? 0x08 : 0x10;
	data.selector = start->mode == BOOT_PVH ? 0x10 : 0x18;
	code.type = 0xb;
	sregs.tr = (struct kvm_segment){.limit = 0x67, .selector = 0x20, .type = 0xb, .present = 1};
	sregs.ldt = (struct kvm_segment){.unusable = 1};
	sregs.gdt.limit = sregs.idt.limit = 0;
	sregs.cr0 = 0x11; /* PE, and ET which is always set */
	sregs.cr3 = sregs.cr4 = sregs.efer = 0;
	if (start->mode == BOOT_PVH)
		regs.rbx = start->start_info;
	else
		regs.rsi = start->start_info;
	if (start->mode == BOOT_LINUX64) {
		code.l = 1;
		code.db = 0;
		sregs.gdt.base = BOOT_GDT;
		sregs.gdt.limit = 4 * 8 - 1;
		sregs.cr0 |= 1ULL << 31; /* PG */
		sregs.cr3 = BOOT_PAGES;
		sregs.cr4 = 1 << 5; /* PAE */
		sregs.efer = 5 << 8; /* LME, LMA */
	}
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	return ioctl(fd, KVM_SET_SREGS, &sregs) || ioctl(fd, KVM_SET_REGS, &regs) ? -errno : 0;
}
