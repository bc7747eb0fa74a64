/* SPDX-License-Identifier: MIT */
/*
 * serial.h - a 16550A serial port.
 */
#ifndef DEVICES_SERIAL_H
#define DEVICES_SERIAL_H

#include "devices/device.h"

struct serial_opts {
	uint16_t port; /* 0: 0x3f8 */
	unsigned gsi;  /* 0: 4 */
	/*
	 * What the guest sent.  On a vCPU thread, one call at a time, whenever a line is full or
	 * the guest looks at the port again; may block, should not for long.  NULL: dropped.
	 */
	void (*out)(void *arg, const uint8_t *p, size_t n);
	void *arg;
	/* There is room again after serial_input() took less than it was given.  Any thread; NULL allowed. */
	void (*room)(void *arg);
};

must_check int serial_create(struct machine_services *s, const struct serial_opts *o,
	struct device **out);
/* Gives the guest input, from any thread.  How many bytes were taken: 0 when its buffer is full. */
size_t serial_input(struct device *d, const uint8_t *p, size_t n);
/* Hands everything sent so far to out(); any thread (a timer of the machine, an exit). */
void serial_flush(struct device *d);

#endif
