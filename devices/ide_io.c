/* SPDX-License-Identifier: MIT */
/*
 * ide_io.c - reads, writes, verifies and trims: from the registers to the block layer and back.
 *
 * PIO goes through the drive's buffer, 128 KiB at a time whatever the DRQ blocks are; DMA goes
 * straight between guest memory and the host.  A host operation that fails is tried again sector
 * by sector from its start, so that the registers name the first sector that is really bad
 * (ATA/ATAPI-6, 8.27.6) and all before it are done.
 */
#include <string.h>
#include "devices/ide_int.h"

/* ---- addresses ---- */

static uint64_t lba_of(const struct ide_drive *d, const struct ide_xfer *x)
{
	const struct ide_tf *t = &d->tf, *h = &d->hob;
	uint64_t lba = t->lba[0] | t->lba[1] << 8 | (uint64_t)t->lba[2] << 16;
	uint32_t cylinder = t->lba[1] | (uint32_t)t->lba[2] << 8;

	if (x->chs) /* sectors count from 1; sector 0 becomes an address that no disk has */
		return ((uint64_t)cylinder * d->heads + (d->chan->device & 15)) * d->spt +
			t->lba[0] - 1;
	if (x->lba48)
		return lba | (uint64_t)h->lba[0] << 24 | (uint64_t)h->lba[1] << 32 |
			(uint64_t)h->lba[2] << 40;
	return lba | (uint64_t)(d->chan->device & 15) << 24;
}

static void lba_to_regs(struct ide_drive *d, uint64_t lba)
{
	struct ide_tf *t = &d->tf, *h = &d->hob;
	uint8_t head = (uint8_t)(lba >> 24 & 15);

	if (d->x.chs) {
		uint64_t track = lba / d->spt;

		t->lba[0] = (uint8_t)(lba % d->spt + 1);
		head = (uint8_t)(track % d->heads);
		t->lba[1] = (uint8_t)(track / d->heads);
		t->lba[2] = (uint8_t)(track / d->heads >> 8);
	} else {
		for (unsigned i = 0; i < 3; i++) {
			t->lba[i] = (uint8_t)(lba >> 8 * i);
			h->lba[i] = d->x.lba48 ? (uint8_t)(lba >> (24 + 8 * i)) : 0;
		}
	}
	if (!d->x.lba48)
		d->chan->device = (uint8_t)((d->chan->device & 0xf0) | head);
}

/* ---- the loop's part ---- */

/* The command ends at x.lba with an error of the medium. */
static void io_failed(struct ide_drive *d)
{
	ide_loop_lock(d);
	lba_to_regs(d, d->x.lba);
	ide_dma_over(d);
	ide_end(d, d->x.write ? ER_ABRT : ER_UNC);
	ide_loop_unlock(d);
}

void ide_loop_submit(struct ide_drive *d, struct blk_req r)
{
	d->req = r;
	d->req.wanted = &d->wanted;
	disk_submit(d->disk, &d->req);
}

static void given_up(struct loop_msg *m)
{
	struct ide_drive *d = container_of(m, struct ide_drive, give_up_msg);

	disk_give_up(d->disk);
	ide_loop_lock(d);
	d->give_up_posted = false;
	ide_loop_unlock(d);
}

void ide_give_up(struct ide_drive *d)
{
	__atomic_store_n(&d->wanted, false, __ATOMIC_RELEASE);
	if (d->give_up_posted || !d->disk)
		return;
	d->give_up_posted = true;
	d->give_up_msg.fn = given_up;
	loop_post(d->loop, &d->give_up_msg);
}

static void submit(struct ide_drive *d, void (*done)(struct blk_req *r, int err), int niov)
{
	ide_loop_submit(d, (struct blk_req){
				   .done = done,
				   .op = d->x.write ? BLK_WRITE : BLK_READ,
				   .flags = d->x.flags,
				   .iov = d->iov,
				   .niov = niov,
				   .off = d->x.lba * SECTOR,
				   .len = (uint64_t)d->x.now * SECTOR,
			   });
}

/* What is in flight is done; or is to be done again by the sector, and false. */
static bool advance(struct ide_drive *d, int err)
{
	if (err) {
		if (d->x.now == 1)
			io_failed(d);
		d->x.most = 1;
		return false;
	}
	d->x.lba += d->x.now;
	d->x.left -= d->x.now;
	return true;
}

/* PIO: sector i of what buf is to hold. */
static void buf_done(struct blk_req *r, int err);

static void loop_buf(struct ide_drive *d)
{
	d->x.now = (uint32_t)min_u64(d->len / SECTOR - d->pos / SECTOR, d->x.most);
	d->iov[0] = (struct iovec){d->buf + d->pos, (size_t)d->x.now * SECTOR};
	submit(d, buf_done, 1);
}

static void buf_full(struct ide_drive *d);

static void buf_done(struct blk_req *r, int err)
{
	struct ide_drive *d = container_of(r, struct ide_drive, req);

	if (!advance(d, err)) {
		if (d->x.now > 1)
			loop_buf(d);
		return;
	}
	d->pos += d->x.now * SECTOR;
	if (d->pos < d->len) {
		loop_buf(d);
		return;
	}
	ide_loop_lock(d);
	if (d->x.verify && d->x.left)
		ide_read_more(d);
	else if (d->x.write && d->x.left)
		buf_full(d);
	else if (d->x.write || d->x.verify)
		ide_end(d, 0);
	else
		ide_data_in(d, d->len, d->x.block, true);
	ide_loop_unlock(d);
}

/* The next part of a PIO transfer: how long, from the buffer's start. */
static void next_part(struct ide_drive *d)
{
	d->len = (uint32_t)min_u64(d->x.left, IDE_BUF_SECTORS) * SECTOR;
	d->pos = 0;
	d->x.most = IDE_BUF_SECTORS;
}

void ide_read_more(struct ide_drive *d)
{
	next_part(d);
	ide_post(d, loop_buf);
}

static void got_data(struct ide_drive *d)
{
	d->pos = 0;
	d->x.most = IDE_BUF_SECTORS;
	ide_post(d, loop_buf);
}

/* Ready for (more of) the guest's data. */
static void buf_full(struct ide_drive *d)
{
	next_part(d);
	d->got = got_data;
	ide_data_out(d, d->len, d->x.block, true);
}

static void dma_done(struct blk_req *r, int err);

static void loop_dma(struct ide_drive *d)
{
	uint32_t bytes;
	int niov;

	d->prd_before = d->prd;
	bytes = ide_loop_prd_map(
		d, (uint32_t)min_u64(d->x.left, d->x.most) * SECTOR, &niov);
	d->x.now = bytes / SECTOR;
	if (d->x.now) {
		submit(d, dma_done, niov);
		return;
	}
	ide_loop_lock(d);
	ide_dma_over(d);
	if (d->prd.bad) {
		lba_to_regs(d, d->x.lba);
		ide_end(d, ER_ABRT);
	} else {
		/* The list was too short: the specification has no interrupt for that. */
		d->phase = IDE_IDLE;
		d->status = ST_GOOD;
	}
	ide_loop_unlock(d);
}

void ide_read_dma(struct ide_drive *d)
{
	ide_dma_wait(d, loop_dma);
}

static void dma_done(struct blk_req *r, int err)
{
	struct ide_drive *d = container_of(r, struct ide_drive, req);
	bool on;

	if (!advance(d, err)) {
		if (d->x.now > 1) {
			d->prd = d->prd_before;
			loop_dma(d);
		}
		return;
	}
	ide_loop_lock(d);
	on = d->x.left && !d->dma_stopped && !d->srst;
	if (!on) {
		ide_dma_over(d);
		if (d->x.left)
			lba_to_regs(d, d->x.lba);
		ide_end(d, d->x.left ? ER_ABRT : 0);
	}
	ide_loop_unlock(d);
	if (on)
		loop_dma(d);
}

/* ---- the commands ---- */

enum { IO_EXT = 1, IO_WRITE = 2, IO_DMA = 4, IO_MULTIPLE = 8, IO_FUA = 16, IO_VERIFY = 32 };

static const struct {
	uint8_t opcode, how;
} kinds[] = {
	{0x20, 0}, {0x21, 0}, {0x24, IO_EXT}, {0x25, IO_EXT | IO_DMA}, {0x29, IO_EXT | IO_MULTIPLE},
	{0x30, IO_WRITE}, {0x31, IO_WRITE}, {0x34, IO_WRITE | IO_EXT},
	{0x35, IO_WRITE | IO_EXT | IO_DMA}, {0x39, IO_WRITE | IO_EXT | IO_MULTIPLE},
	{0x3d, IO_WRITE | IO_EXT | IO_DMA | IO_FUA}, {0x40, IO_VERIFY}, {0x41, IO_VERIFY},
	{0x42, IO_VERIFY | IO_EXT}, {0xc4, IO_MULTIPLE}, {0xc5, IO_WRITE | IO_MULTIPLE},
	{0xc8, IO_DMA}, {0xc9, IO_DMA}, {0xca, IO_WRITE | IO_DMA}, {0xcb, IO_WRITE | IO_DMA},
	{0xce, IO_WRITE | IO_EXT | IO_MULTIPLE | IO_FUA},
};

static unsigned how_of(uint8_t opcode)
{
	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++)
		if (kinds[i].opcode == opcode)
			return kinds[i].how;
	assert(!"no command of this file");
	return 0;
}

void ide_io(struct ide_drive *d)
{
	unsigned how = how_of(d->command);
	uint64_t size = disk_size(d->disk) / SECTOR;
	struct ide_xfer *x = &d->x;

	*x = (struct ide_xfer){.write = how & IO_WRITE, .verify = how & IO_VERIFY,
		.lba48 = how & IO_EXT, .chs = !(how & IO_EXT) && !(d->chan->device & DEV_LBA),
		.flags = how & IO_FUA ? BLK_FUA : 0, .most = IDE_DMA_SECTORS};
	x->left = d->tf.count | (x->lba48 ? (uint32_t)d->hob.count << 8 : 0);
	if (!x->left)
		x->left = x->lba48 ? 65536 : 256;
	x->lba = lba_of(d, x);
	x->block = (how & IO_MULTIPLE ? d->multiple : 1) * SECTOR;
	if (!x->block || (x->write && disk_readonly(d->disk))) {
		ide_end(d, ER_ABRT);
	} else if (x->lba >= size || x->left > size - x->lba) {
		ide_end(d, ER_IDNF);
	} else if (how & IO_DMA) {
		ide_dma_wait(d, loop_dma);
	} else if (!x->write) {
		ide_read_more(d);
	} else {
		next_part(d);
		d->got = got_data;
		ide_data_out(d, d->len, x->block, false);
	}
}

/* ---- TRIM (ATA8-ACS, DATA SET MANAGEMENT) ---- */

static void trim_done(struct blk_req *r, int err);

/* The next range of the list in buf, or the end. */
static void trim_next(struct ide_drive *d)
{
	uint64_t size = disk_size(d->disk) / SECTOR;

	for (; d->trim_at + 8 <= d->len; d->trim_at += 8) {
		uint64_t e, lba, n;

		memcpy(&e, d->buf + d->trim_at, sizeof(e)); /* little-endian, as we are */
		lba = e & 0xffffffffffffULL;
		n = e >> 48;
		if (!n)
			continue;
		if (lba >= size || n > size - lba) {
			d->x.lba48 = true;
			d->x.write = true;
			d->x.lba = lba;
			io_failed(d);
			return;
		}
		d->trim_at += 8;
		ide_loop_submit(d, (struct blk_req){.done = trim_done, .op = BLK_DISCARD,
					   .off = lba * SECTOR, .len = n * SECTOR});
		return;
	}
	ide_loop_dma_end(d, 0);
}

static void trim_done(struct blk_req *r, int err)
{
	struct ide_drive *d = container_of(r, struct ide_drive, req);

	if (err && err != -ENOTSUP && err != -EOPNOTSUPP) {
		ide_loop_dma_end(d, ER_ABRT);
		return;
	}
	trim_next(d);
}

void ide_loop_trim(struct ide_drive *d)
{
	d->len = ide_loop_prd_copy(d, d->x.left * SECTOR, false);
	if (d->len < d->x.left * SECTOR) {
		ide_loop_dma_end(d, ER_ABRT);
		return;
	}
	d->trim_at = 0;
	trim_next(d);
}
