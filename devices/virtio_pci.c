/* SPDX-License-Identifier: MIT */
/*
 * virtio_pci.c - registers, notifications and interrupts of a modern virtio device.
 *
 * One 64-bit BAR holds all structures, a page each.  Every queue has its own doorbell, which the
 * kernel turns into an eventfd signal; a write that comes here all the same (no
 * doorbell to be had, an odd address) signals the same eventfd.
 *
 * The common structure is a table of fields.  Drivers must access fields in their own
 * width (4.1.3.1), but nothing depends on it: an access of any width and alignment is
 * the sum of what it does to each field that it touches.
 *
 * Locks.  lock is held over register accesses and the type's callbacks, some of which wait for
 * the thread that serves the queues; that thread takes irq_lock and the MSI-X lock
 * only.  ISR and doorbell accesses do without lock, so that a vCPU that waits for a reset or a
 * flush does not hold up the others.
 *
 * Not here: the legacy and transitional interfaces; a driver that does not
 * accept VERSION_1 is refused.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "devices/virtio_legacy.h"
#include "devices/virtio_pci_regs.h"

#define BAR_BYTES     0x8000
#define AREA_BYTES    0x1000
#define AREA_COMMON   0x0000
#define AREA_ISR      0x1000
#define AREA_CONFIG   0x2000
#define AREA_NOTIFY   0x3000
#define AREA_MSIX     0x4000
#define AREA_PBA      0x5000
#define NOTIFY_STRIDE 4 /* bytes from one queue's doorbell to the next */

/* Interrupts. */

/* isr says why; INTx follows it unless MSI-X is in use. */
static void isr_update(struct virtio_pci *v, uint8_t set)
{
	pthread_mutex_lock(&v->irq_lock);
	v->isr |= set;
	pci_intx_set(&v->pci, v->isr && !msix_enabled(&v->msix));
	pthread_mutex_unlock(&v->irq_lock);
}

uint8_t virtio_pci_isr_take(struct virtio_pci *v)
{
	uint8_t isr;

	pthread_mutex_lock(&v->irq_lock);
	isr = v->isr;
	v->isr = 0;
	pci_intx_set(&v->pci, false);
	pthread_mutex_unlock(&v->irq_lock);
	return isr;
}

void virtio_pci_queue_irq(struct virtio_pci *v, unsigned q)
{
	if (msix_enabled(&v->msix))
		msix_fire(&v->msix, atomic_load(&v->queue[q].vector));
	else
		isr_update(v, ISR_QUEUE);
}

void virtio_pci_needs_reset(struct virtio_pci *v)
{
	uint8_t was = atomic_fetch_or(&v->status, STATUS_NEEDS_RESET);

	if (was & STATUS_NEEDS_RESET)
		return;
	log_debug("%s in slot %u: the driver broke the rules; it needs a reset", v->type->name,
		v->pci.slot);
	virtio_pci_config_changed(v);
}

void virtio_pci_config_changed(struct virtio_pci *v)
{
	if (!(atomic_load(&v->status) & STATUS_DRIVER_OK))
		return;
	/* 4.1.4.5: the bit is set with MSI-X too. */
	isr_update(v, ISR_CONFIG);
	if (msix_enabled(&v->msix))
		msix_fire(&v->msix, atomic_load(&v->config_vector));
}

/* Status and queues.  All with v->lock held. */

static void queue_start_locked(struct virtio_pci *v, unsigned i)
{
	struct virtio_queue_regs *q = &v->queue[i];
	struct virtq_layout l = {
		.size = q->size,
		.desc = q->desc,
		.avail = q->avail,
		.used = q->used,
		.event_idx = v->features & VIRTIO_F_EVENT_IDX,
		.indirect = v->features & VIRTIO_F_INDIRECT_DESC,
	};

	if (!q->enabled || q->started)
		return;
	if (v->type->queue_start(v, i, &l))
		virtio_pci_needs_reset(v);
	else
		q->started = true;
}

static void queue_stop_locked(struct virtio_pci *v, unsigned i)
{
	if (v->queue[i].started)
		v->type->queue_stop(v, i);
	v->queue[i].started = false;
}

void virtio_pci_queue_clear(struct virtio_pci *v, unsigned i)
{
	struct virtio_queue_regs *q = &v->queue[i];

	queue_stop_locked(v, i);
	q->size = v->queue_size_max;
	q->enabled = false;
	q->desc = q->avail = q->used = 0;
	atomic_store(&q->vector, MSI_NO_VECTOR);
}

static void reset_locked(struct virtio_pci *v)
{
	for (unsigned i = 0; i < v->num_queues; i++)
		virtio_pci_queue_clear(v, i);
	v->type->reset(v);
	v->features = 0;
	v->legacy = false;
	v->offered_select = v->features_select = 0;
	v->queue_select = 0;
	atomic_store(&v->config_vector, MSI_NO_VECTOR);
	virtio_pci_isr_take(v);
	atomic_store(&v->status, 0);
}

void virtio_pci_status_write(struct virtio_pci *v, uint8_t value)
{
	uint8_t was = atomic_load(&v->status), add = value & STATUS_DRIVER_BITS & ~was;

	if (value == 0) {
		reset_locked(v);
		return;
	}
	/* A legacy driver knows no FEATURES_OK: it has said what it wants when it is ready. */
	if (v->legacy && add & STATUS_DRIVER_OK && !(was & STATUS_FEATURES_OK))
		add |= STATUS_FEATURES_OK;
	/* Bits are only ever added (2.1.1); each step needs the one before. */
	if (add & STATUS_FEATURES_OK && !((v->legacy || v->features & VIRTIO_F_VERSION_1) &&
			!(v->features & ~v->offered) && v->type->features_ok(v)))
		add &= (uint8_t)~STATUS_FEATURES_OK;
	if (!((was | add) & STATUS_FEATURES_OK))
		add &= (uint8_t)~STATUS_DRIVER_OK;
	atomic_fetch_or(&v->status, add);
	if (add & STATUS_DRIVER_OK)
		for (unsigned i = 0; i < v->num_queues; i++)
			queue_start_locked(v, i);
}

void virtio_pci_queue_enable(struct virtio_pci *v, unsigned i)
{
	v->queue[i].enabled = true;
	if (atomic_load(&v->status) & STATUS_DRIVER_OK)
		queue_start_locked(v, i);
}

/* The selected queue, or NULL. */
struct virtio_queue_regs *virtio_pci_selected(struct virtio_pci *v)
{
	return v->queue_select < v->num_queues ? &v->queue[v->queue_select] : NULL;
}

/* The common structure (4.1.4.3): one getter, one setter, one table of fields between them. */

static uint32_t half(uint64_t v, unsigned which)
{
	return which < 2 ? (uint32_t)(v >> 32 * which) : 0;
}

static uint32_t queue_get_locked(struct virtio_pci *v, unsigned off)
{
	const struct virtio_queue_regs *q = virtio_pci_selected(v);

	if (!q)
		return off == COMMON_QUEUE_VECTOR ? MSI_NO_VECTOR : 0;
	switch (off) {
	case COMMON_QUEUE_SIZE:
		return q->size;
	case COMMON_QUEUE_VECTOR:
		return atomic_load(&q->vector);
	case COMMON_QUEUE_ENABLE:
		return q->enabled;
	case COMMON_QUEUE_NOTIFY_OFF:
	case COMMON_QUEUE_NOTIFY_DATA:
		return v->queue_select;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4:
		return half(q->desc, off > COMMON_QUEUE_DESC);
	case COMMON_QUEUE_AVAIL:
	case COMMON_QUEUE_AVAIL + 4:
		return half(q->avail, off > COMMON_QUEUE_AVAIL);
	case COMMON_QUEUE_USED:
	case COMMON_QUEUE_USED + 4:
		return half(q->used, off > COMMON_QUEUE_USED);
	default: /* COMMON_QUEUE_RESET: it is over before anybody can look */
		return 0;
	}
}

static uint32_t common_get_locked(struct virtio_pci *v, unsigned off)
{
	switch (off) {
	case COMMON_OFFERED_SELECT:
		return v->offered_select;
	case COMMON_OFFERED:
		return half(v->offered, v->offered_select);
	case COMMON_FEATURES_SELECT:
		return v->features_select;
	case COMMON_FEATURES:
		return half(v->features, v->features_select);
	case COMMON_CONFIG_VECTOR:
		return atomic_load(&v->config_vector);
	case COMMON_NUM_QUEUES:
		return v->num_queues;
	case COMMON_STATUS:
		return atomic_load(&v->status);
	case COMMON_GENERATION:
		return v->generation;
	case COMMON_QUEUE_SELECT:
		return v->queue_select;
	default:
		return queue_get_locked(v, off);
	}
}

static void features_write_locked(struct virtio_pci *v, uint32_t value)
{
	unsigned shift = 32 * v->features_select;

	if (v->features_select > 1 || atomic_load(&v->status) & STATUS_FEATURES_OK)
		return;
	v->features &= ~(0xffffffffULL << shift);
	v->features |= (uint64_t)value << shift;
}

uint16_t virtio_pci_vector(const struct virtio_pci *v, uint32_t value)
{
	return value < v->msix.n ? (uint16_t)value : MSI_NO_VECTOR;
}

static void set_half(uint64_t *v, unsigned which, uint32_t value)
{
	*v = which ? (*v & 0xffffffff) | (uint64_t)value << 32 : (*v & ~0xffffffffULL) | value;
}

static void queue_set_locked(struct virtio_pci *v, unsigned off, uint32_t value)
{
	struct virtio_queue_regs *q = virtio_pci_selected(v);

	if (!q)
		return;
	if (off == COMMON_QUEUE_VECTOR) {
		atomic_store(&q->vector, virtio_pci_vector(v, value));
		return;
	}
	if (off == COMMON_QUEUE_RESET) {
		if (value == 1 && v->features & VIRTIO_F_RING_RESET)
			virtio_pci_queue_clear(v, v->queue_select);
		return;
	}
	if (q->enabled) /* nothing else changes under a live queue */
		return;
	switch (off) {
	case COMMON_QUEUE_SIZE:
		if (is_pow2(value) && value <= v->queue_size_max)
			q->size = (uint16_t)value;
		break;
	case COMMON_QUEUE_ENABLE:
		if (value == 1)
			virtio_pci_queue_enable(v, v->queue_select);
		break;
	case COMMON_QUEUE_DESC:
	case COMMON_QUEUE_DESC + 4:
		set_half(&q->desc, off > COMMON_QUEUE_DESC, value);
		break;
	case COMMON_QUEUE_AVAIL:
	case COMMON_QUEUE_AVAIL + 4:
		set_half(&q->avail, off > COMMON_QUEUE_AVAIL, value);
		break;
	case COMMON_QUEUE_USED:
	case COMMON_QUEUE_USED + 4:
		set_half(&q->used, off > COMMON_QUEUE_USED, value);
		break;
	default:
		break;
	}
}

static void common_set_locked(struct virtio_pci *v, unsigned off, uint32_t value)
{
	switch (off) {
	case COMMON_OFFERED_SELECT:
		v->offered_select = value;
		break;
	case COMMON_FEATURES_SELECT:
		v->features_select = value;
		break;
	case COMMON_FEATURES:
		features_write_locked(v, value);
		break;
	case COMMON_CONFIG_VECTOR:
		atomic_store(&v->config_vector, virtio_pci_vector(v, value));
		break;
	case COMMON_STATUS:
		virtio_pci_status_write(v, (uint8_t)value);
		break;
	case COMMON_QUEUE_SELECT:
		v->queue_select = (uint16_t)value;
		break;
	default:
		queue_set_locked(v, off, value);
		break;
	}
}

static void common_read(struct virtio_pci *v, uint64_t off, uint8_t *data, unsigned len)
{
	pthread_mutex_lock(&v->lock);
	for (unsigned f = 0; f < ARRAY_SIZE(common_fields); f++) {
		unsigned at = common_fields[f].off, width = common_fields[f].width;
		le32_t value;

		if (!ranges_overlap(at, width, off, len))
			continue;
		value = le32_make(common_get_locked(v, at));
		for (unsigned i = 0; i < width; i++)
			if (at + i - off < len)
				data[at + i - off] = ((uint8_t *)&value)[i];
	}
	pthread_mutex_unlock(&v->lock);
}

static void common_write(struct virtio_pci *v, uint64_t off, const uint8_t *data, unsigned len)
{
	pthread_mutex_lock(&v->lock);
	for (unsigned f = 0; f < ARRAY_SIZE(common_fields); f++) {
		unsigned at = common_fields[f].off, width = common_fields[f].width;
		le32_t value;

		if (!ranges_overlap(at, width, off, len))
			continue;
		/* Bytes of the field that the access leaves out stay as they read. */
		value = le32_make(common_get_locked(v, at));
		for (unsigned i = 0; i < width; i++)
			if (at + i - off < len)
				((uint8_t *)&value)[i] = data[at + i - off];
		common_set_locked(v, at, le32_get(value));
	}
	pthread_mutex_unlock(&v->lock);
}

/* The type's own configuration. */

void virtio_pci_config_read(struct virtio_pci *v, uint64_t off, uint8_t *data, unsigned len)
{
	uint8_t image[VIRTIO_CONFIG_MAX] = {0};

	pthread_mutex_lock(&v->lock);
	v->type->config_get(v, image);
	/* 4.1.4.3.1: the generation changes between two reads that could disagree. */
	if (memcmp(image, v->config_seen, sizeof(image))) {
		v->generation++;
		memcpy(v->config_seen, image, sizeof(image));
	}
	pthread_mutex_unlock(&v->lock);
	for (unsigned i = 0; i < len; i++)
		data[i] = off + i < v->type->config_bytes ? image[off + i] : 0;
}

void virtio_pci_config_write(struct virtio_pci *v, uint64_t off, const uint8_t *data, unsigned len)
{
	if (off >= v->type->config_bytes)
		return;
	len = (unsigned)min_u64(len, v->type->config_bytes - off);
	pthread_mutex_lock(&v->lock);
	v->type->config_set(v, (unsigned)off, data, len);
	pthread_mutex_unlock(&v->lock);
}

/* The BAR. */

void virtio_pci_kick(struct virtio_pci *v, uint64_t q)
{
	static const uint64_t one = 1;

	if (q < v->num_queues && write(v->queue[q].kick_fd, &one, sizeof(one)) < 0)
		assert(errno == EAGAIN); /* 2^64-2 signals wait already */
}

static void notify(struct virtio_pci *v, uint64_t off, unsigned len)
{
	for (uint64_t q = off / NOTIFY_STRIDE; q <= (off + len - 1) / NOTIFY_STRIDE; q++)
		virtio_pci_kick(v, q);
}

/* An access to the BAR, by way of memory or of configuration space. */
static void bar_access_read(struct virtio_pci *v, uint64_t off, void *data, unsigned len)
{
	uint64_t at = off % AREA_BYTES;

	memset(data, 0, len);
	switch (off - at) {
	case AREA_COMMON:
		common_read(v, at, data, len);
		break;
	case AREA_ISR:
		if (at == 0)
			*(uint8_t *)data = virtio_pci_isr_take(v);
		break;
	case AREA_CONFIG:
		virtio_pci_config_read(v, at, data, len);
		break;
	case AREA_MSIX:
		msix_table_read(&v->msix, at, data, len);
		break;
	case AREA_PBA:
		msix_pba_read(&v->msix, at, data, len);
		break;
	default:
		break;
	}
}

static void bar_access_write(struct virtio_pci *v, uint64_t off, const void *data, unsigned len)
{
	uint64_t at = off % AREA_BYTES;

	switch (off - at) {
	case AREA_COMMON:
		common_write(v, at, data, len);
		break;
	case AREA_CONFIG:
		virtio_pci_config_write(v, at, data, len);
		break;
	case AREA_NOTIFY:
		notify(v, at, len);
		break;
	case AREA_MSIX:
		msix_table_write(&v->msix, at, data, len);
		break;
	default:
		break;
	}
}

static void bar_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct pci_bar *bar = container_of(r, struct pci_bar, range);

	bar_access_read(container_of(bar->dev, struct virtio_pci, pci), off, data, len);
}

static void bar_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct pci_bar *bar = container_of(r, struct pci_bar, range);

	bar_access_write(container_of(bar->dev, struct virtio_pci, pci), off, data, len);
}

static void bar_mapped(struct pci_dev *d, unsigned bar, uint64_t base, bool mapped)
{
	struct virtio_pci *v = container_of(d, struct virtio_pci, pci);
	struct bus *bus = v->services->bus;
	int err;

	for (unsigned i = 0; bar == v->bar && i < v->num_queues; i++) {
		struct virtio_queue_regs *q = &v->queue[i];
		uint64_t addr = base + AREA_NOTIFY + NOTIFY_STRIDE * i;

		if (!mapped) {
			if (q->doorbell)
				bus_doorbell_del(bus, BUS_MMIO, addr, 0, q->kick_fd);
			q->doorbell = false;
			continue;
		}
		err = bus_doorbell_add(bus, BUS_MMIO, addr, 0, q->kick_fd);
		q->doorbell = !err;
		if (err)
			log_debug("%s: queue %u has no doorbell: %s", v->type->name, i,
				why_text(NULL, err));
	}
}

/* Configuration space: MSI-X control, and the window into the BAR (4.1.4.9). */

/* Where the window looks; false if there is nothing to be seen. */
static bool window(const struct virtio_pci *v, uint64_t *off, unsigned *len)
{
	const uint8_t *cap = v->pci.cfg + v->pci_cfg_cap;
	le32_t o, l;

	memcpy(&o, cap + CAP_OFFSET, sizeof(o));
	memcpy(&l, cap + CAP_LENGTH, sizeof(l));
	*off = le32_get(o);
	*len = le32_get(l);
	return cap[CAP_BAR] == v->bar && (*len == 1 || *len == 2 || *len == 4) &&
		*off % *len == 0 &&
		range_within(*off, *len, BAR_BYTES);
}

static bool touches_window(const struct virtio_pci *v, unsigned off, unsigned len)
{
	return ranges_overlap(off, len, v->pci_cfg_cap + CAP_WINDOW, CAP_WINDOW_BYTES);
}

static void pci_config_read(struct pci_dev *d, unsigned off, unsigned len)
{
	struct virtio_pci *v = container_of(d, struct virtio_pci, pci);
	uint64_t at;
	unsigned n;

	if (touches_window(v, off, len) && window(v, &at, &n))
		bar_access_read(v, at, d->cfg + v->pci_cfg_cap + CAP_WINDOW, n);
}

static void pci_config_written(struct pci_dev *d, unsigned off, unsigned len)
{
	struct virtio_pci *v = container_of(d, struct virtio_pci, pci);
	uint64_t at;
	unsigned n;

	if (ranges_overlap(off, len, v->msix.cap, 4)) {
		msix_config_written(&v->msix);
		isr_update(v, 0);
	}
	if (touches_window(v, off, len) && window(v, &at, &n))
		bar_access_write(v, at, d->cfg + v->pci_cfg_cap + CAP_WINDOW, n);
}

static const struct pci_dev_ops virtio_pci_ops = {
	.config_read = pci_config_read,
	.config_written = pci_config_written,
	.bar_mapped = bar_mapped,
};

/* Life. */

static unsigned add_cap(struct virtio_pci *v, uint8_t type, uint32_t off, uint32_t len,
	unsigned extra)
{
	struct virtio_pci_cap cap = {
		.len = (uint8_t)(2 + sizeof(cap) + extra),
		.type = type,
		.bar = (uint8_t)v->bar,
		.offset = le32_make(off),
		.length = le32_make(len),
	};
	uint8_t body[sizeof(cap) + 4] = {0};

	memcpy(body, &cap, sizeof(cap));
	if (type == CAP_TYPE_NOTIFY)
		body[sizeof(cap)] = NOTIFY_STRIDE;
	return pci_cap_add(&v->pci, CAP_ID_VENDOR, body, (unsigned)sizeof(cap) + extra);
}

static void add_caps(struct virtio_pci *v)
{
	unsigned at;

	add_cap(v, CAP_TYPE_COMMON, AREA_COMMON, COMMON_BYTES, 0);
	add_cap(v, CAP_TYPE_NOTIFY, AREA_NOTIFY, NOTIFY_STRIDE * v->num_queues, 4);
	add_cap(v, CAP_TYPE_ISR, AREA_ISR, 1, 0);
	add_cap(v, CAP_TYPE_DEVICE, AREA_CONFIG, v->type->config_bytes, 0);
	at = add_cap(v, CAP_TYPE_PCI_CFG, 0, 0, CAP_WINDOW_BYTES);
	v->pci.wmask[at + CAP_BAR] = 0xff;
	memset(v->pci.wmask + at + CAP_OFFSET, 0xff, 4 + 4 + CAP_WINDOW_BYTES);
	v->pci_cfg_cap = at;
}

static int make_queues(struct virtio_pci *v)
{
	v->queue = calloc(v->num_queues, sizeof(*v->queue));
	if (!v->queue)
		return -ENOMEM;
	for (unsigned i = 0; i < v->num_queues; i++)
		v->queue[i].kick_fd = -1;
	for (unsigned i = 0; i < v->num_queues; i++) {
		v->queue[i].size = v->queue_size_max;
		atomic_store(&v->queue[i].vector, MSI_NO_VECTOR);
		v->queue[i].kick_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (v->queue[i].kick_fd < 0)
			return -errno;
	}
	return 0;
}

static void free_queues(struct virtio_pci *v)
{
	for (unsigned i = 0; v->queue && i < v->num_queues; i++)
		if (v->queue[i].kick_fd >= 0)
			close(v->queue[i].kick_fd);
	free(v->queue);
	v->queue = NULL;
}

int virtio_pci_init(struct virtio_pci *v, struct machine_services *s,
	const struct virtio_type *type, uint64_t features, unsigned num_queues,
	uint16_t queue_size, bool transitional)
{
	struct pci_ids ids = {
		.vendor = 0x1af4,
		.device = (uint16_t)(transitional ? type->legacy_id : 0x1040 + type->id),
		.subsys_vendor = 0x1af4,
		/* 4.1.2.1: not below 0x40; 4.1.2.3: transitional, the device's id */
		.subsys = (uint16_t)(transitional ? type->id : 0x1040 + type->id),
		.class_code = type->class_code,
		.revision = !transitional,
		.irq_pin = 1,
	};
	int err;

	assert(num_queues >= 1 && num_queues <= VIRTIO_QUEUES_MAX && is_pow2(queue_size));
	assert(type->config_bytes <= VIRTIO_CONFIG_MAX);
	v->type = type;
	v->services = s;
	v->offered = features | VIRTIO_F_VERSION_1;
	v->num_queues = num_queues;
	v->queue_size_max = queue_size;
	atomic_store(&v->config_vector, MSI_NO_VECTOR);
	pci_dev_init(&v->pci, &virtio_pci_ops, type->name, &ids);
	if (transitional) {
		v->bar = 4;
		virtio_legacy_init(v);
	}
	pci_bar_init(&v->pci, v->bar, PCI_BAR_MEM64, BAR_BYTES, bar_read, bar_write);
	err = make_queues(v);
	if (err)
		goto free_queues;
	/* One vector for each queue and one for configuration changes. */
	err = msix_init(&v->msix, &v->pci, s->irqs, num_queues + 1, v->bar, AREA_MSIX, AREA_PBA);
	if (err)
		goto free_queues;
	add_caps(v);
	pthread_mutex_init(&v->irq_lock, NULL);
	pthread_mutex_init(&v->lock, NULL);
	return 0;
free_queues:
	free_queues(v);
	return err;
}

void virtio_pci_fini(struct virtio_pci *v)
{
	msix_fini(&v->msix);
	free_queues(v);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->irq_lock);
}

int virtio_pci_plug(struct virtio_pci *v)
{
	return pci_dev_add(v->services->pci, &v->pci);
}

void virtio_pci_unplug(struct virtio_pci *v)
{
	pci_dev_remove(&v->pci);
}

void virtio_pci_stop(struct virtio_pci *v)
{
	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < v->num_queues; i++)
		queue_stop_locked(v, i);
	pthread_mutex_unlock(&v->lock);
}

void virtio_pci_reset(struct virtio_pci *v)
{
	pthread_mutex_lock(&v->lock);
	reset_locked(v);
	pthread_mutex_unlock(&v->lock);
	pci_dev_reset(&v->pci);
	msix_reset(&v->msix);
	virtio_pci_isr_take(v);
}
