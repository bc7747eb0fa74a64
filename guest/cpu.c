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

#define PIT_HZ       1193182u
#define CAL_USEC     20000u
#define CAL_READINGS 8
#define CAL_TRIES    5

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
 * The TSC is compared with a timer that counts down, at two looks some time apart.  A look is the
 * tightest of some pairs of TSC readings around a reading of the timer, so that a host that runs
 * something else in between spoils a reading and not the result.
 */
struct look {
	uint64_t tsc, width;
	uint32_t count;
};

/* Channel 2: latched, so that the count is of the moment of the first write. */
static void pit_reading(struct look *l)
{
	uint64_t before = rdtsc();

	outb(0x43, 0x80);
	l->width = rdtsc() - before;
	l->tsc = before + l->width / 2;
	l->count = inb(0x42);
	l->count |= (uint32_t)inb(0x42) << 8;
}

static void apic_reading(struct look *l)
{
	uint64_t before = rdtsc();

	l->count = *apic(APIC_TIMER_NOW);
	l->width = rdtsc() - before;
	l->tsc = before + l->width / 2;
}

static struct look tight_look(void (*reading)(struct look *))
{
	struct look best = {0, UINT64_MAX, 0}, l;

	for (unsigned i = 0; i < CAL_READINGS; i++) {
		reading(&l);
		if (l.width < best.width)
			best = l;
	}
	return best;
}

/* hz and period: of the timer.  0: it does not count. */
static uint64_t measure(void (*reading)(struct look *), uint64_t hz, uint32_t period)
{
	struct look first = tight_look(reading), last;
	uint64_t went = 0;

	for (unsigned looks = 0; went < hz * CAL_USEC / 1000000; looks++) {
		last = tight_look(reading);
		went = first.count >= last.count ? first.count - last.count
						 : first.count + (period - last.count);
		if (looks > 100000 || (looks > 100 && went == 0))
			return 0;
	}
	return (last.tsc - first.tsc) * hz / 1000 / went;
}

static uint64_t measure_pit(void)
{
	uint8_t was = inb(0x61);
	uint64_t khz = 0;

	/* It counts once from 65535 to 0, 55 ms; its output says whether that is over. */
	for (unsigned i = 0; i < CAL_TRIES && !khz; i++) {
		outb(0x61, (was & ~0x02) | 0x01);
		outb(0x43, 0xb0);
		outb(0x42, 0xff);
		outb(0x42, 0xff);
		khz = measure(pit_reading, PIT_HZ, 65536);
		if (inb(0x61) & 0x20)
			khz = 0;
	}
	outb(0x61, was);
	return khz;
}

void clock_init(void)
{
	const char *source = "option";

	tsc_khz = option_u64("tsc_khz", 0, 1000, 100000000);
	if (!tsc_khz) {
		source = "pit";
		tsc_khz = measure_pit();
	}
	if (!tsc_khz) {
		source = "apic";
		tsc_khz = measure(apic_reading, APIC_KHZ * 1000ull, APIC_KHZ * 100);
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
