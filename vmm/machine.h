/* SPDX-License-Identifier: MIT */
/*
 * machine.h - a whole machine, from nothing to its end.
 */
#ifndef VMM_MACHINE_H
#define VMM_MACHINE_H

#include "vmm/blob.h"
#include "vmm/disks.h"

struct machine_config {
	struct blob kernel, initrd; /* name NULL: none; without a kernel the firmware boots */
	struct blob firmware;
	unsigned boot_order; /* platform.h: cmos_create() */
	const char *cmdline;
	uint64_t mem_bytes;
	unsigned n_vcpus;
	const char *serial; /* console.h */
	struct drive_config drives[MACHINE_DRIVES_MAX];
	unsigned n_drives;
	unsigned timeout_s; /* 0: none */
	bool no_reboot;     /* a reset ends the run */
	const char *monitor; /* monitor.h; NULL: none */
	bool start_paused;   /* until the monitor says cont */
	bool no_shutdown;    /* a guest that switches off is stopped, until the monitor says quit */
	const char *name;    /* NULL: none */
	void (*ready)(void *arg); /* the guest is about to start; NULL: nobody asks */
	void *ready_arg;
};

/* Exit statuses of `sluice run` besides the guest's own. */
enum {
	MACHINE_OK = 0,   /* the guest switched off, or reset with no_reboot */
	MACHINE_USER = 1, /* the machine could not be made, or an image not be left clean */
	MACHINE_TIMEOUT = 3,
	MACHINE_FAILED = 4,   /* KVM cannot go on */
	MACHINE_POWERCUT = 5, /* the power was cut, as powercut= of a drive says */
	MACHINE_SIGNAL = 128, /* + the signal's number */
};

struct machine_report {
	int status;
	double seconds;              /* from start to end */
	double first_instruction_ms; /* from start; negative: never */
	unsigned resets;
	struct drive_report drives[MACHINE_DRIVES_MAX];
};

/*
 * Builds, runs and takes down.  Errors are logged here.  start_ns: when the program started
 * (CLOCK_MONOTONIC), for the report.  The status is also returned.
 */
int machine_run(const struct machine_config *c, uint64_t start_ns, struct machine_report *r);

#endif
