/* SPDX-License-Identifier: MIT */
/*
 * power.c - the ports through which a PC is reset or switched off.
 *
 * Two of them: the keyboard controller's command port, where 0xfe pulses the reset
 * line, and an ACPI PM1a control register, where SLP_EN (bit 13) switches off
 * whatever the sleep type says: this machine sleeps in no other way.
 *
 * There is no keyboard behind the controller.  Its status reads as "output full, input
 * empty": who wants to send 0xfe waits for the input to be empty and finds it so at
 * once, and who probes for a keyboard drains the output, never gets to the end of it and
 * takes the controller for absent without waiting for time-outs.
 */
#include <stdlib.h>
#include <string.h>
#include "devices/platform.h"

#define KBC_PORT     0x60
#define KBC_COMMAND  4 /* offset of port 0x64 */
#define KBC_RESET    0xfe
#define KBC_STATUS   0xfd /* all but bit 1, "input full" */
#define PM1_PORT     0x604
#define PM1_SLP_EN   0x2000
#define PM1_SCI_EN   0x0001

struct power {
	struct device dev;
	struct bus_range kbc_data, kbc, pm1;
};

static void kbc_data_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	memset(data, 0xff, len);
}

static void kbc_data_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
}

static void kbc_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	memset(data, 0xff, len);
	*(uint8_t *)data = KBC_STATUS;
}

static void kbc_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct power *p = container_of(r, struct power, kbc);

	if (*(const uint8_t *)data == KBC_RESET)
		p->dev.services->event(p->dev.services, EV_RESET, 0);
}

static void pm1_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	static const uint8_t reg[2] = {PM1_SCI_EN, 0};

	memset(data, 0, len);
	for (unsigned i = 0; i < len && off + i < sizeof(reg); i++)
		((uint8_t *)data)[i] = reg[off + i];
}

static void pm1_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct power *p = container_of(r, struct power, pm1);
	const uint8_t *b = data;

	/* SLP_EN lies in the second byte, whatever the width that carried it. */
	if (off <= 1 && off + len > 1 && b[1 - off] & PM1_SLP_EN >> 8)
		p->dev.services->event(p->dev.services, EV_POWEROFF, 0);
}

static void power_destroy(struct device *dev)
{
	struct power *p = container_of(dev, struct power, dev);

	bus_remove(dev->services->bus, BUS_PORT, &p->pm1);
	bus_remove(dev->services->bus, BUS_PORT, &p->kbc);
	bus_remove(dev->services->bus, BUS_PORT, &p->kbc_data);
	free(p);
}

static const struct device_ops power_ops = {
	.name = "power",
	.destroy = power_destroy,
};

int power_create(struct machine_services *s, struct device **out)
{
	struct power *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	p->dev = (struct device){&power_ops, s};
	p->kbc_data = (struct bus_range){.read = kbc_data_read, .write = kbc_data_write,
		.base = KBC_PORT, .len = 1, .name = "keyboard data"};
	p->kbc = (struct bus_range){.read = kbc_read, .write = kbc_write,
		.base = KBC_PORT + KBC_COMMAND, .len = 1, .name = "keyboard command"};
	p->pm1 = (struct bus_range){.read = pm1_read, .write = pm1_write, .base = PM1_PORT,
		.len = 4, .name = "ACPI PM1a control"};
	err = bus_add(s->bus, BUS_PORT, &p->kbc_data);
	if (err)
		goto free_power;
	err = bus_add(s->bus, BUS_PORT, &p->kbc);
	if (err)
		goto remove_data;
	err = bus_add(s->bus, BUS_PORT, &p->pm1);
	if (err)
		goto remove_kbc;
	*out = &p->dev;
	return 0;
remove_kbc:
	bus_remove(s->bus, BUS_PORT, &p->kbc);
remove_data:
	bus_remove(s->bus, BUS_PORT, &p->kbc_data);
free_power:
	free(p);
	return err;
}
