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
#include "vmm/options.h"
#include "vmm/util/loop.h"

const struct bench_format bench_formats[] = {
	{ "raw",	"raw",	 NULL },
	{ "qcow2",	"qcow2", NULL },
	{ "qcow2+lazy", "qcow2", "lazy_refcounts=on" },
	{ NULL, NULL, NULL },
};

const struct bench_bus bench_buses[] = {
	{ "virtio", "virtio", "virtio-blk-pci,disable-legacy=on", "" },
	{ "ide", "ide", "ide-hd", "bus=ide" },
	{ "ide-pio", "ide", "ide-hd", "bus=ide-pio" },
	{ NULL, NULL, NULL, NULL },
};

static const char *const guest_names[] = { "replay", "linux", NULL };

#define BENCH(name, kind, field, arg, help)                                                        \
	OPT(name, kind, offsetof(struct bench_opts, field), arg, help)
static const struct opt table[] = {
	{BENCH("modes", OPT_STRING, modes, "LIST",
		"cache modes, comma-separated (default: all five)")},
	{BENCH("formats", OPT_STRING, formats, "LIST",
		"formats of image: raw, qcow2, qcow2+lazy (default: raw,qcow2)")},
	{BENCH("bus", OPT_STRING, buses, "LIST",
		"how the guest sees its disk: virtio, ide, ide-pio (default: virtio)")},
	{BENCH("guest", OPT_ENUM, guest, "replay|linux",
		 "replay: the test guest sends the requests of a recorded install (default);\n"
		 "linux: Debian's kernel and dpkg install, where KVM has hardware virtualization"),
		.names = guest_names},
	{BENCH("linux-dir", OPT_STRING, linux_dir, "DIR",
		"for --guest linux: what guest/linux/debian.sh made\n"
		"(default: $XDG_CACHE_HOME/sluice/debian, else ~/.cache/sluice/debian)")},
	{BENCH("repeat", OPT_UINT, repeats, "N", "measure each row N times (default: 1)"),
		.min = 1, .max = 10000},
	{BENCH("qemu", OPT_FLAG, qemu, NULL, "measure QEMU beside Sluice, in turn")},
	{BENCH("json", OPT_STRING, json, "FILE", "write every figure of every repeat to FILE")},
	{BENCH("plot", OPT_STRING, plot, "FILE", "draw the result as SVG (needs gnuplot)")},
	{BENCH("dir", OPT_STRING, dir, "DIR",
		"make the images in DIR (default: $TMPDIR, else /var/tmp)")},
	{BENCH("keep", OPT_STRING, keep, "DIR", "make the images in DIR and leave them there")},
	{BENCH("trace", OPT_STRING, trace, "DIR",
		"record Sluice's runs, as -drive trace= does: BUS-FORMAT-MODE-N.log in DIR")},
	{BENCH("timeout", OPT_UINT, timeout_s, "SECONDS",
		"give up on a measurement after that time (default: 300; linux: 3600)"),
		.min = 1, .max = 1000000},
	{BENCH("progress", OPT_FLAG, progress, NULL,
		"show progress; on a terminal it is shown anyway")},
	{BENCH("p", OPT_FLAG, progress, NULL, "the same")},
	{0},
};

static void usage(FILE *f)
{
	fprintf(f, "Usage: sluice bench install [OPTION]...\n"
		   "Installs Debian in a guest, onto each format of image in each cache mode, and\n"
		   "says how long it took and what was written. Options take one dash or two.\n\n");
	options_help(f, table, false);
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
		.formats = "raw,qcow2",
		.buses = "virtio",
		.repeats = 1,
		.progress = isatty(STDERR_FILENO),
	} };
	int err, words = argc > 1 && strcmp(argv[1], "install") == 0 ? 2 : 1;
	struct why why = { "" };

	log_prefix("sluice bench");
	err = options_parse(table, &b.o, argc - words, argv + words, &why);
	if (err == OPTIONS_HELP) {
		usage(stdout);
		return 0;
	}
	if (!err && words == 1)
		err = why_set(&why, -EINVAL, "what to measure is missing: sluice bench install");
	if (!b.o.timeout_s)
		b.o.timeout_s = b.o.guest == BENCH_LINUX ? 3600 : 300;
	if (!err && b.o.linux_dir && b.o.guest != BENCH_LINUX)
		err = why_set(&why, -EINVAL, "--linux-dir goes with --guest linux");
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
