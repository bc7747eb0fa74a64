/* SPDX-License-Identifier: MIT */
/*
 * bench_guest.c - understands what the test guest reports on its serial line.
 *
 * A report is "guest: NAME key=value key=value..."; the figures that are kept stand in one table.
 * Anything else is kept as words: the last line says why a guest gave up.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bench.h"

#define FIGURE(report, key, field) { report, key, offsetof(struct bench_guest, field) }
static const struct figure {
	const char *report, *key;
	size_t at;
} figures[] = {
	FIGURE("progress", "percent", percent),
	FIGURE("install", "ops", ops),
	FIGURE("install", "reads", reads),
	FIGURE("install", "writes", writes),
	FIGURE("install", "flushes", flushes),
	FIGURE("install", "read_kib", read_kib),
	FIGURE("install", "write_kib", write_kib),
	FIGURE("install", "usec", usec),
	FIGURE("install", "depth_max", depth_max),
	FIGURE("install", "errors", errors),
	FIGURE("install", "irqs", irqs),
	FIGURE("install", "wrong", wrong),
	FIGURE("install", "fill_usec", fill_usec),
	FIGURE("install", "check_usec", check_usec),
	FIGURE("install", "kicks", kicks),
	FIGURE("verify", "sectors", sectors),
	FIGURE("verify", "bad", bad),
	FIGURE("verify", "first_bad", first_bad),
	FIGURE("verify", "errors", verify_errors),
	FIGURE("verify", "ambiguous", ambiguous),
	FIGURE("done", "status", status),
};

static uint64_t *figure_of(struct bench_guest *g, const char *report, const char *key)
{
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
		if (strcmp(figures[i].report, report) == 0 && strcmp(figures[i].key, key) == 0)
			return (uint64_t *)((char *)g + figures[i].at);
	return NULL;
}

static bool is_report(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(figures); i++)
		if (strcmp(figures[i].report, name) == 0)
			return true;
	return false;
}

void bench_guest_line(struct bench_guest *g, char *line)
{
	static const char prefix[] = "guest: ";
	char *save = NULL, *name, *word, words[sizeof(g->said)];

	line[strcspn(line, "\r\n")] = 0;
	if (strncmp(line, prefix, sizeof(prefix) - 1) != 0) {
		if (*line)
			snprintf(g->said, sizeof(g->said), "%s", line);
		return;
	}
	line += sizeof(prefix) - 1;
	snprintf(words, sizeof(words), "%s", line);
	name = strtok_r(line, " ", &save);
	if (!name || !is_report(name)) {
		memcpy(g->said, words, sizeof(words));
		return;
	}
	while ((word = strtok_r(NULL, " ", &save))) {
		char *value = strchr(word, '='), *end;
		uint64_t *f;

		if (!value)
			continue;
		*value++ = 0;
		f = figure_of(g, name, word);
		if (f && *value) {
			uint64_t v = strtoull(value, &end, 0);

			if (!*end)
				*f = v;
		}
	}
	g->installed |= strcmp(name, "install") == 0;
	g->verified |= strcmp(name, "verify") == 0;
	g->done |= strcmp(name, "done") == 0;
}

const char *bench_guest_failed(struct bench_guest *g)
{
	static char text[320];

	text[0] = 0;
	if (g->installed && g->errors)
		snprintf(text, sizeof(text), "%llu requests failed in the guest",
			(unsigned long long)g->errors);
	else if (g->installed && g->wrong)
		snprintf(text, sizeof(text), "%llu reads gave wrong data during the install",
			(unsigned long long)g->wrong);
	else if (g->verified && g->bad)
		snprintf(text, sizeof(text), "%llu of %llu sectors read back wrong, first at %llu",
			(unsigned long long)g->bad, (unsigned long long)g->sectors,
			(unsigned long long)g->first_bad);
	else if (g->done && g->status)
		snprintf(text, sizeof(text), "the guest ended with status %llu: %s",
			(unsigned long long)g->status, g->said);
	else if (!g->done)
		snprintf(text, sizeof(text), "the guest did not finish%s%s", g->said[0] ? ": " : "",
			g->said);
	else if (!g->installed || !g->verified || !g->sectors)
		snprintf(text, sizeof(text), "the guest did not report its %s",
			g->installed ? "verification" : "install");
	return text[0] ? text : NULL;
}

json_t *bench_guest_json(const struct bench_guest *g)
{
	json_t *all = json_object();

	for (size_t i = 0; i < ARRAY_SIZE(figures); i++) {
		const struct figure *f = &figures[i];
		json_t *report = json_object_get(all, f->report);
		uint64_t v;

		memcpy(&v, (const char *)g + f->at, sizeof(v));
		if (strcmp(f->report, "progress") == 0)
			continue;
		if (!report) {
			report = json_object();
			json_object_set_new(all, f->report, report);
		}
		json_object_set_new(report, f->key, json_integer((json_int_t)v));
	}
	return all;
}
