/* SPDX-License-Identifier: MIT */
/* test_boot_pvh.c - ELF files good and bad, and what a kernel finds beside it. */
#include <check.h>
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "vmm/boot_pvh.h"

#define LOAD_AT 0x100000
#define ENTRY   (LOAD_AT + 0x10)

/* A small kernel with room for everything that the tests bend. */
struct kernel {
	Elf64_Ehdr h;
	Elf64_Phdr load, note;
	struct {
		Elf64_Nhdr n;
		char name[4];
		uint32_t desc;
	} other, xen;
	uint8_t code[64];
};

static struct kernel k;
static struct gmem mem;
static struct boot_start start;
static struct why why;

static void setup(void)
{
	k = (struct kernel){
		.h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB, EV_CURRENT},
			.e_type = ET_EXEC,
			.e_machine = EM_X86_64,
			.e_phoff = offsetof(struct kernel, load),
			.e_phentsize = sizeof(Elf64_Phdr),
			.e_phnum = 2},
		.load = {.p_type = PT_LOAD,
			.p_offset = offsetof(struct kernel, code),
			.p_paddr = LOAD_AT,
			.p_filesz = sizeof(k.code),
			.p_memsz = 8192},
		.note = {.p_type = PT_NOTE,
			.p_offset = offsetof(struct kernel, other),
			.p_filesz = 2 * sizeof(k.xen),
			.p_align = 4},
		.other = {{4, 4, 1}, "GNU", 7},
		.xen = {{4, 4, 18}, "Xen", ENTRY},
	};
	memset(k.code, 0x90, sizeof(k.code));
	ck_assert_int_eq(gmem_init(&mem, 4 * MiB, NULL), 0);
	memset(gmem_ptr(&mem, 0, 4 * MiB), 0xee, 4 * MiB);
}

static void teardown(void)
{
	gmem_fini(&mem);
}

static int load_bytes(const void *p, uint64_t size, const struct blob *initrd, const char *cmdline)
{
	struct boot_source src = {.initrd = initrd, .cmdline = cmdline};
	struct blob b;

	blob_mem(&b, "test.elf", p, size);
	src.kernel = &b;
	why = (struct why){{0}};
	return boot_pvh_load(&mem, &src, &start, &why);
}

static int load(void)
{
	return load_bytes(&k, sizeof(k), NULL, "console=ttyS0");
}

static uint64_t get(uint64_t gpa, unsigned len)
{
	uint64_t v = 0;

	memcpy(&v, gmem_ptr(&mem, gpa, len), len);
	return v;
}

START_TEST(a_kernel_is_loaded_and_its_rest_zeroed)
{
	ck_assert_int_eq(load(), 0);
	ck_assert_uint_eq(start.entry, ENTRY);
	ck_assert_mem_eq(gmem_ptr(&mem, LOAD_AT, 64), k.code, 64);
	for (unsigned i = 64; i < 8192; i++)
		ck_assert_uint_eq(get(LOAD_AT + i, 1), 0);
	ck_assert_uint_eq(get(LOAD_AT + 8192, 1), 0xee);
}
END_TEST

START_TEST(the_start_info_says_what_there_is)
{
	uint32_t si;
	uint64_t map;

	ck_assert_int_eq(load(), 0);
	si = start.start_info;
	ck_assert_uint_eq(get(si, 4), 0x336ec578);
	ck_assert_uint_eq(get(si + 4, 4), 1);
	ck_assert_uint_eq(get(si + 12, 4), 0); /* modules */
	ck_assert_str_eq(gmem_ptr(&mem, get(si + 24, 8), 32), "console=ttyS0");
	map = get(si + 40, 8);
	ck_assert_uint_eq(get(si + 48, 4), 2);
	ck_assert_uint_eq(get(map, 8), 0);
	ck_assert_uint_eq(get(map + 8, 8), 0xa0000);
	ck_assert_uint_eq(get(map + 16, 4), 1);
	ck_assert_uint_eq(get(map + 24, 8), MiB);
	ck_assert_uint_eq(get(map + 32, 8), 3 * MiB);
}
END_TEST

START_TEST(an_initrd_lies_at_the_end_of_memory)
{
	uint8_t bytes[5000];
	struct blob b;
	uint64_t mod;

	memset(bytes, 0x42, sizeof(bytes));
	blob_mem(&b, "initrd", bytes, sizeof(bytes));
	ck_assert_int_eq(load_bytes(&k, sizeof(k), &b, ""), 0);
	ck_assert_uint_eq(get(start.start_info + 12, 4), 1);
	mod = get(start.start_info + 16, 8);
	ck_assert_uint_eq(get(mod, 8), 4 * MiB - 8192);
	ck_assert_uint_eq(get(mod + 8, 8), sizeof(bytes));
	ck_assert_mem_eq(gmem_ptr(&mem, get(mod, 8), sizeof(bytes)), bytes, sizeof(bytes));
}
END_TEST

START_TEST(an_initrd_without_room_is_refused)
{
	static uint8_t bytes[3 * MiB];
	struct blob b;

	blob_mem(&b, "initrd", bytes, sizeof(bytes));
	ck_assert_int_eq(load_bytes(&k, sizeof(k), &b, ""), -ENOMEM);
	ck_assert_ptr_nonnull(strstr(why.text, "initrd: no room"));
	b.size = UINT64_MAX;
	ck_assert_int_eq(load_bytes(&k, sizeof(k), &b, ""), -ENOMEM);
	/* One byte less than up to the kernel's end. */
	b.size = 3 * MiB - 8192;
	ck_assert_int_eq(load_bytes(&k, sizeof(k), &b, ""), 0);
}
END_TEST

START_TEST(a_file_can_be_loaded_too)
{
	char path[] = "/tmp/sluice-test-XXXXXX";
	int fd = mkstemp(path);
	struct boot_source src = {.cmdline = ""};
	struct blob b;

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, &k, sizeof(k)), sizeof(k));
	ck_assert_int_eq(blob_open(&b, path, &why), 0);
	src.kernel = &b;
	ck_assert_int_eq(boot_pvh_load(&mem, &src, &start, &why), 0);
	ck_assert_mem_eq(gmem_ptr(&mem, LOAD_AT, 64), k.code, 64);
	/* It shrinks while the machine runs: the next reset says so. */
	ck_assert_int_eq(ftruncate(fd, sizeof(k) - 1), 0);
	ck_assert_int_eq(boot_pvh_load(&mem, &src, &start, &why), -ENOEXEC);
	blob_close(&b);
	close(fd);
	unlink(path);
}
END_TEST

START_TEST(thirty_two_bit_kernels_work)
{
	struct {
		Elf32_Ehdr h;
		Elf32_Phdr p[2];
		struct {
			Elf32_Nhdr n;
			char name[4];
			uint32_t desc;
		} xen;
		uint8_t code[16];
	} s = {
		.h = {.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS32, ELFDATA2LSB, EV_CURRENT},
			.e_machine = EM_386,
			.e_phoff = sizeof(Elf32_Ehdr),
			.e_phentsize = sizeof(Elf32_Phdr),
			.e_phnum = 2},
		.xen = {{4, 4, 18}, "Xen", ENTRY},
		.code = {1, 2, 3},
	};

	s.p[0] = (Elf32_Phdr){.p_type = PT_NOTE,
		.p_offset = (uint32_t)((char *)&s.xen - (char *)&s),
		.p_filesz = sizeof(s.xen)};
	s.p[1] = (Elf32_Phdr){.p_type = PT_LOAD,
		.p_offset = (uint32_t)((char *)s.code - (char *)&s),
		.p_paddr = LOAD_AT,
		.p_filesz = 16,
		.p_memsz = 16};
	ck_assert_int_eq(load_bytes(&s, sizeof(s), NULL, ""), 0);
	ck_assert_uint_eq(get(LOAD_AT, 4), 0x030201);
}
END_TEST

/* Each bends one thing; then loading fails with these words and writes nothing outside RAM. */
static void not_elf(void)
{
	k.h.e_ident[0] = 0;
}
static void big_endian(void)
{
	k.h.e_ident[EI_DATA] = ELFDATA2MSB;
}
static void arm(void)
{
	k.h.e_machine = EM_AARCH64;
}
static void wrong_class(void)
{
	k.h.e_ident[EI_CLASS] = 9;
}
static void no_note(void)
{
	k.note.p_type = PT_NULL;
}
static void other_owner(void)
{
	memcpy(k.xen.name, "Foo", 4);
}
static void odd_desc(void)
{
	k.xen.n.n_descsz = 3;
}
static void phoff_far(void)
{
	k.h.e_phoff = UINT64_MAX - 8;
}
static void phoff_end(void)
{
	k.h.e_phoff = sizeof(k) - 1;
}
static void phnum(void)
{
	k.h.e_phnum = 0xffff;
}
static void phentsize(void)
{
	k.h.e_phentsize = 8;
}
static void note_far(void)
{
	k.note.p_offset = UINT64_MAX - 4;
}
static void note_huge(void)
{
	k.note.p_filesz = UINT64_MAX;
}
static void note_over_end(void)
{
	k.note.p_filesz = sizeof(k);
}
static void namesz_huge(void)
{
	k.other.n.n_namesz = UINT32_MAX;
}
static void descsz_huge(void)
{
	k.xen.n.n_descsz = UINT32_MAX;
}
static void entry_far(void)
{
	k.xen.desc = 0xfffffff0;
}
static void file_more_than_memory(void)
{
	k.load.p_memsz = 8;
}
static void load_far(void)
{
	k.load.p_paddr = UINT64_MAX - 16;
}
static void load_over_end(void)
{
	k.load.p_paddr = 4 * MiB - 8191;
}
static void load_huge(void)
{
	k.load.p_memsz = UINT64_MAX;
}
static void load_data_missing(void)
{
	k.load.p_offset = sizeof(k) - 1;
}
static void load_data_far(void)
{
	k.load.p_offset = UINT64_MAX - 1;
}
static void load_over_boot_info(void)
{
	k.load.p_paddr = 0x8ffff;
}
static void nothing_to_load(void)
{
	k.load.p_type = PT_NULL;
}

static const struct {
	void (*bend)(void);
	const char *words;
} broken[] = {
	{not_elf, "not an ELF file, nor a bzImage; give a bzImage"},
	{big_endian, "not for x86"},
	{arm, "not for x86"},
	{wrong_class, "not for x86"},
	{no_note, "no PVH entry"},
	{other_owner, "no PVH entry"},
	{odd_desc, "no PVH entry"},
	{phoff_far, "program headers"},
	{phoff_end, "program headers"},
	{phnum, "program headers"},
	{phentsize, "program headers"},
	{note_far, "notes are out of bounds"},
	{note_huge, "notes are out of bounds"},
	{note_over_end, "notes are out of bounds"},
	{namesz_huge, "note is out of bounds"},
	{descsz_huge, "note is out of bounds"},
	{entry_far, "entry point"},
	{file_more_than_memory, "larger in the file than in memory"},
	{load_far, "does not fit"},
	{load_over_end, "does not fit"},
	{load_huge, "does not fit"},
	{load_data_missing, "ends after the file"},
	{load_data_far, "ends after the file"},
	{load_over_boot_info, "boot information"},
	{nothing_to_load, "nothing to load"},
};

START_TEST(broken_files_are_refused_in_words)
{
	int err;

	broken[_i].bend();
	err = load();
	ck_assert_msg(err < 0, "%s", broken[_i].words);
	ck_assert_msg(strstr(why.text, broken[_i].words), "%s", why.text);
	ck_assert_msg(!strncmp(why.text, "test.elf: ", 10), "%s", why.text);
}
END_TEST

START_TEST(every_shorter_file_is_refused)
{
	for (size_t n = 0; n < sizeof(k); n++) {
		/* Exactly as long, so that the sanitizer sees a read past the end. */
		uint8_t *copy = malloc(n + !n);

		memcpy(copy, &k, n);
		ck_assert_int_eq(load_bytes(copy, n, NULL, ""), -ENOEXEC);
		free(copy);
	}
}
END_TEST

START_TEST(any_bytes_are_survived)
{
	unsigned seed = 1;

	for (int i = 0; i < 50000; i++) {
		struct kernel good = k;
		uint8_t *p = (uint8_t *)&k;

		for (int j = 0; j < 3; j++) {
			seed = seed * 1664525 + 1013904223;
			p[(seed >> 8) % offsetof(struct kernel, code)] = (uint8_t)(seed >> 24);
		}
		if (load() == 0)
			ck_assert_ptr_nonnull(gmem_ptr(&mem, start.entry, 1));
		else
			ck_assert_str_ne(why.text, "");
		k = good;
	}
}
END_TEST

START_TEST(the_command_line_has_a_limit)
{
	static char line[BOOT_CMDLINE_MAX + 2];

	memset(line, 'x', BOOT_CMDLINE_MAX);
	ck_assert_int_eq(load_bytes(&k, sizeof(k), NULL, line), 0);
	ck_assert_str_eq(gmem_ptr(&mem, get(start.start_info + 24, 8), sizeof(line)), line);
	line[BOOT_CMDLINE_MAX] = 'x';
	ck_assert_int_eq(load_bytes(&k, sizeof(k), NULL, line), -E2BIG);
}
END_TEST

START_TEST(what_is_not_a_file_is_refused)
{
	struct blob b = {0};

	ck_assert_int_eq(blob_open(&b, "/nonexistent", &why), -ENOENT);
	ck_assert_str_eq(why.text, "/nonexistent: No such file or directory");
	why = (struct why){{0}};
	ck_assert_int_eq(blob_open(&b, "/", &why), -EISDIR);
	why = (struct why){{0}};
	ck_assert_int_eq(blob_open(&b, "/dev/null", &why), -EINVAL);
	blob_close(&b);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("boot_pvh");
	TCase *tc = tcase_create("boot_pvh");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_set_timeout(tc, 60);
	tcase_add_test(tc, a_kernel_is_loaded_and_its_rest_zeroed);
	tcase_add_test(tc, the_start_info_says_what_there_is);
	tcase_add_test(tc, an_initrd_lies_at_the_end_of_memory);
	tcase_add_test(tc, an_initrd_without_room_is_refused);
	tcase_add_test(tc, a_file_can_be_loaded_too);
	tcase_add_test(tc, thirty_two_bit_kernels_work);
	tcase_add_loop_test(tc, broken_files_are_refused_in_words, 0, ARRAY_SIZE(broken));
	tcase_add_test(tc, every_shorter_file_is_refused);
	tcase_add_test(tc, any_bytes_are_survived);
	tcase_add_test(tc, the_command_line_has_a_limit);
	tcase_add_test(tc, what_is_not_a_file_is_refused);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
