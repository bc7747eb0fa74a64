/* SPDX-License-Identifier: MIT */
/*
 * ide_identify.c - the 256 words with which a drive says what it is (ATA/ATAPI-6, 8.15).
 *
 * Everything that can change is read where it lives when the command comes: the write cache's
 * bit from the disk, the rest from the drive.
 */
#include <string.h>
#include "devices/ide_int.h"

static void put(struct ide_drive *d, unsigned word, uint64_t v)
{
	d->buf[2 * word] = (uint8_t)v;
	d->buf[2 * word + 1] = (uint8_t)(v >> 8);
}

static void put32(struct ide_drive *d, unsigned word, uint64_t v)
{
	put(d, word, v);
	put(d, word + 1, v >> 16);
}

/* Text comes high byte first, filled up with blanks. */
static void put_text(struct ide_drive *d, unsigned word, unsigned words, const char *s)
{
	size_t len = strlen(s);

	for (unsigned i = 0; i < 2 * words; i++)
		d->buf[2 * word + (i ^ 1)] = i < len ? (uint8_t)s[i] : ' ';
}

static void geometry(struct ide_drive *d, uint64_t sectors)
{
	uint32_t cylinders = (uint32_t)min_u64(sectors / (16 * 63), 16383), now;

	put(d, 1, cylinders);
	put(d, 3, 16);
	put(d, 6, 63);
	now = (uint32_t)min_u64(sectors / ((uint64_t)d->heads * d->spt), 65535);
	put(d, 54, now);
	put(d, 55, d->heads);
	put(d, 56, d->spt);
	put32(d, 57, (uint64_t)now * d->heads * d->spt);
	put32(d, 60, min_u64(sectors, 0xfffffff));
	put32(d, 100, sectors);
	put32(d, 102, sectors >> 32);
}

static void features(struct ide_drive *d)
{
	bool wce = disk_wce(d->disk);

	put(d, 82, 1 << 0 | 1 << 3 | 1 << 5 | 1 << 6); /* SMART, power, write cache, look-ahead */
	put(d, 83, 1 << 14 | 1 << 13 | 1 << 12 | 1 << 10); /* FLUSH CACHE EXT, FLUSH CACHE, LBA48 */
	put(d, 84, 1 << 14 | 1 << 6);			   /* FUA */
	put(d, 85, !d->smart_off << 0 | 1 << 3 | wce << 5 | d->look_ahead << 6);
	put(d, 86, 1 << 13 | 1 << 12 | 1 << 10);
	put(d, 87, 1 << 14 | 1 << 6);
}

static void transfer_modes(struct ide_drive *d)
{
	uint8_t mode = d->xfer_mode, bit = (uint8_t)(1 << (mode & 7));

	put(d, 53, 1 << 2 | 1 << 1 | 1 << 0); /* words 88, 64-70 and 54-58 mean something */
	put(d, 62, 0);
	put(d, 63, 0x07 | (mode >> 5 == 1 ? bit << 8 : 0)); /* multiword DMA 0-2 */
	put(d, 64, 0x03);				    /* PIO 3, 4 */
	for (unsigned w = 65; w <= 68; w++)
		put(d, w, 120); /* ns */
	put(d, 88, 0x3f | (mode >> 5 == 2 ? bit << 8 : 0)); /* Ultra DMA 0-5 */
	put(d, 93, 0x6001 | (d->unit ? 0x0800 : 0x000a));   /* 80 wires */
}

static void checksum(struct ide_drive *d)
{
	uint8_t sum = 0xa5;

	d->buf[510] = 0xa5;
	for (unsigned i = 0; i < 510; i++)
		sum = (uint8_t)(sum + d->buf[i]);
	d->buf[511] = (uint8_t)-sum;
}

void ide_identify(struct ide_drive *d)
{
	uint64_t sectors = disk_size(d->disk) / SECTOR;
	uint32_t physical = disk_block_size(d->disk) / SECTOR;

	memset(d->buf, 0, SECTOR);
	put(d, 0, 0x0040); /* a fixed disk */
	geometry(d, sectors);
	put_text(d, 10, 10, d->serial);
	put_text(d, 23, 4, "1.0");
	put_text(d, 27, 20, "SLUICE HARDDISK");
	put(d, 47, 0x8000 | IDE_MULTIPLE_MAX);
	put(d, 49, 1 << 11 | 1 << 10 | 1 << 9 | 1 << 8); /* IORDY, LBA, DMA */
	put(d, 50, 1 << 14);
	put(d, 59, d->multiple ? 0x100 | d->multiple : 0);
	transfer_modes(d);
	put(d, 80, 0xf0); /* ATA-4 to ATA-7 */
	features(d);
	if (physical > 1) {
		put(d, 106, 0x6000 | (uint64_t)__builtin_ctz(physical));
		put(d, 209, 0x4000); /* the first one is aligned */
	}
	if (!disk_readonly(d->disk)) {
		put(d, 105, IDE_TRIM_BLOCKS);
		put(d, 169, 1); /* TRIM */
	}
	checksum(d);
}

/* 8.16: the same words where they mean the same. */
void ide_identify_packet(struct ide_drive *d)
{
	memset(d->buf, 0, SECTOR);
	put(d, 0, 0x8580); /* ATAPI CD-ROM, removable, 12-byte packets, DRQ within 3 ms */
	put_text(d, 10, 10, d->serial);
	put_text(d, 23, 4, "1.0");
	put_text(d, 27, 20, "SLUICE CD-ROM");
	put(d, 49, 1 << 11 | 1 << 9 | 1 << 8);
	put(d, 50, 1 << 14);
	transfer_modes(d);
	put(d, 80, 0x70);		       /* ATA-4 to ATA-6 */
	put(d, 82, 1 << 9 | 1 << 4);	       /* DEVICE RESET, PACKET */
	put(d, 83, 1 << 14);
	put(d, 84, 1 << 14);
	put(d, 85, 1 << 9 | 1 << 4);
	put(d, 87, 1 << 14);
	checksum(d);
}
