/* SPDX-License-Identifier: MIT */
/*
 * pci.c - finds devices on bus 0, walks their capabilities and places their BARs.
 *
 * Firmware may or may not have been there.  A memory BAR that has no address, or one above 4 GiB,
 * is given one from the hole at 0xe0000000, where no RAM of these machines is; BARs that firmware
 * placed lie higher and are left alone.
 *
 * Not here: bridges, I/O BARs, INTx.
 */
#include "guest/pci.h"

#define CONFIG_ADDRESS 0xcf8
#define CONFIG_DATA    0xcfc
#define HOLE_START     0xe0000000u
#define HOLE_END       0xf0000000u
#define CAPS_MAX       48

static void select(const struct pci_dev *d, unsigned off)
{
	outl(CONFIG_ADDRESS, 0x80000000u | (uint32_t)d->devfn << 8 | (off & 0xfc));
}

uint32_t pci_read(const struct pci_dev *d, unsigned off, unsigned bytes)
{
	uint16_t port = (uint16_t)(CONFIG_DATA + (off & 3));

	select(d, off);
	return bytes == 1 ? inb(port) : bytes == 2 ? inw(port) : inl(port);
}

void pci_write(const struct pci_dev *d, unsigned off, unsigned bytes, uint32_t v)
{
	uint16_t port = (uint16_t)(CONFIG_DATA + (off & 3));

	select(d, off);
	if (bytes == 1)
		outb(port, (uint8_t)v);
	else if (bytes == 2)
		outw(port, (uint16_t)v);
	else
		outl(port, v);
}

bool pci_find(uint16_t vendor, unsigned *devfn, struct pci_dev *d)
{
	uint32_t id;

	while (*devfn < 256) {
		unsigned at = *devfn;

		d->devfn = (uint8_t)at;
		id = pci_read(d, PCI_ID, 4);
		/* The other functions only of what says it has some. */
		if (at % 8 == 0 && (id == 0xffffffff || !(pci_read(d, 0x0e, 1) & 0x80)))
			*devfn += 8;
		else
			*devfn += 1;
		if ((id & 0xffff) == vendor) {
			d->device_id = (uint16_t)(id >> 16);
			return true;
		}
	}
	return false;
}

unsigned pci_cap(const struct pci_dev *d, uint8_t id, unsigned after)
{
	unsigned at = after ? pci_read(d, after + 1, 1) : pci_read(d, 0x34, 1);

	if (!(pci_read(d, 0x06, 2) & 0x10))
		return 0;
	for (unsigned i = 0; i < CAPS_MAX && at >= 0x40; i++) {
		uint32_t head = pci_read(d, at & 0xfc, 2);

		if ((head & 0xff) == id)
			return at & 0xfc;
		at = head >> 8;
	}
	return 0;
}

static uint32_t place(uint64_t size)
{
	static uint32_t next = HOLE_START;
	uint64_t at = ((uint64_t)next + size - 1) & -size;

	if (!size || at + size > HOLE_END)
		fail(STATUS_DEVICE, "no room for a BAR of %lu bytes", size);
	next = (uint32_t)(at + size);
	return (uint32_t)at;
}

uint64_t pci_bar(const struct pci_dev *d, unsigned bar)
{
	uint32_t low = pci_read(d, PCI_BAR(bar), 4), high = 0, mask, command;
	bool wide = (low & 6) == 4;

	if (bar > 5 || (bar == 5 && wide) || (low & 1))
		return 0;
	if (wide)
		high = pci_read(d, PCI_BAR(bar + 1), 4);
	if ((low & ~15u) && !high)
		return low & ~15u;
	command = pci_read(d, PCI_COMMAND, 2);
	pci_write(d, PCI_COMMAND, 2, command & ~2u);
	pci_write(d, PCI_BAR(bar), 4, 0xffffffff);
	mask = pci_read(d, PCI_BAR(bar), 4) & ~15u;
	if (mask)
		pci_write(d, PCI_BAR(bar), 4, place(-(uint64_t)mask & 0xffffffff));
	if (mask && wide)
		pci_write(d, PCI_BAR(bar + 1), 4, 0);
	pci_write(d, PCI_COMMAND, 2, command);
	return mask ? pci_read(d, PCI_BAR(bar), 4) & ~15u : 0;
}
