/* SPDX-License-Identifier: MIT */
/*
 * jobs.c - see jobs.h.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "blockdev/crash/jobs.h"

enum job_state { WAITING, RUNNING, OVER, PRINTED };

struct job {
	enum job_state state;
	pid_t pid;
	int out; /* what it printed, in memory */
	int status;
	bool dropped; /* ended by us */
};

struct pool {
	const struct jobs *j;
	struct job *job;
	uint8_t *results; /* shared with the tasks */
	unsigned running, next, printed;
	bool stop;
};

static void *result(const struct pool *p, unsigned i)
{
	return p->results + i * p->j->result_size;
}

static uint64_t failures(const struct pool *p, unsigned i)
{
	return *p->j->failures(result(p, i));
}

static int start(struct pool *p)
{
	unsigned i = p->next;
	struct job *job = &p->job[i];

	job->out = memfd_create("crash", MFD_CLOEXEC);
	if (job->out < 0)
		return -errno;
	fflush(stdout);
	job->pid = fork();
	if (job->pid < 0)
		return -errno;
	if (!job->pid) {
		if (dup2(job->out, STDOUT_FILENO) < 0)
			_exit(3);
		p->j->run(i, result(p, i), p->j->arg);
		fflush(stdout);
		_exit(0);
	}
	job->state = RUNNING;
	p->running++;
	p->next++;
	return 0;
}

static void copy_out(const struct job *job)
{
	char buf[4096];
	ssize_t n;
	off_t at = 0;

	while ((n = pread(job->out, buf, sizeof(buf), at)) > 0) {
		fwrite(buf, 1, (size_t)n, stdout);
		at += n;
	}
}

static void print_finished(struct pool *p)
{
	for (; p->printed < p->next && p->job[p->printed].state == OVER; p->printed++) {
		struct job *job = &p->job[p->printed];

		if (!job->dropped)
			copy_out(job);
		if (job->status && !job->dropped) {
			++*p->j->failures(result(p, p->printed));
			printf("FAIL %s: ended by %s %d\n", p->j->name(p->printed, p->j->arg),
				WIFSIGNALED(job->status) ? "signal" : "status",
				WIFSIGNALED(job->status) ? WTERMSIG(job->status)
							 : WEXITSTATUS(job->status));
		}
		close(job->out);
		job->state = PRINTED;
	}
	fflush(stdout);
}

static void end_the_others(struct pool *p)
{
	p->stop = true;
	for (unsigned i = 0; i < p->next; i++) {
		if (p->job[i].state != RUNNING || failures(p, i))
			continue;
		p->job[i].dropped = true;
		kill(p->job[i].pid, SIGKILL);
	}
}

/* Takes in those that have ended; false: none had. */
static bool reap(struct pool *p)
{
	bool any = false;

	for (unsigned i = 0; i < p->next; i++) {
		struct job *job = &p->job[i];

		if (job->state != RUNNING || waitpid(job->pid, &job->status, WNOHANG) != job->pid)
			continue;
		job->state = OVER;
		p->running--;
		any = true;
		if (p->j->until_caught && !p->stop && !job->dropped &&
			(failures(p, i) || job->status))
			end_the_others(p);
	}
	return any;
}

static void progress(const struct pool *p, bool last)
{
	char line[160] = "";

	if (!isatty(STDERR_FILENO))
		return;
	if (!last)
		p->j->progress(p->results, p->j->n, line, sizeof(line));
	fprintf(stderr, "\r\033[K");
	if (!last)
		fprintf(stderr, "%u of %u, %s", p->printed, p->j->n, line);
	fflush(stderr);
}

static int run_pool(struct pool *p)
{
	int err = 0;

	while (p->running || (p->next < p->j->n && !p->stop && !err)) {
		while (p->next < p->j->n && p->running < p->j->at_once && !p->stop && !err)
			err = start(p);
		if (!reap(p)) {
			progress(p, false);
			usleep(20000);
			continue;
		}
		progress(p, true);
		print_finished(p);
	}
	progress(p, true);
	return err;
}

int jobs_run(const struct jobs *j, void **results)
{
	struct pool p = {.j = j, .job = calloc(j->n + 1, sizeof(*p.job))};
	int err = 0;

	p.results = mmap(NULL, (j->n + 1) * j->result_size, PROT_READ | PROT_WRITE,
		MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	*results = p.results;
	if (!p.job || p.results == MAP_FAILED)
		err = -ENOMEM;
	else if (j->at_once > 1 && j->n > 1)
		err = run_pool(&p);
	else
		for (unsigned i = 0; i < j->n; i++) {
			j->run(i, result(&p, i), j->arg);
			if (j->until_caught && failures(&p, i))
				break;
		}
	free(p.job);
	return err;
}
