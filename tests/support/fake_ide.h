/* SPDX-License-Identifier: MIT */
/*
 * fake_ide.h - the IDE function on a real disk with its own loop thread, and a driver for it.
 *
 * The disk is the first channel's first drive; the second channel's second one is a CD-ROM drive
 * with the same disk in it.  After fake_blk.h.
 */
#ifndef TESTS_FAKE_IDE_H
#define TESTS_FAKE_IDE_H

#include "devices/ide.h"
#include "devices/ide_int.h"
#include "devices/piix3.h"
#include "tests/support/fake_blk.h"

#define IDE_PRDT 0x8000 /* gpa of the driver's list of regions */
#define IDE_DATA 0x40000

struct fake_ide {
	struct fake_machine *m;
	struct fake_disk disk;
	struct device *host, *bridge, *dev;
	uint16_t bm; /* the bus master's ports */
};

static inline void fake_ide_open(
	struct fake_ide *f, enum cache_mode mode, bool readonly, bool cdrom)
{
	struct ide_drive_opts o[IDE_DRIVES] = {{0}};
	int err;

	memset(f, 0, sizeof(*f));
	f->m = fake_machine_new();
	fake_mem_init(&f->m->mem);
	fake_disk_open(&f->disk, mode, readonly);
	o[0] = (struct ide_drive_opts){.loop = f->disk.loop, .disk = f->disk.disk,
		.serial = "serial number", .cdrom = cdrom};
	o[3] = (struct ide_drive_opts){
		.loop = f->disk.loop, .disk = f->disk.disk, .cdrom = true};
	err = pci_host_create(&f->m->s, &f->host);
	assert(!err);
	err = piix3_create(&f->m->s, &f->bridge);
	assert(!err);
	err = ide_create(&f->m->s, o, &f->dev);
	assert(!err);
	out32(f->m, 0xcf8, 0x80000000u | PIIX3_SLOT << 11 | PIIX3_FN_IDE << 8 | 0x20);
	f->bm = (uint16_t)(in32(f->m, 0xcfc) & ~3u);
}

static inline void fake_ide_close(struct fake_ide *f)
{
	f->dev->ops->stop(f->dev);
	f->dev->ops->destroy(f->dev);
	f->bridge->ops->destroy(f->bridge);
	f->host->ops->destroy(f->host);
	fake_disk_close(&f->disk);
	fake_mem_fini(&f->m->mem);
	fake_machine_free(f->m);
}

/* The alternate status once BSY is gone. */
static inline uint8_t ide_settled(struct fake_ide *f)
{
	for (unsigned i = 0; i < 100000; i++) {
		uint8_t s = in8(f->m, 0x3f6);

		if (!(s & ST_BSY))
			return s;
		usleep(100);
	}
	assert(!"BSY for ten seconds");
	return 0xff;
}

/* A command with 48-bit registers; dev: what goes into the device register. */
static inline void ide_issue(struct fake_ide *f, uint8_t cmd, uint8_t feature, uint64_t lba,
	unsigned count, uint8_t dev)
{
	out8(f->m, 0x1f6, dev);
	out8(f->m, 0x1f1, 0);
	out8(f->m, 0x1f1, feature);
	out8(f->m, 0x1f2, count >> 8);
	out8(f->m, 0x1f2, count & 255);
	for (unsigned i = 0; i < 3; i++) {
		out8(f->m, 0x1f3 + i, lba >> (24 + 8 * i) & 255);
		out8(f->m, 0x1f3 + i, lba >> 8 * i & 255);
	}
	out8(f->m, 0x1f7, cmd);
}

static inline uint64_t ide_lba48(struct fake_ide *f)
{
	uint64_t lba = 0;

	for (unsigned i = 0; i < 3; i++)
		lba |= (uint64_t)in8(f->m, 0x1f3 + i) << 8 * i;
	out8(f->m, 0x3f6, CTL_HOB);
	for (unsigned i = 0; i < 3; i++)
		lba |= (uint64_t)in8(f->m, 0x1f3 + i) << (24 + 8 * i);
	out8(f->m, 0x3f6, 0);
	return lba;
}

/* A command without data; its final status. */
static inline uint8_t ide_do(struct fake_ide *f, uint8_t cmd, uint8_t feature, unsigned count)
{
	ide_issue(f, cmd, feature, 0, count, 0xe0);
	ide_settled(f);
	return in8(f->m, 0x1f7);
}

/* Blocks of PIO data until DRQ goes; bytes moved, *status at the end. */
static inline size_t ide_pio(
	struct fake_ide *f, uint8_t *in, const uint8_t *out, size_t block, uint8_t *status)
{
	size_t n = 0;

	for (;;) {
		ide_settled(f);
		*status = in8(f->m, 0x1f7);
		if (*status & ST_ERR || !(*status & ST_DRQ))
			return n;
		for (size_t i = 0; i < block; i += 2, n += 2) {
			if (in) {
				uint16_t v = (uint16_t)fake_read(f->m, BUS_PORT, 0x1f0, 2);

				memcpy(in + n, &v, 2);
			} else {
				uint16_t v;

				memcpy(&v, out + n, 2);
				out16(f->m, 0x1f0, v);
			}
		}
	}
}

static inline void ide_prd(struct fake_ide *f, unsigned i, uint32_t gpa, uint32_t len_flags)
{
	uint32_t e[2] = {gpa, len_flags};

	memcpy(gmem_ptr(&f->m->mem, IDE_PRDT + 8 * i, 8), e, 8);
}

#define PRD_LAST 0x80000000u

/* Starts the bus master for a command that was issued; its status when the drive is through. */
static inline uint8_t ide_bm_run(struct fake_ide *f, bool reads)
{
	uint8_t s;

	out32(f->m, f->bm + 4, IDE_PRDT);
	out8(f->m, f->bm + 2, 0x06);
	out8(f->m, f->bm, reads ? 9 : 1);
	ide_settled(f);
	s = in8(f->m, f->bm + 2);
	out8(f->m, f->bm, 0);
	return s;
}

static inline uint8_t *ide_mem(struct fake_ide *f, uint64_t gpa)
{
	return gmem_ptr(&f->m->mem, gpa, 1);
}

#endif
