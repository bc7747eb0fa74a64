/* SPDX-License-Identifier: MIT */
/*
 * daemon.c - see daemon.h.  The child tells the parent by a pipe; one that ends before closes it.
 */
#include "vmm/daemon.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void wait_for_child(pid_t child, int fd)
{
	char c;
	ssize_t n;
	int status = 0;

	do
		n = read(fd, &c, 1);
	while (n < 0 && errno == EINTR);
	if (n == 1)
		_exit(0);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

int daemon_begin(int *ready, struct why *why)
{
	int fd[2];
	pid_t pid;

	if (pipe2(fd, O_CLOEXEC))
		return why_set(why, -errno, "-daemonize: %s", strerror(errno));
	fflush(NULL);
	pid = fork();
	if (pid < 0) {
		int err = -errno;

		close(fd[0]);
		close(fd[1]);
		return why_set(why, err, "-daemonize: %s", strerror(-err));
	}
	if (pid) {
		close(fd[1]);
		wait_for_child(pid, fd[0]);
	}
	close(fd[0]);
	setsid();
	*ready = fd[1];
	return 0;
}

void daemon_ready(int ready)
{
	int null;
	ssize_t n;

	if (ready < 0)
		return;
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = 0; null >= 0 && fd <= 2; fd++)
		(void)dup2(null, fd);
	if (null > 2)
		close(null);
	n = write(ready, "", 1);
	(void)n; /* a parent that was killed misses nothing */
	close(ready);
}

int pidfile_open(const char *path, int *out, struct why *why)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644), err = 0, n;
	char text[16];

	if (fd < 0)
		return why_set(why, -errno, "-pidfile %s: %s", path, strerror(errno));
	n = snprintf(text, sizeof(text), "%d\n", (int)getpid());
	if (fcntl(fd, F_OFD_SETLK, &lock))
		err = why_set(why, -EAGAIN, "-pidfile %s: another process runs by it", path);
	else if (ftruncate(fd, 0) || write(fd, text, (size_t)n) != n)
		err = why_set(why, -EIO, "-pidfile %s: cannot be written", path);
	if (err)
		close(fd);
	else
		*out = fd;
	return err;
}

void pidfile_close(const char *path, int fd)
{
	if (fd < 0)
		return;
	unlink(path);
	close(fd);
}
