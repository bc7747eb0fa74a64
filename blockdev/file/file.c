/* SPDX-License-Identifier: MIT */
/*
 * file.c - opening a stack, and requests as plain calls for fibers.
 *
 * Order matters in file_open(): the lock comes before anything that changes the file, and
 * the size is read after the lock, when nobody can change it any more.
 */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "blockdev/file/engine.h"
#include "blockdev/file/lock.h"

#define PAGE 4096 /* what file_buf() aligns to: enough for every O_DIRECT */

/* The kernel's struct statx, as far as we read it; glibc's may be older than the kernel's. */
struct statx_dio {
	uint32_t mask;
	uint8_t other[148];
	uint32_t dio_mem_align, dio_offset_align; /* bytes 152, 156 */
	uint8_t rest[96];
};
static_assert(sizeof(struct statx_dio) == 256, "statx(2)");
static_assert(offsetof(struct statx_dio, dio_mem_align) == 0x98, "statx(2)");

#define STATX_DIOALIGN_BIT 0x2000U /* kernel 6.1 */

uint64_t iov_bytes(const struct iovec *iov, int niov)
{
	uint64_t sum = 0;

	for (int i = 0; i < niov; i++)
		sum += iov[i].iov_len;
	return sum;
}

bool mem_is_zero(const void *buf, size_t len)
{
	const unsigned char *p = buf;

	for (size_t i = 0; i < len && i < 16; i++)
		if (p[i])
			return false;
	return len <= 16 || !memcmp(p, p + 16, len - 16);
}

bool iov_is_zero(const struct iovec *iov, int niov)
{
	for (int i = 0; i < niov; i++)
		if (!mem_is_zero(iov[i].iov_base, iov[i].iov_len))
			return false;
	return true;
}

void *file_buf(uint64_t len)
{
	void *p = aligned_alloc(PAGE, round_up(max_u64(len, 1), PAGE));

	if (p)
		memset(p, 0, round_up(max_u64(len, 1), PAGE));
	return p;
}

static void finish_done(struct loop_op *op, int64_t res)
{
	struct file_req *r = container_of(op, struct file_req, lop);

	r->done(r, (int)res);
}

void file_finish(struct file *f, struct file_req *r, int err)
{
	r->lop.done = finish_done;
	loop_complete(f->loop, &r->lop, err);
}

void file_close(struct file *f)
{
	while (f) {
		struct file *below = f->below;

		f->ops->close(f);
		f = below;
	}
}

/* Asks with reads: the smallest block that the host takes, in offset and length. */
static uint32_t probe_align(int fd)
{
	uint32_t align = PAGE;
	char *buf = file_buf(PAGE);

	if (!buf)
		return align;
	if (pread(fd, buf, SECTOR, SECTOR) > 0)
		align = SECTOR;
	free(buf);
	return align;
}

/* What O_DIRECT wants of this file.  Larger than needed is slower, never wrong. */
static int find_alignment(struct file *f, int fd)
{
	struct statx_dio sx;
	int block;

	memset(&sx, 0, sizeof(sx));
	if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_DIOALIGN_BIT, &sx) == 0 &&
	    (sx.mask & STATX_DIOALIGN_BIT)) {
		if (!is_pow2(sx.dio_offset_align) || !is_pow2(sx.dio_mem_align))
			return -EINVAL;
		f->align_off = sx.dio_offset_align;
		f->align_mem = sx.dio_mem_align;
	} else if (f->is_block && ioctl(fd, BLKSSZGET, &block) == 0 && block > 0 &&
		   is_pow2((uint64_t)block)) {
		f->align_off = f->align_mem = (uint32_t)block;
	} else {
		f->align_off = f->align_mem = probe_align(fd);
	}
	return f->align_off <= PAGE && f->align_mem <= PAGE ? 0 : -EINVAL;
}

/* *made: the file was not there before. */
static int open_host(const char *path, unsigned flags, bool *made, struct why *why)
{
	int how = O_CLOEXEC | (flags & FILE_RDWR ? O_RDWR : O_RDONLY);
	int fd;

	if (flags & FILE_DIRECT)
		how |= O_DIRECT;
	/* A FIFO or a tape must not hang us before we know that it is none of ours. */
	how |= O_NONBLOCK | O_NOCTTY;
	fd = flags & FILE_CREATE ? open(path, how | O_CREAT | O_EXCL, 0644) : -1;
	*made = fd >= 0;
	if (fd < 0)
		fd = open(path, flags & FILE_CREATE ? how | O_CREAT : how, 0644);
	if (fd >= 0)
		return fd;
	if (errno == EINVAL && (flags & FILE_DIRECT))
		return why_set(why, -EINVAL, "the file system does not know O_DIRECT");
	return -errno;
}

static int check_kind(int fd, const char *path, struct why *why)
{
	struct stat st;
	int how;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return why_set(why, -EINVAL,
			"'file' driver requires '%s' to be a regular file", path);
	/* With O_NONBLOCK io_uring would give EAGAIN where it should wait. */
	how = fcntl(fd, F_GETFL);
	return how < 0 || fcntl(fd, F_SETFL, how & ~O_NONBLOCK) < 0 ? -errno : 0;
}

static int lock(int fd, const char *path, bool writer, struct why *why)
{
	struct why inner = {""};
	int err = image_lock(fd, writer, &inner);

	return err == -EAGAIN ? why_set(why, err, "%s\nIs another process using the image [%s]?",
					inner.text, path)
			      : err;
}

static int empty(int fd)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	return S_ISREG(st.st_mode) && ftruncate(fd, 0) < 0 ? -errno : 0;
}

int file_open(struct loop *l, const char *path, unsigned flags, struct file **out, struct why *why)
{
	bool made, locked;
	struct file *f;
	int fd, err;

	if ((flags & FILE_CREATE) && !(flags & FILE_RDWR))
		return -EINVAL;
	fd = open_host(path, flags, &made, why);
	if (fd < 0)
		return fd;
	err = check_kind(fd, path, why);
	if (!err && !(flags & FILE_NOLOCK))
		err = lock(fd, path, flags & FILE_RDWR, why);
	locked = !err;
	if (!err && (flags & FILE_CREATE))
		err = empty(fd);
	if (!err)
		err = engine_open(l, fd, flags & FILE_DIRECT, !(flags & FILE_RDWR), &f);
	if (err) {
		/* Not locked, it may be somebody else's by now. */
		if (made && locked)
			unlink(path);
		close(fd);
		return err;
	}
	if (!(flags & FILE_DIRECT)) {
		*out = f;
		return 0;
	}
	err = find_alignment(f, fd);
	if (err)
		why_set(why, err, "the host cannot do O_DIRECT on this file");
	else if (f->align_off == 1 && f->align_mem == 1)
		*out = f;
	else
		err = align_open(f, out);
	if (err)
		file_close(f);
	return err;
}

/* A request of a fiber, on its stack. */
struct fiber_req {
	struct file_req r;
	struct fiber *fiber;
	int err;
};

static void fiber_req_done(struct file_req *r, int err)
{
	struct fiber_req *fr = container_of(r, struct fiber_req, r);

	fr->err = err;
	fiber_wake(fr->fiber);
}

static int fiber_wait(struct file *f, struct file_req r)
{
	struct fiber_req fr = {.r = r, .fiber = fiber_self()};

	assert(fr.fiber);
	fr.r.done = fiber_req_done;
	file_submit(f, &fr.r);
	fiber_suspend();
	return fr.err;
}

static int fiber_do(struct file *f, enum file_op op, struct iovec *iov, int niov, uint64_t off,
	uint64_t len)
{
	return fiber_wait(f,
		(struct file_req){.op = op, .iov = iov, .niov = niov, .off = off, .len = len});
}

int file_preadv(struct file *f, struct iovec *iov, int niov, uint64_t off)
{
	return fiber_do(f, FILE_READ, iov, niov, off, iov_bytes(iov, niov));
}

int file_pwritev(struct file *f, struct iovec *iov, int niov, uint64_t off)
{
	return fiber_do(f, FILE_WRITE, iov, niov, off, iov_bytes(iov, niov));
}

int file_pread(struct file *f, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {.iov_base = buf, .iov_len = len};

	return file_preadv(f, &iov, 1, off);
}

int file_pwrite(struct file *f, const void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {.iov_base = (void *)buf, .iov_len = len};

	return file_pwritev(f, &iov, 1, off);
}

int file_fdatasync(struct file *f)
{
	return f->nosync ? 0 : fiber_do(f, FILE_FDATASYNC, NULL, 0, 0, 0);
}

int file_fdatasync_here(struct file *f)
{
	return fiber_wait(f, (struct file_req){.op = FILE_FDATASYNC, .here = true});
}

int file_extend(struct file *f, uint64_t off, uint64_t len)
{
	return fiber_do(f, FILE_EXTEND, NULL, 0, off, len);
}

int file_punch_how(struct file *f, uint64_t off, uint64_t len, enum file_punch how)
{
	return fiber_wait(
		f, (struct file_req){.op = FILE_PUNCH, .off = off, .len = len, .how = how});
}

int file_punch(struct file *f, uint64_t off, uint64_t len)
{
	return file_punch_how(f, off, len, PUNCH_UNMAP);
}

int file_truncate(struct file *f, uint64_t size)
{
	return fiber_do(f, FILE_TRUNCATE, NULL, 0, size, 0);
}

#define ZERO_CHUNK (1 * MiB)

int file_preallocate(struct file *f, uint64_t off, uint64_t len, enum prealloc how)
{
	uint8_t *zeros;
	int err = 0;

	if (how == PREALLOC_FALLOC)
		return file_extend(f, off, len);
	if (how != PREALLOC_FULL)
		return 0;
	zeros = file_buf(ZERO_CHUNK);
	if (!zeros)
		return -ENOMEM;
	while (len && !err) {
		uint64_t n = min_u64(len, ZERO_CHUNK);

		err = file_pwrite(f, zeros, n, off);
		off += n;
		len -= n;
	}
	free(zeros);
	return err;
}
