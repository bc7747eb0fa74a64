/* SPDX-License-Identifier: MIT */
/*
 * irq.c - who may raise which interrupt.
 *
 * A message-signalled vector owns a GSI above the pins and an eventfd; KVM injects when
 * the eventfd is written.  The routing table is replaced as a whole whenever a
 * vector's address or data changes, which KVM does in one step: an interrupt that is
 * fired at that moment takes the old route or the new one.
 *
 * A pin may be shared (PCI INTx).  KVM keeps one level per pin for all of us, so the OR over
 * the lines that share it is made here.
 */
#include "vmm/irq.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "vmm/irq_setup.h"
#include "vmm/kvm.h"
#include "vmm/util/list.h"

/* More than 32 devices with 32 vectors each could use; KVM's table takes 4096. */
#define MSI_MAX 1024

struct irqs {
	struct kvm *kvm;
	pthread_mutex_t lock;            /* guards all below, and the lines' and vectors' routes */
	unsigned asserted[KVM_GSI_PINS]; /* how many lines hold this pin high */
	struct irq_msi *msi[MSI_MAX];    /* GSI KVM_GSI_PINS + i */
};

struct irq_line {
	struct irqs *irqs;
	unsigned gsi;
	_Atomic bool level; /* written under the lock; read without to skip what changes nothing */
};

struct irq_msi {
	struct irqs *irqs;
	unsigned index;
	int fd;
	bool routed;
	uint64_t addr;
	uint32_t data;
};

int irqs_new(struct kvm *kvm, struct irqs **out)
{
	struct irqs *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->kvm = kvm;
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

void irqs_free(struct irqs *s)
{
	if (!s)
		return;
	for (unsigned i = 0; i < MSI_MAX; i++)
		assert(!s->msi[i]);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

int irq_line_new(struct irqs *irqs, unsigned gsi, struct irq_line **out)
{
	struct irq_line *l;

	if (gsi >= KVM_GSI_PINS)
		return -EINVAL;
	l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->irqs = irqs;
	l->gsi = gsi;
	*out = l;
	return 0;
}

void irq_line_free(struct irq_line *l)
{
	if (!l)
		return;
	irq_line_set(l, false);
	free(l);
}

void irq_line_set(struct irq_line *l, bool level)
{
	struct irqs *s = l->irqs;
	unsigned before, after;
	int err = 0;

	if (atomic_load(&l->level) == level)
		return;
	pthread_mutex_lock(&s->lock);
	if (l->level != level) {
		atomic_store(&l->level, level);
		before = s->asserted[l->gsi];
		after = level ? before + 1 : before - 1;
		s->asserted[l->gsi] = after;
		if (!before != !after)
			err = kvm_irq_line(s->kvm, l->gsi, level);
	}
	pthread_mutex_unlock(&s->lock);
	assert(!err); /* the pin exists */
}

int irq_msi_new(struct irqs *irqs, struct irq_msi **out)
{
	struct irq_msi *m = calloc(1, sizeof(*m));
	unsigned i;

	if (!m)
		return -ENOMEM;
	m->irqs = irqs;
	m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->fd < 0) {
		int err = -errno;

		free(m);
		return err;
	}
	pthread_mutex_lock(&irqs->lock);
	for (i = 0; i < MSI_MAX && irqs->msi[i]; i++)
		;
	if (i < MSI_MAX)
		irqs->msi[i] = m;
	pthread_mutex_unlock(&irqs->lock);
	if (i == MSI_MAX) {
		close(m->fd);
		free(m);
		return -ENOSPC;
	}
	m->index = i;
	*out = m;
	return 0;
}

static int routes_update_locked(struct irqs *s)
{
	struct kvm_msi_route r[MSI_MAX];
	unsigned n = 0;

	for (unsigned i = 0; i < MSI_MAX; i++) {
		const struct irq_msi *m = s->msi[i];

		if (m && m->routed)
			r[n++] = (struct kvm_msi_route){KVM_GSI_PINS + i, m->addr, m->data};
	}
	return kvm_routes_set(s->kvm, r, n);
}

void irq_msi_free(struct irq_msi *m)
{
	struct irqs *s;

	if (!m)
		return;
	s = m->irqs;
	pthread_mutex_lock(&s->lock);
	if (m->routed) {
		/* Either only fails for what was never added. */
		int err = kvm_irqfd(s->kvm, KVM_GSI_PINS + m->index, m->fd, false);

		assert(!err);
	}
	/* The stale route has no irqfd any more: the next change of the table drops it. */
	s->msi[m->index] = NULL;
	pthread_mutex_unlock(&s->lock);
	close(m->fd);
	free(m);
}

int irq_msi_route(struct irq_msi *m, uint64_t addr, uint32_t data)
{
	struct irqs *s = m->irqs;
	uint64_t old_addr;
	uint32_t old_data;
	int err = 0;

	pthread_mutex_lock(&s->lock);
	old_addr = m->addr;
	old_data = m->data;
	if (m->routed && old_addr == addr && old_data == data)
		goto out;
	m->addr = addr;
	m->data = data;
	if (!m->routed) {
		m->routed = true;
		err = routes_update_locked(s);
		if (!err)
			err = kvm_irqfd(s->kvm, KVM_GSI_PINS + m->index, m->fd, true);
		m->routed = !err;
	} else {
		err = routes_update_locked(s);
		if (err) {
			m->addr = old_addr;
			m->data = old_data;
		}
	}
out:
	pthread_mutex_unlock(&s->lock);
	return err;
}

void irq_msi_fire(struct irq_msi *m)
{
	uint64_t one = 1;
	ssize_t n = write(m->fd, &one, sizeof(one));

	/* A full counter (EAGAIN) means that an injection is pending already. */
	(void)n;
}
