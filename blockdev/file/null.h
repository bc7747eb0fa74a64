/* SPDX-License-Identifier: MIT */
/*
 * null.h - a file that holds nothing: reads as zeros, forgets what is written.
 */
#ifndef FILE_NULL_H
#define FILE_NULL_H

#include "blockdev/file/file.h"

must_check int null_file_open(struct loop *l, uint64_t size, struct file **out);

#endif
