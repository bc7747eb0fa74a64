/* SPDX-License-Identifier: MIT */
/*
 * plugin.c - the nbdkit plugin: what NBD clients ask, put to the disk.
 *
 * nbdkit speaks the protocol and calls us from a pool of threads per client; server.c passes
 * their requests to the one thread that owns the disk.  All clients see the same disk, with one
 * write cache: a flush by any of them covers what all of them had been told was written, which
 * is what "multi-conn" promises.  The write cache's contract is the block layer's; FUA, trim
 * and write zeroes are passed on as they are.
 *
 * The disk is opened after nbdkit has forked, since threads and rings do not survive a fork.
 * `sluice nbd` therefore runs nbdkit in the foreground and does the forking itself: ready-fd
 * gets a byte when clients may come, and is closed without one if they never may.
 *
 * nbdkit 1.32 asks the kernel to be ended with its parent, whether it was told to or not; a
 * server that was started by a script outlives it, so outlive-parent= takes the wish back.
 *
 * As in qemu-nbd: one client at a time unless shared= says otherwise, others wait at the door;
 * when the last one has left, the server ends, unless it is persistent.  That is not the
 * last .close: a client that first asks for information is opened and closed for that.  Only the
 * sockets tell, and nbdkit closes a client's before it calls .close for good.  At a signal nbdkit
 * would wait until its clients leave; ours are made to, as qemu-nbd's are.  An image that cannot
 * be left clean makes the process end with status 1; nbdkit itself knows no such end.
 */
#define NBDKIT_API_VERSION 2
#include <nbdkit-plugin.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include "blockdev/nbd/server.h"

#define THREAD_MODEL NBDKIT_THREAD_MODEL_PARALLEL

#define BLOCK_PREFERRED 4096
#define REQUEST_MAX     (32 * MiB)
#define EXTENTS_MAX     512 /* in one answer; clients ask on */
#define FDS_MAX	        4096 /* a client's socket has a lower number */
#define DOOR_NS	        10000000 /* how often those who wait look whether there is room */

/* From the command line; strings are nbdkit's, which keeps them. */
static struct {
	struct disk_opts disk;
	char *path; /* absolute: a nbdkit that goes to the background changes directory */
	const char *given;
	enum loop_aio aio;
	unsigned shared; /* clients at once; 0: any number */
	bool persistent;
	bool outlive_parent;
	const char *name, *description;
	const char *remove; /* a file to remove at the end: the socket */
	int ready_fd;
} config = {.shared = 1, .name = "", .ready_fd = -1};

static struct server *server;
static bool background; /* nobody reads standard error any more: nbdkit has a log */

static bool inherited[FDS_MAX]; /* connected sockets that are no client's */
static const int end_signals[] = {SIGTERM, SIGINT, SIGQUIT};
static void (*nbdkit_handlers[ARRAY_SIZE(end_signals)])(int sig);

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* guards clients */
static unsigned clients;

/* ---- the command line ---- */

static int parse_bool(const char *value, bool *out)
{
	int b = nbdkit_parse_bool(value);

	*out = b > 0;
	return b < 0 ? -1 : 0;
}

static int parse_cache(const char *value)
{
	if (!cache_mode_parse(value, &config.disk.cache))
		return 0;
	nbdkit_error("cache=%s: expected writeback, none, writethrough, directsync or unsafe",
		value);
	return -1;
}

static int parse_discard(const char *value)
{
	config.disk.unmap = !strcmp(value, "unmap");
	if (config.disk.unmap || !strcmp(value, "ignore"))
		return 0;
	nbdkit_error("discard=%s: expected ignore or unmap", value);
	return -1;
}

static int parse_detect(const char *value)
{
	for (unsigned i = 0; detect_zeroes_names[i]; i++)
		if (!strcmp(value, detect_zeroes_names[i])) {
			config.disk.detect_zeroes = (enum detect_zeroes)i;
			return 0;
		}
	nbdkit_error("detect-zeroes=%s: expected off, on or unmap", value);
	return -1;
}

static int parse_aio(const char *value)
{
	if (!strcmp(value, "io_uring")) {
		config.aio = LOOP_AIO_URING;
	} else if (!strcmp(value, "threads")) {
		config.aio = LOOP_AIO_THREADS;
	} else {
		nbdkit_error("aio=%s: expected io_uring or threads", value);
		return -1;
	}
	return 0;
}

static int parse_file(const char *value)
{
	config.given = value;
	config.path = nbdkit_absolute_path(value);
	return config.path ? 0 : -1;
}

static int plugin_config(const char *key, const char *value)
{
	if (!strcmp(key, "file"))
		return parse_file(value);
	if (!strcmp(key, "cache"))
		return parse_cache(value);
	if (!strcmp(key, "discard"))
		return parse_discard(value);
	if (!strcmp(key, "detect-zeroes"))
		return parse_detect(value);
	if (!strcmp(key, "aio"))
		return parse_aio(value);
	if (!strcmp(key, "readonly"))
		return parse_bool(value, &config.disk.readonly);
	if (!strcmp(key, "persistent"))
		return parse_bool(value, &config.persistent);
	if (!strcmp(key, "outlive-parent"))
		return parse_bool(value, &config.outlive_parent);
	if (!strcmp(key, "shared"))
		return nbdkit_parse_unsigned("shared", value, &config.shared);
	if (!strcmp(key, "ready-fd"))
		return nbdkit_parse_int("ready-fd", value, &config.ready_fd);
	if (!strcmp(key, "format"))
		config.disk.format = value;
	else if (!strcmp(key, "export"))
		config.name = value;
	else if (!strcmp(key, "description"))
		config.description = value;
	else if (!strcmp(key, "remove"))
		config.remove = value;
	else {
		nbdkit_error("unknown parameter '%s'", key);
		return -1;
	}
	return 0;
}

static int plugin_config_complete(void)
{
	if (config.path)
		return 0;
	nbdkit_error("no image: say file=NAME");
	return -1;
}

static const char config_help[] =
	"[file=]FILE           (required) the image\n"
	"format=raw|qcow2      its format; guessed if not given\n"
	"cache=MODE            writeback, none, writethrough, directsync or unsafe\n"
	"discard=ignore|unmap  whether trims give space back\n"
	"detect-zeroes=MODE    off, on or unmap: writes of zeros need no data, or no space\n"
	"aio=io_uring|threads  how the host is asked\n"
	"readonly=BOOL         open the image read-only\n"
	"shared=N              clients at once (1); 0: any number\n"
	"persistent=BOOL       stay when the last client has left\n"
	"export=NAME           the export's name\n"
	"description=TEXT      and what lists of exports say of it\n"
	"remove=FILE           remove this file at the end\n"
	"outlive-parent=BOOL   stay when the process that started nbdkit ends\n"
	"ready-fd=N            write a byte there when clients may come";

/* ---- start and end ---- */

/* A connected stream socket.  Async-signal-safe. */
static bool is_connected(int fd)
{
	struct sockaddr_storage peer;
	socklen_t peer_len = sizeof(peer), len = sizeof(int);
	int type = 0;

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 && type == SOCK_STREAM &&
	       getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0;
}

static void note_inherited(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		inherited[fd] = is_connected(fd);
}

static bool any_client(void)
{
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (!inherited[fd] && is_connected(fd))
			return true;
	return false;
}

/* After nbdkit's own handler: what clients have asked is answered, and no more is read. */
static void end_signal(int sig)
{
	int saved = errno;

	for (size_t i = 0; i < ARRAY_SIZE(end_signals); i++)
		if (end_signals[i] == sig)
			nbdkit_handlers[i](sig);
	for (int fd = 0; fd < FDS_MAX; fd++)
		if (!inherited[fd] && is_connected(fd))
			shutdown(fd, SHUT_RD);
	errno = saved;
}

static void watch_signals(void)
{
	for (size_t i = 0; i < ARRAY_SIZE(end_signals); i++) {
		struct sigaction act;

		if (sigaction(end_signals[i], NULL, &act) != 0 || (act.sa_flags & SA_SIGINFO) ||
			act.sa_handler == SIG_DFL || act.sa_handler == SIG_IGN)
			continue;
		nbdkit_handlers[i] = act.sa_handler;
		act.sa_handler = end_signal;
		sigaction(end_signals[i], &act, NULL);
	}
}

static void say_ready(void)
{
	int null;

	if (config.ready_fd < 0)
		return;
	/* From here on nobody waits for what we say. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int fd = STDIN_FILENO; null >= 0 && fd <= STDERR_FILENO; fd++)
		dup2(null, fd);
	if (null > STDERR_FILENO)
		close(null);
	background = true;
	/* If the parent is gone nobody needs the byte. */
	if (write(config.ready_fd, "", 1) < 0)
		nbdkit_debug("nobody waits at ready-fd");
	close(config.ready_fd);
}

static int plugin_after_fork(void)
{
	struct why why = {""};
	int err;

	log_prefix("sluice nbd");
	/* Then a file that may not grow is an error of the write, and no end. */
	signal(SIGXFSZ, SIG_IGN);
	if (config.outlive_parent)
		prctl(PR_SET_PDEATHSIG, 0);
	/* `sluice nbd` keeps it where it was: a name is whatever disk_open() takes. */
	config.disk.path = config.outlive_parent ? config.given : config.path;
	err = server_open(&config.disk, config.aio, &server, &why);
	if (err) {
		log_error("Could not open '%s': %s", config.given, why_text(&why, err));
		if (config.remove)
			unlink(config.remove);
		return -1;
	}
	say_ready();
	note_inherited();
	watch_signals();
	return 0;
}

/* All clients are gone. */
static void plugin_unload(void)
{
	struct why why = {""};
	int err = 0;

	if (server) {
		err = server_close(server, &why);
		if (config.remove)
			unlink(config.remove);
	}
	if (err) {
		if (background)
			nbdkit_error("'%s' is not left clean: %s", config.given,
				why_text(&why, err));
		else
			log_error("'%s' is not left clean: %s", config.given, why_text(&why, err));
		_exit(1);
	}
	free(config.path);
}

/* ---- clients ---- */

static bool enter(void)
{
	bool room;

	pthread_mutex_lock(&lock);
	room = !config.shared || clients < config.shared;
	clients += room;
	pthread_mutex_unlock(&lock);
	return room;
}

static void *plugin_open(int readonly)
{
	const char *name = nbdkit_export_name();

	if (!name || strcmp(name, config.name) != 0) {
		nbdkit_error("export '%s' not present", name ? name : "");
		nbdkit_set_error(ENOENT);
		return NULL;
	}
	while (!enter())
		if (nbdkit_nanosleep(0, DOOR_NS) < 0)
			return NULL;
	return NBDKIT_HANDLE_NOT_NEEDED;
}

static void plugin_close(void *handle)
{
	bool last;

	pthread_mutex_lock(&lock);
	last = --clients == 0;
	pthread_mutex_unlock(&lock);
	if (last && !config.persistent && !any_client())
		nbdkit_shutdown();
}

static int plugin_list_exports(int readonly, int is_tls, struct nbdkit_exports *exports)
{
	return nbdkit_add_export(exports, config.name, config.description);
}

static const char *plugin_export_description(void *handle)
{
	return config.description;
}

static int64_t plugin_get_size(void *handle)
{
	return (int64_t)server_disk_size(server);
}

static int plugin_block_size(
	void *handle, uint32_t *minimum, uint32_t *preferred, uint32_t *maximum)
{
	uint32_t block = server_block_size(server);

	*minimum = 1;
	*preferred = block > BLOCK_PREFERRED ? block : BLOCK_PREFERRED;
	*maximum = REQUEST_MAX;
	return 0;
}

static int plugin_can_write(void *handle)
{
	return !config.disk.readonly;
}

static int yes(void *handle)
{
	return 1;
}

static int no(void *handle)
{
	return 0;
}

static int plugin_can_fua(void *handle)
{
	return NBDKIT_FUA_NATIVE;
}

static int plugin_can_cache(void *handle)
{
	return NBDKIT_CACHE_EMULATE;
}

/* Clients take it as leave to open several connections, which must not wait at the door. */
static int plugin_can_multi_conn(void *handle)
{
	return config.shared != 1;
}

/* ---- requests ---- */

/* 0, or -1 with an error that the protocol knows. */
static int answer(int err)
{
	switch (-err) {
	case 0:
		return 0;
	case EPERM:
	case EROFS:
	case ENOMEM:
	case EINVAL:
	case ENOSPC:
	case EFBIG:
	case EDQUOT:
	case ENOTSUP:
		nbdkit_set_error(-err);
		return -1;
	default:
		nbdkit_set_error(EIO);
		return -1;
	}
}

static unsigned blk_flags(uint32_t flags)
{
	return (flags & NBDKIT_FLAG_FUA ? BLK_FUA : 0) |
	       (flags & NBDKIT_FLAG_MAY_TRIM ? BLK_UNMAP : 0);
}

static int plugin_pread(void *handle, void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	return answer(server_do(server, BLK_READ, 0, buf, count, offset));
}

static int plugin_pwrite(
	void *handle, const void *buf, uint32_t count, uint64_t offset, uint32_t flags)
{
	return answer(server_do(server, BLK_WRITE, blk_flags(flags), (void *)(uintptr_t)buf,
		count, offset));
}

static int plugin_flush(void *handle, uint32_t flags)
{
	return answer(server_do(server, BLK_FLUSH, 0, NULL, 0, 0));
}

static int plugin_trim(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return answer(server_do(server, BLK_DISCARD, blk_flags(flags), NULL, count, offset));
}

static int plugin_zero(void *handle, uint32_t count, uint64_t offset, uint32_t flags)
{
	return answer(server_do(server, BLK_ZEROES, blk_flags(flags), NULL, count, offset));
}

static int plugin_extents(void *handle, uint32_t count, uint64_t offset, uint32_t flags,
	struct nbdkit_extents *extents)
{
	struct server_extent e[EXTENTS_MAX];
	size_t n = flags & NBDKIT_FLAG_REQ_ONE ? 1 : EXTENTS_MAX;
	int err = server_map(server, offset, count, e, &n);

	for (size_t i = 0; i < n && !err; i++) {
		/* Zeros that keep their space are holes too, as qemu-nbd has it. */
		uint32_t type = e[i].zeros ? NBDKIT_EXTENT_HOLE | NBDKIT_EXTENT_ZERO : 0;

		if (nbdkit_add_extent(extents, offset, e[i].len, type) < 0)
			return -1;
		offset += e[i].len;
	}
	return answer(err);
}

static struct nbdkit_plugin plugin = {
	.name = "sluice",
	.longname = "Sluice disk images",
	.description = "qcow2 and raw images, with the write cache taken seriously",
	.config = plugin_config,
	.config_complete = plugin_config_complete,
	.config_help = config_help,
	.magic_config_key = "file",
	.after_fork = plugin_after_fork,
	.unload = plugin_unload,
	.list_exports = plugin_list_exports,
	.export_description = plugin_export_description,
	.open = plugin_open,
	.close = plugin_close,
	.get_size = plugin_get_size,
	.block_size = plugin_block_size,
	.can_write = plugin_can_write,
	.can_flush = yes,
	.is_rotational = no,
	.can_trim = yes,
	.can_zero = yes,
	.can_fast_zero = no,
	.can_fua = plugin_can_fua,
	.can_multi_conn = plugin_can_multi_conn,
	.can_extents = yes,
	.can_cache = plugin_can_cache,
	.errno_is_preserved = 0,
	.pread = plugin_pread,
	.pwrite = plugin_pwrite,
	.flush = plugin_flush,
	.trim = plugin_trim,
	.zero = plugin_zero,
	.extents = plugin_extents,
};

NBDKIT_REGISTER_PLUGIN(plugin)
