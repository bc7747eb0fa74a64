/* SPDX-License-Identifier: MIT */
/*
 * progress.c - telling how far a command is.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "blockdev/img/progress.h"
#include "vmm/util/loop.h"

#define SEC	    1000000000ULL
#define QUIET_NS    (2 * SEC)	/* what ends sooner needs no words */
#define INTERVAL_NS (SEC / 4)
#define STEP	    1.0 /* percent, with -p */

static volatile sig_atomic_t signalled;

static void on_signal(int sig)
{
	signalled = 1;
}

void progress_start(struct progress *p, bool asked, bool quiet)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};

	*p = (struct progress){.asked = asked && !quiet, .printed = -STEP};
	p->terminal = !asked && !quiet && isatty(STDERR_FILENO);
	p->start_ns = p->told_ns = loop_now_ns();
	sigaction(SIGUSR1, &sa, NULL);
}

static void tell_terminal(struct progress *p)
{
	uint64_t now = loop_now_ns(), left;

	if (now - p->start_ns < QUIET_NS || now - p->told_ns < INTERVAL_NS || p->now <= 0)
		return;
	left = (uint64_t)((double)(now - p->start_ns) * (100 - p->now) / p->now) / SEC;
	fprintf(stderr, "\r%5.1f%%, %u:%02u left ", p->now, (unsigned)(left / 60),
		(unsigned)(left % 60));
	p->told_ns = now;
	p->shown = true;
}

void progress_set(struct progress *p, uint64_t done, uint64_t total)
{
	p->now = total ? 100.0 * (double)done / (double)total : 100.0;
	if (p->asked && (p->now > p->printed + STEP || p->now < p->printed || !done ||
			    done == total)) {
		printf("    (%3.2f/100%%)\r", p->now);
		fflush(stdout);
		p->printed = p->now;
	}
	if (signalled) {
		signalled = 0;
		fprintf(stderr, "    (%3.2f/100%%)\n", p->now);
	}
	if (p->terminal)
		tell_terminal(p);
}

void progress_end(struct progress *p)
{
	if (p->asked)
		printf("\n");
	if (p->shown)
		fprintf(stderr, "\r%24s\r", "");
	p->shown = false;
}
