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
	 * What the guest sent, as it sends it: the exit costs 25 us, a write(2) one.  On a vCPU
	 * thread, one call at a time; may block (a full pipe stops the guest).  NULL: dropped.
	 */
	void (*out)(void *arg, const uint8_t *p, size_t n);
	void *arg;
	/* There is room again after serial_input() took less than given.  vCPU thread; or NULL. */
	void (*room)(void *arg);
};

must_check int serial_create(struct machine_services *s, const struct serial_opts *o,
	struct device **out);
/* Gives the guest input, from any thread.  How many bytes were taken: 0 when its buffer is full. */
size_t serial_input(struct device *d, const uint8_t *p, size_t n);

#endif
