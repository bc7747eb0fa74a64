/* SPDX-License-Identifier: MIT */
/*
 * test_virtio_blk.c - requests in every framing, errors, the cache bit, resets under load; on a
 * real loop and a real file.
 */
#include <check.h>
#include "tests/support/fake_blk.h"

#define W	VIRTQ_DESC_WRITE
#define N	VIRTQ_DESC_NEXT
#define I	VIRTQ_DESC_INDIRECT
#define DATA	0x40000 /* gpa */
#define TABLE	0x8000	/* gpa of indirect tables */
#define USUAL	(BLK_F_FLUSH | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC)
#define ST_OK	  0
#define ST_IOERR  1
#define ST_UNSUPP 2

enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8 };

static struct fake_blk b;

static void open_as(enum cache_mode mode, bool readonly)
{
	struct virtio_blk_opts o = {.serial = "serial-0123456789abcdef"};

	fake_blk_open(&b, mode, readonly, &o);
}

static void setup(void)
{
	log_level_set(LOG_ERROR);
	open_as(CACHE_WRITEBACK, false);
	ck_assert(fake_blk_start(&b, USUAL, 1, 64));
}

static void teardown(void)
{
	fake_blk_close(&b);
}

static uint8_t *mem(uint64_t gpa, uint64_t len)
{
	return gmem_ptr(&b.m->mem, gpa, len);
}

static bool all_are(const uint8_t *p, uint8_t v, size_t n)
{
	return *p == v && !memcmp(p, p + 1, n - 1);
}

static void host_read(uint64_t sector, uint8_t *buf, unsigned n)
{
	int fd = open(b.disk.path, O_RDONLY);

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pread(fd, buf, n * SECTOR, (off_t)sector * SECTOR), (int)(n * SECTOR));
	close(fd);
}

static unsigned writeback(void)
{
	return (unsigned)vread(&b.d, b.d.config + BLK_WRITEBACK, 1);
}

static void set_writeback(unsigned v)
{
	vwrite(&b.d, b.d.config + BLK_WRITEBACK, v, 1);
}

START_TEST(the_configuration_describes_the_disk)
{
	ck_assert_uint_eq(vread(&b.d, b.d.config, 8), BLK_SECTORS);
	ck_assert_uint_eq(vread(&b.d, b.d.config + 12, 4), 254); /* seg_max */
	ck_assert_uint_eq(vread(&b.d, b.d.config + 20, 4), 512);
	ck_assert_uint_eq(vread(&b.d, b.d.config + 34, 2), 1);
	ck_assert_uint_eq(voffered(&b.d) & (BLK_F_RO | BLK_F_MQ), 0);
	ck_assert_uint_eq(voffered(&b.d) & (BLK_F_FLUSH | BLK_F_WCE), BLK_F_FLUSH | BLK_F_WCE);
	ck_assert_uint_eq(fake_cfg_read(b.m, 1, 0, 4), 0x10421af4);
}
END_TEST

START_TEST(sectors_are_read_and_written)
{
	uint8_t host[3 * SECTOR];
	uint32_t id, len;

	ck_assert_int_eq(blk_do(&b, IN, 5, DATA, SECTOR), ST_OK);
	ck_assert(all_are(mem(DATA, SECTOR), blk_byte(5), SECTOR));
	ck_assert(fake_used(&b.r[0], &id, &len));
	ck_assert_uint_eq(len, SECTOR + 1);
	memset(mem(DATA, 3 * SECTOR), 0x77, 3 * SECTOR);
	ck_assert_int_eq(blk_do(&b, OUT, BLK_SECTORS - 3, DATA, 3 * SECTOR), ST_OK);
	ck_assert(fake_used(&b.r[0], &id, &len));
	ck_assert_uint_eq(len, 1);
	host_read(BLK_SECTORS - 3, host, 3);
	ck_assert(all_are(host, 0x77, sizeof(host)));
	ck_assert_int_eq(blk_do(&b, FLUSH, 0, 0, 0), ST_OK);
	ck_assert_uint_eq(blk_fdatasyncs(&b), 1);
}
END_TEST

/* Pieces of header+data or of data+status, -1 marks what is device-writable from there on. */
static const struct framing {
	const char *what;
	uint32_t type;
	int out[8], in[8]; /* lengths, 0 ends */
	bool indirect;
} framings[] = {
	{"usual read", IN, {16}, {1024, 1}, false},
	{"read, status with the data", IN, {16}, {1025}, false},
	{"read, header in pieces", IN, {1, 7, 8}, {1024, 1}, false},
	{"read, everything odd", IN, {3, 13}, {1, 510, 2, 511, 1}, false},
	{"read, indirect", IN, {16}, {512, 512, 1}, true},
	{"read, more to read than a header", IN, {16, 100}, {1024, 1}, false},
	{"usual write", OUT, {16, 1024}, {1}, false},
	{"write, header with the data", OUT, {1040}, {1}, false},
	{"write, across the end of the header", OUT, {10, 100, 930}, {1}, false},
	{"write, single bytes", OUT, {1, 1, 1, 1, 1, 1, 1034}, {1}, false},
	{"write, indirect", OUT, {16, 1, 1023}, {1}, true},
	{"write, room behind", OUT, {16, 1024}, {9}, false},
};

START_TEST(framing_means_nothing)
{
	const struct framing *f = &framings[_i];
	uint64_t at = DATA, status = 0, table = f->indirect ? TABLE : b.r[0].l.desc + 16;
	uint8_t want[1024], *data;
	unsigned n = 0, total = 0;

	while (total < 8 && f->out[total])
		total++;
	for (unsigned k = 0; k < 8 && f->in[k]; k++)
		total++;
	/* Descriptor 0 leads to the rest, which begins at 1 in the ring and at 0 in a table. */
	memset(mem(DATA, 4096), 0x11, 4096);
	memcpy(mem(DATA, 16), mem(blk_hdr(&b, 0, f->type, 9), 16), 16);
	data = mem(DATA + 16, 1024);
	for (unsigned k = 0; k < 16 + 1024 && f->type == OUT; k++)
		data[k % 1024] = (uint8_t)(k % 1024 / 3);
	for (int dir = 0; dir < 2; dir++) {
		const int *piece = dir ? f->in : f->out;

		for (unsigned k = 0; k < 8 && piece[k]; k++, n++) {
			unsigned next = n + 1 + !f->indirect;

			unsigned flags = (dir ? W : 0) | (n + 1 < total ? N : 0);

			fake_desc_at(&b.m->mem, table, n, at, (uint32_t)piece[k],
				(uint16_t)flags, (uint16_t)next);
			at += (unsigned)piece[k];
			status = at - 1;
		}
		if (!dir && f->type == IN)
			data = mem(at, 1024);
	}
	if (f->indirect)
		fake_desc(&b.r[0], 0, TABLE, 16 * total, I, 0);
	fake_avail(&b.r[0], f->indirect ? 0 : 1);
	blk_publish(&b, 0);
	ck_assert_msg(blk_all_back(&b, 0), "%s", f->what);
	ck_assert_msg(*mem(status, 1) == ST_OK, "%s: %u", f->what, *mem(status, 1));
	if (f->type == OUT) {
		host_read(9, want, 2);
		ck_assert_msg(!memcmp(want, data, sizeof(want)), "%s", f->what);
	} else {
		ck_assert(all_are(data, blk_byte(9), SECTOR));
		ck_assert(all_are(data + SECTOR, blk_byte(10), SECTOR));
	}
}
END_TEST

static const struct {
	uint32_t type;
	uint64_t sector;
	uint32_t len;
	int status;
} requests[] = {
	{IN, BLK_SECTORS, SECTOR, ST_IOERR},
	{IN, BLK_SECTORS - 1, 2 * SECTOR, ST_IOERR},
	{IN, UINT64_MAX, SECTOR, ST_IOERR},
	{IN, 1ULL << 55, SECTOR, ST_IOERR}, /* times 512: 0 */
	{IN, (1ULL << 55) + 1, SECTOR, ST_IOERR},
	{IN, 0, SECTOR - 1, ST_IOERR},
	{IN, 0, SECTOR + 1, ST_IOERR},
	{IN, 3, 0, ST_OK},
	{IN, BLK_SECTORS + 1, 0, ST_IOERR},
	{IN, 0, BLK_SECTORS * SECTOR, ST_OK},
	{OUT, BLK_SECTORS, SECTOR, ST_IOERR},
	{OUT, UINT64_MAX, SECTOR, ST_IOERR},
	{OUT, (1ULL << 55), SECTOR, ST_IOERR},
	{OUT, 0, 100, ST_IOERR},
	{OUT, 3, 0, ST_OK},
	{FLUSH, UINT64_MAX, 0, ST_OK},
	{2, 0, SECTOR, ST_UNSUPP},
	{5, 0, 0, ST_UNSUPP},
	{10, 0, 6, ST_UNSUPP},
	{11, 0, 16, ST_IOERR},
	{13, 0, 16, ST_IOERR},
	{0x80000000, 0, SECTOR, ST_UNSUPP},
	{UINT32_MAX, 0, 0, ST_UNSUPP},
};

START_TEST(a_request_gets_its_status)
{
	uint8_t host[SECTOR];
	uint32_t id, len;

	ck_assert_int_eq(blk_do(&b, requests[_i].type, requests[_i].sector, 0x80000,
				 requests[_i].len),
		requests[_i].status);
	ck_assert(fake_used(&b.r[0], &id, &len));
	ck_assert_uint_le(len, requests[_i].type == IN ? requests[_i].len + 1 : 1);
	ck_assert(!fake_used(&b.r[0], &id, &len));
	host_read(0, host, 1);
	ck_assert(all_are(host, blk_byte(0), SECTOR));
	ck_assert_uint_eq(vstatus(&b.d), 0x0f);
}
END_TEST

static const struct {
	const char *what;
	uint32_t out, in;    /* bytes of the two descriptors; 0: left out */
	uint64_t in_gpa;
	int status;	     /* -1: there is no place for it */
} malformed[] = {
	{"header too short", 15, 1, 0x2000, ST_IOERR},
	{"no header", 0, 1, 0x2000, ST_IOERR},
	{"only what could be a status", 0, 512, 0x2000, ST_IOERR},
	{"no status", 16, 0, 0, -1},
	{"status outside RAM", 16, 1, 1ULL << 45, -1},
	{"status at the end of RAM, one more", 16, 2, FAKE_LOW_BYTES - 1, -1},
};

START_TEST(a_malformed_request_comes_back_too)
{
	uint64_t h = blk_hdr(&b, 0, IN, 0);
	uint32_t id, len;
	uint8_t *last = malformed[_i].status < 0 ? NULL : mem(0x2000, 512) + malformed[_i].in - 1;

	if (malformed[_i].out)
		fake_desc(&b.r[0], 3, h, malformed[_i].out, malformed[_i].in ? N : 0, 4);
	if (malformed[_i].in)
		fake_desc(&b.r[0], 4, malformed[_i].in_gpa, malformed[_i].in, W, 0);
	fake_avail(&b.r[0], malformed[_i].out ? 3 : 4);
	blk_publish(&b, 0);
	ck_assert_msg(blk_all_back(&b, 0), "%s", malformed[_i].what);
	ck_assert(fake_used(&b.r[0], &id, &len));
	ck_assert_uint_eq(id, malformed[_i].out ? 3 : 4);
	ck_assert_uint_le(len, 1);
	if (last)
		ck_assert_uint_eq(*last, ST_IOERR);
	ck_assert_int_eq(!!(vstatus(&b.d) & STATUS_NEEDS_RESET), !last);
}
END_TEST

START_TEST(a_broken_ring_needs_a_reset_which_helps)
{
	fake_desc(&b.r[0], 0, 0x1000, 1, N, 0);
	fake_avail(&b.r[0], 0);
	blk_publish(&b, 0);
	ck_assert(fake_wait(vstatus(&b.d) & STATUS_NEEDS_RESET));
	ck_assert(fake_blk_start(&b, USUAL, 1, 64));
	ck_assert_uint_eq(vstatus(&b.d), 0x0f);
	ck_assert_int_eq(blk_do(&b, IN, 1, DATA, SECTOR), ST_OK);
}
END_TEST

START_TEST(the_serial_number_fits_any_buffer)
{
	static const uint32_t lens[] = {1, 19, 20, 21, 100};

	for (unsigned i = 0; i < ARRAY_SIZE(lens); i++) {
		memset(mem(DATA, 128), 0x55, 128);
		ck_assert_int_eq(blk_do(&b, GET_ID, 0, DATA, lens[i]), ST_OK);
		ck_assert(!memcmp(mem(DATA, 20), "serial-0123456789abc",
			min_u64(lens[i], 20)));
		ck_assert_uint_eq(*mem(DATA + min_u64(lens[i], 20), 1), 0x55);
	}
}
END_TEST

/*
 * The slots of a small queue are all in flight again and again; a driver that rings only
 * when it is asked to must not be left waiting.
 */
START_TEST(a_full_queue_does_not_stall)
{
	struct virtio_blk_opts o = {.queue_size = 4};

	teardown();
	fake_blk_open(&b, CACHE_WRITEBACK, false, &o);
	ck_assert(fake_blk_start(&b, _i ? USUAL : USUAL & ~VIRTIO_F_EVENT_IDX, 1, 4));
	for (unsigned k = 0; k < 4; k++) {
		uint64_t h = blk_hdr(&b, k, IN, k);

		fake_desc_at(&b.m->mem, TABLE + 64 * k, 0, h, 16, N, 1);
		fake_desc_at(&b.m->mem, TABLE + 64 * k, 1, DATA + SECTOR * k, SECTOR, N | W, 2);
		fake_desc_at(&b.m->mem, TABLE + 64 * k, 2, h + 16, 1, W, 0);
		fake_desc(&b.r[0], k, TABLE + 64 * k, 48, I, 0);
	}
	for (unsigned done = 0; done < 3000;) {
		uint32_t id, len;

		while ((uint16_t)(b.r[0].avail_idx - b.r[0].seen_used) < 4)
			fake_avail(&b.r[0], b.r[0].avail_idx % 4);
		blk_publish(&b, 0);
		ck_assert(fake_wait(fake_used_idx(&b.r[0]) != b.r[0].seen_used));
		while (fake_used(&b.r[0], &id, &len))
			done++;
	}
	ck_assert_uint_eq(vstatus(&b.d), 0x0f);
}
END_TEST

/* Against the rules, but each chain comes back for each time that it was offered. */
START_TEST(more_in_flight_than_the_queue_holds)
{
	struct virtio_blk_opts o = {.queue_size = 4};
	_Atomic uint16_t *avail_event;

	teardown();
	fake_blk_open(&b, CACHE_WRITEBACK, false, &o);
	ck_assert(fake_blk_start(&b, USUAL, 1, 4));
	fake_desc(&b.r[0], 0, TABLE, 48, I, 0);
	fake_desc_at(&b.m->mem, TABLE, 0, blk_hdr(&b, 0, IN, 1), 16, N, 1);
	fake_desc_at(&b.m->mem, TABLE, 1, DATA, SECTOR, N | W, 2);
	fake_desc_at(&b.m->mem, TABLE, 2, BLK_HDR + 16, 1, W, 0);
	avail_event = fake_u16(&b.r[0], b.r[0].l.used + 4 + 8 * 4);
	fake_disk_hold(&b.disk);
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned k = 0; k < 4; k++)
			fake_avail(&b.r[0], 0);
		blk_publish(&b, 0);
		ck_assert(fake_wait(atomic_load(avail_event) == 4));
	}
	ck_assert_uint_eq(fake_used_idx(&b.r[0]), 0);
	ck_assert(blk_all_back(&b, 0));
	ck_assert_uint_eq(vstatus(&b.d), 0x0f);
}
END_TEST

START_TEST(queues_work_side_by_side)
{
	struct virtio_blk_opts o = {.num_queues = 4};

	teardown();
	fake_blk_open(&b, CACHE_NONE, false, &o);
	ck_assert(fake_blk_start(&b, USUAL | BLK_F_MQ, 4, 64));
	ck_assert_uint_eq(vread(&b.d, b.d.config + 34, 2), 4);
	vmsix_control(&b.d, 0x8000);
	for (unsigned q = 0; q < 4; q++) {
		vmsix_entry(&b.d, q, q);
		vwrite(&b.d, b.d.common + COMMON_QUEUE_SELECT, q, 2);
		vwrite(&b.d, b.d.common + COMMON_QUEUE_VECTOR, q, 2);
	}
	for (unsigned q = 0; q < 4; q++) {
		for (unsigned k = 0; k < 20; k++)
			blk_put(&b, q, 3 * k, IN, 20 * q + k, DATA + SECTOR * (20 * q + k), SECTOR);
		blk_publish(&b, q);
	}
	for (unsigned q = 0; q < 4; q++) {
		ck_assert(blk_all_back(&b, q));
		ck_assert(fake_wait(atomic_load(&b.m->irqs.msi[q].fired) > 0));
		ck_assert_int_le(atomic_load(&b.m->irqs.msi[q].fired), 20);
	}
	for (unsigned k = 0; k < 80; k++)
		ck_assert(all_are(mem(DATA + SECTOR * k, SECTOR), blk_byte(k), SECTOR));
}
END_TEST

/* How a driver or the machine can stop a queue with requests in flight. */
static void stop_by(int how)
{
	switch (how) {
	case 0:
		vwrite(&b.d, b.d.common + COMMON_STATUS, 0, 1);
		ck_assert_uint_eq(vstatus(&b.d), 0);
		break;
	case 1:
		b.dev->ops->reset(b.dev);
		break;
	case 2:
		b.dev->ops->stop(b.dev);
		break;
	default:
		vwrite(&b.d, b.d.common + COMMON_QUEUE_SELECT, 0, 2);
		vwrite(&b.d, b.d.common + COMMON_QUEUE_RESET, 1, 2);
		ck_assert_uint_eq(vread(&b.d, b.d.common + COMMON_QUEUE_RESET, 2), 0);
	}
}

START_TEST(a_reset_waits_for_what_is_in_flight)
{
	uint8_t host[SECTOR];
	uint16_t used;

	ck_assert(fake_blk_start(&b, USUAL | VIRTIO_F_RING_RESET, 1, 64));
	memset(mem(DATA, 20 * SECTOR), 0x55, 20 * SECTOR);
	fake_disk_hold(&b.disk);
	for (unsigned k = 0; k < 20; k++)
		blk_put(&b, 0, 3 * k, k % 3 ? IN : OUT, k, DATA + SECTOR * k, SECTOR);
	blk_publish(&b, 0);
	/* Taken, as the device says, and kept by the host. */
	ck_assert(fake_wait(atomic_load(fake_u16(&b.r[0], b.r[0].l.used + 4 + 8 * 64)) == 20));
	ck_assert_uint_eq(fake_used_idx(&b.r[0]), 0);
	stop_by(_i);
	ck_assert(atomic_load(&b.disk.hold.released));
	/* Nobody writes to the ring or the buffers from here on. */
	host_read(0, host, 1);
	ck_assert(all_are(host, 0x55, SECTOR));
	used = fake_used_idx(&b.r[0]);
	memset(mem(DATA, 20 * SECTOR), 0x99, 20 * SECTOR);
	vkick(&b.d, 0);
	nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
	ck_assert_uint_eq(fake_used_idx(&b.r[0]), used);
	ck_assert(all_are(mem(DATA, 20 * SECTOR), 0x99, 20 * SECTOR));
	/* And a new driver finds a device that works. */
	ck_assert(fake_blk_start(&b, USUAL, 1, 64));
	ck_assert_int_eq(blk_do(&b, IN, 100, DATA, SECTOR), ST_OK);
}
END_TEST

START_TEST(one_queue_resets_while_the_other_works)
{
	struct virtio_blk_opts o = {.num_queues = 2};

	teardown();
	fake_blk_open(&b, CACHE_WRITEBACK, false, &o);
	ck_assert(fake_blk_start(&b, USUAL | BLK_F_MQ | VIRTIO_F_RING_RESET, 2, 64));
	for (unsigned round = 0; round < 5; round++) {
		fake_disk_hold(&b.disk);
		for (unsigned q = 0; q < 2; q++) {
			for (unsigned k = 0; k < 20; k++)
				blk_put(&b, q, 3 * k, IN, k, DATA + SECTOR * k, SECTOR);
			blk_publish(&b, q);
		}
		vwrite(&b.d, b.d.common + COMMON_QUEUE_SELECT, 1, 2);
		vwrite(&b.d, b.d.common + COMMON_QUEUE_RESET, 1, 2);
		ck_assert(blk_all_back(&b, 0));
		fake_ring_init(&b.r[1], &b.m->mem, 1, 64);
		b.r[1].l.event_idx = true;
		vqueue_setup(&b.d, 1, &b.r[1].l);
	}
	ck_assert_uint_eq(vstatus(&b.d), 0x0f);
}
END_TEST

/* 20 requests that are answered in one turn; then one at a time. */
START_TEST(one_turn_raises_one_interrupt)
{
	ck_assert(fake_blk_start(&b, BLK_F_FLUSH, 1, 64));
	vmsix_control(&b.d, 0x8000);
	vmsix_entry(&b.d, 0, 0x40);
	vwrite(&b.d, b.d.common + COMMON_QUEUE_SELECT, 0, 2);
	vwrite(&b.d, b.d.common + COMMON_QUEUE_VECTOR, 0, 2);
	for (unsigned k = 0; k < 20; k++)
		blk_put(&b, 0, 3 * k, GET_ID, 0, DATA + 32 * k, 20);
	blk_publish(&b, 0);
	ck_assert(blk_all_back(&b, 0));
	ck_assert(fake_wait(atomic_load(&b.m->irqs.msi[0].fired) > 0));
	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	ck_assert_int_eq(atomic_load(&b.m->irqs.msi[0].fired), 1);
	/* The driver wants to hear of the 10th: not before, and once. */
	ck_assert(fake_blk_start(&b, USUAL, 1, 64));
	vwrite(&b.d, b.d.common + COMMON_QUEUE_SELECT, 0, 2);
	vwrite(&b.d, b.d.common + COMMON_QUEUE_VECTOR, 0, 2);
	atomic_store(fake_u16(&b.r[0], b.r[0].l.avail + 4 + 2 * 64), 9);
	for (unsigned k = 0; k < 20; k++) {
		ck_assert_int_eq(blk_do(&b, IN, k, DATA, SECTOR), ST_OK);
		nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
		ck_assert_int_eq(atomic_load(&b.m->irqs.msi[0].fired), k < 9 ? 1 : 2);
	}
}
END_TEST

/* While the vCPU waits for a flush, another one's doorbell and ISR accesses go through. */
static void *other_vcpu(void *arg)
{
	nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
	vread(&b.d, b.d.isr, 1);
	vkick(&b.d, 0);
	return (void *)(uintptr_t)atomic_load(&b.disk.hold.released);
}

START_TEST(waiting_for_the_cache_stops_only_who_asked)
{
	pthread_t other;
	void *late;

	ck_assert(fake_blk_start(&b, USUAL | BLK_F_WCE, 1, 64));
	ck_assert_int_eq(blk_do(&b, OUT, 1, DATA, SECTOR), ST_OK);
	fake_disk_hold(&b.disk);
	ck_assert_int_eq(pthread_create(&other, NULL, other_vcpu, NULL), 0);
	set_writeback(0);
	ck_assert(atomic_load(&b.disk.hold.released));
	ck_assert_uint_eq(writeback(), 0);
	pthread_join(other, &late);
	ck_assert_ptr_null(late);
}
END_TEST

/* ---- the cache bit ---- */

static const struct cache_case {
	enum cache_mode mode;
	uint64_t features;
	unsigned at_start;  /* writeback reads */
	unsigned off, on;   /* after writing 0, then 1 */
	unsigned syncs_a_write[3]; /* fdatasyncs a write costs: at the start, after 0, after 1 */
} caches[] = {
	{CACHE_WRITEBACK, BLK_F_FLUSH | BLK_F_WCE, 1, 0, 1, {0, 1, 0}},
	{CACHE_WRITEBACK, BLK_F_FLUSH, 1, 1, 1, {0, 0, 0}},
	{CACHE_WRITEBACK, BLK_F_WCE, 0, 0, 0, {1, 1, 1}},
	{CACHE_WRITEBACK, 0, 0, 0, 0, {1, 1, 1}},
	{CACHE_NONE, BLK_F_FLUSH | BLK_F_WCE, 1, 0, 1, {0, 1, 0}},
	{CACHE_WRITETHROUGH, BLK_F_FLUSH | BLK_F_WCE, 0, 0, 1, {1, 1, 0}},
	{CACHE_WRITETHROUGH, BLK_F_FLUSH, 0, 0, 0, {1, 1, 1}},
	{CACHE_WRITETHROUGH, BLK_F_WCE, 0, 0, 0, {1, 1, 1}},
	{CACHE_WRITETHROUGH, 0, 0, 0, 0, {1, 1, 1}},
	{CACHE_DIRECTSYNC, BLK_F_FLUSH | BLK_F_WCE, 0, 0, 1, {1, 1, 0}},
	{CACHE_UNSAFE, BLK_F_FLUSH | BLK_F_WCE, 1, 1, 1, {0, 0, 0}},
	{CACHE_UNSAFE, BLK_F_FLUSH, 1, 1, 1, {0, 0, 0}},
};

static unsigned syncs_of_a_write(void)
{
	uint64_t before = blk_fdatasyncs(&b);

	ck_assert_int_eq(blk_do(&b, OUT, 1, DATA, SECTOR), ST_OK);
	return (unsigned)(blk_fdatasyncs(&b) - before);
}

START_TEST(the_cache_bit_is_what_was_negotiated)
{
	const struct cache_case *c = &caches[_i];

	teardown();
	open_as(c->mode, false);
	ck_assert(fake_blk_start(&b, c->features, 1, 64));
	ck_assert_uint_eq(writeback(), c->at_start);
	ck_assert_uint_eq(syncs_of_a_write(), c->syncs_a_write[0]);
	set_writeback(0);
	ck_assert_uint_eq(writeback(), c->off);
	ck_assert_uint_eq(syncs_of_a_write(), c->syncs_a_write[1]);
	set_writeback(1);
	ck_assert_uint_eq(writeback(), c->on);
	ck_assert_uint_eq(syncs_of_a_write(), c->syncs_a_write[2]);
	/* A driver that cannot flush does not turn the drive's own bit. */
	if (!(c->features & BLK_F_FLUSH))
		ck_assert_int_eq(disk_wce(b.disk.disk), disk_wce_default(b.disk.disk));
}
END_TEST

START_TEST(switching_off_makes_durable_what_was_acknowledged)
{
	ck_assert(fake_blk_start(&b, USUAL | BLK_F_WCE, 1, 64));
	ck_assert_int_eq(blk_do(&b, OUT, 1, DATA, SECTOR), ST_OK);
	ck_assert_uint_eq(blk_fdatasyncs(&b), 0);
	set_writeback(0);
	ck_assert_uint_eq(blk_fdatasyncs(&b), 1);
	ck_assert_uint_eq(writeback(), 0);
}
END_TEST

START_TEST(the_next_driver_finds_the_mode_of_the_command_line)
{
	unsigned was;

	ck_assert(fake_blk_start(&b, USUAL | BLK_F_WCE, 1, 64));
	set_writeback(0);
	ck_assert(!disk_wce(b.disk.disk));
	ck_assert(fake_blk_start(&b, USUAL | BLK_F_WCE, 1, 64));
	was = writeback();
	ck_assert_uint_eq(was, 1);
	/* One that cannot flush, as in firmware, leaves no trace either. */
	ck_assert(fake_blk_start(&b, 0, 1, 64));
	ck_assert_uint_eq(writeback(), 0);
	ck_assert(fake_blk_start(&b, USUAL | BLK_F_WCE, 1, 64));
	ck_assert_uint_eq(writeback(), 1);
}
END_TEST

static struct fault_rule rules[2];
static unsigned n_rules;

static void add_fault(void *arg)
{
	fault_add(b.disk.fault, arg);
}

static void host_fails(unsigned op)
{
	struct fault_rule *r = &rules[n_rules++];

	*r = (struct fault_rule){
		.ops = FAULT_ON(op), .nth = 1, .and_all_after = true, .err = -EIO};
	fake_on_loop(&b.disk, add_fault, r);
}

START_TEST(a_failed_flush_leaves_the_bit_on)
{
	ck_assert(fake_blk_start(&b, USUAL | BLK_F_WCE, 1, 64));
	ck_assert_int_eq(blk_do(&b, OUT, 1, DATA, SECTOR), ST_OK);
	host_fails(FILE_FDATASYNC);
	set_writeback(0);
	ck_assert_uint_eq(writeback(), 1);
	ck_assert_int_eq(blk_do(&b, FLUSH, 0, 0, 0), ST_IOERR);
	ck_assert_uint_eq(vstatus(&b.d), 0x0f);
}
END_TEST

START_TEST(host_errors_reach_the_driver)
{
	uint32_t id, len;

	host_fails(FILE_READ);
	ck_assert_int_eq(blk_do(&b, IN, 1, DATA, SECTOR), ST_IOERR);
	ck_assert(fake_used(&b.r[0], &id, &len));
	ck_assert_uint_eq(len, 0); /* it is not known what of the data was written */
	host_fails(FILE_WRITE);
	ck_assert_int_eq(blk_do(&b, OUT, 1, DATA, SECTOR), ST_IOERR);
}
END_TEST

START_TEST(a_read_only_disk_flushes_and_refuses_writes)
{
	uint8_t host[SECTOR];

	teardown();
	open_as(CACHE_WRITEBACK, true);
	ck_assert_uint_ne(voffered(&b.d) & BLK_F_RO, 0);
	ck_assert(fake_blk_start(&b, USUAL, 1, 64)); /* without RO, even */
	memset(mem(DATA, SECTOR), 0xee, SECTOR);
	ck_assert_int_eq(blk_do(&b, OUT, 0, DATA, SECTOR), ST_IOERR);
	ck_assert_int_eq(blk_do(&b, FLUSH, 0, 0, 0), ST_OK);
	ck_assert_int_eq(blk_do(&b, IN, 0, DATA, SECTOR), ST_OK);
	host_read(0, host, 1);
	ck_assert(all_are(host, blk_byte(0), SECTOR));
}
END_TEST

START_TEST(impossible_options_are_refused)
{
	static const struct virtio_blk_opts bad[] = {{.num_queues = 17}, {.queue_size = 2},
		{.queue_size = 100}, {.queue_size = 2048}};
	struct device *dev;
	struct why why;

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		why.text[0] = 0;
		ck_assert_int_eq(virtio_blk_create(&b.m->s, b.disk.loop, b.disk.disk, &bad[i],
					 &dev, &why),
			-EINVAL);
		ck_assert(why.text[0]);
	}
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_blk");
	TCase *tc = tcase_create("virtio_blk");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_set_timeout(tc, 60);
	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, the_configuration_describes_the_disk);
	tcase_add_test(tc, sectors_are_read_and_written);
	tcase_add_loop_test(tc, framing_means_nothing, 0, ARRAY_SIZE(framings));
	tcase_add_loop_test(tc, a_request_gets_its_status, 0, ARRAY_SIZE(requests));
	tcase_add_loop_test(tc, a_malformed_request_comes_back_too, 0, ARRAY_SIZE(malformed));
	tcase_add_test(tc, a_broken_ring_needs_a_reset_which_helps);
	tcase_add_test(tc, the_serial_number_fits_any_buffer);
	tcase_add_loop_test(tc, a_full_queue_does_not_stall, 0, 2);
	tcase_add_test(tc, more_in_flight_than_the_queue_holds);
	tcase_add_test(tc, queues_work_side_by_side);
	tcase_add_loop_test(tc, a_reset_waits_for_what_is_in_flight, 0, 4);
	tcase_add_test(tc, one_queue_resets_while_the_other_works);
	tcase_add_test(tc, one_turn_raises_one_interrupt);
	tcase_add_test(tc, waiting_for_the_cache_stops_only_who_asked);
	tcase_add_loop_test(tc, the_cache_bit_is_what_was_negotiated, 0, ARRAY_SIZE(caches));
	tcase_add_test(tc, switching_off_makes_durable_what_was_acknowledged);
	tcase_add_test(tc, the_next_driver_finds_the_mode_of_the_command_line);
	tcase_add_test(tc, a_failed_flush_leaves_the_bit_on);
	tcase_add_test(tc, host_errors_reach_the_driver);
	tcase_add_test(tc, a_read_only_disk_flushes_and_refuses_writes);
	tcase_add_test(tc, impossible_options_are_refused);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
