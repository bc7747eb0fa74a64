/* SPDX-License-Identifier: MIT */
/*
 * nomem.c - a shared object for LD_PRELOAD: the n-th allocation of the program fails.
 *
 *   NOMEM_AT=N    the N-th from main() on, counted from 1; 0 or unset: none
 *   NOMEM_ALL=1   and all after it
 *   NOMEM_SAY=F   at exit the number of allocations is written to file F
 *
 * Allocations are malloc, calloc, realloc, posix_memalign, aligned_alloc, strdup (which is
 * malloc's) and anonymous mmap by the program itself; what libc allocates by its inner names is
 * not seen.  What happens before main() is not counted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t each);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

static unsigned long count, fail_at;
static bool fail_all, in_main;

static bool fails(void)
{
	unsigned long n;

	if (!__atomic_load_n(&in_main, __ATOMIC_ACQUIRE))
		return false;
	n = __atomic_add_fetch(&count, 1, __ATOMIC_RELAXED);
	return fail_at && (n == fail_at || (fail_all && n > fail_at));
}

void *malloc(size_t n)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t each)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_calloc(n, each);
}

void *realloc(void *p, size_t n)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
	if (fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
	void *p = fails() ? NULL : __libc_memalign(align, n);

	if (!p)
		return ENOMEM;
	*out = p;
	return 0;
}

void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t off)
{
	static void *(*real)(void *, size_t, int, int, int, off_t);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "mmap");
	if ((flags & MAP_ANONYMOUS) && fails()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return real(at, n, prot, flags, fd, off);
}

static int (*real_main)(int, char **, char **);

static int counted_main(int argc, char **argv, char **env)
{
	const char *at = getenv("NOMEM_AT"), *all = getenv("NOMEM_ALL");

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
	const char *path = getenv("NOMEM_SAY");
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
