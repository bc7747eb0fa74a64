/* SPDX-License-Identifier: MIT */
/*
 * boot.c - what the loader left: command line, module and memory map, all by hvm_start_info (PVH).
 *
 * The loader is trusted to be well-meaning, not to be right: everything is checked to lie in
 * mapped memory, and a module in RAM.  The command line is copied, as it may lie anywhere.
 */
#include "guest/guest.h"

#define START_MAGIC   0x336ec578
#define RAM_RANGES    16
#define CMDLINE_BYTES 4096
#define MAPPED_BYTES  ((uint64_t)MAPPED_GIB << 30)

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};

struct start_module {
	uint64_t paddr, size, cmdline_paddr, reserved;
};

struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

extern const char image_start[], image_end[], ap_start[], ap_end[];
volatile uint32_t ap_count;
struct module boot_module;
static struct ram_range ram[RAM_RANGES];
static unsigned n_ram;

_Noreturn void guest_start(const struct start_info *si);
_Noreturn void guest_main(void);

static bool mapped(uint64_t addr, uint64_t size)
{
	return addr && addr < MAPPED_BYTES && size <= MAPPED_BYTES - addr;
}

static bool in_ram(uint64_t addr, uint64_t size)
{
	for (unsigned i = 0; i < n_ram; i++)
		if (addr >= ram[i].start && addr < ram[i].end && size <= ram[i].end - addr)
			return true;
	return false;
}

static void read_cmdline(const struct start_info *si)
{
	static char text[CMDLINE_BYTES];
	const volatile char *s = (const volatile char *)si->cmdline_paddr;

	if (mapped(si->cmdline_paddr, sizeof(text)))
		for (unsigned i = 0; i < sizeof(text) && s[i]; i++)
			text[i] = s[i];
	if (text[sizeof(text) - 1])
		fail(STATUS_USAGE, "command line longer than %u bytes", CMDLINE_BYTES - 1);
	options_init(text);
}

static void read_memmap(const struct start_info *si)
{
	const struct start_memmap *m = (const struct start_memmap *)si->memmap_paddr;

	if (si->version < 1 || si->memmap_entries > 4096 ||
		!mapped(si->memmap_paddr, si->memmap_entries * sizeof(*m)))
		fail(STATUS_USAGE, "the loader gave no usable memory map");
	for (unsigned i = 0; i < si->memmap_entries && n_ram < RAM_RANGES; i++) {
		uint64_t end;

		if (m[i].type != 1 || !m[i].size)
			continue;
		if (!__builtin_add_overflow(m[i].addr, m[i].size, &end))
			ram[n_ram++] = (struct ram_range){m[i].addr, end};
	}
}

unsigned ram_ranges(const struct ram_range **list)
{
	*list = ram;
	return n_ram;
}

static void read_module(const struct start_info *si)
{
	const struct start_module *m = (const struct start_module *)si->modlist_paddr;

	if (!si->nr_modules)
		return;
	if (!mapped(si->modlist_paddr, sizeof(*m)))
		fail(STATUS_USAGE, "module list at 0x%lx is out of reach", si->modlist_paddr);
	if (!m->size)
		return;
	if (!mapped(m->paddr, m->size) || !in_ram(m->paddr, m->size))
		fail(STATUS_USAGE, "module 0x%lx+0x%lx is not in RAM", m->paddr, m->size);
	boot_module = (struct module){(const uint8_t *)m->paddr, m->size};
}

_Noreturn void guest_start(const struct start_info *si)
{
	uint64_t module_start, map_bytes;

	cpu_init();
	report("start version=1");
	if (!mapped((uintptr_t)si, sizeof(*si)) || si->magic != START_MAGIC)
		fail(STATUS_USAGE, "no hvm_start_info at 0x%lx", (uint64_t)(uintptr_t)si);
	read_cmdline(si);
	read_memmap(si);
	read_module(si);

	map_bytes = si->memmap_entries * sizeof(struct start_memmap);
	module_start = (uintptr_t)boot_module.data;
	const struct ram_range used[] = {
		{(uintptr_t)image_start, (uintptr_t)image_end},
		{module_start, module_start + boot_module.size},
		{(uintptr_t)si, (uintptr_t)(si + 1)},
		{si->memmap_paddr, si->memmap_paddr + map_bytes},
	};
	memory_init(ram, n_ram, used, ARRAY_SIZE(used));
	guest_main();
}

/* n: CPUs expected in all.  They run ap_start (start.S) once and halt. */
void start_other_cpus(unsigned n)
{
	uint64_t deadline;

	memcpy((void *)AP_TRAMPOLINE, ap_start, (size_t)(ap_end - ap_start));
	apic_ipi_others(0x4500); /* INIT, assert */
	delay_usec(10000);
	for (unsigned i = 0; i < 2 && ap_count + 1 < n; i++) {
		apic_ipi_others(0x4600 | AP_TRAMPOLINE >> 12);
		deadline = tsc_after_ms(i ? 2000 : 200);
		while (rdtsc() < deadline && ap_count + 1 < n)
			__builtin_ia32_pause();
	}
}
