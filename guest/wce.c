/* SPDX-License-Identifier: MIT */
/*
 * wce.c - job wce: walks through the write-cache contract as script= says, a line a step.
 *
 *   on off     write the config field `writeback`, read it back (skipped if not negotiated)
 *   wN WN      write N 4-KiB blocks that were not written before: one after another, all at once
 *   f          flush (skipped if not negotiated)
 *   mN         sets the mark N
 *   v          read back and check every block written so far
 *   reset      reset and negotiate everything; plain: neither FLUSH nor CONFIG_WCE;
 *   noflush    all but FLUSH
 *
 * result= is ok, skipped, or what went wrong.  Block b holds version b + 1 of its sectors, so that
 * a host test can tell from the image which writes it has.
 */
#include "guest/virtio_blk.h"
#include "guest/pattern.h"

#define BLOCK         4096u
#define BLOCK_SECTORS (BLOCK / SECTOR_SIZE)
#define AT_ONCE_MAX   64
#define MARK_PORT     0xf8

struct wce {
	struct vblk *d;
	struct vblk_req *reqs;
	uint8_t *data;
	uint64_t written; /* blocks */
	bool device_failed, data_wrong;
};

static void prepare(struct wce *w, unsigned slot, uint32_t type, uint64_t block)
{
	struct vblk_req *r = &w->reqs[slot];
	uint8_t *buf = w->data + slot * BLOCK;

	if ((block + 1) * BLOCK_SECTORS > w->d->sectors)
		fail(STATUS_USAGE, "wce: the disk is full after %lu blocks", block);
	for (unsigned i = 0; i < BLOCK_SECTORS && type == VBLK_OUT; i++)
		pattern_fill(buf + i * SECTOR_SIZE, block * BLOCK_SECTORS + i, (uint32_t)block + 1);
	vblk_req_init(r, type, block * BLOCK_SECTORS);
	if (!vblk_req_add(w->d, r, buf, BLOCK))
		fail(STATUS_DEVICE, "wce: the disk cannot take %u bytes at once", BLOCK);
}

static const char *write_serial(struct wce *w, uint64_t n)
{
	bool failed = false;

	for (; n; n--) {
		prepare(w, 0, VBLK_OUT, w->written++);
		failed |= vblk_do(w->d, &w->reqs[0]) != VBLK_S_OK;
	}
	w->device_failed |= failed;
	return failed ? "error" : "ok";
}

static const char *write_at_once(struct wce *w, uint64_t n)
{
	struct virtq *q = &w->d->q[0];
	struct vblk_req *r;
	bool failed = false;

	while (n) {
		unsigned sent = 0, got = 0;

		for (; sent < MIN(n, AT_ONCE_MAX); sent++) {
			prepare(w, sent, VBLK_OUT, w->written);
			if (!vblk_submit(q, &w->reqs[sent]))
				break;
			w->written++;
		}
		virtq_kick(q);
		while (got < sent) {
			vblk_check_queue(q, virtq_wait(q, vblk_timeout()));
			for (; (r = vblk_reap(q)) != NULL; got++)
				failed |= r->status != VBLK_S_OK;
			vblk_check_queue(q, true);
		}
		n -= sent;
	}
	w->device_failed |= failed;
	return failed ? "error" : "ok";
}

static const char *flush(struct wce *w)
{
	if (!(w->d->features & F_FLUSH))
		return "skipped";
	vblk_req_init(&w->reqs[0], VBLK_FLUSH, 0);
	if (vblk_do(w->d, &w->reqs[0]) == VBLK_S_OK)
		return "ok";
	w->device_failed = true;
	return "error";
}

static const char *read_back(struct wce *w)
{
	bool wrong = false;

	for (uint64_t b = 0; b < w->written; b++) {
		prepare(w, 0, VBLK_IN, b);
		if (vblk_do(w->d, &w->reqs[0]) != VBLK_S_OK) {
			w->device_failed = true;
			return "error";
		}
		for (unsigned i = 0; i < BLOCK_SECTORS; i++)
			wrong |= !pattern_is(
				w->data + i * SECTOR_SIZE, b * BLOCK_SECTORS + i, (uint32_t)b + 1);
	}
	w->data_wrong |= wrong;
	return wrong ? "wrong" : "ok";
}

static const char *set_cache(struct wce *w, uint8_t on)
{
	if (!(w->d->features & F_CONFIG_WCE))
		return "skipped";
	vblk_set_writeback(w->d, on);
	if (vblk_writeback(w->d) == on)
		return "ok";
	w->device_failed = true;
	return "refused";
}

static const char *restart(struct wce *w, uint64_t without)
{
	vblk_start(w->d, F_ALL & ~without);
	return "ok";
}

static const char *set_mark(uint64_t n)
{
	outl(MARK_PORT, (uint32_t)n);
	return "ok";
}

static uint64_t count_of(const char *digits)
{
	uint64_t n = 0;

	for (; *digits >= '0' && *digits <= '9' && n < 1000000; digits++)
		n = n * 10 + (uint64_t)(*digits - '0');
	return *digits ? 0 : n;
}

static const char *step(struct wce *w, const char *op)
{
	if (strcmp(op, "on") == 0)
		return set_cache(w, 1);
	if (strcmp(op, "off") == 0)
		return set_cache(w, 0);
	if (strcmp(op, "f") == 0)
		return flush(w);
	if (strcmp(op, "v") == 0)
		return read_back(w);
	if (strcmp(op, "reset") == 0)
		return restart(w, 0);
	if (strcmp(op, "plain") == 0)
		return restart(w, F_FLUSH | F_CONFIG_WCE);
	if (strcmp(op, "noflush") == 0)
		return restart(w, F_FLUSH);
	if (op[0] == 'm' && count_of(op + 1))
		return set_mark(count_of(op + 1));
	if (op[0] == 'w' && count_of(op + 1))
		return write_serial(w, count_of(op + 1));
	if (op[0] == 'W' && count_of(op + 1))
		return write_at_once(w, count_of(op + 1));
	fail(STATUS_USAGE, "script: '%s' is no step", op);
}

int job_wce(void)
{
	static struct wce w;
	const char *p = option_str("script", "w8,f,off,w8,on,w8,f,reset,off,reset,plain,w8,v");
	const char *result;
	unsigned steps = 0;
	uint64_t begin;
	char op[16];

	w.d = vblk_open();
	w.reqs = memory_alloc(AT_ONCE_MAX * sizeof(*w.reqs), PAGE_SIZE, "requests");
	w.data = memory_alloc(AT_ONCE_MAX * BLOCK, PAGE_SIZE, "buffers");
	while (*p) {
		size_t n = 0;

		while (p[n] && p[n] != ',')
			n++;
		if (n >= sizeof(op))
			fail(STATUS_USAGE, "script: '%s' is no step", p);
		memcpy(op, p, n);
		op[n] = 0;
		p += p[n] ? n + 1 : n;
		begin = rdtsc();
		result = step(&w, op);
		begin = usec_since(begin);
		report("wce step=%u op=%s writeback=%u cache=%s usec=%lu result=%s", ++steps, op,
			vblk_writeback(w.d), vblk_write_cache_on(w.d) ? "on" : "off", begin,
			result);
	}
	report("wce steps=%u blocks=%lu", steps, w.written);
	return w.device_failed ? STATUS_DEVICE : w.data_wrong ? STATUS_DATA : STATUS_OK;
}
