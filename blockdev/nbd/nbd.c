/* SPDX-License-Identifier: MIT */
/*
 * nbd.c - the command line of `sluice nbd`: qemu-nbd's options become nbdkit's.
 *
 * nbdkit speaks the protocol; this process becomes it, with our plugin, which is found beside
 * the program (a build tree) or in ../lib/sluice (an installation).  Everything that can be
 * found wrong is found here, so that nbdkit's own messages are for what only it can know.
 *
 * --fork is ours and not nbdkit's, which forks before the plugin may open the image: the child
 * becomes a nbdkit in the foreground, and the plugin says through a pipe when the image is open
 * and clients may come.
 *
 * A socket that a killed server left behind is removed; one that somebody answers at is not.
 */
#include "blockdev/nbd/nbd.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "vmm/util/log.h"

#define PLUGIN "nbdkit-sluice-plugin.so"

/*
 * Per client, a request each; those beyond wait in the socket.  At depth 32, 16 do more than 8, 24
 * or 32: with the next request already there, no thread sleeps to wait for it.
 */
#define THREADS "16"

struct nbd_options {
	const char *image, *format, *cache, *discard, *detect, *aio;
	const char *socket, *port, *address;
	const char *name, *description, *pid_file;
	unsigned shared;
	bool readonly, persistent, verbose, fork, help;
};

enum long_only { OPT_CACHE = 256, OPT_DISCARD, OPT_AIO, OPT_DETECT, OPT_FORK, OPT_PID_FILE };

static const struct option long_options[] = {
	{"help", no_argument, NULL, 'h'},
	{"port", required_argument, NULL, 'p'},
	{"bind", required_argument, NULL, 'b'},
	{"socket", required_argument, NULL, 'k'},
	{"shared", required_argument, NULL, 'e'},
	{"persistent", no_argument, NULL, 't'},
	{"verbose", no_argument, NULL, 'v'},
	{"export-name", required_argument, NULL, 'x'},
	{"description", required_argument, NULL, 'D'},
	{"format", required_argument, NULL, 'f'},
	{"read-only", no_argument, NULL, 'r'},
	{"nocache", no_argument, NULL, 'n'},
	{"cache", required_argument, NULL, OPT_CACHE},
	{"discard", required_argument, NULL, OPT_DISCARD},
	{"aio", required_argument, NULL, OPT_AIO},
	{"detect-zeroes", required_argument, NULL, OPT_DETECT},
	{"fork", no_argument, NULL, OPT_FORK},
	{"pid-file", required_argument, NULL, OPT_PID_FILE},
	{0},
};

static const char help[] =
	"Usage: sluice nbd [OPTIONS] FILE\n"
	"Serves an image over NBD, through nbdkit; options are those of qemu-nbd.\n\n"
	"Connection properties:\n"
	"  -k, --socket=PATH         a unix socket to listen on\n"
	"  -p, --port=PORT           port to listen on (default 10809)\n"
	"  -b, --bind=ADDR           address to listen on (default: all)\n"
	"  -e, --shared=NUM          clients at once, 0 for any number (default 1)\n"
	"  -t, --persistent          stay when the last client has left\n"
	"  -x, --export-name=NAME    the export's name (default: empty)\n"
	"  -D, --description=TEXT    what lists of exports say of it\n"
	"  -v, --verbose             tell what happens, on standard error\n\n"
	"The server:\n"
	"  --fork                    come back when clients may connect, and serve on\n"
	"  --pid-file=PATH           write the server's process ID there\n"
	"  -h, --help                show this\n\n"
	"The image:\n"
	"  -f, --format=FORMAT       raw or qcow2; guessed if it is not given\n"
	"  -r, --read-only           clients may not write\n"
	"  -n, --nocache             the same as --cache=none\n"
	"  --cache=MODE              writeback (default), none, writethrough, directsync\n"
	"                            or unsafe; as for a guest's disk\n"
	"  --discard=MODE            ignore (default): trims do nothing; unmap: they give\n"
	"                            space back\n"
	"  --aio=MODE                io_uring (default, where permitted) or threads\n"
	"  --detect-zeroes=MODE      off (default); on: zeros that are written need no data;\n"
	"                            unmap: and keep no space, with --discard=unmap\n\n"
	"Examples:\n"
	"  sluice nbd -k /tmp/disk.sock -f qcow2 disk.qcow2\n"
	"      serves one client at /tmp/disk.sock, then ends\n"
	"  nbdcopy system.raw 'nbd+unix:///?socket=/tmp/disk.sock'\n"
	"      is such a client\n"
	"  sluice nbd -t -e 0 -b 127.0.0.1 -r --fork --pid-file=nbd.pid disk.qcow2\n"
	"      serves any number, who may only read, until it is killed\n"
	"  nbdinfo --map nbd://127.0.0.1\n"
	"      tells what lies where\n";

static int mistake(const char *fmt, ...) printf_like(1, 2);

static int mistake(const char *fmt, ...)
{
	char text[512];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	log_error("%s", text);
	fprintf(stderr, "Try 'sluice nbd --help' for more information.\n");
	return -EINVAL;
}

/* ---- the options ---- */

static bool parse_number(const char *text, unsigned long max, unsigned *out)
{
	char *end;
	unsigned long n;

	errno = 0;
	n = strtoul(text, &end, 0);
	*out = (unsigned)n;
	return !errno && end != text && !*end && *text != '-' && n <= max;
}

static int parse_port(struct nbd_options *o, const char *text)
{
	unsigned port;

	if (!parse_number(text, 65535, &port) || !port)
		return mistake("Invalid port number '%s'", text);
	o->port = text;
	return 0;
}

static int parse_discard(struct nbd_options *o, const char *text)
{
	if (!strcmp(text, "unmap") || !strcmp(text, "on"))
		o->discard = "unmap";
	else if (!strcmp(text, "ignore") || !strcmp(text, "off"))
		o->discard = "ignore";
	else
		return mistake("Invalid discard mode `%s'", text);
	return 0;
}

static int parse_aio(struct nbd_options *o, const char *text)
{
	/* Kernel AIO has no place here; who asks for it wants what io_uring is now. */
	if (!strcmp(text, "native") || !strcmp(text, "io_uring"))
		o->aio = "io_uring";
	else if (!strcmp(text, "threads"))
		o->aio = "threads";
	else
		return mistake("Invalid aio mode `%s'", text);
	return 0;
}

static int parse_cache(struct nbd_options *o, const char *text)
{
	enum cache_mode mode;

	if (o->cache)
		return mistake("-n and --cache can only be specified once");
	if (cache_mode_parse(text, &mode))
		return mistake("Invalid cache mode `%s'", text);
	o->cache = text;
	return 0;
}

static int bad_option(char **argv, int got)
{
	const char *word = argv[optind - 1];

	if (got == ':')
		return mistake("option '%s' requires an argument", word);
	if (optopt && optopt < 256)
		return mistake("unrecognized option '-%c'", optopt);
	return mistake("unrecognized option '%s'", word);
}

static int parse_flag(struct nbd_options *o, int c)
{
	switch (c) {
	case 'h':
		o->help = true;
		break;
	case 't':
		o->persistent = true;
		break;
	case 'v':
		o->verbose = true;
		break;
	case 'r':
		o->readonly = true;
		break;
	case 'n':
		return parse_cache(o, "none");
	case OPT_FORK:
		o->fork = true;
		break;
	}
	return 0;
}

static int parse_value(struct nbd_options *o, int c, const char *value)
{
	switch (c) {
	case 'b':
		o->address = value;
		break;
	case 'k':
		o->socket = value;
		break;
	case 'x':
		o->name = value;
		break;
	case 'D':
		o->description = value;
		break;
	case 'f':
		o->format = value;
		break;
	case OPT_PID_FILE:
		o->pid_file = value;
		break;
	case 'p':
		return parse_port(o, value);
	case 'e':
		if (!parse_number(value, INT32_MAX, &o->shared))
			return mistake("Invalid shared device number '%s'", value);
		break;
	case OPT_CACHE:
		return parse_cache(o, value);
	case OPT_DISCARD:
		return parse_discard(o, value);
	case OPT_AIO:
		return parse_aio(o, value);
	case OPT_DETECT:
		o->detect = NULL;
		for (unsigned i = 0; detect_zeroes_names[i]; i++)
			if (!strcmp(value, detect_zeroes_names[i]))
				o->detect = detect_zeroes_names[i];
		if (!o->detect)
			return mistake("Invalid detect-zeroes mode `%s'", value);
	}
	return 0;
}

static int parse(struct nbd_options *o, int argc, char **argv)
{
	static const char letters[] = ":hp:b:k:e:tvx:D:f:rn";
	int c, err = 0;

	opterr = 0;
	optind = 0;
	while (!err && (c = getopt_long(argc, argv, letters, long_options, NULL)) != -1) {
		if (c == '?' || c == ':')
			return bad_option(argv, c);
		err = optarg ? parse_value(o, c, optarg) : parse_flag(o, c);
	}
	if (err || o->help)
		return err;
	if (optind + 1 != argc)
		return mistake("Invalid number of arguments");
	o->image = argv[optind];
	if (o->socket && (o->port || o->address))
		return mistake("-k is a unix socket: -p and -b have no place beside it");
	if (o->socket && strlen(o->socket) >= sizeof(((struct sockaddr_un *)NULL)->sun_path))
		return mistake("The socket's name is too long: '%s'", o->socket);
	return 0;
}

/* ---- what nbdkit needs ---- */

/* 0 with the plugin's name, or -errno, told. */
static int find_plugin(char *out, size_t room)
{
	static const char *const places[] = {"", "../lib/sluice/"};
	char exe[4096];
	ssize_t n = readlink("/proc/self/exe", exe, sizeof(exe) - 1);
	char *slash;

	if (n < 0) {
		log_error("/proc/self/exe: %s", strerror(errno));
		return -ENOENT;
	}
	exe[n] = '\0';
	slash = strrchr(exe, '/');
	if (slash)
		slash[1] = '\0';
	for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
		snprintf(out, room, "%s%s" PLUGIN, exe, places[i]);
		if (access(out, R_OK) == 0)
			return 0;
	}
	log_error("%s is neither in %s nor in %s%s; building it needs nbdkit-plugin-dev", PLUGIN,
		exe, exe, places[1]);
	return -ENOENT;
}

/* Makes room for the socket.  0, or -errno, told. */
static int clear_socket(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	struct stat st;
	int fd, err = 0;

	if (lstat(path, &st) != 0)
		return 0; /* free, or bind says what is wrong */
	if (!S_ISSOCK(st.st_mode)) {
		log_error("'%s' exists and is no socket", path);
		return -EEXIST;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		err = fd < 0 ? -errno : -EADDRINUSE;
	else if (errno != ECONNREFUSED || unlink(path) != 0)
		err = -errno;
	if (err)
		log_error("Failed to listen on '%s': %s", path, strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

#define ARGS_MAX  48
#define TEXTS_MAX 16

struct words {
	const char *argv[ARGS_MAX];
	char *texts[TEXTS_MAX]; /* those that were put together */
	int n, n_texts;
};

static void word(struct words *w, const char *text)
{
	assert(w->n < ARGS_MAX - 1);
	w->argv[w->n++] = text;
}

static void word_pair(struct words *w, const char *option, const char *value)
{
	if (!value)
		return;
	word(w, option);
	word(w, value);
}

/* key=value for the plugin. */
static int word_key(struct words *w, const char *key, const char *value)
{
	char *text;

	if (!value)
		return 0;
	if (asprintf(&text, "%s=%s", key, value) < 0)
		return -ENOMEM;
	assert(w->n_texts < TEXTS_MAX);
	w->texts[w->n_texts++] = text;
	word(w, text);
	return 0;
}

static int nbdkit_words(
	struct words *w, const struct nbd_options *o, const char *plugin, int ready_fd)
{
	char shared[16], fd[16];
	int err = 0;

	snprintf(shared, sizeof(shared), "%u", o->shared);
	snprintf(fd, sizeof(fd), "%d", ready_fd);
	word(w, "nbdkit");
	word(w, "--foreground");
	word(w, o->fork ? "--log=syslog" : "--log=stderr");
	word_pair(w, "--threads", THREADS);
	if (o->verbose)
		word(w, "--verbose");
	if (o->readonly)
		word(w, "--readonly");
	word_pair(w, "--unix", o->socket);
	word_pair(w, "--ipaddr", o->address);
	word_pair(w, "--port", o->port);
	word_pair(w, "--pidfile", o->pid_file);
	word(w, plugin);
	err |= word_key(w, "file", o->image);
	err |= word_key(w, "format", o->format);
	err |= word_key(w, "cache", o->cache);
	err |= word_key(w, "discard", o->discard);
	err |= word_key(w, "detect-zeroes", o->detect);
	err |= word_key(w, "aio", o->aio);
	err |= word_key(w, "readonly", o->readonly ? "true" : NULL);
	err |= word_key(w, "shared", shared);
	err |= word_key(w, "persistent", o->persistent ? "true" : NULL);
	err |= word_key(w, "outlive-parent", "true");
	err |= word_key(w, "export", o->name);
	err |= word_key(w, "description", o->description);
	err |= word_key(w, "remove", o->socket);
	err |= word_key(w, "ready-fd", ready_fd >= 0 ? fd : NULL);
	w->argv[w->n] = NULL;
	return err ? -ENOMEM : 0;
}

/* Comes back only if there is no nbdkit. */
static int become_nbdkit(const struct nbd_options *o, const char *plugin, int ready_fd)
{
	struct words w = {.n = 0};
	int err = nbdkit_words(&w, o, plugin, ready_fd);

	if (!err) {
		execvp("nbdkit", (char **)(uintptr_t)w.argv);
		err = -errno;
		if (err == -ENOENT)
			log_error("nbdkit is not installed (Debian: nbdkit)");
		else
			log_error("nbdkit: %s", strerror(-err));
	} else {
		log_error("%s", strerror(-err));
	}
	for (int i = 0; i < w.n_texts; i++)
		free(w.texts[i]);
	return err;
}

/* Exit status of the parent: 0 when the child says that clients may come. */
static int fork_and_wait(const struct nbd_options *o, const char *plugin)
{
	int fds[2], null;
	char byte;
	pid_t pid;
	ssize_t n;

	if (pipe2(fds, O_CLOEXEC) != 0 || (pid = fork()) < 0) {
		log_error("%s", strerror(errno));
		return 1;
	}
	if (pid == 0) {
		setsid();
		null = open("/dev/null", O_RDWR | O_CLOEXEC);
		if (null >= 0)
			dup2(null, STDIN_FILENO);
		/* Only now may it live on in nbdkit. */
		fcntl(fds[1], F_SETFD, 0);
		become_nbdkit(o, plugin, fds[1]);
		_exit(1);
	}
	close(fds[1]);
	do {
		n = read(fds[0], &byte, 1);
	} while (n < 0 && errno == EINTR);
	close(fds[0]);
	return n == 1 ? 0 : 1; /* the child has said why */
}

int nbd_main(int argc, char **argv)
{
	struct nbd_options o = {.shared = 1};
	char plugin[4096 + 64];

	log_prefix("sluice nbd");
	if (parse(&o, argc, argv))
		return 1;
	if (o.help) {
		fputs(help, stdout);
		return 0;
	}
	if (find_plugin(plugin, sizeof(plugin)) || (o.socket && clear_socket(o.socket)))
		return 1;
	if (o.fork)
		return fork_and_wait(&o, plugin);
	become_nbdkit(&o, plugin, -1);
	return 1;
}
