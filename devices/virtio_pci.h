/* SPDX-License-Identifier: MIT */
/*
 * virtio_pci.h - the modern virtio transport over PCI (virtio 1.2, section 4.1), for device types.
 *
 * A type embeds a struct virtio_pci and provides a struct virtio_type.  Its callbacks run on
 * vCPU threads, one at a time, and may wait for the thread that serves the queues.  That
 * thread in turn may call only the functions marked "any thread".
 */
#ifndef DEVICES_VIRTIO_PCI_H
#define DEVICES_VIRTIO_PCI_H

#include <pthread.h>
#include <stdatomic.h>
#include "devices/msix.h"
#include "devices/pci.h"
#include "devices/virtqueue.h"

#define VIRTIO_F_INDIRECT_DESC (1ULL << 28)
#define VIRTIO_F_EVENT_IDX     (1ULL << 29)
#define VIRTIO_F_VERSION_1     (1ULL << 32)
#define VIRTIO_F_RING_RESET    (1ULL << 40)

#define VIRTIO_CONFIG_MAX 64 /* bytes of a type's configuration space */
#define VIRTIO_QUEUES_MAX 64

struct virtio_pci;

struct virtio_type {
	const char *name;
	uint16_t id;		/* virtio device id */
	uint16_t legacy_id;	/* PCI device id when transitional */
	uint16_t class_code;	/* PCI: base class << 8 | sub-class */
	unsigned config_bytes;
	/* The configuration space as it is now. */
	void (*config_get)(struct virtio_pci *v, uint8_t image[VIRTIO_CONFIG_MAX]);
	/* The guest wrote [off, off+len) of it, which lies within config_bytes. */
	void (*config_set)(struct virtio_pci *v, unsigned off, const uint8_t *p, unsigned len);
	/* May the driver have exactly v->features?  It may be its last word: get ready. */
	bool (*features_ok)(struct virtio_pci *v);
	/* From now on chains come out of the queue.  0 or -errno: the layout is unusable. */
	int (*queue_start)(struct virtio_pci *v, unsigned q, const struct virtq_layout *l);
	/* Returns with nothing of the queue in flight; nothing of it is touched afterwards. */
	void (*queue_stop)(struct virtio_pci *v, unsigned q);
	/* All queues are stopped: back to the state before any driver. */
	void (*reset)(struct virtio_pci *v);
};

struct virtio_queue_regs {
	uint16_t size;
	bool enabled, started;
	uint64_t desc, avail, used;
	_Atomic uint16_t vector;
	int kick_fd;   /* an eventfd: signalled by each notification */
	bool doorbell; /* the kernel does that; guarded by the bus lock of the pci */
};

struct virtio_pci {
	struct pci_dev pci;
	struct msix msix;
	const struct virtio_type *type;
	struct machine_services *services;
	uint64_t offered;
	unsigned num_queues;
	uint16_t queue_size_max;
	struct virtio_queue_regs *queue;
	_Atomic uint8_t status;
	_Atomic uint16_t config_vector;
	unsigned pci_cfg_cap;
	unsigned bar; /* with the modern registers; BAR 0 is the legacy ones if it is another */
	pthread_mutex_t irq_lock; /* guards isr and what follows; before the pci's leaf lock */
	uint8_t isr;
	pthread_mutex_t lock; /* guards all below, and the queues' registers; held over callbacks */
	uint64_t features;    /* the driver's choice */
	bool legacy;	      /* it came by the legacy registers */
	uint32_t offered_select, features_select;
	uint16_t queue_select;
	uint8_t generation;
	uint8_t config_seen[VIRTIO_CONFIG_MAX]; /* as the driver last read it */
};

/*
 * features: what is offered besides VERSION_1.  transitional: legacy drivers are served too,
 * through BAR 0 (virtio_legacy.c).  0 or -errno.
 */
must_check int virtio_pci_init(struct virtio_pci *v, struct machine_services *s,
	const struct virtio_type *type, uint64_t features, unsigned num_queues,
	uint16_t queue_size, bool transitional);
void virtio_pci_fini(struct virtio_pci *v);
/* On the bus: from here on the guest can reach it. */
must_check int virtio_pci_plug(struct virtio_pci *v);
void virtio_pci_unplug(struct virtio_pci *v);

/* Stops all queues; registers stay. */
void virtio_pci_stop(struct virtio_pci *v);
/* Power-on state, PCI registers and all. */
void virtio_pci_reset(struct virtio_pci *v);

/* Interrupt for a queue.  Any thread. */
void virtio_pci_queue_irq(struct virtio_pci *v, unsigned q);
/* The type's configuration is no longer what the driver read: tells it so.  Any thread. */
void virtio_pci_config_changed(struct virtio_pci *v);
/* The driver broke the device: says so in the status register.  Any thread. */
void virtio_pci_needs_reset(struct virtio_pci *v);

#endif
