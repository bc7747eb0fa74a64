/* SPDX-License-Identifier: MIT */
/*
 * stop.c - the user's wish to end, as a flag and a descriptor to wait for.
 *
 * A signal handler has no argument, so what it needs is static here: written before the
 * handlers are installed, and only by the main thread.
 */
#include "vmm/stop.h"

#include <signal.h>
#include <stdatomic.h>
#include <unistd.h>
#include "vmm/util/loop.h"

/*
 * A signal that follows sooner is the same wish: timeout(1), for one, sends each twice, to the
 * process and to its group.  Nobody is that fast on a keyboard.
 */
#define FORCE_AFTER_NS 500000000ULL

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
static _Atomic int watched_fd = -1, came;
static _Atomic uint64_t came_ns;
static _Atomic bool powercut;
static void (*force_fn)(void);

static void wake(void)
{
	int fd = atomic_load(&watched_fd);
	uint64_t one = 1;

	if (fd >= 0) {
		ssize_t n = write(fd, &one, sizeof(one));

		(void)n; /* full: whoever waits is woken already */
	}
}

static bool first_wish(int sig)
{
	uint64_t never = 0;
	int none = 0;

	/* The time first: whoever finds that there was a wish finds when. */
	atomic_compare_exchange_strong(&came_ns, &never, loop_now_ns());
	return atomic_compare_exchange_strong(&came, &none, sig);
}

static void on_signal(int sig)
{
	int saved = errno;

	if (first_wish(sig)) {
		wake();
	} else if (loop_now_ns() - atomic_load(&came_ns) > FORCE_AFTER_NS) {
		if (force_fn)
			force_fn();
		_exit(128 + sig);
	}
	errno = saved;
}

int stop_watch(int fd, void (*force)(void))
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, old;

	force_fn = force;
	atomic_store(&watched_fd, fd);
	sigemptyset(&sa.sa_mask);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++) {
		/* nohup(1) ignores SIGHUP for us: so it stays. */
		if (sigaction(signals[i], NULL, &old))
			return -errno;
		if (old.sa_handler != SIG_IGN && sigaction(signals[i], &sa, NULL))
			return -errno;
	}
	return 0;
}

void stop_unwatch(void)
{
	atomic_store(&watched_fd, -1);
}

int stop_signal(void)
{
	return atomic_load(&came);
}

void stop_request(void)
{
	if (first_wish(SIGINT))
		wake();
}

static void on_powercut(int sig)
{
	int saved = errno;

	atomic_store(&powercut, true);
	wake();
	errno = saved;
}

int stop_watch_powercut(void)
{
	struct sigaction sa = {.sa_handler = on_powercut, .sa_flags = SA_RESTART};

	sigemptyset(&sa.sa_mask);
	return sigaction(SIGUSR2, &sa, NULL) ? -errno : 0;
}

bool stop_powercut(void)
{
	return atomic_load(&powercut);
}

void stop_not_here(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR2);
	for (unsigned i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&set, signals[i]);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
}
