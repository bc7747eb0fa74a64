/* SPDX-License-Identifier: MIT */
/*
 * irq_setup.h - making and unmaking the interrupt controller's front; for machine.c.
 */
#ifndef VMM_IRQ_SETUP_H
#define VMM_IRQ_SETUP_H

#include "vmm/irq.h"

struct kvm;

must_check int irqs_new(struct kvm *kvm, struct irqs **out);
/* All vectors have been freed. */
void irqs_free(struct irqs *s);

#endif
