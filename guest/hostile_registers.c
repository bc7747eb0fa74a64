/* SPDX-License-Identifier: MIT */
/*
 * hostile_registers.c - nonsense written to every register the device has, at every width.
 *
 * Queue addresses take only values that keep the rings out of the guest's own memory: scratch,
 * where no RAM is, or (bytes of ones) the first pages and the upper end.  MSI-X messages are left
 * alone: a device may write those anywhere.
 */
#include "guest/hostile.h"

static void write_width(volatile uint8_t *base, unsigned off, unsigned width, uint64_t v)
{
	volatile uint8_t *p = base + off;

	if (width == 1)
		*p = (uint8_t)v;
	else if (width == 2)
		*(volatile uint16_t *)p = (uint16_t)v;
	else if (width == 4)
		*(volatile uint32_t *)p = (uint32_t)v;
	else
		*(volatile uint64_t *)p = v;
}

static void read_width(volatile uint8_t *base, unsigned off, unsigned width)
{
	volatile uint8_t *p = base + off;

	if (width == 1)
		(void)*p;
	else if (width == 2)
		(void)*(volatile uint16_t *)p;
	else if (width == 4)
		(void)*(volatile uint32_t *)p;
	else
		(void)*(volatile uint64_t *)p;
}

static uint32_t low_address(struct hostile *h)
{
	const uint32_t list[] = {0xffffffff, 0xfffffff0, 0xfec00000, h->ram_top, 0xffff0001,
		(uint32_t)scratch_at(h, SCRATCH_DATA), (uint32_t)scratch_at(h, SCRATCH_DATA + 1),
		(uint32_t)scratch_at(h, SCRATCH_BYTES - 8), (uint32_t)(uintptr_t)h->d->common};

	return list[pick(h, ARRAY_SIZE(list))];
}

static uint32_t high_address(struct hostile *h)
{
	static const uint32_t list[] = {0, 0x100, 0x7fffffff, 0xffffffff, 0x80000000};

	return list[pick(h, ARRAY_SIZE(list))];
}

static void write_common(struct hostile *h, unsigned off, unsigned width)
{
	uint64_t v = random_next(&h->rng);

	if (off + width > CC_QUEUE_DESC) {
		v = ~0ull;
		if (width >= 4 && off % 8 == 0)
			v = (uint64_t)high_address(h) << 32 | low_address(h);
		else if (width == 4 && off % 8 == 4)
			v = high_address(h);
	}
	write_width(h->d->common, off, width, v);
}

static enum verdict common_config(struct hostile *h)
{
	for (unsigned n = 5 + pick(h, 60); n; n--) {
		unsigned width = 1u << pick(h, 4), off = pick(h, CC_BYTES);

		if (pick(h, 2))
			off &= -width;
		if (pick(h, 4) == 0)
			read_width(h->d->common, off, width);
		else
			write_common(h, off, width);
		if (pick(h, 16) == 0)
			*h->q->doorbell = (uint16_t)pick(h, 4);
	}
	return ANYTHING;
}

static enum verdict device_config(struct hostile *h)
{
	unsigned end = MIN(h->d->config_bytes + 16, 256u);

	for (unsigned n = 5 + pick(h, 60); n; n--) {
		unsigned width = 1u << pick(h, 4), off = pick(h, end - 8);

		if (pick(h, 2))
			read_width(h->d->config, off, width);
		else
			write_width(h->d->config, off, width, random_next(&h->rng));
	}
	return ALL_BACK;
}

static enum verdict doorbells(struct hostile *h)
{
	unsigned end = MIN(h->d->notify_bytes, 64u);

	for (unsigned n = 5 + pick(h, 30); n; n--) {
		unsigned width = 1u << pick(h, 3);

		write_width(h->d->notify, pick(h, end) & -width, width, random_next(&h->rng));
		read_width(h->d->isr, 0, width);
	}
	return ALL_BACK;
}

/* A queue where no queue can be, made in the right order, and rung. */
static enum verdict bad_queue(struct hostile *h)
{
	static const uint16_t sizes[] = {0, 1, 2, 3, 5, 100, 257, 0x8000, 0x8001, 0xffff};
	struct vblk *d = h->d;
	uint16_t size;

	if (!vblk_reset(d))
		fail(STATUS_DEVICE, "hostile: no way out of reset");
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER);
	set32(d->common, CC_DRV_FEATURE_SEL, 1);
	set32(d->common, CC_DRV_FEATURE, 1);
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER | DEV_FEATURES_OK);
	set16(d->common, CC_QUEUE_SELECT, pick(h, 4) ? 0 : (uint16_t)pick(h, 65536));
	size = pick(h, 2) ? sizes[pick(h, ARRAY_SIZE(sizes))] : h->q->size;
	set16(d->common, CC_QUEUE_SIZE, size);
	for (unsigned off = CC_QUEUE_DESC; off < CC_BYTES; off += 8) {
		set32(d->common, off, low_address(h));
		set32(d->common, off + 4, pick(h, 2) ? 0 : high_address(h));
	}
	set16(d->common, CC_QUEUE_ENABLE, pick(h, 4) ? 1 : (uint16_t)pick(h, 65536));
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER | DEV_FEATURES_OK | DEV_DRIVER_OK);
	*h->q->doorbell = 0;
	delay_usec(1000);
	return ANYTHING;
}

static enum verdict features_not_offered(struct hostile *h)
{
	struct vblk *d = h->d;

	if (!vblk_reset(d))
		fail(STATUS_DEVICE, "hostile: no way out of reset");
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER);
	for (unsigned i = 0; i < 4; i++) {
		set32(d->common, CC_DRV_FEATURE_SEL, i < 2 ? i : pick(h, 1u << 30));
		set32(d->common, CC_DRV_FEATURE,
			pick(h, 2) ? 0xffffffff : (uint32_t)random_next(&h->rng));
	}
	set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER | DEV_FEATURES_OK);
	(void)vblk_status(d);
	if (pick(h, 2))
		set8(d->common, CC_STATUS, DEV_ACK | DEV_DRIVER | DEV_FEATURES_OK | DEV_DRIVER_OK);
	*h->q->doorbell = 0;
	return ANYTHING;
}

static enum verdict ring_before_driver_ok(struct hostile *h)
{
	if (!vblk_reset(h->d))
		fail(STATUS_DEVICE, "hostile: no way out of reset");
	for (unsigned n = 1 + pick(h, 8); n; n--) {
		*h->q->doorbell = (uint16_t)pick(h, 3);
		set8(h->d->common, CC_STATUS, (uint8_t)(1 + pick(h, 255)));
	}
	return ANYTHING;
}

/* Requests in flight at a reset: after it the device writes nothing any more. */
static enum verdict reset_in_flight(struct hostile *h)
{
	unsigned n = MIN(1 + pick(h, 60), h->q->size / 3u);
	uint8_t *data = h->scratch + SCRATCH_DATA;

	for (unsigned i = 0; i < n; i++) {
		uint64_t sector = SAFE_SECTORS + pick(h, SAFE_SECTORS);

		set_desc(h, 3 * i, header(h, 3 * i, i & 1 ? VBLK_OUT : VBLK_IN, sector), 16,
			VIRTQ_NEXT, 3 * i + 1);
		set_desc(h, 3 * i + 1, (uintptr_t)data + 32768 * i, 32768,
			VIRTQ_NEXT | (i & 1 ? 0 : VIRTQ_WRITE), 3 * i + 2);
		set_desc(h, 3 * i + 2, status_byte(h, 3 * i), 1, VIRTQ_WRITE, 0);
		push(h, (uint16_t)(3 * i));
	}
	kick(h);
	delay_usec(pick(h, 300));
	if (!vblk_reset(h->d))
		fail(STATUS_DEVICE, "hostile: no way out of reset");
	memset(data, 0x77, 32768 * n);
	memset((void *)h->q->used, 0x77, 6 + 8u * h->q->size);
	delay_usec(2000);
	for (uint32_t i = 0; i < 32768 * n / 8; i++)
		h->wrong += ((volatile uint64_t *)data)[i] != 0x7777777777777777;
	h->wrong += h->q->used->idx != 0x7777;
	return ANYTHING;
}

/* The device's PCI header and capabilities, with its memory switched off, then put back. */
static enum verdict pci_config(struct hostile *h)
{
	const struct pci_dev *p = &h->d->pci;
	uint32_t bar[6];

	if (!vblk_reset(h->d))
		fail(STATUS_DEVICE, "hostile: no way out of reset");
	for (unsigned i = 0; i < 6; i++)
		bar[i] = pci_read(p, PCI_BAR(i), 4);
	pci_write(p, PCI_COMMAND, 2, 0);
	for (unsigned n = 5 + pick(h, 30); n; n--) {
		unsigned width = 1u << pick(h, 3), off = pick(h, 256) & -width;

		if (off / 4 == PCI_COMMAND / 4)
			continue;
		if (pick(h, 3) == 0)
			pci_read(p, off, width);
		else
			pci_write(p, off, width, (uint32_t)random_next(&h->rng));
	}
	for (unsigned i = 0; i < 6; i++)
		pci_write(p, PCI_BAR(i), 4, bar[i]);
	if (h->d->msix)
		pci_write(p, h->d->msix_cap + 2, 2, 0x8000);
	pci_write(p, PCI_COMMAND, 2, PCI_COMMAND_ON);
	return ANYTHING;
}

const struct hostile_case hostile_registers[] = {
	{"common_config", common_config},
	{"device_config", device_config},
	{"doorbells", doorbells},
	{"bad_queue", bad_queue},
	{"features_not_offered", features_not_offered},
	{"ring_before_driver_ok", ring_before_driver_ok},
	{"reset_in_flight", reset_in_flight},
	{"pci_config", pci_config},
};
const unsigned n_hostile_registers = ARRAY_SIZE(hostile_registers);
