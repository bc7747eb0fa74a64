/* SPDX-License-Identifier: MIT */
/*
 * test_boot_linux.c - bzImages good and bad, and what a kernel finds beside it.
 */
#include <check.h>
#include <string.h>
#include "vmm/boot_linux.h"
#include "vmm/util/bytes.h"

#define SETUP_BYTES (5 * 512)
#define MEM	    (32 * MiB)

static uint8_t image[SETUP_BYTES + 8192];
static struct gmem mem;
static struct boot_start start;
static struct why why;

static void setup(void)
{
	memset(image, 0x90, sizeof(image));
	memset(image, 0, SETUP_BYTES);
	image[0x1f1] = 4;
	image[0x201] = 0x6a;
	memcpy(image + 0x202, "HdrS", 4);
	le_put(image + 0x206, 0x20f, 2);
	image[0x211] = 1;
	le_put(image + 0x22c, 0x7fffffff, 4);
	image[0x234] = 1;
	image[0x236] = 1;
	le_put(image + 0x238, 2047, 4);
	le_put(image + 0x258, 16 * MiB, 8);
	le_put(image + 0x260, 4 * MiB, 4);
	ck_assert_int_eq(gmem_init(&mem, MEM, NULL), 0);
}

static void teardown(void)
{
	gmem_fini(&mem);
}

static int load_with(uint64_t size, const struct blob *initrd, const char *cmdline)
{
	struct boot_source src = {.initrd = initrd, .cmdline = cmdline, .rsdp = 0xe0000};
	struct blob b;

	blob_mem(&b, "vmlinuz", image, size);
	src.kernel = &b;
	why = (struct why){{0}};
	return boot_linux_load(&mem, &src, &start, &why);
}

static uint64_t get(uint64_t gpa, unsigned bytes)
{
	return le_get(gmem_ptr(&mem, gpa, bytes), bytes);
}

START_TEST(a_kernel_lies_where_it_prefers)
{
	uint64_t at = start.entry;

	ck_assert_int_eq(load_with(sizeof(image), NULL, "quiet"), 0);
	at = 16 * MiB;
	ck_assert_int_eq(start.mode, BOOT_LINUX64);
	ck_assert_uint_eq(start.entry, at + 0x200);
	ck_assert_mem_eq(gmem_ptr(&mem, at, 8192), image + SETUP_BYTES, 8192);
	ck_assert_uint_eq(get(at + 8192, 1), 0);
}
END_TEST

START_TEST(the_boot_parameters_say_what_there_is)
{
	uint64_t p;

	ck_assert_int_eq(load_with(sizeof(image), NULL, "quiet"), 0);
	p = start.start_info;
	ck_assert_mem_eq(gmem_ptr(&mem, p + 0x202, 4), "HdrS", 4);
	ck_assert_str_eq(gmem_ptr(&mem, get(p + 0x228, 4), 6), "quiet");
	ck_assert_uint_eq(get(p + 0x70, 8), 0xe0000);
	ck_assert_uint_eq(get(p + 0x210, 1), 0xff);
	ck_assert_uint_eq(get(p + 0x1e8, 1), 2);
	ck_assert_uint_eq(get(p + 0x2d0 + 8, 8), 0xa0000);
	ck_assert_uint_eq(get(p + 0x2d0 + 20, 8), MiB);
	ck_assert_uint_eq(get(p + 0x2d0 + 28, 8), MEM - MiB);
	ck_assert_uint_eq(get(p + 0x2d0 + 36, 4), 1);
	ck_assert_uint_eq(get(p + 0x21c, 4), 0);
}
END_TEST

START_TEST(the_low_memory_is_mapped_to_itself)
{
	static const uint64_t addrs[] = {0, 2 * MiB, 16 * MiB + 0x200, GiB, 4 * GiB - 1};
	uint64_t a, e;

	ck_assert_int_eq(load_with(sizeof(image), NULL, ""), 0);
	for (unsigned i = 0; i < ARRAY_SIZE(addrs); i++) {
		a = addrs[i];
		e = get(BOOT_PAGES + 8 * (a >> 39), 8);
		ck_assert_uint_eq(e & 0xfff, 3);
		e = get((e & ~0xfffULL) + 8 * (a >> 30 & 511), 8);
		ck_assert_uint_eq(e & 0xfff, 3);
		e = get((e & ~0xfffULL) + 8 * (a >> 21 & 511), 8);
		ck_assert_uint_eq(e, (a & ~(2 * MiB - 1)) | 0x83);
	}
}
END_TEST

START_TEST(an_old_kernel_starts_in_32_bits)
{
	image[0x236] = 0;
	ck_assert_int_eq(load_with(sizeof(image), NULL, ""), 0);
	ck_assert_int_eq(start.mode, BOOT_LINUX32);
	ck_assert_uint_eq(start.entry, 16 * MiB);
	le_put(image + 0x206, 0x208, 2); /* no preferred address yet */
	ck_assert_int_eq(load_with(sizeof(image), NULL, ""), 0);
	ck_assert_uint_eq(start.entry, MiB);
}
END_TEST

START_TEST(an_initrd_ends_where_the_kernel_wants)
{
	static uint8_t bytes[5000];
	struct blob b;
	uint64_t at;

	memset(bytes, 0x42, sizeof(bytes));
	blob_mem(&b, "initrd", bytes, sizeof(bytes));
	ck_assert_int_eq(load_with(sizeof(image), &b, ""), 0);
	at = get(start.start_info + 0x218, 4);
	ck_assert_uint_eq(at, MEM - 8192);
	ck_assert_uint_eq(get(start.start_info + 0x21c, 4), sizeof(bytes));
	ck_assert_mem_eq(gmem_ptr(&mem, at, sizeof(bytes)), bytes, sizeof(bytes));
	le_put(image + 0x22c, 24 * MiB - 1, 4);
	ck_assert_int_eq(load_with(sizeof(image), &b, ""), 0);
	ck_assert_uint_eq(get(start.start_info + 0x218, 4), 24 * MiB - 8192);
	le_put(image + 0x22c, 18 * MiB, 4); /* inside the kernel's own room */
	ck_assert_int_eq(load_with(sizeof(image), &b, ""), -ENOMEM);
}
END_TEST

static const struct {
	unsigned at, bytes;
	uint64_t value;
	int err;
	const char *words;
} bent[] = {
	{0x202, 4, 0, -ENOEXEC, "not a Linux kernel"},
	{0x206, 2, 0x200, -ENOEXEC, "older than"},
	{0x211, 1, 0, -ENOEXEC, "older than"},
	{0x1f1, 1, 255, -ENOEXEC, "ends in its setup code"},
	{0x258, 8, 4 * GiB, -ENOMEM, "use a larger -m"},
	{0x258, 8, UINT64_MAX & ~4095ULL, -ENOMEM, "use a larger -m"},
	{0x258, 8, 16 * MiB + 1, -ENOEXEC, "where no kernel can"},
	{0x258, 8, 0, -ENOEXEC, "where no kernel can"},
	{0x260, 4, 0xffffffff, -ENOMEM, "use a larger -m"},
	{0x238, 4, 3, -E2BIG, "at most"},
};

START_TEST(a_bad_kernel_is_refused_with_words)
{
	le_put(image + bent[_i].at, bent[_i].value, bent[_i].bytes);
	ck_assert_int_eq(load_with(sizeof(image), NULL, "root=/dev/vda"), bent[_i].err);
	ck_assert_msg(strstr(why.text, bent[_i].words), "%s", why.text);
}
END_TEST

START_TEST(a_cut_file_is_refused)
{
	for (uint64_t n = 0; n <= SETUP_BYTES; n += 101)
		ck_assert_int_eq(load_with(n, NULL, ""), -ENOEXEC);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("boot_linux");
	TCase *tc = tcase_create("boot_linux");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, a_kernel_lies_where_it_prefers);
	tcase_add_test(tc, the_boot_parameters_say_what_there_is);
	tcase_add_test(tc, the_low_memory_is_mapped_to_itself);
	tcase_add_test(tc, an_old_kernel_starts_in_32_bits);
	tcase_add_test(tc, an_initrd_ends_where_the_kernel_wants);
	tcase_add_loop_test(tc, a_bad_kernel_is_refused_with_words, 0, ARRAY_SIZE(bent));
	tcase_add_test(tc, a_cut_file_is_refused);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
