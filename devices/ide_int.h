/* SPDX-License-Identifier: MIT */
/*
 * ide_int.h - what the files of the IDE function share.
 *
 * A channel has one lock.  vCPU threads take it for every register access and never wait under it.
 * A drive is in one of these phases, which say whose it is:
 *
 *   IDLE --command--> IN, OUT   the guest moves [pos, end) of buf through the data register
 *                     DMA       until the bus master is started
 *                     BUSY      the drive's loop has it: the guest's writes are ignored
 *   IN, OUT, DMA ---> BUSY ---> IN, OUT (next part) or IDLE (status, interrupt)
 *
 * Becoming BUSY posts one message to the loop, which then owns the transfer and buf without the
 * lock and takes it to leave BUSY.  A reset that meets a BUSY drive waits, with BSY up, until the
 * host's operation has ended: nothing of an old command can reach memory after a reset.
 *
 * Functions are called with the channel's lock held, except ide_loop_*(), which run on the
 * drive's loop while it is BUSY, without the lock.
 */
#ifndef DEVICES_IDE_INT_H
#define DEVICES_IDE_INT_H

#include <pthread.h>
#include "devices/ide.h"
#include "devices/pci.h"

/* Status and error register, ATA/ATAPI-6 section 7.14 and 7.9. */
enum { ST_ERR = 0x01, ST_DRQ = 0x08, ST_DSC = 0x10, ST_DF = 0x20, ST_DRDY = 0x40, ST_BSY = 0x80 };
enum { ER_ABRT = 0x04, ER_IDNF = 0x10, ER_UNC = 0x40 };
#define ST_GOOD (ST_DRDY | ST_DSC)

#define DEV_LBA	   0x40
#define DEV_SELECT 0x10
#define CTL_NIEN   0x02
#define CTL_SRST   0x04
#define CTL_HOB	   0x80

#define IDE_BUF_SECTORS	 256 /* what goes to the host at once in PIO */
#define IDE_BUF_BYTES	 (IDE_BUF_SECTORS * SECTOR)
#define IDE_MULTIPLE_MAX 16
#define IDE_TRIM_BLOCKS	 8
#define IDE_IOVS	 512 /* pieces of guest memory in one host operation */
#define IDE_DMA_SECTORS	 16384 /* and its length */
#define IDE_SERIAL	 20

enum ide_phase { IDE_IDLE, IDE_IN, IDE_OUT, IDE_DMA, IDE_BUSY };

struct ide_drive;
struct ide_chan;

/* A data command on its way. */
struct ide_xfer {
	uint64_t lba;  /* of what is not done yet */
	uint32_t left; /* sectors not done yet */
	uint32_t now;  /* sectors of the host operation in flight, or in buf */
	uint32_t most; /* a host operation's length; 1 while the bad sector is looked for */
	uint32_t block; /* sectors per DRQ */
	bool write, verify, lba48, chs;
	unsigned flags; /* BLK_FUA */
};

/* Where the bus master is in the list of physical regions. */
struct ide_prd {
	uint64_t at;	 /* gpa of the next descriptor */
	uint64_t gpa;	 /* what is left of the current one */
	uint32_t left;	 /* bytes */
	bool last, bad;
};

struct ide_tf { /* the registers that are two bytes deep, as READ/WRITE ... EXT want them */
	uint8_t feature, count, lba[3];
};

struct ide_drive {
	struct ide_chan *chan;
	unsigned unit;
	bool present, cdrom;
	struct loop *loop;
	struct disk *disk;
	char serial[IDE_SERIAL + 1];
	struct ide_tf tf, hob;
	uint8_t status, error, command;
	bool intrq;
	enum ide_phase phase;
	/* what SET FEATURES and its like have set */
	uint8_t multiple, xfer_mode, heads, spt;
	bool revert; /* a reset brings power-on values back (CCh) */
	bool look_ahead, smart_off;
	/* the command */
	struct ide_xfer x;
	uint8_t *buf;
	uint32_t pos, end, len;		  /* bytes: next, end of this DRQ, end of all */
	void (*got)(struct ide_drive *d); /* OUT: all of buf is there */
	void (*dma)(struct ide_drive *d); /* DMA: started; on the loop */
	void (*work)(struct ide_drive *d); /* BUSY: on the loop */
	struct ide_prd prd, prd_before;   /* before: at the start of the operation in flight */
	struct loop_msg msg;
	struct blk_req req;
	bool wanted; /* the request, if it fails; atomic: the loop looks without the lock */
	bool give_up_posted;
	struct loop_msg give_up_msg;
	struct wce_change wce;
	struct iovec iov[IDE_IOVS];
	unsigned trim_at;
	/* asked for while BUSY */
	bool srst, dma_stopped;
	/* data that KVM holds back is fetched now and then */
	struct loop_msg settle_msg;
	struct loop_timer settle_timer;
	bool settle_posted, settle_stop; /* stop: somebody waits for that to end */
	/* CD-ROM */
	uint8_t packet[12];
	uint32_t limit; /* bytes in one DRQ, as the guest wants it */
	struct ide_sense {
		uint8_t key, asc, ascq;
	} sense;
	uint8_t event; /* GET EVENT STATUS: 2 new medium, 3 medium gone */
	bool eject_wanted, attention, door_open, door_locked;
	unsigned door_moves; /* how often it opened or closed, but for resets */
	int watch_fd;        /* an eventfd: somebody wants to know; -1: nobody does */
	bool dma_here; /* dma runs under the lock: what it sends is in buf */
};

struct ide_chan {
	struct ide *ide;
	unsigned index;
	pthread_mutex_t lock; /* guards all below, and the drives unless they are BUSY */
	pthread_cond_t calm;  /* a drive left BUSY */
	struct irq_line *line;
	struct bus_range command, control;
	struct ide_drive drive[2];
	uint8_t device, ctl;
	uint8_t bm_command, bm_status;
	uint32_t bm_table;
};

struct ide {
	struct device dev;
	struct pci_dev pci;
	struct ide_chan chan[2];
};

/* ide.c */
static inline bool ide_in_packet(const struct ide_drive *d)
{
	return d->cdrom && d->command == 0xa0;
}
/* As after a reset; not BUSY. */
void ide_reset_over(struct ide_drive *d);
/* BUSY from now on; work runs on the loop. */
void ide_post(struct ide_drive *d, void (*work)(struct ide_drive *d));
void ide_interrupt(struct ide_drive *d);
/* The command has ended, well, or with bits of the error register. */
void ide_end(struct ide_drive *d, uint8_t error);
/* The guest is to read, or write, len bytes of buf, block by block; irq: begins with one. */
void ide_data_in(struct ide_drive *d, uint32_t len, uint32_t block, bool irq);
void ide_data_out(struct ide_drive *d, uint32_t len, uint32_t block, bool irq);
/* While the guest sends data: what KVM holds back is fetched. */
void ide_settle(struct ide_drive *d);
/* An answer of one sector, which is in buf, and the end of the command. */
void ide_sector_in(struct ide_drive *d);
void ide_signature(struct ide_drive *d);
/* The loop takes the lock; and gives it back, having left BUSY or posted again. */
void ide_loop_lock(struct ide_drive *d);
void ide_loop_unlock(struct ide_drive *d);
void ide_loop_end(struct ide_drive *d, uint8_t error);
void ide_loop_dma_end(struct ide_drive *d, uint8_t error); /* and the bus master's part */

/* ide_cmd.c */
void ide_command(struct ide_drive *d);
/* ide_identify.c */
void ide_identify(struct ide_drive *d);
void ide_identify_packet(struct ide_drive *d);
/* ide_atapi.c */
void ide_packet(struct ide_drive *d);
void ide_packet_block(struct ide_drive *d); /* a DRQ begins: the registers say how long */
uint8_t ide_packet_over(struct ide_drive *d, uint8_t error); /* the error register */
/* ide_io.c */
void ide_io(struct ide_drive *d);   /* the reads and writes */
void ide_read_more(struct ide_drive *d);
void ide_read_dma(struct ide_drive *d);
void ide_loop_trim(struct ide_drive *d);
void ide_loop_submit(struct ide_drive *d, struct blk_req r);
/* Of a BUSY drive: should its request have failed and wait to be tried again, it ends. */
void ide_give_up(struct ide_drive *d);
/* ide_dma.c */
uint8_t ide_bm_read(struct ide_chan *c, unsigned off);
void ide_bm_write(struct ide_chan *c, unsigned off, uint8_t v);
/* The command waits for the bus master, or begins if that has been started. */
void ide_dma_wait(struct ide_drive *d, void (*start)(struct ide_drive *d));
/* Vectors for at most len bytes; how many bytes.  0: the list has ended, or is bad. */
uint32_t ide_loop_prd_map(struct ide_drive *d, uint32_t len, int *niov);
/* Between buf and the regions; bytes moved. */
uint32_t ide_loop_prd_copy(struct ide_drive *d, uint32_t len, bool to_guest);
/* After the last byte: what the bus master's status says. */
void ide_dma_over(struct ide_drive *d);

#endif
