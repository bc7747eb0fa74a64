/* SPDX-License-Identifier: MIT */
/*
 * device.h - what the machine may do to a device, and a device may ask of the machine.
 *
 * A device's life: create (machine being built, nothing runs) -> the guest runs ->
 * stop (vCPUs are out of the guest; returns with nothing in flight) -> destroy.
 * reset may come at any time while the guest runs, on a vCPU thread that may wait.
 */
#ifndef DEVICES_DEVICE_H
#define DEVICES_DEVICE_H

#include "vmm/bus.h"
#include "vmm/guest_mem.h"
#include "vmm/irq.h"
#include "vmm/util/log.h"

struct pci_bus;

/* What the guest asked the machine for; set by devices, acted on by machine.c. */
enum machine_event { EV_POWEROFF, EV_RESET, EV_EXIT };

struct machine_services {
	struct gmem *mem;
	struct bus *bus;
	struct irqs *irqs;
	struct pci_bus *pci;
	/* Any thread; code: the exit status of EV_EXIT.  Returns at once; the first one wins. */
	void (*event)(struct machine_services *s, enum machine_event ev, int code);
	/*
	 * Port writes that the kernel holds back reach their devices before it returns.  Any
	 * thread without a lock.  NULL: nothing is held back.
	 */
	void (*settle)(struct machine_services *s);
	/*
	 * The guest has said something about itself: by the port for it, or a line on the serial
	 * port.  A vCPU's thread.  NULL: nobody wants to know.
	 */
	void (*mark)(struct machine_services *s, bool serial, const char *text, size_t len);
};

struct device;

struct device_ops {
	const char *name;
	void (*reset)(struct device *d);   /* as if powered on again; NULL: nothing to do */
	void (*stop)(struct device *d);	   /* returns with nothing in flight; NULL: never any */
	void (*destroy)(struct device *d); /* only after stop */
};

struct device {
	const struct device_ops *ops;
	struct machine_services *services;
};

#endif
