/* SPDX-License-Identifier: MIT */
/*
 * virtio_legacy.c - the legacy registers of a transitional device (virtio 1.2, section 4.1.4.10).
 *
 * An I/O BAR with other registers for the same state: 32 features, a queue that is one block of
 * guest memory named by its page, no FEATURES_OK.  The type's own configuration follows, after
 * two vectors if MSI-X is on.  Writing a legacy feature, page or status makes the driver a legacy
 * one until the next reset; mixing the two layouts hurts only the guest that does it.
 *
 * Registers are accessed at their own width, as drivers do; others read as zeros.
 */
#include <string.h>
#include "devices/virtio_legacy.h"
#include "devices/virtio_pci_regs.h"

#define BAR_BYTES 128 /* 24 and VIRTIO_CONFIG_MAX, rounded up */
#define PAGE	  4096

enum { L_OFFERED = 0, L_FEATURES = 4, L_PAGE = 8, L_SIZE = 12, L_SELECT = 14, L_NOTIFY = 16,
	L_STATUS = 18, L_ISR = 19, L_CONFIG_VECTOR = 20, L_QUEUE_VECTOR = 22 };

static unsigned config_at(struct virtio_pci *v)
{
	return msix_enabled(&v->msix) ? 24 : 20;
}

/* 2.7.2: descriptors, available ring, and at the next page the used ring. */
static void place_queue(struct virtio_pci *v, uint32_t page)
{
	struct virtio_queue_regs *q = virtio_pci_selected(v);

	if (!q)
		return;
	if (!page) {
		virtio_pci_queue_clear(v, v->queue_select);
		return;
	}
	if (q->enabled)
		return;
	q->desc = (uint64_t)page * PAGE;
	q->avail = q->desc + 16ull * q->size;
	q->used = round_up(q->avail + 6 + 2ull * q->size, PAGE);
	virtio_pci_queue_enable(v, v->queue_select);
}

static uint32_t get_locked(struct virtio_pci *v, unsigned off)
{
	struct virtio_queue_regs *q = virtio_pci_selected(v);

	switch (off) {
	case L_OFFERED:
		return (uint32_t)v->offered;
	case L_FEATURES:
		return (uint32_t)v->features;
	case L_PAGE:
		return q ? (uint32_t)(q->desc / PAGE) : 0;
	case L_SIZE:
		return q ? q->size : 0;
	case L_SELECT:
		return v->queue_select;
	case L_STATUS:
		return atomic_load(&v->status) & (uint8_t)~STATUS_FEATURES_OK;
	case L_CONFIG_VECTOR:
		return atomic_load(&v->config_vector);
	case L_QUEUE_VECTOR:
		return q ? atomic_load(&q->vector) : MSI_NO_VECTOR;
	default:
		return 0;
	}
}

static void set_locked(struct virtio_pci *v, unsigned off, uint32_t value)
{
	struct virtio_queue_regs *q = virtio_pci_selected(v);

	switch (off) {
	case L_FEATURES:
		if (atomic_load(&v->status) & STATUS_DRIVER_OK)
			break;
		v->features = value & (uint32_t)v->offered;
		v->legacy = true;
		break;
	case L_PAGE:
		v->legacy = true;
		place_queue(v, value);
		break;
	case L_SELECT:
		v->queue_select = (uint16_t)value;
		break;
	case L_NOTIFY:
		virtio_pci_kick(v, value);
		break;
	case L_STATUS:
		v->legacy = v->legacy || value & STATUS_DRIVER_OK;
		virtio_pci_status_write(v, (uint8_t)value & (uint8_t)~STATUS_FEATURES_OK);
		break;
	case L_CONFIG_VECTOR:
		atomic_store(&v->config_vector, virtio_pci_vector(v, value));
		break;
	case L_QUEUE_VECTOR:
		if (q)
			atomic_store(&q->vector, virtio_pci_vector(v, value));
		break;
	default:
		break;
	}
}

static void legacy_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct virtio_pci *v = container_of(r, struct virtio_pci, pci.bar[0].range);
	le32_t value;

	if (off >= config_at(v)) {
		virtio_pci_config_read(v, off - config_at(v), data, len);
		return;
	}
	if (off == L_ISR) {
		memset(data, 0, len);
		*(uint8_t *)data = virtio_pci_isr_take(v);
		return;
	}
	pthread_mutex_lock(&v->lock);
	value = le32_make(get_locked(v, (unsigned)off));
	pthread_mutex_unlock(&v->lock);
	memcpy(data, &value, len);
}

static void legacy_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct virtio_pci *v = container_of(r, struct virtio_pci, pci.bar[0].range);
	le32_t value = le32_make(0);

	if (off >= config_at(v)) {
		virtio_pci_config_write(v, off - config_at(v), data, len);
		return;
	}
	memcpy(&value, data, len);
	pthread_mutex_lock(&v->lock);
	set_locked(v, (unsigned)off, le32_get(value));
	pthread_mutex_unlock(&v->lock);
}

void virtio_legacy_init(struct virtio_pci *v)
{
	pci_bar_init(&v->pci, 0, PCI_BAR_IO, BAR_BYTES, legacy_read, legacy_write);
}
