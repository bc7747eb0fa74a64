/* SPDX-License-Identifier: MIT */
/*
 * mark.c - a port by which a guest says where it is: a mark in the logs of its disks.
 *
 * The number written to port 0xf8, of any width, is the mark's text in decimal.  From user space
 * of Linux one byte goes there through /dev/port.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "devices/platform.h"
#include "vmm/util/bytes.h"

#define MARK_PORT 0xf8

struct mark {
	struct device dev;
	struct bus_range range;
};

static void mark_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	memset(data, 0xff, len);
}

static void mark_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct machine_services *s = container_of(r, struct mark, range)->dev.services;
	char text[24];

	if (off)
		return;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)le_get(data, len));
	s->mark(s, false, text, strlen(text));
}

static void mark_destroy(struct device *dev)
{
	struct mark *m = container_of(dev, struct mark, dev);

	bus_remove(dev->services->bus, BUS_PORT, &m->range);
	free(m);
}

static const struct device_ops mark_ops = {
	.name = "mark",
	.destroy = mark_destroy,
};

int mark_create(struct machine_services *s, struct device **out)
{
	struct mark *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->dev = (struct device){&mark_ops, s};
	m->range = (struct bus_range){
		.read = mark_read,
		.write = mark_write,
		.base = MARK_PORT,
		.len = 4,
		.name = "mark",
	};
	err = bus_add(s->bus, BUS_PORT, &m->range);
	if (err) {
		free(m);
		return err;
	}
	*out = &m->dev;
	return 0;
}
