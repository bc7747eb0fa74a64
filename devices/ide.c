/* SPDX-License-Identifier: MIT */
/*
 * ide.c - channels: registers, data port, interrupts, resets; the life of the IDE function.
 *
 * Sources: ATA/ATAPI-6 (T13 1410D) sections 7 and 9; the PIIX3's data sheet for configuration
 * space.  The ports are where they have always been: 0x1f0 and 0x3f6 with IRQ 14, 0x170 and 0x376
 * with IRQ 15.
 *
 * Register writes reach both drives of a channel, as on the cable, except a BUSY one.  INTRQ is
 * a flag of the drive; the line follows that of the selected one whenever the lock is given back.
 * Data moves as fast as the guest asks: the next block of a command is there when the last one
 * is through, so a string instruction that reads on finds data.
 *
 * KVM may hold back writes to the data port (vmm/held.c).  They arrive at the next exit; a guest
 * that sends its last word and then waits for the interrupt makes none, so while a drive waits
 * for data its loop has them fetched every millisecond (SETTLE_NS).
 *
 * Not here: commands (ide_cmd.c, ide_io.c), bus master (ide_dma.c).
 */
#include <stdlib.h>
#include <string.h>
#include "devices/ide_int.h"
#include "devices/piix3.h"

#define SETTLE_NS 1000000

enum { R_DATA, R_ERROR, R_COUNT, R_LBA0, R_LBA1, R_LBA2, R_DEVICE, R_STATUS, R_N };

static const struct {
	uint16_t command, control;
	unsigned gsi;
} places[2] = {{0x1f0, 0x3f6, 14}, {0x170, 0x376, 15}};

static struct ide_drive *selected(struct ide_chan *c)
{
	return &c->drive[c->device & DEV_SELECT ? 1 : 0];
}

/* ---- the lock, and what follows from what was done under it ---- */

static void chan_unlock(struct ide_chan *c)
{
	irq_line_set(c->line, selected(c)->intrq && !(c->ctl & CTL_NIEN));
	pthread_mutex_unlock(&c->lock);
}

void ide_interrupt(struct ide_drive *d)
{
	d->intrq = true;
	if (!(d->chan->ctl & CTL_NIEN))
		d->chan->bm_status |= 0x04;
}

static void run_work(struct loop_msg *m)
{
	struct ide_drive *d = container_of(m, struct ide_drive, msg);

	d->work(d);
}

void ide_post(struct ide_drive *d, void (*work)(struct ide_drive *d))
{
	d->phase = IDE_BUSY;
	d->status = ST_BSY;
	d->work = work;
	d->msg.fn = run_work;
	loop_post(d->loop, &d->msg);
}

void ide_end(struct ide_drive *d, uint8_t error)
{
	d->phase = IDE_IDLE;
	d->x.left = 0;
	d->error = ide_in_packet(d) ? ide_packet_over(d, error) : error;
	d->status = ST_GOOD | (error ? ST_ERR : 0);
	ide_interrupt(d);
}

void ide_data_in(struct ide_drive *d, uint32_t len, uint32_t block, bool irq)
{
	d->phase = IDE_IN;
	d->status = ST_GOOD | ST_DRQ;
	d->error = 0;
	d->pos = 0;
	d->len = len;
	d->end = (uint32_t)min_u64(block, len);
	d->x.block = block;
	if (ide_in_packet(d))
		ide_packet_block(d);
	if (irq)
		ide_interrupt(d);
}

void ide_sector_in(struct ide_drive *d)
{
	d->x.left = 0;
	ide_data_in(d, SECTOR, SECTOR, true);
}

/* ---- data that is on its way ---- */

static void settle(struct loop_timer *t)
{
	struct ide_drive *d = container_of(t, struct ide_drive, settle_timer);
	struct machine_services *s = d->chan->ide->dev.services;
	bool more;

	s->settle(s);
	pthread_mutex_lock(&d->chan->lock);
	more = d->phase == IDE_OUT && !d->settle_stop;
	d->settle_posted = more;
	pthread_cond_broadcast(&d->chan->calm);
	chan_unlock(d->chan);
	if (more)
		loop_timer_set(d->loop, t, loop_now_ns() + SETTLE_NS);
}

static void settle_start(struct loop_msg *m)
{
	struct ide_drive *d = container_of(m, struct ide_drive, settle_msg);

	d->settle_timer.fn = settle;
	loop_timer_set(d->loop, &d->settle_timer, loop_now_ns() + SETTLE_NS);
}

void ide_settle(struct ide_drive *d)
{
	if (d->settle_posted || !d->loop || !d->chan->ide->dev.services->settle)
		return;
	d->settle_posted = true;
	d->settle_msg.fn = settle_start;
	loop_post(d->loop, &d->settle_msg);
}

void ide_data_out(struct ide_drive *d, uint32_t len, uint32_t block, bool irq)
{
	ide_data_in(d, len, block, irq);
	d->phase = IDE_OUT;
	if (ide_in_packet(d))
		ide_packet_block(d);
	ide_settle(d);
}

/* All of this DRQ has gone through the data register. */
static void block_over(struct ide_drive *d)
{
	if (d->end < d->len) {
		d->end = (uint32_t)min_u64(d->end + d->x.block, d->len);
		if (ide_in_packet(d))
			ide_packet_block(d);
		ide_interrupt(d);
	} else if (d->phase == IDE_OUT) {
		d->got(d);
	} else if (d->x.left) {
		ide_read_more(d);
	} else if (ide_in_packet(d)) {
		ide_end(d, 0); /* with one more interrupt */
	} else {
		d->phase = IDE_IDLE;
		d->status = ST_GOOD;
	}
}

static void data_move(struct ide_chan *c, uint8_t *in, const uint8_t *out, size_t n)
{
	struct ide_drive *d = selected(c);
	enum ide_phase want = in ? IDE_IN : IDE_OUT;

	while (n && d->present && d->phase == want) {
		uint32_t k = (uint32_t)min_u64(n, d->end - d->pos);

		if (in)
			memcpy(in, d->buf + d->pos, k);
		else
			memcpy(d->buf + d->pos, out, k);
		d->pos += k;
		n -= k;
		in = in ? in + k : NULL;
		out = out ? out + k : NULL;
		if (d->pos == d->end)
			block_over(d);
	}
	if (in)
		memset(in, 0xff, n);
}

/* ---- resets ---- */

void ide_signature(struct ide_drive *d)
{
	d->tf = (struct ide_tf){.count = 1, .lba = {1, d->cdrom ? 0x14 : 0, d->cdrom ? 0xeb : 0}};
	d->hob = (struct ide_tf){0};
}

static void defaults(struct ide_drive *d)
{
	d->multiple = IDE_MULTIPLE_MAX;
	d->xfer_mode = 0x42; /* UDMA 2: as firmware leaves it */
	d->heads = 16;
	d->spt = 63;
	d->look_ahead = true;
}

void ide_reset_over(struct ide_drive *d)
{
	d->srst = d->dma_stopped = false;
	if (d->revert)
		defaults(d);
	d->phase = IDE_IDLE;
	d->error = 1; /* diagnostic: no fault */
	d->status = d->cdrom ? 0 : ST_GOOD;
	d->intrq = false;
	ide_signature(d);
}

static void reverted(struct wce_change *w, int err)
{
	struct ide_drive *d = container_of(w, struct ide_drive, wce);

	if (err)
		log_warn("%s: the write cache stays %s after a reset: %s", disk_path(d->disk),
			disk_wce(d->disk) ? "on" : "off", why_text(NULL, err));
	pthread_mutex_lock(&d->chan->lock);
	ide_reset_over(d);
	pthread_cond_broadcast(&d->chan->calm);
	chan_unlock(d->chan);
}

static void loop_revert(struct ide_drive *d)
{
	d->wce = (struct wce_change){.done = reverted, .enable = disk_wce_default(d->disk)};
	disk_set_wce(d->disk, &d->wce);
}

/* Of a drive that is not BUSY. */
static void reset_drive(struct ide_drive *d)
{
	d->intrq = false;
	if (d->revert && d->disk && disk_wce(d->disk) != disk_wce_default(d->disk))
		ide_post(d, loop_revert);
	else
		ide_reset_over(d);
}

void ide_loop_lock(struct ide_drive *d)
{
	pthread_mutex_lock(&d->chan->lock);
}

void ide_loop_unlock(struct ide_drive *d)
{
	if (d->srst && d->phase != IDE_BUSY)
		reset_drive(d);
	if (d->phase != IDE_BUSY)
		pthread_cond_broadcast(&d->chan->calm);
	chan_unlock(d->chan);
}

void ide_loop_dma_end(struct ide_drive *d, uint8_t error)
{
	ide_loop_lock(d);
	ide_dma_over(d);
	ide_end(d, error);
	ide_loop_unlock(d);
}

void ide_loop_end(struct ide_drive *d, uint8_t error)
{
	ide_loop_lock(d);
	ide_end(d, error);
	ide_loop_unlock(d);
}

static void srst_begin(struct ide_chan *c)
{
	c->device = 0;
	for (unsigned i = 0; i < 2; i++) {
		struct ide_drive *d = &c->drive[i];

		if (!d->present)
			continue;
		d->srst = true;
		if (d->phase == IDE_BUSY)
			ide_give_up(d);
		else
			reset_drive(d);
	}
}

/* ---- registers ---- */

static uint8_t status_of(struct ide_chan *c, struct ide_drive *d)
{
	if (!d->present)
		return 0;
	return c->ctl & CTL_SRST || d->srst ? ST_BSY : d->status;
}

static uint8_t reg_read(struct ide_chan *c, unsigned reg)
{
	struct ide_drive *d = selected(c);
	const struct ide_tf *t = c->ctl & CTL_HOB ? &d->hob : &d->tf;

	if (reg == R_STATUS) {
		d->intrq = false;
		return status_of(c, d);
	}
	if (!d->present)
		return 0;
	switch (reg) {
	case R_ERROR:
		return d->error;
	case R_COUNT:
		return t->count;
	case R_LBA0:
	case R_LBA1:
	case R_LBA2:
		return t->lba[reg - R_LBA0];
	default:
		return c->device | 0xa0; /* obsolete bits, always set */
	}
}

static void two_deep(uint8_t *now, uint8_t *before, uint8_t v)
{
	*before = *now;
	*now = v;
}

static void tf_write(struct ide_drive *d, unsigned reg, uint8_t v)
{
	switch (reg) {
	case R_ERROR:
		two_deep(&d->tf.feature, &d->hob.feature, v);
		break;
	case R_COUNT:
		two_deep(&d->tf.count, &d->hob.count, v);
		break;
	case R_LBA0:
	case R_LBA1:
	case R_LBA2:
		two_deep(&d->tf.lba[reg - R_LBA0], &d->hob.lba[reg - R_LBA0], v);
		break;
	default:
		break;
	}
}

static void reg_write(struct ide_chan *c, unsigned reg, uint8_t v)
{
	struct ide_drive *d = selected(c);

	c->ctl &= (uint8_t)~CTL_HOB;
	if (c->ctl & CTL_SRST)
		return;
	if (reg == R_STATUS) {
		if (d->present && d->cdrom && v == 0x08 && d->phase == IDE_BUSY) {
			d->srst = true; /* DEVICE RESET is taken at any time */
			ide_give_up(d);
		}
		if (!d->present || d->phase == IDE_BUSY || d->srst)
			return;
		/* In the middle of a data phase too: the old command is given up (9.1). */
		if (d->phase != IDE_IDLE && v != 0x08)
			d->x.left = 0;
		d->intrq = false;
		d->command = v;
		ide_command(d);
	} else if (reg == R_DEVICE) {
		c->device = v;
	} else {
		for (unsigned i = 0; i < 2; i++)
			if (c->drive[i].phase != IDE_BUSY)
				tf_write(&c->drive[i], reg, v);
	}
}

static void command_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct ide_chan *c = container_of(r, struct ide_chan, command);

	pthread_mutex_lock(&c->lock);
	if (off == R_DATA)
		data_move(c, data, NULL, len);
	else
		for (unsigned i = 0; i < len; i++)
			((uint8_t *)data)[i] = reg_read(c, (unsigned)off + i);
	chan_unlock(c);
}

static void command_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct ide_chan *c = container_of(r, struct ide_chan, command);

	pthread_mutex_lock(&c->lock);
	if (off == R_DATA)
		data_move(c, NULL, data, len);
	else
		for (unsigned i = 0; i < len; i++)
			reg_write(c, (unsigned)off + i, ((const uint8_t *)data)[i]);
	chan_unlock(c);
}

/* A string instruction: the data port's fast way, the other registers' only one. */
static void command_string(
	struct bus_range *r, uint64_t off, void *in, const void *out, unsigned len, unsigned n)
{
	struct ide_chan *c = container_of(r, struct ide_chan, command);

	if (off == R_DATA) {
		pthread_mutex_lock(&c->lock);
		data_move(c, in, out, (size_t)len * n);
		chan_unlock(c);
		return;
	}
	for (unsigned i = 0; i < n; i++) {
		if (in)
			command_read(r, off, (uint8_t *)in + i * len, len);
		else
			command_write(r, off, (const uint8_t *)out + i * len, len);
	}
}

static void control_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct ide_chan *c = container_of(r, struct ide_chan, control);

	pthread_mutex_lock(&c->lock);
	*(uint8_t *)data = status_of(c, selected(c));
	chan_unlock(c);
}

static void control_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct ide_chan *c = container_of(r, struct ide_chan, control);
	uint8_t v = *(const uint8_t *)data, was;

	pthread_mutex_lock(&c->lock);
	was = c->ctl;
	c->ctl = v;
	if (v & ~was & CTL_SRST)
		srst_begin(c);
	chan_unlock(c);
}

static void bm_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct ide *ide = container_of(r, struct ide, pci.bar[4].range);

	for (unsigned i = 0; i < len; i++, off++) {
		struct ide_chan *c = &ide->chan[off / 8];

		pthread_mutex_lock(&c->lock);
		((uint8_t *)data)[i] = ide_bm_read(c, off % 8);
		chan_unlock(c);
	}
}

static void bm_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct ide *ide = container_of(r, struct ide, pci.bar[4].range);

	for (unsigned i = 0; i < len; i++, off++) {
		struct ide_chan *c = &ide->chan[off / 8];

		pthread_mutex_lock(&c->lock);
		ide_bm_write(c, off % 8, ((const uint8_t *)data)[i]);
		chan_unlock(c);
	}
}

/* ---- life ---- */

/* Waits until no loop has a command; main thread, vCPUs paused. */
static void quiesce(struct ide_chan *c)
{
	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < 2; i++) {
		c->drive[i].dma_stopped = true;
		if (c->drive[i].phase == IDE_BUSY)
			ide_give_up(&c->drive[i]);
		while (c->drive[i].phase == IDE_BUSY || c->drive[i].give_up_posted)
			pthread_cond_wait(&c->calm, &c->lock);
		c->drive[i].phase = IDE_IDLE;
		c->drive[i].dma_stopped = false;
	}
	chan_unlock(c);
}

static void power_on(struct ide_chan *c)
{
	pthread_mutex_lock(&c->lock);
	c->device = c->ctl = c->bm_command = c->bm_status = 0;
	c->bm_table = 0;
	for (unsigned i = 0; i < 2; i++) {
		struct ide_drive *d = &c->drive[i];

		if (!d->present)
			continue;
		defaults(d);
		d->revert = true;
		d->smart_off = d->door_locked = d->door_open = d->attention = false;
		d->eject_wanted = false;
		d->sense = (struct ide_sense){0};
		reset_drive(d);
		d->revert = false;
		while (d->phase == IDE_BUSY)
			pthread_cond_wait(&c->calm, &c->lock);
	}
	chan_unlock(c);
}

static void ide_reset(struct device *dev)
{
	struct ide *ide = container_of(dev, struct ide, dev);

	for (unsigned i = 0; i < 2; i++) {
		quiesce(&ide->chan[i]);
		power_on(&ide->chan[i]);
	}
	pci_dev_reset(&ide->pci);
}

struct cancel {
	struct loop_msg msg;
	struct ide_drive *d;
};

static void loop_cancel(struct loop_msg *m)
{
	struct ide_drive *d = container_of(m, struct cancel, msg)->d;

	loop_timer_cancel(d->loop, &d->settle_timer);
	ide_loop_lock(d);
	d->phase = IDE_IDLE;
	ide_loop_unlock(d);
}

static void ide_stop(struct device *dev)
{
	struct ide *ide = container_of(dev, struct ide, dev);

	for (unsigned i = 0; i < IDE_DRIVES; i++) {
		struct ide_chan *c = &ide->chan[i / 2];
		struct ide_drive *d = &c->drive[i % 2];
		struct cancel cancel = {.msg.fn = loop_cancel, .d = d};

		quiesce(c);
		if (!d->loop)
			continue;
		pthread_mutex_lock(&c->lock);
		d->phase = IDE_BUSY;
		loop_post(d->loop, &cancel.msg);
		while (d->phase == IDE_BUSY)
			pthread_cond_wait(&c->calm, &c->lock);
		chan_unlock(c);
	}
}

static void chan_fini(struct ide_chan *c)
{
	struct bus *bus = c->ide->dev.services->bus;

	if (c->command.base)
		bus_remove(bus, BUS_PORT, &c->command);
	if (c->control.base)
		bus_remove(bus, BUS_PORT, &c->control);
	irq_line_free(c->line);
	for (unsigned i = 0; i < 2; i++)
		free(c->drive[i].buf);
	pthread_cond_destroy(&c->calm);
	pthread_mutex_destroy(&c->lock);
}

static void ide_destroy(struct device *dev)
{
	struct ide *ide = container_of(dev, struct ide, dev);

	pci_dev_remove(&ide->pci);
	chan_fini(&ide->chan[0]);
	chan_fini(&ide->chan[1]);
	free(ide);
}

static int drive_init(struct ide_drive *d, const struct ide_drive_opts *o, unsigned n)
{
	list_init(&d->settle_timer.link);
	d->present = o->disk || o->cdrom;
	d->watch_fd = -1;
	if (!d->present)
		return 0;
	d->loop = o->loop;
	d->disk = o->disk;
	d->cdrom = o->cdrom;
	if (o->serial)
		memcpy(d->serial, o->serial, strnlen(o->serial, IDE_SERIAL));
	else
		memcpy(d->serial, (char[]){'S', 'L', '0', '0', '0', '0', (char)('1' + n)}, 7);
	d->buf = aligned_alloc(4096, IDE_BUF_BYTES);
	if (!d->buf)
		return -ENOMEM;
	memset(d->buf, 0, SECTOR);
	return 0;
}

static int chan_init(struct ide *ide, unsigned n, const struct ide_drive_opts *o)
{
	struct ide_chan *c = &ide->chan[n];
	struct machine_services *s = ide->dev.services;
	int err;

	c->command = (struct bus_range){.read = command_read, .write = command_write,
		.string = command_string, .len = R_N, .name = "ide"};
	c->control = (struct bus_range){
		.read = control_read, .write = control_write, .len = 1, .name = "ide control"};
	for (unsigned i = 0; i < 2; i++) {
		err = drive_init(&c->drive[i], &o[i], 2 * n + i);
		if (err)
			return err;
	}
	err = irq_line_new(s->irqs, places[n].gsi, &c->line);
	if (err)
		return err;
	power_on(c);
	c->command.base = places[n].command;
	err = bus_add(s->bus, BUS_PORT, &c->command);
	if (err) {
		c->command.base = 0;
		return err;
	}
	/* All but the command register; a KVM that cannot is slower, and that is all. */
	err = bus_hold_back(s->bus, places[n].command, R_STATUS);
	if (err)
		log_debug("ide: port writes are not held back: %s", why_text(NULL, err));
	c->control.base = places[n].control;
	err = bus_add(s->bus, BUS_PORT, &c->control);
	if (err)
		c->control.base = 0;
	return err;
}

static const struct device_ops ide_ops = {
	.name = "ide",
	.reset = ide_reset,
	.stop = ide_stop,
	.destroy = ide_destroy,
};

int ide_create(struct machine_services *s, const struct ide_drive_opts o[IDE_DRIVES],
	struct device **out)
{
	static const struct pci_dev_ops no_ops;
	static const struct pci_ids ids = {.vendor = 0x8086, .device = 0x7010,
		.class_code = 0x0101, .prog_if = 0x80}; /* legacy ports, bus master */
	struct ide *ide = calloc(1, sizeof(*ide));
	int err = 0;

	if (!ide)
		return -ENOMEM;
	ide->dev = (struct device){&ide_ops, s};
	for (unsigned i = 0; i < 2; i++) {
		struct ide_chan *c = &ide->chan[i];

		c->ide = ide;
		c->index = i;
		pthread_mutex_init(&c->lock, NULL);
		pthread_cond_init(&c->calm, NULL);
		for (unsigned k = 0; k < 2; k++) {
			c->drive[k].chan = c;
			c->drive[k].unit = k;
		}
	}
	pci_dev_init(&ide->pci, &no_ops, "ide", &ids);
	ide->pci.cfg[PCI_STATUS] = 0x80; /* fast back-to-back; medium DEVSEL timing */
	ide->pci.cfg[PCI_STATUS + 1] = 0x02;
	for (unsigned i = 0x40; i < 0x44; i++) { /* IDETIM: both channels are decoded */
		ide->pci.cfg[i] = i & 1 ? 0x80 : 0;
		ide->pci.wmask[i] = 0xff;
	}
	ide->pci.wmask[0x44] = 0xff; /* SIDETIM */
	pci_bar_init(&ide->pci, 4, PCI_BAR_IO, 16, bm_read, bm_write);
	for (unsigned i = 0; i < 2 && !err; i++)
		err = chan_init(ide, i, o + 2 * i);
	if (!err)
		err = pci_dev_add_at(s->pci, &ide->pci, PIIX3_SLOT, PIIX3_FN_IDE);
	if (err) {
		chan_fini(&ide->chan[0]);
		chan_fini(&ide->chan[1]);
		free(ide);
		return err;
	}
	*out = &ide->dev;
	return 0;
}
