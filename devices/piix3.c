/* SPDX-License-Identifier: MIT */
/*
 * piix3.c - the PCI-to-ISA bridge of a PIIX3, as far as software looks at it.
 *
 * That is its identity, which says that the slot has more functions, and the four registers at
 * 0x60 that name the interrupt of each PCI wire.  They can be written and read back; the wires of
 * this machine are soldered (pci_gsi()), so what they say changes nothing.
 */
#include <stdlib.h>
#include "devices/pci.h"
#include "devices/piix3.h"

#define PIRQ_ROUTE 0x60 /* four bytes: 0x80 means none */

struct piix3 {
	struct device dev;
	struct pci_dev pci;
};

static void piix3_reset(struct device *d)
{
	pci_dev_reset(&container_of(d, struct piix3, dev)->pci);
}

static void piix3_destroy(struct device *d)
{
	struct piix3 *p = container_of(d, struct piix3, dev);

	pci_dev_remove(&p->pci);
	free(p);
}

static const struct device_ops piix3_ops = {
	.name = "piix3",
	.reset = piix3_reset,
	.destroy = piix3_destroy,
};

int piix3_create(struct machine_services *s, struct device **out)
{
	static const struct pci_dev_ops no_ops;
	static const struct pci_ids ids = {
		.vendor = 0x8086, .device = 0x7000, .class_code = 0x0601, .revision = 0};
	struct piix3 *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->dev = (struct device){&piix3_ops, s};
	pci_dev_init(&p->pci, &no_ops, "piix3", &ids);
	p->pci.cfg[PCI_HEADER_TYPE] = PCI_MULTIFUNCTION;
	p->pci.cfg[PCI_STATUS + 1] = 0x02; /* medium DEVSEL timing */
	for (unsigned i = 0; i < 4; i++) {
		p->pci.cfg[PIRQ_ROUTE + i] = (uint8_t)(10 + i % 2);
		p->pci.wmask[PIRQ_ROUTE + i] = 0x8f;
	}
	err = pci_dev_add_at(s->pci, &p->pci, PIIX3_SLOT, 0);
	if (err) {
		free(p);
		return err;
	}
	*out = &p->dev;
	return 0;
}
