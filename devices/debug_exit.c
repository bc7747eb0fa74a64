/* SPDX-License-Identifier: MIT */
/*
 * debug_exit.c - a port that ends the run with the guest's own exit status.
 *
 * What test guests use: the value written to port 0xf4 is the result.  A write of
 * any width counts, of which the lowest byte is the status.
 */
#include <stdlib.h>
#include <string.h>
#include "devices/platform.h"

#define DEBUG_EXIT_PORT 0xf4

struct debug_exit {
	struct device dev;
	struct bus_range range;
};

static void debug_exit_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	memset(data, 0xff, len);
}

static void debug_exit_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct debug_exit *d = container_of(r, struct debug_exit, range);

	if (off == 0)
		d->dev.services->event(d->dev.services, EV_EXIT, *(const uint8_t *)data);
}

static void debug_exit_destroy(struct device *dev)
{
	struct debug_exit *d = container_of(dev, struct debug_exit, dev);

	bus_remove(dev->services->bus, BUS_PORT, &d->range);
	free(d);
}

static const struct device_ops debug_exit_ops = {
	.name = "debug-exit",
	.destroy = debug_exit_destroy,
};

int debug_exit_create(struct machine_services *s, struct device **out)
{
	struct debug_exit *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return -ENOMEM;
	d->dev = (struct device){&debug_exit_ops, s};
	/* Four ports, as wide as the widest access, so that the bus need not cut it up. */
	d->range = (struct bus_range){
		.read = debug_exit_read,
		.write = debug_exit_write,
		.base = DEBUG_EXIT_PORT,
		.len = 4,
		.name = "debug-exit",
	};
	err = bus_add(s->bus, BUS_PORT, &d->range);
	if (err) {
		free(d);
		return err;
	}
	*out = &d->dev;
	return 0;
}
