/* SPDX-License-Identifier: MIT */
/*
 * common.c - what several subcommands need: sizes, formats.
 */
#include <ctype.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/cmd.h"

const char *const img_formats[] = {"raw", "qcow2", NULL};

bool img_format_known(const char *name)
{
	for (const char *const *f = img_formats; *f; f++)
		if (!strcmp(*f, name))
			return true;
	return false;
}

void img_say_why(const char *who, const struct why *why, int err)
{
	const char *text = why_text(why, err), *hint = strchr(text, '\n');
	int first = hint ? (int)(hint - text) : (int)strlen(text);

	log_error("%s%s%.*s", who ? who : "", who ? ": " : "", first, text);
	if (!hint)
		return;
	while (*++hint)
		fputc(*hint == '\n' || (unsigned char)*hint >= ' ' ? *hint : '?', stderr);
	fputc('\n', stderr);
}

void img_say_open(const char *name, const struct why *why, int err)
{
	char who[1100];

	snprintf(who, sizeof(who), "Could not open '%.1000s'", name);
	img_say_why(who, why, err);
}

/* The multiplier that a suffix stands for; 0: no such suffix. */
static uint64_t suffix_bytes(const char *s)
{
	static const char letters[] = "bkmgtpe";
	const char *at;

	if (!*s)
		return 1;
	at = strchr(letters, tolower((unsigned char)*s));
	return at && *at && !s[1] ? 1ULL << 10 * (at - letters) : 0;
}

int img_parse_size(const char *text, uint64_t *out)
{
	bool hex;
	double fraction = 0;
	uint64_t whole, unit;
	char *end;

	while (isspace((unsigned char)*text))
		text++;
	text += *text == '+';
	hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	whole = strtoull(text, &end, hex ? 16 : 10);
	if (errno)
		return -errno;
	if (hex && end == text + 1)
		return -EINVAL;
	if (!hex && *end == '.') {
		const char *digits = end + 1;

		while (isdigit((unsigned char)*digits))
			digits++;
		fraction = strtod(end, NULL);
		if (digits == end + 1)
			fraction = 0;
		end = (char *)digits;
	}
	unit = suffix_bytes(end);
	if (hex && *end && unit)
		log_warn("Using a multiplier suffix on hex numbers is deprecated: %s", text);
	if (!unit || (fraction > 0 && unit == 1))
		return -EINVAL;
	if (__builtin_mul_overflow(whole, unit, out) ||
		__builtin_add_overflow(*out, (uint64_t)(fraction * (double)unit + 0.5), out))
		return -ERANGE;
	return 0;
}

const char *img_human_size(uint64_t bytes, char *buf, size_t room)
{
	static const char *const units[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
	double v = (double)bytes;
	size_t u = 0;

	for (; v >= 1000 && u + 1 < ARRAY_SIZE(units); u++)
		v /= 1024;
	snprintf(buf, room, "%0.3g %sB", v, units[u]);
	return buf;
}

int img_parse_output(const char *text, enum img_output *out)
{
	if (!strcmp(text, "human"))
		*out = IMG_HUMAN;
	else if (!strcmp(text, "json"))
		*out = IMG_JSON;
	else {
		log_error("--output must be used with human or json as argument.");
		return -EINVAL;
	}
	return 0;
}

/* Formats that the peer only reads, and whose users expect to hear so. */
static const char *const read_only_formats[] = {"bochs", "cloop", "dmg", NULL};

void img_cannot(const char *format, const char *what)
{
	bool exists = img_format_known(format);

	for (const char *const *f = read_only_formats; *f; f++)
		exists = exists || !strcmp(*f, format);
	if (exists)
		log_error("Format driver '%s' does not support %s", format, what);
	else
		log_error("Unknown file format '%s'", format);
}

static void *alloc_or_exit(size_t n)
{
	void *p = malloc(n);

	if (p)
		return p;
	log_error("%s", strerror(ENOMEM));
	exit(1);
}

/* A member that found no memory would just be missing, and the reader would never know. */
void img_json_start(void)
{
	json_set_alloc_funcs(alloc_or_exit, free);
}
