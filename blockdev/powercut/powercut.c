/* SPDX-License-Identifier: MIT */
/*
 * powercut.c - picks the subcommand.
 */
#include <stdio.h>
#include <string.h>
#include "blockdev/powercut/powercut.h"
#include "blockdev/powercut/recording.h"

static const struct command {
	const char *name;
	int (*main)(int argc, char **argv); /* argv[0] is the name */
	const char *help;
} commands[] = {
	{"explore", powercut_explore, "try the power cuts of a log, say which ones fail and why"},
	{"flushes", powercut_flushes, "say which flushes of a log bear a load"},
	{"judge", powercut_judge, "say whether the disk kept its promises to the guest"},
	{"verify", powercut_verify, "say whether an image is what a cut may have left"},
	{"info", powercut_info, "say what is in a log, and what was at risk when"},
	{"replay", powercut_replay, "build the image that one cut of a log leaves"},
	{"export", powercut_export, "write a log in the format of Linux's dm-log-writes"},
	{"import", powercut_import, "make a log of one of dm-log-writes"},
};

static void usage(FILE *f)
{
	fprintf(f, "Usage: sluice powercut COMMAND [OPTION]...\n"
		   "What a guest's disk would hold if the power had failed, from a log of that "
		   "disk.\n\n");
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].help);
	fprintf(f, "\nsluice powercut COMMAND --help tells more.\n");
}

int powercut_main(int argc, char **argv)
{
	log_prefix("sluice powercut");
	if (argc < 2) {
		usage(stderr);
		return 1;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		usage(stdout);
		return 0;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			return commands[i].main(argc - 1, argv + 1);
	log_error("unknown command '%s'; sluice powercut --help names them", argv[1]);
	return 1;
}
