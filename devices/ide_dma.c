/* SPDX-License-Identifier: MIT */
/*
 * ide_dma.c - the bus master: its registers, and its lists of physical regions.
 *
 * Source: Programming Interface for Bus Master IDE Controller, revision 1.0.  A descriptor is read
 * when the one before it is used up and copied before it is looked at; each stands for at least
 * two bytes, so that a list is never longer than what is asked of it, loops and all.
 *
 * The direction is the command's; what the bus master's bit 3 says is kept and not believed.
 * Stopping a transfer takes effect when the host's operation in flight has ended; until then the
 * drive is BUSY.
 */
#include <string.h>
#include "devices/ide_int.h"
#include "vmm/util/bytes.h"

#define BM_START  0x01
#define BM_READS  0x08 /* of the disk: writes memory */
#define BM_ACTIVE 0x01
#define BM_ERROR  0x02
#define BM_IRQ	  0x04
#define BM_CAN	  0x60
#define PRD_LAST  0x80000000u

struct prd {
	le32_t addr, len; /* len: bytes in the low word, PRD_LAST */
};

static void begin(struct ide_drive *d)
{
	d->prd = (struct ide_prd){.at = d->chan->bm_table};
	d->dma_stopped = false;
	if (d->dma_here)
		d->dma(d);
	else
		ide_post(d, d->dma);
}

void ide_dma_wait(struct ide_drive *d, void (*start)(struct ide_drive *d))
{
	d->phase = IDE_DMA;
	d->status = ST_GOOD | ST_DRQ;
	d->error = 0;
	d->dma = start;
	if (d->chan->bm_command & BM_START)
		begin(d);
}

void ide_dma_over(struct ide_drive *d)
{
	struct ide_chan *c = d->chan;

	if (d->prd.bad)
		c->bm_status |= BM_ERROR;
	/* Regions that are left over keep it active, until it is stopped. */
	if (d->prd.bad || (d->prd.last && !d->prd.left))
		c->bm_status &= (uint8_t)~BM_ACTIVE;
}

uint8_t ide_bm_read(struct ide_chan *c, unsigned off)
{
	switch (off) {
	case 0:
		return c->bm_command;
	case 2:
		return c->bm_status;
	case 4:
	case 5:
	case 6:
	case 7:
		return (uint8_t)(c->bm_table >> 8 * (off - 4));
	default:
		return 0;
	}
}

static void command(struct ide_chan *c, uint8_t v)
{
	bool was = c->bm_command & BM_START;

	c->bm_command = v & (BM_START | BM_READS);
	if (v & BM_START && !was) {
		c->bm_status |= BM_ACTIVE;
		for (unsigned i = 0; i < 2; i++)
			if (c->drive[i].present && c->drive[i].phase == IDE_DMA)
				begin(&c->drive[i]);
	} else if (!(v & BM_START) && was) {
		c->bm_status &= (uint8_t)~BM_ACTIVE;
		for (unsigned i = 0; i < 2; i++)
			c->drive[i].dma_stopped = true;
	}
}

void ide_bm_write(struct ide_chan *c, unsigned off, uint8_t v)
{
	unsigned shift;

	switch (off) {
	case 0:
		command(c, v);
		break;
	case 2:
		c->bm_status = (uint8_t)((c->bm_status & BM_ACTIVE) | (v & BM_CAN) |
					 (c->bm_status & ~v & (BM_ERROR | BM_IRQ)));
		break;
	case 4:
	case 5:
	case 6:
	case 7:
		shift = 8 * (off - 4);
		c->bm_table = (c->bm_table & ~(0xffu << shift)) | (uint32_t)v << shift;
		c->bm_table &= ~3u;
		break;
	default:
		break;
	}
}

/* Makes prd.left not 0; false: the list has ended, or lies outside memory. */
static bool next_region(struct ide_drive *d)
{
	struct ide_prd *p = &d->prd;
	const void *at;
	struct prd e;

	if (p->left)
		return true;
	if (p->last || p->bad)
		return false;
	at = gmem_ptr(d->chan->ide->dev.services->mem, p->at, sizeof(e));
	if (!at) {
		p->bad = true;
		return false;
	}
	memcpy(&e, at, sizeof(e));
	p->at = (uint32_t)(p->at + sizeof(e));
	p->gpa = le32_get(e.addr) & ~1u;
	p->left = le32_get(e.len) & 0xfffe;
	if (!p->left)
		p->left = 65536;
	p->last = le32_get(e.len) & PRD_LAST;
	return true;
}

/* The next piece of guest memory, at most len bytes; NULL: none. */
static void *next_piece(struct ide_drive *d, uint32_t *len)
{
	void *p;

	if (!next_region(d))
		return NULL;
	*len = (uint32_t)min_u64(*len, d->prd.left);
	p = gmem_ptr(d->chan->ide->dev.services->mem, d->prd.gpa, *len);
	if (!p) {
		d->prd.bad = true;
		return NULL;
	}
	d->prd.gpa += *len;
	d->prd.left -= *len;
	return p;
}

uint32_t ide_loop_prd_map(struct ide_drive *d, uint32_t len, int *niov)
{
	struct ide_prd before = d->prd;
	uint32_t got = 0;
	int n = 0;

	while (got < len) {
		uint32_t k = len - got;
		uint8_t *p;

		if (n == IDE_IOVS)
			break;
		p = next_piece(d, &k);
		if (!p)
			break;
		got += k;
		if (n && (uint8_t *)d->iov[n - 1].iov_base + d->iov[n - 1].iov_len == p) {
			d->iov[n - 1].iov_len += k;
			continue;
		}
		d->iov[n++] = (struct iovec){p, k};
	}
	/* Whole sectors only: what is over is mapped again, with the next part. */
	if (got % SECTOR && got > SECTOR) {
		d->prd = before;
		return ide_loop_prd_map(d, got / SECTOR * SECTOR, niov);
	}
	*niov = n;
	return got;
}

uint32_t ide_loop_prd_copy(struct ide_drive *d, uint32_t len, bool to_guest)
{
	uint32_t got = 0;

	while (got < len) {
		uint32_t k = len - got;
		void *p = next_piece(d, &k);

		if (!p)
			break;
		if (to_guest)
			memcpy(p, d->buf + got, k);
		else
			memcpy(d->buf + got, p, k);
		got += k;
	}
	return got;
}
