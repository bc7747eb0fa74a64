/* SPDX-License-Identifier: MIT */
/*
 * main.c - picks the command.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/img/img.h"
#include "blockdev/io/io.h"
#include "blockdev/nbd/nbd.h"
#include "blockdev/powercut/powercut.h"
#include "vmm/bench.h"
#include "vmm/run.h"
#include "vmm/util/base.h"
#include "vmm/version.h"

static const struct command {
	const char *name;
	int (*main)(int argc, char **argv);
	const char *help;
} commands[] = {
	{"run", run_main, "boot a guest"},
	{"img", img_main, "create, convert, check and change disk images, as qemu-img does"},
	{"io", io_main, "read, write and verify an image from the command line, as qemu-io does"},
	{"nbd", nbd_main, "serve a disk image over NBD, as qemu-nbd does"},
	{"powercut", powercut_main, "see what a power cut would have left of a disk"},
	{"bench", bench_main, "measure what a cache mode costs"},
};

static void usage(FILE *f)
{
	fprintf(f,
		"Usage: sluice COMMAND [OPTION]...\n"
		"A small KVM hypervisor whose virtual disks take the write cache seriously.\n\n");
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].help);
	fprintf(f,
		"\nsluice help COMMAND or sluice COMMAND --help tells more; sluice --version the "
		"version.\n");
}

static const struct command *find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++) {
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	}
	return NULL;
}

static int unknown(const char *name)
{
	fprintf(stderr, "sluice: unknown command '%s'; expected", name);
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(stderr, "%s %s",
			i == 0                          ? ""
			: i + 1 == ARRAY_SIZE(commands) ? " or"
							: ",",
			commands[i].name);
	fprintf(stderr, "\n");
	return 1;
}

/* What was printed must have arrived: a full disk under stdout is an error too. */
static int flush_stdout(int status)
{
	if (fflush(stdout) && !status) {
		perror("sluice: standard output");
		return 1;
	}
	return status;
}

static int help_main(int argc, char **argv)
{
	char help[] = "--help";
	char *words[] = {argv[0], help, NULL};
	const struct command *c;

	if (argc < 2) {
		usage(stdout);
		return 0;
	}
	c = find(argv[1]);
	if (!c)
		return unknown(argv[1]);
	words[0] = argv[1];
	return c->main(2, words);
}

static bool is_word(const char *arg, const char *word)
{
	arg += *arg == '-';
	arg += *arg == '-';
	return !strcmp(arg, word);
}

/*
 * Whoever started us without standard descriptors gets /dev/null in their place: else the
 * next file opened would take the number, and an image the guest's serial output.
 */
static bool standard_fds_open(void)
{
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		/* The lowest free number is given out, and those below are taken. */
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return false;
	}
	return true;
}

int main(int argc, char **argv)
{
	const struct command *c;

	if (!standard_fds_open())
		return 1;
	if (argc < 2) {
		usage(stderr);
		return 1;
	}
	if (is_word(argv[1], "version") || !strcmp(argv[1], "-V")) {
		printf("sluice %s\n", SLUICE_VERSION);
		return flush_stdout(0);
	}
	if (is_word(argv[1], "help") || !strcmp(argv[1], "-h"))
		return flush_stdout(help_main(argc - 1, argv + 1));
	c = find(argv[1]);
	return c ? flush_stdout(c->main(argc - 1, argv + 1)) : unknown(argv[1]);
}
