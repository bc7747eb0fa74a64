/* SPDX-License-Identifier: MIT */
/*
 * cpu.c - interrupt table, local APIC, and time.
 *
 * Interrupts only count (start.S); whoever waits compares irq_events before and after.  A local
 * APIC timer ticks ten times a second so that a lost interrupt shows as a timeout and not as a
 * hang.  Time is the TSC, its rate from tsc_khz= or measured: PIT channel 2, else the APIC timer,
 * which KVM and QEMU both run at 1 GHz.
 */
#include "guest/guest.h"

#define APIC_BASE       0xfee00000u
#define APIC_ID         0x20
#define APIC_SVR        0xf0
#define APIC_ICR_LOW    0x300
#define APIC_ICR_HIGH   0x310
#define APIC_LVT_TIMER  0x320
#define APIC_TIMER_INIT 0x380
#define APIC_TIMER_NOW  0x390
#define APIC_TIMER_DIV  0x3e0
#define APIC_PERIODIC   (1u << 17)
#define APIC_MASKED     (1u << 16)
#define APIC_KHZ        1000000u /* timer at divider 1 */

#define PIT_HZ    1193182u
#define CAL_USEC  10000u
#define CAL_TRIES 10

struct idt_gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_mid;
	uint32_t offset_high, zero;
};

extern struct idt_gate idt[256];
extern const char isr_stubs[], irq_stubs[], isr_call[];

volatile uint32_t irq_events, irq_device[IRQ_DEVICES], irq_ticks;
volatile uint32_t exception_depth;
struct exception_info exception_info;
uint64_t tsc_khz;

_Noreturn void exception_main(void);

_Noreturn void exception_main(void)
{
	const struct exception_info *e = &exception_info;

	report("exception vector=%lu error=0x%lx rip=0x%lx cr2=0x%lx cs=0x%lx rsp=0x%lx", e->vector,
		e->error, e->rip, e->cr2, e->cs, e->rsp);
	report("done status=%u", STATUS_EXCEPTION);
	leave(STATUS_EXCEPTION);
}

static volatile uint32_t *apic(unsigned reg)
{
	return (volatile uint32_t *)(uintptr_t)(APIC_BASE + reg);
}

static void gate(unsigned vector, const char *entry, unsigned dpl)
{
	uint64_t at = (uintptr_t)entry;

	idt[vector] = (struct idt_gate){
		.offset_low = (uint16_t)at,
		.selector = SEL_CODE0,
		.type = (uint8_t)(0x8e | dpl << 5),
		.offset_mid = (uint16_t)(at >> 16),
		.offset_high = (uint32_t)(at >> 32),
	};
}

void cpu_call(unsigned what, uint32_t arg)
{
	__asm__ volatile("int3" : : "a"(what), "d"(arg) : "memory", "cc");
}

void cpu_idle(uint32_t seen_events)
{
	cpu_call(CALL_IDLE, seen_events);
}

void cpu_init(void)
{
	for (unsigned i = 0; i < 32; i++)
		gate(i, isr_stubs + 16 * i, 0);
	gate(3, isr_call, 3);
	for (unsigned i = 0; i <= IRQ_DEVICES; i++)
		gate(VECTOR_DEVICE + i, irq_stubs + 32 * i, 0);
	for (unsigned i = VECTOR_DEVICE + IRQ_DEVICES + 1; i < 256; i++)
		gate(i, irq_stubs + 32 * (IRQ_DEVICES + 1), 0);
	barrier();

	outb(0x21, 0xff); /* the firmware's PIC setup would hit exception vectors */
	outb(0xa1, 0xff);
	*apic(APIC_SVR) = 0x100 | VECTOR_SPURIOUS;
	*apic(APIC_TIMER_DIV) = 0xb;
	*apic(APIC_LVT_TIMER) = APIC_PERIODIC | VECTOR_TIMER;
	*apic(APIC_TIMER_INIT) = APIC_KHZ * 100;
	cpu_call(CALL_IRQ_ON, 0);
}

uint32_t apic_id(void)
{
	return *apic(APIC_ID) >> 24;
}

void apic_ipi_others(uint32_t command)
{
	*apic(APIC_ICR_HIGH) = 0;
	*apic(APIC_ICR_LOW) = command | 3u << 18;
}

/*
 * A measurement is bracketed: the TSC before and after each look at the timer.  What happened in
 * between, a host that ran something else, shows as `doubt`, and the best of some tries counts.
 */
struct rate {
	uint64_t khz, doubt;
};

static void keep_better(struct rate *best, uint64_t least, uint64_t most, uint64_t usec)
{
	if (best->khz && most - least >= best->doubt)
		return;
	best->doubt = most - least;
	best->khz = (least + most) * 1000 / (2 * usec);
}

static bool good_enough(const struct rate *r, uint64_t usec)
{
	return r->khz && r->doubt < r->khz * usec / 1000 / 200; /* half a per cent */
}

/* One shot of channel 2 with its gate opened by port 0x61.  False: there is no such timer. */
static bool try_pit(struct rate *best)
{
	uint32_t count = PIT_HZ / 1000 * CAL_USEC / 1000;
	uint8_t was = inb(0x61), off = was & ~0x03;
	uint64_t before, after, not_yet = 0, look, done;
	unsigned polls = 0;

	outb(0x61, off);
	outb(0x43, 0xb0); /* channel 2, both bytes, mode 0 */
	outb(0x42, (uint8_t)count);
	outb(0x42, (uint8_t)(count >> 8));
	before = rdtsc();
	outb(0x61, off | 0x01);
	after = rdtsc();
	for (look = after; !(inb(0x61) & 0x20); look = rdtsc()) {
		not_yet = look;
		if (++polls > 1000000)
			return false;
	}
	done = rdtsc();
	outb(0x61, was);
	if (polls < 3) /* done before it began */
		return false;
	keep_better(best, not_yet - after, done - before, CAL_USEC);
	return true;
}

static bool try_apic(struct rate *best)
{
	uint64_t first_before = rdtsc(), first_after, last_before, last_after;
	uint32_t first = *apic(APIC_TIMER_NOW), now, went = 0;

	first_after = last_after = rdtsc();
	for (unsigned polls = 0; went < APIC_KHZ / 1000 * CAL_USEC; polls++) {
		last_before = last_after;
		now = *apic(APIC_TIMER_NOW);
		last_after = rdtsc();
		went = first >= now ? first - now : first + (APIC_KHZ * 100 - now);
		if (polls > 1000000 || (polls > 1000 && went == 0))
			return false;
	}
	keep_better(best, last_before - first_after, last_after - first_before,
		went / (APIC_KHZ / 1000));
	return true;
}

static uint64_t measure(bool (*try)(struct rate *))
{
	struct rate best = {0, 0};

	for (unsigned i = 0; i < CAL_TRIES && !good_enough(&best, CAL_USEC); i++)
		if (!try(&best))
			return 0;
	return best.khz;
}

void clock_init(void)
{
	const char *source = "option";

	tsc_khz = option_u64("tsc_khz", 0, 1000, 100000000);
	if (!tsc_khz) {
		source = "pit";
		tsc_khz = measure(try_pit);
	}
	if (!tsc_khz) {
		source = "apic";
		tsc_khz = measure(try_apic);
	}
	if (!tsc_khz)
		fail(STATUS_USAGE, "no clock to measure the TSC by: give tsc_khz=");
	report("clock tsc_khz=%lu source=%s", tsc_khz, source);
}

uint64_t usec_since(uint64_t tsc)
{
	return (rdtsc() - tsc) * 1000 / tsc_khz;
}

uint64_t tsc_after_ms(uint64_t ms)
{
	return rdtsc() + ms * tsc_khz;
}

void delay_usec(uint64_t usec)
{
	uint64_t begin = rdtsc();

	while (usec_since(begin) < usec)
		__builtin_ia32_pause();
}
