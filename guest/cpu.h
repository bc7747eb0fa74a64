/* SPDX-License-Identifier: MIT */
/* cpu.h - numbers that start.S and the C code share. */
#ifndef GUEST_CPU_H
#define GUEST_CPU_H

#define SEL_CODE0 0x08
#define SEL_DATA0 0x10
#define SEL_DATA3 0x1b
#define SEL_CODE3 0x23
#define SEL_TSS   0x28

#define FLAGS_CPL3 0x3002 /* IOPL 3, interrupts off */

/* What int3 can ask for, in eax. */
#define CALL_IDLE   1 /* sleep until an interrupt, unless irq_events is no longer edx */
#define CALL_IRQ_ON 2
#define CALL_HALT   3
#define CALL_TRIPLE 4

#define IRQ_DEVICES     8
#define VECTOR_DEVICE   0x40
#define VECTOR_TIMER    (VECTOR_DEVICE + IRQ_DEVICES)
#define VECTOR_SPURIOUS 0xff

#define MAPPED_GIB      8
#define AP_TRAMPOLINE   0x8000
#define DEBUG_EXIT_PORT 0xf4

/* The exit status: what the hypervisor's process returns (QEMU: 2 * status + 1). */
#define STATUS_OK        0
#define STATUS_DATA      2 /* a job found wrong data */
#define STATUS_DEVICE    3 /* the device, or the driver's view of it, failed */
#define STATUS_USAGE     4 /* command line or trace */
#define STATUS_EXCEPTION 5

#endif
