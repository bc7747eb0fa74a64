/* SPDX-License-Identifier: MIT */
/*
 * guest.h - what every part of the guest may use: output, options, memory, time, interrupts.
 *
 * Rules: C code runs at CPL3; one CPU; all memory is identity-mapped, so a pointer is a physical
 * address; errors of the command line or of the machine end the run through fail().
 */
#ifndef GUEST_GUEST_H
#define GUEST_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "guest/cpu.h"

#define PAGE_SIZE     4096u
#define SECTOR_SIZE   512u
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)     ((a) < (b) ? (a) : (b))
#define MAX(a, b)     ((a) > (b) ? (a) : (b))
#define must_check    __attribute__((warn_unused_result))

/* lib.c */
void *memcpy(void *restrict dst, const void *restrict src, size_t n);
void *memmove(void *dst, const void *src, size_t n);
void *memset(void *dst, int c, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int strcmp(const char *a, const char *b);
int strncmp(const char *a, const char *b, size_t n);
uint64_t random_next(uint64_t *state); /* state must not be 0 */

/* serial.c: a report is one line; %u %x unsigned, %lu %lx uint64_t, %c and %s, nothing else. */
void report(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
_Noreturn void fail(int status, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
_Noreturn void leave(int status); /* ends the run without a word */

/* options.c: words of the command line. */
void options_init(char *cmdline); /* keeps it, and cuts it up */
const char *option_word(unsigned i);                      /* NULL after the last */
bool option_flag(const char *name);                       /* the bare word is there */
const char *option_str(const char *key, const char *def); /* key=value */
uint64_t option_u64(const char *key, uint64_t def, uint64_t min, uint64_t max);

/* boot.c */
struct module {
	const uint8_t *data;
	uint64_t size;
};
struct ram_range {
	uint64_t start, end;
};
extern struct module boot_module; /* data == NULL: none given */
unsigned ram_ranges(const struct ram_range **list);
extern volatile uint32_t ap_count; /* CPUs that start_other_cpus() woke */
void start_other_cpus(unsigned n);

/* memory.c: given once, never taken back, touched and zeroed. */
void memory_init(
	const struct ram_range *ram, unsigned n_ram, const struct ram_range *used, unsigned n_used);
void *memory_alloc(uint64_t bytes, uint64_t align, const char *what); /* or the run ends */
void *memory_alloc_top(uint64_t bytes, const char *what); /* at the highest address, page aligned */
struct ram_range memory_free(void);                       /* what is left of the largest hole */

/* cpu.c: interrupts and time. */
struct exception_info {
	uint64_t vector, error, rip, cr2, cs, rsp;
};
extern volatile uint32_t irq_events, irq_device[IRQ_DEVICES], irq_ticks;
void cpu_init(void);
void clock_init(void);
void cpu_call(unsigned what, uint32_t arg);
void cpu_idle(uint32_t seen_events); /* returns at once if irq_events has moved on */
uint32_t apic_id(void);
void apic_ipi_others(uint32_t command);
extern uint64_t tsc_khz;
uint64_t usec_since(uint64_t tsc);
uint64_t tsc_after_ms(uint64_t ms);
void delay_usec(uint64_t usec);

static inline uint64_t rdtsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

/* The device may look at memory, and may have changed it. */
static inline void barrier(void)
{
	__asm__ volatile("" ::: "memory");
}

static inline void full_barrier(void)
{
	__asm__ volatile("lock; orl $0,(%%rsp)" ::: "memory");
}

static inline void outb(uint16_t port, uint8_t v)
{
	__asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outw(uint16_t port, uint16_t v)
{
	__asm__ volatile("outw %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline void outl(uint16_t port, uint32_t v)
{
	__asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port) : "memory");
}

static inline uint8_t inb(uint16_t port)
{
	uint8_t v;

	__asm__ volatile("inb %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint16_t inw(uint16_t port)
{
	uint16_t v;

	__asm__ volatile("inw %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

static inline uint32_t inl(uint16_t port)
{
	uint32_t v;

	__asm__ volatile("inl %1, %0" : "=a"(v) : "Nd"(port) : "memory");
	return v;
}

/* main.c: the reset register, then the keyboard controller's line. */
_Noreturn void machine_reset(void);

/* Jobs: each returns a status; the worst of a run is its exit status. */
int job_io(void);
int job_install(void);
int job_verify(void);
int job_wce(void);
int job_churn(void);
int job_hostile(void);
int job_hostile_ide(void);
int job_mem(void);
int job_smp(void);

#endif
