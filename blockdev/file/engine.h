/* SPDX-License-Identifier: MIT */
/*
 * engine.h - what file.c builds a stack from; private to this folder.
 */
#ifndef FILE_ENGINE_H
#define FILE_ENGINE_H

#include "blockdev/file/file.h"

/*
 * The bottom of a stack: fd, through the loop.  align_off and align_mem are 1 unless direct.
 * fd is the engine's from success on.
 */
must_check int engine_open(struct loop *l, int fd, bool direct, bool readonly, struct file **out);
int engine_fd(const struct file *f); /* of an engine, not of a filter */

/* A filter that makes below take requests of any alignment.  It owns below from success on. */
must_check int align_open(struct file *below, struct file **out);

#endif
