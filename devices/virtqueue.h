/* SPDX-License-Identifier: MIT */
/*
 * virtqueue.h - the device's side of a split virtqueue (virtio 1.2, section 2.7).
 *
 * Belongs to one thread at a time.  The rings are the guest's memory and change under
 * our eyes: everything is read once and checked afterwards.
 */
#ifndef DEVICES_VIRTQUEUE_H
#define DEVICES_VIRTQUEUE_H

#include <sys/uio.h>
#include "vmm/guest_mem.h"
#include "vmm/util/bytes.h"

#define VIRTQ_DESC_NEXT	    1
#define VIRTQ_DESC_WRITE    2
#define VIRTQ_DESC_INDIRECT 4

struct virtq_desc {
	le64_t addr;
	le32_t len;
	le16_t flags, next;
};
static_assert(sizeof(struct virtq_desc) == 16, "virtio 1.2, 2.7.5");

struct virtq_used_elem {
	le32_t id, len;
};

/* What the driver says about a queue. */
struct virtq_layout {
	uint16_t size;		       /* entries, a power of two */
	uint64_t desc, avail, used;    /* guest-physical */
	bool event_idx, indirect;      /* features that were negotiated */
};

struct virtq {
	const struct gmem *mem;
	uint16_t size;
	bool event_idx, indirect;
	bool broken; /* the driver broke the rules; nothing more comes out */
	const struct virtq_desc *desc;
	const uint8_t *avail; /* flags, idx, ring[size], used_event */
	uint8_t *used;	      /* flags, idx, ring[size], avail_event */
	uint16_t last_avail;  /* next entry of the available ring to take */
	uint16_t avail_idx;   /* as last seen: entries before it may be taken */
	uint16_t used_idx;    /* as published */
	uint16_t signalled;   /* used_idx when an interrupt was last thought about */
};

/* One buffer of the driver's: a chain of descriptors, as host memory. */
struct virtq_chain {
	struct iovec *iov; /* the caller's */
	unsigned iov_max;
	uint16_t head;		  /* to be given back with virtq_push() */
	unsigned n_out, n_in;	  /* iov: first n_out for the device to read, then n_in to write */
	uint64_t out_len, in_len; /* bytes */
	uint8_t *last;		  /* the last byte that the device may write; NULL: there is none */
	bool bad; /* part of it was unusable and left out: only to be given back */
};

/* 0, or -EINVAL if the rings are not aligned and in RAM. */
must_check int virtq_start(struct virtq *q, const struct gmem *mem, const struct virtq_layout *l);

/*
 * Takes the next chain: 1 if there was one, which the caller then owes back; 0 if not;
 * -errno if the ring itself is nonsense, for good (q->broken).
 */
must_check int virtq_pop(struct virtq *q, struct virtq_chain *c);
/* Gives a chain back; len bytes from its first writable one on were written. */
void virtq_push(struct virtq *q, uint16_t head, uint32_t len);

/* Asks the driver not to ring while the device is looking at the ring anyway. */
void virtq_hush(struct virtq *q);
/* Asks it to ring for the next buffer.  True: one has come meanwhile, look again. */
must_check bool virtq_listen(struct virtq *q);
/* Must the driver be interrupted for what was pushed since the last call? */
must_check bool virtq_wants_irq(struct virtq *q);

#endif
