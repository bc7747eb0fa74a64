/* SPDX-License-Identifier: MIT */
/*
 * target.c - the image that convert and dd make: 'create' does it, with its own words for what is
 * wrong.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/target.h"

/* The next "key=value" of a list where ",," stands for a comma; NULL: no more.  Caller frees. */
static char *next_word(const char **list)
{
	const char *p = *list;
	char *out, *to;

	if (!p || !*p)
		return NULL;
	out = to = malloc(strlen(p) + 1);
	if (!out)
		return NULL;
	for (; *p; p++) {
		if (*p == ',' && p[1] != ',')
			break;
		if (*p == ',')
			p++;
		*to++ = *p;
	}
	*to = 0;
	*list = *p ? p + 1 : p;
	return out;
}

char *target_option(const struct target *t, const char *key)
{
	size_t n = strlen(key);
	char *found = NULL;

	for (unsigned i = 0; i < t->n_lists; i++) {
		const char *list = t->lists[i];
		char *word;

		while ((word = next_word(&list)) != NULL) {
			if (!strncmp(word, key, n) && word[n] == '=') {
				free(found);
				found = strdup(word + n + 1);
			}
			free(word);
		}
	}
	return found;
}

bool target_wants_help(const struct target *t)
{
	bool help = false;

	for (unsigned i = 0; i < t->n_lists; i++) {
		const char *list = t->lists[i];
		char *word;

		while ((word = next_word(&list)) != NULL) {
			help |= !strcmp(word, "help") || !strcmp(word, "?");
			free(word);
		}
	}
	return help;
}

#define ARGS_MAX (2 * TARGET_LISTS_MAX + 16)

static int run_create(const struct target *t, const char *size)
{
	char *argv[ARGS_MAX];
	int argc = 0;

	argv[argc++] = (char *)"create";
	argv[argc++] = (char *)"-q";
	argv[argc++] = (char *)"-f";
	argv[argc++] = (char *)t->format;
	for (unsigned i = 0; i < t->n_lists; i++) {
		argv[argc++] = (char *)"-o";
		argv[argc++] = (char *)t->lists[i];
	}
	if (t->backing) {
		argv[argc++] = (char *)"-b";
		argv[argc++] = (char *)t->backing;
	}
	if (t->backing_format) {
		argv[argc++] = (char *)"-F";
		argv[argc++] = (char *)t->backing_format;
	}
	if (size) { /* the last word on it, whatever an -o says */
		argv[argc++] = (char *)"-o";
		argv[argc++] = (char *)size;
	}
	if (t->name) {
		argv[argc++] = (char *)"--";
		argv[argc++] = (char *)t->name;
	}
	argv[argc] = NULL;
	optind = 0; /* glibc: starts anew */
	return img_create.run(argc, argv);
}

int target_create(const struct target *t, uint64_t size)
{
	char text[40];

	snprintf(text, sizeof(text), "size=%" PRIu64, size);
	return run_create(t, text) ? -EINVAL : 0;
}

int target_help(const struct target *t)
{
	return run_create(t, NULL);
}
