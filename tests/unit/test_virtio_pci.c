/* SPDX-License-Identifier: MIT */
/*
 * test_virtio_pci.c - negotiation, queues, notifications and interrupts of a made-up device type.
 */
#include <check.h>
#include <poll.h>
#include "devices/virtio_pci.h"
#include "tests/support/fake_driver.h"

#define QUEUES	 3
#define QSIZE	 64
#define FEATURES (VIRTIO_F_EVENT_IDX | VIRTIO_F_RING_RESET | 0x21)

static struct fake_machine *m;
static struct device *host;
static struct virtio_pci v;
static struct fake_virtio d;

static struct {
	int starts[QUEUES], stops[QUEUES], resets;
	struct virtq_layout l[QUEUES];
	bool refuse_features;
	int start_err;
	uint8_t config[12];
	unsigned set_off, set_len, sets;
} t;

static void type_config_get(struct virtio_pci *p, uint8_t *image)
{
	memcpy(image, t.config, sizeof(t.config));
}

static void type_config_set(struct virtio_pci *p, unsigned off, const uint8_t *b, unsigned len)
{
	ck_assert_uint_le(off + len, sizeof(t.config));
	memcpy(t.config + off, b, len);
	t.set_off = off;
	t.set_len = len;
	t.sets++;
}

static bool type_features_ok(struct virtio_pci *p)
{
	return !t.refuse_features;
}

static int type_queue_start(struct virtio_pci *p, unsigned q, const struct virtq_layout *l)
{
	if (t.start_err)
		return t.start_err;
	ck_assert_int_eq(t.starts[q], t.stops[q]);
	t.starts[q]++;
	t.l[q] = *l;
	return 0;
}

static void type_queue_stop(struct virtio_pci *p, unsigned q)
{
	t.stops[q]++;
	ck_assert_int_eq(t.starts[q], t.stops[q]);
}

static void type_reset(struct virtio_pci *p)
{
	for (unsigned i = 0; i < QUEUES; i++)
		ck_assert_int_eq(t.starts[i], t.stops[i]);
	t.resets++;
}

static const struct virtio_type type = {
	.name = "made-up",
	.id = 42,
	.class_code = 0x00ff,
	.config_bytes = sizeof(t.config),
	.config_get = type_config_get,
	.config_set = type_config_set,
	.features_ok = type_features_ok,
	.queue_start = type_queue_start,
	.queue_stop = type_queue_stop,
	.reset = type_reset,
};

static void setup(void)
{
	memset(&t, 0, sizeof(t));
	memset(&v, 0, sizeof(v));
	m = fake_machine_new();
	ck_assert_int_eq(pci_host_create(&m->s, &host), 0);
	ck_assert_int_eq(virtio_pci_init(&v, &m->s, &type, FEATURES, QUEUES, QSIZE, false), 0);
	ck_assert_int_eq(virtio_pci_plug(&v), 0);
	ck_assert(fake_virtio_find(&d, m, 1));
}

static void teardown(void)
{
	virtio_pci_stop(&v);
	virtio_pci_unplug(&v);
	virtio_pci_fini(&v);
	host->ops->destroy(host);
	fake_machine_free(m);
}

static uint64_t common(unsigned off, unsigned len)
{
	return vread(&d, d.common + off, len);
}

static void set_common(unsigned off, uint64_t value, unsigned len)
{
	vwrite(&d, d.common + off, value, len);
}

static bool kicked(unsigned q)
{
	uint64_t n;

	return read(v.queue[q].kick_fd, &n, sizeof(n)) == sizeof(n);
}

static const struct virtq_layout some = {.size = 16, .desc = 0x1000, .avail = 0x2000,
	.used = 0x100003000};

static void drive(uint64_t features)
{
	ck_assert(vnegotiate(&d, features | VIRTIO_F_VERSION_1));
	for (unsigned i = 0; i < QUEUES; i++)
		vqueue_setup(&d, i, &some);
	vstatus_add(&d, STATUS_DRIVER_OK);
}

START_TEST(it_looks_like_a_modern_device)
{
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_DEVICE_ID, 2), 0x1040 + 42);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_REVISION, 1), 1);
	ck_assert_uint_ge(fake_cfg_read(m, 1, PCI_SUBSYS_ID, 2), 0x40);
	ck_assert_uint_eq(fake_cfg_read(m, 1, PCI_CLASS, 2), 0x00ff);
	ck_assert_uint_eq(fake_cfg_read(m, 1, d.msix_cap + 2, 2), QUEUES);
	ck_assert_uint_eq(common(COMMON_NUM_QUEUES, 2), QUEUES);
	ck_assert_uint_eq(voffered(&d), FEATURES | VIRTIO_F_VERSION_1);
	set_common(COMMON_OFFERED_SELECT, 2, 4);
	ck_assert_uint_eq(common(COMMON_OFFERED, 4), 0);
}
END_TEST

static const struct {
	uint64_t features;
	bool ok;
} negotiations[] = {
	{VIRTIO_F_VERSION_1, true},
	{VIRTIO_F_VERSION_1 | FEATURES, true},
	{VIRTIO_F_VERSION_1 | 0x20, true},
	{0, false},
	{FEATURES, false},
	{VIRTIO_F_VERSION_1 | 0x02, false},
	{VIRTIO_F_VERSION_1 | 1ULL << 63, false},
	{UINT64_MAX, false},
};

START_TEST(features_are_checked)
{
	ck_assert_int_eq(vnegotiate(&d, negotiations[_i].features), negotiations[_i].ok);
	vstatus_add(&d, STATUS_DRIVER_OK);
	ck_assert_int_eq(vstatus(&d) == 0x0f, negotiations[_i].ok);
	/* Too late to change them now. */
	set_common(COMMON_FEATURES_SELECT, 0, 4);
	if (negotiations[_i].ok) {
		set_common(COMMON_FEATURES, ~0u, 4);
		ck_assert_uint_eq(common(COMMON_FEATURES, 4), (uint32_t)negotiations[_i].features);
	}
}
END_TEST

START_TEST(the_type_has_the_last_word_on_features)
{
	t.refuse_features = true;
	ck_assert(!vnegotiate(&d, VIRTIO_F_VERSION_1));
	t.refuse_features = false;
	ck_assert(vnegotiate(&d, VIRTIO_F_VERSION_1));
}
END_TEST

START_TEST(status_bits_come_in_order_and_stay)
{
	set_common(COMMON_STATUS, STATUS_DRIVER_OK | STATUS_ACKNOWLEDGE, 1);
	ck_assert_uint_eq(vstatus(&d), STATUS_ACKNOWLEDGE);
	set_common(COMMON_STATUS, STATUS_NEEDS_RESET | 0x30, 1);
	ck_assert_uint_eq(vstatus(&d), STATUS_ACKNOWLEDGE);
	set_common(COMMON_STATUS, STATUS_FAILED, 1);
	ck_assert_uint_eq(vstatus(&d), STATUS_ACKNOWLEDGE | STATUS_FAILED);
	set_common(COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(vstatus(&d), 0);
	ck_assert_int_eq(t.resets, 1);
}
END_TEST

START_TEST(queues_start_with_driver_ok)
{
	ck_assert(vnegotiate(&d, VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX));
	vqueue_setup(&d, 1, &some);
	ck_assert_int_eq(t.starts[1], 0);
	vstatus_add(&d, STATUS_DRIVER_OK);
	ck_assert_int_eq(t.starts[1], 1);
	ck_assert_int_eq(t.starts[0] + t.starts[2], 0);
	ck_assert_uint_eq(t.l[1].size, 16);
	ck_assert_uint_eq(t.l[1].used, 0x100003000);
	ck_assert(t.l[1].event_idx && !t.l[1].indirect);
	/* A queue that is enabled late starts at once, and only once. */
	vqueue_setup(&d, 2, &some);
	set_common(COMMON_QUEUE_ENABLE, 1, 2);
	ck_assert_int_eq(t.starts[2], 1);
	vstatus_add(&d, STATUS_DRIVER_OK);
	ck_assert_int_eq(t.starts[1], 1);
	set_common(COMMON_STATUS, 0, 1);
	ck_assert_int_eq(t.stops[1] + t.stops[2], 2);
	set_common(COMMON_QUEUE_SELECT, 1, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_ENABLE, 2), 0);
	ck_assert_uint_eq(common(COMMON_QUEUE_SIZE, 2), QSIZE);
	ck_assert_uint_eq(common(COMMON_QUEUE_DESC, 8), 0);
}
END_TEST

START_TEST(a_live_queue_does_not_change)
{
	drive(0);
	set_common(COMMON_QUEUE_SELECT, 0, 2);
	set_common(COMMON_QUEUE_SIZE, 8, 2);
	set_common(COMMON_QUEUE_DESC, 0x5000, 4);
	set_common(COMMON_QUEUE_ENABLE, 0, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_SIZE, 2), 16);
	ck_assert_uint_eq(common(COMMON_QUEUE_DESC, 4), 0x1000);
	ck_assert_uint_eq(common(COMMON_QUEUE_ENABLE, 2), 1);
	ck_assert_int_eq(t.stops[0], 0);
	set_common(COMMON_QUEUE_RESET, 1, 2); /* not negotiated */
	ck_assert_int_eq(t.stops[0], 0);
}
END_TEST

START_TEST(sizes_must_be_powers_of_two)
{
	static const uint16_t bad[] = {0, 3, 63, QSIZE * 2, 0xffff};

	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		set_common(COMMON_QUEUE_SIZE, bad[i], 2);
		ck_assert_uint_eq(common(COMMON_QUEUE_SIZE, 2), QSIZE);
	}
	set_common(COMMON_QUEUE_SIZE, 1, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_SIZE, 2), 1);
}
END_TEST

START_TEST(a_queue_that_is_not_there_is_empty)
{
	set_common(COMMON_QUEUE_SELECT, QUEUES, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_SIZE, 2), 0);
	ck_assert_uint_eq(common(COMMON_QUEUE_VECTOR, 2), 0xffff);
	for (unsigned off = COMMON_QUEUE_SIZE; off < COMMON_BYTES; off += 2)
		set_common(off, 1, 2);
	set_common(COMMON_QUEUE_SELECT, 0xffff, 2);
	set_common(COMMON_QUEUE_ENABLE, 1, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_ENABLE, 2), 0);
}
END_TEST

START_TEST(one_queue_can_be_reset)
{
	drive(VIRTIO_F_RING_RESET);
	set_common(COMMON_QUEUE_SELECT, 1, 2);
	set_common(COMMON_QUEUE_RESET, 1, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_RESET, 2), 0);
	ck_assert_uint_eq(common(COMMON_QUEUE_ENABLE, 2), 0);
	ck_assert_int_eq(t.stops[1], 1);
	ck_assert_int_eq(t.stops[0] + t.stops[2], 0);
	vqueue_setup(&d, 1, &some);
	ck_assert_int_eq(t.starts[1], 2);
}
END_TEST

START_TEST(a_layout_that_does_not_start_needs_a_reset)
{
	t.start_err = -EINVAL;
	drive(0);
	ck_assert_uint_eq(vstatus(&d), 0x4f);
	t.start_err = 0;
	set_common(COMMON_STATUS, 0, 1);
	ck_assert_uint_eq(vstatus(&d), 0);
}
END_TEST

START_TEST(fields_can_be_reached_in_any_width)
{
	set_common(COMMON_QUEUE_SELECT, 1, 2);
	set_common(COMMON_QUEUE_DESC, 0x1122334455667788, 8);
	ck_assert_uint_eq(common(COMMON_QUEUE_DESC, 8), 0x1122334455667788);
	ck_assert_uint_eq(common(COMMON_QUEUE_DESC + 3, 2), 0x4455);
	set_common(COMMON_QUEUE_DESC + 3, 0xaabb, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_DESC, 8), 0x112233aabb667788);
	/* Vector, queue count, status, generation in one go. */
	ck_assert_uint_eq(common(COMMON_CONFIG_VECTOR, 4), 0xffff | QUEUES << 16);
	set_common(COMMON_CONFIG_VECTOR, 0x0000010700000002, 8);
	ck_assert_uint_eq(common(COMMON_CONFIG_VECTOR, 2), 2);
	ck_assert_uint_eq(vstatus(&d), 0x03); /* no FEATURES_OK, so no DRIVER_OK either */
	ck_assert_uint_eq(common(COMMON_NUM_QUEUES, 2), QUEUES);
	ck_assert_uint_eq(common(COMMON_QUEUE_SELECT, 2), 0);
	ck_assert_uint_eq(common(COMMON_BYTES - 2, 8), 0);
	ck_assert_uint_eq(vread(&d, d.bar + 0x7ffc, 4), 0);
}
END_TEST

START_TEST(every_queue_has_its_doorbell)
{
	ck_assert_int_eq(m->bus.bells, QUEUES);
	for (unsigned i = 0; i < QUEUES; i++) {
		bool found = false;

		for (int k = 0; k < m->bus.bells; k++)
			found |= m->bus.bell[k].fd == v.queue[i].kick_fd &&
				m->bus.bell[k].addr == d.notify + d.notify_stride * i;
		ck_assert(found);
		set_common(COMMON_QUEUE_SELECT, i, 2);
		ck_assert_uint_eq(common(COMMON_QUEUE_NOTIFY_OFF, 2), i);
	}
	/* Sizing and switching off and on leaves them alone; moving does not. */
	fake_cfg_write(m, 1, PCI_COMMAND, 0, 2);
	fake_cfg_write(m, 1, PCI_BAR0, ~0u, 4);
	fake_cfg_write(m, 1, PCI_BAR0, (uint32_t)d.bar, 4);
	fake_cfg_write(m, 1, PCI_COMMAND, PCI_COMMAND_MEM, 2);
	ck_assert_int_eq(m->bus.bell_dels, 0);
	fake_cfg_write(m, 1, PCI_BAR0, 0xf0000000, 4);
	ck_assert_int_eq(m->bus.bell_dels, QUEUES);
	ck_assert_int_eq(m->bus.bells, QUEUES);
	for (int k = 0; k < m->bus.bells; k++)
		ck_assert_uint_ge(m->bus.bell[k].addr, 0xf0000000);
}
END_TEST

START_TEST(a_write_that_leaves_the_kernel_rings_too)
{
	for (unsigned len = 1; len <= 4; len *= 2) {
		vwrite(&d, d.notify + d.notify_stride, 1, len);
		ck_assert(!kicked(0) && kicked(1) && !kicked(2));
	}
	vwrite(&d, d.notify, 0, 8); /* two at once */
	ck_assert(kicked(0) && kicked(1) && !kicked(2));
	vwrite(&d, d.notify + d.notify_stride * QUEUES, 0, 4);
	vwrite(&d, d.notify + 0xffc, 0, 4);
	ck_assert(!kicked(0) && !kicked(1) && !kicked(2));
	ck_assert_uint_eq(vread(&d, d.notify, 4), 0);
}
END_TEST

START_TEST(no_doorbell_to_be_had_is_no_failure)
{
	struct virtio_pci w = {0};

	m->bus.doorbells_fail = true;
	ck_assert_int_eq(virtio_pci_init(&w, &m->s, &type, FEATURES, 1, 2, false), 0);
	ck_assert_int_eq(virtio_pci_plug(&w), 0);
	ck_assert_int_eq(m->bus.bells, QUEUES);
	virtio_pci_unplug(&w);
	virtio_pci_fini(&w);
}
END_TEST

START_TEST(intx_is_held_until_isr_is_read)
{
	atomic_bool *line = &m->irqs.line[pci_gsi(1, 1)].level;

	drive(0);
	virtio_pci_queue_irq(&v, 0);
	ck_assert(atomic_load(line));
	virtio_pci_queue_irq(&v, 1);
	ck_assert_uint_eq(vread(&d, d.isr, 1), 1);
	ck_assert(!atomic_load(line));
	ck_assert_uint_eq(vread(&d, d.isr, 1), 0);
	virtio_pci_needs_reset(&v);
	virtio_pci_needs_reset(&v);
	ck_assert(atomic_load(line));
	ck_assert_uint_eq(vstatus(&d), 0x4f);
	ck_assert_uint_eq(vread(&d, d.isr, 4), 2);
	virtio_pci_queue_irq(&v, 0);
	set_common(COMMON_STATUS, 0, 1);
	ck_assert(!atomic_load(line));
	ck_assert_uint_eq(vread(&d, d.isr, 1), 0);
}
END_TEST

START_TEST(msix_replaces_intx)
{
	atomic_bool *line = &m->irqs.line[pci_gsi(1, 1)].level;

	drive(0);
	virtio_pci_queue_irq(&v, 0);
	vmsix_control(&d, 0x8000);
	ck_assert(!atomic_load(line));
	vmsix_entry(&d, 0, 0x40);
	vmsix_entry(&d, 2, 0x42);
	set_common(COMMON_CONFIG_VECTOR, 0, 2);
	set_common(COMMON_QUEUE_SELECT, 1, 2);
	set_common(COMMON_QUEUE_VECTOR, 2, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_VECTOR, 2), 2);
	virtio_pci_queue_irq(&v, 1);
	virtio_pci_queue_irq(&v, 0); /* has no vector */
	ck_assert_int_eq(atomic_load(&m->irqs.msi[2].fired), 1);
	virtio_pci_needs_reset(&v);
	ck_assert_int_eq(atomic_load(&m->irqs.msi[0].fired), 1);
	ck_assert(!atomic_load(line));
	/* There are QUEUES + 1 vectors. */
	set_common(COMMON_QUEUE_VECTOR, QUEUES + 1, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_VECTOR, 2), 0xffff);
	vmsix_control(&d, 0);
	ck_assert(atomic_load(line)); /* what isr still holds */
	vread(&d, d.isr, 1);
	ck_assert(!atomic_load(line));
}
END_TEST

START_TEST(the_generation_moves_between_reads_that_differ)
{
	unsigned g;

	for (unsigned i = 0; i < sizeof(t.config); i++)
		t.config[i] = (uint8_t)i;
	ck_assert_uint_eq(vread(&d, d.config + 4, 4), 0x07060504);
	g = (unsigned)common(COMMON_GENERATION, 1);
	ck_assert_uint_eq(vread(&d, d.config, 8), 0x0706050403020100);
	ck_assert_uint_eq(common(COMMON_GENERATION, 1), g);
	t.config[0] = 0xff;
	vread(&d, d.config + 8, 1);
	ck_assert_uint_ne(common(COMMON_GENERATION, 1), g);
	ck_assert_uint_eq(vread(&d, d.config + 10, 4), 0x0b0a);
	ck_assert_uint_eq(vread(&d, d.config + 0xff0, 8), 0);
}
END_TEST

START_TEST(configuration_writes_are_cut_to_its_size)
{
	vwrite(&d, d.config + 10, 0x11223344, 4);
	ck_assert_uint_eq(t.set_off, 10);
	ck_assert_uint_eq(t.set_len, 2);
	vwrite(&d, d.config + 12, 1, 8);
	vwrite(&d, d.config + 0xff8, 1, 8);
	ck_assert_uint_eq(t.sets, 1);
}
END_TEST

START_TEST(the_window_in_configuration_space_reaches_the_bar)
{
	unsigned cap = 0, w;

	while ((cap = fake_cap_find(m, 1, CAP_ID_VENDOR, cap)) != 0 &&
		fake_cfg_read(m, 1, cap + 3, 1) != CAP_TYPE_PCI_CFG)
		;
	ck_assert_uint_ne(cap, 0);
	w = cap + CAP_WINDOW;
	fake_cfg_write(m, 1, cap + CAP_BAR, 0, 1);
	fake_cfg_write(m, 1, cap + CAP_LENGTH, 2, 4);
	fake_cfg_write(m, 1, cap + CAP_OFFSET, COMMON_NUM_QUEUES, 4);
	ck_assert_uint_eq(fake_cfg_read(m, 1, w, 2), QUEUES);
	fake_cfg_write(m, 1, cap + CAP_OFFSET, COMMON_QUEUE_SELECT, 4);
	fake_cfg_write(m, 1, w, 2, 2);
	ck_assert_uint_eq(common(COMMON_QUEUE_SELECT, 2), 2);
	fake_cfg_write(m, 1, cap + CAP_OFFSET, (uint32_t)(d.notify - d.bar) + 4, 4);
	fake_cfg_write(m, 1, w, 1, 2);
	ck_assert(kicked(1));
	/* Nowhere: another BAR, past the end, an odd length, not aligned. */
	static const uint32_t bad[][3] = {{1, 0, 2}, {0, 0x8000, 2}, {0, 0xfffffffe, 2}, {0, 0, 3},
		{0, 0, 0}, {0, 0, 8}, {0, 21, 2}, {0, 0x7ffe, 4}};

	fake_cfg_write(m, 1, w, 0, 4);
	for (unsigned i = 0; i < ARRAY_SIZE(bad); i++) {
		fake_cfg_write(m, 1, cap + CAP_BAR, bad[i][0], 1);
		fake_cfg_write(m, 1, cap + CAP_OFFSET, bad[i][1], 4);
		fake_cfg_write(m, 1, cap + CAP_LENGTH, bad[i][2], 4);
		fake_cfg_write(m, 1, w, 1, 4);
		ck_assert_uint_eq(fake_cfg_read(m, 1, w, 4), 1);
	}
	ck_assert_uint_eq(common(COMMON_QUEUE_SELECT, 2), 2);
	ck_assert_int_eq(t.resets, 0);
}
END_TEST

START_TEST(reset_is_power_on_again)
{
	drive(0);
	vmsix_control(&d, 0x8000);
	vmsix_entry(&d, 0, 0x40);
	set_common(COMMON_CONFIG_VECTOR, 0, 2);
	fake_cfg_write(m, 1, PCI_BAR0, 0xf0000000, 4);
	virtio_pci_reset(&v);
	ck_assert_int_eq(t.resets, 2); /* vnegotiate() was the first */
	ck_assert(fake_virtio_find(&d, m, 1));
	ck_assert_uint_eq(d.bar, PCI_HOLE_BASE);
	ck_assert_uint_eq(vstatus(&d), 0);
	ck_assert_uint_eq(common(COMMON_CONFIG_VECTOR, 2), 0xffff);
	ck_assert_uint_eq(fake_cfg_read(m, 1, d.msix_cap + 2, 2), QUEUES);
	ck_assert_uint_eq(vread(&d, d.msix_table + 12, 4), 1);
}
END_TEST

/* Any width anywhere in the BAR and in configuration space. */
START_TEST(any_access_is_survived)
{
	uint64_t s = 0x9e3779b97f4a7c15ULL + (uint64_t)_i;

	log_level_set(LOG_ERROR);
	for (int i = 0; i < 40000; i++) {
		uint64_t off, value;
		unsigned len;

		s = s * 6364136223846793005ULL + 1442695040888963407ULL;
		off = s >> 33 & 0x7fff;
		if (s >> 48 & 1)
			off &= 0x707f;
		len = 1u << (s >> 49 & 3);
		s = s * 6364136223846793005ULL + 1442695040888963407ULL;
		value = s >> 63 ? s >> 20 : s >> 61;
		if ((s >> 40) % 64 == 0 && len < 8)
			fake_cfg_write(m, 1, (unsigned)(0x40 + off % 192) & ~(len - 1),
				(uint32_t)value, len);
		if (s >> 41 & 1)
			vwrite(&d, d.bar + off, value, len);
		else
			vread(&d, d.bar + off, len);
	}
	for (unsigned i = 0; i < QUEUES; i++)
		kicked(i);
}
END_TEST

int main(void)
{
	Suite *s = suite_create("virtio_pci");
	TCase *tc = tcase_create("virtio_pci");
	SRunner *sr = srunner_create(s);
	int failed;

	tcase_add_checked_fixture(tc, setup, teardown);
	tcase_add_test(tc, it_looks_like_a_modern_device);
	tcase_add_loop_test(tc, features_are_checked, 0, ARRAY_SIZE(negotiations));
	tcase_add_test(tc, the_type_has_the_last_word_on_features);
	tcase_add_test(tc, status_bits_come_in_order_and_stay);
	tcase_add_test(tc, queues_start_with_driver_ok);
	tcase_add_test(tc, a_live_queue_does_not_change);
	tcase_add_test(tc, sizes_must_be_powers_of_two);
	tcase_add_test(tc, a_queue_that_is_not_there_is_empty);
	tcase_add_test(tc, one_queue_can_be_reset);
	tcase_add_test(tc, a_layout_that_does_not_start_needs_a_reset);
	tcase_add_test(tc, fields_can_be_reached_in_any_width);
	tcase_add_test(tc, every_queue_has_its_doorbell);
	tcase_add_test(tc, a_write_that_leaves_the_kernel_rings_too);
	tcase_add_test(tc, no_doorbell_to_be_had_is_no_failure);
	tcase_add_test(tc, intx_is_held_until_isr_is_read);
	tcase_add_test(tc, msix_replaces_intx);
	tcase_add_test(tc, the_generation_moves_between_reads_that_differ);
	tcase_add_test(tc, configuration_writes_are_cut_to_its_size);
	tcase_add_test(tc, the_window_in_configuration_space_reaches_the_bar);
	tcase_add_test(tc, reset_is_power_on_again);
	tcase_add_loop_test(tc, any_access_is_survived, 0, 3);
	suite_add_tcase(s, tc);
	srunner_run_all(sr, CK_NORMAL);
	failed = srunner_ntests_failed(sr);
	srunner_free(sr);
	return failed != 0;
}
