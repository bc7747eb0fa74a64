/* SPDX-License-Identifier: MIT */
/*
 * console.c - serial port to terminal, file or nothing.
 *
 * Output is written on the vCPU thread, at once, byte by byte as the guest makes it; a reader
 * that does not read stops the guest, until the machine is in a hurry to stop.  Input is read by
 * the main thread, which stops reading while the guest's FIFO is full.
 *
 * A terminal in raw mode must never be left so.  What it was like is kept in static
 * storage, and put back when the console closes, at exit(), and by handlers for the
 * signals that kill; these then let the signal do what it would have done.
 */
#include "vmm/console.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <termios.h>
#include <unistd.h>
#include "devices/serial.h"
#include "vmm/stop.h"

#define CTRL_A 1
#define CTRL_C 3

struct console {
	struct device *serial;
	int out_fd; /* -1: drop */
	int in_fd;  /* -1: none, or at its end */
	int room_fd;
	bool own_out, terminal;
	bool escape; /* the last key was Ctrl-A */
	_Atomic bool hurry, out_failed;
	uint8_t pending[256];
	unsigned n_pending;
	/* The line that the guest is in, for services->mark; a longer one is cut off. */
	struct machine_services *services;
	char line[1024];
	size_t n_line;
};

static struct termios saved_mode;
static _Atomic bool raw_mode;

void console_restore_terminal(void)
{
	bool was = true;

	if (atomic_compare_exchange_strong(&raw_mode, &was, false))
		tcsetattr(STDIN_FILENO, TCSANOW, &saved_mode);
}

static void on_fatal_signal(int sig)
{
	console_restore_terminal();
	/* SA_RESETHAND has put the default back: a fault happens again, the others are sent again.
	 */
	raise(sig);
}

static void catch_fatal_signals(void)
{
	static const int fatal[] = {
		SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT, SIGQUIT, SIGALRM, SIGXCPU, SIGXFSZ};
	struct sigaction sa = {.sa_handler = on_fatal_signal, .sa_flags = SA_RESETHAND}, old;

	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_SIZE(fatal); i++) {
		if (!sigaction(fatal[i], NULL, &old) && old.sa_handler == SIG_DFL)
			sigaction(fatal[i], &sa, NULL);
	}
}

/* Only in the foreground: changing the mode in the background would stop the whole process. */
static bool terminal_raw(void)
{
	static bool registered;
	struct termios t;

	if (!isatty(STDIN_FILENO) || tcgetpgrp(STDIN_FILENO) != getpgrp() ||
		tcgetattr(STDIN_FILENO, &saved_mode))
		return false;
	if (!registered) {
		registered = true;
		atexit(console_restore_terminal);
		catch_fatal_signals();
	}
	t = saved_mode;
	/* Output is left as it is: our own messages go there too. */
	t.c_iflag &= ~(tcflag_t)(BRKINT | ICRNL | INLCR | IGNCR | INPCK | ISTRIP | IXON);
	t.c_lflag &= ~(tcflag_t)(ECHO | ICANON | IEXTEN | ISIG);
	t.c_cc[VMIN] = 1;
	t.c_cc[VTIME] = 0;
	atomic_store(&raw_mode, true);
	if (tcsetattr(STDIN_FILENO, TCSANOW, &t)) {
		atomic_store(&raw_mode, false);
		return false;
	}
	return true;
}

/* True once out_fd takes a byte without blocking; false: do not wait for that any longer. */
static bool wait_writable(struct console *c)
{
	struct pollfd f = {.fd = c->out_fd, .events = POLLOUT};

	while (!atomic_load(&c->hurry) && !stop_signal()) {
		if (poll(&f, 1, 100) > 0)
			return true;
	}
	return poll(&f, 1, 0) > 0;
}

static void take_line(struct console *c, const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		if (p[i] == '\n') {
			c->services->mark(c->services, true, c->line, c->n_line);
			c->n_line = 0;
		} else if (p[i] != '\r' && c->n_line < sizeof(c->line)) {
			c->line[c->n_line++] = (char)p[i];
		}
	}
}

static void console_out(void *arg, const uint8_t *p, size_t n)
{
	struct console *c = arg;

	if (c->services->mark)
		take_line(c, p, n);
	for (size_t i = 0; i < n && c->out_fd >= 0 && wait_writable(c); i++) {
		ssize_t w = write(c->out_fd, p + i, 1);

		if (w < 0 && !atomic_exchange(&c->out_failed, true))
			log_warn("serial output is lost: %s", strerror(errno));
	}
}

void console_hurry(struct console *c, bool on)
{
	atomic_store(&c->hurry, on);
}

static void console_room(void *arg)
{
	struct console *c = arg;
	uint64_t one = 1;
	ssize_t n = write(c->room_fd, &one, sizeof(one));

	(void)n; /* full: awake already */
}

bool console_spec_ok(const char *spec)
{
	return !strcmp(spec, "stdio") || !strcmp(spec, "null") ||
	       (!strncmp(spec, "file:", 5) && spec[5]);
}

static int console_open_fds(struct console *c, const char *spec, struct why *why)
{
	int err;

	c->room_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->room_fd < 0)
		return -errno;
	if (!strcmp(spec, "stdio")) {
		c->out_fd = STDOUT_FILENO;
		c->terminal = terminal_raw();
		/* A terminal in the background is not ours to read. */
		if (c->terminal || !isatty(STDIN_FILENO))
			c->in_fd = STDIN_FILENO;
	} else if (!strncmp(spec, "file:", 5)) {
		c->out_fd =
			open(spec + 5, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOCTTY, 0666);
		if (c->out_fd < 0) {
			err = -errno;
			return why_set(why, err, "-serial: %s: %s", spec + 5, strerror(-err));
		}
		c->own_out = true;
	}
	return 0;
}

int console_open(
	const char *spec, struct machine_services *s, struct console **out, struct why *why)
{
	struct console *c = calloc(1, sizeof(*c));
	struct serial_opts o = {.out = console_out, .arg = c, .room = console_room};
	int err;

	if (!c)
		return -ENOMEM;
	c->out_fd = c->in_fd = c->room_fd = -1;
	c->services = s;
	err = console_open_fds(c, spec, why);
	if (!err)
		err = serial_create(s, &o, &c->serial);
	if (err) {
		console_close(c);
		return err;
	}
	*out = c;
	return 0;
}

struct device *console_device(struct console *c)
{
	return c->serial;
}

void console_close(struct console *c)
{
	if (!c)
		return;
	if (c->terminal)
		console_restore_terminal();
	if (c->own_out)
		close(c->out_fd);
	if (c->room_fd >= 0)
		close(c->room_fd);
	free(c);
}

int console_input_fd(struct console *c)
{
	return c->n_pending ? -1 : c->in_fd;
}

int console_room_fd(struct console *c)
{
	return c->room_fd;
}

/* Takes the keys that are meant for us out of what was read. */
static unsigned filter_keys(struct console *c, const uint8_t *in, unsigned n)
{
	unsigned kept = 0;

	for (unsigned i = 0; i < n; i++) {
		uint8_t k = in[i];

		if (c->escape) {
			c->escape = false;
			if (k == 'x') {
				stop_request();
				continue;
			}
			if (k != CTRL_A && k != CTRL_C)
				c->pending[kept++] = CTRL_A;
		} else if (k == CTRL_A) {
			c->escape = true;
			continue;
		} else if (k == CTRL_C) {
			stop_request();
			continue;
		}
		c->pending[kept++] = k;
	}
	return kept;
}

void console_input(struct console *c)
{
	uint8_t buf[sizeof(c->pending) / 2]; /* the filter may send one key more per key */
	struct pollfd f = {.fd = c->in_fd, .events = POLLIN};
	uint64_t count;
	ssize_t n = read(c->room_fd, &count, sizeof(count));
	size_t taken;

	if (!c->n_pending && c->in_fd >= 0 && poll(&f, 1, 0) > 0) {
		n = read(c->in_fd, buf, sizeof(buf));
		if (n == 0 || (n < 0 && errno != EINTR && errno != EAGAIN))
			c->in_fd = -1; /* its end, or the terminal went away */
		if (n > 0 && c->terminal)
			c->n_pending = filter_keys(c, buf, (unsigned)n);
		else if (n > 0)
			memcpy(c->pending, buf, c->n_pending = (unsigned)n);
	}
	taken = serial_input(c->serial, c->pending, c->n_pending);
	c->n_pending -= (unsigned)taken;
	memmove(c->pending, c->pending + taken, c->n_pending);
}
