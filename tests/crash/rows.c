/* SPDX-License-Identifier: MIT */
/*
 * rows.c - the configurations that the explorer runs.
 *
 * A row says how it differs from DEFAULTS.
 */
#include "tests/crash/crash.h"

#define DEFAULTS .depth = 8, .span = 4096, .max = 64, .ops = 160, .flush = 12, .fua = 5

#define QCOW2(title, bytes, cluster, ...)                                                          \
	{                                                                                          \
		.name = (title), .format = "qcow2", DEFAULTS,                                      \
		.create = {.size = (bytes), .cluster_size = (cluster)}, __VA_ARGS__                \
	}
#define RAW(title, bytes, ...)                                                                     \
	{                                                                                          \
		.name = (title), .format = "raw", .create = {.size = (bytes)}, DEFAULTS,           \
		__VA_ARGS__                                                                        \
	}

#define LAZY         .create.lazy_refcounts = true
#define COUNTS(bits) .create.refcount_bits = (bits)
/* Cache off; what the guest flushes all the same costs nothing. */
#define WRITETHROUGH .mode = CACHE_WRITETHROUGH, .flush = 2, .fua = 0
/* All within a few L2 tables, so that the tables are what is at stake. */
#define SMALL .span = 2048, .max = 24

/* One guest request at a time, so that it is known what a snapshot holds. */
#define SNAPSHOTS .depth = 1, .span = 1024, .max = 24, .snapshot = 15, .ops = 60, .dear = 4

/* The same; a smaller disk still has all that the work touches. */
#define UPKEEP .depth = 1, .span = 1024, .max = 24, .upkeep = 12, .ops = 120, .zero = 8, .dear = 2

/* The same; opened three times. */
#define BITMAPS .depth = 1, .span = 1024, .max = 24, .bitmaps = 12, .ops = 90, .dear = 8

/* The image changes under requests in flight, which touch all of it. */
#define LIVE .depth = 32, .span = 512, .max = 24, .ops = 300, .dear = 4

#define EXT .create.extended_l2 = true, .zero = 10

#define BELOW .below = true, .span = 1600

#define DATA_FILE .create.data_file = "data"

/* That a row overrides a default is the point. */
#pragma GCC diagnostic ignored "-Woverride-init"

const struct row rows[] = {
	RAW("raw", 4 * MiB, .span = 512, .max = 16, .ops = 200, .flip = 4),
	RAW("raw writethrough", 4 * MiB, WRITETHROUGH, .depth = 64, .span = 512, .max = 16),
	RAW("raw resize", 1 * MiB, .span = 1024, .max = 16, .flip = 3, .grow = 4 * MiB),

	QCOW2("64k", 64 * MiB, 65536),
	QCOW2("64k depth 1", 64 * MiB, 65536, .depth = 1, .span = 2048, .ops = 120, .flush = 20),
	QCOW2("64k writethrough", 64 * MiB, 65536, WRITETHROUGH),
	QCOW2("64k flipping", 64 * MiB, 65536, .flip = 10),
	QCOW2("64k reopen", 64 * MiB, 65536, .fua = 0, .flip = 3, .reopen = true),
	QCOW2("64k lazy", 64 * MiB, 65536, LAZY),
	QCOW2("64k lazy reopen", 64 * MiB, 65536, LAZY, WRITETHROUGH, .reopen = true),
	QCOW2("64k reuse", 64 * MiB, 65536, .span = 8192, .flip = 3, .junk = 40),
	QCOW2("64k cut", 64 * MiB, 65536, .flip = 3, .cut = true),
	QCOW2("version 2", 64 * MiB, 65536, WRITETHROUGH, .create.version = 2, .flip = 5,
		.reopen = true),

	QCOW2("512", 4 * MiB, 512, SMALL, .tiny = true),
	QCOW2("512 lazy", 4 * MiB, 512, LAZY, SMALL, .flip = 4, .tiny = true),
	QCOW2("512 growth", 16 * MiB, 512, .depth = 64, .span = 16384, .max = 600, .ops = 120,
		.flush = 6, .flip = 2, .reopen = true, .tiny = true, .dear = 4),
	QCOW2("512 64-bit counts", 8 * MiB, 512, COUNTS(64), .span = 8192, .max = 300, .ops = 100,
		.flip = 2, .reopen = true, .tiny = true, .dear = 3),
	/* A table of clusters that have to be adjacent, whose blocks two sectors name. */
	QCOW2("512 table across sectors", 1 * MiB, 512, COUNTS(64), .span = 64, .max = 8,
		.ops = 60, .flush = 0, .fua = 0, .junk = 16109, .grow = 256 * MiB),
	/* Past the refcount table's first sectors. */
	QCOW2("512 table sectors", 16 * MiB, 512, COUNTS(64), .span = 8192, .max = 100, .ops = 60,
		.flush = 0, .fua = 0, .junk = 15000),
	/* Nearly every write makes an L2 table while others commit. */
	QCOW2("512 tables", 8 * MiB, 512, .depth = 64, .span = 8192, .max = 3, .ops = 200,
		.fua = 20, .flip = 3, .junk = 150),
	QCOW2("512 reuse", 4 * MiB, 512, SMALL, .flip = 3, .junk = 1000),
	QCOW2("512 reuse lazy", 4 * MiB, 512, LAZY, SMALL, .flip = 3, .junk = 1000),
	QCOW2("512 resize", 256 * KiB, 512, .span = 256, .max = 16, .flip = 2, .tiny = true,
		.grow = 4 * MiB),
	QCOW2("512 lazy resize", 256 * KiB, 512, LAZY, .depth = 1, .span = 256, .max = 16,
		.ops = 100, .grow = 4 * MiB, .reopen = true),
	QCOW2("512 cut", 4 * MiB, 512, SMALL, .flip = 3, .tiny = true, .cut = true),
	QCOW2("512 lazy cut", 4 * MiB, 512, LAZY, SMALL, .flip = 3, .cut = true),

	QCOW2("4k", 32 * MiB, 4096, SMALL, .flip = 2, .tiny = true),
	QCOW2("4k depth 1", 32 * MiB, 4096, SMALL, WRITETHROUGH, .depth = 1, .flip = 5,
		.junk = 100),
	QCOW2("4k depth 64", 32 * MiB, 4096, .depth = 64, .ops = 300, .flush = 8, .flip = 2),
	QCOW2("4k 1-bit", 32 * MiB, 4096, COUNTS(1), SMALL, .flip = 3, .discard = 10, .junk = 100),
	QCOW2("4k lazy 1-bit", 32 * MiB, 4096, LAZY, COUNTS(1), SMALL, .flip = 3, .reopen = true),
	QCOW2("4k reuse", 32 * MiB, 4096, SMALL, .flip = 3, .junk = 200, .tiny = true),

	RAW("raw discard", 4 * MiB, .span = 512, .max = 64, .flip = 3, .zero = 15, .discard = 25),
	/* Much is freed, and used again: the disk is small, so little is counted ahead. */
	QCOW2("4k discard", 4 * MiB, 4096, .span = 1024, .ops = 300, .flip = 4, .zero = 5,
		.discard = 35),
	QCOW2("512 discard", 512 * KiB, 512, .span = 500, .ops = 300, .zero = 5, .discard = 35,
		.tiny = true),
	QCOW2("512 lazy discard", 512 * KiB, 512, LAZY, .depth = 64, .span = 500, .ops = 300,
		.flip = 4, .zero = 20, .discard = 20),
	QCOW2("64k zeros", 64 * MiB, 65536, .max = 300, .flip = 4, .zero = 25, .discard = 15),
	QCOW2("4k lazy discard", 32 * MiB, 4096, LAZY, SMALL, .flip = 4, .zero = 10, .discard = 25,
		.reopen = true),
	QCOW2("4k below", 4 * MiB, 4096, SMALL, BELOW, .flip = 4),
	QCOW2("512 below discard", 4 * MiB, 512, SMALL, BELOW, .flip = 4, .zero = 12, .discard = 15,
		.tiny = true),
	QCOW2("64k below writethrough", 4 * MiB, 65536, WRITETHROUGH, BELOW, .flip = 3, .zero = 5),
	QCOW2("version 2 below", 4 * MiB, 4096, SMALL, BELOW, .create.version = 2, .zero = 8,
		.discard = 8),

	QCOW2("4k packed", 8 * MiB, 4096, SMALL, .flip = 4, .pack = 50),
	QCOW2("512 packed", 2 * MiB, 512, SMALL, .flip = 3, .pack = 50, .zero = 5, .discard = 15,
		.tiny = true),
	QCOW2("64k packed writethrough", 8 * MiB, 65536, WRITETHROUGH, .ops = 80, .pack = 40,
		.discard = 10, .reopen = true),
	QCOW2("4k packed lazy", 8 * MiB, 4096, LAZY, SMALL, .flip = 4, .pack = 50, .zero = 5),
	QCOW2("4k snapshots", 1 * MiB, 4096, SNAPSHOTS, .pack = 10),
	QCOW2("512 snapshots", 512 * KiB, 512, SNAPSHOTS, .span = 512, .max = 8, .tiny = true),
	QCOW2("64k snapshots writethrough", 1 * MiB, 65536, SNAPSHOTS, .mode = CACHE_WRITETHROUGH,
		.zero = 10),
	QCOW2("4k snapshots lazy", 1 * MiB, 4096, SNAPSHOTS, LAZY, .zero = 5, .flip = 5),
	QCOW2("version 2 snapshots", 1 * MiB, 4096, SNAPSHOTS, .create.version = 2),

	QCOW2("4k snapshots versions", 1 * MiB, 4096, SNAPSHOTS, BELOW, .zero = 40, .upkeep = 10,
		.ops = 120, .junk = 600),
	QCOW2("512 snapshots versions", 512 * KiB, 512, SNAPSHOTS, .span = 512, .max = 8,
		.tiny = true, .zero = 40, .upkeep = 10, .ops = 120),

	QCOW2("4k bitmaps", 4 * MiB, 4096, BITMAPS, .discard = 8, .pack = 8),
	QCOW2("512 bitmaps", 1 * MiB, 512, BITMAPS, .discard = 8, .tiny = true, .junk = 150),
	QCOW2("64k bitmaps lazy", 16 * MiB, 65536, BITMAPS, LAZY, .zero = 8),

	QCOW2("4k upkeep", 4 * MiB, 4096, UPKEEP, .pack = 15, .discard = 8, .flip = 3),
	QCOW2("512 upkeep", 2 * MiB, 512, UPKEEP, .discard = 5, .tiny = true, .junk = 200),
	QCOW2("64k upkeep lazy", 4 * MiB, 65536, UPKEEP, LAZY, .pack = 10, .flip = 3),
	QCOW2("512 upkeep 1-bit", 1 * MiB, 512, UPKEEP, COUNTS(1), .discard = 5, .reopen = true),
	QCOW2("512 upkeep lazy", 2 * MiB, 512, UPKEEP, LAZY, .pack = 20, .reopen = true),
	QCOW2("4k upkeep below", 4 * MiB, 4096, UPKEEP, BELOW, .span = 1600, .pack = 10),

	QCOW2("16k subclusters", 16 * MiB, 16384, SMALL, EXT, .flip = 4, .discard = 8,
		.tiny = true),
	QCOW2("16k subclusters below", 4 * MiB, 16384, SMALL, BELOW, EXT, .flip = 4,
		.discard = 10),
	QCOW2("64k subclusters reuse", 64 * MiB, 65536, EXT, .span = 8192, .flip = 3, .junk = 40,
		.discard = 10),
	QCOW2("16k subclusters packed lazy", 8 * MiB, 16384, LAZY, SMALL, EXT, .pack = 30),
	QCOW2("16k subclusters writethrough", 16 * MiB, 16384, WRITETHROUGH, EXT, .reopen = true),
	QCOW2("16k subclusters snapshots", 1 * MiB, 16384, SNAPSHOTS, EXT),
	QCOW2("16k subclusters upkeep", 4 * MiB, 16384, UPKEEP, EXT, .span = 1600, .below = true,
		.discard = 10, .pack = 10),

	QCOW2("data file", 4 * MiB, 4096, SMALL, DATA_FILE, .flip = 4, .zero = 10, .discard = 15,
		.tiny = true),
	QCOW2("data file writethrough", 8 * MiB, 65536, WRITETHROUGH, DATA_FILE, .zero = 5,
		.reopen = true),
	QCOW2("data file below", 4 * MiB, 4096, SMALL, BELOW, DATA_FILE, .flip = 4, .zero = 10,
		.discard = 10),
	QCOW2("data file subclusters below", 4 * MiB, 16384, SMALL, BELOW, EXT, DATA_FILE,
		.flip = 4, .discard = 10, .cut = true),
	QCOW2("raw data file", 2 * MiB, 512, SMALL, DATA_FILE, .create.data_file_raw = true,
		.create.prealloc = PREALLOC_METADATA, .depth = 1, .flush = 20, .flip = 4,
		.zero = 30, .discard = 15, .dear = 4),

	RAW("raw overlay", 4 * MiB, .overlay = true, .span = 2048, .max = 24, .flush = 6,
		.dear = 2),
	RAW("raw overlay depth 1", 4 * MiB, WRITETHROUGH, .overlay = true, .depth = 1,
		.span = 1024, .max = 24, .ops = 80, .flip = 5, .dear = 2),
	QCOW2("4k overlay", 4 * MiB, 4096, SMALL, .overlay = true, .flip = 4, .zero = 8,
		.discard = 10, .tiny = true, .dear = 2),
	QCOW2("512 lazy overlay", 1 * MiB, 512, LAZY, .overlay = true, .span = 1024, .max = 16,
		.discard = 10, .dear = 2),

	QCOW2("4k live snapshots", 1 * MiB, 4096, LIVE, .live_snapshot = 8, .zero = 8),
	QCOW2("512 live snapshots", 512 * KiB, 512, LIVE, .live_snapshot = 8, .span = 512,
		.max = 8, .tiny = true),
	QCOW2("4k live snapshots lazy", 1 * MiB, 4096, LIVE, LAZY, .live_snapshot = 8, .flip = 5),
	QCOW2("version 2 live snapshots", 1 * MiB, 4096, LIVE, .live_snapshot = 8,
		.create.version = 2, .mode = CACHE_WRITETHROUGH),
	RAW("raw live resize", 512 * KiB, LIVE, .live_resize = 6, .flip = 3, .zero = 8),
	QCOW2("4k live resize", 512 * KiB, 4096, LIVE, .live_resize = 6, .flip = 3, .zero = 8,
		.discard = 10),
	QCOW2("512 live resize lazy", 512 * KiB, 512, LIVE, LAZY, .live_resize = 6, .tiny = true,
		.junk = 200),

	/* One run of clusters after the other. */
	QCOW2("512k runs", 128 * MiB, 524288, .span = 131072, .max = 8, .flush = 6, .fua = 0),
	QCOW2("2M", 256 * MiB, 2097152, .span = 32768, .ops = 80, .flip = 2, .dear = 2),
	QCOW2("2M lazy", 256 * MiB, 2097152, LAZY, .span = 32768, .ops = 80, .flip = 4, .dear = 2),
};
const unsigned n_rows = ARRAY_SIZE(rows);
