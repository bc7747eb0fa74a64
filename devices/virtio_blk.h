/* SPDX-License-Identifier: MIT */
/*
 * virtio_blk.h - a disk as a virtio-blk device on the PCI bus.
 */
#ifndef DEVICES_VIRTIO_BLK_H
#define DEVICES_VIRTIO_BLK_H

#include "blockdev/block.h"
#include "devices/device.h"
#include "vmm/util/loop.h"

struct virtio_blk_opts {
	const char *serial;  /* up to 20 bytes are shown to the guest; NULL: empty */
	unsigned num_queues; /* 0: 1 */
	bool transitional;   /* for legacy drivers too */
	unsigned queue_size; /* descriptors, a power of two; 0: 256 */
};

#define VIRTIO_BLK_QUEUES_MAX 16
#define VIRTIO_BLK_QUEUE_SIZE_MAX 1024

/*
 * Main thread, while another thread runs the loop that disk belongs to.  s->pci must be there.
 * stop and destroy likewise: the loop must still be running.  0 or -errno with words.
 */
must_check int virtio_blk_create(struct machine_services *s, struct loop *loop, struct disk *disk,
	const struct virtio_blk_opts *o, struct device **out, struct why *why);
/* The disk has another size now: the driver is told to look.  Any thread. */
void virtio_blk_resized(struct device *d);

#endif
