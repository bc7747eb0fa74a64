/* SPDX-License-Identifier: MIT */
/*
 * trace_int.h - a log file from the inside; for trace.c and trace_write.c only.  See trace.h.
 */
#ifndef CRASH_TRACE_INT_H
#define CRASH_TRACE_INT_H

#include "vmm/util/bytes.h"
#include "vmm/util/base.h"

#define TRACE_MAGIC        "SLUICLOG"
#define TRACE_VERSION      2u /* the last that is known */
#define TRACE_HEAD_BLANK   1u
#define TRACE_HEAD_UNSAFE  2u
#define TRACE_FRAME_DATA   'D'
#define TRACE_FRAME_EVENTS 'E'
#define TRACE_PACKED       0x100u
#define TRACE_FRAME_MAX    (4 * MiB) /* a frame, not compressed */
#define TRACE_WRITE_MAX    (1 * GiB) /* one write: the numbers of its blocks go into one frame */
#define TRACE_NAME_MAX  4096u

struct trace_head {
	char magic[8] __attribute__((nonstring));
	le32_t version, header;
	le64_t disk_bytes;
	le32_t sector, flags;
	le64_t fingerprint, image_bytes;
	le32_t image_len, format_len;
};
static_assert(sizeof(struct trace_head) == 56, "trace.h, THE FILE");

struct trace_frame {
	le32_t what, stored, raw, crc;
};
static_assert(sizeof(struct trace_frame) == 16, "trace.h, THE FILE");

#endif
