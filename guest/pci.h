/* SPDX-License-Identifier: MIT */
/* pci.h - bus 0 by configuration mechanism 1. */
#ifndef GUEST_PCI_H
#define GUEST_PCI_H

#include "guest/guest.h"

#define PCI_ID         0x00
#define PCI_COMMAND    0x04
#define PCI_BAR(i)     (0x10 + 4 * (i))
#define PCI_COMMAND_ON 0x0406 /* memory, bus master, no INTx */
#define PCI_CAP_VENDOR 0x09
#define PCI_CAP_MSIX   0x11

struct pci_dev {
	uint8_t devfn;
	uint16_t device_id;
};

uint32_t pci_read(const struct pci_dev *d, unsigned off, unsigned bytes);
void pci_write(const struct pci_dev *d, unsigned off, unsigned bytes, uint32_t v);
/* The next device of the vendor at or after *devfn, which moves past it. */
bool pci_find(uint16_t vendor, unsigned *devfn, struct pci_dev *d);
/* Offset of the next capability with that id after `after` (0: the first), or 0. */
unsigned pci_cap(const struct pci_dev *d, uint8_t id, unsigned after);
/* Where a memory BAR is, below 4 GiB; placed there if need be.  0: no such memory BAR. */
uint64_t pci_bar(const struct pci_dev *d, unsigned bar);

#endif
