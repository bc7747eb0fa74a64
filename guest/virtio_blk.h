/* SPDX-License-Identifier: MIT */
/*
 * virtio_blk.h - the driver: disks, their queues, and requests.
 *
 *   vblk_open() -> vblk_req_init(), vblk_req_add().. -> vblk_submit() -> virtq_kick()
 *               -> virtq_wait() -> vblk_reap() -> the request is the caller's again
 *
 * A request is the device's between submit and reap: its memory must not move or be written.
 */
#ifndef GUEST_VIRTIO_BLK_H
#define GUEST_VIRTIO_BLK_H

#include "guest/pci.h"

#define VBLK_DISKS_MAX  8
#define VBLK_QUEUES_MAX 8
#define VIRTQ_SIZE_MAX  1024
#define VBLK_SEGS_MAX   256

#define VIRTQ_NEXT     1
#define VIRTQ_WRITE    2
#define VIRTQ_INDIRECT 4

#define VBLK_IN    0
#define VBLK_OUT   1
#define VBLK_FLUSH 4

#define VBLK_S_OK   0
#define VBLK_S_NONE 0xaa /* what the guest leaves in the status byte */

#define F_SIZE_MAX   (1ull << 1)
#define F_SEG_MAX    (1ull << 2)
#define F_RO         (1ull << 5)
#define F_BLK_SIZE   (1ull << 6)
#define F_FLUSH      (1ull << 9)
#define F_TOPOLOGY   (1ull << 10)
#define F_CONFIG_WCE (1ull << 11)
#define F_MQ         (1ull << 12)
#define F_INDIRECT   (1ull << 28)
#define F_EVENT_IDX  (1ull << 29)
#define F_VERSION_1  (1ull << 32)
#define F_ALL                                                                                      \
	(F_SIZE_MAX | F_SEG_MAX | F_RO | F_BLK_SIZE | F_FLUSH | F_TOPOLOGY | F_CONFIG_WCE | F_MQ | \
		F_INDIRECT | F_EVENT_IDX | F_VERSION_1)

#define DEV_ACK         1
#define DEV_DRIVER      2
#define DEV_DRIVER_OK   4
#define DEV_FEATURES_OK 8
#define DEV_NEEDS_RESET 64
#define DEV_FAILED      128

/* Common configuration, by offset. */
#define CC_DEV_FEATURE_SEL 0
#define CC_DEV_FEATURE     4
#define CC_DRV_FEATURE_SEL 8
#define CC_DRV_FEATURE     12
#define CC_MSIX_CONFIG     16
#define CC_NUM_QUEUES      18
#define CC_STATUS          20
#define CC_GENERATION      21
#define CC_QUEUE_SELECT    22
#define CC_QUEUE_SIZE      24
#define CC_QUEUE_VECTOR    26
#define CC_QUEUE_ENABLE    28
#define CC_QUEUE_NOTIFY    30
#define CC_QUEUE_DESC      32
#define CC_QUEUE_AVAIL     40
#define CC_QUEUE_USED      48
#define CC_BYTES           56

/* Device configuration of a block device, by offset. */
#define BC_CAPACITY   0
#define BC_SIZE_MAX   8
#define BC_SEG_MAX    12
#define BC_BLK_SIZE   20
#define BC_WRITEBACK  32
#define BC_NUM_QUEUES 34

struct virtq_desc {
	uint64_t addr;
	uint32_t len;
	uint16_t flags, next;
};

struct virtq_avail {
	uint16_t flags, idx, ring[];
};

struct virtq_used {
	uint16_t flags, idx;
	struct {
		uint32_t id, len;
	} ring[];
};

struct ide;

struct virtq {
	volatile struct virtq_desc *desc;
	volatile struct virtq_avail *avail;
	volatile struct virtq_used *used;
	volatile uint16_t *used_event, *avail_event; /* in the rings; used with event_idx only */
	volatile uint16_t *doorbell;
	uint16_t index, size;
	uint16_t free_head, n_free;
	uint16_t avail_next; /* published so far */
	uint16_t avail_kicked;
	uint16_t used_next;
	bool event_idx, indirect, poll;
	unsigned irq; /* index into irq_device[] */
	const char *broken;
	uint64_t kicks, missed_irqs;
	void *ring_memory;
	uint16_t ring_memory_size; /* in descriptors */
	struct vblk_req *req[VIRTQ_SIZE_MAX];
	struct ide *ide; /* not a ring, but this drive's list (ide.c) */
};

struct vblk {
	struct pci_dev pci;
	unsigned number;
	volatile uint8_t *common, *config, *notify, *isr, *msix;
	uint32_t notify_step, config_bytes, notify_bytes;
	unsigned msix_cap, msix_entries;
	uint64_t features; /* negotiated */
	uint64_t offered;
	uint64_t sectors;
	bool fua; /* writes may ask for it: not on virtio */
	uint32_t seg_max, seg_bytes; /* what a request may have */
	unsigned n_queues;
	struct virtq q[VBLK_QUEUES_MAX];
};

struct vblk_req {
	struct {
		uint32_t type, reserved;
		uint64_t sector;
	} head;
	volatile uint8_t status;
	bool fua; /* of a write, where the disk has it */
	uint16_t n_segs, n_descs;
	uint32_t used_bytes, in_bytes;
	uint64_t tsc, tag; /* the caller's */
	struct virtq_desc table[VBLK_SEGS_MAX + 2];
} __attribute__((aligned(16)));

/* virtq.c */
void virtq_init(struct virtq *q, uint16_t size);
/* Puts a chain into the ring, not yet visible to a device that polls on kicks.  False: no room. */
must_check bool virtq_add(struct virtq *q, struct vblk_req *r);
void virtq_kick(struct virtq *q);
struct vblk_req *virtq_take(struct virtq *q); /* the next finished one, or NULL */
bool virtq_pending(const struct virtq *q);
/* True once something is finished; false at the deadline, or when the queue is broken. */
must_check bool virtq_wait(struct virtq *q, uint64_t deadline_tsc);

/* virtio_blk.c */
struct vblk *vblk_open(void); /* the disk of disk=, ready for use; or the run ends */
void vblk_start(struct vblk *d, uint64_t want); /* reset, negotiate, set up all queues */
must_check bool vblk_reset(struct vblk *d);     /* false: it never came out of reset */
uint8_t vblk_status(const struct vblk *d);
bool vblk_write_cache_on(struct vblk *d); /* as a driver must see it */
uint8_t vblk_writeback(struct vblk *d);
void vblk_set_writeback(struct vblk *d, uint8_t on);
uint64_t vblk_timeout(void); /* TSC of the deadline for something that begins now */
uint32_t vblk_irqs(const struct vblk *d);
uint64_t vblk_missed_irqs(const struct vblk *d);
/* Ends the run if the queue is broken or late. */
void vblk_check_queue(const struct virtq *q, bool waited);

void vblk_req_init(struct vblk_req *r, uint32_t type, uint64_t sector);
must_check bool vblk_req_add(const struct vblk *d, struct vblk_req *r, void *data, uint32_t bytes);
must_check bool vblk_submit(struct virtq *q, struct vblk_req *r);
struct vblk_req *vblk_reap(struct virtq *q);
/* Submits, waits and gives the status: for jobs that do one thing at a time. */
uint8_t vblk_do(struct vblk *d, struct vblk_req *r);

/* Device registers, at the width asked for. */
static inline uint8_t reg8(const volatile uint8_t *base, unsigned off)
{
	return *(base + off);
}

static inline uint16_t reg16(const volatile uint8_t *base, unsigned off)
{
	return *(const volatile uint16_t *)(base + off);
}

static inline uint32_t reg32(const volatile uint8_t *base, unsigned off)
{
	return *(const volatile uint32_t *)(base + off);
}

static inline void set8(volatile uint8_t *base, unsigned off, uint8_t v)
{
	*(base + off) = v;
}

static inline void set16(volatile uint8_t *base, unsigned off, uint16_t v)
{
	*(volatile uint16_t *)(base + off) = v;
}

static inline void set32(volatile uint8_t *base, unsigned off, uint32_t v)
{
	*(volatile uint32_t *)(base + off) = v;
}

static inline void set64(volatile uint8_t *base, unsigned off, uint64_t v)
{
	set32(base, off, (uint32_t)v);
	set32(base, off + 4, (uint32_t)(v >> 32));
}

#endif
