/* SPDX-License-Identifier: MIT */
/*
 * options.c - the command line: words, of which some are key=value.
 *
 * Numbers take the suffixes K, M and G.  Which words are known is main.c's table; a value that
 * does not parse or is out of range ends the run with a line that names it.
 */
#include "guest/guest.h"

#define WORDS_MAX 64

static const char *words[WORDS_MAX];
static unsigned n_words;

void options_init(char *cmdline)
{
	char *p = cmdline;

	while (*p) {
		while (*p == ' ' || *p == '\t' || *p == '\n')
			*p++ = 0;
		if (!*p)
			break;
		if (n_words == WORDS_MAX)
			fail(STATUS_USAGE, "more than %u words", WORDS_MAX);
		words[n_words++] = p;
		while (*p && *p != ' ' && *p != '\t' && *p != '\n')
			p++;
	}
}

const char *option_word(unsigned i)
{
	return i < n_words ? words[i] : NULL;
}

bool option_flag(const char *name)
{
	for (unsigned i = 0; i < n_words; i++)
		if (strcmp(words[i], name) == 0)
			return true;
	return false;
}

const char *option_str(const char *key, const char *def)
{
	size_t len = strlen(key);

	for (unsigned i = 0; i < n_words; i++)
		if (strncmp(words[i], key, len) == 0 && words[i][len] == '=')
			return words[i] + len + 1;
	return def;
}

static bool parse_u64(const char *s, uint64_t *v)
{
	static const char suffixes[] = "KMG";

	if (!*s)
		return false;
	for (*v = 0; *s >= '0' && *s <= '9'; s++)
		if (__builtin_mul_overflow(*v, (uint64_t)10, v) ||
			__builtin_add_overflow(*v, (uint64_t)(*s - '0'), v))
			return false;
	for (unsigned i = 0; *s && suffixes[i]; i++) {
		if (*s != suffixes[i] && *s != suffixes[i] + ('a' - 'A'))
			continue;
		if (*v >> (64 - 10 * (i + 1)))
			return false;
		*v <<= 10 * (i + 1);
		s++;
	}
	return *s == 0;
}

uint64_t option_u64(const char *key, uint64_t def, uint64_t min, uint64_t max)
{
	const char *s = option_str(key, NULL);
	uint64_t v;

	if (!s)
		return def;
	if (!parse_u64(s, &v))
		fail(STATUS_USAGE, "%s=%s: not a number", key, s);
	if (v < min || v > max)
		fail(STATUS_USAGE, "%s=%s: expected %lu to %lu", key, s, min, max);
	return v;
}
