/* SPDX-License-Identifier: MIT */
/*
 * args.c - the options that explore and flushes share.
 */
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/powercut/recording.h"

enum {
	OPT_CHECK,
	OPT_IMAGE,
	OPT_IMAGE_FORMAT,
	OPT_HTML,
	OPT_AS,
	OPT_STATES,
	OPT_SEED,
	OPT_JOBS,
	OPT_REASONS,
	OPT_TEAR,
	OPT_EXHAUSTIVE,
	OPT_JSON,
	OPT_HELP
};

static const struct option options[] = {{"check", 1, NULL, OPT_CHECK},
	{"image", 1, NULL, OPT_IMAGE}, {"image-format", 1, NULL, OPT_IMAGE_FORMAT},
	{"html", 1, NULL, OPT_HTML}, {"as", 1, NULL, OPT_AS}, {"states", 1, NULL, OPT_STATES},
	{"seed", 1, NULL, OPT_SEED}, {"jobs", 1, NULL, OPT_JOBS}, {"reasons", 1, NULL, OPT_REASONS},
	{"tear", 1, NULL, OPT_TEAR}, {"exhaustive", 0, NULL, OPT_EXHAUSTIVE},
	{"json", 0, NULL, OPT_JSON}, {"help", 0, NULL, OPT_HELP}, {NULL, 0, NULL, 0}};

static int number(const char *name, const char *text, uint64_t min, uint64_t max, uint64_t *out)
{
	char *end;

	errno = 0;
	*out = strtoull(text, &end, 0);
	if (*text >= '0' && *text <= '9' && !*end && !errno && *out >= min && *out <= max)
		return 0;
	log_error("--%s: '%s' is not a number from %llu to %llu", name, text,
		(unsigned long long)min, (unsigned long long)max);
	return 1;
}

static int one_number(struct judge_args *a, int c)
{
	uint64_t *to[] = {&a->states, &a->seed, &a->jobs, &a->reasons};
	static const uint64_t max[] = {1000000000, UINT64_MAX, 1024, 1000};

	a->states_given |= c == OPT_STATES;
	return number(options[c].name, optarg, c == OPT_SEED ? 0 : 1, max[c - OPT_STATES],
		to[c - OPT_STATES]);
}

static int one_word(struct judge_args *a, int c)
{
	const char **to[] = {&a->check, &a->image, &a->image_format, &a->html};

	if (c <= OPT_HTML) {
		*to[c] = optarg;
		return 0;
	}
	if (c == OPT_AS) {
		a->overlay = !strcmp(optarg, "qcow2");
		if (a->overlay || !strcmp(optarg, "raw"))
			return 0;
		log_error("--as: '%s'; expected raw or qcow2", optarg);
		return 1;
	}
	a->unit = !strcmp(optarg, "512") ? 512 : !strcmp(optarg, "4096") ? 4096 : 0;
	if (a->unit || !strcmp(optarg, "none"))
		return 0;
	log_error("--tear: '%s'; expected 512, 4096 or none", optarg);
	return 1;
}

static int complete(const struct judge_args *a, int argc, char **argv)
{
	if (optind + 1 != argc) {
		log_error(optind < argc ? "unexpected argument '%s'" : "which log?",
			optind < argc ? argv[optind + 1] : "");
		return 1;
	}
	if (a->image && access(a->image, R_OK)) {
		log_error("%s: %s", a->image, strerror(errno));
		return 1;
	}
	return 0;
}

/* 0; 1 with words printed; 2: help was asked for. */
static int parse(struct judge_args *a, int argc, char **argv)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int c, bad = 0;

	*a = (struct judge_args){.states = 1000,
		.seed = 1,
		.jobs = cpus > 0 ? (uint64_t)cpus : 1,
		.reasons = 10,
		.unit = SECTOR};
	optind = 0;
	while (!bad && (c = getopt_long(argc, argv, ":p", options, NULL)) != -1) {
		if (c == OPT_HELP)
			return 2;
		if (c == 'p')
			a->progress = true;
		else if (c == OPT_EXHAUSTIVE)
			a->exhaustive = true;
		else if (c == OPT_JSON)
			a->json = true;
		else if (c == ':' || c == '?') {
			log_error(c == ':' ? "'%s' needs a value" : "unknown option '%s'",
				argv[optind - 1]);
			bad = 1;
		} else if (c >= OPT_STATES && c <= OPT_REASONS)
			bad = one_number(a, c);
		else
			bad = one_word(a, c);
	}
	if (!bad)
		bad = complete(a, argc, argv);
	if (!bad)
		a->log = argv[optind];
	a->progress |= isatty(STDERR_FILENO);
	return bad;
}

int judge_args_begin(
	struct judge_args *a, struct recording *r, int argc, char **argv, const char *help)
{
	struct why why = {""};
	int err, status = parse(a, argc, argv);

	if (status == 2) {
		fputs(help, stdout);
		return -1;
	}
	if (!status && !a->check) {
		log_error("--check is missing: the command that judges an image");
		status = 1;
	}
	if (status)
		return status;
	err = recording_open(r, a->log, TRACE_LOG_DATA, a->progress, &why);
	if (!err)
		err = loop_new(LOOP_AIO_AUTO, &a->loop);
	if (!err)
		err = fiber_pool_init(a->loop);
	if (!err)
		err = judge_args_start(a, r, &why);
	r->image = a->made ? NULL : a->image;
	r->image_format = a->made ? NULL : a->image_format;
	if (!err)
		return 0;
	log_error("%s", why_text(&why, err));
	judge_args_over(a, r);
	return 1;
}

void judge_args_over(struct judge_args *a, struct recording *r)
{
	if (a->made)
		unlink(a->made);
	free(a->made);
	if (a->loop)
		loop_free(a->loop);
	recording_close(r);
}

struct search_opts judge_args_search(const struct judge_args *a, const struct recording *r)
{
	return (struct search_opts){.check = {.command = a->check,
					    .start = a->image,
					    .start_format = a->image_format,
					    .overlay = a->overlay,
					    .jobs = (unsigned)a->jobs,
					    .size = r->size},
		.marks = r->mark,
		.n_marks = r->n_marks,
		.states = a->states,
		.seed = a->seed,
		.unit = a->unit,
		.exhaustive = a->exhaustive,
		.reasons = (unsigned)a->reasons};
}
