/* SPDX-License-Identifier: MIT */
/*
 * run_options.c - what `sluice run` may be told: the tables, and what goes with what.
 *
 * Names and meanings are those that QEMU's users know.
 */
#include "vmm/run_options.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include "devices/ide.h"
#include "devices/platform.h"
#include "devices/virtio_blk.h"
#include "vmm/console.h"
#include "vmm/monitor.h"
#include "vmm/options.h"

static const char *const iface_names[] = {"virtio", "ide", NULL};
static const char *const format_names[] = {"raw", "qcow2", NULL};
static const char *const media_names[] = {"disk", "cdrom", NULL};
static const char *const discard_names[] = {"ignore", "unmap", NULL};
static const char *const lie_names[] = {"no", "flush", NULL};
static const char *const werror_names[] = {"report", "stop", "enospc", "ignore", NULL};
static const char *const rerror_names[] = {"report", "stop", "ignore", NULL};
static const enum on_error werror_values[] = {
	ON_ERROR_REPORT, ON_ERROR_STOP, ON_ERROR_ENOSPC, ON_ERROR_IGNORE};
static const enum on_error rerror_values[] = {ON_ERROR_REPORT, ON_ERROR_STOP, ON_ERROR_IGNORE};
static const char *const aio_names[] = {"io_uring", "threads", NULL};
static const enum loop_aio aio_values[] = {LOOP_AIO_URING, LOOP_AIO_THREADS};

#define CDROM_INDEX 2 /* where a PC has it: first on the second channel */

#define DRIVE(member) offsetof(struct run_drive, member)
static const struct opt drive_table[] = {
	{OPT("file", OPT_STRING, DRIVE(file), "FILE",
		"the image; a comma in its name is written ',,'")},
	{OPT("if", OPT_ENUM, DRIVE(iface), "virtio|ide",
		 "how the guest sees it (default virtio); ide: at most four"),
		.names = iface_names},
	{OPT("format", OPT_ENUM, DRIVE(format), "raw|qcow2",
		 "do say it: guessed otherwise, with a warning if raw"),
		.names = format_names},
	{OPT("cache", OPT_ENUM, DRIVE(cache), "MODE",
		 "writeback (default) and none: the guest's write cache is on at power-on;\n"
		 "writethrough and directsync: off, every write is durable when acknowledged;\n"
		 "none and directsync: bypass the host's page cache;\n"
		 "unsafe: the guest's flushes are not carried out"),
		.names = cache_mode_names},
	{OPT("disable-legacy", OPT_ON_OFF, DRIVE(legacy_off), "on|off",
		"virtio: off also serves drivers of virtio 0.9 (default on)")},
	{OPT("index", OPT_UINT, DRIVE(index), "N",
		 "if=ide: 0 and 1 on the first channel, 2 and 3 on the second\n"
		 "(default: the first one free)"),
		.max = IDE_DRIVES - 1},
	{OPT("bus", OPT_UINT, DRIVE(bus), "N", "if=ide: 0 or 1, the channel; with unit="),
		.max = IDE_DRIVES / 2 - 1},
	{OPT("unit", OPT_UINT, DRIVE(unit), "N", "if=ide: 0 or 1 on it, master or slave"),
		.max = 1},
	{OPT("media", OPT_ENUM, DRIVE(media), "disk|cdrom",
		 "cdrom: a CD-ROM drive (if=ide); without file= it is empty"),
		.names = media_names},
	{OPT("readonly", OPT_ON_OFF, DRIVE(readonly), "on|off",
		"the guest may not write (default off)")},
	{OPT("discard", OPT_ENUM, DRIVE(discard), "ignore|unmap",
		 "unmap: what the guest discards is given back to the host (default ignore)"),
		.names = discard_names},
	{OPT("detect-zeroes", OPT_ENUM, DRIVE(detect_zeroes), "off|on|unmap",
		 "on: writes of nothing but zeros need no data; unmap: and keep no space, with\n"
		 "discard=unmap (default off)"),
		.names = detect_zeroes_names},
	{OPT("werror", OPT_ENUM, DRIVE(werror), "HOW",
		 "a write or flush that the host fails: report tells the guest, stop stops it\n"
		 "and tries again after the monitor's cont, enospc (default with -monitor)\n"
		 "stops where the host is full and reports else, ignore tells it all is well"),
		.names = werror_names},
	{OPT("rerror", OPT_ENUM, DRIVE(rerror), "HOW",
		 "a read that the host fails: report (default), stop or ignore"),
		.names = rerror_names},
	{OPT("aio", OPT_ENUM, DRIVE(aio), "io_uring|threads",
		 "how the host is asked (default: io_uring, threads where that is forbidden)"),
		.names = aio_names},
	{OPT("serial", OPT_STRING, DRIVE(serial), "TEXT", "serial number, at most 20 bytes")},
	{OPT("queues", OPT_UINT, DRIVE(queues), "N",
		"request queues (default: one per vCPU)"), .min = 1,
		.max = VIRTIO_BLK_QUEUES_MAX},
	{OPT("lie", OPT_ENUM, DRIVE(lie), "no|flush",
		 "flush: a disk that says of what it has in its cache that it is durable, to\n"
		 "the guest and at the end (default no)"),
		.names = lie_names},
	{OPT("powercut", OPT_STRING, DRIVE(personality.powercut), "WHEN",
		"the disk has a volatile write cache, and the power is cut in the n-th flush:N,\n"
		"write:N, byte:N; in a write to sector:N-N; after:N requests; at a line on the\n"
		"serial port, serial:REGEX; at mark:N, a number written to port 0xf8; asked:\n"
		"only by SIGUSR2 or the monitor's x-powercut, which all of them obey")},
	{OPT("policy", OPT_STRING, DRIVE(personality.policy), "WORD",
		"what becomes of the writes that are not yet durable: none or all of them is\n"
		"there; random (default); reorder: an earlier one over a later one; torn")},
	{OPT("seed", OPT_STRING, DRIVE(personality.seed), "N", "which choice of them (1)")},
	{OPT("tear", OPT_STRING, DRIVE(personality.tear), "512|4096|none",
		"policy=torn: what a torn write consists of (512)")},
	{OPT("fail", OPT_STRING, DRIVE(personality.fail), "WHAT+...",
		"I/O errors for the guest: the n-th read:N, write:N or flush:N; bad sectors,\n"
		"sector:N or sector:N-N")},
	{OPT("delay", OPT_STRING, DRIVE(personality.delay), "WHAT+...",
		"a host's disk that takes longer: read:TIME, write:TIME, flush:TIME such as\n"
		"flush:8ms; or as hdd, ssd or nvme")},
	{OPT("full", OPT_STRING, DRIVE(personality.full), "SIZE",
		"the host's disk has room for SIZE more, then it is full")},
	{OPT("trace", OPT_STRING, DRIVE(trace), "FILE",
		"record what the guest asks of the disk and what that does to the image:\n"
		"a log for sluice powercut; a write to port 0xf8 and each line on the\n"
		"serial port are marks in it")},
	{OPT("l2-cache-size", OPT_SIZE, DRIVE(l2_cache_bytes), "SIZE",
		 "memory for qcow2's mapping tables"),
		.min = 4096, .max = 1024 * GiB},
	{OPT("refcount-cache-size", OPT_SIZE, DRIVE(refcount_cache_bytes), "SIZE",
		 "memory for qcow2's reference counts"),
		.min = 4096, .max = 1024 * GiB},
	{OPT("cache-clean-interval", OPT_UINT, DRIVE(cache_clean_s), "SECONDS",
		 "what of them was not used for so long leaves memory (default 600; 0: never)"),
		.max = INT32_MAX},
	{0},
};

/* bus= and unit= are another way to say index=. */
static int ide_place_said(struct run_drive *d, struct why *why)
{
	if (d->bus == UINT_MAX && d->unit == UINT_MAX)
		return 0;
	if (d->iface != DRIVE_IDE)
		return why_set(why, -EINVAL, "-drive: bus= and unit= need if=ide");
	if (d->index != UINT_MAX)
		return why_set(why, -EINVAL, "-drive: index=%u, or bus= and unit=", d->index);
	d->index = (d->bus == UINT_MAX ? 0 : d->bus * 2) + (d->unit == UINT_MAX ? 0 : d->unit);
	return 0;
}

/* One more drive, with a copy of the words that describe it. */
static int drive_new(struct run_options *o, const char *words, struct run_drive **out,
	struct why *why)
{
	struct run_drive *d;

	if (o->n_drives == MACHINE_DRIVES_MAX)
		return why_set(why, -EINVAL, "-drive: at most %d drives", MACHINE_DRIVES_MAX);
	d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	o->drives[o->n_drives++] = d;
	d->format = d->aio = d->werror = d->rerror = -1;
	d->index = d->bus = d->unit = d->cache_clean_s = UINT_MAX;
	d->legacy_off = true;
	d->text = strdup(words);
	*out = d;
	return d->text ? 0 : -ENOMEM;
}

static int drive_add(void *obj, const char *value, struct why *why)
{
	struct run_options *o = obj;
	struct run_drive *d = NULL;
	int err = drive_new(o, value, &d, why);

	if (!err)
		err = options_parse_list(drive_table, d, d->text, "drive", why);
	if (err)
		return err;
	if (d->media && d->iface != DRIVE_IDE)
		return why_set(why, -EINVAL, "-drive %s: media=cdrom needs if=ide", value);
	if (!d->media && (!d->file || !*d->file))
		return why_set(why, -EINVAL, "-drive %s: file= is missing", value);
	if (d->trace && (!*d->trace || d->readonly || d->media))
		return why_set(why, -EINVAL, "-drive %s: trace=%s", value,
			*d->trace ? " of a disk that nobody writes to" : " names no file");
	for (unsigned i = 0; d->trace && i + 1 < o->n_drives; i++)
		if (o->drives[i]->trace && !strcmp(o->drives[i]->trace, d->trace))
			return why_set(why, -EINVAL, "-drive: trace=%s twice", d->trace);
	err = live_parse(&d->personality, &d->live, why);
	if (err)
		return err;
	if (live_wanted(&d->live) && (d->readonly || d->media) && d->live.trigger)
		return why_set(why, -EINVAL, "-drive: powercut=%s of a disk that nobody writes to",
			d->personality.powercut);
	if (d->serial && strlen(d->serial) > 20)
		return why_set(why, -EINVAL, "-drive: serial=%s: at most 20 bytes", d->serial);
	return ide_place_said(d, why);
}

/* -drive if=ide,media=cdrom,index=2,file=FILE */
static int cdrom_add(void *obj, const char *value, struct why *why)
{
	struct run_drive *d = NULL;
	int err = drive_new(obj, value, &d, why);

	if (err)
		return err;
	d->file = d->text;
	d->iface = DRIVE_IDE;
	d->media = 1;
	d->index = CDROM_INDEX;
	return 0;
}

/* "order=cd", or the letters alone. */
static int boot_order_set(void *obj, const char *value, struct why *why)
{
	struct run_options *o = obj;
	const char *letters = strncmp(value, "order=", 6) ? value : value + 6;
	unsigned n = 0;

	o->boot_order = 0;
	for (const char *p = letters; *p; p++, n++) {
		unsigned kind = *p == 'c' ? CMOS_BOOT_DISK :
				*p == 'd' ? CMOS_BOOT_CD :
				*p == 'n' ? CMOS_BOOT_NET :
					    0;

		if (!kind || strchr(p + 1, *p))
			n = 4;
		o->boot_order |= kind << 4 * (n & 3);
	}
	if (!n || n > 3)
		return why_set(why, -EINVAL,
			"-boot %s: expected order= and letters: c (disk), d (CD), n (network)",
			value);
	return 0;
}

#define RUN(member) offsetof(struct run_options, member)
static const struct opt run_table[] = {
	{OPT("kernel", OPT_STRING, RUN(kernel), "FILE",
		"Linux kernel (a bzImage, such as Debian's vmlinuz), ELF kernel with a PVH\n"
		"entry (a vmlinux with CONFIG_PVH=y), or @guest: the built-in test guest")},
	{OPT("bios", OPT_STRING, RUN(bios), "FILE",
		"without -kernel: the firmware that boots from a disk (default: SeaBIOS, from\n"
		"Debian's package seabios)")},
	{OPT("boot", OPT_CALL, 0, "order=LETTERS",
		 "what it tries, in turn: c disks, d CDs, n network (default cd)"),
		.set = boot_order_set},
	{OPT("initrd", OPT_STRING, RUN(initrd), "FILE", "initial RAM disk for it")},
	{OPT("append", OPT_STRING, RUN(append), "TEXT", "its command line")},
	{OPT("m", OPT_SIZE, RUN(mem_bytes), "SIZE",
		 "guest memory (default 128M; a bare number is MiB)"),
		.min = 2 * MiB, .max = 1 * TiB, .scale = MiB},
	{OPT("smp", OPT_UINT, RUN(smp), "N", "number of vCPUs (default 1)"), .min = 1, .max = 255},
	{OPT("drive", OPT_CALL, 0, "KEY=VALUE,...", "a disk; may be given several times:"),
		.set = drive_add},
	{OPT("cdrom", OPT_CALL, 0, "FILE",
		 "a CD-ROM drive with that disc in it, like -drive if=ide,media=cdrom,index=2"),
		.set = cdrom_add},
	{OPT("serial", OPT_STRING, RUN(serial), "WHERE",
		"the serial port: stdio (default), null or file:PATH")},
	{OPT("monitor", OPT_STRING, RUN(monitor), "unix:PATH",
		"QMP on a Unix socket that is made there; ,server and ,nowait may follow")},
	{OPT("qmp", OPT_STRING, RUN(monitor), "unix:PATH", "the same")},
	{OPT("S", OPT_FLAG, RUN(start_paused), NULL,
		"start stopped: the monitor's cont lets the guest run")},
	{OPT("timeout", OPT_UINT, RUN(timeout_s), "SECONDS", "end the machine after that time"),
		.min = 1, .max = 10000000},
	{OPT("no-reboot", OPT_FLAG, RUN(no_reboot), NULL, "a reset by the guest ends the run")},
	{OPT("no-shutdown", OPT_FLAG, RUN(no_shutdown), NULL,
		"a guest that switches off does not: it is stopped")},
	{OPT("snapshot", OPT_FLAG, RUN(throwaway), NULL,
		"what the guest writes is gone at the end: it goes to files in TMPDIR")},
	{OPT("name", OPT_STRING, RUN(name), "TEXT", "for the monitor's query-name")},
	{OPT("pidfile", OPT_STRING, RUN(pidfile), "FILE",
		"the number of the process is there while it runs")},
	{OPT("daemonize", OPT_FLAG, RUN(daemonize), NULL,
		"return when the machine is ready, which goes on without a terminal")},
	{OPT("stats", OPT_STRING, RUN(stats), "FILE",
		"at the end, write figures as JSON; - is stdout")},
	{0},
};

/* Gives every IDE drive its place: the ones with index= first. */
static int place_ide(struct run_options *o, struct why *why)
{
	bool taken[IDE_DRIVES] = {false};
	unsigned next = 0;

	for (unsigned i = 0; i < o->n_drives; i++) {
		const struct run_drive *d = o->drives[i];

		if (d->index == UINT_MAX)
			continue;
		if (d->iface != DRIVE_IDE)
			return why_set(why, -EINVAL, "-drive: index=%u needs if=ide", d->index);
		if (taken[d->index])
			return why_set(why, -EINVAL, "-drive: index=%u twice", d->index);
		taken[d->index] = true;
	}
	for (unsigned i = 0; i < o->n_drives; i++) {
		struct run_drive *d = o->drives[i];

		if (d->iface != DRIVE_IDE || d->index != UINT_MAX)
			continue;
		while (next < IDE_DRIVES && taken[next])
			next++;
		if (next == IDE_DRIVES)
			return why_set(
				why, -EINVAL, "-drive if=ide: at most %d drives", IDE_DRIVES);
		taken[next] = true;
		d->index = next;
	}
	return 0;
}

/* What -drive may say depends on what else is said. */
static int drives_check(const struct run_options *o, struct why *why)
{
	for (unsigned i = 0; i < o->n_drives; i++) {
		const struct run_drive *d = o->drives[i];
		enum on_error w = d->werror < 0 ? ON_ERROR_REPORT : werror_values[d->werror];
		enum on_error r = d->rerror < 0 ? ON_ERROR_REPORT : rerror_values[d->rerror];
		bool write = w == ON_ERROR_STOP || w == ON_ERROR_ENOSPC;

		if ((write || r == ON_ERROR_STOP) && !o->monitor)
			return why_set(why, -EINVAL,
				"-drive: %s=%s needs -monitor: nobody could let the guest go on",
				write ? "werror" : "rerror",
				write ? werror_names[d->werror] : rerror_names[d->rerror]);
		if (o->throwaway && !d->media && (d->trace || live_wanted(&d->live)))
			return why_set(why, -EINVAL,
				"-snapshot: a disk that is thrown away is not recorded and has "
				"no personality");
	}
	return 0;
}

int run_options_parse(struct run_options *o, int argc, char **argv, struct why *why)
{
	int err;

	memset(o, 0, sizeof(*o));
	o->append = "";
	o->mem_bytes = 128 * MiB;
	o->smp = 1;
	o->boot_order = CMOS_BOOT_DISK | CMOS_BOOT_CD << 4;
	err = options_parse(run_table, o, argc, argv, why);
	if (err)
		return err;
	if (!o->kernel && !o->bios && !o->n_drives)
		return why_set(why, -EINVAL,
			"nothing to boot: give -kernel FILE, or -drive with a boot loader on it");
	if (!o->kernel && (o->initrd || *o->append))
		return why_set(why, -EINVAL, "-initrd and -append go with -kernel");
	if (o->kernel && o->bios)
		return why_set(why, -EINVAL, "-bios: with -kernel no firmware runs");
	if (o->daemonize && o->serial && !strcmp(o->serial, "stdio"))
		return why_set(why, -EINVAL, "-daemonize: there is no terminal for -serial stdio");
	if (!o->serial)
		o->serial = o->daemonize ? "null" : "stdio";
	if (!console_spec_ok(o->serial))
		return why_set(
			why, -EINVAL, "-serial %s: expected stdio, null or file:PATH", o->serial);
	if (o->monitor && !monitor_spec_ok(o->monitor))
		return why_set(why, -EINVAL,
			"-monitor %s: expected unix:PATH, then nothing or ,server and ,nowait",
			o->monitor);
	if (o->start_paused && !o->monitor)
		return why_set(why, -EINVAL, "-S needs -monitor: nobody could start the guest");
	err = drives_check(o, why);
	if (!err)
		err = place_ide(o, why);
	if (err)
		return err;
	if (o->mem_bytes % 4096)
		return why_set(why, -EINVAL, "-m: the size must be a multiple of 4K");
	return 0;
}

void run_options_free(struct run_options *o)
{
	for (unsigned i = 0; i < o->n_drives; i++) {
		free(o->drives[i]->text);
		free(o->drives[i]);
	}
	o->n_drives = 0;
}

void run_options_drive(
	const struct run_options *o, const struct run_drive *d, struct drive_config *out)
{
	*out = (struct drive_config){
		.disk = {.path = d->file,
			.format = d->format >= 0 ? format_names[d->format]
						: d->media ? "raw" : NULL,
			.cache = (enum cache_mode)d->cache,
			.readonly = d->readonly || d->media,
			.nosync = d->lie,
			.unmap = d->discard,
			.detect_zeroes = (enum detect_zeroes)d->detect_zeroes,
			.cache_clean_s = d->cache_clean_s == UINT_MAX ? 0
					 : d->cache_clean_s	      ? d->cache_clean_s
								      : CACHE_CLEAN_NEVER,
			.on_write_error = d->werror >= 0 ? werror_values[d->werror] :
					  o->monitor     ? ON_ERROR_ENOSPC :
							   ON_ERROR_REPORT,
			.on_read_error = d->rerror >= 0 ? rerror_values[d->rerror] :
							  ON_ERROR_REPORT,
			.l2_cache_bytes = d->l2_cache_bytes,
			.refcount_cache_bytes = d->refcount_cache_bytes},
		.aio = d->aio < 0 ? LOOP_AIO_AUTO : aio_values[d->aio],
		.serial = d->serial,
		.queues = d->queues,
		.iface = (enum drive_iface)d->iface,
		.transitional = !d->legacy_off,
		.cdrom = d->media,
		.throwaway = o->throwaway && !d->media && !d->readonly,
		.trace = d->trace,
		.live = d->live,
		.index = d->index,
	};
}

void run_help(FILE *f)
{
	fprintf(f, "Usage: sluice run [-kernel FILE] [OPTION]...\n"
		   "Boots a guest: a kernel, or what is on its disks. Options take one "
		   "dash or two.\n\n");
	for (const struct opt *o = run_table; o->name; o++) {
		const struct opt one[] = {*o, {0}};

		options_help(f, one, false);
		if (o->set == drive_add)
			options_help(f, drive_table, true);
	}
	fprintf(f,
		"\nKeys on a terminal: Ctrl-C and Ctrl-A x end the machine cleanly (again after "
		"half "
		"a\nsecond: at once); Ctrl-A Ctrl-C and Ctrl-A Ctrl-A send the guest the second "
		"one.\n"
		"\nExit status: what the guest reports through port 0xf4; 0 after power-off, or "
		"after a\nreset with -no-reboot; 1 if the machine cannot be made as asked or an "
		"image cannot be\nclosed; 3 at the time-out; 4 if KVM cannot go on; 5 after a "
		"power cut; 128 plus\nthe number of the signal that ended it (130: Ctrl-C). "
		"Images are closed clean unless\nit was forced or the power was cut.\n");
}
