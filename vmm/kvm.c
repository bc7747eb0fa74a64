/* SPDX-License-Identifier: MIT */
/*
 * kvm.c - every ioctl on /dev/kvm and on the VM's descriptor.
 *
 * What KVM must be able to do is one table, checked once when the VM is made, so that
 * nothing fails later for want of a capability.
 *
 * Not here: vCPUs (vcpu.c), who owns which GSI (irq.c), what lies behind an address (bus.c).
 */
#include "vmm/kvm.h"

#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define KVM_PATH "/dev/kvm"
/* Three pages that Intel hosts without unrestricted guests want; under the local APIC, in no RAM.
 */
#define IDENTITY_MAP_GPA 0xfeffc000ULL
#define TSS_GPA          0xfeffd000UL

/*
 * How long a halted vCPU is polled for before its thread sleeps, nanoseconds: as long as a write
 * to a disk takes to become durable, so that a guest which waits for that is not put to sleep and
 * woken once a write (60 us of 300 here).  KVM polls less by itself where polling does not pay.
 */
#define HALT_POLL_NS 500000

struct kvm {
	int dev, vm;
	uint64_t run_bytes;
	unsigned max_vcpus, max_routes;
};

struct kvm_chips {
	struct kvm_irqchip chip[3]; /* two PICs and the I/O APIC */
	struct kvm_pit_state2 pit;
};

static const struct {
	int cap;
	const char *name;
} needed[] = {
	{KVM_CAP_USER_MEMORY, "user memory"},
	{KVM_CAP_READONLY_MEM, "read-only memory"},
	{KVM_CAP_IRQCHIP, "interrupt controllers in the kernel"},
	{KVM_CAP_PIT2, "PIT"},
	{KVM_CAP_IRQ_ROUTING, "interrupt routing"},
	{KVM_CAP_IRQFD, "irqfd"},
	{KVM_CAP_IOEVENTFD, "ioeventfd"},
	{KVM_CAP_IOEVENTFD_ANY_LENGTH, "ioeventfd of any length"},
	{KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
	{KVM_CAP_EXT_CPUID, "CPUID"},
	{KVM_CAP_MP_STATE, "vCPU run states"},
	{KVM_CAP_VCPU_EVENTS, "vCPU events"},
	{KVM_CAP_DEBUGREGS, "debug registers"},
};

static int dev_open(struct kvm *k, struct why *why)
{
	int err, version;

	k->dev = open(KVM_PATH, O_RDWR | O_CLOEXEC);
	if (k->dev < 0) {
		err = -errno;
		if (err == -ENOENT)
			return why_set(why, err,
				KVM_PATH
				" is missing: load the module kvm_intel or "
				"kvm_amd, and switch virtualization on in the firmware (in a "
				"container, pass the device in)");
		if (err == -EACCES || err == -EPERM)
			return why_set(why, err,
				"no permission to open " KVM_PATH
				": join the group that owns it (usually 'kvm') and log in again");
		return why_set(why, err, "cannot open " KVM_PATH ": %s", strerror(-err));
	}
	version = ioctl(k->dev, KVM_GET_API_VERSION, 0);
	if (version < 0)
		return why_set(why, -ENODEV, KVM_PATH " is not KVM: %s", strerror(errno));
	if (version != KVM_API_VERSION)
		return why_set(why, -ENODEV, KVM_PATH " speaks API version %d, not %d", version,
			KVM_API_VERSION);
	for (unsigned i = 0; i < ARRAY_SIZE(needed); i++) {
		if (ioctl(k->dev, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return why_set(why, -ENODEV, "this kernel's KVM lacks %s", needed[i].name);
	}
	return 0;
}

static int cap_value(struct kvm *k, int cap, int if_absent)
{
	int v = ioctl(k->dev, KVM_CHECK_EXTENSION, cap);

	return v > 0 ? v : if_absent;
}

/*
 * PCI's inputs are level-triggered, as firmware would set them (PIIX3, ELCR at 0x4d1): an edge
 * that comes while another device still holds the wire up would be no edge.
 */
static int pci_lines_level(struct kvm *k)
{
	struct kvm_irqchip chip = {.chip_id = KVM_IRQCHIP_PIC_SLAVE};

	if (ioctl(k->vm, KVM_GET_IRQCHIP, &chip))
		return -1;
	chip.chip.pic.elcr |= 1 << (10 - 8) | 1 << (11 - 8);
	return ioctl(k->vm, KVM_SET_IRQCHIP, &chip);
}

/* Nothing depends on it: a KVM without per-VM polling keeps its own limit. */
static void halt_poll(struct kvm *k)
{
	struct kvm_enable_cap cap = {.cap = KVM_CAP_HALT_POLL, .args = {HALT_POLL_NS}};

	if (ioctl(k->dev, KVM_CHECK_EXTENSION, KVM_CAP_HALT_POLL) > 0)
		ioctl(k->vm, KVM_ENABLE_CAP, &cap);
}

static int vm_create(struct kvm *k, struct why *why)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	uint64_t identity = IDENTITY_MAP_GPA;
	const char *step = "create a virtual machine";
	int err;

	do {
		k->vm = ioctl(k->dev, KVM_CREATE_VM, 0);
	} while (k->vm < 0 && errno == EINTR);
	if (k->vm < 0)
		goto fail;
	step = "place KVM's own pages";
	if (ioctl(k->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity) && errno != ENOTTY &&
		errno != EINVAL)
		goto fail;
	if (ioctl(k->vm, KVM_SET_TSS_ADDR, TSS_GPA) && errno != ENOTTY && errno != EINVAL)
		goto fail;
	step = "create the interrupt controllers";
	if (ioctl(k->vm, KVM_CREATE_IRQCHIP, 0) || pci_lines_level(k))
		goto fail;
	step = "create the timer";
	if (ioctl(k->vm, KVM_CREATE_PIT2, &pit))
		goto fail;
	halt_poll(k);
	return 0;
fail:
	err = -errno;
	return why_set(why, err, "KVM cannot %s: %s", step, strerror(-err));
}

int kvm_open(struct kvm **out, struct why *why)
{
	struct kvm *k = calloc(1, sizeof(*k));
	int err, bytes;

	if (!k)
		return -ENOMEM;
	k->dev = k->vm = -1;
	err = dev_open(k, why);
	if (err)
		goto fail;
	err = vm_create(k, why);
	if (err)
		goto fail;
	bytes = ioctl(k->dev, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (bytes < (int)sizeof(struct kvm_run)) {
		err = why_set(why, -ENODEV, "KVM's shared page has no size");
		goto fail;
	}
	k->run_bytes = (uint64_t)bytes;
	k->max_vcpus = (unsigned)cap_value(k, KVM_CAP_MAX_VCPUS, cap_value(k, KVM_CAP_NR_VCPUS, 4));
	k->max_routes = (unsigned)cap_value(k, KVM_CAP_IRQ_ROUTING, 1024);
	err = kvm_routes_set(k, NULL, 0);
	if (err) {
		why_set(why, err, "KVM refuses the interrupt routes: %s", strerror(-err));
		goto fail;
	}
	*out = k;
	return 0;
fail:
	kvm_close(k);
	return err;
}

void kvm_close(struct kvm *k)
{
	if (!k)
		return;
	if (k->vm >= 0)
		close(k->vm);
	if (k->dev >= 0)
		close(k->dev);
	free(k);
}

unsigned kvm_max_vcpus(const struct kvm *k)
{
	return k->max_vcpus;
}

static int slot_set(
	struct kvm *k, unsigned slot, uint32_t flags, uint64_t gpa, uint64_t len, void *host)
{
	struct kvm_userspace_memory_region r = {.slot = slot,
		.flags = flags,
		.guest_phys_addr = gpa,
		.memory_size = len,
		.userspace_addr = (uintptr_t)host};

	return ioctl(k->vm, KVM_SET_USER_MEMORY_REGION, &r) ? -errno : 0;
}

int kvm_mem_add(struct kvm *k, unsigned slot, uint64_t gpa, uint64_t len, void *host)
{
	return slot_set(k, slot, 0, gpa, len, host);
}

int kvm_rom_add(struct kvm *k, unsigned slot, uint64_t gpa, uint64_t len, void *host)
{
	return slot_set(k, slot, KVM_MEM_READONLY, gpa, len, host);
}

int kvm_doorbell(struct kvm *k, bool port, uint64_t addr, unsigned len, int fd, bool add)
{
	struct kvm_ioeventfd e = {.addr = addr,
		.len = len,
		.fd = fd,
		.flags = (port ? KVM_IOEVENTFD_FLAG_PIO : 0) |
			 (add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN)};

	return ioctl(k->vm, KVM_IOEVENTFD, &e) ? -errno : 0;
}

int kvm_hold_back(struct kvm *k, uint64_t port, unsigned len)
{
	struct kvm_coalesced_mmio_zone z = {.addr = port, .size = len, .pio = 1};

	if (!kvm_held_ring(k))
		return -ENOTSUP;
	return ioctl(k->vm, KVM_REGISTER_COALESCED_MMIO, &z) ? -errno : 0;
}

uint64_t kvm_held_ring(struct kvm *k)
{
	int page = ioctl(k->dev, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_MMIO);

	if (page <= 0 || ioctl(k->dev, KVM_CHECK_EXTENSION, KVM_CAP_COALESCED_PIO) <= 0)
		return 0;
	return (uint64_t)page * (uint64_t)sysconf(_SC_PAGESIZE);
}

int kvm_irq_line(struct kvm *k, unsigned gsi, bool level)
{
	struct kvm_irq_level l = {.irq = gsi, .level = level};

	return ioctl(k->vm, KVM_IRQ_LINE, &l) ? -errno : 0;
}

int kvm_irqfd(struct kvm *k, unsigned gsi, int fd, bool add)
{
	struct kvm_irqfd f = {
		.fd = (uint32_t)fd, .gsi = gsi, .flags = add ? 0 : KVM_IRQFD_FLAG_DEASSIGN};

	return ioctl(k->vm, KVM_IRQFD, &f) ? -errno : 0;
}

static struct kvm_irq_routing_entry pin_route(unsigned gsi, unsigned chip, unsigned pin)
{
	return (struct kvm_irq_routing_entry){.gsi = gsi,
		.type = KVM_IRQ_ROUTING_IRQCHIP,
		.u.irqchip = {.irqchip = chip, .pin = pin}};
}

/*
 * As on a PC: ISA IRQs 0-15 reach the PICs and the I/O APIC, except that the PIT sits on
 * pin 2 of the latter and that IRQ 2 of the former is the cascade.
 */
static unsigned pin_routes(struct kvm_irq_routing_entry *e)
{
	unsigned n = 0;

	for (unsigned gsi = 0; gsi < 16; gsi++) {
		if (gsi != 2)
			e[n++] = pin_route(gsi,
				gsi < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, gsi % 8);
	}
	for (unsigned gsi = 0; gsi < KVM_GSI_PINS; gsi++) {
		if (gsi != 2)
			e[n++] = pin_route(gsi, KVM_IRQCHIP_IOAPIC, gsi == 0 ? 2 : gsi);
	}
	return n;
}

int kvm_routes_set(struct kvm *k, const struct kvm_msi_route *r, unsigned n)
{
	struct kvm_irq_routing *t;
	int err = 0;

	if (n > k->max_routes - 2 * KVM_GSI_PINS)
		return -ENOSPC;
	t = calloc(1, sizeof(*t) + (2 * KVM_GSI_PINS + n) * sizeof(t->entries[0]));
	if (!t)
		return -ENOMEM;
	t->nr = pin_routes(t->entries);
	for (unsigned i = 0; i < n; i++) {
		t->entries[t->nr++] = (struct kvm_irq_routing_entry){.gsi = r[i].gsi,
			.type = KVM_IRQ_ROUTING_MSI,
			.u.msi = {.address_lo = (uint32_t)r[i].addr,
				.address_hi = (uint32_t)(r[i].addr >> 32),
				.data = r[i].data}};
	}
	if (ioctl(k->vm, KVM_SET_GSI_ROUTING, t))
		err = -errno;
	free(t);
	return err;
}

int kvm_chips_save(struct kvm *k, struct kvm_chips **out)
{
	struct kvm_chips *c = calloc(1, sizeof(*c));
	int err;

	if (!c)
		return -ENOMEM;
	for (unsigned i = 0; i < ARRAY_SIZE(c->chip); i++) {
		c->chip[i].chip_id = i;
		if (ioctl(k->vm, KVM_GET_IRQCHIP, &c->chip[i]))
			goto fail;
	}
	if (ioctl(k->vm, KVM_GET_PIT2, &c->pit))
		goto fail;
	*out = c;
	return 0;
fail:
	err = -errno;
	free(c);
	return err;
}

int kvm_chips_restore(struct kvm *k, const struct kvm_chips *c)
{
	struct kvm_chips copy = *c;

	for (unsigned i = 0; i < ARRAY_SIZE(copy.chip); i++) {
		if (ioctl(k->vm, KVM_SET_IRQCHIP, &copy.chip[i]))
			return -errno;
	}
	return ioctl(k->vm, KVM_SET_PIT2, &copy.pit) ? -errno : 0;
}

int kvm_vcpu_create(struct kvm *k, unsigned id, int *fd)
{
	int r = ioctl(k->vm, KVM_CREATE_VCPU, (unsigned long)id);

	if (r < 0)
		return -errno;
	*fd = r;
	return 0;
}

uint64_t kvm_run_bytes(const struct kvm *k)
{
	return k->run_bytes;
}

int kvm_cpuid_supported(struct kvm *k, struct kvm_cpuid2 **out)
{
	/* KVM says E2BIG until the table is large enough; it has never needed more than 256. */
	for (unsigned n = 128; n <= 4096; n *= 2) {
		struct kvm_cpuid2 *c = calloc(1, sizeof(*c) + n * sizeof(c->entries[0]));
		int err = 0;

		if (!c)
			return -ENOMEM;
		c->nent = n;
		if (!ioctl(k->dev, KVM_GET_SUPPORTED_CPUID, c)) {
			*out = c;
			return 0;
		}
		err = -errno;
		free(c);
		if (err != -E2BIG)
			return err;
	}
	return -E2BIG;
}

int kvm_msr_list(struct kvm *k, uint32_t **out, unsigned *n)
{
	struct kvm_msr_list probe = {.nmsrs = 0}, *l;
	int err = 0;

	/* The first call fails and says how many there are. */
	if (ioctl(k->dev, KVM_GET_MSR_INDEX_LIST, &probe) && errno != E2BIG)
		return -errno;
	l = calloc(1, sizeof(*l) + probe.nmsrs * sizeof(l->indices[0]));
	if (!l)
		return -ENOMEM;
	l->nmsrs = probe.nmsrs;
	if (ioctl(k->dev, KVM_GET_MSR_INDEX_LIST, l)) {
		err = -errno;
	} else {
		*n = l->nmsrs;
		*out = calloc(l->nmsrs + 1, sizeof(uint32_t));
		if (*out)
			memcpy(*out, l->indices, l->nmsrs * sizeof(uint32_t));
		else
			err = -ENOMEM;
	}
	free(l);
	return err;
}

bool kvm_has(struct kvm *k, int cap)
{
	return ioctl(k->dev, KVM_CHECK_EXTENSION, cap) > 0;
}
