/* SPDX-License-Identifier: MIT */
/*
 * daemon.h - a program that goes on in the background, and a file that says where.
 */
#ifndef VMM_DAEMON_H
#define VMM_DAEMON_H

#include "vmm/util/base.h"
#include "vmm/util/log.h"

/*
 * -daemonize, before there are threads: returns in a child process, in *ready what to give to
 * daemon_ready().  The parent waits for that, or for the child's end, and never returns: its exit
 * status is 0, or the child's.
 */
must_check int daemon_begin(int *ready, struct why *why);
/* All is well: the parent may go; the terminal is left alone from now on.  ready -1: nothing. */
void daemon_ready(int ready);

/* -pidfile: our number in it, locked as long as *fd is open.  0, or -errno with words. */
must_check int pidfile_open(const char *path, int *fd, struct why *why);
void pidfile_close(const char *path, int fd); /* removes it; fd -1: nothing */

#endif
