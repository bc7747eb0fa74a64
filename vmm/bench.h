/* SPDX-License-Identifier: MIT */
/*
 * bench.h - what the parts of `sluice bench` share: the cases, a measurement, the results.
 *
 * bench.c reads the options and decides the order, bench_run.c makes one measurement with
 * the help of bench_child.c (processes), bench_linux.c (Debian's installer as the guest) and
 * bench_guest.c (what a guest says), bench_report.c and bench_plot.c show the results.
 */
#ifndef VMM_BENCH_H
#define VMM_BENCH_H

#include <jansson.h>
#include "vmm/util/base.h"
#include "vmm/util/log.h"

struct bench_format {
	const char *name;	 /* as in --formats */
	const char *format;	 /* as in -drive format= */
	const char *create_opts; /* as in img create -o; NULL: none */
};
struct bench_bus {
	const char *name;	 /* as in --bus */
	const char *iface;	 /* as in -drive if= */
	const char *qemu_device; /* as in -device, without the drive */
	const char *guest_word;	 /* for the guest's command line; may be empty */
};
extern const struct bench_format bench_formats[]; /* the last one's name is NULL */
extern const struct bench_bus bench_buses[];

enum bench_who { BENCH_SLUICE, BENCH_QEMU, BENCH_WHO };

/* What the guest said on its serial line. */
struct bench_guest {
	uint64_t percent;
	uint64_t ops, reads, writes, flushes, read_kib, write_kib, usec, depth_max, errors, irqs;
	uint64_t wrong, fill_usec, check_usec, kicks;
	uint64_t sectors, bad, first_bad, verify_errors, ambiguous;
	uint64_t status;
	bool installed, verified, done; /* the lines that were there */
	char said[160];			/* the last line that was none of these */
};
/* Takes in one line; changes the line's memory. */
void bench_guest_line(struct bench_guest *g, char *line);
/* What is wrong with a guest that has ended, or NULL; points into g or static storage. */
const char *bench_guest_failed(struct bench_guest *g);
/* The figures as an object, for the report. */
json_t *bench_guest_json(const struct bench_guest *g);

struct bench_sample {
	struct bench_guest guest;
	json_t *stats;	   /* what the hypervisor wrote, or NULL */
	double wall_s;	   /* from start to end of the process */
	char failed[256]; /* why it does not count; empty: it does */
};

struct bench_row {
	const struct bench_bus *bus;
	const struct bench_format *format;
	const char *cache;
	struct bench_sample *samples[BENCH_WHO]; /* [repeats]; NULL: not asked for */
	unsigned n[BENCH_WHO];			 /* made so far */
};

enum bench_guest_kind { BENCH_REPLAY, BENCH_LINUX };

struct bench_opts {
	const char *modes, *formats, *buses; /* comma-separated */
	const char *json, *plot, *keep, *dir, *trace, *linux_dir;
	int guest; /* enum bench_guest_kind */
	unsigned repeats, timeout_s;
	bool qemu, progress;
};

struct bench {
	struct bench_opts o;
	struct bench_row *rows;
	unsigned n_rows, n_printed;
	const struct bench_row *now; /* what is being measured, for the progress line */
	enum bench_who who;
	unsigned n_samples, samples_done;
	uint64_t t_start_ns;
	uint64_t tsc_khz, disk_bytes, memory_mib;
	const char *kernel, *initrd; /* names in dir */
	char dir[4096];	 /* where images are made */
	char trace_dir[4096]; /* absolute, of o.trace */
	bool dir_is_ours; /* remove it at the end */
	json_t *machine;
};

/* bench_run.c */
must_check int bench_prepare(struct bench *b, struct why *why);
/* One measurement; how it went is in the sample.  -EINTR: the user wants to end. */
must_check int bench_measure(struct bench *b, const struct bench_row *r, enum bench_who who,
	unsigned n, struct bench_sample *s);
void bench_cleanup(struct bench *b);

/*
 * bench_linux.c: puts kernel, installer and packages into b->dir as links; what they need.
 * -ENOENT with words if they have not been made.
 */
#define BENCH_PACKAGES "packages.img"
must_check int bench_linux_prepare(struct bench *b, struct why *why);
void bench_linux_cleanup(struct bench *b);

/* bench_child.c: a process whose standard output is read line by line. */
struct bench_child {
	const char *dir;	 /* to run in; NULL: here */
	char *const *argv;	 /* argv[0] is searched for in PATH */
	const char *input;	 /* for its standard input; NULL: none */
	unsigned timeout_s;	 /* 0: none */
	void (*line)(void *arg, char *line); /* may be NULL */
	void *arg;
	int status;	/* exit status; 128 + signal */
	char words[200]; /* the last line on its standard error */
};
/* 0: it ended by itself; -ETIMEDOUT, -EINTR: it was ended; -errno: it did not start. */
must_check int bench_child_run(struct bench_child *c);
/* From now on SIGINT and the like end the running child, and bench_child_run() gives -EINTR. */
void bench_child_signals(void);
/* Is there a program of that name in PATH? */
bool bench_child_exists(const char *name);

/* bench_report.c; a figure that is not known is negative. */
double bench_seconds(const struct bench_row *r, enum bench_who who);  /* median */
double bench_min(const struct bench_row *r, enum bench_who who);
double bench_max(const struct bench_row *r, enum bench_who who);
double bench_ratio_raw(const struct bench *b, const struct bench_row *r);
double bench_ratio_qemu(const struct bench_row *r); /* median of the pairs' ratios */
const char *bench_row_failed(const struct bench_row *r); /* NULL: it did not */
void bench_progress(struct bench *b);
void bench_progress_clear(struct bench *b);
void bench_print_head(const struct bench *b);
void bench_print_row(const struct bench *b, const struct bench_row *r);
must_check int bench_write_json(const struct bench *b, struct why *why);
json_t *bench_machine(const char *dir); /* what it was measured on */

/* bench_plot.c */
must_check int bench_write_plot(const struct bench *b, struct why *why);

int bench_main(int argc, char **argv);

#endif
