/* SPDX-License-Identifier: MIT */
/*
 * test_monitor.c - the monitor without a guest: a client on its socket, a disk, a CD-ROM drive.
 *
 * "test_monitor serve PATH" is the same machine for somebody else's client, until that says quit.
 */
#include <check.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include "tests/support/fake_machine.h"
#include "tests/support/fake_ide.h"
#include "tests/support/image.h"
#include "tests/support/scratch.h"
#include "vmm/monitor.h"

#define BYTES (4 * MiB)

struct bed {
	struct fake_machine *m;
	struct device *host, *bridge, *ide;
	struct disks disks;
	struct monitor *mon;
	int fd; /* the client's */
	bool paused, quit;
	unsigned resets, presses;
	char path[108], spec[128], image[256];
	char in[65536]; /* not yet read as lines */
	size_t n;
};

static struct bed b;

/* ---- the machine ---- */

static const char *status(void *arg)
{
	return b.paused ? "paused" : "running";
}

static void do_stop(void *arg)
{
	b.paused = true;
	monitor_event(b.mon, "STOP", NULL);
}

static const char *do_cont(void *arg)
{
	b.paused = false;
	monitor_event(b.mon, "RESUME", NULL);
	return NULL;
}

static void press(void *arg)
{
	b.presses++;
}

static void do_reset(void *arg)
{
	b.resets++;
}

static void do_quit(void *arg)
{
	b.quit = true;
}

static bool no_powercut(void *arg)
{
	return false;
}

static int cpu_thread(void *arg, unsigned cpu)
{
	return (int)(getpid() + (pid_t)cpu);
}

static void devices_open(void)
{
	struct ide_drive_opts o[IDE_DRIVES] = {{0}};

	b.m = fake_machine_new();
	fake_mem_init(&b.m->mem);
	ck_assert_int_eq(pci_host_create(&b.m->s, &b.host), 0);
	ck_assert_int_eq(piix3_create(&b.m->s, &b.bridge), 0);
	o[0] = (struct ide_drive_opts){.loop = drive_loop(b.disks.slot[0].drive),
		.disk = drive_disk(b.disks.slot[0].drive)};
	o[3].cdrom = true;
	ck_assert_int_eq(ide_create(&b.m->s, o, &b.ide), 0);
	b.disks.slot[0].dev = b.disks.slot[1].dev = b.ide;
}

static void bed_open(const char *path)
{
	struct monitor_host h = {.name = "bed", .serial = "file:console", .disks = &b.disks,
		.status = status,
		.stop = do_stop, .io_error = do_stop, .cont = do_cont, .button = press,
		.reset = do_reset, .quit = do_quit, .powercut = no_powercut, .cpus = 2,
		.cpu_thread = cpu_thread};
	struct qcow2_create_opts q = {.size = BYTES};
	struct loop *l = scratch_loop(0);
	struct why why = {""};

	memset(&b, 0, sizeof(b));
	b.fd = -1;
	snprintf(b.path, sizeof(b.path), "%s", path);
	snprintf(b.spec, sizeof(b.spec), "unix:%s", path);
	snprintf(b.image, sizeof(b.image), "%s", image_path("monitor"));
	image_create_qcow2(l, b.image, &q);
	loop_free(l);
	b.disks = (struct disks){.n = 2, .wake_fd = -1};
	b.disks.slot[0].c = (struct drive_config){
		.disk = {.path = b.image, .format = "qcow2"}, .iface = DRIVE_IDE};
	b.disks.slot[1].c = (struct drive_config){
		.disk = {.readonly = true}, .iface = DRIVE_IDE, .index = 3, .cdrom = true};
	ck_assert_int_eq(drive_open(&b.disks.slot[0].c, 0, &b.disks.slot[0].drive, &why), 0);
	devices_open();
	h.wake_fd = eventfd(0, EFD_NONBLOCK);
	ck_assert_msg(!monitor_open(b.spec, &h, &b.mon, &why), "%s", why.text);
}

static void bed_close(void)
{
	struct drive_report r;

	if (b.fd >= 0)
		close(b.fd);
	close(monitor_host(b.mon)->wake_fd);
	monitor_close(b.mon);
	b.ide->ops->stop(b.ide);
	b.ide->ops->destroy(b.ide);
	b.bridge->ops->destroy(b.bridge);
	b.host->ops->destroy(b.host);
	for (unsigned i = 0; i < b.disks.n; i++) {
		if (b.disks.slot[i].drive)
			ck_assert_int_eq(drive_close(b.disks.slot[i].drive, &r, NULL), 0);
		free(b.disks.slot[i].path);
	}
	fake_mem_fini(&b.m->mem);
	fake_machine_free(b.m);
}

/* ---- the client ---- */

static void turn(void)
{
	struct pollfd f[] = {{.fd = monitor_fd(b.mon), .events = POLLIN},
		{.fd = monitor_host(b.mon)->wake_fd, .events = POLLIN}};
	uint64_t n;

	(void)!poll(f, 2, 10000);
	(void)!read(f[1].fd, &n, sizeof(n));
	monitor_turn(b.mon);
}

static void client_connect(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};

	snprintf(a.sun_path, sizeof(a.sun_path), "%s", b.path);
	b.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	ck_assert_int_eq(connect(b.fd, (struct sockaddr *)&a, sizeof(a)), 0);
}

/* The next line that the monitor has said, without waiting; NULL: none.  The caller drops it. */
static json_t *next_line(void)
{
	ssize_t got = recv(b.fd, b.in + b.n, sizeof(b.in) - b.n, MSG_DONTWAIT);
	char *end;
	json_t *o;

	b.n += got > 0 ? (size_t)got : 0;
	end = memmem(b.in, b.n, "\r\n", 2);
	if (!end)
		return NULL;
	o = json_loadb(b.in, (size_t)(end - b.in), 0, NULL);
	ck_assert_ptr_nonnull(o);
	b.n -= (size_t)(end + 2 - b.in);
	memmove(b.in, end + 2, b.n);
	return o;
}

static json_t *line(void)
{
	json_t *o;

	while (!(o = next_line()))
		turn();
	return o;
}

static void send_text(const char *text)
{
	ck_assert_int_eq(send(b.fd, text, strlen(text), MSG_NOSIGNAL), (ssize_t)strlen(text));
}

/* What came before the answer, by name. */
static char events[256];

/* The answer's "return"; it stays until the next one.  NULL: an error, and its words in wrong. */
static char wrong[512], class[64];

static const char *text_of(json_t *o, const char *key)
{
	return json_string_value(json_object_get(o, key));
}

static json_t *ask(const char *text)
{
	static json_t *last;
	json_t *o, *e, *result;

	events[0] = 0;
	send_text(text);
	while (json_object_get(o = line(), "event")) {
		ck_assert(json_is_integer(
			json_object_get(json_object_get(o, "timestamp"), "seconds")));
		snprintf(events + strlen(events), sizeof(events) - strlen(events), "%s ",
			json_string_value(json_object_get(o, "event")));
		json_decref(o);
	}
	json_decref(last);
	last = o;
	result = json_object_get(o, "return");
	e = json_object_get(o, "error");
	ck_assert((result != NULL) != (e != NULL));
	snprintf(wrong, sizeof(wrong), "%s", e ? text_of(e, "desc") : "");
	snprintf(class, sizeof(class), "%s", e ? text_of(e, "class") : "");
	return result;
}

static json_t *query(const char *command)
{
	char text[4200];

	snprintf(text, sizeof(text), "{\"execute\": \"%s\"}", command);
	return ask(text);
}

static const char *human(const char *words)
{
	char text[600];

	snprintf(text, sizeof(text),
		"{'execute': 'human-monitor-command', 'arguments': {'command-line': '%s'}}", words);
	for (char *p = text; *p; p++)
		if (*p == '\'')
			*p = '"';
	return json_string_value(ask(text));
}

static void negotiate(void)
{
	client_connect();
	json_decref(line());
	ck_assert_ptr_nonnull(query("qmp_capabilities"));
}

static const char *served; /* the socket's path; NULL: of no matter */

static void setup(void)
{
	bed_open(served ? served : image_path("mon.sock"));
}

static void teardown(void)
{
	bed_close();
	unlink(b.image);
}

/* ---- tests ---- */

START_TEST(nothing_goes_before_the_negotiation)
{
	json_t *hello, *qmp;

	client_connect();
	hello = line();
	qmp = json_object_get(hello, "QMP");
	ck_assert(json_is_array(json_object_get(qmp, "capabilities")));
	ck_assert(json_is_integer(json_object_get(
		json_object_get(json_object_get(qmp, "version"), "qemu"), "major")));
	json_decref(hello);
	ck_assert_ptr_null(query("query-status"));
	ck_assert_str_eq(class, "CommandNotFound");
	monitor_event(b.mon, "STOP", NULL); /* nobody is told yet */
	ck_assert_ptr_null(ask("{\"execute\": \"qmp_capabilities\","
			       " \"arguments\": {\"enable\": [\"oob\"]}}"));
	ck_assert_str_eq(events, "");
	ck_assert_ptr_nonnull(query("qmp_capabilities"));
	ck_assert_ptr_null(query("qmp_capabilities"));
	ck_assert_str_eq(class, "CommandNotFound");
	ck_assert_ptr_nonnull(query("query-status"));
}
END_TEST

START_TEST(what_is_no_command_is_refused_and_the_next_one_is_heard)
{
	static const char *const cases[][2] = {
		{"nonsense\n", "GenericError"},
		{"[1]", "GenericError"},
		{"{\"execute\": 3}", "GenericError"},
		{"{}", "GenericError"},
		{"{\"execute\": \"query-status\", \"other\": 1}", "GenericError"},
		{"{\"execute\": \"query-status\", \"arguments\": []}", "GenericError"},
		{"{\"execute\": \"query-status\", \"arguments\": {\"a\": 1}}", "GenericError"},
		{"{\"execute\": \"query-stats\"}", "CommandNotFound"},
		{"{\"execute\": \"eject\", \"arguments\": {\"device\": \"drive7\"}}",
			"DeviceNotFound"},
	};

	negotiate();
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		ck_assert_ptr_null(ask(cases[i][0]));
		ck_assert_str_eq(class, cases[i][1]);
		ck_assert_str_ne(wrong, "");
		ck_assert_ptr_nonnull(query("query-status"));
	}
}
END_TEST

START_TEST(every_query_that_is_listed_answers)
{
	char names[64][64];
	unsigned n = 0;
	json_t *a, *c;
	size_t i;

	negotiate();
	a = query("query-commands");
	json_array_foreach(a, i, c)
		if (n < ARRAY_SIZE(names) &&
			!strncmp(json_string_value(json_object_get(c, "name")), "query-", 6))
			snprintf(names[n++], sizeof(names[0]), "%s",
				json_string_value(json_object_get(c, "name")));
	ck_assert_uint_ge(n, 9);
	for (unsigned k = 0; k < n; k++)
		ck_assert_msg(query(names[k]), "%s: %s", names[k], wrong);
	ck_assert_str_eq(json_string_value(json_object_get(query("query-name"), "name")), "bed");
	a = query("query-cpus-fast");
	ck_assert_uint_eq(json_array_size(a), 2);
	ck_assert_int_eq(json_integer_value(json_object_get(json_array_get(a, 1), "thread-id")),
		getpid() + 1);
	a = query("query-chardev");
	ck_assert_str_eq(text_of(json_array_get(a, 0), "label"), "compat_monitor0");
	snprintf(names[0], sizeof(names[0]), "%.50s", b.path);
	ck_assert_ptr_nonnull(strstr(text_of(json_array_get(a, 0), "filename"), names[0]));
	ck_assert_str_eq(text_of(json_array_get(a, 1), "label"), "serial0");
	ck_assert_str_eq(text_of(json_array_get(a, 1), "filename"), "file");
	a = query("query-named-block-nodes");
	ck_assert_uint_eq(json_array_size(a), 1); /* the other has no disc */
	ck_assert_str_eq(json_string_value(json_object_get(json_array_get(a, 0), "node-name")),
		"drive0");
}
END_TEST

START_TEST(events_come_with_what_they_tell_of)
{
	negotiate();
	ck_assert_ptr_nonnull(query("stop"));
	ck_assert_str_eq(events, "STOP ");
	ck_assert_str_eq(
		json_string_value(json_object_get(query("query-status"), "status")), "paused");
	ck_assert_ptr_nonnull(query("cont"));
	ck_assert_str_eq(events, "RESUME ");
	ck_assert_ptr_nonnull(query("system_powerdown"));
	ck_assert_str_eq(events, "POWERDOWN ");
	ck_assert_uint_eq(b.presses, 1);
	ck_assert_ptr_nonnull(query("system_reset"));
	ck_assert_uint_eq(b.resets, 1);
	ck_assert_ptr_nonnull(query("quit"));
	ck_assert(b.quit);
}
END_TEST

/* A packet for the CD-ROM drive, the secondary channel's second. */
static void packet(unsigned command, unsigned how)
{
	uint16_t p[6] = {(uint16_t)command, 0, (uint16_t)how};

	out8(b.m, 0x176, 0xb0);
	out8(b.m, 0x171, 0);
	out8(b.m, 0x177, 0xa0);
	for (unsigned i = 0; i < 6; i++)
		out16(b.m, 0x170, p[i]);
	while (in8(b.m, 0x177) & 0x80)
		usleep(1000);
}

/* A command for the tray's drive, with more arguments; its words, "" if it was carried out. */
static const char *tray(const char *command, const char *more)
{
	char text[600];

	snprintf(text, sizeof(text), "{\"execute\": \"%s\", \"arguments\": {%s}}", command, more);
	return ask(text) ? "" : wrong;
}

static json_t *of_drive1(const char *key)
{
	return json_object_get(json_array_get(query("query-block"), 1), key);
}

#define MOVED "DEVICE_TRAY_MOVED "
#define CD    "\"id\": \"drive1\""

/* As QEMU 7.2 answers them, but that it names no drive by itself. */
START_TEST(a_tray_moves_for_the_guest_and_for_the_user)
{
	static const char locked[] = "Device 'drive1' is locked and force was not specified, "
				     "wait for tray to open and try again";
	char file[400];
	json_t *o;

	snprintf(file, sizeof(file), CD ", \"filename\": \"%s\"", scratch_file(1 * MiB));
	negotiate();
	packet(0x1b, 2); /* the guest opens it: nobody has asked anything */
	o = line();
	ck_assert_str_eq(text_of(o, "event"), "DEVICE_TRAY_MOVED");
	ck_assert(json_is_true(json_object_get(json_object_get(o, "data"), "tray-open")));
	ck_assert_str_eq(text_of(json_object_get(o, "data"), "device"), "drive1");
	json_decref(o);
	packet(0x1b, 2);
	packet(0x1b, 3); /* in, out, in, out: told once */
	packet(0x1b, 2);
	packet(0x1b, 3);
	packet(0x1b, 2);
	ck_assert_str_eq(tray("blockdev-open-tray", CD), "");
	ck_assert_str_eq(events, MOVED MOVED);
	packet(0x1e, 1);
	packet(0x1b, 3);
	ck_assert_str_eq(tray("blockdev-open-tray", CD), ""); /* asked for, that is all */
	ck_assert_str_eq(events, MOVED);
	ck_assert(json_is_false(of_drive1("tray_open")));
	ck_assert_str_eq(tray("eject", CD), locked);
	ck_assert_str_eq(tray("blockdev-change-medium", file), locked);
	ck_assert_str_eq(
		tray("blockdev-remove-medium", CD), "Tray of device 'drive1' is not open");
	ck_assert_str_eq(events, "");
	ck_assert_str_eq(tray("eject", CD ", \"force\": true"), "");
	ck_assert_str_eq(events, MOVED);
	ck_assert(json_is_true(of_drive1("tray_open")));
	ck_assert(json_is_false(of_drive1("locked")));
	ck_assert_str_eq(tray("eject", CD), "");
	ck_assert_str_eq(tray("blockdev-remove-medium", CD), "");
	ck_assert_str_eq(events, "");
	ck_assert_str_eq(tray("blockdev-close-tray", CD), "");
	ck_assert_str_eq(events, MOVED);
	ck_assert_str_eq(tray("blockdev-close-tray", CD), "");
	ck_assert_str_eq(events, "");
	ck_assert_str_eq(tray("blockdev-change-medium", file), "");
	ck_assert_str_eq(events, MOVED MOVED); /* out and in */
	ck_assert(json_is_false(of_drive1("tray_open")));
}
END_TEST

START_TEST(what_a_tray_is_not_asked)
{
	static const char *const cases[][3] = {
		{"blockdev-open-tray", "", "Need exactly one of 'device' and 'id'"},
		{"eject", "\"device\": \"drive1\", " CD, "Need exactly one of 'device' and 'id'"},
		{"blockdev-remove-medium", "", "Parameter 'id' is missing"},
		{"blockdev-remove-medium", "\"device\": \"drive1\"", "Parameter 'id' is missing"},
		{"blockdev-open-tray", "\"id\": \"no\"", "Device 'no' not found"},
		{"blockdev-open-tray", "\"id\": \"drive0\"", "Device 'drive0' is not removable"},
		{"blockdev-close-tray", "\"id\": \"drive0\"", "Device 'drive0' is not removable"},
		{"eject", "\"device\": \"drive0\", \"force\": true",
			"Device 'drive0' is not removable"},
		{"blockdev-remove-medium", "\"id\": \"drive0\"",
			"Device 'drive0' is not removable"},
		{"blockdev-close-tray", CD ", \"force\": true", "Parameter 'force' is unexpected"},
		{"eject", CD ", \"filename\": \"x\"", "Parameter 'filename' is unexpected"},
		{"blockdev-change-medium", CD, "Parameter 'filename' is missing"},
	};

	negotiate();
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		ck_assert_str_eq(tray(cases[i][0], cases[i][1]), cases[i][2]);
		ck_assert_str_eq(events, "");
	}
}
END_TEST

START_TEST(what_people_type_is_carried_out)
{
	const char *disc = scratch_file(1 * MiB);
	char text[400];

	negotiate();
	ck_assert_str_eq(human("info status"), "VM status: running\r\n");
	ck_assert_str_eq(human("stop"), "");
	ck_assert_str_eq(events, "STOP ");
	ck_assert_str_eq(human("info  status "), "VM status: paused\r\n");
	ck_assert_str_eq(human("c"), "");
	ck_assert_str_eq(human("info name"), "bed\r\n");
	ck_assert_ptr_nonnull(strstr(human("info chardev"), "serial0: filename=file\r\n"));
	ck_assert_ptr_nonnull(strstr(human("info cpus"), "\r\n  CPU #1: thread_id="));
	ck_assert_ptr_nonnull(strstr(human("info block"), b.image));
	ck_assert_ptr_nonnull(strstr(human("info blockstats"), "drive0: rd_operations=0 "));
	snprintf(text, sizeof(text), "change drive1 %s", disc);
	ck_assert_str_eq(human(text), "");
	ck_assert_ptr_nonnull(strstr(human("info block drive1"), disc));
	ck_assert_ptr_null(strstr(human("info block drive1"), b.image));
	ck_assert_str_eq(human("eject drive1"), "");
	ck_assert_str_eq(events, "DEVICE_TRAY_MOVED ");
	ck_assert_ptr_nonnull(strstr(human("info block drive1"), "[not inserted]"));
	ck_assert_ptr_nonnull(strstr(human("info block drive1"), "tray open"));
	/* What fails says so. */
	ck_assert_ptr_nonnull(strstr(human("eject drive0"), "Error: "));
	ck_assert_ptr_nonnull(strstr(human("eject"), "usage: eject "));
	ck_assert_ptr_nonnull(strstr(human("eject drive1 now"), "usage: eject "));
	ck_assert_ptr_nonnull(strstr(human("stop a b c d e f g h"), "usage: stop "));
	ck_assert_str_eq(human("migrate x"), "unknown command: 'migrate'\r\n");
	ck_assert_str_eq(human("info qtree"), "unknown command: 'info qtree'\r\n");
	ck_assert_str_eq(human(""), "");
}
END_TEST

/* A client that completes what is typed takes its words from here. */
START_TEST(all_that_can_be_typed_is_told)
{
	char all[4096], *rest = NULL, words[100];

	negotiate();
	snprintf(all, sizeof(all), "%s", human("help"));
	ck_assert_ptr_nonnull(strstr(all, "\r\neject [-f] device "));
	snprintf(all, sizeof(all), "%s", human("info"));
	for (char *one = strtok_r(all, "\r\n", &rest); one; one = strtok_r(NULL, "\r\n", &rest)) {
		ck_assert_int_eq(sscanf(one, "info %90s", words), 1);
		memmove(words + 5, words, strlen(words) + 1);
		memcpy(words, "info ", 5);
		ck_assert_ptr_null(strstr(human(words), "unknown"));
	}
}
END_TEST

START_TEST(somebody_else_says_quit)
{
	while (!b.quit)
		turn();
}
END_TEST

int main(int argc, char **argv)
{
	Suite *s = suite_create("monitor");
	TCase *tc = tcase_create("monitor");

	suite_add_tcase(s, tc);
	tcase_add_checked_fixture(tc, setup, teardown);
	if (argc == 3 && !strcmp(argv[1], "serve")) {
		served = argv[2];
		tcase_set_timeout(tc, 0);
		tcase_add_test(tc, somebody_else_says_quit);
		return scratch_main(s);
	}
	tcase_add_test(tc, nothing_goes_before_the_negotiation);
	tcase_add_test(tc, what_is_no_command_is_refused_and_the_next_one_is_heard);
	tcase_add_test(tc, every_query_that_is_listed_answers);
	tcase_add_test(tc, events_come_with_what_they_tell_of);
	tcase_add_test(tc, a_tray_moves_for_the_guest_and_for_the_user);
	tcase_add_test(tc, what_a_tray_is_not_asked);
	tcase_add_test(tc, what_people_type_is_carried_out);
	tcase_add_test(tc, all_that_can_be_typed_is_told);
	return scratch_main(s);
}
