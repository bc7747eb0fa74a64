/* SPDX-License-Identifier: MIT */
/*
 * test_qcow2_header.c - what the header may say, and what it is refused for.
 */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "tests/support/damaged.h"

static struct loop *loop;
static struct cutfile m;
static struct damaged d;

static void setup(void)
{
	const struct qcow2_create_opts o = {.size = 64 * MiB};

	ck_assert_int_eq(loop_new(LOOP_AIO_THREADS, &loop), 0);
	damaged_init(&d, &m, loop, &o);
}

static void teardown(void)
{
	cutfile_free(&m);
	loop_free(loop);
}

struct args {
	struct qcow2_header h;
	struct why why;
};

static int read_fiber(void *arg)
{
	struct args *a = arg;

	return qcow2_header_read(&m.file, &a->h, &a->why);
}

static int write_fiber(void *arg)
{
	struct args *a = arg;

	return qcow2_header_write(&m.file, &a->h);
}

static int read_header(struct args *a)
{
	memset(a, 0, sizeof(*a));
	return fiber_run(loop, read_fiber, a);
}

START_TEST(a_new_image_reads_back)
{
	struct args a;

	ck_assert_int_eq(read_header(&a), 0);
	ck_assert_uint_eq(a.h.version, 3);
	ck_assert_uint_eq(a.h.cluster_size, 65536);
	ck_assert_uint_eq(a.h.size, 64 * MiB);
	ck_assert_uint_eq(a.h.l1_size, 1);
	ck_assert_uint_eq(a.h.refcount_bits, 16);
	ck_assert_str_eq(a.h.unknown_features, "");
	ck_assert_int_eq(qcow2_header_supported(&a.h, true, NULL), 0);
}
END_TEST

struct bad {
	uint64_t off;
	int bytes; /* 4 or 8 */
	uint64_t value;
	int err;
	const char *words;
};

static const struct bad bads[] = {
	{0, 4, 0x58585858, -EMEDIUMTYPE, "Image is not in qcow2 format"},
	{4, 4, 1, -ENOTSUP, "Unsupported qcow2 version 1"},
	{4, 4, 4, -ENOTSUP, "Unsupported qcow2 version 4"},
	{20, 4, 8, -EINVAL, "Unsupported cluster size: 2^8"},
	{20, 4, 22, -EINVAL, "Unsupported cluster size: 2^22"},
	{20, 4, 0xffffffff, -EINVAL, "Unsupported cluster size: 2^4294967295"},
	{100, 4, 96, -EINVAL, "qcow2 header too short"},
	{100, 4, 65544, -EINVAL, "qcow2 header exceeds cluster size"},
	{8, 8, 70000, -EINVAL, "Invalid backing file offset"},
	{8, 8, UINT64_MAX, -EINVAL, "Invalid backing file offset"},
	{96, 4, 7, -EINVAL, "Reference count entry width too large; may not exceed 64 bits"},
	{32, 4, 3, -EINVAL, "Unsupported encryption method 3"},
	{56, 4, 129, -EFBIG, "Reference count table too large"},
	{56, 4, 0xffffffff, -EFBIG, "Reference count table too large"},
	{48, 8, 512, -EINVAL, "Reference count table offset invalid"},
	{48, 8, 0xffffffffffff0000, -EINVAL, "Reference count table offset invalid"},
	{48, 8, 0, -EINVAL, "Reference count table offset invalid"},
	{36, 4, 5000000, -EFBIG, "Active L1 table too large"},
	{36, 4, 0, -EINVAL, "L1 table is too small"},
	{40, 8, 5, -EINVAL, "Active L1 table offset invalid"},
	{40, 8, 0, -EINVAL, "Active L1 table offset invalid"},
	{24, 8, 1ULL << 62, -EFBIG, "Image is too big"},
	{24, 8, UINT64_MAX, -EFBIG, "Image is too big"},
	{60, 4, 70000, -EFBIG, "Snapshot table too large"},
	{104, 4, 0x01000000, -EINVAL,
		"qcow2: Compression type incompatible feature bit must be set"},
	{72, 8, 8, -EINVAL, "qcow2: Compression type incompatible feature bit must not be set"},
	{116, 4, 65536, -EINVAL, "Header extension too large"},
	{116, 4, 0xffffffff, -EINVAL, "Header extension too large"},
};

START_TEST(a_broken_field_is_refused_in_words)
{
	const struct bad *b = &bads[_i];
	struct args a;

	if (b->bytes == 4)
		mem_set_be32(&m, b->off, (uint32_t)b->value);
	else
		mem_set_be64(&m, b->off, b->value);
	ck_assert_int_eq(read_header(&a), b->err);
	ck_assert_str_eq(a.why.text, b->words);
}
END_TEST

START_TEST(a_file_that_is_cut_short_is_refused)
{
	struct args a;

	for (uint64_t n = 0; n < 72; n++) {
		struct cutfile whole;

		cutfile_copy(&whole, &m);
		mem_resize(&m, n);
		ck_assert_int_eq(read_header(&a), n < 4 ? -EMEDIUMTYPE : -EINVAL);
		cutfile_free(&m);
		cutfile_copy(&m, &whole);
		cutfile_free(&whole);
	}
}
END_TEST

/* Extensions follow each other from byte 112: type, length, text padded to 8 bytes. */
START_TEST(the_last_backing_format_counts)
{
	struct args a;

	mem_set_be32(&m, 112, 0xe2792aca);
	mem_set_be32(&m, 116, 5);
	memcpy(m.data + 120, "qcow2", 5);
	mem_set_be32(&m, 128, 0xe2792aca);
	mem_set_be32(&m, 132, 3);
	memcpy(m.data + 136, "raw\0\0\0\0", 8);
	mem_set_be64(&m, 144, 0);
	ck_assert_int_eq(read_header(&a), 0);
	ck_assert_str_eq(a.h.backing_format, "raw");
}
END_TEST

/* Any byte of the first 512 may be anything: reading ends, and ends inside its buffers. */
START_TEST(no_value_of_a_byte_harms)
{
	struct args a;

	for (uint64_t off = 0; off < 512; off++) {
		uint8_t was = m.data[off];

		for (unsigned v = 0; v < 256; v += off < 128 ? 1 : 17) {
			m.data[off] = (uint8_t)v;
			if (read_header(&a) == 0 && a.h.l1_size * 8ULL > QCOW2_L1_BYTES_MAX)
				ck_abort_msg("accepted");
		}
		m.data[off] = was;
	}
}
END_TEST

START_TEST(an_unknown_feature_is_called_by_its_name)
{
	struct args a;

	mem_set_be64(&m, 72, 1ULL << 40);
	ck_assert_int_eq(read_header(&a), 0);
	ck_assert_str_eq(a.h.unknown_features, "Unknown incompatible feature: 10000000000");
	/* The image's own table knows better: its first entry becomes bit 40, incompatible. */
	m.data[120] = 0;
	m.data[121] = 40;
	memcpy(m.data + 122, "warp drive\x1b[2J", 15);
	ck_assert_int_eq(read_header(&a), 0);
	ck_assert_str_eq(a.h.unknown_features, "warp drive?[2J");
	ck_assert_int_eq(qcow2_header_supported(&a.h, false, &a.why), -ENOTSUP);
	ck_assert_str_eq(a.why.text, "Unsupported qcow2 feature(s): warp drive?[2J");
	mem_set_be64(&m, 72, 1ULL << 40 | 1ULL << 63);
	ck_assert_int_eq(read_header(&a), 0);
	ck_assert_str_eq(a.h.unknown_features,
		"warp drive?[2J, Unknown incompatible feature: 8000000000000000");
}
END_TEST

START_TEST(what_cannot_be_opened_is_refused_by_name)
{
	struct args a;

	ck_assert_int_eq(read_header(&a), 0);
	a.h.crypt_method = 2;
	ck_assert_int_eq(qcow2_header_supported(&a.h, false, &a.why), -ENOTSUP);
}
END_TEST

START_TEST(what_cannot_be_written_can_be_read)
{
	struct args a;

	ck_assert_int_eq(read_header(&a), 0);
	a.h.incompatible = QCOW2_INCOMPAT_CORRUPT;
	ck_assert_int_eq(qcow2_header_supported(&a.h, false, NULL), 0);
	ck_assert_int_eq(qcow2_header_supported(&a.h, true, NULL), -EACCES);
	a.h.incompatible = 0;
	a.h.reftable_clusters = 0;
	ck_assert_int_eq(qcow2_header_supported(&a.h, true, NULL), -EINVAL);
}
END_TEST

START_TEST(writing_touches_one_sector_and_keeps_the_rest)
{
	uint8_t before[65536];
	struct args a;

	memcpy(before, m.data, sizeof(before));
	ck_assert_int_eq(read_header(&a), 0);
	a.h.incompatible = QCOW2_INCOMPAT_DIRTY;
	a.h.reftable_offset = 9 * 65536;
	cutfile_log(&m);
	ck_assert_int_eq(fiber_run(loop, write_fiber, &a), 0);
	ck_assert_uint_eq(m.n_log, 1);
	ck_assert_uint_eq(m.log[0].off, 0);
	ck_assert_uint_eq(m.log[0].len, 512);
	ck_assert_uint_eq(mem_be64(&m, 72), QCOW2_INCOMPAT_DIRTY);
	ck_assert_uint_eq(mem_be64(&m, 48), 9 * 65536);
	mem_set_be64(&m, 72, 0);
	mem_set_be64(&m, 48, 65536);
	ck_assert_mem_eq(before, m.data, sizeof(before));
}
END_TEST

START_TEST(counts_of_every_width)
{
	static const uint8_t bit_order[1] = {
		0x05}; /* counts 0 and 2 of one bit: least significant first */
	uint8_t block[512];
	uint32_t order = (uint32_t)_i, n = 4096u >> order;
	uint64_t max = order == 6 ? UINT64_MAX : (1ULL << (1u << order)) - 1;

	memset(block, 0, sizeof(block));
	for (uint32_t i = 0; i < n; i++)
		qcow2_refcount_set(block, i, order, max - (i % 3 && order ? 1 : 0));
	for (uint32_t i = 0; i < n; i++)
		if (qcow2_refcount_get(block, i, order) != max - (i % 3 && order ? 1 : 0))
			ck_abort_msg("count %u", i);
	qcow2_refcount_set(block, 1, order, 0);
	ck_assert_uint_eq(qcow2_refcount_get(block, 0, order), max);
	ck_assert_uint_eq(qcow2_refcount_get(block, 1, order), 0);
	ck_assert_uint_ne(qcow2_refcount_get(block, 2, order), 0);
	ck_assert_uint_eq(qcow2_refcount_get(bit_order, 0, 0), 1);
	ck_assert_uint_eq(qcow2_refcount_get(bit_order, 1, 0), 0);
	ck_assert_uint_eq(qcow2_refcount_get(bit_order, 2, 0), 1);
}
END_TEST

START_TEST(l1_entries_for_a_size)
{
	struct qcow2_header h = {.cluster_size = 65536};

	ck_assert_uint_eq(qcow2_l1_needed(&h, 0), 0);
	ck_assert_uint_eq(qcow2_l1_needed(&h, 1), 1);
	ck_assert_uint_eq(qcow2_l1_needed(&h, 512 * MiB), 1);
	ck_assert_uint_eq(qcow2_l1_needed(&h, 512 * MiB + 1), 2);
	h.incompatible = QCOW2_INCOMPAT_EXTL2;
	ck_assert_uint_eq(qcow2_l1_needed(&h, 256 * MiB + 1), 2);
	h = (struct qcow2_header){.cluster_size = 512};
	ck_assert_uint_eq(qcow2_l1_needed(&h, UINT64_MAX), 1ULL << 49);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("qcow2 header");
	TCase *t = tcase_create("header");
	SRunner *r;
	int failed;

	tcase_add_checked_fixture(t, setup, teardown);
	tcase_set_timeout(t, 60);
	tcase_add_test(t, a_new_image_reads_back);
	tcase_add_loop_test(t, a_broken_field_is_refused_in_words, 0, (int)ARRAY_SIZE(bads));
	tcase_add_test(t, a_file_that_is_cut_short_is_refused);
	tcase_add_test(t, the_last_backing_format_counts);
	tcase_add_test(t, no_value_of_a_byte_harms);
	tcase_add_test(t, an_unknown_feature_is_called_by_its_name);
	tcase_add_test(t, what_cannot_be_opened_is_refused_by_name);
	tcase_add_test(t, what_cannot_be_written_can_be_read);
	tcase_add_test(t, writing_touches_one_sector_and_keeps_the_rest);
	tcase_add_loop_test(t, counts_of_every_width, 0, 7);
	tcase_add_test(t, l1_entries_for_a_size);
	suite_add_tcase(s, t);
	r = srunner_create(s);
	srunner_run_all(r, CK_NORMAL);
	failed = srunner_ntests_failed(r);
	srunner_free(r);
	return failed ? 1 : 0;
}
