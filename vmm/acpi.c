/* SPDX-License-Identifier: MIT */
/*
 * acpi.c - ACPI tables: RSDP, XSDT, FADT with its FACS, MADT; and the DSDT, which is compiled
 * from dsdt.asl when this program is built.
 *
 * The machine is always in ACPI mode (no SMI command port), has no general-purpose events,
 * a fixed power button, a 32-bit PM timer and a reset register.  Addresses and interrupts
 * are those of devices/acpi_pm.c and devices/pci.c.
 *
 * Fields are put by offset, as the specification (ACPI 6.4, chapter 5) lists them.
 */
#include "vmm/acpi.h"

#include <string.h>
#include "devices/platform.h"
#include "vmm/boot.h"
#include "vmm/embed.h"
#include "vmm/util/bytes.h"

#define HEADER_BYTES 36
#define FADT_BYTES   244 /* version 3 */
#define FACS_BYTES   64
#define RESET_PORT   0xcf9
#define RESET_VALUE  6

struct builder {
	uint8_t *base; /* of the whole room */
	uint64_t gpa;
	uint64_t used;
};

/* The next table: zeroed, 64-byte aligned; checksum and length follow in table_end(). */
static uint8_t *table_begin(struct builder *b, const char *signature, unsigned revision)
{
	uint8_t *t;

	b->used = round_up(b->used, 64);
	t = b->base + b->used;
	memcpy(t, signature, 4);
	t[8] = (uint8_t)revision;
	memcpy(t + 10, "SLUICESLUICE  ", 14);
	le_put(t + 24, 1, 4);
	memcpy(t + 28, "SLUI", 4);
	le_put(t + 32, 1, 4);
	return t;
}

static uint8_t sum(const uint8_t *p, uint64_t len)
{
	uint8_t s = 0;

	while (len--)
		s = (uint8_t)(s + *p++);
	return s;
}

/* Returns the table's guest-physical address. */
static uint64_t table_end(struct builder *b, uint8_t *t, uint64_t len)
{
	le_put(t + 4, len, 4);
	t[9] = (uint8_t)-sum(t, len);
	b->used = (uint64_t)(t - b->base) + len;
	assert(b->used <= ACPI_BYTES);
	return b->gpa + (uint64_t)(t - b->base);
}

static uint64_t add_dsdt(struct builder *b)
{
	uint64_t len = embed_dsdt_size(), at = round_up(b->used, 64);

	assert(len >= HEADER_BYTES && at + len <= ACPI_BYTES);
	memcpy(b->base + at, embed_dsdt_data, len);
	b->used = at + len;
	return b->gpa + at;
}

/* It has neither checksum nor the usual header. */
static uint64_t add_facs(struct builder *b)
{
	uint8_t *t;

	b->used = round_up(b->used, 64);
	t = b->base + b->used;
	memcpy(t, "FACS", 4);
	le_put(t + 4, FACS_BYTES, 4);
	t[32] = 2; /* version */
	b->used += FACS_BYTES;
	return b->gpa + (uint64_t)(t - b->base);
}

/* A generic address: a port, accessed by its own width. */
static void port_put(uint8_t *p, uint16_t port, unsigned bytes)
{
	p[0] = 1;
	p[1] = (uint8_t)(8 * bytes);
	p[3] = bytes == 1 ? 1 : bytes == 2 ? 2 : 3;
	le_put(p + 4, port, 8);
}

static uint64_t add_fadt(struct builder *b, uint64_t dsdt, uint64_t facs)
{
	uint8_t *t = table_begin(b, "FACP", 3);

	le_put(t + 36, facs, 4);
	le_put(t + 40, dsdt, 4);
	le_put(t + 46, ACPI_PM_GSI, 2);
	le_put(t + 56, ACPI_PM_PORT, 4);
	le_put(t + 64, ACPI_PM_PORT + 4, 4);
	le_put(t + 76, ACPI_PM_PORT + 8, 4);
	t[88] = 4;			       /* bytes of the event registers */
	t[89] = 2;			       /* of the control register */
	t[91] = 4;			       /* of the timer */
	le_put(t + 96, 0xfff, 2);	       /* no C2 */
	le_put(t + 98, 0xfff, 2);	       /* no C3 */
	t[108] = 0x32;			       /* the century, in CMOS */
	le_put(t + 109, 1 << 0 | 1 << 2, 2);   /* ISA devices; no VGA, no keyboard controller */
	/* WBINVD, C1, no sleep button, no fixed RTC event, timer of 32 bits, reset register */
	le_put(t + 112, 1 << 0 | 1 << 2 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10, 4);
	port_put(t + 116, RESET_PORT, 1);
	t[128] = RESET_VALUE;
	le_put(t + 132, facs, 8);
	le_put(t + 140, dsdt, 8);
	port_put(t + 148, ACPI_PM_PORT, 4);
	port_put(t + 172, ACPI_PM_PORT + 4, 2);
	port_put(t + 208, ACPI_PM_PORT + 8, 4);
	return table_end(b, t, FADT_BYTES);
}

static uint8_t *add_override(uint8_t *p, unsigned irq, unsigned gsi, unsigned flags)
{
	p[0] = 2;
	p[1] = 10;
	p[3] = (uint8_t)irq;
	le_put(p + 4, gsi, 4);
	le_put(p + 8, flags, 2);
	return p + 10;
}

static uint64_t add_madt(struct builder *b, unsigned n_cpus)
{
	enum { LEVEL_HIGH = 0xd, LEVEL_LOW = 0xf };
	uint8_t *t = table_begin(b, "APIC", 3), *p = t + 44;

	le_put(t + 36, 0xfee00000, 4);
	le_put(t + 40, 1, 4); /* there are two 8259s as well */
	for (unsigned i = 0; i < n_cpus; i++, p += 8) {
		p[1] = 8;
		p[2] = p[3] = (uint8_t)i;
		p[4] = 1;
	}
	p[0] = 1;
	p[1] = 12;
	le_put(p + 4, 0xfec00000, 4);
	p = add_override(p + 12, 0, 2, 0);
	p = add_override(p, ACPI_PM_GSI, ACPI_PM_GSI, LEVEL_HIGH);
	/* PCI's lines, whose default is low; the I/O APIC here looks at no polarity. */
	p = add_override(p, 10, 10, LEVEL_LOW);
	p = add_override(p, 11, 11, LEVEL_LOW);
	p[0] = 4; /* NMI: every CPU's LINT1 */
	p[1] = 6;
	p[2] = 0xff;
	p[5] = 1;
	return table_end(b, t, (uint64_t)(p + 6 - t));
}

int acpi_build(const struct gmem *m, uint64_t gpa, unsigned n_cpus)
{
	struct builder b = {.base = gmem_ptr(m, gpa, ACPI_BYTES), .gpa = gpa, .used = 64};
	uint64_t dsdt, fadt, madt, xsdt;
	uint8_t *t;

	if (!b.base)
		return -ENOMEM;
	memset(b.base, 0, ACPI_BYTES);
	dsdt = add_dsdt(&b);
	fadt = add_fadt(&b, dsdt, add_facs(&b));
	madt = add_madt(&b, n_cpus);
	t = table_begin(&b, "XSDT", 1);
	le_put(t + HEADER_BYTES, fadt, 8);
	le_put(t + HEADER_BYTES + 8, madt, 8);
	xsdt = table_end(&b, t, HEADER_BYTES + 16);
	t = table_begin(&b, "RSDT", 1);
	le_put(t + HEADER_BYTES, fadt, 4);
	le_put(t + HEADER_BYTES + 4, madt, 4);
	memcpy(b.base, "RSD PTR ", 8);
	memcpy(b.base + 9, "SLUICE", 6);
	b.base[15] = 2; /* revision: ACPI 2.0 and later */
	le_put(b.base + 16, table_end(&b, t, HEADER_BYTES + 8), 4);
	le_put(b.base + 20, ACPI_RSDP_BYTES, 4);
	le_put(b.base + 24, xsdt, 8);
	b.base[8] = (uint8_t)-sum(b.base, 20);
	b.base[32] = (uint8_t)-sum(b.base, ACPI_RSDP_BYTES);
	return 0;
}
