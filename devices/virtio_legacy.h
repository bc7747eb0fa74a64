/* SPDX-License-Identifier: MIT */
/*
 * virtio_legacy.h - between the two register layouts of a transitional device.
 */
#ifndef DEVICES_VIRTIO_LEGACY_H
#define DEVICES_VIRTIO_LEGACY_H

#include "devices/virtio_pci.h"

/* Before pci_dev_add(): makes BAR 0 the legacy registers. */
void virtio_legacy_init(struct virtio_pci *v);

/* virtio_pci.c's; the first four with v->lock held. */
/* The queue that the select register names; NULL: there is none. */
struct virtio_queue_regs *virtio_pci_selected(struct virtio_pci *v);
void virtio_pci_queue_clear(struct virtio_pci *v, unsigned q);
void virtio_pci_queue_enable(struct virtio_pci *v, unsigned q);
void virtio_pci_status_write(struct virtio_pci *v, uint8_t value);
/* A vector that the device has, or MSI_NO_VECTOR. */
uint16_t virtio_pci_vector(const struct virtio_pci *v, uint32_t value);
/* A doorbell that was rung by a trapped access; q may be any number. */
void virtio_pci_kick(struct virtio_pci *v, uint64_t q);
uint8_t virtio_pci_isr_take(struct virtio_pci *v);
void virtio_pci_config_read(struct virtio_pci *v, uint64_t off, uint8_t *data, unsigned len);
void virtio_pci_config_write(
	struct virtio_pci *v, uint64_t off, const uint8_t *data, unsigned len);

#endif
