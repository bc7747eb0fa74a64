/* SPDX-License-Identifier: MIT */
/*
 * ide_atapi.c - a CD-ROM drive: packet commands (ATA/ATAPI-6 9.8, MMC-4, SPC-3).
 *
 * A command is twelve bytes through the data register.  Its answer is made in buf and goes out in
 * blocks of at most what the host asked for in the byte count registers, or by bus master; reads of
 * the disc take the way of a disk's reads (ide_io.c), four sectors for one.  The sector count
 * register says what the data register is for: 1 command, 2 data to the host, 3 the end.
 *
 * The disc belongs to whoever changes it (ide_cd_change()); a guest that has locked the door keeps
 * it, and hears that somebody wants it.  After a change, the next command that wants the disc hears
 * of it once.
 */
#include <string.h>
#include <unistd.h>
#include "devices/ide_int.h"
#include "vmm/util/bytes.h"

#define CD_SECTOR  2048
#define CD_SECTORS (CD_SECTOR / SECTOR)
#define PACKET	   12

enum { KEY_NOT_READY = 2, KEY_MEDIUM = 3, KEY_ILLEGAL = 5, KEY_ATTENTION = 6, KEY_ABORTED = 11 };
enum { REASON_COMMAND = 1, REASON_IN = 2, REASON_END = 3 };

/* A field of the packet. */
static uint32_t field(const struct ide_drive *d, unsigned at, unsigned n)
{
	return (uint32_t)be_get(d->packet + at, n);
}

static uint32_t disc_sectors(const struct ide_drive *d)
{
	return (uint32_t)min_u64(disk_size(d->disk) / CD_SECTOR, UINT32_MAX);
}

/* ---- what ide.c asks for a packet command ---- */

void ide_packet_block(struct ide_drive *d)
{
	uint32_t n = d->end - d->pos;

	d->tf.count = d->phase == IDE_OUT ? REASON_COMMAND : REASON_IN;
	d->tf.lba[1] = (uint8_t)n;
	d->tf.lba[2] = (uint8_t)(n >> 8);
}

static void sense(struct ide_drive *d, uint8_t key, uint8_t asc, uint8_t ascq)
{
	d->sense = (struct ide_sense){key, asc, ascq};
}

uint8_t ide_packet_over(struct ide_drive *d, uint8_t error)
{
	d->tf.count = REASON_END;
	if (!error)
		return 0;
	if (error & ER_UNC)
		sense(d, KEY_MEDIUM, 0x11, 0); /* unrecovered read error */
	else if (!d->sense.key)
		sense(d, KEY_ABORTED, 0, 0);
	return (uint8_t)(d->sense.key << 4 | ER_ABRT);
}

/* ---- answers ---- */

static void refuse(struct ide_drive *d, uint8_t key, uint8_t asc)
{
	sense(d, key, asc, 0);
	ide_end(d, ER_ABRT);
}

static void by_bus_master(struct ide_drive *d)
{
	uint32_t n = ide_loop_prd_copy(d, d->len, true);

	ide_dma_over(d);
	ide_end(d, n < d->len ? ER_ABRT : 0);
}

/* What the byte count registers allow in one DRQ: even unless it is the last. */
static uint32_t block_limit(const struct ide_drive *d)
{
	uint32_t n = d->limit & 0xfffe;

	return n ? n : 0xfffe;
}

static void answer(struct ide_drive *d, uint32_t len, uint32_t allowed)
{
	len = (uint32_t)min_u64(len, allowed);
	d->x.left = 0;
	d->len = len;
	if (!len) {
		ide_end(d, 0);
	} else if (d->tf.feature & 1) {
		d->dma_here = true;
		ide_dma_wait(d, by_bus_master);
	} else {
		ide_data_in(d, len, block_limit(d), true);
	}
}

/* A disc is there, and the guest knows of it; else the command has ended. */
static bool ready(struct ide_drive *d)
{
	if (d->attention && d->disk && !d->door_open) {
		d->attention = false;
		refuse(d, KEY_ATTENTION, 0x28); /* the medium may have changed */
		return false;
	}
	if (!d->disk || d->door_open)
		refuse(d, KEY_NOT_READY, 0x3a);
	return d->disk && !d->door_open;
}

static void cmd_inquiry(struct ide_drive *d)
{
	uint8_t *b = d->buf;

	if (d->packet[1] & 1) { /* vital product data: none */
		refuse(d, KEY_ILLEGAL, 0x24);
		return;
	}
	memset(b, 0, 36);
	b[0] = 0x05; /* CD */
	b[1] = 0x80; /* removable */
	b[3] = 0x21; /* ATAPI, format 1 */
	b[4] = 31;
	memcpy(b + 8, "SLUICE  SLUICE CD-ROM   1.0 ", 28);
	answer(d, 36, field(d, 3, 2));
}

static void cmd_request_sense(struct ide_drive *d)
{
	uint8_t *b = d->buf;

	memset(b, 0, 18);
	b[0] = 0x70;
	b[2] = d->sense.key;
	b[7] = 10;
	b[12] = d->sense.asc;
	b[13] = d->sense.ascq;
	sense(d, 0, 0, 0);
	answer(d, 18, d->packet[4]);
}

static void cmd_test_ready(struct ide_drive *d)
{
	if (ready(d))
		ide_end(d, 0);
}

static void cmd_capacity(struct ide_drive *d)
{
	if (!ready(d))
		return;
	be_put(d->buf, disc_sectors(d) - 1, 4);
	be_put(d->buf + 4, CD_SECTOR, 4);
	answer(d, 8, 8);
}

static void read_disc(struct ide_drive *d, uint32_t lba, uint32_t n)
{
	uint32_t size;

	if (!ready(d))
		return;
	size = disc_sectors(d);
	if (lba > size || n > size - lba) {
		refuse(d, KEY_ILLEGAL, 0x21);
		return;
	}
	d->x = (struct ide_xfer){.lba = (uint64_t)lba * CD_SECTORS, .left = n * CD_SECTORS,
		.most = IDE_DMA_SECTORS, .block = block_limit(d), .lba48 = true};
	if (n > UINT32_MAX / CD_SECTORS)
		refuse(d, KEY_ILLEGAL, 0x24);
	else if (!n)
		ide_end(d, 0);
	else if (d->tf.feature & 1)
		ide_read_dma(d);
	else
		ide_read_more(d);
}

static void cmd_read10(struct ide_drive *d)
{
	read_disc(d, field(d, 2, 4), field(d, 7, 2));
}

static void cmd_read12(struct ide_drive *d)
{
	read_disc(d, field(d, 2, 4), field(d, 6, 4));
}

/* READ CD of user data only, which is what a data disc has. */
static void cmd_read_cd(struct ide_drive *d)
{
	if ((d->packet[9] & 0xf8) == 0x10)
		read_disc(d, field(d, 2, 4), field(d, 6, 3));
	else if (d->packet[9] == 0)
		ide_end(d, 0);
	else
		refuse(d, KEY_ILLEGAL, 0x24);
}

static void put_address(uint8_t *p, uint32_t lba, bool msf)
{
	uint32_t f = lba + 150; /* two seconds lie before the first */

	if (!msf) {
		be_put(p, lba, 4);
		return;
	}
	p[0] = 0;
	p[1] = (uint8_t)(f / 75 / 60);
	p[2] = (uint8_t)(f / 75 % 60);
	p[3] = (uint8_t)(f % 75);
}

static uint8_t *toc_entry(uint8_t *p, uint8_t track, uint32_t lba, bool msf)
{
	memset(p, 0, 8);
	p[1] = 0x14; /* a data track */
	p[2] = track;
	put_address(p + 4, lba, msf);
	return p + 8;
}

/* One session with one data track. */
static void cmd_toc(struct ide_drive *d)
{
	bool msf = d->packet[1] & 2;
	unsigned format = d->packet[2] & 15 ? d->packet[2] & 15 : d->packet[9] >> 6;
	uint8_t *b = d->buf, *p = b + 4;

	if (!ready(d))
		return;
	b[2] = b[3] = 1; /* first and last track, or session */
	if (format == 0) {
		if (d->packet[6] > 1 && d->packet[6] != 0xaa) {
			refuse(d, KEY_ILLEGAL, 0x24);
			return;
		}
		if (d->packet[6] <= 1)
			p = toc_entry(p, 1, 0, msf);
		p = toc_entry(p, 0xaa, disc_sectors(d), msf);
	} else if (format == 1) {
		p = toc_entry(p, 1, 0, msf);
	} else {
		refuse(d, KEY_ILLEGAL, 0x24);
		return;
	}
	be_put(b, (uint32_t)(p - b - 2), 2);
	answer(d, (uint32_t)(p - b), field(d, 7, 2));
}

/* MODE SENSE (10): error recovery, audio control, capabilities. */
static void cmd_mode_sense(struct ide_drive *d)
{
	uint8_t *b = d->buf, page = d->packet[2] & 0x3f;
	uint32_t n = 8;

	memset(b, 0, 8 + 8 + 22);
	if (d->packet[2] >> 6 == 3 || (page != 0x01 && page != 0x2a && page != 0x3f)) {
		refuse(d, KEY_ILLEGAL, d->packet[2] >> 6 == 3 ? 0x39 : 0x24);
		return;
	}
	if (page != 0x2a) {
		b[n] = 0x01;
		b[n + 1] = 6;
		b[n + 3] = 5; /* retries */
		n += 8;
	}
	if (page != 0x01) {
		b[n] = 0x2a;
		b[n + 1] = 20;
		b[n + 2] = 0x3b; /* reads CD-R, CD-RW, DVD */
		b[n + 6] = (uint8_t)(0x29 | d->door_locked << 1); /* tray, can lock and eject */
		be_put(b + n + 8, 706, 2); /* speed: 4 times */
		be_put(b + n + 12, 512, 2);
		be_put(b + n + 14, 706, 2);
		n += 22;
	}
	be_put(b, n - 2, 2);
	b[2] = !d->disk || d->door_open ? 0x70 : 0x01; /* no disc, or a data disc */
	answer(d, n, field(d, 7, 2));
}

static void cmd_configuration(struct ide_drive *d)
{
	uint8_t *b = d->buf;
	bool dvd = d->disk && disk_size(d->disk) > 1100 * MiB;

	memset(b, 0, 40);
	be_put(b + 6, !d->disk || d->door_open ? 0 : dvd ? 0x10 : 0x08, 2); /* current profile */
	b[10] = 0x03; /* feature 0, profile list: persistent and current */
	b[11] = 8;
	be_put(b + 12, 0x10, 2);
	b[14] = dvd;
	be_put(b + 16, 0x08, 2);
	b[18] = d->disk && !dvd;
	be_put(b + 20, 0x0001, 2); /* core */
	b[22] = 0x0b;
	b[23] = 8;
	be_put(b + 24, 2, 4); /* ATAPI */
	b[28] = 1;
	be_put(b + 32, 0x0003, 2); /* removable medium */
	b[34] = 0x03;
	b[35] = 4;
	b[36] = 0x29; /* tray, eject, lock */
	be_put(b, 40 - 4, 4);
	answer(d, 40, field(d, 7, 2));
}

/* Polled only; class 4: what has become of the medium. */
static void cmd_event_status(struct ide_drive *d)
{
	uint8_t *b = d->buf;

	if (!(d->packet[1] & 1)) {
		refuse(d, KEY_ILLEGAL, 0x24);
		return;
	}
	memset(b, 0, 8);
	b[3] = 0x10; /* supported: media */
	if (!(d->packet[4] & 0x10)) {
		b[1] = 2;
		b[2] = 0x80;
		answer(d, 4, field(d, 7, 2));
		return;
	}
	b[1] = 6;
	b[2] = 0x04;
	if (d->event) {
		b[4] = d->event;
		d->event = 0;
	} else if (d->eject_wanted) {
		b[4] = 1;
		d->eject_wanted = false;
	}
	b[5] = (uint8_t)(d->door_open | (d->disk && !d->door_open) << 1);
	answer(d, 8, field(d, 7, 2));
}

static void move_door(struct ide_drive *d, bool open)
{
	const uint64_t one = 1;

	if (d->door_open == open)
		return;
	d->door_open = open;
	d->door_moves++;
	d->eject_wanted = false;
	/* A counter that is full has woken them already. */
	if (d->watch_fd >= 0)
		(void)!write(d->watch_fd, &one, sizeof(one));
}

static void cmd_start_stop(struct ide_drive *d)
{
	uint8_t how = d->packet[4];
	bool open = !(how & 1);

	/* With a power condition, it is about that alone. */
	if (how & 2 && !(how & 0xf0)) {
		if (open && d->door_locked && !d->door_open) {
			sense(d, KEY_ILLEGAL, 0x53, 2); /* medium removal prevented */
			ide_end(d, ER_ABRT);
			return;
		}
		if (d->door_open && !open)
			d->attention = true;
		move_door(d, open);
	}
	ide_end(d, 0);
}

static void cmd_prevent(struct ide_drive *d)
{
	d->door_locked = d->packet[4] & 1;
	ide_end(d, 0);
}

static void cmd_disc_info(struct ide_drive *d)
{
	if (!ready(d))
		return;
	memset(d->buf, 0, 34);
	d->buf[1] = 32;
	d->buf[2] = 0x0e; /* finalized */
	d->buf[3] = d->buf[4] = d->buf[5] = d->buf[6] = 1;
	d->buf[7] = 0x20;
	answer(d, 34, field(d, 7, 2));
}

static void cmd_mechanism(struct ide_drive *d)
{
	memset(d->buf, 0, 8);
	answer(d, 8, field(d, 8, 2));
}

static void (*const packets[256])(struct ide_drive *d) = {
	[0x00] = cmd_test_ready, [0x03] = cmd_request_sense, [0x12] = cmd_inquiry,
	[0x1b] = cmd_start_stop, [0x1e] = cmd_prevent, [0x25] = cmd_capacity,
	[0x28] = cmd_read10, [0x2b] = cmd_test_ready, [0x43] = cmd_toc,
	[0x46] = cmd_configuration, [0x4a] = cmd_event_status, [0x51] = cmd_disc_info,
	[0x5a] = cmd_mode_sense, [0xa8] = cmd_read12, [0xbd] = cmd_mechanism,
	[0xbe] = cmd_read_cd,
};

static void got_packet(struct ide_drive *d)
{
	void (*fn)(struct ide_drive *d);

	memcpy(d->packet, d->buf, PACKET);
	fn = packets[d->packet[0]];
	if (d->packet[0] != 0x03)
		sense(d, 0, 0, 0);
	if (fn)
		fn(d);
	else
		refuse(d, KEY_ILLEGAL, 0x20);
}

void ide_packet(struct ide_drive *d)
{
	if (d->tf.feature & 2) { /* overlapped */
		ide_end(d, ER_ABRT);
		return;
	}
	d->limit = d->tf.lba[1] | (uint32_t)d->tf.lba[2] << 8;
	d->dma_here = false;
	d->got = got_packet;
	d->x = (struct ide_xfer){0};
	ide_data_out(d, PACKET, PACKET, false);
}

/* ---- what the user does to the drive ---- */

static struct ide_drive *cd_of(struct device *dev, unsigned n)
{
	struct ide *ide = container_of(dev, struct ide, dev);
	struct ide_drive *d = n < IDE_DRIVES ? &ide->chan[n / 2].drive[n % 2] : NULL;

	return d && d->cdrom ? d : NULL;
}

/* Until no loop has anything to do with the drive. */
static void calm_down(struct ide_drive *d)
{
	d->settle_stop = true;
	if (d->phase == IDE_BUSY)
		ide_give_up(d);
	while (d->phase == IDE_BUSY || d->settle_posted || d->give_up_posted)
		pthread_cond_wait(&d->chan->calm, &d->chan->lock);
	d->settle_stop = false;
	/* A command that would go on with the disc that was there ends. */
	if (d->phase != IDE_IDLE && d->x.left) {
		sense(d, KEY_NOT_READY, 0x3a, 0);
		ide_end(d, ER_ABRT);
	}
}

int ide_cd_change(struct device *dev, unsigned n, struct loop *loop, struct disk *disk)
{
	struct ide_drive *d = cd_of(dev, n);

	if (!d)
		return -ENOTBLK;
	ide_loop_lock(d);
	calm_down(d);
	if (disk || d->disk)
		d->event = disk ? 2 : 3; /* new medium, medium gone */
	d->loop = loop;
	d->disk = disk;
	d->attention = disk != NULL;
	if (d->phase == IDE_OUT)
		ide_settle(d);
	ide_loop_unlock(d);
	return 0;
}

int ide_cd_tray(struct device *dev, unsigned n, bool open, bool force)
{
	struct ide_drive *d = cd_of(dev, n);
	int err = 0;

	if (!d)
		return -ENOTBLK;
	ide_loop_lock(d);
	if (open && !d->door_open && d->door_locked && !force) {
		d->eject_wanted = true;
		err = -EINPROGRESS;
	} else if (d->door_open != open) {
		if (open)
			d->door_locked = false;
		if (d->disk) {
			d->attention = !open;
			d->event = open ? 3 : 2;
		}
		move_door(d, open);
	}
	ide_loop_unlock(d);
	return err;
}

bool ide_cd_state(struct device *dev, unsigned n, struct ide_cd_state *s)
{
	struct ide_drive *d = cd_of(dev, n);

	if (!d)
		return false;
	ide_loop_lock(d);
	*s = (struct ide_cd_state){.open = d->door_open,
		.locked = d->door_locked,
		.moves = d->door_moves};
	ide_loop_unlock(d);
	return true;
}

void ide_cd_watch(struct device *dev, unsigned n, int fd)
{
	struct ide_drive *d = cd_of(dev, n);

	if (!d)
		return;
	ide_loop_lock(d);
	d->watch_fd = fd;
	ide_loop_unlock(d);
}
