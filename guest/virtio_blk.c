/* SPDX-License-Identifier: MIT */
/*
 * virtio_blk.c - finds virtio block disks on PCI, brings them up and moves requests.
 *
 * The transport is virtio-pci 1.x: capabilities say where the register blocks are.  Every queue
 * gets its own MSI-X entry; without MSI-X, or with wait=poll, the guest polls.  All disks are
 * brought up, one (disk=) is worked on.
 *
 * Not here: the legacy interface, INTx.
 */
#include "guest/ide.h"

#define VIRTIO_VENDOR 0x1af4
#define NO_VECTOR     0xffff
#define MSI_ADDRESS   0xfee00000u

enum { CAP_COMMON = 1, CAP_NOTIFY, CAP_ISR, CAP_DEVICE };

static struct vblk disks[VBLK_DISKS_MAX];

uint64_t vblk_timeout(void)
{
	static uint64_t seconds;

	if (!seconds)
		seconds = option_u64("timeout", 60, 1, 3600);
	return tsc_after_ms(1000 * seconds);
}

uint8_t vblk_status(const struct vblk *d)
{
	return reg8(d->common, CC_STATUS);
}

uint8_t vblk_writeback(struct vblk *d)
{
	if (d->q[0].ide)
		return ide_writeback(d);
	return reg8(d->config, BC_WRITEBACK);
}

void vblk_set_writeback(struct vblk *d, uint8_t on)
{
	if (d->q[0].ide) {
		ide_set_writeback(d, on);
		return;
	}
	set8(d->config, BC_WRITEBACK, on);
}

/* virtio 1.x, 5.2.6.2: what the driver may assume of the cache. */
bool vblk_write_cache_on(struct vblk *d)
{
	if (d->features & F_CONFIG_WCE)
		return vblk_writeback(d) != 0;
	return (d->features & F_FLUSH) != 0;
}

static bool find_registers(struct vblk *d)
{
	const struct pci_dev *p = &d->pci;
	unsigned at = 0;

	for (unsigned i = 0; i < 16 && (at = pci_cap(p, PCI_CAP_VENDOR, at)) != 0; i++) {
		unsigned type = pci_read(p, at + 3, 1), bar = pci_read(p, at + 4, 1);
		uint32_t off = pci_read(p, at + 8, 4), bytes = pci_read(p, at + 12, 4);
		uint64_t base;

		if (type < CAP_COMMON || type > CAP_DEVICE || bar > 5 || !(base = pci_bar(p, bar)))
			continue;

		volatile uint8_t *regs = (volatile uint8_t *)(base + off);

		if (type == CAP_COMMON && bytes >= CC_BYTES && !d->common)
			d->common = regs;
		if (type == CAP_ISR && !d->isr)
			d->isr = regs;
		if (type == CAP_DEVICE && bytes >= 8 && !d->config) {
			d->config = regs;
			d->config_bytes = bytes;
		}
		if (type == CAP_NOTIFY && !d->notify) {
			d->notify = regs;
			d->notify_bytes = bytes;
			d->notify_step = pci_read(p, at + 16, 4);
		}
	}
	return d->common && d->notify && d->isr && d->config;
}

static void find_msix(struct vblk *d)
{
	const struct pci_dev *p = &d->pci;
	uint32_t table;
	uint64_t base;

	d->msix_cap = pci_cap(p, PCI_CAP_MSIX, 0);
	if (!d->msix_cap)
		return;
	table = pci_read(p, d->msix_cap + 4, 4);
	base = (table & 7) < 6 ? pci_bar(p, table & 7) : 0;
	if (!base) {
		d->msix_cap = 0;
		return;
	}
	d->msix = (volatile uint8_t *)(base + (table & ~7u));
	d->msix_entries = (pci_read(p, d->msix_cap + 2, 2) & 0x7ff) + 1;
}

static void set_msix(struct vblk *d, unsigned entry, unsigned irq)
{
	volatile uint8_t *e = d->msix + 16 * entry;

	set32(e, 0, MSI_ADDRESS | apic_id() << 12);
	set32(e, 4, 0);
	set32(e, 8, VECTOR_DEVICE + irq);
	set32(e, 12, 0);
}

bool vblk_reset(struct vblk *d)
{
	uint64_t deadline = tsc_after_ms(10000);

	set8(d->common, CC_STATUS, 0);
	while (vblk_status(d) != 0)
		if (rdtsc() > deadline)
			return false;
	return true;
}

static void negotiate(struct vblk *d, uint64_t want)
{
	set8(d->common, CC_STATUS, DEV_ACK);
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER);
	set32(d->common, CC_DEV_FEATURE_SEL, 0);
	d->offered = reg32(d->common, CC_DEV_FEATURE);
	set32(d->common, CC_DEV_FEATURE_SEL, 1);
	d->offered |= (uint64_t)reg32(d->common, CC_DEV_FEATURE) << 32;
	if (!(d->offered & F_VERSION_1))
		fail(STATUS_DEVICE, "disk %u does not offer VIRTIO_F_VERSION_1", d->number);
	d->features = d->offered & want;
	set32(d->common, CC_DRV_FEATURE_SEL, 0);
	set32(d->common, CC_DRV_FEATURE, (uint32_t)d->features);
	set32(d->common, CC_DRV_FEATURE_SEL, 1);
	set32(d->common, CC_DRV_FEATURE, (uint32_t)(d->features >> 32));
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER | DEV_FEATURES_OK);
	if (!(vblk_status(d) & DEV_FEATURES_OK))
		fail(STATUS_DEVICE, "disk %u refuses the features 0x%lx", d->number, d->features);
}

static void read_config(struct vblk *d)
{
	uint8_t generation;

	do {
		generation = reg8(d->common, CC_GENERATION);
		d->sectors = reg32(d->config, BC_CAPACITY);
		d->sectors |= (uint64_t)reg32(d->config, BC_CAPACITY + 4) << 32;
		d->seg_max = d->features & F_SEG_MAX ? reg32(d->config, BC_SEG_MAX) : 1;
		d->seg_bytes = d->features & F_SIZE_MAX ? reg32(d->config, BC_SIZE_MAX) : 1u << 30;
		d->n_queues = d->features & F_MQ ? reg16(d->config, BC_NUM_QUEUES) : 1;
	} while (generation != reg8(d->common, CC_GENERATION));

	uint64_t seg = option_u64("seg", 0, 512, 1u << 20);

	d->n_queues = MIN(d->n_queues, reg16(d->common, CC_NUM_QUEUES));
	d->n_queues = MIN(d->n_queues, VBLK_QUEUES_MAX);
	d->seg_max = MIN(d->seg_max, VBLK_SEGS_MAX);
	d->seg_bytes = seg ? MIN(d->seg_bytes, (uint32_t)seg) : d->seg_bytes;
	d->seg_bytes &= -SECTOR_SIZE;
	if (!d->n_queues || !d->seg_max || !d->seg_bytes)
		fail(STATUS_DEVICE, "disk %u: queues=%u seg_max=%u size_max=%u", d->number,
			d->n_queues, d->seg_max, d->seg_bytes);
}

static void start_queue(struct vblk *d, unsigned i)
{
	struct virtq *q = &d->q[i];
	unsigned size, entry = MIN(i + 1, d->msix_entries - 1);
	uint32_t notify;

	set16(d->common, CC_QUEUE_SELECT, (uint16_t)i);
	size = reg16(d->common, CC_QUEUE_SIZE);
	while (size > VIRTQ_SIZE_MAX)
		size /= 2;
	if (size < 4 || (size & (size - 1)))
		fail(STATUS_DEVICE, "disk %u queue %u has size %u", d->number, i, size);
	virtq_init(q, (uint16_t)size);
	q->index = (uint16_t)i;
	q->event_idx = (d->features & F_EVENT_IDX) != 0;
	q->indirect = (d->features & F_INDIRECT) != 0;
	q->poll = !d->msix || strcmp(option_str("wait", "irq"), "poll") == 0;
	q->irq = (d->number + i) % IRQ_DEVICES;
	notify = reg16(d->common, CC_QUEUE_NOTIFY) * d->notify_step;
	if (notify + 2 > d->notify_bytes)
		fail(STATUS_DEVICE, "disk %u queue %u: doorbell at %u", d->number, i, notify);
	q->doorbell = (volatile uint16_t *)(d->notify + notify);

	set16(d->common, CC_QUEUE_SIZE, (uint16_t)size);
	if (!q->poll) {
		set_msix(d, entry, q->irq);
		set16(d->common, CC_QUEUE_VECTOR, (uint16_t)entry);
		if (reg16(d->common, CC_QUEUE_VECTOR) != entry)
			fail(STATUS_DEVICE, "disk %u queue %u: no interrupt", d->number, i);
	}
	set64(d->common, CC_QUEUE_DESC, (uintptr_t)q->desc);
	set64(d->common, CC_QUEUE_AVAIL, (uintptr_t)q->avail);
	set64(d->common, CC_QUEUE_USED, (uintptr_t)q->used);
	set16(d->common, CC_QUEUE_ENABLE, 1);
	d->seg_max = MIN(d->seg_max, size - 2); /* a chain may not be longer than the queue */
}

static uint64_t ring_features(void)
{
	const char *ring = option_str("ring", "all");

	if (strcmp(ring, "plain") == 0)
		return F_ALL & ~(F_INDIRECT | F_EVENT_IDX);
	if (strcmp(ring, "noindirect") == 0)
		return F_ALL & ~F_INDIRECT;
	if (strcmp(ring, "noevent") == 0)
		return F_ALL & ~F_EVENT_IDX;
	if (strcmp(ring, "all") != 0)
		fail(STATUS_USAGE, "ring=%s: expected all, noevent, noindirect or plain", ring);
	return F_ALL;
}

void vblk_start(struct vblk *d, uint64_t want)
{
	if (d->q[0].ide) {
		ide_start(d, want);
		return;
	}
	if (!vblk_reset(d))
		fail(STATUS_DEVICE, "disk %u does not come out of reset", d->number);
	negotiate(d, want & ring_features());
	read_config(d);
	set16(d->common, CC_MSIX_CONFIG, NO_VECTOR);
	for (unsigned i = 0; i < d->n_queues; i++)
		start_queue(d, i);
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER | DEV_FEATURES_OK | DEV_DRIVER_OK);
	if (vblk_status(d) & (DEV_FAILED | DEV_NEEDS_RESET))
		fail(STATUS_DEVICE, "disk %u: status 0x%x", d->number, vblk_status(d));
}

static bool probe(struct vblk *d)
{
	if (d->pci.device_id != 0x1042 && d->pci.device_id != 0x1001)
		return false;
	if (!find_registers(d))
		return false;
	find_msix(d);
	pci_write(&d->pci, PCI_COMMAND, 2, PCI_COMMAND_ON);
	if (d->msix)
		pci_write(&d->pci, d->msix_cap + 2, 2, 0x8000);
	return true;
}

struct vblk *vblk_open(void)
{
	static unsigned n;
	static bool scanned;
	const char *wait = option_str("wait", "irq");
	unsigned chosen = (unsigned)option_u64("disk", 0, 0, VBLK_DISKS_MAX - 1), devfn = 0;
	struct vblk *d;

	if (strcmp(wait, "irq") != 0 && strcmp(wait, "poll") != 0)
		fail(STATUS_USAGE, "wait=%s: expected irq or poll", wait);
	if (ide_wanted())
		return ide_open();
	while (!scanned && n < VBLK_DISKS_MAX && pci_find(VIRTIO_VENDOR, &devfn, &disks[n].pci)) {
		d = &disks[n];
		d->number = n;
		if (!probe(d))
			continue;
		n++;
		vblk_start(d, F_ALL);
		report("disk n=%u sectors=%lu features=0x%lx queues=%u size=%u seg_max=%u wait=%s "
		       "cache=%s",
			d->number, d->sectors, d->features, d->n_queues, d->q[0].size, d->seg_max,
			d->q[0].poll ? "poll" : "irq", vblk_write_cache_on(d) ? "on" : "off");
	}
	scanned = true;
	if (chosen >= n)
		fail(STATUS_DEVICE, "disk %u of %u is not there", chosen, n);
	return &disks[chosen];
}

uint32_t vblk_irqs(const struct vblk *d)
{
	uint32_t n = 0;

	for (unsigned i = 0; i < d->n_queues && i < IRQ_DEVICES; i++)
		n += irq_device[d->q[i].irq];
	return n;
}

uint64_t vblk_missed_irqs(const struct vblk *d)
{
	uint64_t n = 0;

	for (unsigned i = 0; i < d->n_queues; i++)
		n += d->q[i].missed_irqs;
	return n;
}

void vblk_req_init(struct vblk_req *r, uint32_t type, uint64_t sector)
{
	r->head.type = type;
	r->head.reserved = 0;
	r->head.sector = sector;
	r->status = VBLK_S_NONE;
	r->fua = false;
	r->n_segs = 0;
	r->in_bytes = 0;
	r->table[0] = (struct virtq_desc){(uintptr_t)&r->head, sizeof(r->head), VIRTQ_NEXT, 1};
}

bool vblk_req_add(const struct vblk *d, struct vblk_req *r, void *data, uint32_t bytes)
{
	uint16_t flags = r->head.type == VBLK_IN ? VIRTQ_NEXT | VIRTQ_WRITE : VIRTQ_NEXT;
	uint64_t at = (uintptr_t)data;

	while (bytes) {
		uint32_t n = MIN(bytes, d->seg_bytes);
		unsigned i = ++r->n_segs;

		if (i > d->seg_max)
			return false;
		r->table[i] = (struct virtq_desc){at, n, flags, (uint16_t)(i + 1)};
		at += n;
		bytes -= n;
		if (r->head.type == VBLK_IN)
			r->in_bytes += n;
	}
	return true;
}

bool vblk_submit(struct virtq *q, struct vblk_req *r)
{
	struct virtq_desc *last = &r->table[r->n_segs + 1];

	*last = (struct virtq_desc){(uintptr_t)&r->status, 1, VIRTQ_WRITE, 0};
	r->n_descs = (uint16_t)(r->n_segs + 2);
	return virtq_add(q, r);
}

struct vblk_req *vblk_reap(struct virtq *q)
{
	struct vblk_req *r = virtq_take(q);

	if (r && r->status == VBLK_S_OK && r->used_bytes != r->in_bytes + 1)
		q->broken = "a finished request has the wrong length";
	return r;
}

void vblk_check_queue(const struct virtq *q, bool waited)
{
	if (q->broken)
		fail(STATUS_DEVICE, "queue %u: %s", q->index, q->broken);
	if (!waited)
		fail(STATUS_DEVICE, "queue %u: no answer in time", q->index);
}

uint8_t vblk_do(struct vblk *d, struct vblk_req *r)
{
	struct virtq *q = &d->q[0];

	if (!vblk_submit(q, r))
		fail(STATUS_DEVICE, "queue 0 is full");
	virtq_kick(q);
	vblk_check_queue(q, virtq_wait(q, vblk_timeout()));
	if (vblk_reap(q) != r || q->broken)
		fail(STATUS_DEVICE, "queue 0: %s", q->broken ? q->broken : "not what was asked");
	return r->status;
}
