/* SPDX-License-Identifier: MIT */
/*
 * monitor.h - QMP on a Unix socket: the user asks the running machine, and changes it.
 *
 * All of it runs on the main thread, in the machine's own poll: what stops or resets the
 * machine needs no lock.  One client at a time; the next one waits in the socket's queue.
 */
#ifndef VMM_MONITOR_H
#define VMM_MONITOR_H

#include <jansson.h>
#include "vmm/disks.h"

struct monitor;

/* What the monitor may ask of the machine; main thread. */
struct monitor_host {
	void *arg;
	const char *name; /* the user's for the machine; NULL: none */
	const char *serial; /* console.h */
	struct disks *disks;
	int wake_fd;                      /* an eventfd that ends the machine's poll */
	const char *(*status)(void *arg); /* as query-status names it */
	void (*stop)(void *arg);
	void (*io_error)(void *arg);    /* a request waits: the guest is to stop */
	const char *(*cont)(void *arg); /* NULL, or why it cannot */
	void (*button)(void *arg);
	void (*reset)(void *arg); /* once the machine's loop goes on; likewise: */
	void (*quit)(void *arg);
	bool (*powercut)(void *arg); /* false: no drive is ready for that */
	unsigned cpus;
	int (*cpu_thread)(void *arg, unsigned cpu); /* the kernel's number of its thread */
};

/* unix:PATH[,server][,nowait]: is it one? */
bool monitor_spec_ok(const char *spec);
/*
 * Listens; *h is copied.  Taken down by monitor_close(), which removes the socket.  0, or -errno
 * with words; a socket that nobody listens on any more is replaced, anything else is left alone.
 */
must_check int monitor_open(
	const char *spec, const struct monitor_host *h, struct monitor **out, struct why *why);
void monitor_close(struct monitor *m); /* NULL: nothing */

/* For the poll: what to wait for readable; call turn after each wake-up. */
int monitor_fd(const struct monitor *m);
void monitor_turn(struct monitor *m);

/* Tells the client; takes data (NULL: none) over.  m NULL: drops it. */
void monitor_event(struct monitor *m, const char *name, json_t *data);
/* Of trays that moved, the guest's doing or a command's, before that is answered. */
void monitor_tell_trays(struct monitor *m);

/* ---- commands ---- */

/* What the client sees when a command fails. */
struct monitor_error {
	const char *class; /* a name from QMP's specification */
	char desc[512];
};
/* The answer; NULL: failed, and *e says how. */
typedef json_t *monitor_command(struct monitor *m, json_t *args, struct monitor_error *e);
json_t *monitor_fail(struct monitor_error *e, const char *class, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
/* Another command, as a client would say it: NULL: failed.  Takes args over. */
json_t *monitor_call(
	struct monitor *m, const char *name, json_t *args, struct monitor_error *e);
const struct monitor_host *monitor_host(const struct monitor *m);

/* monitor_block.c: what drives are, and their caches. */
monitor_command monitor_query_block, monitor_query_blockstats, monitor_query_nodes;
monitor_command monitor_set_write_cache;
/* The drive that "device" names (or "id", or "node-name"); -1: there is none. */
int monitor_drive(struct monitor *m, json_t *args, struct monitor_error *e);
/* The data of the event for a change of the cache bit. */
json_t *monitor_write_cache(const struct drive *d);

/* monitor_disk.c: what changes them. */
monitor_command monitor_resize, monitor_overlay, monitor_snapshot, monitor_snapshot_delete;
monitor_command monitor_eject, monitor_open_tray, monitor_close_tray, monitor_remove_medium;
monitor_command monitor_change_medium;

/* monitor_human.c */
monitor_command monitor_human;

#endif
