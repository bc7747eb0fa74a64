/* SPDX-License-Identifier: MIT */
/*
 * replay.c - sluice powercut replay: the image that one cut leaves.
 *
 * Of what was pending at the cut the policy says what happened; the same words give the same image,
 * always.  For subset= requests are named by the event of their submission.
 */
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/powercut/recording.h"

static const char help[] =
	"Usage: sluice powercut replay LOG --at EVENT -o IMAGE [OPTION]...\n"
	"Builds the image that a power cut right after an event leaves: durable writes are all in\n"
	"it, of the others those that the policy says.\n"
	"\n"
	"  --at EVENT        the cut: a number from 0 to that of the last event, or 'end'\n"
	"  --policy POLICY   none, all: of what is not durable none, or all, is there;\n"
	"                    random: whole writes by chance (default); reorder: and where\n"
	"                    they overlap, an earlier one over a later one; torn: torn ones too;\n"
	"                    subset=all,-E,~E,...: all but the write of event E, or it torn;\n"
	"                    subset=none,+E,...: none but that one\n"
	"  --seed N          which choice; the same N gives the same image (1)\n"
	"  --tear 512|4096|none  what a torn write consists of (512)\n"
	"  --reverse         with subset=: overlapping writes in the other order\n"
	"  --image IMAGE     the image as it was when the log began; only read\n"
	"  --image-format F  raw or qcow2; default: probed\n"
	"  -o IMAGE          what is built; must not exist\n"
	"  -f raw|qcow2      raw, or qcow2: an overlay over IMAGE, which costs little\n"
	"\n"
	"Example:\n"
	"  sluice powercut replay run.log --image before.raw --at 1200 --policy none -o "
	"cut.raw\n";

struct replay {
	struct judge_args a;
	const char *out, *at_word, *subset;
	uint64_t at;
	enum cut_policy policy; /* without subset */
	bool reverse;
};

enum {
	OPT_AT,
	OPT_POLICY,
	OPT_SEED,
	OPT_TEAR,
	OPT_IMAGE,
	OPT_IMAGE_FORMAT,
	OPT_REVERSE,
	OPT_HELP
};
static const struct option options[] = {{"at", 1, NULL, OPT_AT}, {"policy", 1, NULL, OPT_POLICY},
	{"seed", 1, NULL, OPT_SEED}, {"tear", 1, NULL, OPT_TEAR}, {"image", 1, NULL, OPT_IMAGE},
	{"image-format", 1, NULL, OPT_IMAGE_FORMAT}, {"reverse", 0, NULL, OPT_REVERSE},
	{"help", 0, NULL, OPT_HELP}, {NULL, 0, NULL, 0}};

/* All of text, or up to the comma that *end is set to. */
static bool number(const char *text, const char **end, uint64_t *out)
{
	char *stop;

	errno = 0;
	*out = strtoull(text, &stop, 10);
	if (end)
		*end = stop;
	return *text >= '0' && *text <= '9' && !errno && (!*stop || (end && *stop == ','));
}

static int take_policy(struct replay *y, const char *word)
{
	if (!strncmp(word, "subset=", 7)) {
		y->subset = word + 7;
		return 0;
	}
	for (unsigned i = 0; cut_policies[i]; i++)
		if (!strcmp(word, cut_policies[i])) {
			y->policy = (enum cut_policy)i;
			y->subset = NULL;
			return 0;
		}
	log_error("--policy: '%s'; expected none, all, random, reorder, torn or subset=...", word);
	return 1;
}

static int take_tear(struct replay *y, const char *word)
{
	y->a.unit = !strcmp(word, "512") ? 512 : !strcmp(word, "4096") ? 4096 : 0;
	if (y->a.unit || !strcmp(word, "none"))
		return 0;
	log_error("--tear: '%s'; expected 512, 4096 or none", word);
	return 1;
}

static int take_format(struct replay *y, const char *word)
{
	y->a.overlay = !strcmp(word, "qcow2");
	if (y->a.overlay || !strcmp(word, "raw"))
		return 0;
	log_error("-f: '%s'; expected raw or qcow2", word);
	return 1;
}

static int one_option(struct replay *y, int c, char **argv)
{
	switch (c) {
	case OPT_AT:
		y->at_word = optarg;
		return 0;
	case OPT_POLICY:
		return take_policy(y, optarg);
	case OPT_SEED:
		if (number(optarg, NULL, &y->a.seed))
			return 0;
		log_error("--seed: '%s' is not a number", optarg);
		return 1;
	case OPT_TEAR:
		return take_tear(y, optarg);
	case OPT_IMAGE:
		y->a.image = optarg;
		return 0;
	case OPT_IMAGE_FORMAT:
		y->a.image_format = optarg;
		return 0;
	case OPT_REVERSE:
		y->reverse = true;
		return 0;
	case 'o':
		y->out = optarg;
		return 0;
	case 'f':
		return take_format(y, optarg);
	}
	log_error(c == ':' ? "'%s' needs a value" : "unknown option '%s'", argv[optind - 1]);
	return 1;
}

static int complete(struct replay *y, int argc, char **argv)
{
	const char *missing = optind == argc ? "which log?"
			      : !y->at_word  ? "--at is missing: where is the cut?"
			      : !y->out      ? "-o is missing: which image is to be built?"
					     : NULL;

	if (missing || optind + 1 != argc) {
		log_error(missing ? "%s" : "unexpected argument '%s'",
			missing ? missing : argv[optind + 1]);
		return 1;
	}
	if (y->reverse && !y->subset) {
		log_error("--reverse goes with --policy subset=...");
		return 1;
	}
	if (!access(y->out, F_OK)) {
		log_error("%s: exists already", y->out);
		return 1;
	}
	y->a.log = argv[optind];
	return 0;
}

/* 0; 1 with words printed; 2: help was asked for. */
static int parse(struct replay *y, int argc, char **argv)
{
	int c, bad = 0;

	*y = (struct replay){.a = {.seed = 1, .jobs = 1, .unit = SECTOR}, .policy = CUT_RANDOM};
	optind = 0;
	while (!bad && (c = getopt_long(argc, argv, ":o:f:", options, NULL)) != -1) {
		if (c == OPT_HELP)
			return 2;
		bad = one_option(y, c, argv);
	}
	return bad ? bad : complete(y, argc, argv);
}

/* ---- the choice ---- */

/* Which pending operation is the request that was submitted then; -1: none. */
static int64_t pending_at(
	const struct cuts *k, const struct guest_disk *g, const struct crash_log *log,
	uint64_t event)
{
	for (uint32_t i = 0; i < k->model.n_pending; i++)
		if (log->guest[g->guest[k->model.pending[i]]].submitted == event)
			return i;
	return -1;
}

static int choose_subset(const struct replay *y, struct cuts *k, const struct guest_disk *g,
	const struct crash_log *log, struct why *why)
{
	const char *p = y->subset;
	bool all = !strncmp(p, "all", 3);

	if (!all && strncmp(p, "none", 4) != 0)
		return why_set(why, -EINVAL, "--policy subset=: begins with all or none");
	cuts_set_all(k, all ? FATE_WHOLE : FATE_LOST);
	for (p += all ? 3 : 4; *p;) {
		char sign = *p == ',' ? p[1] : 0;
		uint64_t event;
		int64_t i;

		if ((sign != '-' && sign != '+' && sign != '~') || !number(p + 2, &p, &event))
			return why_set(why, -EINVAL,
				"--policy subset=: '%s'; expected ,-E or ,+E or ,~E", p);
		i = pending_at(k, g, log, event);
		if (i < 0)
			return why_set(why, -EINVAL,
				"--policy subset=: event %" PRIu64
				" is no write that is at risk at event %" PRIu64,
				event, y->at);
		if (sign == '~' && !y->a.unit)
			return why_set(why, -EINVAL, "--tear none, but event %" PRIu64 " is torn",
				event);
		k->c.fate[i] = (uint8_t)(sign == '-'   ? FATE_LOST
					 : sign == '+' ? FATE_WHOLE
						       : FATE_TORN);
	}
	k->c.tear = y->a.seed;
	k->c.reversed = y->reverse;
	return 0;
}

static int choose(const struct replay *y, struct cuts *k, const struct guest_disk *g,
	const struct crash_log *log, struct why *why)
{
	if (!y->subset) {
		policy_choose(&k->model, y->policy, y->a.seed, y->a.unit, &k->c);
		return 0;
	}
	k->c.unit = y->a.unit ? y->a.unit : SECTOR;
	return choose_subset(y, k, g, log, why);
}

static void tell(const struct replay *y, const struct recording *r, const struct cuts *k,
	const struct guest_disk *g)
{
	uint32_t n[3] = {0}, data = 0;

	for (uint32_t i = 0; i < k->n_data; i++) {
		n[k->c.fate[k->data[i]]]++;
		data++;
	}
	printf("%s: cut after event %" PRIu64 " of %" PRIu64
	       ": of %u writes at risk %u are there, %u lost, %u torn\n",
		y->out, y->at, r->log.clock, data, n[FATE_WHOLE], n[FATE_LOST], n[FATE_TORN]);
}

static int build(const struct replay *y, const struct recording *r, struct why *why)
{
	struct checker_opts o = {.command = "",
		.start = y->a.image,
		.start_format = y->a.image_format,
		.overlay = y->a.overlay,
		.jobs = 1,
		.size = r->size};
	struct checker *c = NULL;
	struct guest_disk g;
	struct cuts k;
	int err = guest_disk_open(y->a.loop, &g, &r->log, y->a.image, y->a.image_format, why);

	if (err)
		return err;
	cuts_init(&k, &g.log, &g.start, true);
	cuts_at(&k, y->at);
	err = choose(y, &k, &g, &r->log, why);
	if (!err)
		err = checker_new(y->a.loop, &o, &g, &c, why);
	if (!err) {
		cuts_take(&k);
		err = checker_build(c, &k, y->out, why);
		if (err)
			unlink(y->out);
	}
	if (!err)
		tell(y, r, &k, &g);
	if (c)
		checker_free(c);
	cuts_fini(&k);
	guest_disk_fini(&g);
	return err;
}

static int begin(struct replay *y, struct recording *r, struct why *why)
{
	int err = recording_open(r, y->a.log, TRACE_LOG_DATA, false, why);

	if (err)
		return err;
	y->at = r->log.clock;
	if (strcmp(y->at_word, "end") != 0 &&
		(!number(y->at_word, NULL, &y->at) || y->at > r->log.clock))
		return why_set(why, -EINVAL,
			"--at: '%s' is no number from 0 to %" PRIu64 ", nor end", y->at_word,
			r->log.clock);
	if (y->a.overlay && !y->a.image)
		return why_set(why, -EINVAL, "-f qcow2 needs --image: what the overlay lies over");
	err = loop_new(LOOP_AIO_AUTO, &y->a.loop);
	if (!err)
		err = fiber_pool_init(y->a.loop);
	return err ? err : judge_args_start(&y->a, r, why);
}

int powercut_replay(int argc, char **argv)
{
	struct recording r = {0};
	struct why why = {""};
	struct replay y;
	int status = parse(&y, argc, argv), err;

	if (status == 2)
		fputs(help, stdout);
	if (status)
		return status == 1;
	err = begin(&y, &r, &why);
	if (!err)
		err = build(&y, &r, &why);
	if (err)
		log_error("%s", why_text(&why, err));
	judge_args_over(&y.a, &r);
	return err != 0;
}
