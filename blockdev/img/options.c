/* SPDX-License-Identifier: MIT */
/*
 * options.c - reading, telling and checking -o options; see options.h.
 *
 * Adding one: a row of opts[] (its place is where "Formatting ..." tells it).
 */
#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/img/options.h"

#define SIZE_HINT                                                                                  \
	"\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\n"           \
	"and exabytes, respectively."

enum opt_type { STR, BOOL, NUM, SIZE };

/* Whose options these are: a format's own, for creation or amendment, or the host file's. */
#define QCOW2  1u
#define RAW    2u
#define FILE_  4u
#define AMEND  8u

static const char *const type_names[] = {"<str>", "<bool (on/off)>", "<num>", "<size>"};

static const struct {
	const char *name;
	enum opt_type type;
	unsigned of;
	const char *help;
} opts[N_IMG_OPTS] = {
	[OPT_ENCRYPTION] = {"encryption", BOOL, QCOW2,
		"Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
	[OPT_ENCRYPT_FORMAT] = {"encrypt.format", STR, QCOW2,
		"Encrypt the image, format choices: 'aes', 'luks'"},
	[OPT_ENCRYPT_SECRET] = {"encrypt.key-secret", STR, QCOW2,
		"ID of secret providing qcow AES key or LUKS passphrase"},
	[OPT_ENCRYPT_CIPHER_ALG] = {"encrypt.cipher-alg", STR, QCOW2,
		"Name of encryption cipher algorithm"},
	[OPT_ENCRYPT_CIPHER_MODE] = {"encrypt.cipher-mode", STR, QCOW2,
		"Name of encryption cipher mode"},
	[OPT_ENCRYPT_IVGEN_ALG] = {"encrypt.ivgen-alg", STR, QCOW2,
		"Name of IV generator algorithm"},
	[OPT_ENCRYPT_IVGEN_HASH] = {"encrypt.ivgen-hash-alg", STR, QCOW2,
		"Name of IV generator hash algorithm"},
	[OPT_ENCRYPT_HASH] = {"encrypt.hash-alg", STR, QCOW2, "Name of encryption hash algorithm"},
	[OPT_ENCRYPT_ITER] = {"encrypt.iter-time", NUM, QCOW2 | AMEND,
		"Time to spend in PBKDF in milliseconds"},
	[OPT_ENCRYPT_KEYSLOT] = {"encrypt.keyslot", NUM, AMEND,
		"Select a single keyslot to modify explicitly"},
	[OPT_ENCRYPT_NEW_SECRET] = {"encrypt.new-secret", STR, AMEND,
		"New secret to set in the matching keyslots. Empty string to erase"},
	[OPT_ENCRYPT_OLD_SECRET] = {"encrypt.old-secret", STR, AMEND,
		"Select all keyslots that match this password"},
	[OPT_ENCRYPT_STATE] = {"encrypt.state", STR, AMEND,
		"Select new state of affected keyslots (active/inactive)"},
	[OPT_CLUSTER_SIZE] = {"cluster_size", SIZE, QCOW2, "qcow2 cluster size"},
	[OPT_EXTENDED_L2] = {"extended_l2", BOOL, QCOW2, "Extended L2 tables"},
	[OPT_QCOW2_PREALLOC] = {"preallocation", STR, QCOW2,
		"Preallocation mode (allowed values: off, metadata, falloc, full)"},
	[OPT_COMPRESSION] = {"compression_type", STR, QCOW2,
		"Compression method used for image cluster compression"},
	[OPT_SIZE] = {"size", SIZE, QCOW2 | RAW | AMEND, "Virtual disk size"},
	[OPT_COMPAT] = {"compat", STR, QCOW2 | AMEND,
		"Compatibility level (v2 [0.10] or v3 [1.1])"},
	[OPT_BACKING_FILE] = {"backing_file", STR, QCOW2 | AMEND, "File name of a base image"},
	[OPT_BACKING_FMT] = {"backing_fmt", STR, QCOW2 | AMEND, "Image format of the base image"},
	[OPT_DATA_FILE] = {"data_file", STR, QCOW2 | AMEND, "File name of an external data file"},
	[OPT_DATA_FILE_RAW] = {"data_file_raw", BOOL, QCOW2 | AMEND,
		"The external data file must stay valid as a raw image"},
	[OPT_LAZY] = {"lazy_refcounts", BOOL, QCOW2 | AMEND, "Postpone refcount updates"},
	[OPT_REFCOUNT_BITS] = {"refcount_bits", NUM, QCOW2 | AMEND,
		"Width of a reference count entry in bits"},
	[OPT_NOCOW] = {"nocow", BOOL, FILE_, "Turn off copy-on-write (valid only on btrfs)"},
	[OPT_RAW_PREALLOC] = {"preallocation", STR, RAW | FILE_,
		"Preallocation mode (allowed values: off, falloc, full)"},
	[OPT_EXTENT_HINT] = {"extent_size_hint", SIZE, FILE_,
		"Extent size hint for the image file, 0 to disable"},
};

/* ---- lists ---- */

int img_opts_join(char **all, const char *list)
{
	size_t had = *all ? strlen(*all) + 1 : 0, len = strlen(list);
	char *both;

	if (!len || list[0] == ',' || list[len - 1] == ',') {
		log_error("Invalid option list: %s", list);
		return -EINVAL;
	}
	both = malloc(had + len + 1);
	if (!both) {
		log_error("%s", strerror(ENOMEM));
		return -ENOMEM;
	}
	if (had)
		snprintf(both, had + 1, "%s,", *all);
	memcpy(both + had, list, len + 1);
	free(*all);
	*all = both;
	return 0;
}

/* Copies up to an unescaped comma into out (as long as text); returns what follows it. */
static const char *cut_value(const char *text, char *out)
{
	while (*text) {
		if (*text == ',') {
			if (text[1] != ',')
				return text + 1;
			text++;
		}
		*out++ = *text++;
		*out = 0;
	}
	return text;
}

/* One element: name and value in name and value, each as long as text.  Returns what follows. */
static const char *cut_option(const char *text, char *name, char *value)
{
	size_t n = strcspn(text, "=,");

	memcpy(name, text, n);
	name[n] = value[0] = 0;
	if (text[n] == '=')
		return cut_value(text + n + 1, value);
	text += n + (text[n] == ',');
	if (!strcmp(name, "help") || !strcmp(name, "?"))
		return text;
	if (!strncmp(name, "no", 2)) {
		memmove(name, name + 2, n - 1);
		strcpy(value, "off");
	} else {
		strcpy(value, "on");
	}
	return text;
}

bool img_opts_want_help(const char *all)
{
	char *word = all ? malloc(strlen(all) + 1) : NULL;
	bool want = false;

	while (word && *all && !want) {
		word[0] = 0;
		all = cut_value(all, word);
		want = !strcmp(word, "help") || !strcmp(word, "?");
	}
	free(word);
	return want;
}

/* ---- values ---- */

void img_opts_init(struct img_opts *o, const char *format, bool amend)
{
	memset(o, 0, sizeof(*o));
	o->format = format;
	o->amend = amend;
}

void img_opts_fini(struct img_opts *o)
{
	for (size_t i = 0; i < N_IMG_OPTS; i++)
		free(o->v[i].text);
	memset(o, 0, sizeof(*o));
}

static bool is_raw(const struct img_opts *o)
{
	return !strcmp(o->format, "raw");
}

static bool known(const struct img_opts *o, size_t i)
{
	if (o->amend)
		return opts[i].of & AMEND;
	if (i == OPT_RAW_PREALLOC && !is_raw(o)) /* the format's own goes first */
		return false;
	return opts[i].of & ((is_raw(o) ? RAW : QCOW2) | FILE_);
}

static int parse_bool(const char *name, const char *text, uint64_t *n, struct why *why)
{
	static const char *const yes[] = {"on", "yes", "true", "y"};
	static const char *const no[] = {"off", "no", "false", "n"};

	for (size_t i = 0; i < ARRAY_SIZE(yes); i++) {
		*n = !strcmp(text, yes[i]);
		if (*n || !strcmp(text, no[i]))
			return 0;
	}
	return why_set(why, -EINVAL, "Parameter '%s' expects 'on' or 'off'", name);
}

static int parse_number(const char *name, const char *text, uint64_t *n, struct why *why)
{
	char *end;

	errno = 0;
	*n = strtoull(text, &end, 0);
	if (errno == ERANGE)
		return why_set(why, -EINVAL, "Value '%s' is too large for parameter '%s'", text,
			name);
	if (end == text || *end)
		return why_set(why, -EINVAL, "Parameter '%s' expects a number", name);
	return 0;
}

static int parse_size(const char *name, const char *text, uint64_t *n, struct why *why)
{
	int err = img_parse_size(text, n);

	if (err == -ERANGE)
		return why_set(why, -EINVAL, "Value '%s' is out of range for parameter '%s'", text,
			name);
	if (err)
		return why_set(why, -EINVAL,
			"Parameter '%s' expects a non-negative number below 2^64" SIZE_HINT, name);
	return 0;
}

int img_opts_set(struct img_opts *o, enum img_opt which, const char *value, struct why *why)
{
	char *copy;
	int err = 0;

	if (!known(o, which))
		return -EINVAL;
	if (opts[which].type == BOOL)
		err = parse_bool(opts[which].name, value, &o->v[which].n, why);
	else if (opts[which].type == NUM)
		err = parse_number(opts[which].name, value, &o->v[which].n, why);
	else if (opts[which].type == SIZE)
		err = parse_size(opts[which].name, value, &o->v[which].n, why);
	if (err)
		return err;
	copy = strdup(value);
	if (!copy)
		return -ENOMEM;
	free(o->v[which].text);
	o->v[which].text = copy;
	return 0;
}

int img_opts_set_number(struct img_opts *o, enum img_opt which, uint64_t n)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	return img_opts_set(o, which, text, NULL);
}

static int set_named(struct img_opts *o, const char *name, const char *value, struct why *why)
{
	for (size_t i = 0; i < N_IMG_OPTS; i++)
		if (known(o, i) && !strcmp(opts[i].name, name))
			return img_opts_set(o, (enum img_opt)i, value, why);
	for (size_t i = 0; o->amend && i < N_IMG_OPTS; i++)
		if (!strcmp(opts[i].name, name))
			return why_set(why, -EINVAL,
				"Invalid parameter '%s'\n"
				"This option is only supported for image creation",
				name);
	return why_set(why, -EINVAL, "Invalid parameter '%s'", name);
}

int img_opts_parse(struct img_opts *o, const char *all, struct why *why)
{
	char *name, *value;
	int err = 0;

	if (!all)
		return 0;
	name = malloc(strlen(all) + 8);
	value = malloc(strlen(all) + 8);
	if (!name || !value)
		err = -ENOMEM;
	while (!err && *all) {
		all = cut_option(all, name, value);
		err = set_named(o, name, value, why);
	}
	free(name);
	free(value);
	return err;
}

/* ---- for people ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(opts[*(const size_t *)a].name, opts[*(const size_t *)b].name);
}

void img_opts_help(const char *format, bool amend, bool with_file)
{
	struct img_opts o = {.format = format, .amend = amend};
	size_t order[N_IMG_OPTS], n = 0;

	for (size_t i = 0; i < N_IMG_OPTS; i++)
		if (known(&o, i) && (with_file || amend || (opts[i].of & ~FILE_)) &&
			(with_file || i != OPT_RAW_PREALLOC))
			order[n++] = i;
	qsort(order, n, sizeof(order[0]), by_name);
	if (amend)
		printf("Amend options for '%s':\n", format);
	else if (with_file)
		printf("Supported options:\n");
	else
		printf("Supported %s options:\n", format);
	for (size_t i = 0; i < n; i++) {
		char left[64];

		snprintf(left, sizeof(left), "%s=%s", opts[order[i]].name,
			type_names[opts[order[i]].type]);
		printf("  %-22s - %s\n", left, opts[order[i]].help);
	}
	if (!amend && !with_file)
		printf("\nThe protocol level may support further options.\n"
		       "Specify the target filename to include those options.\n");
}

void img_opts_print(const struct img_opts *o)
{
	for (size_t i = 0; i < N_IMG_OPTS; i++) {
		if (!o->v[i].text)
			continue;
		printf(" %s=", opts[i].name);
		if (opts[i].type == NUM || opts[i].type == SIZE) {
			printf("%" PRId64, (int64_t)o->v[i].n);
			continue;
		}
		for (const char *c = o->v[i].text; *c; c++) {
			putchar(*c);
			if (*c == ',')
				putchar(',');
		}
	}
}

/* ---- what they mean ---- */

int img_opts_defaults(struct img_opts *o)
{
	static const struct {
		enum img_opt which;
		const char *value;
	} defaults[] = {{OPT_CLUSTER_SIZE, "65536"}, {OPT_EXTENDED_L2, "off"},
		{OPT_COMPRESSION, "zlib"}, {OPT_LAZY, "off"}, {OPT_REFCOUNT_BITS, "16"}};
	int err = 0;

	for (size_t i = 0; !is_raw(o) && !err && i < ARRAY_SIZE(defaults); i++)
		if (!o->v[defaults[i].which].text)
			err = img_opts_set(o, defaults[i].which, defaults[i].value, NULL);
	return err;
}

uint32_t img_opts_version(const char *compat, struct why *why)
{
	if (!strcmp(compat, "0.10") || !strcmp(compat, "v2"))
		return 2;
	if (!strcmp(compat, "1.1") || !strcmp(compat, "v3"))
		return 3;
	(void)why_set(why, -EINVAL, "Parameter 'version' does not accept value '%s'", compat);
	return 0;
}

int img_parse_prealloc(const char *text, enum prealloc *out)
{
	static const char *const names[] = {"off", "metadata", "falloc", "full"};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++)
		if (!strcmp(text, names[i])) {
			*out = (enum prealloc)i;
			return 0;
		}
	return -EINVAL;
}

/* Images are not encrypted here; the mistakes are told first, as qemu-img tells them. */
static int check_encryption(const struct img_opts *o, struct why *why)
{
	const char *format = o->v[OPT_ENCRYPT_FORMAT].text;
	bool old = o->v[OPT_ENCRYPTION].text && o->v[OPT_ENCRYPTION].n;

	if (o->v[OPT_ENCRYPTION].text && format)
		return why_set(why, -EINVAL,
			"'encrypt.format' and its alias 'encryption' can't be used at the same "
			"time");
	if (!format && !old)
		return 0;
	if (format && strcmp(format, "aes") != 0 && strcmp(format, "luks") != 0)
		return why_set(
			why, -EINVAL, "Parameter 'format' does not accept value '%s'", format);
	if (!o->v[OPT_ENCRYPT_SECRET].text)
		return why_set(
			why, -EINVAL, "Parameter 'encrypt.key-secret' is required for cipher");
	return why_set(why, -ENOTSUP, "Encryption is not supported: encrypt.format=%s",
		format ? format : "aes");
}

int img_opts_qcow2(const struct img_opts *o, struct qcow2_create_opts *q, struct why *why)
{
	const char *prealloc = o->v[OPT_QCOW2_PREALLOC].text, *compat = o->v[OPT_COMPAT].text;
	const char *type = o->v[OPT_COMPRESSION].text;
	int err;

	*q = (struct qcow2_create_opts){.size = o->v[OPT_SIZE].n,
		.version = compat ? img_opts_version(compat, why) : 3,
		.lazy_refcounts = o->v[OPT_LAZY].n,
		.extended_l2 = o->v[OPT_EXTENDED_L2].n,
		.zstd = !strcmp(type, "zstd"),
		.data_file_raw = o->v[OPT_DATA_FILE_RAW].n,
		.backing_file = o->v[OPT_BACKING_FILE].text,
		.backing_format = o->v[OPT_BACKING_FMT].text,
		.data_file = o->v[OPT_DATA_FILE].text};
	if (!q->version)
		return -EINVAL;
	err = check_encryption(o, why);
	if (err)
		return err;
	if (prealloc && img_parse_prealloc(prealloc, &q->prealloc))
		return why_set(why, -EINVAL,
			"Parameter 'preallocation' does not accept value '%s'", prealloc);
	if (!q->zstd && strcmp(type, "zlib") != 0)
		return why_set(why, -EINVAL,
			"Parameter 'compression-type' does not accept value '%s'", type);
	/* 0 stands for the default further down, and nobody may ask for it. */
	q->cluster_size = (uint32_t)min_u64(o->v[OPT_CLUSTER_SIZE].n, UINT32_MAX);
	q->refcount_bits = (uint32_t)min_u64(o->v[OPT_REFCOUNT_BITS].n, UINT32_MAX);
	if (!q->cluster_size)
		q->cluster_size = 1;
	if (!q->refcount_bits)
		q->refcount_bits = UINT32_MAX;
	return 0;
}
