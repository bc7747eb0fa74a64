/* SPDX-License-Identifier: MIT */
/*
 * acpi.h - the tables in which a guest reads what machine this is.
 */
#ifndef VMM_ACPI_H
#define VMM_ACPI_H

#include "vmm/guest_mem.h"

/* Room for all of them with 255 CPUs; a multiple of a page. */
#define ACPI_BYTES 0x4000
/* Where they lie without firmware: in what a PC's firmware would fill. */
#define ACPI_GPA 0xe0000ULL
#define ACPI_RSDP_BYTES 36

/*
 * Writes them to [gpa, gpa + ACPI_BYTES) of guest memory, the root pointer (RSDP) first.
 * 0, or -ENOMEM if there is no such memory.
 */
must_check int acpi_build(const struct gmem *m, uint64_t gpa, unsigned n_cpus);

#endif
