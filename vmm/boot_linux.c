/* SPDX-License-Identifier: MIT */
/*
 * boot_linux.c - a Linux bzImage into guest memory, with the boot parameters ("zero page").
 *
 * The real-mode part of the file is not run: its setup header is read, checked, and handed on in
 * the boot parameters.  A kernel that has a 64-bit entry is entered there, in long mode
 * with the low 4 GiB mapped to themselves; another one at its 32-bit entry.
 *
 * Source: Linux, Documentation/arch/x86/boot.rst and zero-page.rst.  The header's fields are taken
 * by offset, because its length differs between versions of the protocol.
 *
 * The file is not trusted: sizes and addresses are checked before use, and nothing is written but
 * guest RAM.
 */
#include "vmm/boot_linux.h"

#include <inttypes.h>
#include <string.h>
#include "vmm/util/bytes.h"

/* The setup header, by its offset in the file and in the boot parameters. */
enum {
	H_SETUP_SECTS = 0x1f1,
	H_JUMP_LEN = 0x201,
	H_MAGIC = 0x202,
	H_VERSION = 0x206,
	H_LOADER = 0x210,
	H_LOADFLAGS = 0x211,
	H_RAMDISK = 0x218,
	H_RAMDISK_SIZE = 0x21c,
	H_CMDLINE = 0x228,
	H_INITRD_MAX = 0x22c,
	H_ALIGN = 0x230,
	H_RELOCATABLE = 0x234,
	H_XLOADFLAGS = 0x236,
	H_CMDLINE_MAX = 0x238,
	H_PREF_ADDRESS = 0x258,
	H_INIT_SIZE = 0x260,
};
#define H_START	       0x1f1
#define LOADED_HIGH    0x01
#define KERNEL_64      0x01
#define ENTRY_64       0x200 /* from where the kernel was loaded */
#define LOADER_UNNAMED 0xff
/* 2.06 has the longest command line, 2.10 a preferred address, 2.12 the 64-bit entry. */
#define VERSION_MIN  0x206
#define VERSION_PREF 0x20a
#define VERSION_64   0x20c

/* Other fields of the boot parameters. */
enum { P_RSDP = 0x70, P_E820_ENTRIES = 0x1e8, P_E820 = 0x2d0, P_BYTES = 4096 };
#define E820_RAM 1

/* A kernel's own header is shorter than what the boot parameters hold. */
#define HEADER_BYTES (P_E820 - H_START)

struct linux_file {
	const struct blob *k;
	uint8_t page[P_BYTES]; /* the boot parameters to be, with the setup header */
	unsigned version;
	uint64_t off, size;    /* of the protected-mode kernel, in the file */
	uint64_t at, end;      /* where it is loaded; what it needs beyond that to unpack itself */
};

bool boot_linux_is(const struct blob *k)
{
	char magic[4];

	return !blob_read(k, H_MAGIC, magic, sizeof(magic)) && !memcmp(magic, "HdrS", 4);
}

static int bad(const struct linux_file *f, struct why *why, const char *what)
{
	return why_set(why, -ENOEXEC, "%s: %s", f->k->name, what);
}

static int header_read(struct linux_file *f, struct why *why)
{
	uint8_t head[H_START + HEADER_BYTES];
	unsigned sects, len;

	memset(head, 0, sizeof(head));
	if (blob_read(f->k, 0, head, min_u64(sizeof(head), f->k->size)) || !boot_linux_is(f->k))
		return bad(f, why, "not a Linux kernel");
	f->version = (unsigned)le_get(head + H_VERSION, 2);
	if (f->version < VERSION_MIN || !(head[H_LOADFLAGS] & LOADED_HIGH))
		return bad(f, why, "a kernel older than Linux 2.6.22, which cannot be booted");
	len = H_MAGIC + head[H_JUMP_LEN] - H_START;
	memcpy(f->page + H_START, head + H_START, min_u64(len, HEADER_BYTES));
	sects = head[H_SETUP_SECTS] ? head[H_SETUP_SECTS] : 4;
	f->off = (sects + 1) * 512;
	if (f->off >= f->k->size)
		return bad(f, why, "broken kernel: it ends in its setup code");
	f->size = f->k->size - f->off;
	return 0;
}

/* Where it wants to be; all of it, unpacked, must fit into low RAM. */
static int place(struct linux_file *f, const struct gmem *m, struct why *why)
{
	uint64_t need = f->size;

	f->at = HIGH_RAM;
	if (f->version >= VERSION_PREF) {
		if (f->page[H_RELOCATABLE])
			f->at = le_get(f->page + H_PREF_ADDRESS, 8);
		need = max_u64(need, le_get(f->page + H_INIT_SIZE, 4));
	}
	if (f->at < HIGH_RAM || f->at % 4096)
		return bad(f, why, "broken kernel: it wants to lie where no kernel can");
	if (!range_within(f->at, need, m->r[0].len))
		return why_set(why, -ENOMEM,
			"%s: at %#" PRIx64 " it needs %" PRIu64
			" MiB, which do not fit into %" PRIu64
			" MiB of guest memory: use a larger -m",
			f->k->name, f->at, div_round_up(need, MiB),
			(uint64_t)(gmem_bytes(m) / MiB));
	f->end = f->at + need;
	return 0;
}

/* Long mode at entry: flat segments at selectors 0x10 and 0x18, and identity in 2 MiB pages. */
static void long_mode_tables(const struct gmem *m)
{
	static const uint64_t gdt[] = {0, 0, 0x00af9b000000ffff, 0x00cf93000000ffff};
	uint8_t *p = gmem_ptr(m, BOOT_PAGES, 6 * 4096);

	memcpy(gmem_ptr(m, BOOT_GDT, sizeof(gdt)), gdt, sizeof(gdt));
	memset(p, 0, 6 * 4096);
	le_put(p, (BOOT_PAGES + 4096) | 3, 8);
	for (unsigned i = 0; i < 4; i++)
		le_put(p + 4096 + 8 * i, (BOOT_PAGES + 4096 * (2 + i)) | 3, 8);
	for (uint64_t i = 0; i < 4 * 512; i++)
		le_put(p + 2 * 4096 + 8 * i, i * 2 * MiB | 0x83, 8);
}

static void page_fill(struct linux_file *f, const struct gmem *m, const struct boot_source *src)
{
	struct boot_range ram[GMEM_REGIONS_MAX + 1];
	unsigned n = boot_memmap(m, ram);

	f->page[H_LOADER] = LOADER_UNNAMED;
	le_put(f->page + H_CMDLINE, BOOT_CMDLINE, 4);
	le_put(f->page + P_RSDP, src->rsdp, 8);
	f->page[P_E820_ENTRIES] = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		uint8_t *e = f->page + P_E820 + 20 * i;

		le_put(e, ram[i].gpa, 8);
		le_put(e + 8, ram[i].len, 8);
		le_put(e + 16, E820_RAM, 4);
	}
}

int boot_linux_load(const struct gmem *m, const struct boot_source *src, struct boot_start *out,
	struct why *why)
{
	struct linux_file f = {.k = src->kernel};
	uint64_t ramdisk;
	bool is64;
	int err;

	err = header_read(&f, why);
	if (!err)
		err = place(&f, m, why);
	if (!err)
		err = boot_cmdline(m, src->cmdline, why);
	if (err)
		return err;
	if (strlen(src->cmdline) > le_get(f.page + H_CMDLINE_MAX, 4))
		return why_set(why, -E2BIG,
			"%s: takes a command line of %" PRIu64 " bytes at most", f.k->name,
			le_get(f.page + H_CMDLINE_MAX, 4));
	err = blob_read(f.k, f.off, gmem_ptr(m, f.at, f.size), f.size);
	if (err)
		return why_set(why, err, "%s: %s", f.k->name, strerror(-err));
	if (src->initrd) {
		err = boot_initrd(m, src->initrd, f.end,
			le_get(f.page + H_INITRD_MAX, 4) + 1, &ramdisk, why);
		if (err)
			return err;
		le_put(f.page + H_RAMDISK, (uint32_t)ramdisk, 4);
		le_put(f.page + H_RAMDISK_SIZE, (uint32_t)src->initrd->size, 4);
	}
	page_fill(&f, m, src);
	memcpy(gmem_ptr(m, BOOT_BASE, sizeof(f.page)), f.page, sizeof(f.page));
	is64 = f.version >= VERSION_64 && f.page[H_XLOADFLAGS] & KERNEL_64;
	if (is64)
		long_mode_tables(m);
	*out = (struct boot_start){is64 ? BOOT_LINUX64 : BOOT_LINUX32,
		(uint32_t)(f.at + (is64 ? ENTRY_64 : 0)), (uint32_t)BOOT_BASE};
	return 0;
}
