/* SPDX-License-Identifier: MIT */
/*
 * ide.c - the driver of a PIIX3's IDE disks, by bus master (bus=ide) or PIO (bus=ide-pio).
 *
 * It stands behind the queue that the virtio driver has, so that every job runs on both: requests
 * wait in a list, the drive does one at a time, and the next command is given as soon as one ends.
 * PIO uses READ and WRITE MULTIPLE with 16 sectors and 32-bit string instructions.  Commands are 28
 * bits wide where that is enough.  The interrupt is pin 14 or 15 of the I/O APIC.
 *
 * Not here: packet devices, CHS.
 */
#include "guest/ide.h"

#define IDE_VENDOR 0x8086
#define IDE_DEVICE 0x7010
#define IOAPIC	   0xfec00000u
#define MULTIPLE   16u
#define PRDS	   512u
#define DISKS	   4u
#define QUEUE	   256u

#define BSY  0x80
#define DRQ  0x08
#define FAIL 0x21 /* ERR or DF */

enum { REG_FEATURE = 1, REG_COUNT, REG_LBA, REG_DEVICE = 6, REG_COMMAND };

struct ide {
	struct vblk d; /* first: the jobs' view */
	uint16_t base, ctl, bm;
	unsigned unit;
	bool pio;
	struct prd {
		uint32_t addr, len;
	} *prd;
	uint16_t *id; /* what IDENTIFY said last */
	struct vblk_req *now, *waiting[QUEUE], *done[QUEUE];
	unsigned wait_head, wait_tail, done_head, done_tail;
	uint32_t irqs_seen;
	/* PIO: where the data is */
	unsigned seg;
	uint32_t seg_done, left;
};

static struct ide disks[DISKS];

bool ide_wanted(void)
{
	const char *bus = option_str("bus", "virtio");

	if (strcmp(bus, "virtio") != 0 && strcmp(bus, "ide") != 0 && strcmp(bus, "ide-pio") != 0)
		fail(STATUS_USAGE, "bus=%s: expected virtio, ide or ide-pio", bus);
	return strcmp(bus, "virtio") != 0;
}

static struct ide *of(const struct virtq *q)
{
	return q->ide;
}

/* The alternate status, which leaves the interrupt alone. */
static uint8_t await(struct ide *i, uint8_t mask, uint8_t want)
{
	uint64_t deadline = vblk_timeout();
	uint8_t s;

	while (((s = inb(i->ctl)) & mask) != want)
		if ((s & (BSY | FAIL)) == 1 || rdtsc() > deadline)
			fail(STATUS_DEVICE, "disk %u: ide status 0x%x", i->d.number, s);
	return s;
}

static void registers(struct ide *i, uint64_t lba, uint32_t sectors, bool wide)
{
	uint16_t b = i->base;

	if (wide) {
		outb(b + REG_COUNT, (uint8_t)(sectors >> 8));
		for (unsigned k = 0; k < 3; k++)
			outb((uint16_t)(b + REG_LBA + k), (uint8_t)(lba >> (24 + 8 * k)));
	}
	outb(b + REG_COUNT, (uint8_t)sectors);
	for (unsigned k = 0; k < 3; k++)
		outb((uint16_t)(b + REG_LBA + k), (uint8_t)(lba >> 8 * k));
	outb(b + REG_DEVICE,
		(uint8_t)(0xe0 | i->unit << 4 | (wide ? 0 : (uint8_t)(lba >> 24 & 15))));
}

static void command(struct ide *i, uint8_t c)
{
	i->irqs_seen = irq_device[i->d.q[0].irq];
	outb(i->base + REG_COMMAND, c);
}

static void string_in(uint16_t port, void *to, uint32_t bytes)
{
	uint64_t n = bytes / 4;

	__asm__ volatile("rep insl" : "+D"(to), "+c"(n) : "d"(port) : "memory");
}

static void string_out(uint16_t port, const void *from, uint32_t bytes)
{
	uint64_t n = bytes / 4;

	__asm__ volatile("rep outsl" : "+S"(from), "+c"(n) : "d"(port) : "memory");
}

/* A command without data, or with one sector in, waited for by polling; false: it failed. */
static bool simple(struct ide *i, uint8_t c, uint8_t feature, uint8_t count, void *in)
{
	uint64_t deadline = vblk_timeout();
	uint8_t s;

	outb(i->base + REG_FEATURE, feature);
	registers(i, 0, count, false);
	command(i, c);
	while ((s = inb(i->ctl)) & BSY)
		if (rdtsc() > deadline)
			fail(STATUS_DEVICE, "disk %u: ide command 0x%x hangs", i->d.number, c);
	if (!(s & FAIL) && in)
		string_in(i->base, in, SECTOR_SIZE);
	return !(inb(i->base + REG_COMMAND) & FAIL);
}

/* ---- requests ---- */

static uint32_t sectors_of(const struct vblk_req *r)
{
	uint32_t bytes = 0;

	for (unsigned k = 1; k <= r->n_segs; k++)
		bytes += r->table[k].len;
	return bytes / SECTOR_SIZE;
}

/* A region may not cross a multiple of 64 KiB. */
static void list_regions(struct ide *i, const struct vblk_req *r)
{
	unsigned n = 0;

	for (unsigned k = 1; k <= r->n_segs; k++) {
		uint32_t at = (uint32_t)r->table[k].addr, left = r->table[k].len;

		while (left) {
			uint32_t part = MIN(left, 65536 - (at & 65535));

			if (n == PRDS)
				fail(STATUS_USAGE, "ide: more than %u regions", PRDS);
			i->prd[n++] = (struct prd){at, part & 65535};
			at += part;
			left -= part;
		}
	}
	i->prd[n - 1].len |= 0x80000000u;
}

/* The next DRQ block, through the data register. */
static void pio_block(struct ide *i, const struct vblk_req *r, bool in)
{
	uint32_t block = MIN(i->left, MULTIPLE) * SECTOR_SIZE;

	i->left -= block / SECTOR_SIZE;
	while (block) {
		const struct virtq_desc *s = &r->table[i->seg];
		uint32_t part = MIN(block, s->len - i->seg_done);
		uint8_t *p = (uint8_t *)s->addr + i->seg_done;

		if (in)
			string_in(i->base, p, part);
		else
			string_out(i->base, p, part);
		block -= part;
		i->seg_done += part;
		if (i->seg_done == s->len) {
			i->seg_done = 0;
			i->seg++;
		}
	}
	if (!in)
		(void)inb(i->ctl); /* as every driver does: what was posted has arrived */
}

static void begin(struct ide *i, struct vblk_req *r)
{
	static const uint8_t codes[2][2][2] = {/* [pio][write][wide] */
		{{0xc8, 0x25}, {0xca, 0x35}}, {{0xc4, 0x29}, {0xc5, 0x39}}};
	static const uint8_t fua_codes[2] = {0x3d, 0xce}; /* WRITE DMA, MULTIPLE FUA EXT */
	uint32_t n = sectors_of(r);
	bool out = r->head.type == VBLK_OUT,
	     wide = n > 256 || r->head.sector + n > 0xfffffff || r->fua;

	i->now = r;
	if (r->head.type == VBLK_FLUSH) {
		outb(i->base + REG_DEVICE, (uint8_t)(0xe0 | i->unit << 4));
		command(i, 0xe7);
		return;
	}
	if (!i->pio) {
		list_regions(i, r);
		barrier();
		outb(i->bm + 2, 0x06);
	}
	registers(i, r->head.sector, n, wide);
	command(i, r->fua ? fua_codes[i->pio] : codes[i->pio][out][wide]);
	i->left = n;
	i->seg = 1;
	i->seg_done = 0;
	if (!i->pio) {
		outb(i->bm, out ? 0x01 : 0x09);
	} else if (out) {
		await(i, BSY | DRQ, DRQ);
		pio_block(i, r, false);
	}
}

static void next(struct ide *i)
{
	if (!i->now && i->wait_head != i->wait_tail)
		begin(i, i->waiting[i->wait_head++ % QUEUE]);
}

static void end(struct ide *i, bool good)
{
	struct vblk_req *r = i->now;

	r->status = good ? VBLK_S_OK : 1;
	r->used_bytes = r->in_bytes + 1;
	i->now = NULL;
	i->done[i->done_tail++ % QUEUE] = r;
	next(i);
}

/* After an interrupt: the drive may be through, or wants the next block moved. */
static void service(struct ide *i)
{
	struct vblk_req *r = i->now;
	uint8_t s, bm = 0;

	if (!r)
		return;
	if (!i->pio && r->head.type != VBLK_FLUSH) {
		bm = inb(i->bm + 2);
		if (!(bm & 4))
			return;
		outb(i->bm, 0);
	}
	i->irqs_seen = irq_device[i->d.q[0].irq];
	s = inb(i->base + REG_COMMAND);
	if (s & BSY)
		return;
	if (s & FAIL || bm & 2) {
		end(i, false);
	} else if (i->pio && r->head.type == VBLK_IN && s & DRQ) {
		pio_block(i, r, true);
		if (!i->left)
			end(i, true);
	} else if (i->pio && r->head.type == VBLK_OUT && i->left && s & DRQ) {
		pio_block(i, r, false);
	} else if (!i->pio || r->head.type != VBLK_IN) {
		end(i, true);
	}
}

bool ide_add(struct virtq *q, struct vblk_req *r)
{
	struct ide *i = of(q);

	if (i->wait_tail - i->done_head + (i->now != NULL) >= QUEUE)
		return false;
	i->waiting[i->wait_tail++ % QUEUE] = r;
	return true;
}

void ide_kick(struct virtq *q)
{
	q->kicks++;
	next(of(q));
}

bool ide_pending(const struct virtq *q)
{
	return of(q)->done_head != of(q)->done_tail;
}

struct vblk_req *ide_take(struct virtq *q)
{
	struct ide *i = of(q);

	return ide_pending(q) ? i->done[i->done_head++ % QUEUE] : NULL;
}

bool ide_wait(struct virtq *q, uint64_t deadline_tsc)
{
	struct ide *i = of(q);

	while (!ide_pending(q)) {
		uint32_t seen = irq_events;

		if (rdtsc() > deadline_tsc)
			return false;
		if (q->poll) {
			if (!(inb(i->ctl) & BSY))
				service(i);
		} else if (irq_device[q->irq] != i->irqs_seen) {
			service(i);
		} else {
			cpu_idle(seen);
		}
	}
	return true;
}

/* ---- life ---- */

static void identify(struct ide *i)
{
	if (!simple(i, 0xec, 0, 0, i->id))
		fail(STATUS_DEVICE, "disk %u: IDENTIFY fails", i->d.number);
}

uint8_t ide_writeback(struct vblk *d)
{
	struct ide *i = of(&d->q[0]);

	identify(i);
	return i->id[85] >> 5 & 1;
}

void ide_set_writeback(struct vblk *d, uint8_t on)
{
	(void)simple(of(&d->q[0]), 0xef, on ? 0x02 : 0x82, 0, NULL);
}

void ide_start(struct vblk *d, uint64_t want)
{
	struct ide *i = of(&d->q[0]);

	/* What was on its way is forgotten, and so is what waited. */
	i->now = NULL;
	i->wait_head = i->wait_tail = i->done_head = i->done_tail = 0;
	outb(i->bm, 0);
	outb(i->ctl, 4);
	delay_usec(10);
	outb(i->ctl, 0);
	delay_usec(2000);
	await(i, BSY, 0);
	outb(i->base + REG_DEVICE, (uint8_t)(0xe0 | i->unit << 4));
	identify(i);
	d->features = want & (F_FLUSH | F_CONFIG_WCE);
	d->fua = i->id[84] >> 6 & 1;
	d->sectors = i->id[100] | (uint64_t)i->id[101] << 16 | (uint64_t)i->id[102] << 32;
	if (i->pio && !simple(i, 0xc6, 0, MULTIPLE, NULL))
		fail(STATUS_DEVICE, "disk %u: SET MULTIPLE fails", d->number);
	if (!i->pio)
		outl(i->bm + 4, (uint32_t)(uintptr_t)i->prd);
}

void ide_ports(const struct vblk *d, uint16_t *base, uint16_t *ctl, uint16_t *bm)
{
	const struct ide *i = of(&d->q[0]);

	*base = i->base;
	*ctl = i->ctl;
	*bm = i->bm;
}

static void route(unsigned pin, unsigned irq)
{
	volatile uint32_t *index = (volatile uint32_t *)(uintptr_t)IOAPIC, *data = index + 4;

	*index = 0x10 + 2 * pin + 1;
	*data = apic_id() << 24;
	*index = 0x10 + 2 * pin;
	*data = VECTOR_DEVICE + irq; /* edge, high, fixed */
}

/* A drive is there if its registers keep what is written, and it is a disk. */
static bool probe(struct ide *i)
{
	outb(i->base + REG_DEVICE, (uint8_t)(0xa0 | i->unit << 4));
	if (!inb(i->ctl))
		return false;
	if (inb(i->base + REG_LBA + 1) || inb(i->base + REG_LBA + 2))
		return false; /* a packet device's signature */
	outb(i->base + REG_COUNT, 0x55);
	outb(i->base + REG_LBA, 0xaa);
	return inb(i->base + REG_COUNT) == 0x55 && inb(i->base + REG_LBA) == 0xaa;
}

static uint16_t find_bus_master(void)
{
	struct pci_dev p;
	unsigned devfn = 0;

	while (pci_find(IDE_VENDOR, &devfn, &p)) {
		if (p.device_id != IDE_DEVICE)
			continue;
		if (!(pci_read(&p, PCI_BAR(4), 4) & ~3u))
			pci_write(&p, PCI_BAR(4), 4, 0xc000);
		pci_write(&p, PCI_COMMAND, 2, 0x05);
		return (uint16_t)(pci_read(&p, PCI_BAR(4), 4) & ~3u);
	}
	fail(STATUS_DEVICE, "no IDE function on the PCI bus");
}

struct vblk *ide_open(void)
{
	static unsigned n;
	static struct prd *prd[2];
	unsigned chosen = (unsigned)option_u64("disk", 0, 0, DISKS - 1);
	bool pio = strcmp(option_str("bus", ""), "ide-pio") == 0;
	uint16_t bm = n ? 0 : find_bus_master();

	for (unsigned at = 0; bm && at < DISKS; at++) {
		struct ide *i = &disks[n];
		struct virtq *q = &i->d.q[0];

		i->base = at / 2 ? 0x170 : 0x1f0;
		i->ctl = at / 2 ? 0x376 : 0x3f6;
		i->bm = (uint16_t)(bm + at / 2 * 8);
		i->unit = at % 2;
		if (!probe(i))
			continue;
		i->pio = pio;
		i->d.number = n++;
		i->d.n_queues = 1;
		i->d.seg_max = 128;
		i->d.seg_bytes = 65536;
		q->ide = i;
		q->size = QUEUE;
		q->indirect = true;
		q->irq = at / 2;
		q->poll = strcmp(option_str("wait", "irq"), "poll") == 0;
		/* The drives of a channel share its bus master. */
		if (!prd[at / 2])
			prd[at / 2] = memory_alloc(PRDS * sizeof(*i->prd), PAGE_SIZE, "regions");
		i->prd = prd[at / 2];
		i->id = memory_alloc(SECTOR_SIZE, SECTOR_SIZE, "an identity");
		if (!q->poll)
			route(14 + at / 2, q->irq);
		ide_start(&i->d, F_ALL);
		report("disk n=%u sectors=%lu bus=%s wait=%s cache=%s", i->d.number, i->d.sectors,
			pio ? "ide-pio" : "ide", q->poll ? "poll" : "irq",
			ide_writeback(&i->d) ? "on" : "off");
	}
	if (chosen >= n)
		fail(STATUS_DEVICE, "disk %u of %u is not there", chosen, n);
	return &disks[chosen].d;
}
