/* SPDX-License-Identifier: MIT */
/*
 * power.c - the old ports through which a PC is reset.
 *
 * Two of them: the keyboard controller's command port, where 0xfe pulses the reset
 * line, and "system control A", whose bit 0 does when it goes up.  Bit 1 of the latter opens
 * address line 20 on a PC; here that is always open, and the bit is kept for who looks.
 *
 * There is no keyboard behind the controller.  Its status reads as "output full, input
 * empty": who wants to send 0xfe waits for the input to be empty and finds it so at
 * once, and who probes for a keyboard drains the output, never gets to the end of it and
 * takes the controller for absent without waiting for time-outs.
 */
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "devices/platform.h"

#define KBC_PORT     0x60
#define KBC_COMMAND  4 /* offset of port 0x64 */
#define KBC_RESET    0xfe
#define KBC_STATUS   0xfd /* all but bit 1, "input full" */
#define SYSA_PORT    0x92
#define SYSA_RESET   0x01
#define SYSA_A20     0x02

struct power {
	struct device dev;
	struct bus_range kbc_data, kbc, sysa;
	_Atomic uint8_t sysa_value;
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

static void sysa_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct power *p = container_of(r, struct power, sysa);

	memset(data, 0xff, len);
	*(uint8_t *)data = atomic_load(&p->sysa_value);
}

static void sysa_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct power *p = container_of(r, struct power, sysa);
	uint8_t v = *(const uint8_t *)data, was = atomic_exchange(&p->sysa_value, v);

	if (v & ~was & SYSA_RESET)
		p->dev.services->event(p->dev.services, EV_RESET, 0);
}

static void power_reset(struct device *dev)
{
	atomic_store(&container_of(dev, struct power, dev)->sysa_value, SYSA_A20);
}

static void power_destroy(struct device *dev)
{
	struct power *p = container_of(dev, struct power, dev);

	bus_remove(dev->services->bus, BUS_PORT, &p->sysa);
	bus_remove(dev->services->bus, BUS_PORT, &p->kbc);
	bus_remove(dev->services->bus, BUS_PORT, &p->kbc_data);
	free(p);
}

static const struct device_ops power_ops = {
	.name = "power",
	.reset = power_reset,
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
	p->sysa = (struct bus_range){.read = sysa_read, .write = sysa_write, .base = SYSA_PORT,
		.len = 1, .name = "system control A"};
	power_reset(&p->dev);
	err = bus_add(s->bus, BUS_PORT, &p->kbc_data);
	if (err)
		goto free_power;
	err = bus_add(s->bus, BUS_PORT, &p->kbc);
	if (err)
		goto remove_data;
	err = bus_add(s->bus, BUS_PORT, &p->sysa);
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
