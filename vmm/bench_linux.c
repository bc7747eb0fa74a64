/* SPDX-License-Identifier: MIT */
/*
 * bench_linux.c - `sluice bench install --guest linux`: Debian's own kernel and dpkg as the guest.
 *
 * guest/linux/debian.sh makes a folder with the kernel, an initial RAM disk that installs, and the
 * packages, from Debian's archive; it is made once and used by every run.  The reports of that
 * guest are those of the test guest, so that all the rest is the same: its clock is the guest's
 * kernel's, requests are counted by its disk, and what it reads back are the sums of the packages'
 * files.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/bench.h"

#define DISK_BYTES (1 * GiB)
#define MEMORY_MIB 512

static const char *const files[] = { "vmlinuz", "installer.gz", BENCH_PACKAGES };

static void default_dir(char *dir, size_t size)
{
	const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");

	if (cache && *cache)
		snprintf(dir, size, "%s/sluice/debian", cache);
	else
		snprintf(dir, size, "%s/.cache/sluice/debian", home ? home : "");
}

int bench_linux_prepare(struct bench *b, struct why *why)
{
	char dir[PATH_MAX], from[PATH_MAX + 64], to[sizeof(b->dir) + 64];

	b->kernel = files[0];
	b->initrd = files[1];
	b->disk_bytes = DISK_BYTES;
	b->memory_mib = MEMORY_MIB;
	if (b->o.linux_dir)
		snprintf(dir, sizeof(dir), "%s", b->o.linux_dir);
	else
		default_dir(dir, sizeof(dir));
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		char *full;
		int err;

		snprintf(from, sizeof(from), "%s/%s", dir, files[i]);
		full = realpath(from, NULL);
		if (!full)
			return why_set(why, -errno,
				"%s: %s (guest/linux/debian.sh of Sluice's sources makes it: "
				"debian.sh %s)",
				from, strerror(errno), dir);
		snprintf(to, sizeof(to), "%s/%s", b->dir, files[i]);
		err = symlink(full, to) < 0 ? -errno : 0;
		free(full);
		if (err)
			return why_set(why, err, "%s: %s", to, strerror(-err));
	}
	return 0;
}

void bench_linux_cleanup(struct bench *b)
{
	char path[sizeof(b->dir) + 64];

	for (size_t i = 0; b->kernel == files[0] && i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", b->dir, files[i]);
		unlink(path);
	}
}
