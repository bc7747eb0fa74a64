/* SPDX-License-Identifier: MIT */
/*
 * rows.c - the configurations that the explorer runs.
 */
#include "tests/crash/crash.h"

#define QCOW2(sz, cl, ...) .format = "qcow2", .create = {.size = (sz), .cluster_size = (cl), __VA_ARGS__}
#define LAZY .lazy_refcounts = true

const struct row rows[] = {
	{.name = "raw", .format = "raw", .create = {.size = 4 * MiB}, .mode = CACHE_WRITEBACK,
		.depth = 8, .span = 512, .max = 16, .ops = 200, .flush = 12, .fua = 5, .flip = 4},
	{.name = "raw writethrough", .format = "raw", .create = {.size = 4 * MiB},
		.mode = CACHE_WRITETHROUGH, .depth = 64, .span = 512, .max = 16, .ops = 200},
	{.name = "64k", QCOW2(64 * MiB, 65536), .mode = CACHE_WRITEBACK, .depth = 8, .span = 4096,
		.max = 64, .ops = 160, .flush = 12, .fua = 5},
	{.name = "64k depth 1", QCOW2(64 * MiB, 65536), .mode = CACHE_WRITEBACK, .depth = 1,
		.span = 2048, .max = 64, .ops = 120, .flush = 20, .fua = 5},
	{.name = "64k writethrough", QCOW2(64 * MiB, 65536), .mode = CACHE_WRITETHROUGH,
		.depth = 8, .span = 4096, .max = 64, .ops = 160, .flush = 2},
	{.name = "64k flipping", QCOW2(64 * MiB, 65536), .mode = CACHE_WRITEBACK, .depth = 8,
		.span = 4096, .max = 64, .ops = 160, .flush = 8, .fua = 5, .flip = 10},
	{.name = "64k reopen", QCOW2(64 * MiB, 65536), .mode = CACHE_WRITEBACK, .depth = 8,
		.span = 4096, .max = 64, .ops = 160, .flush = 12, .flip = 3, .reopen = true},
	{.name = "64k lazy", QCOW2(64 * MiB, 65536, LAZY), .mode = CACHE_WRITEBACK, .depth = 8,
		.span = 4096, .max = 64, .ops = 160, .flush = 12, .fua = 5},
	{.name = "64k lazy reopen", QCOW2(64 * MiB, 65536, LAZY), .mode = CACHE_WRITETHROUGH,
		.depth = 8, .span = 4096, .max = 64, .ops = 120, .reopen = true},
	{.name = "512", QCOW2(4 * MiB, 512), .mode = CACHE_WRITEBACK, .depth = 8, .span = 2048,
		.max = 32, .ops = 160, .flush = 12, .fua = 5, .tiny = true},
	{.name = "512 growth", QCOW2(16 * MiB, 512), .mode = CACHE_WRITEBACK, .depth = 64,
		.span = 16384, .max = 600, .ops = 120, .flush = 6, .fua = 2, .flip = 2,
		.reopen = true, .tiny = true, .dear = 4},
	{.name = "512 lazy", QCOW2(4 * MiB, 512, LAZY), .mode = CACHE_WRITEBACK, .depth = 8,
		.span = 2048, .max = 32, .ops = 160, .flush = 12, .flip = 4, .tiny = true},
	{.name = "512 64-bit counts", QCOW2(8 * MiB, 512, .refcount_bits = 64),
		.mode = CACHE_WRITEBACK, .depth = 8, .span = 8192, .max = 300, .ops = 100,
		.flush = 8, .flip = 2, .reopen = true, .tiny = true, .dear = 3},
	{.name = "4k", QCOW2(32 * MiB, 4096), .mode = CACHE_WRITEBACK, .depth = 8, .span = 2048,
		.max = 64, .ops = 160, .flush = 12, .fua = 5, .flip = 2, .tiny = true},
	{.name = "4k depth 64", QCOW2(32 * MiB, 4096), .mode = CACHE_WRITEBACK, .depth = 64,
		.span = 4096, .max = 64, .ops = 300, .flush = 8, .fua = 5, .flip = 2},
	{.name = "4k lazy 1-bit", QCOW2(32 * MiB, 4096, LAZY, .refcount_bits = 1),
		.mode = CACHE_WRITEBACK, .depth = 8, .span = 2048, .max = 64, .ops = 160,
		.flush = 12, .flip = 3, .reopen = true},
	{.name = "2M", QCOW2(256 * MiB, 2097152), .mode = CACHE_WRITEBACK, .depth = 8,
		.span = 32768, .max = 64, .ops = 80, .flush = 12, .fua = 5, .flip = 2, .dear = 8},
	{.name = "2M lazy", QCOW2(256 * MiB, 2097152, LAZY), .mode = CACHE_WRITEBACK, .depth = 8,
		.span = 32768, .max = 64, .ops = 80, .flush = 12, .flip = 4, .dear = 8},
	{.name = "512 resize", QCOW2(256 * KiB, 512), .mode = CACHE_WRITEBACK, .depth = 8,
		.span = 256, .max = 16, .ops = 160, .flush = 12, .fua = 5, .flip = 2, .tiny = true,
		.grow = 4 * MiB},
	{.name = "version 2", QCOW2(64 * MiB, 65536, .version = 2), .mode = CACHE_WRITETHROUGH,
		.depth = 8, .span = 4096, .max = 64, .ops = 120, .flip = 5, .reopen = true},
};
const unsigned n_rows = ARRAY_SIZE(rows);
