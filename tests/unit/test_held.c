/* SPDX-License-Identifier: MIT */
/* test_held.c - what waits in the ring reaches its device in order, around the ring's end too. */
#include <check.h>
#include <linux/kvm.h>
#include <string.h>
#include "vmm/bus_dispatch.h"
#include "vmm/held.h"

#define SLOTS 5

static union {
	struct kvm_coalesced_mmio_ring ring;
	uint8_t bytes[sizeof(struct kvm_coalesced_mmio_ring) +
		SLOTS * sizeof(struct kvm_coalesced_mmio)];
} page;
static struct held h;
static uint8_t got[64];
static unsigned n_got, first_seen;

static void take(struct bus_range *r, uint64_t off, const void *data, unsigned len)
{
	ck_assert_uint_eq(len, 2);
	first_seen = page.ring.first;
	got[n_got++] = (uint8_t)off;
	got[n_got++] = *(const uint8_t *)data;
}

/* KVM's part. */
static void put(uint64_t port, uint8_t v)
{
	struct kvm_coalesced_mmio *e = &page.ring.coalesced_mmio[page.ring.last];

	ck_assert_uint_ne((page.ring.last + 1) % SLOTS, page.ring.first);
	*e = (struct kvm_coalesced_mmio){.phys_addr = port, .len = 2, .pio = 1};
	memset(e->data, v, 8);
	page.ring.last = (page.ring.last + 1) % SLOTS;
}

START_TEST(writes_arrive_in_order_and_then_the_ring_is_empty)
{
	struct bus_range r = {.write = take, .base = 0x1f0, .len = 8, .name = "taker"};
	uint8_t v = 0;
	struct bus *bus;

	ck_assert_int_eq(bus_new(NULL, 2, &bus), 0);
	ck_assert_int_eq(bus_add(bus, BUS_PORT, &r), 0);
	held_init(&h, &page, sizeof(page), bus, 1);
	held_settle(&h);
	ck_assert_uint_eq(n_got, 0);
	for (unsigned round = 0; round < 7; round++) {
		n_got = 0;
		for (unsigned i = 0; i < 3; i++)
			put(0x1f0 + i, ++v);
		unsigned first = page.ring.first;

		held_settle(&h);
		ck_assert_uint_eq(n_got, 6);
		for (unsigned i = 0; i < 3; i++) {
			ck_assert_uint_eq(got[2 * i], i);
			ck_assert_uint_eq(got[2 * i + 1], v - 2 + i);
		}
		/* The last one was still in the ring while its handler ran. */
		ck_assert_uint_eq(first_seen, (first + 2) % SLOTS);
		ck_assert_uint_eq(page.ring.first, page.ring.last);
	}
	held_fini(&h);
	held_init(&h, NULL, sizeof(page), bus, 1); /* a KVM without a ring */
	held_settle(&h);
	held_fini(&h);
	bus_remove(bus, BUS_PORT, &r);
	bus_free(bus);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("held");
	TCase *tc = tcase_create("held");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_test(tc, writes_arrive_in_order_and_then_the_ring_is_empty);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
