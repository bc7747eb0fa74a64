/* SPDX-License-Identifier: MIT */
/*
 * count.c - see count.h.  What happens before main() and after exit() began is not counted.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/nomem/count.h"

static unsigned long count, fail_at;
static bool fail_all, in_main;

bool count_fails(void)
{
	unsigned long n;

	if (!__atomic_load_n(&in_main, __ATOMIC_ACQUIRE))
		return false;
	n = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
	return fail_at && (n == fail_at || (fail_all && n > fail_at));
}

static int (*real_main)(int, char **, char **);

static int counted_main(int argc, char **argv, char **env)
{
	const char *at = getenv("FAIL_AT"), *all = getenv("FAIL_ALL");

	fail_at = at ? strtoul(at, NULL, 0) : 0;
	fail_all = all && *all == '1';
	__atomic_store_n(&in_main, true, __ATOMIC_RELEASE);
	return real_main(argc, argv, env);
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
	int (*init)(int, char **, char **), void (*fini)(void), void (*rtld_fini)(void), void *end);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
	int (*init)(int, char **, char **), void (*fini)(void), void (*rtld_fini)(void), void *end)
{
	__typeof__(&__libc_start_main) real;

	*(void **)&real = dlsym(RTLD_NEXT, "__libc_start_main");
	real_main = main;
	return real(counted_main, argc, argv, init, fini, rtld_fini, end);
}

__attribute__((destructor)) static void say(void)
{
	const char *path = getenv("FAIL_SAY");
	char text[32];
	int fd, n;

	in_main = false;
	if (!path)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
	n = snprintf(text, sizeof(text), "%lu\n", count);
	if (fd < 0 || write(fd, text, (size_t)n) != n)
		abort();
	close(fd);
}
