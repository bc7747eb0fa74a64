/* SPDX-License-Identifier: MIT */
/*
 * words.c - what a disk's personality is told by: powercut= and its company, fail=, delay=, full=.
 *
 * A value that is a list has '+' between its items, because ',' ends it.
 */
#include <inttypes.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/live/live.h"

/* By enum live_trigger; a row without a colon takes no value. */
static const char *const triggers[] = {"never", "flush:", "write:", "byte:", "sector:", "after:",
	"serial:", "mark:", "asked"};

/* A number, with K, M or G of bytes if suffixes; *end: what follows.  False: there is none. */
static bool number(const char *s, bool suffixes, const char **end, uint64_t *out)
{
	static const char letters[] = "KMG";
	const char *letter;
	char *stop;

	if (*s < '0' || *s > '9')
		return false;
	errno = 0;
	*out = strtoull(s, &stop, 10);
	if (errno)
		return false;
	letter = suffixes && *stop ? strchr(letters, *stop & ~0x20) : NULL;
	if (letter) {
		unsigned shift = 10 * (unsigned)(letter - letters + 1);

		if (*out > UINT64_MAX >> shift)
			return false;
		*out <<= shift;
		stop++;
	}
	*end = stop;
	return true;
}

static bool whole_number(const char *s, bool suffixes, uint64_t *out)
{
	const char *end;

	return number(s, suffixes, &end, out) && !*end;
}

/* "100" or "100-107". */
static bool sectors(const char *s, const char **end, uint64_t *first, uint64_t *last)
{
	if (!number(s, false, end, first))
		return false;
	*last = *first;
	if (**end == '-' && !number(*end + 1, false, end, last))
		return false;
	return *last >= *first && *last < UINT64_MAX / SECTOR;
}

static int check_regex(const char *text, struct why *why)
{
	regex_t re;
	char words[128];
	int bad = regcomp(&re, text, REG_EXTENDED | REG_NOSUB);

	if (!bad) {
		regfree(&re);
		return 0;
	}
	regerror(bad, &re, words, sizeof(words));
	return why_set(why, -EINVAL, "powercut=serial:%s: %s", text, words);
}

static int parse_powercut(const char *text, struct live_config *c, struct why *why)
{
	const char *value = NULL, *end = "";
	bool good = false;

	for (unsigned i = 1; i < ARRAY_SIZE(triggers) && !value; i++) {
		size_t n = strlen(triggers[i]);

		if (strncmp(text, triggers[i], n) || (triggers[i][n - 1] != ':' && text[n]))
			continue;
		c->trigger = (enum live_trigger)i;
		value = text + n;
	}
	c->text = value;
	switch (c->trigger) {
	case LIVE_NEVER:
		break;
	case LIVE_SECTOR:
		good = sectors(value, &end, &c->n, &c->last) && !*end;
		break;
	case LIVE_SERIAL:
		if (*value)
			return check_regex(value, why);
		break;
	case LIVE_MARK:
		good = *value;
		break;
	case LIVE_ASKED:
		good = true;
		break;
	case LIVE_FLUSH:
	case LIVE_WRITE:
	case LIVE_BYTE:
	case LIVE_AFTER:
		good = whole_number(value, c->trigger == LIVE_BYTE, &c->n) && c->n;
		break;
	}
	if (good)
		return 0;
	return why_set(why, -EINVAL,
		"powercut=%s: expected flush:N, write:N, byte:N, after:N, sector:N or sector:N-N, "
		"serial:REGEX, mark:TEXT or asked",
		text);
}

static int parse_choice(const struct live_words *w, struct live_config *c, struct why *why)
{
	if (w->policy) {
		unsigned i = 0;

		while (cut_policies[i] && strcmp(cut_policies[i], w->policy))
			i++;
		if (!cut_policies[i])
			return why_set(why, -EINVAL,
				"policy=%s: expected none, all, random, reorder or torn",
				w->policy);
		c->policy = (enum cut_policy)i;
	} else if (w->tear && strcmp(w->tear, "none")) {
		c->policy = CUT_TORN;
	}
	if (w->seed && !whole_number(w->seed, false, &c->seed))
		return why_set(why, -EINVAL, "seed=%s: expected a number", w->seed);
	if (w->tear) {
		c->unit = !strcmp(w->tear, "512") ? 512 : !strcmp(w->tear, "4096") ? 4096 : 0;
		if (!c->unit && strcmp(w->tear, "none"))
			return why_set(
				why, -EINVAL, "tear=%s: expected 512, 4096 or none", w->tear);
	}
	if (c->trigger == LIVE_NEVER && (w->policy || w->seed || w->tear))
		return why_set(why, -EINVAL, "policy=, seed= and tear= go with powercut=");
	return 0;
}

/* The items of a list; false after the last.  Cuts *text up. */
static bool next_item(char **text, char **item)
{
	*item = strsep(text, "+");
	return *item != NULL;
}

static bool parse_one_fail(const char *item, struct live_fail *f)
{
	static const char *const kinds[] = {"read:", "write:", "flush:", "sector:"};
	const char *end;

	for (unsigned i = 0; i < ARRAY_SIZE(kinds); i++) {
		size_t n = strlen(kinds[i]);

		if (strncmp(item, kinds[i], n))
			continue;
		f->what = i;
		if (i == FAIL_SECTOR)
			return sectors(item + n, &end, &f->n, &f->last) && !*end;
		return whole_number(item + n, false, &f->n) && f->n;
	}
	return false;
}

static int parse_fail(char *text, struct live_config *c, struct why *why)
{
	char *item;

	while (next_item(&text, &item)) {
		if (c->n_fails == LIVE_FAILS_MAX)
			return why_set(why, -EINVAL, "fail=: at most %d items", LIVE_FAILS_MAX);
		if (!parse_one_fail(item, &c->fail[c->n_fails++]))
			return why_set(why, -EINVAL,
				"fail=%s: expected read:N, write:N, flush:N, sector:N or "
				"sector:N-N, with + between them",
				item);
	}
	return 0;
}

/*
 * What the datasheets of such disks come to, roughly: a random read, a write that the disk's cache
 * takes, and a flush that has something to do.
 */
static const struct {
	const char *name;
	struct slow_delays d;
} presets[] = {
	{"hdd", {.read = 8000000, .write = 100000, .flush = 16000000}},
	{"ssd", {.read = 100000, .write = 50000, .flush = 2000000}},
	{"nvme", {.read = 80000, .write = 15000, .flush = 500000}},
};

static bool duration(const char *s, uint64_t *ns)
{
	static const struct {
		const char *unit;
		uint64_t ns;
	} units[] = {{"ns", 1}, {"us", 1000}, {"ms", 1000000}, {"s", 1000000000}};
	const char *end;

	if (!number(s, false, &end, ns))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(units); i++)
		if (!strcmp(end, units[i].unit))
			return !__builtin_mul_overflow(*ns, units[i].ns, ns) &&
			       *ns <= 60000000000ULL;
	return false;
}

static bool parse_one_delay(const char *item, struct slow_delays *d)
{
	for (unsigned i = 0; i < ARRAY_SIZE(presets); i++)
		if (!strcmp(item, presets[i].name)) {
			*d = presets[i].d;
			return true;
		}
	if (!strncmp(item, "read:", 5))
		return duration(item + 5, &d->read);
	if (!strncmp(item, "write:", 6))
		return duration(item + 6, &d->write);
	return !strncmp(item, "flush:", 6) && duration(item + 6, &d->flush);
}

static int parse_delay(char *text, struct live_config *c, struct why *why)
{
	char *item;

	while (next_item(&text, &item))
		if (!parse_one_delay(item, &c->delays))
			return why_set(why, -EINVAL,
				"delay=%s: expected hdd, ssd, nvme, or read:, write: or flush: "
				"and a time up to 60s such as 8ms, with + between them",
				item);
	return 0;
}

/* With a copy of the list, which is cut up. */
static int with_copy(const char *text, struct live_config *c,
	int (*parse)(char *text, struct live_config *c, struct why *why), struct why *why)
{
	char *copy = text ? strdup(text) : NULL;
	int err;

	if (!copy)
		return text ? -ENOMEM : 0;
	err = parse(copy, c, why);
	free(copy);
	return err;
}

int live_parse(const struct live_words *w, struct live_config *out, struct why *why)
{
	int err = 0;

	*out = (struct live_config){.policy = CUT_RANDOM, .seed = 1, .unit = SECTOR};
	if (w->powercut)
		err = parse_powercut(w->powercut, out, why);
	if (!err)
		err = parse_choice(w, out, why);
	if (!err)
		err = with_copy(w->fail, out, parse_fail, why);
	if (!err)
		err = with_copy(w->delay, out, parse_delay, why);
	if (!err && w->full) {
		out->has_room = true;
		if (!whole_number(w->full, true, &out->room))
			err = why_set(why, -EINVAL,
				"full=%s: expected a size such as 512K, 128M or 4G", w->full);
	}
	return err;
}

bool live_wanted(const struct live_config *c)
{
	const struct slow_delays *d = &c->delays;

	return c->trigger || c->n_fails || d->read || d->write || d->flush || c->has_room;
}

void live_again(const struct live_config *c, char *out, size_t size)
{
	char value[LIVE_LINE / 2], tear[32] = "";
	size_t n = 0;

	/* As it was written: a comma twice. */
	for (const char *p = c->text; p && *p && n + 2 < sizeof(value); p++) {
		value[n++] = *p;
		if (*p == ',')
			value[n++] = ',';
	}
	value[n] = 0;
	if (c->policy == CUT_TORN && c->unit)
		snprintf(tear, sizeof(tear), ",tear=%" PRIu32, c->unit);
	snprintf(out, size, "powercut=%s%s,policy=%s,seed=%" PRIu64 "%s", triggers[c->trigger],
		value, cut_policies[c->policy], c->seed, tear);
}
