/* SPDX-License-Identifier: MIT */
/*
 * run_options.h - the command line of `sluice run`.
 */
#ifndef VMM_RUN_OPTIONS_H
#define VMM_RUN_OPTIONS_H

#include <stdio.h>
#include "vmm/machine.h"

struct run_options {
	const char *kernel, *bios, *initrd, *append, *serial, *stats, *monitor;
	const char *name, *pidfile;
	uint64_t mem_bytes;
	unsigned smp, timeout_s;
	bool no_reboot, no_shutdown, start_paused, throwaway, daemonize;
	unsigned boot_order; /* platform.h: cmos_create() */
	struct run_drive *drives[MACHINE_DRIVES_MAX];
	unsigned n_drives;
};

struct run_drive {
	char *text; /* owns the words below */
	const char *file, *serial, *trace;
	struct live_words personality;
	struct live_config live; /* what they say */
	int lie; /* 1: about flushes */
	int iface, format, cache, aio; /* format -1: not said */
	bool readonly;
	bool legacy_off;
	int media; /* 1: a CD-ROM */
	unsigned index, bus, unit; /* UINT_MAX: not said */
	int werror, rerror;        /* -1: not said */
	unsigned queues;
	int discard, detect_zeroes; /* discard 1: unmap */
	uint64_t l2_cache_bytes, refcount_cache_bytes;
	unsigned cache_clean_s; /* UINT_MAX: not said */
};

/* As options_parse(); everything that can be checked without opening anything is checked. */
must_check int run_options_parse(struct run_options *o, int argc, char **argv, struct why *why);
void run_options_free(struct run_options *o);
void run_options_drive(
	const struct run_options *o, const struct run_drive *d, struct drive_config *out);
void run_help(FILE *f);

#endif
