/* SPDX-License-Identifier: MIT */
/*
 * codec.c - see codec.h.
 *
 * zlib: raw deflate (RFC 1951), written with a window of 2^12 bytes, read with any.
 * zstd: one or more whole frames (RFC 8878).
 *
 * Source: qcow2 specification, "Compression type".
 */
#include <zlib.h>
#include <zstd.h>
#include "blockdev/qcow2/codec.h"

#define DEFLATE_WINDOW (-12) /* negative: no header.  Old readers hold no larger window. */
#define DEFLATE_MEM    9
/* RFC 8878 wants of every reader that it takes 8 MiB; more is memory for an attacker. */
#define ZSTD_WINDOW_LOG_MAX 23

static int zlib_pack(
	const uint8_t *in, uint64_t len, uint8_t *out, uint64_t room, uint64_t *got)
{
	z_stream z = {.next_in = (uint8_t *)(uintptr_t)in,
		.avail_in = (uInt)len,
		.next_out = out,
		.avail_out = (uInt)room};
	int st = deflateInit2(&z, Z_DEFAULT_COMPRESSION, Z_DEFLATED, DEFLATE_WINDOW, DEFLATE_MEM,
		Z_DEFAULT_STRATEGY);

	if (st != Z_OK)
		return -ENOMEM;
	st = deflate(&z, Z_FINISH);
	*got = room - z.avail_out;
	deflateEnd(&z);
	return st == Z_STREAM_END ? 0 : -ENOSPC;
}

static int zlib_unpack(const uint8_t *in, uint64_t in_len, uint8_t *out, uint64_t len)
{
	z_stream z = {.next_in = (uint8_t *)(uintptr_t)in,
		.avail_in = (uInt)in_len,
		.next_out = out,
		.avail_out = (uInt)len};

	if (inflateInit2(&z, -MAX_WBITS) != Z_OK)
		return -ENOMEM;
	/* Once the cluster is full, the end mark need not come. */
	(void)inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return z.avail_out ? -EIO : 0;
}

static int zstd_pack(
	const uint8_t *in, uint64_t len, uint8_t *out, uint64_t room, uint64_t *got)
{
	size_t n = ZSTD_compress(out, room, in, len, ZSTD_CLEVEL_DEFAULT);

	*got = n;
	return ZSTD_isError(n) ? -ENOSPC : 0;
}

static int zstd_unpack(const uint8_t *in, uint64_t in_len, uint8_t *out, uint64_t len)
{
	ZSTD_inBuffer src = {in, in_len, 0};
	ZSTD_outBuffer dst = {out, len, 0};
	ZSTD_DCtx *d = ZSTD_createDCtx();
	size_t left = 1;

	if (!d)
		return -ENOMEM;
	if (ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX)))
		left = 0;
	/* A cluster may be several frames; each step must move something. */
	while (left && dst.pos < dst.size) {
		size_t in_before = src.pos, out_before = dst.pos;

		left = ZSTD_decompressStream(d, &dst, &src);
		if (ZSTD_isError(left) || (src.pos == in_before && dst.pos == out_before))
			break;
		left = 1;
	}
	ZSTD_freeDCtx(d);
	return dst.pos == dst.size ? 0 : -EIO;
}

int codec_pack(enum codec c, const uint8_t *in, uint64_t len, uint8_t *out, uint64_t room,
	uint64_t *got)
{
	return c == CODEC_ZSTD ? zstd_pack(in, len, out, room, got)
			       : zlib_pack(in, len, out, room, got);
}

int codec_unpack(enum codec c, const uint8_t *in, uint64_t in_len, uint8_t *out, uint64_t len)
{
	return c == CODEC_ZSTD ? zstd_unpack(in, in_len, out, len)
			       : zlib_unpack(in, in_len, out, len);
}
