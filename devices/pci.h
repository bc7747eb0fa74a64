/* SPDX-License-Identifier: MIT */
/*
 * pci.h - one PCI bus behind an i440FX-like host bridge, configured through ports 0xcf8/0xcfc.
 *
 * A function embeds a struct pci_dev and describes itself between pci_dev_init() and
 * pci_dev_add().  Its BARs are placed and decoded from power-on (see pci.c), so that guests
 * without firmware find them working.
 *
 * Locks: the bus's configuration lock is taken before any lock of a device.  BAR
 * handlers must not call into pci.c except pci_intx_set(), which takes a leaf lock.
 */
#ifndef DEVICES_PCI_H
#define DEVICES_PCI_H

#include "devices/device.h"

/* The machine's side.  Makes the bus and its bridge, and sets services->pci. */
must_check int pci_host_create(struct machine_services *s, struct device **out);

/* Devices get the addresses from here up to the interrupt controllers' pages at 0xfec00000. */
#define PCI_HOLE_BASE 0xe0000000ULL
#define PCI_HOLE_END  0xfec00000ULL

/* The GSI of a slot's interrupt pin (1 is INTA): 10 or 11, level-triggered, shared. */
unsigned pci_gsi(unsigned slot, unsigned pin);

/* The devices' side. */
#define PCI_CFG_BYTES 256
#define PCI_BARS      6

/* Configuration header, PCI 3.0 section 6.1. */
enum {
	PCI_VENDOR_ID = 0x00, PCI_DEVICE_ID = 0x02, PCI_COMMAND = 0x04, PCI_STATUS = 0x06,
	PCI_REVISION = 0x08, PCI_PROG_IF = 0x09, PCI_CLASS = 0x0a, PCI_CACHE_LINE = 0x0c,
	PCI_LATENCY = 0x0d, PCI_HEADER_TYPE = 0x0e, PCI_BAR0 = 0x10, PCI_SUBSYS_VENDOR = 0x2c,
	PCI_SUBSYS_ID = 0x2e, PCI_CAP_PTR = 0x34, PCI_IRQ_LINE = 0x3c, PCI_IRQ_PIN = 0x3d,
	PCI_CAP_FIRST = 0x40,
};
#define PCI_COMMAND_IO	     0x0001
#define PCI_COMMAND_MEM	     0x0002
#define PCI_COMMAND_MASTER   0x0004
#define PCI_COMMAND_INTX_OFF 0x0400
#define PCI_STATUS_INTX	     0x0008
#define PCI_STATUS_CAPS	     0x0010

enum pci_bar_kind { PCI_BAR_NONE, PCI_BAR_IO, PCI_BAR_MEM32, PCI_BAR_MEM64, PCI_BAR_UPPER };

struct pci_dev;
struct pci_bar {
	enum pci_bar_kind kind;
	struct bus_range range; /* base: where it is decoded, or was last */
	bool mapped;		/* the range is on the bus */
	bool told;		/* bar_mapped(true) was called for base */
	struct pci_dev *dev;
};

struct pci_dev_ops {
	/* After a guest's write to [off, off+len) of configuration space; NULL allowed. */
	void (*config_written)(struct pci_dev *d, unsigned off, unsigned len);
	/* Before a guest's read; to bring bytes up to date.  NULL allowed. */
	void (*config_read)(struct pci_dev *d, unsigned off, unsigned len);
	/* The BAR is now decoded at base, or gives base up.  In pairs.  NULL allowed. */
	void (*bar_mapped)(struct pci_dev *d, unsigned bar, uint64_t base, bool mapped);
};

struct pci_dev {
	const struct pci_dev_ops *ops;
	struct pci_bus *bus;
	const char *name;
	unsigned slot, function;
	uint8_t cfg[PCI_CFG_BYTES];   /* guarded by the bus's configuration lock once added */
	uint8_t wmask[PCI_CFG_BYTES]; /* bits that the guest may set and clear */
	uint8_t init[PCI_CFG_BYTES];  /* cfg at power-on */
	struct pci_bar bar[PCI_BARS];
	unsigned cap_end;  /* where the next capability goes */
	unsigned cap_last; /* offset of the last one's next pointer; 0: none yet */
	bool intx;	   /* guarded by the bus's interrupt lock, as is intx_off */
	bool intx_off;
};

struct pci_ids {
	uint16_t vendor, device, subsys_vendor, subsys;
	uint16_t class_code; /* base class << 8 | sub-class */
	uint8_t prog_if, revision;
	uint8_t irq_pin; /* 0: none, 1: INTA */
};

void pci_dev_init(struct pci_dev *d, const struct pci_dev_ops *ops, const char *name,
	const struct pci_ids *ids);
/* len is a power of two; memory at least 16 bytes, ports at least 4.  MEM64 takes two BARs. */
void pci_bar_init(struct pci_dev *d, unsigned bar, enum pci_bar_kind kind, uint64_t len,
	void (*read)(struct bus_range *r, uint64_t off, void *data, unsigned len),
	void (*write)(struct bus_range *r, uint64_t off, const void *data, unsigned len));
/* Offset of the new capability (id at +0, next at +1, filled in); body bytes follow at +2. */
unsigned pci_cap_add(struct pci_dev *d, uint8_t id, const void *body, unsigned body_len);
/* Takes the next free slot, as its function 0, and places the BARs.  0, or -ENOSPC, -EEXIST. */
must_check int pci_dev_add(struct pci_bus *b, struct pci_dev *d);
/*
 * Takes that place.  Guests look for functions 1 to 7 only where function 0 has bit 7 of
 * PCI_HEADER_TYPE set.
 */
must_check int pci_dev_add_at(
	struct pci_bus *b, struct pci_dev *d, unsigned slot, unsigned function);
#define PCI_MULTIFUNCTION 0x80 /* of the header type */
void pci_dev_remove(struct pci_dev *d);
/* Power-on values again, without config_written().  Any vCPU thread. */
void pci_dev_reset(struct pci_dev *d);
/* Asserts or releases the interrupt pin.  Any thread. */
void pci_intx_set(struct pci_dev *d, bool level);

static inline uint16_t pci_cfg16(const struct pci_dev *d, unsigned off)
{
	return (uint16_t)(d->cfg[off] | d->cfg[off + 1] << 8);
}

#endif
