/* SPDX-License-Identifier: MIT */
/*
 * run.c - sluice run: from words to a machine and back to an exit status.
 *
 * Nothing is opened before every word has been understood.
 */
#include "vmm/run.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/daemon.h"
#include "vmm/embed.h"
#include "vmm/firmware.h"
#include "vmm/machine.h"
#include "vmm/options.h"
#include "vmm/run_options.h"
#include "vmm/stats.h"
#include "vmm/util/loop.h"

static int open_kernel(struct blob *b, const char *name, struct why *why)
{
	if (strcmp(name, "@guest"))
		return blob_open(b, name, why);
	if (!embed_guest_size())
		return why_set(why, -ENOENT, "this program was built without the test guest");
	blob_mem(b, name, embed_guest_data, embed_guest_size());
	return 0;
}

static int open_firmware(struct blob *b, const char *name, struct why *why)
{
	if (!name)
		name = firmware_default();
	if (!name)
		return why_set(why, -ENOENT,
			"no firmware: install the package seabios, or give -bios or -kernel FILE");
	return blob_open(b, name, why);
}

static void on_ready(void *arg)
{
	daemon_ready(*(int *)arg);
}

static int run_machine(const struct run_options *o, uint64_t start_ns)
{
	int ready = -1, pid_fd = -1;
	struct machine_config c = {.cmdline = o->append,
		.mem_bytes = o->mem_bytes,
		.n_vcpus = o->smp,
		.serial = o->serial,
		.n_drives = o->n_drives,
		.timeout_s = o->timeout_s,
		.no_reboot = o->no_reboot,
		.monitor = o->monitor,
		.start_paused = o->start_paused,
		.no_shutdown = o->no_shutdown,
		.name = o->name,
		.ready = on_ready,
		.ready_arg = &ready,
		.boot_order = o->boot_order};
	struct machine_report report;
	struct why why = {{0}};
	struct stats_out *stats = NULL;
	int status = MACHINE_USER, err;

	for (unsigned i = 0; i < o->n_drives; i++)
		run_options_drive(o, o->drives[i], &c.drives[i]);
	err = o->kernel ? open_kernel(&c.kernel, o->kernel, &why) :
			  open_firmware(&c.firmware, o->bios, &why);
	if (!err && o->initrd)
		err = blob_open(&c.initrd, o->initrd, &why);
	if (!err && o->stats)
		err = stats_open(o->stats, &stats, &why);
	if (!err && o->daemonize)
		err = daemon_begin(&ready, &why);
	if (!err && o->pidfile)
		err = pidfile_open(o->pidfile, &pid_fd, &why);
	if (!err) {
		status = machine_run(&c, start_ns, &report);
		if (stats)
			err = stats_write(stats, &c, &report, &why);
		if (err && status == MACHINE_OK)
			status = MACHINE_USER;
	}
	if (err)
		log_error("%s", why_text(&why, err));
	pidfile_close(o->pidfile, pid_fd);
	stats_close(stats);
	blob_close(&c.initrd);
	blob_close(&c.kernel);
	blob_close(&c.firmware);
	return status;
}

int run_main(int argc, char **argv)
{
	uint64_t start_ns = loop_now_ns();
	struct run_options o;
	struct why why = {{0}};
	int status = MACHINE_USER, err;

	log_prefix("sluice run");
	signal(SIGPIPE,
		SIG_IGN); /* a reader of the serial port that goes away does not end the guest */
	err = run_options_parse(&o, argc - 1, argv + 1, &why);
	if (err == OPTIONS_HELP) {
		run_help(stdout);
		status = 0;
	} else if (err) {
		log_error("%s (sluice run --help lists all)", why_text(&why, err));
	} else {
		status = run_machine(&o, start_ns);
	}
	run_options_free(&o);
	return status;
}
