/* SPDX-License-Identifier: MIT */
/*
 * nomem.c - a shared object for LD_PRELOAD: allocations of the program fail, see count.h.
 *
 * Allocations are malloc, calloc, realloc, posix_memalign, aligned_alloc, strdup (which is
 * malloc's) and anonymous mmap by the program itself; what libc allocates by its inner names is
 * not seen.  What happens before main() is not counted.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include "tests/nomem/count.h"

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t each);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n)
{
	if (count_fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_malloc(n);
}

void *calloc(size_t n, size_t each)
{
	if (count_fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_calloc(n, each);
}

void *realloc(void *p, size_t n)
{
	if (count_fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_realloc(p, n);
}

void *aligned_alloc(size_t align, size_t n)
{
	if (count_fails()) {
		errno = ENOMEM;
		return NULL;
	}
	return __libc_memalign(align, n);
}

int posix_memalign(void **out, size_t align, size_t n)
{
	void *p = count_fails() ? NULL : __libc_memalign(align, n);

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
	if ((flags & MAP_ANONYMOUS) && count_fails()) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return real(at, n, prot, flags, fd, off);
}
