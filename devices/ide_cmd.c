/* SPDX-License-Identifier: MIT */
/*
 * ide_cmd.c - the command table, and the commands that move no sectors.
 *
 * Source: ATA/ATAPI-6 (T13 1410D) section 8, with WRITE FUA of ATA-7 and DATA SET MANAGEMENT of
 * ATA8-ACS.  A command that is not in the table aborts.
 *
 * The write cache.  Bit 5 of word 85 is the disk's own WCE.  82h has the disk make durable
 * what was acknowledged before the bit changes and before the command completes; if that
 * fails, or in mode unsafe, it aborts and the bit stays.
 */
#include <string.h>
#include "devices/ide_int.h"

/* ---- commands that wait for the disk ---- */

static void flush_done(struct blk_req *r, int err)
{
	struct ide_drive *d = container_of(r, struct ide_drive, req);

	ide_loop_end(d, err ? ER_ABRT : 0);
}

static void loop_flush(struct ide_drive *d)
{
	ide_loop_submit(d, (struct blk_req){.done = flush_done, .op = BLK_FLUSH});
}

static void cmd_flush(struct ide_drive *d)
{
	ide_post(d, loop_flush);
}

static void wce_done(struct wce_change *w, int err)
{
	struct ide_drive *d = container_of(w, struct ide_drive, wce);

	ide_loop_end(d, err ? ER_ABRT : 0);
}

static void loop_wce(struct ide_drive *d)
{
	d->wce = (struct wce_change){.done = wce_done, .enable = d->tf.feature == 0x02};
	disk_set_wce(d->disk, &d->wce);
}

static void cmd_set_features(struct ide_drive *d)
{
	uint8_t n = d->tf.count;

	switch (d->tf.feature) {
	case 0x02:
	case 0x82:
		if (d->cdrom)
			break;
		ide_post(d, loop_wce);
		return;
	case 0x03: /* transfer mode: PIO 0-4, multiword DMA 0-2, Ultra DMA 0-5 */
		if (!(n <= 1 || (n >= 0x08 && n <= 0x0c) || (n >= 0x20 && n <= 0x22) ||
			    (n >= 0x40 && n <= 0x45)))
			break;
		d->xfer_mode = n;
		ide_end(d, 0);
		return;
	case 0x55:
	case 0xaa:
		d->look_ahead = d->tf.feature == 0xaa;
		ide_end(d, 0);
		return;
	case 0x66:
	case 0xcc:
		d->revert = d->tf.feature == 0xcc;
		ide_end(d, 0);
		return;
	default:
		break;
	}
	ide_end(d, ER_ABRT);
}

static void cmd_trim(struct ide_drive *d)
{
	uint32_t blocks = d->tf.count | (uint32_t)d->hob.count << 8;

	if (!(d->tf.feature & 1) || !blocks || blocks > IDE_TRIM_BLOCKS || disk_readonly(d->disk)) {
		ide_end(d, ER_ABRT);
		return;
	}
	d->x = (struct ide_xfer){.left = blocks};
	ide_dma_wait(d, ide_loop_trim);
}

/* ---- commands that are done at once ---- */

static void cmd_good(struct ide_drive *d)
{
	ide_end(d, 0);
}

static void cmd_identify(struct ide_drive *d)
{
	ide_identify(d);
	ide_sector_in(d);
}

static void cmd_set_multiple(struct ide_drive *d)
{
	uint8_t n = d->tf.count;

	if (n > IDE_MULTIPLE_MAX || n & (n - 1)) {
		ide_end(d, ER_ABRT);
		return;
	}
	d->multiple = n;
	ide_end(d, 0);
}

static void cmd_set_geometry(struct ide_drive *d)
{
	if (!d->tf.count) {
		ide_end(d, ER_ABRT);
		return;
	}
	d->heads = (uint8_t)((d->chan->device & 15) + 1);
	d->spt = d->tf.count;
	ide_end(d, 0);
}

static void cmd_diagnostic(struct ide_drive *d)
{
	struct ide_chan *c = d->chan;

	c->device = 0;
	for (unsigned i = 0; i < 2; i++) {
		struct ide_drive *e = &c->drive[i];

		if (!e->present || e->phase == IDE_BUSY)
			continue;
		e->phase = IDE_IDLE;
		ide_signature(e);
		e->error = 1;
		e->status = e->cdrom ? 0 : ST_GOOD;
	}
	ide_interrupt(c->drive[0].present ? &c->drive[0] : d);
}

static void cmd_native_max(struct ide_drive *d)
{
	uint64_t last = disk_size(d->disk) / SECTOR - 1;
	bool ext = d->command == 0x27;

	if (!ext && last > 0xfffffff - 1)
		last = 0xfffffff - 1;
	for (unsigned i = 0; i < 3; i++) {
		d->tf.lba[i] = (uint8_t)(last >> 8 * i);
		d->hob.lba[i] = ext ? (uint8_t)(last >> (24 + 8 * i)) : 0;
	}
	if (!ext)
		d->chan->device = (uint8_t)((d->chan->device & 0xf0) | (last >> 24 & 15));
	ide_end(d, 0);
}

static void cmd_check_power(struct ide_drive *d)
{
	d->tf.count = 0xff; /* active or idle */
	ide_end(d, 0);
}

/* ---- SMART (8.55): a disk of which nothing wears out ---- */

static void smart_page(struct ide_drive *d)
{
	uint8_t sum = 0;

	memset(d->buf, 0, SECTOR);
	d->buf[0] = 0x10; /* revision */
	if (d->tf.feature == 0xd0) {
		d->buf[362] = 0x82; /* off-line collection: done */
		d->buf[368] = 0x03; /* SMART capability: keeps values */
		d->buf[369] = 0x00;
	}
	for (unsigned i = 0; i < SECTOR - 1; i++)
		sum = (uint8_t)(sum + d->buf[i]);
	d->buf[SECTOR - 1] = (uint8_t)-sum;
	ide_sector_in(d);
}

static void cmd_smart(struct ide_drive *d)
{
	uint8_t f = d->tf.feature;

	if (d->tf.lba[1] != 0x4f || d->tf.lba[2] != 0xc2 || (d->smart_off && f != 0xd8)) {
		ide_end(d, ER_ABRT);
		return;
	}
	switch (f) {
	case 0xd0: /* data */
	case 0xd1: /* thresholds */
		smart_page(d);
		break;
	case 0xd8:
	case 0xd9:
		d->smart_off = f == 0xd9;
		ide_end(d, 0);
		break;
	case 0xd2: /* autosave */
	case 0xda: /* status: the registers stay as they are, which means "good" */
		ide_end(d, 0);
		break;
	default:
		ide_end(d, ER_ABRT);
	}
}

/* ---- the table ---- */

static void (*const ata[256])(struct ide_drive *d) = {
	[0x06] = cmd_trim,
	[0x10 ... 0x1f] = cmd_good, /* RECALIBRATE */
	[0x20] = ide_io, [0x21] = ide_io, [0x24] = ide_io, [0x25] = ide_io,
	[0x27] = cmd_native_max,
	[0x29] = ide_io,
	[0x30] = ide_io, [0x31] = ide_io, [0x34] = ide_io, [0x35] = ide_io,
	[0x39] = ide_io, [0x3d] = ide_io,
	[0x40] = ide_io, [0x41] = ide_io, [0x42] = ide_io,
	[0x70 ... 0x7f] = cmd_good, /* SEEK */
	[0x90] = cmd_diagnostic,
	[0x91] = cmd_set_geometry,
	[0x94] = cmd_flush, [0xe0] = cmd_flush, /* STANDBY IMMEDIATE */
	[0x95] = cmd_good, [0xe1] = cmd_good,   /* IDLE IMMEDIATE */
	[0x96] = cmd_flush, [0xe2] = cmd_flush, /* STANDBY */
	[0x97] = cmd_good, [0xe3] = cmd_good,   /* IDLE */
	[0x98] = cmd_check_power, [0xe5] = cmd_check_power,
	[0x99] = cmd_flush, [0xe6] = cmd_flush, /* SLEEP */
	[0xb0] = cmd_smart,
	[0xc4] = ide_io, [0xc5] = ide_io,
	[0xc6] = cmd_set_multiple,
	[0xc8] = ide_io, [0xc9] = ide_io, [0xca] = ide_io, [0xcb] = ide_io,
	[0xce] = ide_io,
	[0xe7] = cmd_flush, [0xea] = cmd_flush,
	[0xec] = cmd_identify,
	[0xef] = cmd_set_features,
	[0xf5] = cmd_good, /* SECURITY FREEZE LOCK: there is nothing to lock */
	[0xf8] = cmd_native_max,
};

/* ---- packet devices ---- */

/* Says by the signature that this is no disk (9.12). */
static void cmd_not_a_disk(struct ide_drive *d)
{
	ide_signature(d);
	ide_end(d, ER_ABRT);
}

static void cmd_identify_packet(struct ide_drive *d)
{
	ide_identify_packet(d);
	ide_sector_in(d);
}

static void (*const packet_device[256])(struct ide_drive *d) = {
	[0x08] = ide_reset_over,
	[0x20] = cmd_not_a_disk,
	[0x90] = cmd_diagnostic,
	[0x94 ... 0x97] = cmd_good, [0xe0 ... 0xe3] = cmd_good,
	[0x98] = cmd_check_power, [0xe5] = cmd_check_power,
	[0x99] = cmd_good, [0xe6] = cmd_good,
	[0xa0] = ide_packet,
	[0xa1] = cmd_identify_packet,
	[0xec] = cmd_not_a_disk,
	[0xef] = cmd_set_features,
};

void ide_command(struct ide_drive *d)
{
	void (*fn)(struct ide_drive *d) = (d->cdrom ? packet_device : ata)[d->command];

	d->error = 0;
	d->dma_here = false;
	__atomic_store_n(&d->wanted, true, __ATOMIC_RELEASE);
	if (fn)
		fn(d);
	else
		ide_end(d, ER_ABRT);
}
