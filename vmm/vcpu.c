/* SPDX-License-Identifier: MIT */
/*
 * vcpu.c - the KVM_RUN loop: exits become bus accesses, and everything else ends the run.
 *
 * A thread is asked out of the guest by run->immediate_exit and a signal: the flag catches the
 * thread that is about to enter, the signal the one that is inside.  It is only looked at after
 * KVM_RUN said EINTR, because KVM completes a port or memory access on the
 * next KVM_RUN: leaving before would lose the access's last step.
 *
 * No ioctl but KVM_RUN happens per exit.
 *
 * Not here: what the registers are (vcpu_state.c), what an address means (bus.c).
 */
#include "vmm/vcpu.h"

#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "vmm/bus_dispatch.h"
#include "vmm/held.h"
#include "vmm/kvm.h"
#include "vmm/stop.h"
#include "vmm/util/loop.h"
#include "vmm/vcpu_state.h"

#define KICK SIGUSR1

struct vcpu {
	struct vcpus *set;
	unsigned id;
	int fd;
	struct kvm_run *run;
	struct vcpu_state *power_on;
	pthread_t thread;
	_Atomic int tid; /* the kernel's number of it; 0: it has not begun */
	bool started; /* the thread exists */
};

struct vcpus {
	struct vcpu_config c;
	struct held held;
	_Atomic uint64_t started_ns;
	_Atomic bool stop;    /* leave the guest and park */
	pthread_mutex_t lock; /* guards all below */
	pthread_cond_t cond;
	unsigned epoch; /* how often resumed; a thread runs once in each */
	unsigned n_running;
	bool quit;
	struct vcpu v[];
};

static void on_kick(int sig)
{
	(void)sig; /* its arrival is the point: it interrupts KVM_RUN */
}

/* The bytes at rip as hex, or "unreadable". */
static void describe_code(struct vcpu *v, uint64_t rip, char *buf, size_t size)
{
	struct kvm_translation t = {.linear_address = rip};
	const uint8_t *p;
	unsigned n = (unsigned)min_u64(16, 4096 - rip % 4096);

	snprintf(buf, size, "unreadable");
	if (ioctl(v->fd, KVM_TRANSLATE, &t) || !t.valid)
		return;
	p = gmem_ptr(v->set->c.mem, t.physical_address, n);
	for (unsigned i = 0, at = 0; p && i < n; i++)
		at += (unsigned)snprintf(buf + at, size - at, i ? " %02x" : "%02x", p[i]);
}

static const char *internal_error_name(uint32_t sub)
{
	switch (sub) {
	case KVM_INTERNAL_ERROR_EMULATION:
		return "an instruction that it cannot emulate";
	case KVM_INTERNAL_ERROR_SIMUL_EX:
		return "simultaneous exceptions";
	case KVM_INTERNAL_ERROR_DELIVERY_EV:
		return "an event that it cannot deliver";
	case KVM_INTERNAL_ERROR_UNEXPECTED_EXIT_REASON:
		return "an unexpected exit reason";
	default:
		return "an internal error";
	}
}

/* Says where the guest was; returns VCPU_FAILED. */
static enum vcpu_end fail(struct vcpu *v, const char *what)
{
	struct kvm_sregs sregs = {0};
	struct kvm_regs regs = {0};
	char code[64];

	if (ioctl(v->fd, KVM_GET_REGS, &regs) || ioctl(v->fd, KVM_GET_SREGS, &sregs)) {
		log_error("vCPU %u: KVM gave up on %s", v->id, what);
		return VCPU_FAILED;
	}
	describe_code(v, sregs.cs.base + regs.rip, code, sizeof(code));
	log_error("vCPU %u: KVM gave up on %s at rip %#" PRIx64 " (cs %#x, cr0 %#" PRIx64
		  "), code there: %s; the host's dmesg may say more",
		v->id, what, (uint64_t)regs.rip, sregs.cs.selector, (uint64_t)sregs.cr0, code);
	return VCPU_FAILED;
}

static enum vcpu_end fail_exit(struct vcpu *v)
{
	const struct kvm_run *run = v->run;
	char what[160];

	switch (run->exit_reason) {
	case KVM_EXIT_INTERNAL_ERROR:
		snprintf(what, sizeof(what), "%s (internal error %u)",
			internal_error_name(run->internal.suberror), run->internal.suberror);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(what, sizeof(what), "entering the guest (hardware reason %#" PRIx64 ")",
			(uint64_t)run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_UNKNOWN:
		snprintf(what, sizeof(what), "an unknown exit (hardware reason %#" PRIx64 ")",
			(uint64_t)run->hw.hardware_exit_reason);
		break;
	default:
		snprintf(what, sizeof(what), "exit reason %u", run->exit_reason);
	}
	return fail(v, what);
}

/* String instructions come as one exit with count elements. */
static void port_io(struct vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *p = (uint8_t *)run + run->io.data_offset;
	bool out = run->io.direction == KVM_EXIT_IO_OUT;

	bus_string(v->set->c.bus, v->id, run->io.port, out ? NULL : p, out ? p : NULL,
		run->io.size, run->io.count);
}

static void mmio(struct vcpu *v)
{
	struct kvm_run *run = v->run;

	if (run->mmio.is_write)
		bus_write(v->set->c.bus, v->id, BUS_MMIO, run->mmio.phys_addr, run->mmio.data,
			run->mmio.len);
	else
		bus_read(v->set->c.bus, v->id, BUS_MMIO, run->mmio.phys_addr, run->mmio.data,
			run->mmio.len);
}

static enum vcpu_end system_event(struct vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		return VCPU_POWEROFF;
	case KVM_SYSTEM_EVENT_RESET:
		return VCPU_RESET;
	default:
		return fail_exit(v);
	}
}

/* Until asked to stop: true; or until the vCPU cannot go on: false and *how. */
static bool run_guest(struct vcpu *v, enum vcpu_end *how)
{
	for (;;) {
		int failed = ioctl(v->fd, KVM_RUN, 0) ? errno : 0;

		held_settle(&v->set->held);
		errno = failed;
		if (failed) {
			if (errno == EINTR || errno == EAGAIN) {
				if (atomic_load(&v->set->stop))
					return true;
				continue;
			}
			*how = fail(v, strerror(errno));
			return false;
		}
		switch (v->run->exit_reason) {
		case KVM_EXIT_IO:
			port_io(v);
			break;
		case KVM_EXIT_MMIO:
			mmio(v);
			break;
		case KVM_EXIT_INTR:
		case KVM_EXIT_IRQ_WINDOW_OPEN:
			break;
		case KVM_EXIT_SHUTDOWN:
			*how = VCPU_TRIPLE_FAULT;
			return false;
		case KVM_EXIT_SYSTEM_EVENT:
			*how = system_event(v);
			return false;
		default:
			*how = fail_exit(v);
			return false;
		}
	}
}

/* Waits to be resumed; false: the end. */
static bool wait_for_epoch(struct vcpus *vs, unsigned seen)
{
	bool go;

	pthread_mutex_lock(&vs->lock);
	while (vs->epoch == seen && !vs->quit)
		pthread_cond_wait(&vs->cond, &vs->lock);
	go = !vs->quit;
	pthread_mutex_unlock(&vs->lock);
	return go;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *v = arg;
	struct vcpus *vs = v->set;
	enum vcpu_end how;
	char name[16];
	sigset_t set;

	snprintf(name, sizeof(name), "vcpu%u", v->id);
	atomic_store(&v->tid, gettid());
	pthread_setname_np(pthread_self(), name);
	stop_not_here();
	sigemptyset(&set);
	sigaddset(&set, KICK);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
	for (unsigned epoch = 0; wait_for_epoch(vs, epoch); epoch++) {
		if (v->id == 0 && !atomic_load(&vs->started_ns))
			atomic_store(&vs->started_ns, loop_now_ns());
		if (!run_guest(v, &how))
			vs->c.ended(vs->c.arg, how);
		pthread_mutex_lock(&vs->lock);
		if (--vs->n_running == 0)
			pthread_cond_broadcast(&vs->cond);
		pthread_mutex_unlock(&vs->lock);
	}
	return NULL;
}

static int vcpu_init(struct vcpus *vs, unsigned id)
{
	struct vcpu *v = &vs->v[id];
	uint64_t bytes = kvm_run_bytes(vs->c.kvm);
	int err;

	err = kvm_vcpu_create(vs->c.kvm, id, &v->fd);
	if (err)
		return err;
	v->run = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		v->run = NULL;
		return -errno;
	}
	err = vcpu_cpuid_set(vs->c.kvm, v->fd, id, vs->c.n);
	if (err)
		return err;
	err = vcpu_state_save(vs->c.kvm, v->fd, &v->power_on);
	if (err)
		return err;
	err = -pthread_create(&v->thread, NULL, vcpu_main, v);
	v->started = !err;
	return err;
}

static int kick_handler_install(void)
{
	struct sigaction sa = {.sa_handler = on_kick}; /* no SA_RESTART: KVM_RUN must return */

	sigemptyset(&sa.sa_mask);
	return sigaction(KICK, &sa, NULL) ? -errno : 0;
}

int vcpus_new(const struct vcpu_config *c, struct vcpus **out, struct why *why)
{
	struct vcpus *vs;
	uint64_t ring;
	int err;

	if (c->n > kvm_max_vcpus(c->kvm))
		return why_set(
			why, -EINVAL, "this KVM runs at most %u vCPUs", kvm_max_vcpus(c->kvm));
	vs = calloc(1, sizeof(*vs) + c->n * sizeof(vs->v[0]));
	if (!vs)
		return -ENOMEM;
	vs->c = *c;
	pthread_mutex_init(&vs->lock, NULL);
	pthread_cond_init(&vs->cond, NULL);
	for (unsigned i = 0; i < c->n; i++) {
		vs->v[i].set = vs;
		vs->v[i].id = i;
		vs->v[i].fd = -1;
	}
	err = kick_handler_install();
	for (unsigned i = 0; !err && i < c->n; i++)
		err = vcpu_init(vs, i);
	if (err) {
		why_set(why, err, "KVM cannot make a vCPU: %s", strerror(-err));
		vcpus_free(vs);
		return err;
	}
	ring = kvm_held_ring(c->kvm);
	held_init(&vs->held, ring ? (uint8_t *)vs->v[0].run + ring : NULL,
		(unsigned)sysconf(_SC_PAGESIZE), c->bus, c->n);
	*out = vs;
	return 0;
}

void vcpus_free(struct vcpus *vs)
{
	if (!vs)
		return;
	vcpus_pause(vs);
	pthread_mutex_lock(&vs->lock);
	vs->quit = true;
	pthread_cond_broadcast(&vs->cond);
	pthread_mutex_unlock(&vs->lock);
	for (unsigned i = 0; i < vs->c.n; i++) {
		struct vcpu *v = &vs->v[i];

		if (v->started)
			pthread_join(v->thread, NULL);
		if (v->run)
			munmap(v->run, kvm_run_bytes(vs->c.kvm));
		if (v->fd >= 0)
			close(v->fd);
		vcpu_state_free(v->power_on);
	}
	held_fini(&vs->held);
	pthread_cond_destroy(&vs->cond);
	pthread_mutex_destroy(&vs->lock);
	free(vs);
}

int vcpus_power_on(struct vcpus *vs, const struct boot_start *start)
{
	for (unsigned i = 0; i < vs->c.n; i++) {
		struct vcpu *v = &vs->v[i];
		/* Before the first run they are in that state. */
		int err = vs->epoch ? vcpu_state_restore(v->fd, v->power_on) : 0;

		if (err)
			return err;
		if (start->mode != BOOT_FIRMWARE)
			vcpu_firmware_set(v->fd);
	}
	return vcpu_start_set(vs->v[0].fd, start);
}

void vcpus_resume(struct vcpus *vs)
{
	pthread_mutex_lock(&vs->lock);
	assert(vs->n_running == 0);
	atomic_store(&vs->stop, false);
	for (unsigned i = 0; i < vs->c.n; i++)
		vs->v[i].run->immediate_exit = 0;
	vs->n_running = vs->c.n;
	vs->epoch++;
	pthread_cond_broadcast(&vs->cond);
	pthread_mutex_unlock(&vs->lock);
}

static void ask_to_pause_locked(struct vcpus *vs)
{
	if (vs->n_running) {
		atomic_store(&vs->stop, true);
		for (unsigned i = 0; i < vs->c.n; i++) {
			*(volatile uint8_t *)&vs->v[i].run->immediate_exit = 1;
			pthread_kill(vs->v[i].thread, KICK);
		}
	}
}

void vcpus_pause_soon(struct vcpus *vs)
{
	pthread_mutex_lock(&vs->lock);
	ask_to_pause_locked(vs);
	pthread_mutex_unlock(&vs->lock);
}

void vcpus_pause(struct vcpus *vs)
{
	pthread_mutex_lock(&vs->lock);
	ask_to_pause_locked(vs);
	while (vs->n_running)
		pthread_cond_wait(&vs->cond, &vs->lock);
	pthread_mutex_unlock(&vs->lock);
}

void vcpus_settle(struct vcpus *vs)
{
	held_settle(&vs->held);
}

uint64_t vcpus_started_ns(const struct vcpus *vs)
{
	return atomic_load(&vs->started_ns);
}

int vcpus_thread(const struct vcpus *vs, unsigned i)
{
	int tid;

	while (!(tid = atomic_load(&vs->v[i].tid)))
		sched_yield();
	return tid;
}
