/* SPDX-License-Identifier: MIT */
/*
 * scratch.h - what unit tests of the loop and the file layer share: engines, temporary files.
 */
#ifndef TESTS_SCRATCH_H
#define TESTS_SCRATCH_H

#include <check.h>
#include "vmm/util/loop.h"

/* For tcase_add_loop_test(): _i is 0 .. N_AIO - 1. */
#define N_AIO 2
extern const enum loop_aio test_aio[N_AIO];

/* A loop on engine i; the test fails if there is none. */
struct loop *scratch_loop(int i);

/*
 * The path of a new file of size bytes, each byte a function of its place (scratch_byte()).
 * In $TMPDIR or /tmp; all are removed when the test's process exits, passed or not.
 */
const char *scratch_file(uint64_t size);
unsigned char scratch_byte(uint64_t off);
/* Is [buf, buf+len) what scratch_file() put at off? */
bool scratch_same(const void *buf, uint64_t len, uint64_t off);
/* The file's bytes as the host sees them; fails the test if there are fewer. */
void scratch_read(const char *path, void *buf, uint64_t len, uint64_t off);

/* Runs one suite as a program: exit status 0 if all passed. */
int scratch_main(Suite *s);

#endif
