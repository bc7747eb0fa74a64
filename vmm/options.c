/* SPDX-License-Identifier: MIT */
/*
 * options.c - words of a command line into a structure, after a table.
 *
 * Not here: which options there are (run_options.c and the other commands).
 */
#include "vmm/options.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* Of one list's keys; a repeated key is an error. */
#define TABLE_MAX 64

/* Appends "a, b or c" with a prefix before each; names(i) may be NULL: not this one. */
static void good_words(char *buf, size_t size, const char *prefix,
	const char *(*name)(const void *, unsigned), const void *of, unsigned n)
{
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < n; i++) {
		const char *sep = i == 0 ? "" : i + 1 == n ? " or " : ", ";

		at += (size_t)snprintf(buf + at, size - at, "%s%s%s", sep, prefix, name(of, i));
		if (at >= size)
			return;
	}
}

static const char *table_name(const void *of, unsigned i)
{
	return ((const struct opt *)of)[i].name;
}

static const char *enum_name(const void *of, unsigned i)
{
	return ((const char *const *)of)[i];
}

static unsigned table_len(const struct opt *t)
{
	unsigned n = 0;

	while (t[n].name)
		n++;
	return n;
}

int size_parse(const char *s, uint64_t scale, uint64_t *out)
{
	static const char suffixes[] = "kmgt";
	unsigned long long v;
	const char *suffix;
	char *end;

	if (!isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return -EINVAL;
	if (*end) {
		if (*end == 'b' || *end == 'B') {
			scale = 1;
		} else {
			suffix = strchr(suffixes, tolower((unsigned char)*end));
			if (!suffix)
				return -EINVAL;
			scale = 1ULL << (10 * (suffix - suffixes + 1));
		}
		if (end[1])
			return -EINVAL;
	}
	if (__builtin_mul_overflow((uint64_t)v, scale ? scale : 1, out))
		return -EINVAL;
	return 0;
}

/* The words before every complaint: "-m 12Q" or "-drive: cache=fast". */
struct where {
	const char *list; /* NULL: a command's option */
	const char *name, *value;
	struct why *why;
};

static int complain(const struct where *w, const char *text)
{
	if (w->list)
		return why_set(w->why, -EINVAL, "-%s: %s=%s: %s", w->list, w->name, w->value, text);
	return why_set(w->why, -EINVAL, "-%s %s: %s", w->name, w->value, text);
}

static int set_number(const struct opt *o, void *to, const struct where *w)
{
	uint64_t max = o->max ? o->max : o->kind == OPT_UINT ? UINT32_MAX : INT64_MAX, v;
	char text[128];

	if (o->kind == OPT_UINT) {
		char *end;

		errno = 0;
		v = strtoull(w->value, &end, 10);
		if (!isdigit((unsigned char)*w->value) || *end || errno || v < o->min || v > max) {
			snprintf(text, sizeof(text),
				"expected a number from %" PRIu64 " to %" PRIu64, o->min, max);
			return complain(w, text);
		}
		*(unsigned *)to = (unsigned)v;
		return 0;
	}
	if (size_parse(w->value, o->scale, &v))
		return complain(w, "expected a size such as 512K, 128M or 4G");
	if (v < o->min || v > max) {
		snprintf(text, sizeof(text), "expected a size from %" PRIu64 "K to %" PRIu64 "K",
			(uint64_t)(o->min / KiB), (uint64_t)(max / KiB));
		return complain(w, text);
	}
	*(uint64_t *)to = v;
	return 0;
}

static int set_enum(const struct opt *o, int *to, const struct where *w)
{
	char good[160], text[200];
	unsigned n;

	for (n = 0; o->names[n]; n++) {
		if (!strcmp(o->names[n], w->value)) {
			*to = (int)n;
			return 0;
		}
	}
	good_words(good, sizeof(good), "", enum_name, o->names, n);
	snprintf(text, sizeof(text), "expected %s", good);
	return complain(w, text);
}

static int set_value(const struct opt *o, void *obj, const struct where *w)
{
	void *to = (char *)obj + o->off;

	switch (o->kind) {
	case OPT_FLAG:
		*(bool *)to = true;
		return 0;
	case OPT_ON_OFF:
		if (strcmp(w->value, "on") && strcmp(w->value, "off"))
			return complain(w, "expected on or off");
		*(bool *)to = !strcmp(w->value, "on");
		return 0;
	case OPT_STRING:
		*(const char **)to = w->value;
		return 0;
	case OPT_UINT:
	case OPT_SIZE:
		return set_number(o, to, w);
	case OPT_ENUM:
		return set_enum(o, to, w);
	case OPT_CALL:
		return o->set(obj, w->value, w->why);
	}
	return -EINVAL;
}

/* The row called name[0..len), or NULL. */
static const struct opt *find(const struct opt *table, const char *name, size_t len)
{
	for (const struct opt *o = table; o->name; o++) {
		if (strlen(o->name) == len && !strncmp(o->name, name, len))
			return o;
	}
	return NULL;
}

static int unknown(const struct opt *table, const char *list, const char *word, struct why *why)
{
	char good[200];

	good_words(good, sizeof(good), list ? "" : "-", table_name, table, table_len(table));
	if (list)
		return why_set(
			why, -EINVAL, "-%s: unknown key '%s'; expected %s", list, word, good);
	return why_set(why, -EINVAL, "unknown option '%s'; expected %s", word, good);
}

static bool asks_for_help(const char *word)
{
	return !strcmp(word, "-h") || !strcmp(word, "-help") || !strcmp(word, "--help");
}

int options_parse(const struct opt *table, void *obj, int argc, char **argv, struct why *why)
{
	uint64_t given = 0;

	assert(table_len(table) <= TABLE_MAX);
	for (int i = 0; i < argc; i++) {
		struct where w = {.why = why};
		const char *name = argv[i], *eq;
		const struct opt *o;
		int err;

		if (asks_for_help(name))
			return OPTIONS_HELP;
		if (name[0] != '-' || !name[1])
			return why_set(why, -EINVAL,
				"unexpected word '%s': every argument is an option", name);
		name += name[1] == '-' ? 2 : 1;
		eq = strchr(name, '=');
		o = find(table, name, eq ? (size_t)(eq - name) : strlen(name));
		if (!o)
			return unknown(table, NULL, argv[i], why);
		w.name = o->name;
		if (o->kind == OPT_FLAG && eq)
			return why_set(why, -EINVAL, "-%s takes no value", o->name);
		if (o->kind != OPT_FLAG) {
			if (!eq && i + 1 == argc)
				return why_set(why, -EINVAL, "-%s needs a value: -%s %s", o->name,
					o->name, o->arg);
			w.value = eq ? eq + 1 : argv[++i];
		}
		if (o->kind != OPT_CALL && given & 1ULL << (o - table))
			return why_set(why, -EINVAL, "-%s is given twice", o->name);
		given |= 1ULL << (o - table);
		err = set_value(o, obj, &w);
		if (err)
			return err;
	}
	return 0;
}

/* Ends the item at its single comma, makes double ones single; returns the next item or NULL. */
static char *item_cut(char *item)
{
	char *to = item;

	for (char *p = item; *p; p++) {
		if (*p == ',') {
			if (p[1] != ',') {
				*to = 0;
				return p + 1;
			}
			p++;
		}
		*to++ = *p;
	}
	*to = 0;
	return NULL;
}

int options_parse_list(
	const struct opt *table, void *obj, char *text, const char *what, struct why *why)
{
	uint64_t given = 0;
	char *next;

	assert(table_len(table) <= TABLE_MAX);
	for (char *item = text; item; item = next) {
		struct where w = {.list = what, .why = why};
		const struct opt *o;
		char *eq;
		int err;

		next = item_cut(item);
		eq = strchr(item, '=');
		if (!eq)
			return why_set(why, -EINVAL, "-%s: '%s': expected key=value", what, item);
		*eq = 0;
		o = find(table, item, strlen(item));
		if (!o)
			return unknown(table, what, item, why);
		if (given & 1ULL << (o - table))
			return why_set(why, -EINVAL, "-%s: %s= is given twice", what, o->name);
		given |= 1ULL << (o - table);
		w.name = o->name;
		w.value = eq + 1;
		err = set_value(o, obj, &w);
		if (err)
			return err;
	}
	return 0;
}

void options_help(FILE *f, const struct opt *table, bool list)
{
	for (const struct opt *o = table; o->name; o++) {
		const char *line = o->help;
		char head[64];

		snprintf(head, sizeof(head), "%s%s%s%s", list ? "" : "-", o->name,
			o->kind == OPT_FLAG ? ""
			: list              ? "="
					    : " ",
			o->kind == OPT_FLAG ? "" : o->arg);
		fprintf(f, "  %s%-24s", list ? "  " : "", head);
		if (strlen(head) > 24)
			fprintf(f, "\n  %s%-24s", list ? "  " : "", "");
		for (;;) {
			size_t n = strcspn(line, "\n");

			fprintf(f, " %.*s\n", (int)n, line);
			if (!line[n])
				break;
			line += n + 1;
			fprintf(f, "  %s%-24s", list ? "  " : "", "");
		}
	}
}
