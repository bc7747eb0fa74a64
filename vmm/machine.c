/* SPDX-License-Identifier: MIT */
/*
 * machine.c - the whole machine, built in one function and taken down in reverse.
 *
 *   build -> resume -> wait for something to end it -> pause -> stop devices -> unbuild
 *                        ^                     |
 *                        +---- reset ----------+
 *
 * The main thread waits.  What ends the wait comes from a device or a vCPU (an event, of which the
 * first one counts), from the user (a signal, a key) or from the clock.
 *
 * A reset pauses the vCPUs, resets every device, loads the kernel again over what is in memory
 * and starts from the beginning; RAM that the kernel does not load keeps its content,
 * as it does in a PC.
 */
#include "vmm/machine.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "devices/ide.h"
#include "devices/pci.h"
#include "devices/piix3.h"
#include "devices/platform.h"
#include "devices/virtio_blk.h"
#include "vmm/acpi.h"
#include "vmm/boot_linux.h"
#include "vmm/boot_pvh.h"
#include "vmm/bus_dispatch.h"
#include "vmm/console.h"
#include "vmm/firmware.h"
#include "vmm/irq_setup.h"
#include "vmm/kvm.h"
#include "vmm/monitor.h"
#include "vmm/stop.h"
#include "vmm/vcpu.h"

#define DEVICES_MAX (MACHINE_DRIVES_MAX + 9)

struct machine {
	struct machine_services services;
	const struct machine_config *c;
	struct kvm *kvm;
	struct gmem mem;
	struct kvm_chips *chips; /* at power-on */
	struct vcpus *vcpus;
	struct console *console;
	struct firmware *firmware; /* NULL: a kernel is booted directly */
	struct device *devices[DEVICES_MAX]; /* in the order they were made */
	unsigned n_devices;
	struct device *pm; /* one of them: has the power button */
	struct disks disks;
	struct ide_drive_opts ide[IDE_DRIVES]; /* by index */
	bool has_ide;
	struct monitor *monitor; /* or NULL */
	bool paused;             /* by the monitor, or not started yet, or: */
	bool io_error;           /* the host has failed a request, which waits */
	bool ended;              /* the guest has switched off, and -no-shutdown keeps it */
	bool started;
	bool quit;
	const char *cut_by;    /* the monitor asks for a power cut */
	_Atomic bool powercut; /* it has happened, to one drive at least */
	int wake_fd;
	_Atomic bool fault_told; /* the user knows of a triple fault */
	_Atomic int event;       /* 0: none, else an EVENT_WORD */
};

/* What ended the wait, in one word so that the first one wins. */
enum { FAILED = EV_EXIT + 1, DRIVE_FAILED };
#define MONITOR_ASKED 1 /* EV_RESET: it was the monitor */
#define EVENT_WORD(ev, code) (0x10000 | (ev) << 8 | ((code)&0xff))
#define EVENT_KIND(word)     ((word) >> 8 & 0xff)
#define EVENT_CODE(word)     ((word)&0xff)

static void wake(struct machine *m)
{
	uint64_t one = 1;
	ssize_t n = write(m->wake_fd, &one, sizeof(one));

	(void)n; /* a full counter wakes as well */
}

static void event_set(struct machine *m, int ev, int code)
{
	int none = 0;

	if (atomic_compare_exchange_strong(&m->event, &none, EVENT_WORD(ev, code)))
		wake(m);
}

/* On the thread of the drive that has lost its power; the others follow from the main thread. */
static void on_powercut(void *arg)
{
	struct machine *m = arg;

	atomic_store(&m->powercut, true);
	vcpus_pause_soon(m->vcpus);
	wake(m);
}

static void on_event(struct machine_services *s, enum machine_event ev, int code)
{
	event_set(container_of(s, struct machine, services), ev, code);
}

static void on_settle(struct machine_services *s)
{
	struct machine *m = container_of(s, struct machine, services);

	if (m->vcpus)
		vcpus_settle(m->vcpus);
}

/* These drives are there before the first vCPU runs, and after the last one has. */
static void on_mark(struct machine_services *s, bool serial, const char *text, size_t len)
{
	struct machine *m = container_of(s, struct machine, services);

	for (unsigned i = 0; i < m->disks.n; i++)
		if (m->disks.slot[i].c.trace || m->disks.slot[i].c.live.trigger)
			drive_mark(m->disks.slot[i].drive, serial ? MARK_BY_SERIAL : MARK_BY_PORT,
				text, len);
}

static void on_vcpu_end(void *arg, enum vcpu_end how)
{
	struct machine *m = arg;

	switch (how) {
	case VCPU_TRIPLE_FAULT:
		/* Once: a guest that does nothing else does it a hundred times a second. */
		if (!atomic_exchange(&m->fault_told, true))
			log_warn("triple fault in the guest: reset");
		event_set(m, EV_RESET, 0);
		break;
	case VCPU_RESET:
		event_set(m, EV_RESET, 0);
		break;
	case VCPU_POWEROFF:
		event_set(m, EV_POWEROFF, 0);
		break;
	case VCPU_FAILED:
		event_set(m, FAILED, 0);
		break;
	}
}

static bool has_powercut(const struct machine_config *c)
{
	for (unsigned i = 0; i < c->n_drives; i++)
		if (c->drives[i].live.trigger)
			return true;
	return false;
}

static void on_drive_failed(void *arg)
{
	event_set(arg, DRIVE_FAILED, 0);
}

static int add_device(struct machine *m, int err, struct device *d)
{
	if (!err) {
		assert(m->n_devices < DEVICES_MAX);
		m->devices[m->n_devices++] = d;
	}
	return err;
}

static int build_memory(struct machine *m, struct why *why)
{
	int err = gmem_init(&m->mem, m->c->mem_bytes, why);

	for (int i = 0; !err && i < m->mem.n; i++) {
		const struct gmem_region *r = &m->mem.r[i];

		err = kvm_mem_add(m->kvm, (unsigned)i, r->gpa, r->len, r->host);
		if (err)
			why_set(why, err, "KVM refuses the guest's memory: %s", strerror(-err));
	}
	return err;
}

static int build_drive(struct machine *m, unsigned i, struct why *why)
{
	struct disks_slot *slot = &m->disks.slot[i];
	struct drive_config *c = &slot->c;
	/* One queue per vCPU, all on the drive's one loop. */
	unsigned queues = m->c->n_vcpus < VIRTIO_BLK_QUEUES_MAX ? m->c->n_vcpus
								: VIRTIO_BLK_QUEUES_MAX;
	struct virtio_blk_opts o = {
		.serial = c->serial, .num_queues = c->queues ? c->queues : queues,
		.transitional = c->transitional};
	struct drive *drive;
	int err;

	c->failed = on_drive_failed;
	c->failed_arg = m;
	if (c->iface == DRIVE_IDE) {
		m->has_ide = true;
		m->ide[c->index] = (struct ide_drive_opts){.serial = c->serial, .cdrom = c->cdrom};
		if (!c->disk.path)
			return 0;
	}
	err = drive_open(c, i, &drive, why);
	if (err)
		return err;
	slot->drive = drive;
	drive_on_powercut(drive, on_powercut, m);
	if (c->iface == DRIVE_IDE) {
		m->ide[c->index].loop = drive_loop(drive);
		m->ide[c->index].disk = drive_disk(drive);
		return 0;
	}
	err = virtio_blk_create(
		&m->services, drive_loop(drive), drive_disk(drive), &o, &slot->dev, why);
	return add_device(m, err, slot->dev);
}

static int load_kernel(struct machine *m, struct boot_start *start, struct why *why)
{
	struct boot_source src = {.kernel = &m->c->kernel,
		.initrd = m->c->initrd.name ? &m->c->initrd : NULL,
		.cmdline = m->c->cmdline};

	/* In a memory too small for them nobody looks for tables. */
	if (!acpi_build(&m->mem, ACPI_GPA, m->c->n_vcpus))
		src.rsdp = ACPI_GPA;
	return boot_linux_is(src.kernel) ? boot_linux_load(&m->mem, &src, start, why) :
					   boot_pvh_load(&m->mem, &src, start, why);
}

/* Puts the guest's program into memory and vCPU 0 at its entry; at power-on and at each reset. */
static int boot(struct machine *m, struct why *why)
{
	struct boot_start start = {.mode = BOOT_FIRMWARE};
	int err = m->firmware ? firmware_load(m->firmware, why) : load_kernel(m, &start, why);

	if (err)
		return err;
	err = vcpus_power_on(m->vcpus, &start);
	if (err)
		why_set(why, err, "KVM refuses the vCPU's start state: %s", strerror(-err));
	return err;
}

/* What a PC has on its board, beside PCI devices and the serial port. */
static int build_board(struct machine *m, struct why *why)
{
	struct machine_services *s = &m->services;
	struct device *d = NULL;
	int err;

	err = power_create(s, &d);
	err = add_device(m, err, d);
	if (err)
		return err;
	err = acpi_pm_create(s, &m->pm);
	err = add_device(m, err, m->pm);
	if (err)
		return err;
	err = cmos_create(s, m->c->n_vcpus, m->c->boot_order, &d);
	err = add_device(m, err, d);
	if (err)
		return err;
	err = debug_exit_create(s, &d);
	err = add_device(m, err, d);
	if (!err && s->mark) {
		err = mark_create(s, &d);
		err = add_device(m, err, d);
	}
	if (err || m->c->kernel.name)
		return err;
	err = firmware_new(m->kvm, s, &m->c->firmware, m->c->n_vcpus, &m->firmware, &d, why);
	return add_device(m, err, d);
}

static int machine_build(struct machine *m, struct why *why)
{
	struct machine_services *s = &m->services;
	struct vcpu_config vc = {
		.mem = &m->mem, .n = m->c->n_vcpus, .ended = on_vcpu_end, .arg = m};
	struct device *d = NULL;
	int err;

	err = kvm_open(&m->kvm, why);
	if (err)
		return err;
	err = build_memory(m, why);
	if (err)
		return err;
	err = bus_new(m->kvm, m->c->n_vcpus + 1, &s->bus);
	if (err)
		return err;
	err = irqs_new(m->kvm, &s->irqs);
	if (err)
		return err;
	s->mem = &m->mem;
	s->event = on_event;
	s->settle = on_settle;
	for (unsigned i = 0; i < m->c->n_drives; i++)
		if (m->c->drives[i].trace || m->c->drives[i].live.trigger)
			s->mark = on_mark;
	err = pci_host_create(s, &d);
	err = add_device(m, err, d);
	if (err)
		return err;
	err = piix3_create(s, &d);
	err = add_device(m, err, d);
	if (err)
		return err;
	err = console_open(m->c->serial, s, &m->console, why);
	if (err)
		return err;
	add_device(m, 0, console_device(m->console));
	err = build_board(m, why);
	if (err)
		return err;
	for (unsigned i = 0; i < m->c->n_drives; i++) {
		err = build_drive(m, i, why);
		if (err)
			return err;
	}
	if (m->has_ide) {
		err = ide_create(s, m->ide, &d);
		err = add_device(m, err, d);
		if (err)
			return err;
		for (unsigned i = 0; i < m->disks.n; i++)
			if (m->disks.slot[i].c.iface == DRIVE_IDE)
				m->disks.slot[i].dev = d;
	}
	vc.kvm = m->kvm;
	vc.bus = s->bus;
	err = vcpus_new(&vc, &m->vcpus, why);
	if (err)
		return err;
	err = kvm_chips_save(m->kvm, &m->chips);
	if (err)
		return err;
	return boot(m, why);
}

/*
 * Each step takes back one of machine_build(), the last one first; what was never made is skipped.
 * 0, or -errno if an image is not left clean.
 */
static int machine_unbuild(struct machine *m, struct machine_report *r)
{
	int result = 0;

	free(m->chips);
	if (m->vcpus)
		vcpus_pause(m->vcpus);
	for (unsigned i = m->n_devices; i-- > 0;) {
		if (m->devices[i]->ops->stop)
			m->devices[i]->ops->stop(m->devices[i]);
	}
	/* A stopped device settles no more. */
	vcpus_free(m->vcpus);
	while (m->n_devices) {
		struct device *d = m->devices[--m->n_devices];

		d->ops->destroy(d);
	}
	for (unsigned i = m->disks.n; i-- > 0;) {
		struct disks_slot *slot = &m->disks.slot[i];
		struct why why = {{0}};
		int err = slot->drive ? drive_close(slot->drive, &r->drives[i], &why) : 0;

		r->drives[i].path = m->c->drives[i].disk.path;
		free(slot->path);
		if (err)
			log_error("%s", why_text(&why, err));
		result = err ? err : result;
	}
	console_close(m->console);
	irqs_free(m->services.irqs);
	bus_free(m->services.bus);
	/* The VM goes before its memory: KVM looks at the mapping until then. */
	kvm_close(m->kvm);
	firmware_free(m->firmware);
	gmem_fini(&m->mem);
	return result;
}

static int machine_reset(struct machine *m, struct why *why)
{
	uint64_t count;
	ssize_t n;
	int err;

	console_hurry(m->console, true);
	vcpus_pause(m->vcpus);
	console_hurry(m->console, false);
	for (unsigned i = 0; i < m->n_devices; i++) {
		if (m->devices[i]->ops->reset)
			m->devices[i]->ops->reset(m->devices[i]);
	}
	err = kvm_chips_restore(m->kvm, m->chips);
	if (err)
		return why_set(
			why, err, "KVM cannot reset its interrupt controllers: %s", strerror(-err));
	err = boot(m, why);
	if (err)
		return err;
	/* Nothing runs, so what is still there belongs to the time before. */
	atomic_store(&m->event, 0);
	n = read(m->wake_fd, &count, sizeof(count));
	(void)n; /* nothing to read is fine */
	m->ended = m->io_error = false;
	if (!m->paused && !atomic_load(&m->powercut))
		vcpus_resume(m->vcpus);
	return 0;
}

/* ---- what the monitor asks for, on the main thread ---- */

static const char *host_status(void *arg)
{
	const struct machine *m = arg;

	if (m->ended)
		return "shutdown";
	if (m->io_error)
		return "io-error";
	return !m->paused ? "running" : m->started ? "paused" : "prelaunch";
}

static void stand_still(struct machine *m)
{
	console_hurry(m->console, true);
	vcpus_pause(m->vcpus);
	console_hurry(m->console, false);
	m->paused = true;
	monitor_event(m->monitor, "STOP", NULL);
}

static void host_stop(void *arg)
{
	struct machine *m = arg;

	if (!m->paused)
		stand_still(m);
}

static void host_io_error(void *arg)
{
	struct machine *m = arg;

	if (m->paused)
		return;
	m->io_error = true;
	stand_still(m);
}

static const char *host_cont(void *arg)
{
	struct machine *m = arg;

	if (m->ended)
		return "Resetting the Virtual Machine is required";
	if (!m->paused)
		return NULL;
	m->paused = m->io_error = false;
	m->started = true;
	monitor_event(m->monitor, "RESUME", NULL);
	vcpus_resume(m->vcpus);
	disks_retry(&m->disks);
	return NULL;
}

static void host_button(void *arg)
{
	acpi_pm_button(((struct machine *)arg)->pm);
}

static void host_reset(void *arg)
{
	event_set(arg, EV_RESET, MONITOR_ASKED);
}

static void host_quit(void *arg)
{
	((struct machine *)arg)->quit = true;
}

static bool host_powercut(void *arg)
{
	struct machine *m = arg;

	if (!has_powercut(m->c))
		return false;
	m->cut_by = "by the monitor";
	return true;
}

static int host_cpu_thread(void *arg, unsigned cpu)
{
	return vcpus_thread(((struct machine *)arg)->vcpus, cpu);
}

static int monitor_start(struct machine *m, struct why *why)
{
	struct monitor_host h = {.arg = m, .name = m->c->name, .serial = m->c->serial,
		.disks = &m->disks, .wake_fd = m->wake_fd,
		.status = host_status, .stop = host_stop, .cont = host_cont,
		.io_error = host_io_error,
		.button = host_button, .reset = host_reset, .quit = host_quit,
		.powercut = host_powercut, .cpus = m->c->n_vcpus, .cpu_thread = host_cpu_thread};

	return m->c->monitor ? monitor_open(m->c->monitor, &h, &m->monitor, why) : 0;
}

/* Milliseconds to wait at most; -1: for ever. */
static int time_left_ms(uint64_t deadline_ns)
{
	uint64_t now = loop_now_ns();

	if (!deadline_ns)
		return -1;
	if (now >= deadline_ns)
		return 0;
	return (int)min_u64((deadline_ns - now) / 1000000 + 1, 1000000);
}

static bool over(const struct machine *m)
{
	return atomic_load(&m->event) || stop_signal() || m->quit || m->cut_by ||
	       stop_powercut() || atomic_load(&m->powercut);
}

/* Until there is an event, a wish to end, or no time left; moves input meanwhile. */
static void machine_wait(struct machine *m, uint64_t deadline_ns)
{
	while (!over(m)) {
		struct pollfd f[] = {{.fd = m->wake_fd, .events = POLLIN},
			{.fd = console_room_fd(m->console), .events = POLLIN},
			{.fd = console_input_fd(m->console), .events = POLLIN},
			{.fd = monitor_fd(m->monitor), .events = POLLIN}};
		int ms = time_left_ms(deadline_ns);
		uint64_t count;

		if (!ms)
			return;
		if (poll(f, ARRAY_SIZE(f), ms) <= 0)
			continue;
		if (f[1].revents || f[2].revents)
			console_input(m->console);
		/* Before looking at what it announces: what comes later wakes again. */
		if (f[0].revents && read(m->wake_fd, &count, sizeof(count)) < 0)
			continue;
		if (f[0].revents || f[3].revents)
			monitor_turn(m->monitor);
	}
}

static json_t *cause(bool guest, const char *reason)
{
	return json_pack("{s:b, s:s}", "guest", (int)guest, "reason", reason);
}

static void tell_shutdown(struct machine *m, bool guest, const char *reason)
{
	monitor_turn(m->monitor);
	monitor_event(m->monitor, "SHUTDOWN", cause(guest, reason));
}

/* Is it to be cut, or has a drive's trigger cut it?  Then all drives are without. */
static bool power_is_cut(struct machine *m)
{
	const char *by = m->cut_by ? m->cut_by : stop_powercut() ? "by a signal" : NULL;

	if (!m->cut_by && !stop_powercut() && !atomic_load(&m->powercut))
		return false;
	for (unsigned i = 0; i < m->disks.n; i++)
		if (m->disks.slot[i].drive)
			drive_powercut(m->disks.slot[i].drive, by);
	return true;
}

/* Runs the guest until its end; returns the exit status. */
static int machine_loop(struct machine *m, struct machine_report *r)
{
	uint64_t deadline = 0;
	struct why why = {{0}};

	if (m->c->timeout_s)
		deadline = loop_now_ns() + m->c->timeout_s * 1000000000ULL;
	m->paused = m->c->start_paused;
	m->started = !m->paused;
	if (!m->paused)
		vcpus_resume(m->vcpus);
	for (;;) {
		bool asked;
		int word, err;

		machine_wait(m, deadline);
		word = atomic_load(&m->event);
		if (power_is_cut(m)) {
			tell_shutdown(m, false, "x-powercut");
			return MACHINE_POWERCUT;
		}
		if (stop_signal()) {
			tell_shutdown(m, false, "host-signal");
			return MACHINE_SIGNAL + stop_signal();
		}
		if (m->quit) {
			tell_shutdown(m, false, "host-qmp-quit");
			return MACHINE_OK;
		}
		if (!word) {
			log_error("the guest did not end within %u s", m->c->timeout_s);
			return MACHINE_TIMEOUT;
		}
		asked = EVENT_KIND(word) == EV_RESET && EVENT_CODE(word) == MONITOR_ASKED;
		if (EVENT_KIND(word) == FAILED || EVENT_KIND(word) == DRIVE_FAILED) {
			tell_shutdown(m, false, "host-error");
			return EVENT_KIND(word) == FAILED ? MACHINE_FAILED : MACHINE_USER;
		}
		if (EVENT_KIND(word) == EV_POWEROFF && m->c->no_shutdown) {
			tell_shutdown(m, true, "guest-shutdown");
			m->ended = true;
			stand_still(m);
			atomic_store(&m->event, 0);
			continue;
		}
		if (EVENT_KIND(word) != EV_RESET || m->c->no_reboot) {
			tell_shutdown(m, !asked,
				asked                            ? "host-qmp-system-reset" :
				EVENT_KIND(word) == EV_RESET ? "guest-reset" :
								   "guest-shutdown");
			return EVENT_KIND(word) == EV_EXIT ? EVENT_CODE(word) : MACHINE_OK;
		}
		r->resets++;
		monitor_event(m->monitor, "RESET",
			cause(!asked, asked ? "host-qmp-system-reset" : "guest-reset"));
		err = machine_reset(m, &why);
		if (err) {
			log_error("reset: %s", why_text(&why, err));
			return MACHINE_USER;
		}
	}
}

int machine_run(const struct machine_config *c, uint64_t start_ns, struct machine_report *r)
{
	struct machine *m = calloc(1, sizeof(*m));
	struct why why = {{0}};
	int err;

	memset(r, 0, sizeof(*r));
	r->status = MACHINE_USER;
	r->first_instruction_ms = -1;
	if (!m) {
		log_error("%s", strerror(ENOMEM));
		return r->status;
	}
	m->c = c;
	m->disks.n = c->n_drives;
	m->disks.wake_fd = -1;
	for (unsigned i = 0; i < c->n_drives; i++)
		m->disks.slot[i].c = c->drives[i];
	m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = m->wake_fd < 0 ? -errno : stop_watch(m->wake_fd, console_restore_terminal);
	if (!err && has_powercut(c))
		err = stop_watch_powercut();
	if (!err)
		err = machine_build(m, &why);
	if (!err)
		err = monitor_start(m, &why);
	if (err) {
		log_error("%s", why_text(&why, err));
	} else {
		if (c->ready)
			c->ready(c->ready_arg);
		r->status = machine_loop(m, r);
		console_hurry(m->console, true);
		if (vcpus_started_ns(m->vcpus))
			r->first_instruction_ms =
				(double)(vcpus_started_ns(m->vcpus) - start_ns) / 1e6;
	}
	console_restore_terminal();
	monitor_close(m->monitor);
	if (machine_unbuild(m, r) && (r->status == MACHINE_OK || r->status == MACHINE_POWERCUT))
		r->status = MACHINE_USER;
	/* It may have been cut while the machine was being ended. */
	else if (atomic_load(&m->powercut) && r->status != MACHINE_USER)
		r->status = MACHINE_POWERCUT;
	stop_unwatch();
	if (m->wake_fd >= 0)
		close(m->wake_fd);
	free(m);
	r->seconds = (double)(loop_now_ns() - start_ns) / 1e9;
	return r->status;
}
