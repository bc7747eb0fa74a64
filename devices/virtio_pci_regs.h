/* SPDX-License-Identifier: MIT */
/*
 * virtio_pci_regs.h - register layouts of the virtio PCI transport (virtio 1.2, section 4.1.4).
 */
#ifndef DEVICES_VIRTIO_PCI_REGS_H
#define DEVICES_VIRTIO_PCI_REGS_H

#include "vmm/util/base.h"
#include "vmm/util/bytes.h"

/* Device status (2.1). */
#define STATUS_ACKNOWLEDGE 0x01
#define STATUS_DRIVER	   0x02
#define STATUS_DRIVER_OK   0x04
#define STATUS_FEATURES_OK 0x08
#define STATUS_NEEDS_RESET 0x40
#define STATUS_FAILED	   0x80
#define STATUS_DRIVER_BITS (0xff & ~(STATUS_NEEDS_RESET | 0x30))

#define ISR_QUEUE     0x01
#define ISR_CONFIG    0x02
#define MSI_NO_VECTOR 0xffff

/* Common structure. */
enum {
	COMMON_OFFERED_SELECT = 0,
	COMMON_OFFERED = 4,
	COMMON_FEATURES_SELECT = 8,
	COMMON_FEATURES = 12,
	COMMON_CONFIG_VECTOR = 16,
	COMMON_NUM_QUEUES = 18,
	COMMON_STATUS = 20,
	COMMON_GENERATION = 21,
	COMMON_QUEUE_SELECT = 22,
	COMMON_QUEUE_SIZE = 24,
	COMMON_QUEUE_VECTOR = 26,
	COMMON_QUEUE_ENABLE = 28,
	COMMON_QUEUE_NOTIFY_OFF = 30,
	COMMON_QUEUE_DESC = 32,
	COMMON_QUEUE_AVAIL = 40,
	COMMON_QUEUE_USED = 48,
	COMMON_QUEUE_NOTIFY_DATA = 56,
	COMMON_QUEUE_RESET = 58,
	COMMON_BYTES = 60,
};

/* In the order in which one wide write reaches them. */
static const struct {
	uint8_t off, width;
} common_fields[] = {
	{COMMON_OFFERED_SELECT, 4}, {COMMON_OFFERED, 4}, {COMMON_FEATURES_SELECT, 4},
	{COMMON_FEATURES, 4}, {COMMON_CONFIG_VECTOR, 2}, {COMMON_NUM_QUEUES, 2},
	{COMMON_STATUS, 1}, {COMMON_GENERATION, 1}, {COMMON_QUEUE_SELECT, 2},
	{COMMON_QUEUE_SIZE, 2}, {COMMON_QUEUE_VECTOR, 2}, {COMMON_QUEUE_ENABLE, 2},
	{COMMON_QUEUE_NOTIFY_OFF, 2}, {COMMON_QUEUE_DESC, 4}, {COMMON_QUEUE_DESC + 4, 4},
	{COMMON_QUEUE_AVAIL, 4}, {COMMON_QUEUE_AVAIL + 4, 4}, {COMMON_QUEUE_USED, 4},
	{COMMON_QUEUE_USED + 4, 4}, {COMMON_QUEUE_NOTIFY_DATA, 2}, {COMMON_QUEUE_RESET, 2},
};

/* Capabilities: what follows the id and the next pointer (4.1.4). */
struct virtio_pci_cap {
	uint8_t len, type, bar, id, padding[2];
	le32_t offset, length;
};
static_assert(sizeof(struct virtio_pci_cap) == 14, "virtio 1.2, 4.1.4");

#define CAP_ID_VENDOR	 0x09
#define CAP_TYPE_COMMON	 1
#define CAP_TYPE_NOTIFY	 2
#define CAP_TYPE_ISR	 3
#define CAP_TYPE_DEVICE	 4
#define CAP_TYPE_PCI_CFG 5
/* Offsets from the beginning of the capability. */
#define CAP_BAR		 4
#define CAP_OFFSET	 8
#define CAP_LENGTH	 12
#define CAP_WINDOW	 16 /* CAP_TYPE_PCI_CFG: the bytes read or written there */
#define CAP_WINDOW_BYTES 4

#endif
