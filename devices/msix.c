/* SPDX-License-Identifier: MIT */
/*
 * msix.c - message-signalled interrupts of one PCI function (PCI 3.0, section 6.8.2).
 *
 * A vector's route in the kernel follows the table lazily: it is set when the vector
 * can fire (enabled, unmasked) and its address or data are not what was routed
 * last.  Masking and unmasking, which drivers do around every change of affinity and some at
 * every interrupt, therefore costs no system call.
 *
 * Firing while masked sets the pending bit; unmasking sends it then.
 */
#include <stdlib.h>
#include <string.h>
#include "devices/msix.h"
#include "vmm/util/bytes.h"

#define MSIX_CAP_ID   0x11
#define MSIX_ENABLE   0x8000
#define MSIX_MASK_ALL 0x4000
#define VECTOR_MASKED 0x01
#define ENTRY_ADDR    0
#define ENTRY_DATA    8
#define ENTRY_CONTROL 12

static bool deliverable_locked(const struct msix *m, const struct msix_vector *v)
{
	return atomic_load(&m->enabled) && !m->masked &&
		!(v->entry[ENTRY_CONTROL] & VECTOR_MASKED);
}

/* Brings the route up to date and sends what waited, if the vector may fire now. */
static void vector_update_locked(struct msix *m, struct msix_vector *v)
{
	le64_t addr;
	le32_t data;
	int err;

	if (!deliverable_locked(m, v))
		return;
	memcpy(&addr, v->entry + ENTRY_ADDR, sizeof(addr));
	memcpy(&data, v->entry + ENTRY_DATA, sizeof(data));
	if (!v->routed || v->addr != le64_get(addr) || v->data != le32_get(data)) {
		v->addr = le64_get(addr);
		v->data = le32_get(data);
		err = irq_msi_route(v->msi, v->addr, v->data);
		v->routed = !err;
		if (err && !m->warned)
			log_warn("%s: MSI-X vector %d: %s", m->pci->name, (int)(v - m->v),
				why_text(NULL, err));
		m->warned |= err != 0;
	}
	if (v->pending && v->routed) {
		v->pending = false;
		irq_msi_fire(v->msi);
	}
}

void msix_fire(struct msix *m, unsigned vector)
{
	struct msix_vector *v;

	if (vector >= m->n || !atomic_load(&m->enabled))
		return;
	v = &m->v[vector];
	pthread_mutex_lock(&m->lock);
	v->pending = true;
	vector_update_locked(m, v);
	pthread_mutex_unlock(&m->lock);
}

void msix_config_written(struct msix *m)
{
	uint16_t control = pci_cfg16(m->pci, m->cap + 2);

	pthread_mutex_lock(&m->lock);
	atomic_store(&m->enabled, control & MSIX_ENABLE);
	m->masked = control & MSIX_MASK_ALL;
	for (unsigned i = 0; i < m->n; i++)
		vector_update_locked(m, &m->v[i]);
	pthread_mutex_unlock(&m->lock);
}

void msix_table_read(struct msix *m, uint64_t off, void *data, unsigned len)
{
	uint8_t *b = data;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < len; i++, off++)
		b[i] = off / MSIX_ENTRY < m->n ?
			m->v[off / MSIX_ENTRY].entry[off % MSIX_ENTRY] : 0;
	pthread_mutex_unlock(&m->lock);
}

void msix_table_write(struct msix *m, uint64_t off, const void *data, unsigned len)
{
	const uint8_t *b = data;
	uint64_t first = off / MSIX_ENTRY, last = (off + len - 1) / MSIX_ENTRY;

	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < len; i++, off++) {
		unsigned at = off % MSIX_ENTRY;

		if (off / MSIX_ENTRY >= m->n)
			break;
		/* Of the control word only the mask bit exists. */
		if (at > ENTRY_CONTROL)
			continue;
		m->v[off / MSIX_ENTRY].entry[at] =
			at == ENTRY_CONTROL ? b[i] & VECTOR_MASKED : b[i];
	}
	for (uint64_t v = first; v <= last && v < m->n; v++)
		vector_update_locked(m, &m->v[v]);
	pthread_mutex_unlock(&m->lock);
}

void msix_pba_read(struct msix *m, uint64_t off, void *data, unsigned len)
{
	uint8_t *b = data;

	memset(b, 0, len);
	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < 8 * len; i++)
		if (8 * off + i < m->n && m->v[8 * off + i].pending)
			b[i / 8] |= (uint8_t)(1 << i % 8);
	pthread_mutex_unlock(&m->lock);
}

void msix_reset(struct msix *m)
{
	pthread_mutex_lock(&m->lock);
	for (unsigned i = 0; i < m->n; i++) {
		memset(m->v[i].entry, 0, MSIX_ENTRY);
		m->v[i].entry[ENTRY_CONTROL] = VECTOR_MASKED;
		m->v[i].pending = false;
	}
	pthread_mutex_unlock(&m->lock);
	msix_config_written(m);
}

int msix_init(struct msix *m, struct pci_dev *d, struct irqs *irqs, unsigned vectors,
	unsigned bar, uint32_t table_off, uint32_t pba_off)
{
	struct {
		le16_t control;
		le32_t table, pba;
	} __attribute__((packed)) cap = {
		le16_make((uint16_t)(vectors - 1)),
		le32_make(table_off | bar),
		le32_make(pba_off | bar),
	};
	int err;

	assert(vectors >= 1 && vectors <= 2048 && table_off % 8 == 0 && pba_off % 8 == 0);
	memset(m, 0, sizeof(*m));
	m->pci = d;
	m->v = calloc(vectors, sizeof(*m->v));
	if (!m->v)
		return -ENOMEM;
	pthread_mutex_init(&m->lock, NULL);
	for (; m->n < vectors; m->n++) {
		err = irq_msi_new(irqs, &m->v[m->n].msi);
		if (err) {
			msix_fini(m);
			return err;
		}
	}
	m->cap = pci_cap_add(d, MSIX_CAP_ID, &cap, sizeof(cap));
	d->wmask[m->cap + 3] = (MSIX_ENABLE | MSIX_MASK_ALL) >> 8;
	msix_reset(m);
	return 0;
}

void msix_fini(struct msix *m)
{
	for (unsigned i = 0; i < m->n; i++)
		irq_msi_free(m->v[i].msi);
	free(m->v);
	m->v = NULL;
	m->n = 0;
	pthread_mutex_destroy(&m->lock);
}
