/* SPDX-License-Identifier: MIT */
/*
 * main.c - sluice io: options, then the commands of -c or of standard input.
 *
 * The exit status is 1 if a command failed.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/io/cmd.h"
#include "blockdev/io/io.h"
#include "vmm/version.h"

#define PROMPT "sluice> "

enum { OPT_OBJECT = 256, OPT_IMAGE_OPTS };

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"version", no_argument, NULL, 'V'},
	{"cmd", required_argument, NULL, 'c'},
	{"format", required_argument, NULL, 'f'},
	{"read-only", no_argument, NULL, 'r'},
	{"snapshot", no_argument, NULL, 's'},
	{"nocache", no_argument, NULL, 'n'},
	{"copy-on-read", no_argument, NULL, 'C'},
	{"misalign", no_argument, NULL, 'm'},
	{"native-aio", no_argument, NULL, 'k'},
	{"aio", required_argument, NULL, 'i'},
	{"discard", required_argument, NULL, 'd'},
	{"cache", required_argument, NULL, 't'},
	{"trace", required_argument, NULL, 'T'},
	{"force-share", no_argument, NULL, 'U'},
	{"object", required_argument, NULL, OPT_OBJECT},
	{"image-opts", no_argument, NULL, OPT_IMAGE_OPTS},
	{0},
};

static void usage(void)
{
	printf("Usage: sluice io [OPTIONS]... [-c STRING]... [file]\n"
		"Sluice disk exerciser\n"
		"\n"
		"      --image-opts         treat file as option string\n"
		"  -c, --cmd STRING         execute command with its arguments\n"
		"                           from the given string\n"
		"  -f, --format FMT         specifies the image format to use\n"
		"  -r, --read-only          open read-only\n"
		"  -s, --snapshot           write to a temporary file in place of the image\n"
		"  -n, --nocache            disable host cache, short for -t none\n"
		"  -C, --copy-on-read       keep what is read from backing files in the image\n"
		"  -m, --misalign           misalign memory of requests\n"
		"  -k, --native-aio         short for -i native\n"
		"  -i, --aio=MODE           threads, native (wants -n) or io_uring\n"
		"  -t, --cache=MODE         use the given cache mode (default writethrough)\n"
		"  -d, --discard=MODE       ignore or unmap (default unmap)\n"
		"  -U, --force-share        read an image that a guest is using (take no lock)\n"
		"  -h, --help               display this help and exit\n"
		"  -V, --version            output version information and exit\n"
		"\n"
		"Without -c, commands are read from standard input.\n"
		"\n"
		"  sluice io -c 'write -P 0xa 0 64k' -c 'read -P 0xa 0 64k' disk.qcow2\n"
		"  sluice io -r -c map -c info disk.qcow2\n"
		"  sluice io -c 'write 0 1M' blkdebug:rules.conf:disk.qcow2\n"
		"\n"
		"'sluice io -c help' lists the commands; they, their output and the exit\n"
		"status are those of qemu-io.\n");
}

struct args {
	struct io_how how;
	const char **commands;
	int n_commands;
	bool misaligned, image_opts;
};

/* 0, or 1: exit status 1, or -1: exit status 0. */
static int parse_one(int c, struct args *a)
{
	switch (c) {
	case 'c':
		a->commands[a->n_commands++] = optarg;
		return 0;
	case 'C':
		a->how.copy_on_read = true;
		return 0;
	case 'd':
		return io_parse_discard(optarg, &a->how) ? 1 : 0;
	case 'f':
		a->how.format = optarg;
		return 0;
	case 'i':
		return io_parse_aio(optarg, &a->how) ? 1 : 0;
	case 'k':
		return io_parse_aio("native", &a->how) ? 1 : 0;
	case 'T':
		return 0;
	case 'm':
		a->misaligned = true;
		return 0;
	case 'n':
		a->how.cache = CACHE_NONE;
		return 0;
	case 'r':
		a->how.readonly = true;
		return 0;
	case 's':
		a->how.temporary = true;
		return 0;
	case 't':
		return io_parse_cache(optarg, &a->how) ? 1 : 0;
	case 'U':
		a->how.unlocked = true;
		return 0;
	case 'V':
		printf("sluice io version %s\n", SLUICE_VERSION);
		return -1;
	case 'h':
		usage();
		return -1;
	case OPT_IMAGE_OPTS:
		a->image_opts = true;
		return 0;
	case OPT_OBJECT:
		log_error("--object: encryption is not supported");
		return 1;
	default:
		usage();
		return 1;
	}
}

static int parse(int argc, char **argv, struct args *a)
{
	static char prog[] = "sluice io";
	int c;

	optind = 0;
	opterr = 1;
	argv[0] = prog; /* what getopt_long() complains as */
	while ((c = getopt_long(argc, argv, "hVc:d:f:rsnCmki:t:T:U", long_options, NULL)) != -1) {
		int status = parse_one(c, a);

		if (status)
			return status;
	}
	if (argc - optind > 1) {
		usage();
		return 1;
	}
	if (a->how.format && a->image_opts) {
		log_error("--image-opts and -f are mutually exclusive");
		return 1;
	}
	if (optind < argc) {
		if (a->image_opts)
			a->how.options = argv[optind];
		else
			a->how.name = argv[optind];
	}
	return 0;
}

/* Standard input, line by line; requests go on while it is waited for. */
struct input {
	char *text;
	size_t len, room;
	bool end;
};

/* false: no more memory, or no more input. */
static bool input_more(struct io *io, struct input *in)
{
	struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
	ssize_t n;

	if (in->room - in->len < 2) {
		size_t room = in->room ? in->room * 2 : 4096;
		char *text = realloc(in->text, room);

		if (!text)
			return false;
		in->text = text;
		in->room = room;
	}
	while (io->in_flight && poll(&p, 1, 2) == 0)
		if (loop_turn(io->loop, false))
			return false;
	fflush(stdout);
	n = read(STDIN_FILENO, in->text + in->len, in->room - in->len - 1);
	if (n <= 0)
		return false;
	in->len += (size_t)n;
	return true;
}

/* The next line, without its end, or NULL; the caller frees it. */
static char *input_line(struct io *io, struct input *in)
{
	for (;;) {
		char *nl = in->len ? memchr(in->text, '\n', in->len) : NULL;
		size_t n = nl ? (size_t)(nl - in->text) : in->len;
		char *line;

		if (!nl && !in->end) {
			in->end = !input_more(io, in);
			continue;
		}
		if (!nl && !in->len)
			return NULL;
		line = strndup(in->text, n);
		in->len -= nl ? n + 1 : n;
		memmove(in->text, in->text + n + (nl ? 1 : 0), in->len);
		return line;
	}
}

/* Exit status. */
static int run_input(struct io *io)
{
	struct input in = {0};
	int status = 0;

	while (!io->quit) {
		char *line;

		printf(PROMPT);
		fflush(stdout);
		line = input_line(io, &in);
		if (!line)
			break;
		if (io_run_line(io, line))
			status = 1;
		free(line);
	}
	free(in.text);
	return status;
}

static int run(struct io *io, const struct args *a)
{
	int status = 0;

	io->misaligned = a->misaligned;
	io->image_opts = a->image_opts;
	if ((a->how.name || a->how.options) && io_open(io, &a->how))
		return 1;
	for (int i = 0; i < a->n_commands && !io->quit; i++)
		if (io_run_line(io, a->commands[i]))
			status = 1;
	if (!a->n_commands)
		status = run_input(io);
	io_close(io);
	return status;
}

int io_main(int argc, char **argv)
{
	struct args a = {.how = {.cache = CACHE_WRITETHROUGH, .unmap = true}};
	struct io io = {0};
	int status;

	log_prefix("sluice io");
	log_level_set(LOG_ERROR);
	a.commands = calloc((size_t)argc, sizeof(*a.commands));
	if (!a.commands)
		return 1;
	status = parse(argc, argv, &a);
	if (!status) {
		int err = loop_new(LOOP_AIO_AUTO, &io.loop);

		if (err) {
			log_error("Could not start an event loop: %s", strerror(-err));
			status = 1;
		} else {
			status = run(&io, &a);
			loop_free(io.loop);
		}
	}
	free(a.commands);
	return status > 0 ? 1 : 0;
}
