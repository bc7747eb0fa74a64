/* SPDX-License-Identifier: MIT */
/*
 * irq.h - interrupt lines and message-signalled interrupts, through irqfd.
 *
 * Raising is one write to an eventfd, from any thread, never blocks.  Routes are
 * changed by vCPU threads (a driver that programs MSI-X).
 */
#ifndef VMM_IRQ_H
#define VMM_IRQ_H

#include "vmm/util/base.h"

struct irqs; /* the machine's interrupt controller and its routing table */

/* Level-triggered line on a GSI (PCI INTx, ISA IRQ). */
struct irq_line;
must_check int irq_line_new(struct irqs *irqs, unsigned gsi, struct irq_line **out);
void irq_line_free(struct irq_line *l);
void irq_line_set(struct irq_line *l, bool level);

/* One MSI or MSI-X vector. */
struct irq_msi;
must_check int irq_msi_new(struct irqs *irqs, struct irq_msi **out);
void irq_msi_free(struct irq_msi *m);
/* Where it goes from now on; 0 or -errno. */
must_check int irq_msi_route(struct irq_msi *m, uint64_t addr, uint32_t data);
void irq_msi_fire(struct irq_msi *m);

#endif
