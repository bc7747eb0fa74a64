/* SPDX-License-Identifier: MIT */
/* test_options.c - words into values, and the words of the errors. */
#include <check.h>
#include <stdlib.h>
#include <string.h>
#include "vmm/options.h"
#include "vmm/run_options.h"

START_TEST(sizes)
{
	static const struct {
		const char *text;
		uint64_t scale, bytes; /* bytes 0: an error */
	} cases[] = {
		{"1", 1, 1},
		{"1", MiB, MiB},
		{"128M", 1, 128 * MiB},
		{"128m", MiB, 128 * MiB},
		{"4k", 1, 4096},
		{"3G", MiB, 3 * GiB},
		{"2T", 1, 2 * TiB},
		{"512b", MiB, 512},
		{"16777215T", 1, 16777215 * TiB},
		{"16777216T", 1, 0},
		{"18446744073709551616", 1, 0},
		{"", 1, 0},
		{"M", 1, 0},
		{"-1", 1, 0},
		{"+1", 1, 0},
		{" 1", 1, 0},
		{"1 ", 1, 0},
		{"1MM", 1, 0},
		{"1MiB", 1, 0},
		{"0x10", 1, 0},
		{"1.5G", 1, 0},
		{"1X", 1, 0},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		uint64_t v = 0;
		int err = size_parse(cases[i].text, cases[i].scale, &v);

		ck_assert_msg(err == (cases[i].bytes ? 0 : -EINVAL), "%s", cases[i].text);
		if (!err)
			ck_assert_msg(v == cases[i].bytes, "%s", cases[i].text);
	}
}
END_TEST

#define WORDS_MAX 24

/* Parses a line for `sluice run` whose words are separated by single blanks. */
static int parse(struct run_options *o, const char *line, struct why *why)
{
	static char text[1024];
	char *argv[WORDS_MAX], *save = NULL;
	int argc = 0;

	snprintf(text, sizeof(text), "%s", line);
	for (char *w = strtok_r(text, " ", &save); w; w = strtok_r(NULL, " ", &save)) {
		ck_assert_int_lt(argc, WORDS_MAX);
		argv[argc++] = w;
	}
	*why = (struct why){{0}};
	return run_options_parse(o, argc, argv, why);
}

START_TEST(a_full_line_is_understood)
{
	struct run_options o;
	struct drive_config d;
	struct why why;

	ck_assert_int_eq(
		parse(&o,
			"-kernel k --initrd=i -append a=b -m 1G --smp 3 -no-reboot "
			"-serial file:x -timeout=9 -stats - -drive if=virtio,file=a,,b.img,"
			"format=qcow2,cache=directsync,readonly=on,aio=threads,serial=S1,"
			"queues=2,l2-cache-size=1M,refcount-cache-size=256k",
			&why),
		0);
	ck_assert_str_eq(o.kernel, "k");
	ck_assert_str_eq(o.initrd, "i");
	ck_assert_str_eq(o.append, "a=b");
	ck_assert_uint_eq(o.mem_bytes, GiB);
	ck_assert_uint_eq(o.smp, 3);
	ck_assert(o.no_reboot);
	ck_assert_str_eq(o.serial, "file:x");
	ck_assert_uint_eq(o.timeout_s, 9);
	ck_assert_str_eq(o.stats, "-");
	ck_assert_uint_eq(o.n_drives, 1);
	run_options_drive(&o, o.drives[0], &d);
	ck_assert_str_eq(d.disk.path, "a,b.img");
	ck_assert_str_eq(d.disk.format, "qcow2");
	ck_assert_int_eq(d.disk.cache, CACHE_DIRECTSYNC);
	ck_assert(d.disk.readonly);
	ck_assert_int_eq(d.aio, LOOP_AIO_THREADS);
	ck_assert_str_eq(d.serial, "S1");
	ck_assert_uint_eq(d.queues, 2);
	ck_assert_uint_eq(d.disk.l2_cache_bytes, MiB);
	ck_assert_uint_eq(d.disk.refcount_cache_bytes, 256 * KiB);
	run_options_free(&o);
}
END_TEST

START_TEST(defaults)
{
	struct run_options o;
	struct drive_config d;
	struct why why;

	ck_assert_int_eq(parse(&o, "-kernel k -drive file=a", &why), 0);
	ck_assert_uint_eq(o.mem_bytes, 128 * MiB);
	ck_assert_uint_eq(o.smp, 1);
	ck_assert_str_eq(o.serial, "stdio");
	ck_assert_str_eq(o.append, "");
	ck_assert(!o.no_reboot && !o.stats && !o.initrd && !o.timeout_s);
	run_options_drive(&o, o.drives[0], &d);
	ck_assert_ptr_null(d.disk.format);
	ck_assert_int_eq(d.disk.cache, CACHE_WRITEBACK);
	ck_assert(!d.disk.readonly);
	ck_assert_int_eq(d.aio, LOOP_AIO_AUTO);
	run_options_free(&o);
}
END_TEST

START_TEST(a_bare_memory_size_is_in_mib)
{
	struct run_options o;
	struct why why;

	ck_assert_int_eq(parse(&o, "-kernel k -m 512", &why), 0);
	ck_assert_uint_eq(o.mem_bytes, 512 * MiB);
	run_options_free(&o);
}
END_TEST

/* Each line is wrong, and the error has these words. */
static const struct {
	const char *line, *words;
} wrong[] = {
	{"", "-kernel"},
	{"-m 128M", "-kernel"},
	{"-kernel", "-kernel needs a value"},
	{"-kernel k word", "'word'"},
	{"-kernel k -", "'-'"},
	{"-kernel k -kernel l", "twice"},
	{"-kernel k -krenel l", "'-krenel'"},
	{"-kernel k --no-such", "-no-reboot"},
	{"-kernel k -no-reboot=yes", "takes no value"},
	{"-kernel k -m lots", "-m lots: expected a size"},
	{"-kernel k -m 0", "-m 0: expected a size from 2048K"},
	{"-kernel k -m 2T", "-m 2T"},
	{"-kernel k -m 4194305b", "multiple"},
	{"-kernel k -smp 0", "-smp 0: expected a number from 1 to 255"},
	{"-kernel k -smp 256", "-smp 256"},
	{"-kernel k -smp 2x", "-smp 2x"},
	{"-kernel k -smp -1", "-smp -1"},
	{"-kernel k -timeout 0", "-timeout 0"},
	{"-kernel k -serial tcp:1", "expected stdio, null or file:PATH"},
	{"-kernel k -serial file:", "expected stdio, null or file:PATH"},
	{"-kernel k -drive", "-drive needs a value"},
	{"-kernel k -drive a.img", "'a.img': expected key=value"},
	{"-kernel k -drive format=raw", "file= is missing"},
	{"-kernel k -drive file=", "file= is missing"},
	{"-kernel k -drive file=a,file=b", "file= is given twice"},
	{"-kernel k -drive file=a,,cache=none,boss=1", "unknown key 'boss'; expected file, if"},
	{"-kernel k -drive file=a,if=scsi", "if=scsi: expected virtio"},
	{"-kernel k -drive file=a,format=vmdk", "format=vmdk: expected raw or qcow2"},
	{"-kernel k -drive file=a,cache=fast",
		"cache=fast: expected writeback, none, writethrough, directsync or unsafe"},
	{"-kernel k -drive file=a,readonly=yes", "readonly=yes: expected on or off"},
	{"-kernel k -drive file=a,aio=native", "aio=native: expected io_uring or threads"},
	{"-kernel k -drive file=a,queues=0", "queues=0: expected a number from 1"},
	{"-kernel k -drive file=a,serial=123456789012345678901", "at most 20 bytes"},
	{"-kernel k -drive file=a,l2-cache-size=1", "l2-cache-size=1: expected a size from 4K"},
	{"-kernel k -drive file=a,", "'': expected key=value"},
};

START_TEST(errors_name_the_bad_word_and_the_good_ones)
{
	struct run_options o;
	struct why why;

	ck_assert_msg(parse(&o, wrong[_i].line, &why) == -EINVAL, "%s", wrong[_i].line);
	ck_assert_msg(strstr(why.text, wrong[_i].words), "%s\n%s", wrong[_i].line, why.text);
	run_options_free(&o);
}
END_TEST

START_TEST(help_wins_over_what_follows)
{
	static const char *const words[] = {"-h", "-help", "--help"};
	struct run_options o;
	struct why why;

	for (unsigned i = 0; i < ARRAY_SIZE(words); i++) {
		char line[64];

		snprintf(line, sizeof(line), "-smp 2 %s -nonsense", words[i]);
		ck_assert_int_eq(parse(&o, line, &why), OPTIONS_HELP);
		run_options_free(&o);
	}
}
END_TEST

START_TEST(there_is_a_limit_of_drives)
{
	static char drive[] = "file=a";
	char option[] = "-drive", *argv[2 * MACHINE_DRIVES_MAX + 2];
	struct run_options o;
	struct why why = {{0}};

	for (unsigned i = 0; i <= MACHINE_DRIVES_MAX; i++) {
		argv[2 * i] = option;
		argv[2 * i + 1] = drive;
	}
	ck_assert_int_eq(run_options_parse(&o, ARRAY_SIZE(argv), argv, &why), -EINVAL);
	ck_assert_ptr_nonnull(strstr(why.text, "at most"));
	run_options_free(&o);
}
END_TEST

START_TEST(doubled_commas_belong_to_the_value)
{
	static const struct opt table[] = {
		{OPT("v", OPT_STRING, 0, "X", "value")},
		{OPT("w", OPT_STRING, sizeof(char *), "X", "value")},
		{0},
	};
	static const struct {
		const char *text, *v, *w;
	} cases[] = {
		{"v=a,,b,w=c", "a,b", "c"},
		{"v=,,,,", ",,", NULL},
		{"v=a,,,w=c", "a,", "c"},
		{"v=x=y,w=", "x=y", ""},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		const char *got[2] = {NULL, NULL};
		char text[64];

		snprintf(text, sizeof(text), "%s", cases[i].text);
		ck_assert_int_eq(options_parse_list(table, got, text, "x", NULL), 0);
		ck_assert_str_eq(got[0], cases[i].v);
		ck_assert_pstr_eq(got[1], cases[i].w);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("options");
	TCase *tc = tcase_create("options");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, sizes);
	tcase_add_test(tc, a_full_line_is_understood);
	tcase_add_test(tc, defaults);
	tcase_add_test(tc, a_bare_memory_size_is_in_mib);
	tcase_add_loop_test(tc, errors_name_the_bad_word_and_the_good_ones, 0, ARRAY_SIZE(wrong));
	tcase_add_test(tc, help_wins_over_what_follows);
	tcase_add_test(tc, there_is_a_limit_of_drives);
	tcase_add_test(tc, doubled_commas_belong_to_the_value);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
