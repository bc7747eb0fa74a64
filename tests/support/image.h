/* SPDX-License-Identifier: MIT */
/*
 * image.h - scratch images and a model of what they must hold; for unit tests.
 *
 * Every sector written carries (sector, version), so that a read tells stale from foreign
 * contents; version 0 means never written, all zeros.
 */
#ifndef TESTS_SUPPORT_IMAGE_H
#define TESTS_SUPPORT_IMAGE_H

#include "blockdev/block.h"
#include "blockdev/qcow2/format.h"

/* A path in $TMPDIR (or /tmp) that no other test uses; static storage, new at each call. */
const char *image_path(const char *name);

/* Makes a new image; asserts success. */
void image_create_raw(const char *path, uint64_t size);
void image_create_qcow2(struct loop *l, const char *path, const struct qcow2_create_opts *o);
/* Opens; asserts success. */
struct disk *image_open(struct loop *l, const char *path, const char *format, enum cache_mode mode);

/* Our own check of a qcow2 image; asserts that it ran. */
struct qcow2_check image_check(struct loop *l, const char *path);
/* qemu-img check, where it is installed: 0 clean, 2 errors, 3 leaks, -1 not installed. */
int image_check_qemu(const char *path);

void pattern_make(void *buf, uint64_t sector, uint64_t n_sectors, uint64_t version);
/* 0, or the 1-based index of the first sector that does not hold (sector, version). */
uint64_t pattern_differs(const void *buf, uint64_t sector, uint64_t n, const uint32_t *versions);

#endif
