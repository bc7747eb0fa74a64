/* SPDX-License-Identifier: MIT */
/*
 * firmware.c - SeaBIOS: where its bytes lie, and what it learns about the machine.
 *
 * The image ends at 4 GiB, where a processor starts; its last 128 KiB are in RAM below 1 MiB
 * too, as if the chipset had copied them there already.  At a reset that copy is made anew, so
 * that SeaBIOS begins with itself and not with what it left.
 *
 * The ACPI tables are the ones that a kernel gets which is booted directly.  They lie in the last
 * pages of low RAM, reserved in the memory map; SeaBIOS only has to put the root pointer where
 * systems look for it (the loader script with one command).
 *
 * Source: SeaBIOS, docs/Runtime_config.md; QEMU, docs/specs/fw_cfg.rst.
 */
#include "vmm/firmware.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "devices/fw_cfg.h"
#include "vmm/acpi.h"
#include "vmm/boot.h"
#include "vmm/kvm.h"
#include "vmm/util/bytes.h"

#define ROM_MAX	 (16 * MiB)
#define ROM_UNIT (64 * KiB)
#define LOW_COPY (128 * KiB)
#define MEM_MIN	 (4 * MiB) /* SeaBIOS unpacks itself and its tables there */
#define COM1	 0x3f8

#define E820_BYTES    20
#define E820_RAM      1
#define E820_RESERVED 2

/* One command of the loader script. */
#define COMMAND_BYTES	 128
#define COMMAND_ALLOCATE 1
#define ZONE_FSEG	 2

struct firmware {
	struct machine_services *s;
	const struct blob *rom;
	void *image;
	uint64_t acpi_gpa;
	unsigned n_cpus;
};

const char *firmware_default(void)
{
	static const char *const paths[] = {"/usr/share/seabios/bios-256k.bin",
		"/usr/share/seabios/bios.bin", "/usr/share/qemu/bios-256k.bin",
		"/usr/share/qemu/bios.bin"};

	for (unsigned i = 0; i < ARRAY_SIZE(paths); i++)
		if (!access(paths[i], R_OK))
			return paths[i];
	return NULL;
}

static int rom_map(struct firmware *f, struct kvm *k, struct why *why)
{
	uint64_t size = f->rom->size;
	int err;

	if (!size || size % ROM_UNIT || size < LOW_COPY || size > ROM_MAX)
		return why_set(why, -EINVAL,
			"%s: no PC firmware: its size is not a multiple of 64 KiB from 128 KiB "
			"to 16 MiB",
			f->rom->name);
	f->image = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (f->image == MAP_FAILED) {
		f->image = NULL;
		return -errno;
	}
	err = blob_read(f->rom, 0, f->image, size);
	if (err)
		return why_set(why, err, "%s: %s", f->rom->name, strerror(-err));
	err = kvm_rom_add(k, GMEM_REGIONS_MAX, 4 * GiB - size, size, f->image);
	if (err)
		return why_set(why, err, "KVM refuses the firmware's memory: %s", strerror(-err));
	return 0;
}

static int add_memory_map(struct firmware *f, struct device *d)
{
	const struct gmem *m = f->s->mem;
	uint8_t map[(GMEM_REGIONS_MAX + 1) * E820_BYTES] = {0}, *e = map;

	for (int i = 0; i < m->n; i++, e += E820_BYTES) {
		le_put(e, m->r[i].gpa, 8);
		le_put(e + 8, i ? m->r[i].len : f->acpi_gpa, 8);
		le_put(e + 16, E820_RAM, 4);
	}
	le_put(e, f->acpi_gpa, 8);
	le_put(e + 8, ACPI_BYTES, 8);
	le_put(e + 16, E820_RESERVED, 4);
	return fw_cfg_add_file(d, "etc/e820", map, (uint32_t)(e + E820_BYTES - map));
}

/* Tables are built now for the root pointer's sake, and at each reset where they belong. */
static int add_acpi(struct firmware *f, struct device *d)
{
	static const char rsdp[] = "etc/acpi/rsdp";
	uint8_t script[COMMAND_BYTES] = {COMMAND_ALLOCATE};
	int err = acpi_build(f->s->mem, f->acpi_gpa, f->n_cpus);

	if (err)
		return err;
	memcpy(script + 4, rsdp, sizeof(rsdp));
	script[4 + 56] = 16; /* alignment */
	script[4 + 60] = ZONE_FSEG;
	err = fw_cfg_add_file(d, rsdp, gmem_ptr(f->s->mem, f->acpi_gpa, ACPI_RSDP_BYTES),
		ACPI_RSDP_BYTES);
	return err ? err : fw_cfg_add_file(d, "etc/table-loader", script, sizeof(script));
}

static int add_facts(struct firmware *f, struct device *d)
{
	uint8_t cpus[2], port[2];
	int err;

	le_put(cpus, f->n_cpus, 2);
	le_put(port, COM1, 2);
	err = fw_cfg_add(d, FW_CFG_CPUS, cpus, sizeof(cpus));
	if (!err)
		err = fw_cfg_add(d, FW_CFG_MAX_CPUS, cpus, sizeof(cpus));
	if (!err)
		err = add_memory_map(f, d);
	if (!err)
		err = add_acpi(f, d);
	/* The serial port is the screen and the keyboard. */
	return err ? err : fw_cfg_add_file(d, "etc/sercon-port", port, sizeof(port));
}

int firmware_new(struct kvm *k, struct machine_services *s, const struct blob *rom,
	unsigned n_cpus, struct firmware **out, struct device **dev, struct why *why)
{
	struct firmware *f = calloc(1, sizeof(*f));
	struct device *d;
	int err;

	if (!f)
		return -ENOMEM;
	*out = f; /* the caller frees it, once the VM is gone */
	f->s = s;
	f->rom = rom;
	f->n_cpus = n_cpus;
	if (s->mem->r[0].len < MEM_MIN)
		return why_set(
			why, -ENOMEM, "firmware needs 4 MiB of guest memory: use a larger -m");
	f->acpi_gpa = s->mem->r[0].len - ACPI_BYTES;
	err = rom_map(f, k, why);
	if (err)
		return err;
	err = fw_cfg_create(s, &d);
	if (err)
		return err;
	err = add_facts(f, d);
	if (err)
		d->ops->destroy(d);
	else
		*dev = d;
	return err;
}

int firmware_load(struct firmware *f, struct why *why)
{
	const struct gmem *m = f->s->mem;

	memcpy(gmem_ptr(m, MiB - LOW_COPY, LOW_COPY),
		(uint8_t *)f->image + f->rom->size - LOW_COPY, LOW_COPY);
	return acpi_build(m, f->acpi_gpa, f->n_cpus);
}

void firmware_free(struct firmware *f)
{
	if (!f)
		return;
	if (f->image)
		munmap(f->image, f->rom->size);
	free(f);
}
