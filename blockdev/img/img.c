/* SPDX-License-Identifier: MIT */
/*
 * img.c - picks the subcommand of sluice img.
 *
 * A mistake of the user is found before any file is touched and ends with status 1; the words
 * are qemu-img's, because scripts look for them.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "blockdev/img/cmd.h"
#include "blockdev/img/img.h"
#include "vmm/version.h"

static const struct img_cmd *const commands[] = {
	&img_amend,
	&img_bench,
	&img_bitmap,
	&img_check,
	&img_commit,
	&img_compare,
	&img_convert,
	&img_create,
	&img_dd,
	&img_info,
	&img_map,
	&img_measure,
	&img_rebase,
	&img_resize,
	&img_snapshot,
	NULL,
};

static void print_help(void)
{
	printf("usage: sluice img COMMAND [OPTIONS]\n\nCommands:\n");
	for (const struct img_cmd *const *c = commands; *c; c++)
		printf("  %-8s %s\n", (*c)->name, (*c)->summary);
	printf("\nSupported formats:");
	for (const char *const *f = img_formats; *f; f++)
		printf(" %s", *f);
	printf("\nArguments, output and exit status are those of qemu-img.\n"
	       "'sluice img COMMAND --help' tells more, with examples.\n");
}

static int try_help(void)
{
	fprintf(stderr, "Try 'sluice img --help' for more information\n");
	return 1;
}

int img_usage(const struct img_cmd *cmd, const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("%s", text);
	return try_help();
}

int img_bad_option(const struct img_cmd *cmd, char **argv)
{
	const char *word = argv[optind - 1];

	if (optopt && optopt < 256 && strncmp(word, "--", 2) != 0) {
		/* optopt without a complaint of getopt's own: an unknown letter or a missing value
		 */
		if (strchr("foOrF", optopt))
			return img_usage(cmd, "missing argument for option '-%c'", optopt);
		return img_usage(cmd, "unrecognized option '-%c'", optopt);
	}
	if (optopt)
		return img_usage(cmd, "missing argument for option '%s'", word);
	return img_usage(cmd, "unrecognized option '%s'", word);
}

int img_main(int argc, char **argv)
{
	log_prefix("sluice img");
	opterr = 0;
	if (argc < 2) {
		log_error("Not enough arguments");
		return try_help();
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") || !strcmp(argv[1], "help")) {
		print_help();
		return 0;
	}
	if (!strcmp(argv[1], "--version") || !strcmp(argv[1], "-V")) {
		printf("sluice img version %s\n", SLUICE_VERSION);
		return 0;
	}
	for (const struct img_cmd *const *c = commands; *c; c++) {
		if (strcmp(argv[1], (*c)->name) != 0)
			continue;
		for (int i = 2; i < argc && strcmp(argv[i], "--") != 0; i++)
			if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
				printf("usage: sluice img %s %s", (*c)->name, (*c)->help);
				return 0;
			}
		optind = 0; /* glibc: starts anew */
		return (*c)->run(argc - 1, argv + 1);
	}
	log_error("Command not found: %s", argv[1]);
	return try_help();
}
