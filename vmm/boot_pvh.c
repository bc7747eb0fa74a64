/* SPDX-License-Identifier: MIT */
/*
 * boot_pvh.c - an ELF file into guest memory, and what the PVH boot protocol puts beside it.
 *
 * The kernel says with an ELF note (XEN_ELFNOTE_PHYS32_ENTRY) where it wants to be entered
 * in 32-bit mode.  The start info, the memory map, the list of modules and the command line
 * lie at BOOT_BASE, below the hole for video memory.
 *
 * The file is not trusted: every offset and address is checked before use, and nothing is
 * written but guest RAM.  Whether its segments make sense is the guest's own business.
 *
 * Not here: the registers at entry (vcpu_state.c).
 */
#include "vmm/boot_pvh.h"

#include <elf.h>
#include <inttypes.h>
#include <string.h>

#define BOOT_MODLIST (BOOT_BASE + 0x100)
#define BOOT_MEMMAP  (BOOT_BASE + 0x200)

#define NOTE_PHYS32_ENTRY 18
/* Linux has about five program headers and a few hundred bytes of notes. */
#define PHDRS_MAX      256
#define NOTE_BYTES_MAX 65536

/* The PVH ABI, xen/include/public/arch-x86/hvm/start_info.h. */
struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};
static_assert(sizeof(struct start_info) == 56, "PVH ABI");
#define START_INFO_MAGIC 0x336ec578

struct modlist_entry {
	uint64_t paddr, size, cmdline, reserved;
};
static_assert(sizeof(struct modlist_entry) == 32, "PVH ABI");

struct memmap_entry {
	uint64_t addr, size;
	uint32_t type, reserved;
};
static_assert(sizeof(struct memmap_entry) == 24, "PVH ABI");
#define MEMMAP_RAM 1

struct loader {
	const struct gmem *m;
	const struct blob *k;
	struct why *why;
	bool has_entry;
	uint64_t entry;
	uint64_t end; /* of the highest byte loaded in low RAM */
};

static int bad(struct loader *l, const char *what)
{
	return why_set(l->why, -ENOEXEC, "%s: broken ELF file: %s", l->k->name, what);
}

static int no_pvh(struct loader *l, const char *what)
{
	return why_set(l->why, -ENOEXEC,
		"%s: %s; give a bzImage (vmlinuz) or an ELF kernel with a "
		"PVH entry, such as a vmlinux built with CONFIG_PVH=y",
		l->k->name, what);
}

/* Both classes of ELF come down to this. */
struct phdr {
	uint32_t type;
	uint64_t off, paddr, filesz, memsz, align;
};

static int phdr_read(struct loader *l, bool is64, uint64_t at, struct phdr *p)
{
	Elf64_Phdr p64;
	Elf32_Phdr p32;
	int err;

	if (is64) {
		err = blob_read(l->k, at, &p64, sizeof(p64));
		if (!err)
			*p = (struct phdr){p64.p_type, p64.p_offset, p64.p_paddr, p64.p_filesz,
				p64.p_memsz, p64.p_align};
		return err;
	}
	err = blob_read(l->k, at, &p32, sizeof(p32));
	if (!err)
		*p = (struct phdr){p32.p_type, p32.p_offset, p32.p_paddr, p32.p_filesz, p32.p_memsz,
			p32.p_align};
	return err;
}

static int segment_load(struct loader *l, const struct phdr *p)
{
	uint8_t *to;
	int err;

	if (p->filesz > p->memsz)
		return bad(l, "a segment is larger in the file than in memory");
	if (!p->memsz)
		return 0;
	to = gmem_ptr(l->m, p->paddr, p->memsz);
	if (!to)
		return why_set(l->why, -ENOMEM,
			"%s: a segment at %#" PRIx64 " of %" PRIu64
			" KiB does not fit into %" PRIu64 " MiB of guest memory: use a larger -m",
			l->k->name, p->paddr, div_round_up(p->memsz, KiB),
			(uint64_t)(gmem_bytes(l->m) / MiB));
	if (ranges_overlap(p->paddr, p->memsz, BOOT_BASE, BOOT_END - BOOT_BASE))
		return why_set(l->why, -ENOEXEC,
			"%s: a segment lies at %#" PRIx64 ", where the boot information goes",
			l->k->name, p->paddr);
	err = blob_read(l->k, p->off, to, p->filesz);
	if (err == -ENODATA)
		return bad(l, "a segment ends after the file does");
	if (err)
		return why_set(l->why, err, "%s: %s", l->k->name, strerror(-err));
	memset(to + p->filesz, 0, p->memsz - p->filesz);
	if (p->paddr < GMEM_LOW_END)
		l->end = max_u64(l->end, p->paddr + p->memsz);
	return 0;
}

/* Looks for the entry point in one note segment; notes of others pass by. */
static int notes_scan(struct loader *l, const struct phdr *p)
{
	uint8_t buf[NOTE_BYTES_MAX];
	uint64_t align = p->align == 8 ? 8 : 4, at = 0;

	if (p->filesz > sizeof(buf) || blob_read(l->k, p->off, buf, p->filesz))
		return bad(l, "its notes are out of bounds");
	while (p->filesz - at >= sizeof(Elf64_Nhdr)) {
		Elf64_Nhdr n; /* the same in both classes */
		uint64_t name = at + sizeof(n), desc, next;

		memcpy(&n, buf + at, sizeof(n));
		desc = at + round_up(sizeof(n) + n.n_namesz, align);
		next = at + round_up(desc - at + n.n_descsz, align);
		if (desc + n.n_descsz > p->filesz)
			return bad(l, "a note is out of bounds");
		if (n.n_type == NOTE_PHYS32_ENTRY && n.n_namesz == 4 &&
			!memcmp(buf + name, "Xen", 4) && (n.n_descsz == 4 || n.n_descsz == 8)) {
			l->entry = 0;
			memcpy(&l->entry, buf + desc, n.n_descsz); /* little-endian like us */
			l->has_entry = true;
		}
		if (next >= p->filesz)
			break;
		at = next;
	}
	return 0;
}

static int phdrs_walk(struct loader *l, bool is64, uint64_t phoff, unsigned n, unsigned entsize,
	uint32_t type, int (*fn)(struct loader *l, const struct phdr *p))
{
	for (unsigned i = 0; i < n; i++) {
		struct phdr p;
		int err = phoff > l->k->size
				  ? -ENODATA
				  : phdr_read(l, is64, phoff + (uint64_t)i * entsize, &p);

		if (err == -ENODATA)
			return bad(l, "its program headers are out of bounds");
		if (err)
			return why_set(l->why, err, "%s: %s", l->k->name, strerror(-err));
		if (p.type != type)
			continue;
		err = fn(l, &p);
		if (err)
			return err;
	}
	return 0;
}

static int elf_load(struct loader *l)
{
	union {
		unsigned char ident[EI_NIDENT];
		Elf32_Ehdr h32;
		Elf64_Ehdr h64;
	} e;
	unsigned n, entsize;
	uint64_t phoff;
	bool is64;
	int err;

	memset(&e, 0, sizeof(e));
	if (blob_read(l->k, 0, &e, min_u64(sizeof(e), l->k->size)) ||
		memcmp(e.ident, ELFMAG, SELFMAG))
		return no_pvh(l, "not an ELF file, nor a bzImage");
	is64 = e.ident[EI_CLASS] == ELFCLASS64;
	if (e.ident[EI_DATA] != ELFDATA2LSB || (!is64 && e.ident[EI_CLASS] != ELFCLASS32) ||
		(is64 ? e.h64.e_machine != EM_X86_64 : e.h32.e_machine != EM_386))
		return no_pvh(l, "not for x86");
	n = is64 ? e.h64.e_phnum : e.h32.e_phnum;
	entsize = is64 ? e.h64.e_phentsize : e.h32.e_phentsize;
	phoff = is64 ? e.h64.e_phoff : e.h32.e_phoff;
	if (n > PHDRS_MAX || entsize < (is64 ? sizeof(Elf64_Phdr) : sizeof(Elf32_Phdr)))
		return bad(l, "its program headers have a strange size or number");
	err = phdrs_walk(l, is64, phoff, n, entsize, PT_NOTE, notes_scan);
	if (err)
		return err;
	if (!l->has_entry)
		return no_pvh(l, "no PVH entry in this ELF file");
	if (l->entry > UINT32_MAX || !gmem_ptr(l->m, l->entry, 1))
		return bad(l, "its entry point is not in memory");
	err = phdrs_walk(l, is64, phoff, n, entsize, PT_LOAD, segment_load);
	if (err)
		return err;
	return l->end ? 0 : bad(l, "nothing to load");
}

int boot_pvh_load(const struct gmem *m, const struct boot_source *src, struct boot_start *out,
	struct why *why)
{
	struct start_info si = {.magic = START_INFO_MAGIC,
		.version = 1,
		.cmdline = BOOT_CMDLINE,
		.rsdp = src->rsdp,
		.memmap = BOOT_MEMMAP};
	struct loader l = {.m = m, .k = src->kernel, .why = why};
	struct boot_range ram[GMEM_REGIONS_MAX + 1];
	struct memmap_entry map[GMEM_REGIONS_MAX + 1];
	int err;

	err = boot_cmdline(m, src->cmdline, why);
	if (err)
		return err;
	err = elf_load(&l);
	if (err)
		return err;
	if (src->initrd) {
		struct modlist_entry mod = {.size = src->initrd->size};

		err = boot_initrd(m, src->initrd, l.end, UINT64_MAX, &mod.paddr, why);
		if (err)
			return err;
		si.nr_modules = 1;
		si.modlist = BOOT_MODLIST;
		memcpy(gmem_ptr(m, BOOT_MODLIST, sizeof(mod)), &mod, sizeof(mod));
	}
	si.memmap_entries = boot_memmap(m, ram);
	for (unsigned i = 0; i < si.memmap_entries; i++)
		map[i] = (struct memmap_entry){ram[i].gpa, ram[i].len, MEMMAP_RAM, 0};
	memcpy(gmem_ptr(m, BOOT_MEMMAP, sizeof(map)), map, si.memmap_entries * sizeof(map[0]));
	memcpy(gmem_ptr(m, BOOT_BASE, sizeof(si)), &si, sizeof(si));
	*out = (struct boot_start){BOOT_PVH, (uint32_t)l.entry, (uint32_t)BOOT_BASE};
	return 0;
}
