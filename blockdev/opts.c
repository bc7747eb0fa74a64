/* SPDX-License-Identifier: MIT */
/*
 * opts.c - see opts.h.
 */
#include <ctype.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/opts.h"

static struct opt *find(const struct opts *o, const char *key)
{
	for (size_t i = 0; i < o->n; i++)
		if (!strcmp(o->v[i].key, key))
			return &o->v[i];
	return NULL;
}

bool opts_has(const struct opts *o, const char *key)
{
	return find(o, key) != NULL;
}

/* The rest of a key behind "prefix.", or NULL. */
static const char *under(const char *key, const char *prefix)
{
	size_t n = strlen(prefix);

	return !strncmp(key, prefix, n) && key[n] == '.' ? key + n + 1 : NULL;
}

bool opts_has_under(const struct opts *o, const char *prefix)
{
	for (size_t i = 0; i < o->n; i++)
		if (under(o->v[i].key, prefix))
			return true;
	return false;
}

const char *opts_get(const struct opts *o, const char *key)
{
	struct opt *p = find(o, key);

	return p ? p->value : NULL;
}

static void del_at(struct opts *o, size_t i)
{
	free(o->v[i].key);
	free(o->v[i].value);
	o->n--;
	memmove(&o->v[i], &o->v[i + 1], (o->n - i) * sizeof(o->v[0]));
}

void opts_del(struct opts *o, const char *key)
{
	struct opt *p = find(o, key);

	if (p)
		del_at(o, (size_t)(p - o->v));
}

void opts_fini(struct opts *o)
{
	while (o->n)
		del_at(o, o->n - 1);
	free(o->v);
	*o = (struct opts){0};
}

int opts_set(struct opts *o, const char *key, const char *value)
{
	char *copy = value ? strdup(value) : NULL;
	struct opt *p = find(o, key), *v;

	if (value && !copy)
		return -ENOMEM;
	if (p) {
		free(p->value);
		p->value = copy;
		return 0;
	}
	v = realloc(o->v, (o->n + 1) * sizeof(*v));
	if (v)
		o->v = v;
	if (!v || !(v[o->n].key = strdup(key))) {
		free(copy);
		return -ENOMEM;
	}
	v[o->n++].value = copy;
	return 0;
}

int opts_add_all(struct opts *o, const struct opts *from)
{
	int err = 0;

	for (size_t i = 0; i < from->n && !err; i++)
		if (!opts_has(o, from->v[i].key))
			err = opts_set(o, from->v[i].key, from->v[i].value);
	return err;
}

int opts_take(struct opts *o, const char *prefix, struct opts *out)
{
	for (size_t i = 0; i < o->n;) {
		const char *rest = under(o->v[i].key, prefix);
		int err;

		if (!rest) {
			i++;
			continue;
		}
		err = opts_set(out, rest, o->v[i].value);
		if (err)
			return err;
		del_at(o, i);
	}
	return 0;
}

/* Up to a comma that is not doubled, which then stands for one; *text is left behind it. */
static char *next_pair(const char **text)
{
	char *out = malloc(strlen(*text) + 1), *p = out;

	if (!out)
		return NULL;
	while (**text) {
		if (**text == ',' && *++*text != ',')
			break;
		*p++ = *(*text)++;
	}
	*p = '\0';
	return out;
}

int opts_parse(struct opts *o, const char *text, struct why *why)
{
	while (*text) {
		char *pair = next_pair(&text), *eq;
		int err;

		if (!pair)
			return -ENOMEM;
		eq = strchr(pair, '=');
		if (eq)
			*eq = '\0';
		else
			log_warn("short-form boolean option '%s' deprecated", pair);
		err = opts_set(o, pair, eq ? eq + 1 : "on");
		free(pair);
		if (err)
			return err;
	}
	return 0;
}

static int flatten(struct opts *o, const char *key, json_t *j);

static int flatten_members(struct opts *o, const char *key, json_t *j)
{
	const char *name;
	json_t *value;
	char sub[1024];
	size_t i;
	int err = 0;

	if (json_is_object(j)) {
		json_object_foreach(j, name, value)
		{
			if (!err && snprintf(sub, sizeof(sub), "%s%s%s", key, *key ? "." : "",
					    name) >= (int)sizeof(sub))
				err = -ENAMETOOLONG;
			if (!err)
				err = flatten(o, sub, value);
		}
	} else {
		json_array_foreach(j, i, value)
		{
			if (!err &&
				snprintf(sub, sizeof(sub), "%s.%zu", key, i) >= (int)sizeof(sub))
				err = -ENAMETOOLONG;
			if (!err)
				err = flatten(o, sub, value);
		}
	}
	return err;
}

static int flatten(struct opts *o, const char *key, json_t *j)
{
	char number[64];

	switch (json_typeof(j)) {
	case JSON_OBJECT:
	case JSON_ARRAY:
		return flatten_members(o, key, j);
	case JSON_STRING:
		return opts_set(o, key, json_string_value(j));
	case JSON_INTEGER:
		snprintf(number, sizeof(number), "%" JSON_INTEGER_FORMAT, json_integer_value(j));
		return opts_set(o, key, number);
	case JSON_REAL:
		snprintf(number, sizeof(number), "%.17g", json_real_value(j));
		return opts_set(o, key, number);
	case JSON_TRUE:
		return opts_set(o, key, "on");
	case JSON_FALSE:
		return opts_set(o, key, "off");
	default:
		return opts_set(o, key, NULL);
	}
}

/* 'text' to "text": JSON as QEMU's users may write it. */
static char *double_quotes(const char *text)
{
	char *out = malloc(2 * strlen(text) + 1), *p = out, in = 0;

	if (!out)
		return NULL;
	for (; *text; text++) {
		if (in && *text == '\\' && text[1]) {
			if (text[1] != '\'')
				*p++ = '\\';
			*p++ = *++text;
		} else if (in == '\'' && *text == '"') {
			*p++ = '\\';
			*p++ = '"';
		} else if ((*text == '"' || *text == '\'') && (!in || in == *text)) {
			in = in ? 0 : *text;
			*p++ = '"';
		} else {
			*p++ = *text;
		}
	}
	*p = '\0';
	return out;
}

int opts_parse_json(struct opts *o, const char *text, struct why *why)
{
	char *plain = double_quotes(text);
	json_error_t e;
	json_t *j;
	int err;

	if (!plain)
		return -ENOMEM;
	j = json_loads(plain, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
	free(plain);
	if (!j)
		return why_set(why, -EINVAL,
			"Could not parse the JSON options: JSON parse error, %s",
			json_error_code(&e) == json_error_premature_end_of_input ? "premature EOI"
			: json_error_code(&e) == json_error_duplicate_key        ? "duplicate key"
										 : e.text);
	err = json_is_object(j) ? flatten(o, "", j)
				: why_set(why, -EINVAL, "Invalid JSON object given");
	json_decref(j);
	return err;
}

char *opts_text(const struct opts *o)
{
	size_t room = 1;
	char *out, *p;

	for (size_t i = 0; i < o->n; i++)
		room += 2 * strlen(o->v[i].key) + 2 * (o->v[i].value ? strlen(o->v[i].value) : 0) +
			2;
	out = p = malloc(room);
	if (!out)
		return NULL;
	for (size_t i = 0; i < o->n; i++) {
		if (!o->v[i].value)
			continue;
		if (p > out)
			*p++ = ',';
		for (const char *s = o->v[i].key; *s; s++)
			*p++ = *s;
		*p++ = '=';
		for (const char *s = o->v[i].value; *s; s++) {
			if (*s == ',')
				*p++ = ',';
			*p++ = *s;
		}
	}
	*p = '\0';
	return out;
}

int opts_bool(const struct opts *o, const char *key, bool *out, struct why *why)
{
	const char *v = opts_get(o, key);

	if (!v)
		return 0;
	if (!strcmp(v, "on") || !strcmp(v, "yes") || !strcmp(v, "true") || !strcmp(v, "y"))
		*out = true;
	else if (!strcmp(v, "off") || !strcmp(v, "no") || !strcmp(v, "false") || !strcmp(v, "n"))
		*out = false;
	else
		return why_set(why, -EINVAL, "Parameter '%s' expects 'on' or 'off'", key);
	return 0;
}

static uint64_t unit_of(const char *s)
{
	static const char letters[] = "bkmgtpe";
	const char *at = *s && !s[1] ? strchr(letters, tolower((unsigned char)*s)) : NULL;

	if (!*s)
		return 1;
	return at ? 1ULL << 10 * (at - letters) : 0;
}

int opts_size(const struct opts *o, const char *key, uint64_t *out, struct why *why)
{
	const char *v = opts_get(o, key);
	double part = 0;
	char *end;
	uint64_t n, unit;

	if (!v)
		return 0;
	errno = 0;
	n = strtoull(v, &end, 0);
	if (*end == '.') /* 1.25M */
		part = strtod(end, &end);
	unit = unit_of(end);
	if (!isdigit((unsigned char)*v) || errno || end == v || !unit || (part > 0 && unit == 1) ||
		__builtin_mul_overflow(n, unit, out) ||
		__builtin_add_overflow(*out, (uint64_t)(part * (double)unit), out))
		return why_set(why, -EINVAL,
			"Parameter '%s' expects a non-negative number below 2^64\n"
			"Optional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, "
			"peta-\n"
			"and exabytes, respectively.",
			key);
	return 0;
}

int opts_number(const struct opts *o, const char *key, uint64_t *out, struct why *why)
{
	const char *v = opts_get(o, key);
	char *end;
	uint64_t n;

	if (!v)
		return 0;
	errno = 0;
	n = strtoull(v, &end, 0);
	if (errno || end == v || *end)
		return why_set(why, -EINVAL, "Parameter '%s' expects a number", key);
	*out = n;
	return 0;
}
