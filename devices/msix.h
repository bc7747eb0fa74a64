/* SPDX-License-Identifier: MIT */
/*
 * msix.h - the MSI-X table, pending bits and capability of one PCI function.
 */
#ifndef DEVICES_MSIX_H
#define DEVICES_MSIX_H

#include <pthread.h>
#include <stdatomic.h>
#include "devices/pci.h"

#define MSIX_ENTRY 16 /* bytes in the table */

struct msix_vector {
	uint8_t entry[MSIX_ENTRY]; /* address, data, control: as the guest wrote them */
	struct irq_msi *msi;
	uint64_t addr; /* where msi goes now, if routed */
	uint32_t data;
	bool routed, pending;
};

struct msix {
	struct pci_dev *pci;
	unsigned n, cap;
	atomic_bool enabled;
	pthread_mutex_t lock; /* guards all below; a leaf */
	bool masked;	      /* the whole function */
	bool warned;	      /* of a route that KVM refused; once, for guests ask for them */
	struct msix_vector *v;
};

/* Before pci_dev_add().  The table and the pending bits lie in BAR bar at these offsets. */
must_check int msix_init(struct msix *m, struct pci_dev *d, struct irqs *irqs, unsigned vectors,
	unsigned bar, uint32_t table_off, uint32_t pba_off);
void msix_fini(struct msix *m);

/* Accesses to the table and to the pending bits, off relative to their beginning. */
void msix_table_read(struct msix *m, uint64_t off, void *data, unsigned len);
void msix_table_write(struct msix *m, uint64_t off, const void *data, unsigned len);
void msix_pba_read(struct msix *m, uint64_t off, void *data, unsigned len);

/* The capability's control word may have changed: call after writes and after pci_dev_reset(). */
void msix_config_written(struct msix *m);
void msix_reset(struct msix *m);
/* Sends the message, or notes it while masked; no such vector: nothing.  Any thread. */
void msix_fire(struct msix *m, unsigned vector);

static inline bool msix_enabled(struct msix *m)
{
	return atomic_load(&m->enabled);
}

#endif
