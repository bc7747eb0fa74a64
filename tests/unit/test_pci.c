/* SPDX-License-Identifier: MIT */
/*
 * test_pci.c - configuration accesses of every kind, BARs that move, shared interrupts.
 */
#include <check.h>
#include "devices/pci.h"
#include "tests/support/fake_machine.h"

#define COMMAND_DECODE (PCI_COMMAND_IO | PCI_COMMAND_MEM)

static struct fake_machine *m;
static struct device *host;
static struct pci_dev a, b; /* slots 1 and 2 */
static struct {
	int maps, unmaps;
	uint64_t base;
} seen[2][PCI_BARS];
static int config_writes;

static unsigned which(const struct pci_dev *d)
{
	return d == &b;
}

static void on_mapped(struct pci_dev *d, unsigned bar, uint64_t base, bool mapped)
{
	if (mapped) {
		ck_assert_int_eq(seen[which(d)][bar].maps, seen[which(d)][bar].unmaps);
		seen[which(d)][bar].maps++;
	} else {
		ck_assert_uint_eq(base, seen[which(d)][bar].base);
		seen[which(d)][bar].unmaps++;
	}
	seen[which(d)][bar].base = base;
}

static void on_config(struct pci_dev *d, unsigned off, unsigned len)
{
	config_writes++;
}

/* Answers with its slot, its BAR and the offset. */
static void bar_read(struct bus_range *r, uint64_t off, void *data, unsigned len)
{
	struct pci_bar *bar = container_of(r, struct pci_bar, range);

	memset(data, 0, len);
	*(uint8_t *)data = (uint8_t)(bar->dev->slot << 6 | (bar - bar->dev->bar) << 3 | (off & 7));
}

static void bar_write(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
}

static const struct pci_dev_ops ops = {
	.config_written = on_config,
	.bar_mapped = on_mapped,
};

static void make(struct pci_dev *d)
{
	static const struct pci_ids ids = {.vendor = 0x1234, .device = 0x5678,
		.subsys_vendor = 0x9abc, .subsys = 0xdef0, .class_code = 0x0180, .prog_if = 3,
		.revision = 4, .irq_pin = 1};
	static const uint8_t body[3] = {5, 6, 7};

	pci_dev_init(d, &ops, "test", &ids);
	pci_bar_init(d, 0, PCI_BAR_MEM64, 0x8000, bar_read, bar_write);
	pci_bar_init(d, 2, PCI_BAR_MEM32, 0x100, bar_read, bar_write);
	pci_bar_init(d, 3, PCI_BAR_IO, 0x10, bar_read, bar_write);
	ck_assert_uint_eq(pci_cap_add(d, 0x11, body, sizeof(body)), 0x40);
	ck_assert_uint_eq(pci_cap_add(d, 0x09, body, sizeof(body)), 0x48);
	ck_assert_int_eq(pci_dev_add(m->s.pci, d), 0);
}

static void setup(void)
{
	memset(seen, 0, sizeof(seen));
	m = fake_machine_new();
	ck_assert_int_eq(pci_host_create(&m->s, &host), 0);
	make(&a);
	make(&b);
	config_writes = 0;
}

static void teardown(void)
{
	pci_dev_remove(&a);
	pci_dev_remove(&b);
	for (int i = 0; i < 2; i++)
		for (int k = 0; k < PCI_BARS; k++)
			ck_assert_int_eq(seen[i][k].maps, seen[i][k].unmaps);
	host->ops->destroy(host);
	fake_machine_free(m);
}

static uint32_t mem(uint64_t addr)
{
	return (uint32_t)fake_read(m, BUS_MMIO, addr, 4);
}

START_TEST(a_scan_finds_bridge_and_devices)
{
	ck_assert_uint_eq(fake_cfg_read(m, 0, 0, 4), 0x12378086);
	ck_assert_uint_eq(fake_cfg_read(m, 0, PCI_CLASS, 2), 0x0600);
	for (unsigned s = 1; s <= 2; s++) {
		ck_assert_uint_eq(fake_cfg_read(m, s, 0, 4), 0x56781234);
		ck_assert_uint_eq(fake_cfg_read(m, s, 8, 4), 0x01800304);
		ck_assert_uint_eq(fake_cfg_read(m, s, 0x2c, 4), 0xdef09abc);
		ck_assert_uint_eq(fake_cfg_read(m, s, PCI_HEADER_TYPE, 1), 0);
	}
	ck_assert_uint_eq(fake_cfg_read(m, 3, 0, 4), 0xffffffff);
	out32(m, 0xcf8, 0x80000100 | 1 << 11); /* function 1 */
	ck_assert_uint_eq(in32(m, 0xcfc), 0xffffffff);
	out32(m, 0xcf8, 0x80010000 | 1 << 11); /* bus 1 */
	ck_assert_uint_eq(in32(m, 0xcfc), 0xffffffff);
	out32(m, 0xcf8, 1 << 11); /* not enabled */
	ck_assert_uint_eq(in32(m, 0xcfc), 0xffffffff);
}
END_TEST

START_TEST(the_address_register_is_a_dword)
{
	out32(m, 0xcf8, 0xffffffff);
	ck_assert_uint_eq(in32(m, 0xcf8), 0x80fffffc);
	out8(m, 0xcf8, 0);
	out16(m, 0xcfa, 0);
	ck_assert_uint_eq(in32(m, 0xcf8), 0x80fffffc);
	ck_assert_uint_eq(in8(m, 0xcf8), 0xff);
}
END_TEST

START_TEST(the_data_window_takes_any_width_anywhere)
{
	static const uint8_t want[8] = {0x34, 0x12, 0x78, 0x56};

	for (unsigned off = 0; off < 4; off++)
		for (unsigned len = 1; len <= 4 - off; len *= 2) {
			uint32_t v = fake_cfg_read(m, 1, off, len);

			ck_assert_mem_eq(&v, want + off, len);
		}
	/* Past the window's end, and across its beginning. */
	out32(m, 0xcf8, 0x80000000 | 1 << 11);
	ck_assert_uint_eq(in32(m, 0xcfe), 0xffff5678);
	ck_assert_uint_eq(in32(m, 0xcfa), 0x1234ffff);
	out32(m, 0xcf8, 0x80000000 | 1 << 11 | 0xfc);
	ck_assert_uint_eq(in32(m, 0xcff), 0xffffff00);
	fake_write(m, BUS_PORT, 0xcff, 0xffffffff, 4);
	/* The upper two bytes of the write land in the window. */
	out32(m, 0xcf8, 0x80000000 | 1 << 11 | 0x3c);
	fake_write(m, BUS_PORT, 0xcfa, 0x77777777, 4);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_IRQ_LINE, 2), 0x0177);
	ck_assert_int_eq(atomic_load(&m->events), 0);
}
END_TEST

START_TEST(identity_and_capabilities_cannot_be_written)
{
	uint8_t before[PCI_CFG_BYTES];

	for (unsigned i = 0; i < PCI_CFG_BYTES; i++)
		before[i] = (uint8_t)fake_cfg_read(m, 1, i, 1);
	for (unsigned i = 0; i < PCI_CFG_BYTES; i++)
		if (i != PCI_COMMAND && (i < PCI_BAR0 || i >= PCI_BAR0 + 24))
			fake_cfg_write(m, 1, i, ~before[i] & 0xff, 1);
	for (unsigned i = 0; i < PCI_CFG_BYTES; i++) {
		uint8_t now = (uint8_t)fake_cfg_read(m, 1, i, 1);

		if (i == PCI_CACHE_LINE || i == PCI_LATENCY || i == PCI_IRQ_LINE)
			ck_assert_uint_eq(now, (uint8_t)~before[i]);
		else if (i == PCI_COMMAND + 1)
			ck_assert_uint_eq(now, before[i] | PCI_COMMAND_INTX_OFF >> 8);
		else
			ck_assert_msg(now == before[i], "byte %#x: %#x -> %#x", i, before[i], now);
	}
}
END_TEST

START_TEST(capabilities_form_a_list)
{
	ck_assert(fake_cfg_read(m, 1, PCI_STATUS, 2) & PCI_STATUS_CAPS);
	ck_assert_uint_eq(fake_cap_find(m, 1, 0x11, 0), 0x40);
	ck_assert_uint_eq(fake_cap_find(m, 1, 0x09, 0), 0x48);
	ck_assert_uint_eq(fake_cap_find(m, 1, 0x09, 0x48), 0);
	ck_assert_uint_eq(fake_cfg_read(m, 1, 0x4a, 2), 0x0605);
	ck_assert_uint_eq(fake_cap_find(m, 0, 0x11, 0), 0);
}
END_TEST

START_TEST(bars_are_placed_and_decoded_at_power_on)
{
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_COMMAND, 2), COMMAND_DECODE);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_BAR0, 4), PCI_HOLE_BASE | 4);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_BAR0 + 4, 4), 0);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_BAR0 + 8, 4), PCI_HOLE_BASE + 0x8000);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_BAR0 + 12, 4), 0xc001);
	ck_assert_uint_eq(fake_cfg_read(m, 2, PCI_BAR0, 4), (PCI_HOLE_BASE + 0x10000) | 4);
	ck_assert_uint_eq(mem(PCI_HOLE_BASE + 5), 1 << 6 | 5);
	ck_assert_uint_eq(mem(PCI_HOLE_BASE + 0x8000), 1 << 6 | 2 << 3);
	ck_assert_uint_eq(mem(PCI_HOLE_BASE + 0x10003), 2 << 6 | 3);
	ck_assert_uint_eq(in8(m, 0xc001), 1 << 6 | 3 << 3 | 1);
}
END_TEST

START_TEST(sizing_shows_the_length_and_moves_no_doorbell)
{
	static const struct {
		unsigned reg;
		uint32_t mask;
	} sizes[] = {{0x10, 0xffff8004}, {0x14, 0xffffffff}, {0x18, 0xffffff00},
		{0x1c, 0xfffffff1}, {0x20, 0}, {0x24, 0}};

	/* Once with decoding left on, as careless drivers do, once with it off. */
	for (int off = 0; off < 2; off++) {
		if (off)
			fake_cfg_write(m, 1, PCI_COMMAND, 0, 2);
		for (unsigned i = 0; i < ARRAY_SIZE(sizes); i++) {
			uint32_t old = fake_cfg_read(m, 1, sizes[i].reg, 4);

			fake_cfg_write(m, 1, sizes[i].reg, 0xffffffff, 4);
			ck_assert_uint_eq(fake_cfg_read(m, 1, sizes[i].reg, 4), sizes[i].mask);
			fake_cfg_write(m, 1, sizes[i].reg, old, 4);
			ck_assert_uint_eq(fake_cfg_read(m, 1, sizes[i].reg, 4), old);
		}
	}
	ck_assert_uint_eq(mem(PCI_HOLE_BASE), 0xffffffff);
	fake_cfg_write(m, 1, PCI_COMMAND, COMMAND_DECODE, 2);
	ck_assert_uint_eq(mem(PCI_HOLE_BASE), 1 << 6);
	ck_assert_int_eq(seen[0][2].maps, 1);
	ck_assert_int_eq(seen[0][2].unmaps, 0);
	ck_assert_int_eq(seen[0][3].maps, 1);
}
END_TEST

START_TEST(a_bar_moves_and_the_device_is_told_once)
{
	fake_cfg_write(m, 1, PCI_BAR0 + 8, 0xf0000000, 4);
	ck_assert_uint_eq(mem(PCI_HOLE_BASE + 0x8000), 0xffffffff);
	ck_assert_uint_eq(mem(0xf0000001), 1 << 6 | 2 << 3 | 1);
	ck_assert_int_eq(seen[0][2].maps, 2);
	ck_assert_int_eq(seen[0][2].unmaps, 1);
	ck_assert_uint_eq(seen[0][2].base, 0xf0000000);
	/* Above 4 GiB, in two halves, with decoding off in between. */
	fake_cfg_write(m, 1, PCI_COMMAND, 0, 2);
	fake_cfg_write(m, 1, PCI_BAR0 + 4, 0x10, 4);
	fake_cfg_write(m, 1, PCI_BAR0, 0x12340000, 4);
	ck_assert_int_eq(seen[0][0].unmaps, 0);
	fake_cfg_write(m, 1, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	ck_assert_uint_eq(mem(0x1012340002), 1 << 6 | 2);
	ck_assert_uint_eq(seen[0][0].base, 0x1012340000);
	ck_assert_int_eq(seen[0][0].maps, 2);
	ck_assert_uint_eq(in8(m, 0xc000), 0xff);
}
END_TEST

START_TEST(a_parked_bar_gives_way_to_another)
{
	uint32_t at = fake_cfg_read(m, 1, PCI_BAR0 + 8, 4);

	fake_cfg_write(m, 1, PCI_COMMAND, 0, 2);
	ck_assert_int_eq(seen[0][2].unmaps, 0);
	fake_cfg_write(m, 2, PCI_BAR0 + 8, at, 4);
	ck_assert_int_eq(seen[0][2].unmaps, 1);
	ck_assert_uint_eq(mem(at), 2 << 6 | 2 << 3);
	/* Now both want to be there: the first stays, the second waits until it is free. */
	fake_cfg_write(m, 1, PCI_COMMAND, COMMAND_DECODE, 2);
	ck_assert_uint_eq(mem(at), 2 << 6 | 2 << 3);
	ck_assert_int_eq(seen[0][2].maps, 1);
	fake_cfg_write(m, 2, PCI_BAR0 + 8, 0xf0000000, 4);
	ck_assert_uint_eq(mem(at), 1 << 6 | 2 << 3);
	ck_assert_int_eq(seen[0][2].maps, 2);
}
END_TEST

/* None of these may be decoded, nor disturb what is. */
START_TEST(impossible_places_are_not_decoded)
{
	static const uint32_t lo[] = {0, 0xffff8000, 0xffffff00, 0xffffffff};
	static const uint32_t hi[] = {0, 0xffffffff};

	for (unsigned i = 0; i < ARRAY_SIZE(lo); i++)
		for (unsigned k = 0; k < ARRAY_SIZE(hi); k++) {
			fake_cfg_write(m, 1, PCI_BAR0, lo[i], 4);
			fake_cfg_write(m, 1, PCI_BAR0 + 4, hi[k], 4);
			fake_cfg_write(m, 1, PCI_BAR0 + 8, lo[i], 4);
			ck_assert(!a.bar[2].mapped || lo[i] == 0xffff8000);
			ck_assert(!a.bar[0].mapped || (hi[k] && lo[i] == 0));
		}
	fake_cfg_write(m, 1, PCI_BAR0 + 12, 0x10000, 4);
	ck_assert(!a.bar[3].mapped);
	fake_cfg_write(m, 1, PCI_BAR0 + 12, 0xcf8, 4); /* taken by the bus itself */
	ck_assert(!a.bar[3].mapped);
	ck_assert_uint_eq(fake_cfg_read(m, 0, 0, 4), 0x12378086);
}
END_TEST

START_TEST(pins_share_a_line)
{
	struct irq_line *l;

	ck_assert_uint_eq(pci_gsi(1, 1), fake_cfg_read(m, 1, PCI_IRQ_LINE, 1));
	ck_assert_uint_ne(pci_gsi(1, 1), pci_gsi(2, 1));
	ck_assert_uint_eq(pci_gsi(1, 1), pci_gsi(3, 1));
	for (unsigned s = 0; s < 32; s++)
		for (unsigned p = 1; p <= 4; p++)
			ck_assert(pci_gsi(s, p) == 10 || pci_gsi(s, p) == 11);
	b.slot = 3; /* as if: on the wire of slot 1 */
	l = &m->irqs.line[pci_gsi(1, 1)];
	pci_intx_set(&a, true);
	pci_intx_set(&a, true);
	pci_intx_set(&b, true);
	ck_assert(atomic_load(&l->level));
	ck_assert(fake_cfg_read(m, 1, PCI_STATUS, 2) & PCI_STATUS_INTX);
	pci_intx_set(&a, false);
	ck_assert(atomic_load(&l->level));
	ck_assert(!(fake_cfg_read(m, 1, PCI_STATUS, 2) & PCI_STATUS_INTX));
	pci_intx_set(&b, false);
	ck_assert(!atomic_load(&l->level));
	b.slot = 2;
}
END_TEST

START_TEST(the_interrupt_disable_bit_holds_the_pin_back)
{
	struct irq_line *l = &m->irqs.line[pci_gsi(1, 1)];

	pci_intx_set(&a, true);
	fake_cfg_write(m, 1, PCI_COMMAND, COMMAND_DECODE | PCI_COMMAND_INTX_OFF, 2);
	ck_assert(!atomic_load(&l->level));
	ck_assert(fake_cfg_read(m, 1, PCI_STATUS, 2) & PCI_STATUS_INTX);
	fake_cfg_write(m, 1, PCI_COMMAND, COMMAND_DECODE, 2);
	ck_assert(atomic_load(&l->level));
	fake_cfg_write(m, 1, PCI_COMMAND + 1, PCI_COMMAND_INTX_OFF >> 8, 1);
	pci_intx_set(&a, false);
	fake_cfg_write(m, 1, PCI_COMMAND + 1, 0, 1);
	ck_assert(!atomic_load(&l->level));
}
END_TEST

START_TEST(reset_puts_everything_back)
{
	fake_cfg_write(m, 1, PCI_BAR0 + 8, 0xf0000000, 4);
	fake_cfg_write(m, 1, PCI_COMMAND, PCI_COMMAND_INTX_OFF, 2);
	fake_cfg_write(m, 1, PCI_IRQ_LINE, 3, 1);
	config_writes = 0;
	pci_dev_reset(&a);
	host->ops->reset(host);
	ck_assert_int_eq(config_writes, 0);
	ck_assert_uint_eq(in32(m, 0xcf8), 0);
	ck_assert_uint_eq(mem(PCI_HOLE_BASE + 0x8000), 1 << 6 | 2 << 3);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_COMMAND, 2), COMMAND_DECODE);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_IRQ_LINE, 1), pci_gsi(1, 1));
}
END_TEST

START_TEST(the_reset_register_resets_on_its_edge)
{
	out8(m, 0xcf9, 0x02);
	ck_assert_int_eq(atomic_load(&m->events), 0);
	ck_assert_uint_eq(in8(m, 0xcf9), 0x02);
	out8(m, 0xcf9, 0x06);
	ck_assert_int_eq(atomic_load(&m->events), 1);
	ck_assert_int_eq((int)m->event, EV_RESET);
	out8(m, 0xcf9, 0x06);
	ck_assert_int_eq(atomic_load(&m->events), 1);
	out16(m, 0xcf9, 0x0000);
	out32(m, 0xcf8, 0x80000600);
	ck_assert_int_eq(atomic_load(&m->events), 1);
}
END_TEST

START_TEST(a_full_bus_refuses_more)
{
	static struct pci_dev more[32];
	static const struct pci_ids ids = {.vendor = 1};
	static const struct pci_dev_ops none;
	int n = 0;

	for (;; n++) {
		ck_assert_int_lt(n, 32);
		pci_dev_init(&more[n], &none, "more", &ids);
		if (pci_dev_add(m->s.pci, &more[n]))
			break;
	}
	ck_assert_int_eq(n, 29);
	while (n-- > 0)
		pci_dev_remove(&more[n]);
}
END_TEST

/* Random bytes into every register of both devices: the buses always agree with the registers. */
START_TEST(any_write_is_survived)
{
	uint32_t seed = 7;

	for (int i = 0; i < 30000; i++) {
		seed = seed * 1664525 + 1013904223;
		uint32_t r = seed >> 8;
		unsigned slot = r % 3, reg = r >> 2 & 1 ? PCI_BAR0 + (r >> 3) % 24 : (r >> 3) % 256;
		unsigned len = 1u << (r >> 11) % 3;

		seed = seed * 1664525 + 1013904223;
		if (reg % 4 + len > 4)
			len = 1;
		if (seed >> 31)
			fake_cfg_write(m, slot, reg, seed, len);
		else
			fake_cfg_write(m, slot, reg, seed >> 12 & 0x10fff0ff, len);
		fake_cfg_read(m, slot, reg, len);
		ck_assert_uint_eq(fake_cfg_read(m, 1, 0, 4), 0x56781234);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("pci");
	TCase *tc = tcase_create("pci");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_scan_finds_bridge_and_devices);
	tcase_add_test(tc, the_address_register_is_a_dword);
	tcase_add_test(tc, the_data_window_takes_any_width_anywhere);
	tcase_add_test(tc, identity_and_capabilities_cannot_be_written);
	tcase_add_test(tc, capabilities_form_a_list);
	tcase_add_test(tc, bars_are_placed_and_decoded_at_power_on);
	tcase_add_test(tc, sizing_shows_the_length_and_moves_no_doorbell);
	tcase_add_test(tc, a_bar_moves_and_the_device_is_told_once);
	tcase_add_test(tc, a_parked_bar_gives_way_to_another);
	tcase_add_test(tc, impossible_places_are_not_decoded);
	tcase_add_test(tc, pins_share_a_line);
	tcase_add_test(tc, the_interrupt_disable_bit_holds_the_pin_back);
	tcase_add_test(tc, reset_puts_everything_back);
	tcase_add_test(tc, the_reset_register_resets_on_its_edge);
	tcase_add_test(tc, a_full_bus_refuses_more);
	tcase_add_test(tc, any_write_is_survived);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
