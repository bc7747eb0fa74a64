/* SPDX-License-Identifier: MIT */
/*
 * console.h - the host's end of the serial port: the terminal, a file, or nothing.
 *
 * On a terminal, keys go to the guest as they are, except: Ctrl-C ends the machine, Ctrl-A
 * Ctrl-C and Ctrl-A Ctrl-A send the second of them, Ctrl-A x ends the machine too.
 */
#ifndef VMM_CONSOLE_H
#define VMM_CONSOLE_H

#include "devices/device.h"
#include "vmm/util/log.h"

struct console;

/* spec: "stdio", "null" or "file:PATH" (checked by console_spec_ok()).  0 or -errno with words. */
must_check int console_open(
	const char *spec, struct machine_services *s, struct console **out, struct why *why);
bool console_spec_ok(const char *spec);
/* The serial port itself, for the machine's list of devices. */
struct device *console_device(struct console *c);
/* After the device is gone.  Puts the terminal back. */
void console_close(struct console *c);

/* While on, output that would have to wait is dropped: nothing may keep a vCPU in its handler. */
void console_hurry(struct console *c, bool on);

/* For the main thread's poll: a descriptor to wait for input on, or -1 for now; then call input. */
int console_input_fd(struct console *c);
/* A descriptor that wakes up when input may go on; drained by console_input(). */
int console_room_fd(struct console *c);
void console_input(struct console *c);

/* Puts the terminal back as it was; safe in signal handlers, harmless when nothing was changed. */
void console_restore_terminal(void);

#endif
