/* SPDX-License-Identifier: MIT */
/*
 * bench.c - `sluice bench install`: what an install costs a guest in each cache mode.
 *
 * The plan is a list of rows, one for each cache mode, bus and format, and a number of repeats.
 * Rows of one mode and bus are compared with each other, so their repeats are interleaved, and
 * the order is turned round each time; so is the order within a pair when QEMU is measured too.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "vmm/bench.h"
#include "vmm/util/loop.h"

const struct bench_format bench_formats[] = {
	{ "raw",	"raw",	 NULL },
	{ "qcow2",	"qcow2", NULL },
	{ "qcow2+lazy", "qcow2", "lazy_refcounts=on" },
	{ NULL, NULL, NULL },
};

const struct bench_bus bench_buses[] = {
	{ "virtio", "virtio-blk-pci,disable-legacy=on", "" },
	{ NULL, NULL, NULL },
};

enum opt_kind { OPT_TEXT, OPT_COUNT, OPT_FLAG };
#define OPT(name, kind, arg, field, help)                                                          \
	{ name, arg, help, kind, offsetof(struct bench_opts, field) }
static const struct opt {
	const char *name, *arg, *help;
	enum opt_kind kind;
	size_t at;
} opts[] = {
	OPT("modes", OPT_TEXT, "LIST", modes,
		"cache modes, comma-separated; default: all five"),
	OPT("formats", OPT_TEXT, "LIST", formats,
		"image formats; default raw,qcow2,qcow2+lazy"),
	OPT("bus", OPT_TEXT, "LIST", buses, "how the guest sees its disk; default virtio"),
	OPT("repeat", OPT_COUNT, "N", repeats, "measure each row N times; default 1"),
	OPT("qemu", OPT_FLAG, NULL, qemu, "measure QEMU beside Sluice, turn by turn"),
	OPT("json", OPT_TEXT, "FILE", json, "write every figure of every repeat to FILE"),
	OPT("plot", OPT_TEXT, "FILE.svg", plot, "draw the result (needs gnuplot)"),
	OPT("dir", OPT_TEXT, "DIR", dir,
		"where to make the images; default $TMPDIR, else /var/tmp"),
	OPT("keep", OPT_TEXT, "DIR", keep, "make the images in DIR and leave them there"),
	OPT("timeout", OPT_COUNT, "SECONDS", timeout_s,
		"give up on a measurement after that long; default 300"),
	OPT("progress", OPT_FLAG, NULL, progress, "show progress (-p); on a terminal by default"),
};
#define COUNT_MAX 100000U

static void usage(FILE *f)
{
	fprintf(f, "usage: sluice bench install [OPTION...]\n"
		   "Installs Debian in a guest, onto each format of image in each cache mode,\n"
		   "and says how long it took and what was written.\n\n");
	for (size_t i = 0; i < ARRAY_SIZE(opts); i++) {
		int n = fprintf(f, "  --%s%s%s", opts[i].name, opts[i].arg ? " " : "",
			opts[i].arg ? opts[i].arg : "");

		fprintf(f, "%*s%s\n", n < 22 ? 22 - n : 1, "", opts[i].help);
	}
}

static const struct opt *find_opt(const char *word, size_t len)
{
	if (len == 1 && *word == 'p')
		return find_opt("progress", 8);
	for (size_t i = 0; i < ARRAY_SIZE(opts); i++)
		if (strlen(opts[i].name) == len && strncmp(opts[i].name, word, len) == 0)
			return &opts[i];
	return NULL;
}

static int set_opt(struct bench_opts *o, const struct opt *opt, const char *value, struct why *why)
{
	void *field = (char *)o + opt->at;
	unsigned long n;
	char *end;

	switch (opt->kind) {
	case OPT_FLAG:
		*(bool *)field = true;
		return 0;
	case OPT_TEXT:
		*(const char **)field = value;
		return *value ? 0 : why_set(why, -EINVAL, "--%s: empty", opt->name);
	case OPT_COUNT:
		errno = 0;
		n = strtoul(value, &end, 10);
		if (errno || *end || *value < '0' || *value > '9' || n == 0 || n > COUNT_MAX)
			return why_set(why, -EINVAL, "--%s %s: expected a number from 1 to %u",
				opt->name, value, COUNT_MAX);
		*(unsigned *)field = (unsigned)n;
		return 0;
	}
	return -EINVAL;
}

/* --name VALUE and --name=VALUE, with one dash or two. */
static int parse(struct bench_opts *o, char **argv, struct why *why)
{
	for (; *argv; argv++) {
		const char *word = *argv, *value;
		const struct opt *opt;
		size_t len;
		int err;

		if (*word != '-')
			return why_set(why, -EINVAL, "%s: not an option", word);
		word += word[1] == '-' ? 2 : 1;
		len = strcspn(word, "=");
		opt = find_opt(word, len);
		if (!opt)
			return why_set(why, -EINVAL, "%s: no such option (see --help)", *argv);
		value = word[len] ? word + len + 1 : NULL;
		if (opt->kind == OPT_FLAG && value)
			return why_set(why, -EINVAL, "--%s takes no value", opt->name);
		if (opt->kind != OPT_FLAG && !value && !(value = *++argv))
			return why_set(why, -EINVAL, "--%s: expected %s", opt->name, opt->arg);
		err = set_opt(o, opt, value, why);
		if (err)
			return err;
	}
	return 0;
}

typedef const char *name_of_fn(unsigned i); /* NULL after the last */

static const char *mode_name(unsigned i)
{
	return cache_mode_names[i];
}

static const char *format_name(unsigned i)
{
	return bench_formats[i].name;
}

static const char *bus_name(unsigned i)
{
	return bench_buses[i].name;
}

#define CHOICE_MAX 16
struct choice {
	unsigned v[CHOICE_MAX], n;
};

/* A comma-separated list of names, each once. */
static int choose(const char *opt, const char *list, name_of_fn *name, struct choice *c,
	struct why *why)
{
	while (*list) {
		size_t len = strcspn(list, ",");
		unsigned i = 0;

		while (name(i) && !(strlen(name(i)) == len && strncmp(name(i), list, len) == 0))
			i++;
		if (!name(i)) {
			char known[160] = "";
			size_t n = 0;

			for (i = 0; name(i) && n < sizeof(known); i++)
				n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s",
					i ? ", " : "", name(i));
			return why_set(why, -EINVAL, "--%s %.*s: expected %s", opt, (int)len, list,
				known);
		}
		for (unsigned k = 0; k < c->n; k++)
			if (c->v[k] == i)
				return why_set(why, -EINVAL, "--%s: %s twice", opt, name(i));
		if (c->n < CHOICE_MAX)
			c->v[c->n++] = i;
		list += len + (list[len] == ',' && list[len + 1]);
		if (*list == ',')
			list++;
	}
	return c->n ? 0 : why_set(why, -EINVAL, "--%s: names nothing", opt);
}

static bool row_alloc(struct bench_row *r, unsigned repeats, int n_who)
{
	for (int who = 0; who < n_who; who++) {
		r->samples[who] = calloc(repeats, sizeof(*r->samples[who]));
		if (!r->samples[who])
			return false;
	}
	return true;
}

static int plan(struct bench *b, struct why *why)
{
	struct choice modes = { .n = 0 }, formats = { .n = 0 }, buses = { .n = 0 };
	int err = choose("modes", b->o.modes, mode_name, &modes, why);

	if (!err)
		err = choose("formats", b->o.formats, format_name, &formats, why);
	if (!err)
		err = choose("bus", b->o.buses, bus_name, &buses, why);
	if (err)
		return err;
	b->rows = calloc((size_t)modes.n * buses.n * formats.n, sizeof(*b->rows));
	if (!b->rows)
		return -ENOMEM;
	for (unsigned m = 0; m < modes.n; m++)
		for (unsigned k = 0; k < buses.n; k++)
			for (unsigned f = 0; f < formats.n; f++) {
				struct bench_row *r = &b->rows[b->n_rows++];

				r->cache = cache_mode_names[modes.v[m]];
				r->bus = &bench_buses[buses.v[k]];
				r->format = &bench_formats[formats.v[f]];
				if (!row_alloc(r, b->o.repeats, b->o.qemu ? BENCH_WHO : 1))
					return -ENOMEM;
			}
	b->n_samples = b->n_rows * b->o.repeats * (b->o.qemu ? 2 : 1);
	return 0;
}

static void unplan(struct bench *b)
{
	for (unsigned i = 0; i < b->n_rows; i++)
		for (int who = 0; who < BENCH_WHO; who++) {
			for (unsigned k = 0; k < b->rows[i].n[who]; k++)
				json_decref(b->rows[i].samples[who][k].stats);
			free(b->rows[i].samples[who]);
		}
	free(b->rows);
	json_decref(b->machine);
}

static bool row_complete(const struct bench *b, const struct bench_row *r)
{
	return r->n[BENCH_SLUICE] == b->o.repeats &&
	       (!b->o.qemu || r->n[BENCH_QEMU] == b->o.repeats);
}

static int measure_row(struct bench *b, struct bench_row *r, unsigned turn)
{
	for (int k = 0; k < (b->o.qemu ? 2 : 1); k++) {
		enum bench_who who = b->o.qemu && (k ^ (turn & 1)) ? BENCH_QEMU : BENCH_SLUICE;
		int err;

		b->now = r;
		b->who = who;
		bench_progress(b);
		err = bench_measure(b, r, who, r->n[who], &r->samples[who][r->n[who]]);
		b->now = NULL;
		if (err)
			return err;
		r->n[who]++;
		b->samples_done++;
	}
	if (b->n_printed < b->n_rows && row_complete(b, &b->rows[b->n_printed]))
		bench_progress_clear(b);
	while (b->n_printed < b->n_rows && row_complete(b, &b->rows[b->n_printed]))
		bench_print_row(b, &b->rows[b->n_printed++]);
	return 0;
}

/* Rows of one mode and bus are neighbours. */
static unsigned group_len(const struct bench *b, unsigned first)
{
	unsigned n = 1;

	while (first + n < b->n_rows && b->rows[first + n].cache == b->rows[first].cache &&
		b->rows[first + n].bus == b->rows[first].bus)
		n++;
	return n;
}

static int measure_all(struct bench *b)
{
	unsigned n, turn = 0;

	b->t_start_ns = loop_now_ns();
	bench_print_head(b);
	for (unsigned first = 0; first < b->n_rows; first += n) {
		n = group_len(b, first);
		for (unsigned rep = 0; rep < b->o.repeats; rep++)
			for (unsigned i = 0; i < n; i++, turn++) {
				unsigned at = rep % 2 ? n - 1 - i : i;
				int err = measure_row(b, &b->rows[first + at], turn);

				if (err)
					return err;
			}
	}
	return 0;
}

static int install(struct bench *b, struct why *why)
{
	unsigned failed = 0;
	int err = plan(b, why);

	if (!err)
		err = bench_prepare(b, why);
	if (err)
		return err;
	err = measure_all(b);
	bench_progress_clear(b);
	if (err)
		return why_set(why, err, "interrupted");
	if (b->o.json)
		err = bench_write_json(b, why);
	if (!err && b->o.plot)
		err = bench_write_plot(b, why);
	if (err)
		return err;
	for (unsigned i = 0; i < b->n_rows; i++)
		failed += bench_row_failed(&b->rows[i]) != NULL;
	return failed ? why_set(why, -EIO, "%u of %u rows failed", failed, b->n_rows) : 0;
}

int bench_main(int argc, char **argv)
{
	struct bench b = { .o = {
		.modes = "writeback,none,writethrough,directsync,unsafe",
		.formats = "raw,qcow2,qcow2+lazy",
		.buses = "virtio",
		.repeats = 1,
		.timeout_s = 300,
		.progress = isatty(STDERR_FILENO),
	} };
	struct why why = { "" };
	int err;

	log_prefix("sluice bench");
	for (int i = 1; i < argc; i++)
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			usage(stdout);
			return 0;
		}
	if (argc < 2 || strcmp(argv[1], "install") != 0) {
		usage(stderr);
		return 1;
	}
	err = parse(&b.o, argv + 2, &why);
	if (!err) {
		bench_child_signals();
		err = install(&b, &why);
	}
	if (err)
		log_error("%s", why_text(&why, err));
	bench_cleanup(&b);
	unplan(&b);
	return err == -EINTR ? 130 : err ? 1 : 0;
}
