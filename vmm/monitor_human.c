/* SPDX-License-Identifier: MIT */
/*
 * monitor_human.c - the monitor's commands as people type them: human-monitor-command.
 *
 * A line is words between blanks.  It is carried out as one or more commands of QMP; here are only
 * the names of their arguments and the wording of their answers, in lines that end in CR LF.  A
 * command that fails says so in the text: to QMP it has succeeded.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/monitor.h"

#define WORDS  6
#define BLANKS " \t\r\n"

struct line {
	struct monitor *m;
	FILE *out;
	char *word[WORDS + 1];
	unsigned n;
};

/* A member that is there. */
static const char *text(json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));

	return s ? s : "";
}

static json_int_t number(json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static bool yes(json_t *o, const char *key)
{
	return json_is_true(json_object_get(o, key));
}

/* The answer, or NULL after words for the error.  The caller drops it. */
static json_t *ask(struct line *l, const char *command, json_t *args)
{
	struct monitor_error e = {"GenericError", "out of memory"};
	json_t *answer = monitor_call(l->m, command, args, &e);

	if (!answer)
		fprintf(l->out, "Error: %s\r\n", e.desc);
	return answer;
}

/* ---- info ---- */

static void info_status(struct line *l, json_t *a)
{
	const char *status = text(a, "status");
	bool plain = yes(a, "running") || !strcmp(status, "paused");

	fprintf(l->out, "VM status: %s", yes(a, "running") ? "running" : "paused");
	fprintf(l->out, plain ? "\r\n" : " (%s)\r\n", status);
}

static void info_version(struct line *l, json_t *a)
{
	json_t *v = json_object_get(a, "qemu");

	fprintf(l->out, "%d.%d.%d (%s)\r\n", (int)number(v, "major"), (int)number(v, "minor"),
		(int)number(v, "micro"), text(a, "package"));
}

static void info_name(struct line *l, json_t *a)
{
	if (json_object_get(a, "name"))
		fprintf(l->out, "%s\r\n", text(a, "name"));
}

static void info_kvm(struct line *l, json_t *a)
{
	fprintf(l->out, "kvm support: %s\r\n", yes(a, "enabled") ? "enabled" : "disabled");
}

static void info_cpus(struct line *l, json_t *a)
{
	json_t *cpu;
	size_t i;

	json_array_foreach(a, i, cpu)
		fprintf(l->out, "%s CPU #%d: thread_id=%d\r\n", i ? " " : "*",
			(int)number(cpu, "cpu-index"), (int)number(cpu, "thread-id"));
}

static void one_block(struct line *l, json_t *d)
{
	json_t *in = json_object_get(d, "inserted");

	fprintf(l->out, "%s: ", text(d, "device"));
	if (in)
		fprintf(l->out, "%s (%s%s)\r\n", text(in, "file"), text(in, "drv"),
			yes(in, "ro") ? ", read-only" : "");
	else
		fprintf(l->out, "[not inserted]\r\n");
	if (yes(d, "removable"))
		fprintf(l->out, "    Removable device: %slocked, tray %s\r\n",
			yes(d, "locked") ? "" : "not ", yes(d, "tray_open") ? "open" : "closed");
	if (!in)
		return;
	fprintf(l->out, "    Cache mode:       %s, write cache %s\r\n",
		text(json_object_get(d, "x-write-cache"), "mode"),
		yes(json_object_get(in, "cache"), "writeback") ? "on" : "off");
	if (json_object_get(in, "backing_file"))
		fprintf(l->out, "    Backing file:     %s (chain depth: %d)\r\n",
			text(in, "backing_file"), (int)number(in, "backing_file_depth"));
}

static void info_block(struct line *l, json_t *a)
{
	json_t *d;
	size_t i;

	json_array_foreach(a, i, d)
		if (l->n < 3 || !strcmp(text(d, "device"), l->word[2]))
			one_block(l, d);
}

static void info_blockstats(struct line *l, json_t *a)
{
	json_t *d, *value;
	const char *key;
	size_t i;

	json_array_foreach(a, i, d) {
		fprintf(l->out, "%s:", text(d, "device"));
		json_object_foreach(json_object_get(d, "stats"), key, value)
			fprintf(l->out, " %s=%" PRId64, key, (int64_t)json_integer_value(value));
		fprintf(l->out, "\r\n");
	}
}

static void info_chardev(struct line *l, json_t *a)
{
	json_t *d;
	size_t i;

	json_array_foreach(a, i, d)
		fprintf(l->out, "%s: filename=%s\r\n", text(d, "label"), text(d, "filename"));
}

static const struct info {
	const char *name, *query, *help;
	void (*show)(struct line *l, json_t *answer);
} infos[] = {
	{"block", "query-block", "[device] -- the drives and what is in them", info_block},
	{"blockstats", "query-blockstats", "-- what they did", info_blockstats},
	{"chardev", "query-chardev", "-- the monitor's socket and the serial port",
		info_chardev},
	{"cpus", "query-cpus-fast", "-- the processors", info_cpus},
	{"kvm", "query-kvm", "-- whether KVM is in use", info_kvm},
	{"name", "query-name", "-- what the user calls the machine", info_name},
	{"status", "query-status", "-- whether it runs", info_status},
	{"version", "query-version", "-- of this program", info_version},
};

static void info(struct line *l)
{
	for (unsigned i = 0; i < ARRAY_SIZE(infos); i++) {
		json_t *answer;

		if (l->n < 2) {
			fprintf(l->out, "info %s %s\r\n", infos[i].name, infos[i].help);
			continue;
		}
		if (strcmp(l->word[1], infos[i].name))
			continue;
		answer = ask(l, infos[i].query, json_object());
		if (answer)
			infos[i].show(l, answer);
		json_decref(answer);
		return;
	}
	if (l->n >= 2)
		fprintf(l->out, "unknown command: 'info %s'\r\n", l->word[1]);
}

/* ---- what does something ---- */

/* params: the names that its words have as arguments; -f, if it has that, comes before them. */
static const struct action {
	const char *name, *command, *help;
	const char *params[3];
	unsigned least;
	bool force;
} actions[] = {
	{"change", "blockdev-change-medium", "[-f] device file [format] -- another disc",
		{"device", "filename", "format"}, 2, true},
	{"cont", "cont", "-- the guest goes on", {NULL}, 0, false},
	{"c", "cont", "-- the same", {NULL}, 0, false},
	{"eject", "eject", "[-f] device -- the disc is taken out", {"device"}, 1, true},
	{"quit", "quit", "-- the machine ends", {NULL}, 0, false},
	{"q", "quit", "-- the same", {NULL}, 0, false},
	{"stop", "stop", "-- the guest stands still", {NULL}, 0, false},
	{"s", "stop", "-- the same", {NULL}, 0, false},
	{"system_powerdown", "system_powerdown", "-- the power button", {NULL}, 0, false},
	{"system_reset", "system_reset", "-- the reset button", {NULL}, 0, false},
};

static void act(struct line *l, const struct action *a)
{
	json_t *args = json_object();
	unsigned at = 1, n = 0;

	if (a->force && l->n > at && !strcmp(l->word[at], "-f")) {
		json_object_set_new(args, "force", json_true());
		at++;
	}
	for (; at < l->n && n < ARRAY_SIZE(a->params) && a->params[n]; n++)
		json_object_set_new(args, a->params[n], json_string(l->word[at++]));
	if (at == l->n && n >= a->least) {
		json_decref(ask(l, a->command, args));
		return;
	}
	json_decref(args);
	fprintf(l->out, "usage: %s %s\r\n", a->name, a->help);
}

static void help(struct line *l)
{
	for (unsigned i = 0; i < ARRAY_SIZE(actions); i++)
		fprintf(l->out, "%s %s\r\n", actions[i].name, actions[i].help);
	fprintf(l->out, "help -- this\r\ninfo [subject] -- what there is to know\r\n");
}

static void carry_out(struct line *l)
{
	for (unsigned i = 0; i < ARRAY_SIZE(actions); i++) {
		if (!strcmp(actions[i].name, l->word[0])) {
			act(l, &actions[i]);
			return;
		}
	}
	if (!strcmp(l->word[0], "info"))
		info(l);
	else if (!strcmp(l->word[0], "help") || !strcmp(l->word[0], "?"))
		help(l);
	else
		fprintf(l->out, "unknown command: '%s'\r\n", l->word[0]);
}

json_t *monitor_human(struct monitor *m, json_t *args, struct monitor_error *e)
{
	json_t *cpu = json_object_get(args, "cpu-index"), *answer;
	const char *given = json_string_value(json_object_get(args, "command-line"));
	struct line l = {.m = m};
	char *words, *rest = NULL, *said = NULL;
	size_t len;

	if (!given)
		return monitor_fail(e, "GenericError", "expected command-line, a string");
	if (cpu && (uint64_t)json_integer_value(cpu) >= monitor_host(m)->cpus)
		return monitor_fail(
			e, "GenericError", "Parameter 'cpu-index' expects a CPU number");
	words = strdup(given);
	l.out = words ? open_memstream(&said, &len) : NULL;
	for (char *w = l.out ? strtok_r(words, BLANKS, &rest) : NULL; w && l.n <= WORDS;
		w = strtok_r(NULL, BLANKS, &rest))
		l.word[l.n++] = w;
	if (l.n)
		carry_out(&l);
	answer = l.out && !fclose(l.out) ? json_string(said) : NULL;
	free(said);
	free(words);
	return answer;
}
