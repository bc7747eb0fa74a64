/* SPDX-License-Identifier: MIT */
/*
 * serial.c - the guest's voice: lines on COM1, and the ways out of the machine.
 *
 * A byte on the serial port costs an exit, some 30 us where KVM has no hardware help, so lines are
 * short and few.  A line is built in memory and sent by one string instruction.
 */
#include "guest/guest.h"

#include <stdarg.h>

#define COM1       0x3f8
#define LINE_BYTES 400

struct line {
	char text[LINE_BYTES];
	unsigned len;
};

static void put(struct line *l, char c)
{
	if (l->len < sizeof(l->text) - 1)
		l->text[l->len++] = c;
}

static void put_string(struct line *l, const char *s)
{
	while (*s)
		put(l, *s++);
}

static void put_number(struct line *l, uint64_t v, unsigned base)
{
	char digits[24];
	unsigned n = 0;

	do
		digits[n++] = "0123456789abcdef"[v % base];
	while ((v /= base) != 0);
	while (n)
		put(l, digits[--n]);
}

static void put_format(struct line *l, const char *fmt, va_list ap)
{
	for (; *fmt; fmt++) {
		if (*fmt != '%') {
			put(l, *fmt);
			continue;
		}
		bool wide = *++fmt == 'l';

		if (wide)
			fmt++;
		if (*fmt == 's')
			put_string(l, va_arg(ap, const char *));
		else if (*fmt == 'c')
			put(l, (char)va_arg(ap, int));
		else if (*fmt == 'u' || *fmt == 'x')
			put_number(l, wide ? va_arg(ap, uint64_t) : va_arg(ap, uint32_t),
				*fmt == 'x' ? 16 : 10);
		else
			put(l, *fmt);
		if (!*fmt)
			return;
	}
}

static void send(struct line *l)
{
	const char *p = l->text;
	uint64_t n;

	l->text[l->len++] = '\n';
	n = l->len;
	/* Room in the transmitter, once a line: no virtual UART is slower than that. */
	for (unsigned i = 0; i < 1000 && !(inb(COM1 + 5) & 0x20); i++)
		;
	__asm__ volatile("rep outsb" : "+S"(p), "+c"(n) : "d"((uint16_t)COM1) : "memory");
}

void report(const char *fmt, ...)
{
	static struct line l;
	va_list ap;

	l.len = 0;
	put_string(&l, "guest: ");
	va_start(ap, fmt);
	put_format(&l, fmt, ap);
	va_end(ap);
	send(&l);
}

_Noreturn void leave(int status)
{
	outb(DEBUG_EXIT_PORT, (uint8_t)status);
	outl(DEBUG_EXIT_PORT, (uint32_t)status);
	outw(0x604, 0x2000); /* no such port: ACPI power-off, as QEMU's pc has it */
	for (;;)
		cpu_call(CALL_HALT, 0);
}

_Noreturn void fail(int status, const char *fmt, ...)
{
	static struct line l;
	va_list ap;

	l.len = 0;
	put_string(&l, "guest: error text=");
	va_start(ap, fmt);
	put_format(&l, fmt, ap);
	va_end(ap);
	send(&l);
	report("done status=%u", (unsigned)status);
	leave(status);
}
