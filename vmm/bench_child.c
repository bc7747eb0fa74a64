/* SPDX-License-Identifier: MIT */
/*
 * bench_child.c - runs a process, reads its output line by line, ends it when time is up.
 *
 * The child dies with us.  Whatever ends the wait (timeout, a signal to us), the child has been
 * waited for when bench_child_run() returns, so that its files can be removed.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "vmm/bench.h"
#include "vmm/util/loop.h"

#define TICK_MS		500 /* how soon a signal that came just before poll() is seen */
#define GRACE_NS	(5 * 1000000000ULL) /* from SIGTERM to SIGKILL */

static volatile sig_atomic_t asked_to_end;

struct reader {
	int fd;
	size_t len;
	char buf[1024]; /* a line that is longer comes in pieces */
};

static void on_signal(int sig)
{
	asked_to_end = 1;
}

void bench_child_signals(void)
{
	static const int sigs[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction sa = { .sa_handler = on_signal };

	for (size_t i = 0; i < ARRAY_SIZE(sigs); i++)
		sigaction(sigs[i], &sa, NULL);
	signal(SIGPIPE, SIG_IGN);
}

bool bench_child_exists(const char *name)
{
	const char *path = getenv("PATH");
	char full[4096];

	while (path && *path) {
		int len = (int)strcspn(path, ":");

		snprintf(full, sizeof(full), "%.*s/%s", len, path, name);
		if (access(full, X_OK) == 0)
			return true;
		path += len;
		path += *path == ':';
	}
	return false;
}

static void take_line(struct bench_child *c, bool err, char *line)
{
	if (err && line[0])
		snprintf(c->words, sizeof(c->words), "%s", line);
	else if (!err && c->line)
		c->line(c->arg, line);
}

/* Reads what is there; false at the end. */
static bool reader_turn(struct bench_child *c, struct reader *r, bool err)
{
	ssize_t n = read(r->fd, r->buf + r->len, sizeof(r->buf) - 1 - r->len);
	char *line = r->buf, *nl;

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	r->len += (size_t)n;
	r->buf[r->len] = 0;
	while ((nl = memchr(line, '\n', r->len - (size_t)(line - r->buf)))) {
		*nl = 0;
		take_line(c, err, line);
		line = nl + 1;
	}
	r->len -= (size_t)(line - r->buf);
	memmove(r->buf, line, r->len + 1);
	if (r->len && (n == 0 || r->len == sizeof(r->buf) - 1)) {
		take_line(c, err, r->buf);
		r->len = 0;
	}
	return n > 0;
}

static _Noreturn void become(struct bench_child *c, int in, int out, int err, pid_t parent)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(126);
	signal(SIGPIPE, SIG_DFL);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	if (!c->dir || chdir(c->dir) == 0)
		execvp(c->argv[0], c->argv);
	dprintf(2, "%s: %s\n", c->argv[0], strerror(errno));
	_exit(127);
}

/* Reads until both pipes end; 0, or why the child was ended. */
static int follow(struct bench_child *c, pid_t pid, int out, int err)
{
	struct reader r[2] = { { .fd = out }, { .fd = err } };
	uint64_t deadline = UINT64_MAX;
	int why = 0;

	if (c->timeout_s)
		deadline = loop_now_ns() + c->timeout_s * 1000000000ULL;
	while (r[0].fd >= 0 || r[1].fd >= 0) {
		struct pollfd p[2] = { { r[0].fd, POLLIN, 0 }, { r[1].fd, POLLIN, 0 } };
		uint64_t now = loop_now_ns();

		if (!why && (asked_to_end || now >= deadline)) {
			why = asked_to_end ? -EINTR : -ETIMEDOUT;
			deadline = now + GRACE_NS;
			kill(pid, SIGTERM);
		} else if (why && now >= deadline) {
			kill(pid, SIGKILL);
			deadline = UINT64_MAX;
		}
		if (poll(p, 2, TICK_MS) <= 0)
			continue;
		for (int i = 0; i < 2; i++)
			if (p[i].revents && !reader_turn(c, &r[i], i == 1))
				r[i].fd = -1;
	}
	return why;
}

static int input_fd(const char *text)
{
	int p[2];

	if (!text)
		return open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (pipe2(p, O_CLOEXEC) < 0)
		return -1;
	/* Scripts are small: they must fit into the pipe, as nobody reads yet. */
	fcntl(p[1], F_SETPIPE_SZ, 1 << 20);
	fcntl(p[1], F_SETFL, O_NONBLOCK);
	if (write(p[1], text, strlen(text)) != (ssize_t)strlen(text)) {
		close(p[0]);
		p[0] = -1;
	}
	close(p[1]);
	return p[0];
}

int bench_child_run(struct bench_child *c)
{
	int out[2], err[2], in, status, ret = 0;
	pid_t pid, parent = getpid();

	c->words[0] = 0;
	if (asked_to_end)
		return -EINTR;
	in = input_fd(c->input);
	if (in < 0)
		return -errno;
	if (pipe2(out, O_CLOEXEC) < 0) {
		ret = -errno;
		goto close_in;
	}
	if (pipe2(err, O_CLOEXEC) < 0) {
		ret = -errno;
		goto close_out;
	}
	fflush(NULL);
	pid = fork();
	if (pid == 0)
		become(c, in, out[1], err[1], parent);
	if (pid < 0)
		ret = -errno;
	close(out[1]);
	close(err[1]);
	out[1] = -1;
	if (pid > 0) {
		ret = follow(c, pid, out[0], err[0]);
		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			;
		c->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	}
	close(err[0]);
close_out:
	close(out[0]);
	if (out[1] >= 0)
		close(out[1]);
close_in:
	close(in);
	return ret;
}
