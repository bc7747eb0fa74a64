/* SPDX-License-Identifier: MIT */
/*
 * monitor.c - the socket, the words that come through it, and who carries them out.
 *
 * A command is a JSON object; where it ends is found by counting brackets, because clients need not
 * end lines.  Nothing here waits for the client: one that does not read its answers is let
 * go, so that it cannot hold the machine's main thread.
 */
#include "vmm/monitor.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
#include "vmm/machine.h"
#include "vmm/version.h"

#define COMMAND_MAX 65536 /* bytes of one command */

struct seen {
	bool wce;
	enum wce_by by;
	uint64_t changes;
	uint32_t failed;
};

struct monitor {
	struct monitor_host host;
	struct sockaddr_un addr;
	int listen_fd;
	int fd;          /* the client; -1: none */
	bool negotiated; /* it has said qmp_capabilities */
	struct seen seen[MACHINE_DRIVES_MAX];
	unsigned tray_moves[MACHINE_DRIVES_MAX]; /* those that were told */
	/* The command that is coming in. */
	char buf[COMMAND_MAX];
	size_t n;
	unsigned depth;
	bool in_string, escaped;
};

/* ---- out ---- */

static void client_drop(struct monitor *m)
{
	if (m->fd >= 0)
		close(m->fd);
	m->fd = -1;
}

/* Takes o over. */
static void say(struct monitor *m, json_t *o)
{
	char *text = o && m->fd >= 0 ? json_dumps(o, JSON_COMPACT) : NULL;
	size_t len = text ? strlen(text) : 0;

	if (text) {
		struct iovec iov[] = {{text, len}, {(void *)(uintptr_t) "\r\n", 2}};
		struct msghdr msg = {.msg_iov = iov, .msg_iovlen = ARRAY_SIZE(iov)};

		if (sendmsg(m->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len + 2)
			client_drop(m);
	}
	free(text);
	json_decref(o);
}

void monitor_event(struct monitor *m, const char *name, json_t *data)
{
	struct timespec t;

	if (!m || m->fd < 0 || !m->negotiated) {
		json_decref(data);
		return;
	}
	clock_gettime(CLOCK_REALTIME, &t);
	say(m, json_pack("{s:{s:I, s:I}, s:s, s:o*}", "timestamp", "seconds", (json_int_t)t.tv_sec,
		       "microseconds", (json_int_t)t.tv_nsec / 1000, "event", name, "data", data));
}

static json_t *version(void)
{
	unsigned major = 0, minor = 0, micro = 0;

	if (sscanf(SLUICE_VERSION, "%u.%u.%u", &major, &minor, &micro) != 3)
		assert(!"three numbers");
	return json_pack("{s:{s:i, s:i, s:i}, s:s}", "qemu", "major", (int)major, "minor",
		(int)minor, "micro", (int)micro, "package", "sluice-" SLUICE_VERSION);
}

/* ---- commands ---- */

static json_t *cmd_capabilities(struct monitor *m, json_t *args, struct monitor_error *e)
{
	json_t *enable = json_object_get(args, "enable");

	if (enable && json_array_size(enable))
		return monitor_fail(e, "GenericError", "no capability can be enabled");
	if (m->negotiated)
		return monitor_fail(e, "CommandNotFound",
			"Capabilities negotiation is already complete, command ignored");
	m->negotiated = true;
	return json_object();
}

static json_t *cmd_version(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return version();
}

static json_t *cmd_status(struct monitor *m, json_t *args, struct monitor_error *e)
{
	const char *status = m->host.status(m->host.arg);

	return json_pack("{s:b, s:b, s:s}", "running", !strcmp(status, "running"), "singlestep", 0,
		"status", status);
}

static json_t *cmd_stop(struct monitor *m, json_t *args, struct monitor_error *e)
{
	m->host.stop(m->host.arg);
	return json_object();
}

static json_t *cmd_cont(struct monitor *m, json_t *args, struct monitor_error *e)
{
	const char *no = m->host.cont(m->host.arg);

	return no ? monitor_fail(e, "GenericError", "%s", no) : json_object();
}

static json_t *cmd_reset(struct monitor *m, json_t *args, struct monitor_error *e)
{
	m->host.reset(m->host.arg);
	return json_object();
}

static json_t *cmd_powerdown(struct monitor *m, json_t *args, struct monitor_error *e)
{
	m->host.button(m->host.arg);
	monitor_event(m, "POWERDOWN", NULL);
	return json_object();
}

static json_t *cmd_quit(struct monitor *m, json_t *args, struct monitor_error *e)
{
	m->host.quit(m->host.arg);
	return json_object();
}

static json_t *cmd_powercut(struct monitor *m, json_t *args, struct monitor_error *e)
{
	if (!m->host.powercut(m->host.arg))
		return monitor_fail(e, "GenericError", "no drive has powercut=");
	return json_object();
}

static json_t *cmd_name(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return json_pack("{s:s*}", "name", m->host.name);
}

static json_t *cmd_kvm(struct monitor *m, json_t *args, struct monitor_error *e)
{
	return json_pack("{s:b, s:b}", "enabled", 1, "present", 1);
}

static json_t *cmd_cpus(struct monitor *m, json_t *args, struct monitor_error *e)
{
	json_t *a = json_array();

	for (unsigned i = 0; i < m->host.cpus; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/machine/cpu[%u]", i);
		json_array_append_new(a,
			json_pack("{s:i, s:s, s:i, s:s}", "cpu-index", (int)i, "qom-path", path,
				"thread-id", m->host.cpu_thread(m->host.arg, i), "target",
				"x86_64"));
	}
	return a;
}

/* The serial port's other end, and this one. */
static json_t *cmd_chardev(struct monitor *m, json_t *args, struct monitor_error *e)
{
	char path[sizeof(m->addr.sun_path) + 32], serial[8];
	json_t *name;

	snprintf(path, sizeof(path), "unix:%s,server=on", m->addr.sun_path);
	/* "file" is all that QMP says of a file. */
	snprintf(serial, sizeof(serial), "%.*s", (int)strcspn(m->host.serial, ":"), m->host.serial);
	name = json_string(path);
	if (!name) /* a path need not be UTF-8 */
		name = json_string("unix");
	return json_pack("[{s:s, s:o, s:b}, {s:s, s:s, s:b}]", "label", "compat_monitor0",
		"filename", name, "frontend-open", 1, "label", "serial0", "filename", serial,
		"frontend-open", 1);
}

static monitor_command cmd_commands;

static const struct command {
	const char *name;
	monitor_command *fn;
	bool takes_arguments;
} commands[] = {
	{"qmp_capabilities", cmd_capabilities, true},
	{"query-version", cmd_version, false},
	{"query-commands", cmd_commands, false},
	{"query-status", cmd_status, false},
	{"query-name", cmd_name, false},
	{"query-kvm", cmd_kvm, false},
	{"query-cpus-fast", cmd_cpus, false},
	{"query-chardev", cmd_chardev, false},
	{"query-block", monitor_query_block, false},
	{"query-blockstats", monitor_query_blockstats, true},
	{"query-named-block-nodes", monitor_query_nodes, true},
	{"human-monitor-command", monitor_human, true},
	{"stop", cmd_stop, false},
	{"cont", cmd_cont, false},
	{"system_reset", cmd_reset, false},
	{"system_powerdown", cmd_powerdown, false},
	{"quit", cmd_quit, false},
	{"block_resize", monitor_resize, true},
	{"blockdev-snapshot-sync", monitor_overlay, true},
	{"blockdev-snapshot-internal-sync", monitor_snapshot, true},
	{"blockdev-snapshot-delete-internal-sync", monitor_snapshot_delete, true},
	{"eject", monitor_eject, true},
	{"blockdev-open-tray", monitor_open_tray, true},
	{"blockdev-close-tray", monitor_close_tray, true},
	{"blockdev-remove-medium", monitor_remove_medium, true},
	{"blockdev-change-medium", monitor_change_medium, true},
	{"x-block-set-write-cache", monitor_set_write_cache, true},
	{"x-powercut", cmd_powercut, false},
};

static json_t *cmd_commands(struct monitor *m, json_t *args, struct monitor_error *e)
{
	json_t *a = json_array();

	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		json_array_append_new(a, json_pack("{s:s}", "name", commands[i].name));
	return a;
}

static const struct command *find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static json_t *run(
	struct monitor *m, const struct command *c, json_t *args, struct monitor_error *e)
{
	if (json_object_size(args) && !c->takes_arguments)
		return monitor_fail(e, "GenericError", "%s takes no arguments", c->name);
	return c->fn(m, args, e);
}

json_t *monitor_call(struct monitor *m, const char *name, json_t *args, struct monitor_error *e)
{
	json_t *result = run(m, find(name), args, e);

	json_decref(args);
	return result;
}

static bool members_ok(json_t *o, struct monitor_error *e)
{
	const char *key;
	json_t *value;

	json_object_foreach(o, key, value) {
		if (!strcmp(key, "execute") || !strcmp(key, "arguments") || !strcmp(key, "id"))
			continue;
		monitor_fail(e, "GenericError", "QMP input member '%.400s' is unexpected", key);
		return false;
	}
	return true;
}

static json_t *execute(struct monitor *m, json_t *o, struct monitor_error *e)
{
	const char *name = json_string_value(json_object_get(o, "execute"));
	json_t *args = json_object_get(o, "arguments"), *none, *result;
	const struct command *c;

	if (!json_is_object(o))
		return monitor_fail(e, "GenericError", "QMP input must be a JSON object");
	if (!members_ok(o, e))
		return NULL;
	if (!name)
		return monitor_fail(e, "GenericError", "QMP input lacks member 'execute'");
	c = find(name);
	if (!m->negotiated && (!c || c->fn != cmd_capabilities))
		return monitor_fail(e, "CommandNotFound",
			"Expecting capabilities negotiation with 'qmp_capabilities'");
	if (!c)
		return monitor_fail(
			e, "CommandNotFound", "The command %s has not been found", name);
	if (args && !json_is_object(args))
		return monitor_fail(
			e, "GenericError", "QMP input member 'arguments' must be an object");
	none = json_object();
	result = run(m, c, args ? args : none, e);
	json_decref(none);
	return result;
}

static void handle(struct monitor *m, const char *text, size_t len)
{
	struct monitor_error e = {"GenericError", "out of memory"};
	json_error_t bad;
	json_t *o = json_loadb(text, len, JSON_REJECT_DUPLICATES, &bad);
	json_t *result = NULL, *answer;

	if (o)
		result = execute(m, o, &e);
	else
		monitor_fail(&e, "GenericError", "JSON parse error: %s", bad.text);
	answer = result ? json_pack("{s:o}", "return", result)
			: json_pack("{s:{s:s, s:s}}", "error", "class", e.class, "desc", e.desc);
	if (o && json_object_get(o, "id"))
		json_object_set(answer, "id", json_object_get(o, "id"));
	json_decref(o);
	say(m, answer);
}

/* ---- in ---- */

static void command_start(struct monitor *m)
{
	m->n = 0;
	m->depth = 0;
	m->in_string = m->escaped = false;
}

/* Has c, just added, ended the command? */
static bool command_ends(struct monitor *m, char c)
{
	if (m->in_string) {
		if (m->escaped)
			m->escaped = false;
		else if (c == '\\')
			m->escaped = true;
		else if (c == '"')
			m->in_string = false;
		return false;
	}
	if (c == '"')
		m->in_string = true;
	else if (c == '{' || c == '[')
		m->depth++;
	else if (c == '}' || c == ']')
		return m->depth <= 1 || !--m->depth;
	/* What is not inside brackets is no command: up to the end of the line it is refused. */
	return c == '\n' && !m->depth;
}

static void take(struct monitor *m, const char *p, size_t n)
{
	for (size_t i = 0; i < n && m->fd >= 0; i++) {
		if (!m->n && (p[i] == ' ' || p[i] == '\t' || p[i] == '\r' || p[i] == '\n'))
			continue;
		if (m->n == sizeof(m->buf)) {
			log_warn("-monitor: a command of more than %d bytes", COMMAND_MAX);
			client_drop(m);
			return;
		}
		m->buf[m->n++] = p[i];
		if (command_ends(m, p[i])) {
			handle(m, m->buf, m->n);
			command_start(m);
		}
	}
}

static void client_new(struct monitor *m)
{
	m->fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (m->fd < 0)
		return;
	command_start(m);
	m->negotiated = false;
	say(m, json_pack("{s:{s:o, s:[]}}", "QMP", "version", version(), "capabilities"));
}

static void client_read(struct monitor *m)
{
	char buf[4096];
	ssize_t n = recv(m->fd, buf, sizeof(buf), MSG_DONTWAIT);

	if (n > 0)
		take(m, buf, (size_t)n);
	else if (!n || (errno != EAGAIN && errno != EINTR))
		client_drop(m);
}

static void tell_trouble(struct monitor *m, const struct drive *d, const struct disk_trouble *t)
{
	static const char *const actions[] = {
		[ON_ERROR_REPORT] = "report",
		[ON_ERROR_STOP] = "stop",
		[ON_ERROR_IGNORE] = "ignore",
	};
	bool full = t->err == -ENOSPC || t->err == -EDQUOT;
	char name[16];

	snprintf(name, sizeof(name), "drive%u", drive_index(d));
	if (t->action == ON_ERROR_STOP && strcmp(m->host.status(m->host.arg), "io-error"))
		log_warn("%s: %s: %s; the guest is stopped, and the monitor's cont tries again",
			name, disk_path(drive_disk(d)), strerror(-t->err));
	monitor_event(m, "BLOCK_IO_ERROR",
		json_pack("{s:s, s:s, s:s, s:s, s:b, s:s}", "device", name, "node-name", name,
			"operation", t->op == BLK_READ ? "read" : "write", "action",
			actions[t->action], "nospace", (int)full, "reason", strerror(-t->err)));
	if (t->action == ON_ERROR_STOP)
		m->host.io_error(m->host.arg);
}

/* A tray that went and came back several times at once is told to have done so once. */
void monitor_tell_trays(struct monitor *m)
{
	for (unsigned i = 0; i < m->host.disks->n; i++) {
		const struct disks_slot *slot = &m->host.disks->slot[i];
		struct ide_cd_state s;
		unsigned moves;
		char name[16];

		if (!slot->c.cdrom || !ide_cd_state(slot->dev, slot->c.index, &s))
			continue;
		moves = s.moves - m->tray_moves[i];
		m->tray_moves[i] = s.moves;
		snprintf(name, sizeof(name), "drive%u", i);
		for (unsigned n = !moves ? 0 : moves % 2 ? 1 : 2; n > 0; n--)
			monitor_event(m, "DEVICE_TRAY_MOVED",
				json_pack("{s:s, s:s, s:b}", "device", name, "id", name,
					"tray-open", (int)(n == 1 ? s.open : !s.open)));
	}
}

/* Tells of changes since the last turn; several of one drive in one turn are told as one. */
static void look_at_drives(struct monitor *m)
{
	monitor_tell_trays(m);
	for (unsigned i = 0; i < m->host.disks->n; i++) {
		const struct drive *drive = m->host.disks->slot[i].drive;
		const struct disk *d = drive ? drive_disk(drive) : NULL;
		struct disk_trouble t;
		struct disk_stats s;

		if (!d) {
			m->seen[i] = (struct seen){0};
			continue;
		}
		disk_trouble(d, &t);
		if (t.n != m->seen[i].failed)
			tell_trouble(m, drive, &t);
		m->seen[i].failed = t.n;
		disk_stats_get(d, &s);
		if (s.wce_changes == m->seen[i].changes)
			continue;
		if (disk_wce(d) != m->seen[i].wce || disk_wce_by(d) != m->seen[i].by)
			monitor_event(m, "X_BLOCK_WRITE_CACHE_CHANGED", monitor_write_cache(drive));
		m->seen[i] = (struct seen){disk_wce(d), disk_wce_by(d), s.wce_changes, t.n};
	}
}

const struct monitor_host *monitor_host(const struct monitor *m)
{
	return &m->host;
}

int monitor_fd(const struct monitor *m)
{
	return !m ? -1 : m->fd >= 0 ? m->fd : m->listen_fd;
}

void monitor_turn(struct monitor *m)
{
	struct pollfd f = {.fd = monitor_fd(m), .events = POLLIN};

	if (!m)
		return;
	look_at_drives(m);
	if (poll(&f, 1, 0) <= 0)
		return;
	if (m->fd >= 0)
		client_read(m);
	else
		client_new(m);
	look_at_drives(m);
}

/* ---- the socket ---- */

static bool parse(const char *spec, struct sockaddr_un *a)
{
	size_t len;

	if (strncmp(spec, "unix:", 5))
		return false;
	spec += 5;
	len = strcspn(spec, ",");
	if (!len || len >= sizeof(a->sun_path))
		return false;
	*a = (struct sockaddr_un){.sun_family = AF_UNIX};
	memcpy(a->sun_path, spec, len);
	for (spec += len; *spec; spec += len) {
		static const char *const words[] = {
			"server", "server=on", "nowait", "wait=off", NULL};
		unsigned i = 0;

		len = strcspn(++spec, ",");
		while (words[i] && (strlen(words[i]) != len || strncmp(words[i], spec, len)))
			i++;
		if (!words[i])
			return false;
	}
	return true;
}

bool monitor_spec_ok(const char *spec)
{
	struct sockaddr_un a;

	return parse(spec, &a);
}

/* Removes a socket that nobody listens on any more. */
static int remove_stale(const struct sockaddr_un *a)
{
	struct stat st;
	int fd, err = 0;

	if (lstat(a->sun_path, &st))
		return 0;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	if (!connect(fd, (const struct sockaddr *)a, sizeof(*a)))
		err = -EADDRINUSE;
	else if (errno == ECONNREFUSED)
		err = unlink(a->sun_path) ? -errno : 0;
	else
		err = -errno;
	close(fd);
	return err;
}

static int listen_at(struct monitor *m)
{
	int err = remove_stale(&m->addr);

	if (err)
		return err;
	m->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (m->listen_fd < 0)
		return -errno;
	if (!bind(m->listen_fd, (struct sockaddr *)&m->addr, sizeof(m->addr)) &&
		!listen(m->listen_fd, 8))
		return 0;
	err = -errno;
	close(m->listen_fd);
	return err;
}

int monitor_open(
	const char *spec, const struct monitor_host *h, struct monitor **out, struct why *why)
{
	struct monitor *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->host = *h;
	m->fd = -1;
	err = parse(spec, &m->addr) ? listen_at(m) : -EINVAL;
	if (err) {
		why_set(why, err, "-monitor %s: %s", spec, strerror(-err));
		free(m);
		return err;
	}
	for (unsigned i = 0; i < h->disks->n; i++)
		if (h->disks->slot[i].drive)
			m->seen[i].wce = disk_wce(drive_disk(h->disks->slot[i].drive));
	disks_watch(h->disks, h->wake_fd);
	*out = m;
	return 0;
}

void monitor_close(struct monitor *m)
{
	if (!m)
		return;
	disks_watch(m->host.disks, -1);
	client_drop(m);
	close(m->listen_fd);
	unlink(m->addr.sun_path);
	free(m);
}
