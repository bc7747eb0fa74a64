/* SPDX-License-Identifier: MIT */
/*
 * codec.h - one cluster, compressed and back, in the two ways that qcow2 knows.
 *
 * Nothing of an image is touched here, so that it may run in any thread.
 */
#ifndef QCOW2_CODEC_H
#define QCOW2_CODEC_H

#include "vmm/util/base.h"

enum codec { CODEC_ZLIB, CODEC_ZSTD }; /* as the header's compression_type numbers them */

/* in becomes at most room bytes of out; *got of them.  -ENOSPC: it does not fit; -ENOMEM. */
must_check int codec_pack(enum codec c, const uint8_t *in, uint64_t len, uint8_t *out,
	uint64_t room, uint64_t *got);
/*
 * in (what follows the compressed data is ignored) becomes exactly len bytes of out.  -EIO: it does
 * not; -ENOMEM.  Takes a few MiB at most, whatever the data claims.
 */
must_check int codec_unpack(
	enum codec c, const uint8_t *in, uint64_t in_len, uint8_t *out, uint64_t len);

#endif
