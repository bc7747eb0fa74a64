/* SPDX-License-Identifier: MIT */
/*
 * text.c - numbers in, figures out.
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/cmd.h"
#include "blockdev/io/cmd.h"

int io_number(const char *text, uint64_t *out)
{
	int err = img_parse_size(text + strspn(text, " \t"), out);

	if (!err && *out > INT64_MAX)
		err = -ERANGE;
	if (err == -ERANGE)
		printf("Parsing error: argument too large -- %s\n", text);
	else if (err)
		printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix "
		       "-- %s\n",
			text);
	return err;
}

bool io_not_aligned(uint64_t off, uint64_t len)
{
	const char *what = off % SECTOR ? "offset" : "count";
	uint64_t wrong = off % SECTOR ? off : len;

	if (wrong % SECTOR)
		printf("%" PRIu64 " is not a sector-aligned value for '%s'\n", wrong, what);
	return wrong % SECTOR;
}

const char *io_size(double bytes, char *buf, size_t room)
{
	static const char *const units[] = {
		" bytes", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
	size_t u = 0;
	char *dot;

	for (; bytes >= 1024 && u + 1 < ARRAY_SIZE(units); u++)
		bytes /= 1024;
	snprintf(buf, room - 8, u ? "%.3f" : "%f", bytes);
	dot = strstr(buf, ".000");
	if (dot)
		*dot = '\0';
	strcat(buf, units[u]);
	return buf;
}

int io_pattern(const char *text, int *out)
{
	char *end;
	long v = strtol(text, &end, 0);

	if (end == text || *end || v < 0 || v > 255) {
		printf("%s is not a valid pattern byte\n", text);
		return -EINVAL;
	}
	*out = (int)v;
	return 0;
}

void io_dump(const void *buf, uint64_t off, uint64_t len)
{
	const unsigned char *p = buf;

	for (uint64_t at = 0; at < len; at += 16) {
		uint64_t n = min_u64(16, len - at);

		printf("%08" PRIx64 ":  ", off + at);
		for (uint64_t i = 0; i < n; i++)
			printf("%02x ", p[at + i]);
		printf(" ");
		for (uint64_t i = 0; i < n; i++)
			printf("%c", isalnum(p[at + i]) ? p[at + i] : '.');
		printf("\n");
	}
}

/* Seconds under one, else hours, minutes and seconds; always so if the reader is a program. */
static void print_time(char *buf, size_t room, uint64_t ns, bool terse)
{
	uint64_t s = ns / 1000000000;
	double fraction = (double)(ns % 1000000000) / 1e9;

	if (s || terse)
		snprintf(buf, room, "%" PRIu64 ":%02" PRIu64 ":%05.2f", s / 3600, s / 60 % 60,
			(double)(s % 60) + fraction);
	else
		snprintf(buf, room, "%05.2f sec", fraction);
}

void io_report(const struct io_report *r)
{
	uint64_t ns = loop_now_ns() - r->start_ns;
	double s = (double)(ns ? ns : 1) / 1e9;
	char all[64], rate[64], time[64];

	print_time(time, sizeof(time), ns, r->terse);
	if (r->terse) {
		printf("%" PRIu64 ",%d,%s,%.3f,%.3f\n", r->done, r->ops, time, (double)r->done / s,
			r->ops / s);
		return;
	}
	printf("%s %" PRIu64 "/%" PRIu64 " bytes at offset %" PRIu64 "\n", r->op, r->done, r->asked,
		r->off);
	printf("%s, %d ops; %s (%s/sec and %.4f ops/sec)\n",
		io_size((double)r->done, all, sizeof(all)), r->ops, time,
		io_size((double)r->done / s, rate, sizeof(rate)), r->ops / s);
}
