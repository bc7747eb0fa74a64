/* SPDX-License-Identifier: MIT */
/*
 * guest_mem.c - the guest's RAM: anonymous host memory in one or two regions.
 *
 * Each region is aligned to 2 MiB so that the host may back it with huge pages;
 * that is worth two orders of magnitude at the first touch.  Small machines are
 * filled in while they start, by a thread that ends when it is done, so that neither the
 * first instruction nor a measurement later waits for it; large ones pay as they go,
 * because nobody wants a 16 GiB machine to take 16 GiB at once.
 *
 * Not here: memory slots of KVM (kvm.c), what lies where in RAM (boot_pvh.c).
 */
#include "vmm/guest_mem.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>

#define HUGE (2 * MiB)
/* RAM up to this size is filled in: 128 MiB take about 7 ms with huge pages. */
#define PREFAULT_MAX (128 * MiB)
#define ABOVE_HOLE   (4 * GiB)

static int region_map(struct gmem_region *r, uint64_t gpa, uint64_t len)
{
	uint64_t span = round_up(len, HUGE) + HUGE, at;
	uint8_t *p = mmap(NULL, span, PROT_READ | PROT_WRITE,
		MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return -errno;
	at = round_up((uintptr_t)p, HUGE) - (uintptr_t)p;
	if (at)
		munmap(p, at);
	if (span - at > len)
		munmap(p + at + len, span - at - len);
	*r = (struct gmem_region){.gpa = gpa, .len = len, .host = p + at};
	/* Advice only: what the host refuses costs speed and nothing else. */
	madvise(r->host, len, MADV_HUGEPAGE);
	madvise(r->host, len, MADV_DONTDUMP);
	return 0;
}

static void *filler_main(void *arg)
{
	struct gmem *m = arg;
	const struct gmem_region *r = &m->r[0];
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	pthread_setname_np(pthread_self(), "memory");
	/* Advice again; kernels before 5.14 refuse it. */
	for (uint64_t at = 0; at < r->len && !atomic_load(&m->stop); at += HUGE) {
		if (madvise((uint8_t *)r->host + at, min_u64(HUGE, r->len - at),
			    MADV_POPULATE_WRITE))
			break;
	}
	return NULL;
}

int gmem_init(struct gmem *m, uint64_t bytes, struct why *why)
{
	uint64_t low = min_u64(bytes, GMEM_LOW_END);
	int err;

	memset(m, 0, sizeof(*m));
	if (!bytes || bytes % 4096)
		return why_set(why, -EINVAL, "guest memory must be a multiple of 4 KiB");
	err = region_map(&m->r[0], 0, low);
	if (err)
		goto fail;
	m->n = 1;
	if (bytes > low) {
		err = region_map(&m->r[1], ABOVE_HOLE, bytes - low);
		if (err)
			goto fail;
		m->n = 2;
	}
	/* Without the thread the guest pays at the first touch. */
	if (bytes <= PREFAULT_MAX)
		m->filling = !pthread_create(&m->filler, NULL, filler_main, m);
	return 0;
fail:
	gmem_fini(m);
	return why_set(why, err, "no room for %llu MiB of guest memory: %s",
		(unsigned long long)(bytes / MiB), strerror(-err));
}

void gmem_fini(struct gmem *m)
{
	if (m->filling) {
		atomic_store(&m->stop, true);
		pthread_join(m->filler, NULL);
		m->filling = false;
	}
	for (int i = 0; i < m->n; i++)
		munmap(m->r[i].host, m->r[i].len);
	m->n = 0;
}

void *gmem_ptr(const struct gmem *m, uint64_t gpa, uint64_t len)
{
	for (int i = 0; i < m->n; i++) {
		const struct gmem_region *r = &m->r[i];

		if (gpa >= r->gpa && gpa - r->gpa < r->len && len <= r->len - (gpa - r->gpa))
			return (uint8_t *)r->host + (gpa - r->gpa);
	}
	return NULL;
}

uint64_t gmem_bytes(const struct gmem *m)
{
	uint64_t sum = 0;

	for (int i = 0; i < m->n; i++)
		sum += m->r[i].len;
	return sum;
}
