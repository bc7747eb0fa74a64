/* SPDX-License-Identifier: MIT */
/*
 * checker.c - see checker.h.
 *
 * Whether a command wrote to its image is told by the time of the file's last change: it is set to
 * the year 2000 before the command starts.
 */
#include <fcntl.h>
#include <ftw.h>
#include <linux/fs.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "blockdev/block.h"
#include "blockdev/crash/checker.h"
#include "blockdev/file/file.h"
#include "blockdev/qcow2/format.h"

#define LONG_AGO   946684800 /* seconds */
#define COPY_BYTES (1 * MiB)

struct place {
	char dir[200], image[4096], scratch[220], output[220];
	int fd; /* of the image, raw; -1: it is not there */
	pid_t pid;
	uint64_t tag;
	uint64_t *have; /* by sector of the compact file: the hash of what the image holds */
	bool used;      /* scratch may not be empty */
};

struct checker {
	struct checker_opts o;
	struct loop *loop;
	const struct guest_disk *g;
	char dir[160];
	char *raw;       /* path of the starting image as a raw one */
	uint64_t *first; /* hashes of what that holds */
	struct place *place;
};

/* ---- files ---- */

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *at)
{
	return at->level ? remove(path) : 0;
}

static void empty_dir(const char *dir)
{
	(void)!nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static int write_all(int fd, const void *buf, uint64_t len, uint64_t off)
{
	const uint8_t *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

/* Only what is data: a starting image mostly is sparse. */
static int copy_data(int from, int to, off_t size)
{
	uint8_t *buf = malloc(COPY_BYTES);
	off_t at = 0, end;
	int err = buf ? 0 : -ENOMEM;

	while (!err && at < size && (at = lseek(from, at, SEEK_DATA)) >= 0) {
		end = lseek(from, at, SEEK_HOLE);
		while (!err && at < end) {
			ssize_t n = pread(from, buf, min_u64(COPY_BYTES, (uint64_t)(end - at)), at);

			if (n <= 0)
				err = n < 0 ? -errno : -EIO;
			else
				err = write_all(to, buf, (uint64_t)n, (uint64_t)at);
			at += n > 0 ? n : 0;
		}
	}
	if (!err && at < 0 && errno != ENXIO)
		err = -errno;
	free(buf);
	return err;
}

static int copy_start(const char *path, int to, uint64_t size)
{
	int from = open(path, O_RDONLY | O_CLOEXEC), err = 0;
	struct stat st;

	if (from < 0)
		return -errno;
	if (ftruncate(to, 0) || fstat(from, &st))
		err = -errno;
	else if (ioctl(to, FICLONE, from))
		err = copy_data(from, to, lseek(from, 0, SEEK_END));
	if (!err && ftruncate(to, (off_t)size))
		err = -errno;
	close(from);
	return err;
}

/* ---- the starting image, raw ---- */

struct unpack {
	struct disk *d;
	int fd;
};

static int unpack_fiber(void *arg)
{
	struct unpack *u = arg;
	uint8_t *buf = malloc(COPY_BYTES);
	uint64_t size = disk_size(u->d), n;
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; at < size && !err; at += n) {
		struct extent x;

		n = min_u64(COPY_BYTES, size - at);
		err = disk_map(u->d, at, n, &x);
		if (err)
			break;
		n = x.len;
		if (x.kind != EXTENT_DATA)
			continue;
		err = disk_pread(u->d, buf, n, at);
		if (!err)
			err = write_all(u->fd, buf, n, at);
	}
	free(buf);
	return err;
}

static int unpack_start(struct checker *c, struct why *why)
{
	struct disk_opts o = {
		.path = c->o.start, .format = c->o.start_format, .readonly = true, .quiet = true};
	struct unpack u;
	int err = disk_open(c->loop, &o, &u.d, why);

	if (err)
		return why_set(why, err, "%s: %s", c->o.start, why_text(why, err));
	if (!strcmp(disk_format(u.d), "raw") || c->o.overlay) {
		c->raw = strdup(c->o.start);
		disk_abandon(u.d);
		return c->raw ? 0 : -ENOMEM;
	}
	if (asprintf(&c->raw, "%s/start.raw", c->dir) < 0)
		c->raw = NULL;
	u.fd = c->raw ? open(c->raw, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600) : -1;
	err = u.fd < 0 ? -errno : fiber_run(c->loop, unpack_fiber, &u);
	if (!err && ftruncate(u.fd, (off_t)c->o.size))
		err = -errno;
	if (u.fd >= 0)
		close(u.fd);
	disk_abandon(u.d);
	return err ? why_set(why, err, "%s: %s", c->raw ? c->raw : "", strerror(-err)) : 0;
}

/* ---- building a state ---- */

/* From sector s on: how many differ from what the place has, in one run and a reasonable piece. */
static uint64_t differing(
	const struct checker *c, const struct place *p, struct cuts *k, uint64_t s)
{
	const struct guest_run *r = guest_disk_run(c->g, s);
	uint64_t n = 0;

	while (n < COPY_BYTES / SECTOR && s + n < r->at + r->n &&
		facts_get(&k->facts, s + n)->hash != p->have[s + n])
		n++;
	return n;
}

static int put_sectors(
	const struct checker *c, struct place *p, struct cuts *k, uint64_t s, uint64_t n)
{
	const struct guest_run *r = guest_disk_run(c->g, s);
	uint8_t *buf = malloc(n * SECTOR);
	int err;

	if (!buf)
		return -ENOMEM;
	mem_read(&k->state, buf, n * SECTOR, s * SECTOR);
	if (c->g->log.used)
		c->g->log.used(c->g->log.used_arg, n * SECTOR);
	err = write_all(p->fd, buf, n * SECTOR, (r->sector + s - r->at) * SECTOR);
	for (uint64_t i = 0; i < n && !err; i++)
		p->have[s + i] = facts_get(&k->facts, s + i)->hash;
	free(buf);
	return err;
}

static int build_raw(struct checker *c, struct place *p, struct cuts *k)
{
	const struct timespec long_ago[2] = {{.tv_sec = LONG_AGO}, {.tv_sec = LONG_AGO}};
	int err = 0;

	if (p->fd < 0) {
		p->fd = open(p->image, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		err = p->fd < 0 ? -errno : copy_start(c->raw, p->fd, c->o.size);
		memcpy(p->have, c->first, c->g->sectors * sizeof(*p->have));
	}
	for (uint64_t s = 0, n; s < c->g->sectors && !err; s += n + !n) {
		n = differing(c, p, k, s);
		if (n)
			err = put_sectors(c, p, k, s, n);
	}
	if (!err && futimens(p->fd, long_ago))
		err = -errno;
	return err;
}

struct overlay {
	struct checker *c;
	struct cuts *k;
	struct file *f;
	struct disk *d;
	const char *backing;
};

static int create_overlay(void *arg)
{
	struct overlay *v = arg;
	struct qcow2_create_opts q = {.size = v->c->o.size,
		.backing_file = v->backing,
		.backing_format = v->c->o.start_format ? v->c->o.start_format : "raw"};

	return qcow2_create(v->f, &q, NULL);
}

static int fill_overlay(void *arg)
{
	struct overlay *v = arg;
	struct cuts *k = v->k;
	uint8_t *buf = malloc(SECTOR);
	int err = buf ? 0 : -ENOMEM;

	for (uint64_t s = 0; s < v->c->g->sectors && !err; s++) {
		const struct guest_run *r = guest_disk_run(v->c->g, s);

		if (facts_get(&k->facts, s)->hash == v->c->first[s])
			continue;
		mem_read(&k->state, buf, SECTOR, s * SECTOR);
		err = disk_pwrite(v->d, buf, SECTOR, (r->sector + s - r->at) * SECTOR, 0);
	}
	free(buf);
	return err;
}

static int build_overlay(struct checker *c, struct place *p, struct cuts *k, struct why *why)
{
	struct disk_opts o = {.path = p->image, .format = "qcow2", .cache = CACHE_UNSAFE};
	struct overlay v = {.c = c, .k = k, .backing = realpath(c->o.start, NULL)};
	int err = v.backing ? 0 : -errno;

	unlink(p->image);
	if (!err)
		err = file_open(c->loop, p->image, FILE_RDWR | FILE_CREATE, &v.f, why);
	if (!err) {
		v.f->nosync = true;
		err = fiber_run(c->loop, create_overlay, &v);
		file_close(v.f);
	}
	if (!err)
		err = disk_open(c->loop, &o, &v.d, why);
	if (!err) {
		int end;

		err = fiber_run(c->loop, fill_overlay, &v);
		end = disk_close(v.d, why);
		err = err ? err : end;
	}
	free((void *)(uintptr_t)v.backing);
	return err;
}

/* ---- running the command ---- */

/* The command with every {} replaced; the caller frees. */
static char *with_path(const char *command, const char *path)
{
	size_t n = 1;
	char *out, *to;

	for (const char *at = command; *at; at++)
		n += at[0] == '{' && at[1] == '}' ? strlen(path) : 1;
	out = to = malloc(n);
	for (const char *at = command; out && *at; at++) {
		if (at[0] == '{' && at[1] == '}') {
			to = stpcpy(to, path);
			at++;
		} else {
			*to++ = *at;
		}
	}
	if (out)
		*to = 0;
	return out;
}

static void set_env(const char *name, uint64_t n)
{
	char text[32];

	snprintf(text, sizeof(text), "%" PRIu64, n);
	setenv(name, text, 1);
}

/* In the child. */
static _Noreturn void become(
	const struct place *p, const struct checker_facts *f, uint64_t at, const char *command)
{
	int in = open("/dev/null", O_RDONLY),
	    out = open(p->output, O_RDWR | O_CREAT | O_TRUNC, 0600);

	setpgid(0, 0);
	signal(SIGPIPE, SIG_DFL);
	setenv("IMAGE", p->image, 1);
	setenv("SCRATCH", p->scratch, 1);
	setenv("MARK", f->mark ? f->mark : "", 1);
	set_env("MARKS", f->marks);
	set_env("EVENT", at);
	if (in < 0 || out < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(out, 2) < 0)
		_exit(126);
	execl("/bin/sh", "sh", "-c", command, "check", p->image, (char *)NULL);
	_exit(126);
}

static struct place *place_with(const struct checker *c, pid_t pid)
{
	for (unsigned i = 0; i < c->o.jobs; i++)
		if (c->place[i].pid == pid)
			return &c->place[i];
	return NULL;
}

bool checker_free_place(const struct checker *c)
{
	return place_with(c, 0) != NULL;
}

int checker_start(struct checker *c, struct cuts *k, const struct checker_facts *f, uint64_t tag,
	struct why *why)
{
	struct place *p = place_with(c, 0);
	char *command;
	int err;

	assert(p);
	model_build(&k->model, &k->c, &k->state);
	if (p->used)
		empty_dir(p->scratch);
	p->used = true;
	err = c->o.overlay ? build_overlay(c, p, k, why) : build_raw(c, p, k);
	if (err)
		return why_set(why, err, "%s: %s", p->image, strerror(-err));
	command = with_path(c->o.command, p->image);
	if (!command)
		return -ENOMEM;
	fflush(NULL);
	p->pid = fork();
	if (!p->pid)
		become(p, f, k->model.at, command);
	free(command);
	if (p->pid < 0) {
		p->pid = 0;
		return -errno;
	}
	p->tag = tag;
	return 0;
}

int checker_build(struct checker *c, struct cuts *k, const char *path, struct why *why)
{
	struct place *p = place_with(c, 0);
	char was[sizeof(p->image)];
	struct why inner = {""};
	int err;

	assert(p && p->fd < 0);
	if (snprintf(NULL, 0, "%s", path) >= (int)sizeof(p->image))
		return -ENAMETOOLONG;
	memcpy(was, p->image, sizeof(was));
	strcpy(p->image, path);
	model_build(&k->model, &k->c, &k->state);
	err = c->o.overlay ? build_overlay(c, p, k, &inner) : build_raw(c, p, k);
	if (p->fd >= 0 && close(p->fd))
		err = err ? err : -errno;
	p->fd = -1;
	memcpy(p->image, was, sizeof(was));
	return err ? why_set(why, err, "%s: %s", path, why_text(&inner, err)) : 0;
}

static void read_output(const struct place *p, char *out, size_t room)
{
	int fd = open(p->output, O_RDONLY | O_CLOEXEC);
	off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
	ssize_t n = 0;

	if (fd >= 0) {
		n = pread(fd, out, room - 1, size > (off_t)room - 1 ? size - (off_t)(room - 1) : 0);
		close(fd);
	}
	n = n < 0 ? 0 : n;
	while (n && (out[n - 1] == '\n' || out[n - 1] == ' '))
		n--;
	out[n] = 0;
}

/* What a command has written to, nobody knows any more. */
static void distrust(const struct checker *c, struct place *p)
{
	struct stat st;

	if (c->o.overlay || p->fd < 0)
		return;
	if (!fstat(p->fd, &st) && st.st_nlink == 1 && st.st_mtim.tv_sec == LONG_AGO &&
		!st.st_mtim.tv_nsec && (uint64_t)st.st_size == c->o.size)
		return;
	close(p->fd);
	unlink(p->image);
	p->fd = -1;
}

int checker_wait(struct checker *c, struct checker_result *r, struct why *why)
{
	bool any = false;
	struct place *p;
	int status;
	pid_t pid;

	for (unsigned i = 0; i < c->o.jobs; i++)
		any |= c->place[i].pid != 0;
	if (!any)
		return 0;
	do {
		pid = waitpid(-1, &status, 0);
		if (pid < 0)
			return -errno;
		p = place_with(c, pid);
	} while (!p);
	p->pid = 0;
	*r = (struct checker_result){.tag = p->tag};
	r->status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	r->holds = !r->status;
	read_output(p, r->output, sizeof(r->output));
	distrust(c, p);
	if (r->status == 126 || r->status == 127)
		return why_set(why, -ENOEXEC, "--check: the command cannot be run: %s", r->output);
	return 1;
}

/* ---- the whole ---- */

static int make_place(struct checker *c, unsigned i)
{
	struct place *p = &c->place[i];

	p->fd = -1;
	snprintf(p->dir, sizeof(p->dir), "%s/%u", c->dir, i);
	snprintf(p->image, sizeof(p->image), "%s/disk.%s", p->dir, c->o.overlay ? "qcow2" : "raw");
	snprintf(p->scratch, sizeof(p->scratch), "%s/scratch", p->dir);
	snprintf(p->output, sizeof(p->output), "%s/output", p->dir);
	p->have = malloc((c->g->sectors + 1) * sizeof(*p->have));
	if (!p->have)
		return -ENOMEM;
	return mkdir(p->dir, 0700) || mkdir(p->scratch, 0700) ? -errno : 0;
}

static void hash_start(struct checker *c)
{
	uint64_t content[SECTOR / 8];

	for (uint64_t s = 0; s < c->g->sectors; s++) {
		mem_read(&c->g->start, content, SECTOR, s * SECTOR);
		c->first[s] = facts_hash(content);
	}
}

int checker_new(struct loop *l, const struct checker_opts *o, const struct guest_disk *g,
	struct checker **out, struct why *why)
{
	struct checker *c = calloc(1, sizeof(*c));
	const char *tmp = getenv("TMPDIR");
	int err;

	if (!c)
		return -ENOMEM;
	*c = (struct checker){.o = *o, .loop = l, .g = g};
	c->place = calloc(o->jobs, sizeof(*c->place));
	c->first = malloc((g->sectors + 1) * sizeof(*c->first));
	err = c->place && c->first ? 0 : -ENOMEM;
	if (!err && snprintf(c->dir, sizeof(c->dir), "%s/sluice-powercut.XXXXXX",
			    tmp && *tmp ? tmp : "/var/tmp") >= (int)sizeof(c->dir))
		err = why_set(why, -ENAMETOOLONG, "TMPDIR is too long a path");
	if (!err && !mkdtemp(c->dir)) {
		err = why_set(why, -errno, "%s: %s", c->dir, strerror(errno));
		c->dir[0] = 0;
	}
	if (!err)
		err = unpack_start(c, why);
	for (unsigned i = 0; i < o->jobs && !err; i++)
		err = make_place(c, i);
	if (err) {
		checker_free(c);
		return err;
	}
	hash_start(c);
	*out = c;
	return 0;
}

void checker_free(struct checker *c)
{
	for (unsigned i = 0; c->place && i < c->o.jobs; i++) {
		struct place *p = &c->place[i];

		if (p->pid > 0) {
			kill(-p->pid, SIGKILL);
			waitpid(p->pid, NULL, 0);
		}
		if (p->have && p->fd >= 0)
			close(p->fd);
		free(p->have);
	}
	if (c->dir[0]) {
		empty_dir(c->dir);
		rmdir(c->dir);
	}
	free(c->place);
	free(c->first);
	free(c->raw);
	free(c);
}
