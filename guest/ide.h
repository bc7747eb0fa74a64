/* SPDX-License-Identifier: MIT */
/*
 * ide.h - an IDE disk behind the queue that the jobs know (virtio_blk.h).
 */
#ifndef GUEST_IDE_H
#define GUEST_IDE_H

#include "guest/virtio_blk.h"

/* bus= asks for IDE. */
bool ide_wanted(void);
struct vblk *ide_open(void);
void ide_start(struct vblk *d, uint64_t want);
uint8_t ide_writeback(struct vblk *d);
void ide_set_writeback(struct vblk *d, uint8_t on);
/* Where its registers are, for a driver that wants to do harm. */
void ide_ports(const struct vblk *d, uint16_t *base, uint16_t *ctl, uint16_t *bm);

/* What virtq.c does for a ring. */
must_check bool ide_add(struct virtq *q, struct vblk_req *r);
void ide_kick(struct virtq *q);
bool ide_pending(const struct virtq *q);
struct vblk_req *ide_take(struct virtq *q);
must_check bool ide_wait(struct virtq *q, uint64_t deadline_tsc);

#endif
