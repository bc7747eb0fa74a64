/* SPDX-License-Identifier: MIT */
/*
 * shell.c - lines to commands; help and quit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/io/cmd.h"

/* Words of one line; a request's lengths are the longest there are. */
#define WORDS_MAX 1024

static const struct io_cmd *const groups[] = {io_read_cmds, io_write_cmds, io_aio_cmds,
	io_misc_cmds, io_map_cmds, io_open_cmds, io_break_cmds, io_shell_cmds};

const struct io_cmd *io_find(const char *name)
{
	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (const struct io_cmd *c = groups[g]; c->name; c++)
			if (!strcmp(c->name, name) || (c->alias && !strcmp(c->alias, name)))
				return c;
	return NULL;
}

static void print_line(const char *name, const struct io_cmd *c)
{
	printf("%s ", name);
	if (c->args)
		printf("%s ", c->args);
	printf("-- %s\n", c->summary);
}

int io_usage(const struct io_cmd *cmd)
{
	print_line(cmd->name, cmd);
	return -EINVAL;
}

/* Is the number of words right?  Says so if not. */
static int check_words(const struct io_cmd *c, const char *name, int n)
{
	if (n >= c->words_min && (c->words_max < 0 || n <= c->words_max))
		return 0;
	fflush(stdout);
	fprintf(stderr, "bad argument count %d to %s, expected ", n, name);
	if (c->words_max < 0)
		fprintf(stderr, "at least %d", c->words_min);
	else if (c->words_min == c->words_max)
		fprintf(stderr, "%d", c->words_min);
	else
		fprintf(stderr, "between %d and %d", c->words_min, c->words_max);
	fprintf(stderr, " arguments\n");
	return -EINVAL;
}

static int run_words(struct io *io, int argc, char **argv)
{
	const struct io_cmd *c = io_find(argv[0]);
	int err;

	if (!c) {
		fflush(stdout);
		fprintf(stderr, "command \"%s\" not found\n", argv[0]);
		return -EINVAL;
	}
	if (!io->disk && !c->without_image) {
		fflush(stdout);
		fprintf(stderr, "no file open, try 'help open'\n");
		return -EINVAL;
	}
	err = check_words(c, argv[0], argc - 1);
	if (err)
		return err;
	if (c->writes && disk_readonly(io->disk)) {
		fflush(stdout);
		log_error("Block node is read-only");
		return -EACCES;
	}
	optind = 0; /* glibc: starts anew */
	opterr = 1;
	err = c->run(io, argc, argv);
	fflush(stdout);
	return err;
}

int io_run_line(struct io *io, const char *line)
{
	char *copy = strdup(line), *words[WORDS_MAX + 1], *save = NULL;
	int n = 0, err = -ENOMEM;

	if (!copy)
		return err;
	for (char *w = strtok_r(copy, " ", &save); w && n < WORDS_MAX;
		w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	words[n] = NULL;
	err = n ? run_words(io, n, words) : 0;
	free(copy);
	return err;
}

static int by_name(const void *a, const void *b)
{
	const struct io_cmd *const *x = a, *const *y = b;

	return strcmp((*x)->name, (*y)->name);
}

static void help_all(void)
{
	const struct io_cmd *all[64];
	size_t n = 0;

	for (size_t g = 0; g < ARRAY_SIZE(groups); g++)
		for (const struct io_cmd *c = groups[g]; c->name; c++) {
			assert(n < ARRAY_SIZE(all));
			all[n++] = c;
		}
	qsort(all, n, sizeof(all[0]), by_name);
	for (size_t i = 0; i < n; i++)
		print_line(all[i]->name, all[i]);
	printf("\nUse 'help commandname' for extended help.\n");
}

static int run_help(struct io *io, int argc, char **argv)
{
	const struct io_cmd *c;

	if (argc == 1) {
		help_all();
		return 0;
	}
	c = io_find(argv[1]);
	if (!c) {
		printf("command %s not found\n", argv[1]);
		return -EINVAL;
	}
	print_line(argv[1], c);
	if (c->help)
		printf("%s", c->help);
	return 0;
}

static int run_quit(struct io *io, int argc, char **argv)
{
	io->quit = true;
	return 0;
}

const struct io_cmd io_shell_cmds[] = {
	{.name = "help",
		.alias = "?",
		.run = run_help,
		.words_max = 1,
		.without_image = true,
		.args = "[command]",
		.summary = "help for one or all commands"},
	{.name = "quit",
		.alias = "q",
		.run = run_quit,
		.words_max = -1,
		.without_image = true,
		.summary = "exit the program"},
	{0},
};
