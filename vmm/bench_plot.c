/* SPDX-License-Identifier: MIT */
/*
 * bench_plot.c - the results as a picture: bars grouped by cache mode, drawn by gnuplot as SVG.
 *
 * One series per format, and a paler one beside it for QEMU.  With repeats, whiskers span the
 * fastest and the slowest.  A row that failed has no bar.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/bench.h"

struct series {
	const struct bench_format *format;
	const struct bench_bus *bus;
	enum bench_who who;
};
#define SERIES_MAX 16

/* Told apart without seeing red and green; the peer's are the same, paler. */
static const char *const colours[][BENCH_WHO] = {
	{ "#555555", "#bbbbbb" },
	{ "#0072b2", "#99c7e0" },
	{ "#e69f00", "#f5d999" },
	{ "#009e73", "#99d8c7" },
};

static unsigned list_series(const struct bench *b, struct series *out)
{
	unsigned n = 0;

	for (unsigned i = 0; i < b->n_rows; i++)
		for (int who = 0; who < (b->o.qemu ? BENCH_WHO : 1); who++) {
			const struct bench_row *r = &b->rows[i];
			unsigned k = 0;

			while (k < n && (out[k].format != r->format || out[k].bus != r->bus ||
						(int)out[k].who != who))
				k++;
			if (k == n && n < SERIES_MAX)
				out[n++] = (struct series){ r->format, r->bus, who };
		}
	return n;
}

/* One line per cache mode: its name, then median, least and most of each series.  How many. */
static unsigned write_data(FILE *f, const struct bench *b, const struct series *list, unsigned n)
{
	unsigned lines = 0;

	fprintf(f, "$d << END_OF_DATA\n");
	for (unsigned i = 0; i < b->n_rows; i++) {
		const char *cache = b->rows[i].cache;

		if (i && strcmp(b->rows[i - 1].cache, cache) == 0)
			continue;
		fprintf(f, "%s", cache);
		for (unsigned k = 0; k < n; k++) {
			const struct bench_row *r = NULL;

			for (unsigned j = 0; j < b->n_rows && !r; j++)
				if (b->rows[j].cache == cache && b->rows[j].bus == list[k].bus &&
					b->rows[j].format == list[k].format)
					r = &b->rows[j];
			if (r && bench_seconds(r, list[k].who) >= 0)
				fprintf(f, " %.6f %.6f %.6f", bench_seconds(r, list[k].who),
					bench_min(r, list[k].who), bench_max(r, list[k].who));
			else
				fprintf(f, " NaN NaN NaN");
		}
		fprintf(f, "\n");
		lines++;
	}
	fprintf(f, "END_OF_DATA\n");
	return lines;
}

static void write_script(FILE *f, const struct bench *b)
{
	struct series list[SERIES_MAX];
	unsigned n = list_series(b, list), lines;

	fprintf(f, "set terminal svg size 960,480 background rgb 'white' font 'sans-serif,14'\n");
	fprintf(f, "set output '");
	for (const char *p = b->o.plot; *p; p++)
		fputs(*p == '\'' ? "''" : (char[2]){ *p }, f);
	fprintf(f, "'\n");
	lines = write_data(f, b, list, n);
	fprintf(f, "set title 'Installing Debian in a guest, by cache mode'\n"
		   "set ylabel 'seconds (less is better)'\n"
		   "set yrange [0:*]\nset grid ytics lc rgb '#dddddd'\nset border 3\n"
		   "set xrange [-0.6:%.1f]\nset xtics nomirror scale 0\nset ytics nomirror\n"
		   "set style data histograms\nset style fill solid noborder\n"
		   "set errorbars 0.6 front lc rgb 'black'\n"
		   "set style histogram %s\nset boxwidth 0.9\n"
		   "set key outside bottom center horizontal\nplot",
		lines - 0.4, b->o.repeats > 1 ? "errorbars gap 1 lw 1" : "clustered gap 1");
	for (unsigned k = 0; k < n; k++) {
		size_t c = (size_t)(list[k].format - bench_formats) % ARRAY_SIZE(colours);
		unsigned at = 2 + 3 * k;

		fprintf(f, "%s $d using ", k ? "," : "");
		if (b->o.repeats > 1)
			fprintf(f, "%u:%u:%u", at, at + 1, at + 2);
		else
			fprintf(f, "%u", at);
		fprintf(f, ":xtic(1) title '%s%s%s%s' lc rgb '%s'", list[k].format->name,
			list[k].bus == b->rows[0].bus ? "" : ", ",
			list[k].bus == b->rows[0].bus ? "" : list[k].bus->name,
			list[k].who == BENCH_QEMU ? ", QEMU" : "", colours[c][list[k].who]);
	}
	fprintf(f, "\n");
}

int bench_write_plot(const struct bench *b, struct why *why)
{
	char name[] = "gnuplot", *argv[] = { name, NULL }, *script = NULL;
	struct bench_child c = { .argv = argv, .timeout_s = 60 };
	size_t len;
	FILE *f = open_memstream(&script, &len);
	int err;

	if (!f)
		return -ENOMEM;
	write_script(f, b);
	if (fclose(f) != 0) {
		free(script);
		return -ENOMEM;
	}
	c.input = script;
	err = bench_child_run(&c);
	free(script);
	if (err)
		return why_set(why, err, "gnuplot: %s", strerror(-err));
	return c.status ? why_set(why, -EIO, "gnuplot: %s", c.words) : 0;
}
