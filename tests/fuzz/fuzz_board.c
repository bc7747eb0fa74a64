/* SPDX-License-Identifier: MIT */
/*
 * fuzz_board.c - the ports of a PC's board, at every width: clock, PM registers, power, fw_cfg.
 *
 * An input is a list of 8-byte steps; two in three go where something lives.  Two vCPUs run it,
 * the second one backwards.  After each input the machine is reset and must be as at power-on:
 * the clock runs, the signature is there.
 */
#include <stdlib.h>
#include <string.h>
#include "devices/fw_cfg.h"
#include "devices/platform.h"
#include "tests/fuzz/fuzz.h"
#include "tests/support/fake_machine.h"
#include "vmm/util/bytes.h"

const char fuzz_name[] = "board";

#define DEVICES 5
#define STEP	8

static struct fake_machine *m;
static struct device *dev[DEVICES];

static void at_exit(void)
{
	for (unsigned i = 0; i < DEVICES; i++)
		dev[i]->ops->destroy(dev[i]);
	gmem_fini(&m->mem);
	fake_machine_free(m);
}

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void init(void)
{
	if (m)
		return;
	m = fake_machine_new();
	must(!gmem_init(&m->mem, 2 * MiB, NULL));
	must(!power_create(&m->s, &dev[0]) && !acpi_pm_create(&m->s, &dev[1]) &&
		!cmos_create(&m->s, 1, 0x32, &dev[2]) && !debug_exit_create(&m->s, &dev[3]) &&
		!fw_cfg_create(&m->s, &dev[4]));
	must(!fw_cfg_add_file(dev[4], "etc/something", "bytes", 5));
	atexit(at_exit);
}

static uint16_t port(uint8_t a, uint8_t b)
{
	static const uint16_t base[] = {
		0x70, 0x70, 0x600, 0x600, 0x600, 0x60, 0x92, 0xf4, 0x510, 0x510, 0x510};

	if (a % 3 == 0)
		return (uint16_t)(a << 8 | b);
	return (uint16_t)(base[a % ARRAY_SIZE(base)] + b % 14);
}

/* A descriptor near the start of memory, whatever it says, for fw_cfg. */
static void dma(const uint8_t *p)
{
	uint64_t gpa = (uint64_t)p[1] << 4 | p[2];
	uint8_t *desc = gmem_ptr(&m->mem, gpa, 16);
	uint8_t half[4];

	memset(desc, 0, 16);
	desc[1] = p[3] % 0x40; /* an item */
	desc[3] = p[3];	       /* what to do */
	be_put(desc + 4, p[4] >= 0xf0 ? UINT32_MAX - p[4] : (uint64_t)p[4] << p[5] % 16, 4);
	be_put(desc + 8, (uint64_t)p[6] << p[5] / 8 | p[7], 8);
	be_put(half, gpa, 4);
	out32(m, 0x518, le_get(half, 4));
}

static void do_step(const uint8_t *p)
{
	unsigned len = 1u << p[0] % 3;
	uint64_t v = 0;

	if ((p[0] & 0x7c) == 0x78) {
		dma(p);
		return;
	}
	memcpy(&v, p + 3, 5);
	if (p[0] & 0x80)
		fake_write(m, BUS_PORT, port(p[1], p[2]), v, len);
	else
		fake_read(m, BUS_PORT, port(p[1], p[2]), len);
	if ((p[0] & 0x7c) == 0x7c)
		acpi_pm_button(dev[1]);
}

struct run {
	const uint8_t *p;
	size_t n;
};

static void *backwards(void *arg)
{
	const struct run *r = arg;

	for (size_t i = r->n; i-- > 0;)
		do_step(r->p + i * STEP);
	return NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct run r = {data, size / STEP};
	pthread_t other;

	init();
	must(!pthread_create(&other, NULL, backwards, &r));
	for (size_t i = 0; i < r.n; i++)
		do_step(data + i * STEP);
	pthread_join(other, NULL);
	for (unsigned i = 0; i < DEVICES; i++)
		if (dev[i]->ops->reset)
			dev[i]->ops->reset(dev[i]);
	must(!atomic_load(&m->irqs.line[ACPI_PM_GSI].level));
	must(in8(m, 0x511) == 'Q');
	out8(m, 0x70, 0x0d);
	must(in8(m, 0x71) == 0x80);
	must((in32(m, 0x600) & 0xfffffffe) == 0 && in8(m, 0x92) == 2);
	return 0;
}

/* Eight programs of random steps. */
size_t fuzz_seed(uint8_t *data, size_t size, unsigned n)
{
	size_t len = 100 * STEP;

	if (n >= 8 || len > size)
		return 0;
	fuzz_noise(data, len, n);
	return len;
}
