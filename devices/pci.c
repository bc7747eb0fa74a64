/* SPDX-License-Identifier: MIT */
/*
 * pci.c - configuration space, BARs and interrupt pins of bus 0.
 *
 * Configuration mechanism #1: an address register at 0xcf8 that only dword accesses
 * reach, and a data window at 0xcfc.  Between them, as on the chipsets of the time,
 * lies the reset control register at 0xcf9, a byte.
 *
 * Power-on state.  There need not be firmware, so it is what firmware would leave: BARs
 * lie side by side in the hole below 4 GiB (ports: from 0xc000), both kinds of decoding
 * are on, the interrupt line register names the GSI.  Bus mastering is off as the
 * specification wants and is not enforced: a device may always reach memory.
 *
 * Mapping.  Whenever a command register or a BAR changes, sync_bars() brings the buses
 * in line: first everything that has to go goes, then everything that can come comes,
 * so that two BARs may swap places; one that overlaps something waits until it can be
 * mapped.  A BAR that is being sized (its top is the top of the address space) is not decoded.
 *
 * A BAR that is only switched off is "parked": accesses no longer reach the device, but
 * the device is told (bar_mapped) only when the BAR comes back somewhere else or
 * another one takes its place.  Drivers switch decoding off and on while they size
 * BARs, and taking a doorbell out of the kernel costs 8 ms.  A doorbell rung at a parked
 * address is a spurious one, which every device must stand anyway.
 *
 * cfg_lock is held over the callbacks config_read, config_written and bar_mapped.
 * irq_lock is a leaf.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "devices/pci.h"

#define PCI_SLOTS	32
#define PCI_FUNCTIONS	8
#define PCI_DEVFNS	(PCI_SLOTS * PCI_FUNCTIONS)
#define CONFIG_PORT	0xcf8
#define CONFIG_DATA	4 /* offset of 0xcfc */
#define CONFIG_RESET	1 /* offset of 0xcf9 */
#define CONFIG_ENABLE	0x80000000u
#define CONFIG_ADDR_BITS 0x80fffffcu
#define CONFIG_ELSEWHERE 0x00ff0000u /* not bus 0 */
#define RESET_CPU	0x04
#define RESET_BITS	0x0e
#define IO_BASE		0xc000
#define IO_END		0x10000
#define MEM_ALIGN_MIN	4096
#define GSIS		24

struct pci_bus {
	struct device dev;
	struct pci_dev bridge;
	struct bus_range ports;
	uint64_t next_mem, next_io; /* where the next BAR goes */
	pthread_mutex_t cfg_lock;   /* guards all below, and the devices' cfg and bar */
	uint32_t addr;
	uint8_t reset_control;
	struct pci_dev *fn[PCI_DEVFNS]; /* slot << 3 | function */
	pthread_mutex_t irq_lock; /* guards the devices' pins and these */
	struct irq_line *line[GSIS];
	unsigned raised[GSIS]; /* how many pins hold it up */
};

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)(p[0] | p[1] << 8 | p[2] << 16 | (uint32_t)p[3] << 24);
}

static void put(uint8_t *p, uint64_t v, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		p[i] = (uint8_t)(v >> 8 * i);
}

/* Interrupt pins. */

unsigned pci_gsi(unsigned slot, unsigned pin)
{
	/* Neighbours use different wires, as on every board; the four wires share two inputs. */
	return 10 + (slot + pin - 2) % 2;
}

/* The pin as the wire sees it. */
static bool pin_high(const struct pci_dev *d)
{
	return d->intx && !d->intx_off;
}

static void wire_update_locked(struct pci_dev *d, bool was)
{
	struct pci_bus *b = d->bus;
	unsigned gsi = pci_gsi(d->slot, d->cfg[PCI_IRQ_PIN]);

	if (pin_high(d) == was)
		return;
	if (pin_high(d) ? b->raised[gsi]++ == 0 : --b->raised[gsi] == 0)
		irq_line_set(b->line[gsi], pin_high(d));
}

void pci_intx_set(struct pci_dev *d, bool level)
{
	bool was;

	pthread_mutex_lock(&d->bus->irq_lock);
	was = pin_high(d);
	d->intx = level;
	wire_update_locked(d, was);
	pthread_mutex_unlock(&d->bus->irq_lock);
}

static void intx_off_set(struct pci_dev *d, bool off)
{
	bool was;

	pthread_mutex_lock(&d->bus->irq_lock);
	was = pin_high(d);
	d->intx_off = off;
	wire_update_locked(d, was);
	pthread_mutex_unlock(&d->bus->irq_lock);
}

/* BARs. */

static unsigned bar_reg(unsigned bar)
{
	return PCI_BAR0 + 4 * bar;
}

/* Where the guest wants it, and whether it is to be decoded there at all. */
static bool bar_wanted(const struct pci_dev *d, unsigned i, uint64_t *base)
{
	const struct pci_bar *bar = &d->bar[i];
	uint16_t command = pci_cfg16(d, PCI_COMMAND);
	uint64_t at = get32(d->cfg + bar_reg(i)), last;

	switch (bar->kind) {
	case PCI_BAR_IO:
		*base = at & ~3ULL;
		return command & PCI_COMMAND_IO && *base && *base + bar->range.len <= IO_END;
	case PCI_BAR_MEM64:
		at |= (uint64_t)get32(d->cfg + bar_reg(i + 1)) << 32;
		/* fallthrough */
	case PCI_BAR_MEM32:
		*base = at & ~15ULL;
		last = *base + bar->range.len - 1;
		return command & PCI_COMMAND_MEM && *base && last > *base && last != UINT32_MAX &&
			last != UINT64_MAX;
	default:
		return false;
	}
}

static enum bus_kind bar_bus(const struct pci_bar *bar)
{
	return bar->kind == PCI_BAR_IO ? BUS_PORT : BUS_MMIO;
}

static void bar_tell(struct pci_dev *d, unsigned i, bool mapped)
{
	d->bar[i].told = mapped;
	if (d->ops->bar_mapped)
		d->ops->bar_mapped(d, i, d->bar[i].range.base, mapped);
}

static void bar_unmap(struct pci_dev *d, unsigned i)
{
	bus_remove(d->bus->dev.services->bus, bar_bus(&d->bar[i]), &d->bar[i].range);
	d->bar[i].mapped = false;
}

/* Nobody's doorbells may stay where another BAR now answers. */
static void evict_parked(struct pci_bus *b, const struct pci_bar *comer)
{
	for (unsigned s = 0; s < PCI_DEVFNS; s++) {
		struct pci_dev *d = b->fn[s];

		for (unsigned i = 0; d && i < PCI_BARS; i++) {
			struct pci_bar *bar = &d->bar[i];

			if (bar != comer && bar->told && !bar->mapped &&
				bar_bus(bar) == bar_bus(comer) &&
				ranges_overlap(bar->range.base, bar->range.len, comer->range.base,
					comer->range.len))
				bar_tell(d, i, false);
		}
	}
}

static void bar_map(struct pci_dev *d, unsigned i, uint64_t base)
{
	struct pci_bar *bar = &d->bar[i];
	int err;

	if (bar->told && bar->range.base != base)
		bar_tell(d, i, false);
	bar->range.base = base;
	err = bus_add(d->bus->dev.services->bus, bar_bus(bar), &bar->range);
	if (err) {
		log_debug("%s: BAR %u at %#llx: %s", d->name, i, (unsigned long long)base,
			why_text(NULL, err));
		return;
	}
	bar->mapped = true;
	evict_parked(d->bus, bar);
	if (!bar->told)
		bar_tell(d, i, true);
}

static void sync_bars(struct pci_bus *b)
{
	uint64_t base;

	for (unsigned s = 0; s < PCI_DEVFNS; s++)
		for (unsigned i = 0; b->fn[s] && i < PCI_BARS; i++)
			if (b->fn[s]->bar[i].mapped && (!bar_wanted(b->fn[s], i, &base) ||
					base != b->fn[s]->bar[i].range.base))
				bar_unmap(b->fn[s], i);
	for (unsigned s = 0; s < PCI_DEVFNS; s++)
		for (unsigned i = 0; b->fn[s] && i < PCI_BARS; i++)
			if (!b->fn[s]->bar[i].mapped && bar_wanted(b->fn[s], i, &base))
				bar_map(b->fn[s], i, base);
}

void pci_bar_init(struct pci_dev *d, unsigned i, enum pci_bar_kind kind, uint64_t len,
	void (*read)(struct bus_range *r, uint64_t off, void *data, unsigned len),
	void (*write)(struct bus_range *r, uint64_t off, const void *data, unsigned len))
{
	struct pci_bar *bar = &d->bar[i];
	static const uint8_t type[] = {[PCI_BAR_IO] = 1, [PCI_BAR_MEM32] = 0, [PCI_BAR_MEM64] = 4};

	assert(is_pow2(len) && len >= (kind == PCI_BAR_IO ? 4 : 16) && bar->kind == PCI_BAR_NONE);
	bar->kind = kind;
	bar->dev = d;
	bar->range = (struct bus_range){.read = read, .write = write, .len = len, .name = d->name};
	put(d->cfg + bar_reg(i), type[kind], 4);
	put(d->wmask + bar_reg(i), ~(len - 1), kind == PCI_BAR_MEM64 ? 8 : 4);
	if (kind == PCI_BAR_MEM64) {
		assert(i + 1 < PCI_BARS && d->bar[i + 1].kind == PCI_BAR_NONE);
		d->bar[i + 1].kind = PCI_BAR_UPPER;
	}
	d->wmask[PCI_COMMAND] |= kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEM;
	d->cfg[PCI_COMMAND] |= kind == PCI_BAR_IO ? PCI_COMMAND_IO : PCI_COMMAND_MEM;
}

/* Chooses the power-on address of every BAR. */
static int place_bars(struct pci_bus *b, struct pci_dev *d)
{
	uint64_t mem = b->next_mem, io = b->next_io;

	for (unsigned i = 0; i < PCI_BARS; i++) {
		uint64_t len = d->bar[i].range.len, at;

		if (d->bar[i].kind == PCI_BAR_NONE || d->bar[i].kind == PCI_BAR_UPPER)
			continue;
		if (d->bar[i].kind == PCI_BAR_IO) {
			at = round_up(io, len);
			io = at + len;
		} else {
			at = round_up(mem, max_u64(len, MEM_ALIGN_MIN));
			mem = at + len;
		}
		put(d->cfg + bar_reg(i), at | d->cfg[bar_reg(i)], 4);
	}
	if (mem > PCI_HOLE_END || io > IO_END)
		return -ENOSPC;
	b->next_mem = mem;
	b->next_io = io;
	return 0;
}

/* Functions. */

void pci_dev_init(struct pci_dev *d, const struct pci_dev_ops *ops, const char *name,
	const struct pci_ids *ids)
{
	memset(d, 0, sizeof(*d));
	d->ops = ops;
	d->name = name;
	d->cap_end = PCI_CAP_FIRST;
	put(d->cfg + PCI_VENDOR_ID, ids->vendor, 2);
	put(d->cfg + PCI_DEVICE_ID, ids->device, 2);
	d->cfg[PCI_REVISION] = ids->revision;
	d->cfg[PCI_PROG_IF] = ids->prog_if;
	put(d->cfg + PCI_CLASS, ids->class_code, 2);
	put(d->cfg + PCI_SUBSYS_VENDOR, ids->subsys_vendor, 2);
	put(d->cfg + PCI_SUBSYS_ID, ids->subsys, 2);
	d->cfg[PCI_IRQ_PIN] = ids->irq_pin;
	put(d->wmask + PCI_COMMAND, PCI_COMMAND_MASTER | PCI_COMMAND_INTX_OFF, 2);
	d->wmask[PCI_CACHE_LINE] = d->wmask[PCI_LATENCY] = d->wmask[PCI_IRQ_LINE] = 0xff;
}

unsigned pci_cap_add(struct pci_dev *d, uint8_t id, const void *body, unsigned body_len)
{
	unsigned at = d->cap_end;

	assert(at + 2 + body_len <= PCI_CFG_BYTES);
	d->cfg[at] = id;
	memcpy(d->cfg + at + 2, body, body_len);
	d->cfg[d->cap_last ? d->cap_last : PCI_CAP_PTR] = (uint8_t)at;
	d->cfg[PCI_STATUS] |= PCI_STATUS_CAPS;
	d->cap_last = at + 1;
	d->cap_end = (unsigned)round_up(at + 2 + body_len, 4);
	return at;
}

static unsigned devfn_of(const struct pci_dev *d)
{
	return d->slot * PCI_FUNCTIONS + d->function;
}

int pci_dev_add_at(struct pci_bus *b, struct pci_dev *d, unsigned slot, unsigned function)
{
	unsigned gsi;
	int err;

	assert(slot < PCI_SLOTS && function < PCI_FUNCTIONS);
	d->bus = b;
	d->slot = slot;
	d->function = function;
	if (b->fn[devfn_of(d)])
		return -EEXIST;
	err = place_bars(b, d);
	if (err)
		return err;
	if (d->cfg[PCI_IRQ_PIN]) {
		gsi = pci_gsi(slot, d->cfg[PCI_IRQ_PIN]);
		d->cfg[PCI_IRQ_LINE] = (uint8_t)gsi;
		if (!b->line[gsi])
			err = irq_line_new(b->dev.services->irqs, gsi, &b->line[gsi]);
		if (err)
			return err;
	}
	memcpy(d->init, d->cfg, sizeof(d->init));
	pthread_mutex_lock(&b->cfg_lock);
	b->fn[devfn_of(d)] = d;
	sync_bars(b);
	pthread_mutex_unlock(&b->cfg_lock);
	return 0;
}

int pci_dev_add(struct pci_bus *b, struct pci_dev *d)
{
	unsigned s = 0;

	while (s < PCI_SLOTS && b->fn[s * PCI_FUNCTIONS])
		s++;
	return s == PCI_SLOTS ? -ENOSPC : pci_dev_add_at(b, d, s, 0);
}

void pci_dev_remove(struct pci_dev *d)
{
	struct pci_bus *b = d->bus;

	pci_intx_set(d, false);
	pthread_mutex_lock(&b->cfg_lock);
	for (unsigned i = 0; i < PCI_BARS; i++) {
		if (d->bar[i].mapped)
			bar_unmap(d, i);
		if (d->bar[i].told)
			bar_tell(d, i, false);
	}
	b->fn[devfn_of(d)] = NULL;
	pthread_mutex_unlock(&b->cfg_lock);
}

/* What the bus itself does about new bytes in configuration space. */
static void apply_config(struct pci_dev *d, unsigned off, unsigned len)
{
	if (ranges_overlap(off, len, PCI_COMMAND, 2) ||
		ranges_overlap(off, len, PCI_BAR0, 4 * PCI_BARS))
		sync_bars(d->bus);
	if (d->cfg[PCI_IRQ_PIN])
		intx_off_set(d, pci_cfg16(d, PCI_COMMAND) & PCI_COMMAND_INTX_OFF);
}

void pci_dev_reset(struct pci_dev *d)
{
	pthread_mutex_lock(&d->bus->cfg_lock);
	memcpy(d->cfg, d->init, sizeof(d->cfg));
	apply_config(d, 0, PCI_CFG_BYTES);
	pthread_mutex_unlock(&d->bus->cfg_lock);
}

/* Ports. */

static void config_read(struct pci_bus *b, unsigned off, uint8_t *data, unsigned len)
{
	struct pci_dev *d = b->fn[b->addr >> 8 & 0xff];
	unsigned reg = (b->addr & 0xfc) + off;

	memset(data, 0xff, len);
	/* Bus 0, a function that is taken; nothing else is there. */
	if (!(b->addr & CONFIG_ENABLE) || b->addr & CONFIG_ELSEWHERE || !d)
		return;
	if (d->ops->config_read)
		d->ops->config_read(d, reg, len);
	memcpy(data, d->cfg + reg, len);
	pthread_mutex_lock(&b->irq_lock);
	for (unsigned i = 0; i < len; i++)
		if (reg + i == PCI_STATUS && d->intx)
			data[i] |= PCI_STATUS_INTX;
	pthread_mutex_unlock(&b->irq_lock);
}

static void config_write(struct pci_bus *b, unsigned off, const uint8_t *data, unsigned len)
{
	struct pci_dev *d = b->fn[b->addr >> 8 & 0xff];
	unsigned reg = (b->addr & 0xfc) + off;

	if (!(b->addr & CONFIG_ENABLE) || b->addr & CONFIG_ELSEWHERE || !d)
		return;
	for (unsigned i = 0; i < len; i++) {
		uint8_t mask = d->wmask[reg + i];

		d->cfg[reg + i] = (uint8_t)((d->cfg[reg + i] & ~mask) | (data[i] & mask));
	}
	apply_config(d, reg, len);
	if (d->ops->config_written)
		d->ops->config_written(d, reg, len);
}

static void ports_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct pci_bus *b = container_of(r, struct pci_bus, ports);
	unsigned skip = off < CONFIG_DATA ? (unsigned)min_u64(len, CONFIG_DATA - off) : 0;

	memset(data, 0xff, len);
	pthread_mutex_lock(&b->cfg_lock);
	if (off == 0 && len >= 4)
		put(data, b->addr, 4);
	else if (off == CONFIG_RESET && len == 1)
		*(uint8_t *)data = b->reset_control;
	if (skip < len)
		config_read(b, (unsigned)off + skip - CONFIG_DATA, (uint8_t *)data + skip,
			len - skip);
	pthread_mutex_unlock(&b->cfg_lock);
}

static void ports_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	struct pci_bus *b = container_of(r, struct pci_bus, ports);
	unsigned skip = off < CONFIG_DATA ? (unsigned)min_u64(len, CONFIG_DATA - off) : 0;
	bool reset = false;
	uint8_t v;

	pthread_mutex_lock(&b->cfg_lock);
	if (off == 0 && len >= 4) {
		b->addr = get32(data) & CONFIG_ADDR_BITS;
	} else if (off == CONFIG_RESET && len == 1) {
		v = *(const uint8_t *)data;
		reset = v & ~b->reset_control & RESET_CPU;
		b->reset_control = v & RESET_BITS;
	}
	if (skip < len)
		config_write(b, (unsigned)off + skip - CONFIG_DATA, (const uint8_t *)data + skip,
			len - skip);
	pthread_mutex_unlock(&b->cfg_lock);
	if (reset)
		b->dev.services->event(b->dev.services, EV_RESET, 0);
}

/* The host bridge. */

static void pci_host_reset(struct device *dev)
{
	struct pci_bus *b = container_of(dev, struct pci_bus, dev);

	pthread_mutex_lock(&b->cfg_lock);
	b->addr = 0;
	b->reset_control = 0;
	pthread_mutex_unlock(&b->cfg_lock);
	pci_dev_reset(&b->bridge);
}

static void pci_host_destroy(struct device *dev)
{
	struct pci_bus *b = container_of(dev, struct pci_bus, dev);

	bus_remove(dev->services->bus, BUS_PORT, &b->ports);
	for (unsigned s = 1; s < PCI_DEVFNS; s++)
		assert(!b->fn[s]); /* devices are destroyed before their bus */
	for (unsigned i = 0; i < GSIS; i++)
		if (b->line[i])
			irq_line_free(b->line[i]);
	dev->services->pci = NULL;
	pthread_mutex_destroy(&b->irq_lock);
	pthread_mutex_destroy(&b->cfg_lock);
	free(b);
}

static const struct device_ops pci_host_ops = {
	.name = "pci",
	.reset = pci_host_reset,
	.destroy = pci_host_destroy,
};

int pci_host_create(struct machine_services *s, struct device **out)
{
	static const struct pci_dev_ops no_ops;
	static const struct pci_ids i440fx = {
		.vendor = 0x8086, .device = 0x1237, .class_code = 0x0600, .revision = 2,
		/* By these SeaBIOS knows that there is fw_cfg. */
		.subsys_vendor = 0x1af4, .subsys = 0x1100};
	struct pci_bus *b = calloc(1, sizeof(*b));
	int err;

	if (!b)
		return -ENOMEM;
	b->dev = (struct device){&pci_host_ops, s};
	b->next_mem = PCI_HOLE_BASE;
	b->next_io = IO_BASE;
	b->ports = (struct bus_range){.read = ports_read, .write = ports_write,
		.base = CONFIG_PORT, .len = 8, .name = "pci config"};
	pthread_mutex_init(&b->cfg_lock, NULL);
	pthread_mutex_init(&b->irq_lock, NULL);
	pci_dev_init(&b->bridge, &no_ops, "pci host bridge", &i440fx);
	err = pci_dev_add(b, &b->bridge);
	if (!err)
		err = bus_add(s->bus, BUS_PORT, &b->ports);
	if (err) {
		pthread_mutex_destroy(&b->irq_lock);
		pthread_mutex_destroy(&b->cfg_lock);
		free(b);
		return err;
	}
	s->pci = b;
	*out = &b->dev;
	return 0;
}
