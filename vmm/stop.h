/* SPDX-License-Identifier: MIT */
/*
 * stop.h - SIGINT, SIGTERM and SIGHUP: the first asks for a clean end, a later one forces it; and
 * SIGUSR2: cut the power.
 */
#ifndef VMM_STOP_H
#define VMM_STOP_H

#include "vmm/util/base.h"

/*
 * From now on fd (an eventfd) is written when one of them comes.  force() runs in the signal
 * handler before the process ends at once, on a later one; it may be NULL.
 */
must_check int stop_watch(int fd, void (*force)(void));
/* The handlers stay, so that a second signal still forces; fd is no longer written. */
void stop_unwatch(void);
/* Which signal came; 0: none. */
int stop_signal(void);
/* As if the user had sent SIGINT: a Ctrl-C that came as a byte. */
void stop_request(void);

/* From now on SIGUSR2 writes the same fd too.  0 or -errno. */
must_check int stop_watch_powercut(void);
/* Has it come? */
bool stop_powercut(void);

/* Keeps these signals away from the calling thread and those that it starts. */
void stop_not_here(void);

#endif
