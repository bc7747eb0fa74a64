/* SPDX-License-Identifier: MIT */
/*
 * bench_run.c - one measurement: a fresh image, a guest that installs onto it, a check, and away.
 *
 * Sluice is started as a child like the peer, so that both are measured alike: the same guest
 * file, trace, memory and image, time taken by the guest itself.  All work is done in
 * one scratch directory, by names relative to it, so that no path needs escaping.
 *
 * No measurement pays for the one before: the image is made durable, dropped from the page cache
 * and removed, and the file system is synced, before the next one starts.
 */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>
#include <zstd.h>
#include "vmm/bench.h"
#include "vmm/embed.h"
#include "vmm/kvm.h"
#include "vmm/util/loop.h"

#define GUEST_FILE "guest.elf"
#define TRACE_FILE "install.trace"
#define STATS_FILE "stats.json"

/* The head of the trace that the guest replays (guest/trace/README.md). */
struct trace_head {
	char magic[8];
	uint32_t le_ops, zero;
	uint64_t le_disk_bytes;
	char name[40];
};
static_assert(sizeof(struct trace_head) == 64, "guest/trace/README.md");
/* More than any trace that the guest takes; the embedded one is ours, the limit is for mistakes. */
#define TRACE_MAX (512 * MiB)

struct args {
	char *v[48];
	int n;
	char text[8192];
	size_t used;
};

/* One more argument, like printf; the table of a command is short and its size known. */
static void printf_like(2, 3) arg(struct args *a, const char *fmt, ...)
{
	size_t room = sizeof(a->text) - a->used;
	va_list ap;
	int len;

	va_start(ap, fmt);
	len = vsnprintf(a->text + a->used, room, fmt, ap);
	va_end(ap);
	assert(len >= 0 && (size_t)len < room && a->n + 1 < (int)ARRAY_SIZE(a->v));
	a->v[a->n++] = a->text + a->used;
	a->v[a->n] = NULL;
	a->used += (size_t)len + 1;
}

static void args_split(struct args *a, const char *words)
{
	while (*words) {
		int len = (int)strcspn(words, " ");

		arg(a, "%.*s", len, words);
		words += len;
		words += strspn(words, " ");
	}
}

static int write_file(const struct bench *b, const char *name, const void *data, size_t len,
	struct why *why)
{
	char path[sizeof(b->dir) + 64];
	FILE *f;
	int err = 0;

	snprintf(path, sizeof(path), "%s/%s", b->dir, name);
	f = fopen(path, "we");
	if (!f)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	if (fwrite(data, 1, len, f) != len)
		err = -errno;
	if (fclose(f) != 0 && !err)
		err = -errno;
	return err ? why_set(why, err, "%s: %s", path, strerror(-err)) : 0;
}

static int unpack_trace(struct bench *b, struct why *why)
{
	unsigned long long size = ZSTD_getFrameContentSize(embed_trace_data, embed_trace_size());
	struct trace_head h;
	char *data;
	size_t n;
	int err;

	if (size < sizeof(h) || size > TRACE_MAX)
		return why_set(why, -EINVAL, "this program was built without an install trace");
	data = malloc(size);
	if (!data)
		return -ENOMEM;
	n = ZSTD_decompress(data, size, embed_trace_data, embed_trace_size());
	memcpy(&h, data, sizeof(h));
	if (ZSTD_isError(n) || n != size || memcmp(h.magic, "SLTRACE1", 8) != 0) {
		err = why_set(why, -EINVAL, "the embedded install trace is damaged");
	} else {
		b->disk_bytes = le64toh(h.le_disk_bytes);
		/* A word per sector to verify by, the trace, and room for buffers and the guest. */
		b->memory_mib = round_up(128 + (b->disk_bytes / 128 + size) / MiB, 64);
		err = write_file(b, TRACE_FILE, data, size, why);
	}
	free(data);
	return err;
}

static int replay_prepare(struct bench *b, struct why *why)
{
	b->kernel = GUEST_FILE;
	b->initrd = TRACE_FILE;
	return unpack_trace(b, why) ? :
	       write_file(b, GUEST_FILE, embed_guest_data, embed_guest_size(), why);
}

/* The guest's clock is the TSC, which both hypervisors pass through as it is. */
static uint64_t tsc_khz_measure(void)
{
	uint64_t t0 = loop_now_ns(), c0 = __rdtsc(), t;

	do
		t = loop_now_ns();
	while (t - t0 < 50 * 1000000ULL);
	return (__rdtsc() - c0) * 1000000 / (t - t0);
}

static int make_dir(struct bench *b, struct why *why)
{
	const char *in = b->o.dir ? b->o.dir : getenv("TMPDIR");

	if (b->o.keep) {
		snprintf(b->dir, sizeof(b->dir), "%s", b->o.keep);
		if (mkdir(b->dir, 0777) == 0 || errno == EEXIST)
			return 0;
	} else {
		snprintf(b->dir, sizeof(b->dir), "%s/sluice-bench.XXXXXX",
			in && *in ? in : "/var/tmp");
		b->dir_is_ours = mkdtemp(b->dir) != NULL;
		if (b->dir_is_ours)
			return 0;
	}
	return why_set(why, -errno, "%s: %s", b->dir, strerror(errno));
}

/* Better now than after the measurements. */
static int can_write(const char *path, struct why *why)
{
	int fd;

	if (!path)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
	if (fd < 0)
		return why_set(why, -errno, "%s: %s", path, strerror(errno));
	close(fd);
	return 0;
}

int bench_prepare(struct bench *b, struct why *why)
{
	struct kvm *kvm;
	int err = kvm_open(&kvm, why);

	if (err)
		return err;
	kvm_close(kvm);
	if (b->o.qemu && !bench_child_exists("qemu-system-x86_64"))
		return why_set(why, -ENOENT, "--qemu: qemu-system-x86_64 is not installed");
	if (b->o.plot && !bench_child_exists("gnuplot"))
		return why_set(why, -ENOENT, "--plot: gnuplot is not installed");
	if (b->o.trace && !realpath(b->o.trace, b->trace_dir))
		return why_set(why, -errno, "--trace %s: %s", b->o.trace, strerror(errno));
	err = can_write(b->o.json, why);
	if (!err)
		err = can_write(b->o.plot, why);
	if (!err)
		err = make_dir(b, why);
	if (!err)
		err = b->o.guest == BENCH_LINUX ? bench_linux_prepare(b, why) :
						  replay_prepare(b, why);
	if (err)
		return err;
	b->tsc_khz = tsc_khz_measure();
	b->machine = bench_machine(b->dir);
	return 0;
}

void bench_cleanup(struct bench *b)
{
	static const char *const files[] = { GUEST_FILE, TRACE_FILE, STATS_FILE };
	char path[sizeof(b->dir) + 64];

	if (!b->dir[0])
		return;
	bench_linux_cleanup(b);
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		snprintf(path, sizeof(path), "%s/%s", b->dir, files[i]);
		unlink(path);
	}
	if (b->dir_is_ours && rmdir(b->dir) < 0)
		log_warn("%s: %s", b->dir, strerror(errno));
}

/* The guest and its memory, in words that both hypervisors know. */
static void guest_args(struct args *a, const struct bench *b, const struct bench_row *r)
{
	arg(a, "-kernel");
	arg(a, "%s", b->kernel);
	arg(a, "-initrd");
	arg(a, "%s", b->initrd);
	arg(a, "-append");
	if (b->o.guest == BENCH_LINUX)
		arg(a, "console=ttyS0 panic=-1 quiet loglevel=1 bus=%s", r->bus->name);
	else
		arg(a, "install verify verify=written tsc_khz=%llu%s%s",
			(unsigned long long)b->tsc_khz, r->bus->guest_word[0] ? " " : "",
			r->bus->guest_word);
	arg(a, "-m");
	arg(a, "%lluM", (unsigned long long)b->memory_mib);
	arg(a, "-serial");
	arg(a, "stdio");
	arg(a, "-no-reboot");
}

/* A comma in a value is written twice. */
static void log_name(const struct bench *b, const struct bench_row *r, unsigned n, char *out,
	size_t room)
{
	size_t k = 0;

	for (const char *p = b->trace_dir; *p && k + 3 < room; p++) {
		out[k++] = *p;
		if (*p == ',')
			out[k++] = *p;
	}
	snprintf(out + k, room - k, "/%s-%s-%s-%u.log", r->bus->name, r->format->name, r->cache,
		n + 1);
}

static void sluice_args(struct args *a, const struct bench *b, const struct bench_row *r,
	const char *image, unsigned n)
{
	char log[2048] = "";

	if (b->o.trace)
		log_name(b, r, n, log, sizeof(log));
	arg(a, "/proc/self/exe");
	arg(a, "run");
	guest_args(a, b, r);
	arg(a, "-drive");
	arg(a, "if=%s,file=%s,format=%s,cache=%s%s%s", r->bus->iface, image, r->format->format,
		r->cache, log[0] ? ",trace=" : "", log);
	if (b->o.guest == BENCH_LINUX) {
		arg(a, "-drive");
		arg(a, "if=virtio,file=" BENCH_PACKAGES ",format=raw,readonly=on");
	}
	arg(a, "-stats");
	arg(a, "%s", STATS_FILE);
}

static void qemu_args(struct args *a, const struct bench *b, const struct bench_row *r,
	const char *image)
{
	args_split(a, "qemu-system-x86_64 -accel kvm -M pc -bios qboot.rom -nodefaults "
		      "-display none -device isa-debug-exit,iobase=0xf4,iosize=4");
	if (b->o.guest == BENCH_LINUX)
		args_split(a, "-cpu host");
	guest_args(a, b, r);
	arg(a, "-drive");
	arg(a, "if=none,id=d0,file=%s,format=%s,cache=%s", image, r->format->format, r->cache);
	arg(a, "-device");
	arg(a, "%s,drive=d0", r->bus->qemu_device);
	if (b->o.guest == BENCH_LINUX) {
		arg(a, "-drive");
		arg(a, "if=virtio,file=" BENCH_PACKAGES ",format=raw,readonly=on");
	}
}

struct listener {
	struct bench *b;
	struct bench_guest *guest;
};

static void on_line(void *opaque, char *line)
{
	struct listener *l = opaque;
	uint64_t before = l->guest->percent;

	bench_guest_line(l->guest, line);
	if (l->guest->percent != before)
		bench_progress(l->b);
}

/* sluice img SUBCOMMAND...; 0, or -EINTR, or the failure in words. */
static int image_command(struct bench *b, const char *words, const char *image,
	const struct bench_row *r, struct bench_sample *s)
{
	struct args a = { .n = 0 };
	struct bench_child c = { .dir = b->dir, .argv = a.v, .timeout_s = b->o.timeout_s };
	bool create = strcmp(words, "create") == 0;
	int err;

	arg(&a, "/proc/self/exe");
	arg(&a, "img");
	arg(&a, "%s", words);
	arg(&a, "-f");
	arg(&a, "%s", r->format->format);
	if (create && r->format->create_opts) {
		arg(&a, "-o");
		arg(&a, "%s", r->format->create_opts);
	}
	arg(&a, "%s", image);
	if (create)
		arg(&a, "%llu", (unsigned long long)b->disk_bytes);
	err = bench_child_run(&c);
	if (err == -EINTR)
		return err;
	if (err)
		snprintf(s->failed, sizeof(s->failed), "img %s: %s", words, strerror(-err));
	else if (c.status)
		snprintf(s->failed, sizeof(s->failed), "img %s: exit status %d%s%s", words,
			c.status, c.words[0] ? ": " : "", c.words);
	return 0;
}

/* The process's own end must agree with what the guest said. */
static void judge(struct bench_sample *s, enum bench_who who, const struct bench_child *c, int err)
{
	int status = (int)s->guest.status;
	int expected = who == BENCH_QEMU ? status << 1 | 1 : status;
	const char *wrong = bench_guest_failed(&s->guest), *by = who == BENCH_QEMU ? "QEMU: " : "";
	size_t size = sizeof(s->failed);

	if (err == -ETIMEDOUT)
		snprintf(s->failed, size, "%sno end after %u s, at %u%% of the install", by,
			c->timeout_s, (unsigned)s->guest.percent);
	else if (err)
		snprintf(s->failed, size, "%s%s", by, strerror(-err));
	else if (wrong && s->guest.done)
		snprintf(s->failed, size, "%s%s", by, wrong);
	else if (wrong || c->status != expected)
		snprintf(s->failed, size, "%sexit status %d: %s", by, c->status,
			c->words[0] ? c->words : wrong ? wrong : "after the guest was done");
}

static json_t *load_stats(const struct bench *b)
{
	char path[sizeof(b->dir) + 64];
	json_t *j;

	snprintf(path, sizeof(path), "%s/%s", b->dir, STATS_FILE);
	j = json_load_file(path, 0, NULL);
	unlink(path);
	return j;
}

/* Nothing of this measurement is left to be written during the next. */
static void settle(const struct bench *b, const char *image)
{
	char path[sizeof(b->dir) + 256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", b->dir, image);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd >= 0) {
		fsync(fd);
		posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
		if (!b->o.keep)
			unlink(path);
		syncfs(fd);
		close(fd);
	}
}

int bench_measure(struct bench *b, const struct bench_row *r, enum bench_who who, unsigned n,
	struct bench_sample *s)
{
	static const char *const who_names[BENCH_WHO] = { "sluice", "qemu" };
	struct args a = { .n = 0 };
	struct listener l = { b, &s->guest };
	struct bench_child c = { .dir = b->dir, .argv = a.v, .timeout_s = b->o.timeout_s,
		.line = on_line, .arg = &l };
	char image[128];
	uint64_t t0;
	int err;

	snprintf(image, sizeof(image), "%s-%s-%s-%s-%u.img", who_names[who], r->bus->name,
		r->format->name, r->cache, n + 1);
	err = image_command(b, "create", image, r, s);
	if (err || s->failed[0])
		goto out;
	if (who == BENCH_QEMU)
		qemu_args(&a, b, r, image);
	else
		sluice_args(&a, b, r, image, n);
	t0 = loop_now_ns();
	err = bench_child_run(&c);
	s->wall_s = (double)(loop_now_ns() - t0) / 1e9;
	if (err == -EINTR)
		goto out;
	judge(s, who, &c, err);
	err = 0;
	if (who == BENCH_SLUICE) {
		s->stats = load_stats(b);
		if (!s->stats && !s->failed[0])
			snprintf(s->failed, sizeof(s->failed), "run left no statistics");
		if (!s->failed[0] && strcmp(r->format->format, "raw") != 0)
			err = image_command(b, "check", image, r, s);
	}
out:
	settle(b, image);
	return err;
}
