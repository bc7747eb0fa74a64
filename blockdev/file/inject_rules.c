/* SPDX-License-Identifier: MIT */
/*
 * inject_rules.c - rules and limits of the fault filter, from a file and from options.
 *
 * A file has sections, [inject-error] and [set-state], of lines key = "value"; options have
 * the same keys, numbered: inject-error.0.event=l2_load, or without a number for a single rule.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/file/inject_int.h"

#define LINE_BYTES 1024
#define ERRNO_MAX  4095 /* what the kernel's system calls may give */

const char *const inject_io_names[] = {
	"read", "write", "write-zeroes", "discard", "flush", "block-status", NULL};

const char *const inject_keys[] = {"x-image", "config", "align", "max-transfer", "opt-write-zero",
	"max-write-zero", "opt-discard", "max-discard", "take-child-perms.", "unshare-child-perms.",
	NULL};

static const char *const error_keys[] = {
	"event", "state", "errno", "iotype", "sector", "once", "immediately", NULL};
static const char *const state_keys[] = {"event", "state", "new_state", NULL};

static bool known(const char *const *keys, const char *key)
{
	for (; *keys; keys++)
		if (!strcmp(*keys, key))
			return true;
	return false;
}

static int read_event(const struct opts *o, struct inject_rule *r, struct why *why)
{
	const char *event = opts_get(o, "event");

	if (!event)
		return why_set(why, -EINVAL, "Missing event name for rule");
	r->event = inject_event_named(event);
	if (r->event == N_FILE_EVENTS)
		return why_set(why, -EINVAL, "invalid parameter value: %s", event);
	return opts_number(o, "state", &r->state, why);
}

static int read_error(const struct opts *o, struct inject_rule *r, struct why *why)
{
	const char *type = opts_get(o, "iotype"), *sector = opts_get(o, "sector");
	uint64_t n = EIO, at = 0;
	int err = opts_number(o, "errno", &n, why), io = 0;

	if (!err)
		err = opts_bool(o, "once", &r->once, why);
	if (!err)
		err = opts_bool(o, "immediately", &r->immediately, why);
	if (!err)
		err = opts_number(o, "sector", &at, why);
	if (err)
		return err;
	if (n > ERRNO_MAX)
		return why_set(why, -EINVAL, "errno must be at most %d", ERRNO_MAX);
	r->err = -(int)n;
	r->anywhere = !sector || at == UINT64_MAX; /* -1 */
	r->off = at * SECTOR;
	r->io = 1u << IO_READ | 1u << IO_WRITE | 1u << IO_ZEROES | 1u << IO_DISCARD |
		1u << IO_FLUSH;
	if (!type)
		return 0;
	while (inject_io_names[io] && strcmp(inject_io_names[io], type) != 0)
		io++;
	if (!inject_io_names[io])
		return why_set(why, -EINVAL, "invalid parameter value: %s", type);
	r->io = 1u << io;
	return 0;
}

static int add_rule(struct inject *in, enum inject_act act, const struct opts *o, struct why *why)
{
	struct inject_rule r = {.act = act};
	int err = read_event(o, &r, why);

	if (!err && act == INJECT_ERROR)
		err = read_error(o, &r, why);
	else if (!err)
		err = opts_number(o, "new_state", &r.new_state, why);
	return err ? err : inject_add(in, &r);
}

/* ---- a file ---- */

struct section {
	enum inject_act act;
	bool open;
	struct opts o;
};

static int section_end(struct inject *in, struct section *s, struct why *why)
{
	int err = s->open ? add_rule(in, s->act, &s->o, why) : 0;

	opts_fini(&s->o);
	s->open = false;
	return err;
}

static int section_begin(struct section *s, const char *name, struct why *why)
{
	s->open = true;
	if (!strcmp(name, "inject-error"))
		s->act = INJECT_ERROR;
	else if (!strcmp(name, "set-state"))
		s->act = INJECT_SET_STATE;
	else
		return why_set(why, -EINVAL, "There is no option group '%s'", name);
	return 0;
}

static int read_line(struct inject *in, struct section *s, const char *line, struct why *why)
{
	char key[64], value[LINE_BYTES] = "";
	int n;

	while (isspace((unsigned char)*line))
		line++;
	if (!*line || *line == '#')
		return 0;
	if (sscanf(line, "[%63[^]]]", key) == 1) {
		int err = section_end(in, s, why);

		return err ? err : section_begin(s, key, why);
	}
	n = sscanf(line, "%63s = \"%1023[^\"]\"", key, value);
	if (n < 1 || !s->open)
		return why_set(why, -EINVAL, "parse error in line '%s'", line);
	if (!known(s->act == INJECT_ERROR ? error_keys : state_keys, key))
		return why_set(why, -EINVAL, "Invalid parameter '%s'", key);
	return opts_set(&s->o, key, value);
}

static int read_config(struct inject *in, const char *path, struct why *why)
{
	struct section s = {0};
	char line[LINE_BYTES];
	FILE *f = fopen(path, "r");
	int err = 0;

	if (!f)
		return why_set(
			why, -errno, "Could not read blkdebug config file: %s", strerror(errno));
	while (!err && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		err = read_line(in, &s, line, why);
	}
	if (!err && ferror(f))
		err = -EIO;
	if (!err)
		err = section_end(in, &s, why);
	opts_fini(&s.o);
	fclose(f);
	return err;
}

/* ---- options ---- */

static int one_inline(
	struct inject *in, enum inject_act act, const char *name, struct opts *o, struct why *why)
{
	for (size_t i = 0; i < o->n; i++)
		if (!known(act == INJECT_ERROR ? error_keys : state_keys, o->v[i].key))
			return why_set(why, -EINVAL, "[%s] section doesn't support the option '%s'",
				name, o->v[i].key);
	return add_rule(in, act, o, why);
}

static int read_inline(
	struct inject *in, enum inject_act act, const char *name, struct opts *o, struct why *why)
{
	struct opts all = {0};
	int err = opts_take(o, name, &all);
	char number[16];

	for (unsigned i = 0; !err; i++) {
		struct opts one = {0};

		snprintf(number, sizeof(number), "%u", i);
		if (!opts_has_under(&all, number))
			break;
		err = opts_take(&all, number, &one);
		if (!err)
			err = one_inline(in, act, name, &one, why);
		opts_fini(&one);
	}
	if (!err && all.n)
		err = one_inline(in, act, name, &all, why);
	opts_fini(&all);
	return err;
}

/*
 * Zeros outside of multiples of opt-write-zero are written.  The other limits only say in what
 * portions QEMU is to ask for what ours asks for at once; they are checked, as there, and that
 * is all.
 */
static int check_limits(struct inject *in, const struct opts *o, struct why *why)
{
	static const char *const names[] = {
		"max-transfer", "opt-write-zero", "max-write-zero", "opt-discard", "max-discard"};
	uint64_t align = 0;
	int err = opts_size(o, "align", &align, why);

	if (!err && align && (align >= INT32_MAX || !is_pow2(align)))
		err = why_set(why, -EINVAL, "Cannot meet constraints with align %llu",
			(unsigned long long)align);
	align = max_u64(align, 1);
	for (size_t i = 0; i < ARRAY_SIZE(names) && !err; i++) {
		uint64_t v = 0;

		err = opts_size(o, names[i], &v, why);
		if (!err && v && (v >= INT32_MAX || v % align))
			err = why_set(why, -EINVAL, "Cannot meet constraints with %s %llu",
				names[i], (unsigned long long)v);
		if (!err && !strcmp(names[i], "opt-write-zero"))
			in->file.zeroes_unit = (uint32_t)v;
	}
	return err;
}

int inject_options(struct file *f, struct opts *o, struct why *why)
{
	struct inject *in = inject_of(f);
	const char *config = opts_get(o, "config");
	int err = config ? read_config(in, config, why) : 0;

	if (!err)
		err = read_inline(in, INJECT_ERROR, "inject-error", o, why);
	if (!err)
		err = read_inline(in, INJECT_SET_STATE, "set-state", o, why);
	if (!err)
		err = check_limits(in, o, why);
	if (!err)
		inject_event(in, EV_NONE);
	return err;
}
