/* SPDX-License-Identifier: MIT */
/*
 * map.c - alloc, map, info: what the top layer of the image holds.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include "blockdev/block_int.h"
#include "blockdev/img/info.h"
#include "blockdev/io/cmd.h"
#include "blockdev/name.h"

struct look {
	struct disk *d;
	uint64_t off, len;
	struct extent e;
};

static int look_fiber(void *arg)
{
	struct look *k = arg;

	return disk_extent(k->d, k->off, k->len, &k->e);
}

/* Does this layer say what [off, off+*len) reads as?  *len is cut to where that goes on. */
static int allocated(struct io *io, uint64_t off, uint64_t *len, bool *yes)
{
	struct look k = {.d = io->disk, .off = off, .len = *len};
	uint64_t at = off, end = off + *len;
	bool first = true;

	*yes = false;
	while (at < end) {
		bool here;
		int err;

		k.off = at;
		k.len = end - at;
		err = fiber_run(io->loop, look_fiber, &k);
		if (err)
			return err;
		here = k.e.kind != EXTENT_HOLE;
		if (!first && here != *yes)
			break;
		*yes = here;
		first = false;
		at += k.e.len;
	}
	*len = at - off;
	return 0;
}

static int run_alloc(struct io *io, int argc, char **argv)
{
	uint64_t off, len = SECTOR, at, end, sum = 0, size = disk_size(io->disk);
	char text[64];

	if (io_number(argv[1], &off) || (argc == 3 && io_number(argv[2], &len)))
		return -EINVAL;
	end = off < size ? off + min_u64(len, size - off) : off;
	for (at = off; at < end;) {
		uint64_t n = end - at;
		bool yes;
		int err = allocated(io, at, &n, &yes);

		if (err) {
			printf("is_allocated failed: %s\n", strerror(-err));
			return err;
		}
		sum += yes ? n : 0;
		at += n;
	}
	printf("%" PRIu64 "/%" PRIu64 " bytes allocated at offset %s\n", sum, end - off,
		io_size((double)off, text, sizeof(text)));
	return 0;
}

static int run_map(struct io *io, int argc, char **argv)
{
	uint64_t size = disk_size(io->disk);

	for (uint64_t at = 0; at < size;) {
		char len[64], off[64];
		uint64_t n = size - at;
		bool yes;
		int err = allocated(io, at, &n, &yes);

		if (err) {
			log_error("Failed to get allocation status: %s", strerror(-err));
			return err;
		}
		printf("%s (0x%" PRIx64 ") bytes %s at offset %s (0x%" PRIx64 ")\n",
			io_size((double)n, len, sizeof(len)), n,
			yes ? "    allocated" : "not allocated",
			io_size((double)at, off, sizeof(off)), at);
		at += n;
	}
	return 0;
}

struct specific {
	struct disk *d;
	struct image_info info;
	struct why why;
};

static int specific_fiber(void *arg)
{
	struct specific *s = arg;

	return info_read_qcow2(s->d->fmt->file, &s->info, &s->why);
}

static int print_specific(struct io *io)
{
	struct specific s = {.d = io->disk};
	int err = fiber_run(io->loop, specific_fiber, &s);

	if (err)
		log_error("%s", why_text(&s.why, err));
	else
		info_print_specific(&s.info);
	info_free(&s.info);
	return err;
}

static int run_info(struct io *io, int argc, char **argv)
{
	char cluster[64], state[64];
	const char *name = disk_driver(io->disk);

	printf("format name: %s\n", name);
	if (name_is_protocol(name))
		printf("format name: %s\n", name);
	if (!strncmp(name, "null-", 5))
		return -EIO; /* as its user expects */
	printf("cluster size: %s\nvm state offset: %s\n",
		io_size(disk_cluster_size(io->disk), cluster, sizeof(cluster)),
		io_size((double)disk_vmstate_offset(io->disk), state, sizeof(state)));
	return strcmp(name, "qcow2") ? 0 : print_specific(io);
}

const struct io_cmd io_map_cmds[] = {
	{.name = "alloc",
		.run = run_alloc,
		.words_min = 1,
		.words_max = 2,
		.args = "offset [count]",
		.summary = "checks if offset is allocated in the file"},
	{.name = "map",
		.run = run_map,
		.args = "",
		.summary = "prints the allocated areas of a file"},
	{.name = "info",
		.alias = "i",
		.run = run_info,
		.summary = "prints information about the current file"},
	{0},
};
