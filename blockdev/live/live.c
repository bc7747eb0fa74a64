/* SPDX-License-Identifier: MIT */
/*
 * live.c - see live.h.
 *
 * Between the guest's requests and the image stand, from above: who records (if anybody does), the
 * slow host, the full host, the volatile cache, the host's file.  The cache is below the image
 * format, so a cut takes from a qcow2 image what a cut of the host would: tables as well as data,
 * between the format's own fdatasyncs.
 *
 * The tap counts, arms and refuses.  A cut is one moment on the disk's thread: from then on caches
 * and requests are dead.  What is left of the file is settled later, when nothing is in flight.
 */
#include "blockdev/live/live.h"

#include <inttypes.h>
#include <regex.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/disk_file.h"
#include "blockdev/live/wcache.h"

#define TEXT_MAX 4096 /* bytes of a line that are looked at */

struct live {
	struct disk_tap tap;
	struct disk_tap *next;
	const struct live_config *c;
	regex_t regex;
	bool has_regex;
	struct wcache_user user;
	struct file *cache[2]; /* the image's, its data file's */
	unsigned n_caches;
	void (*on_cut)(void *arg);
	void *arg;
	uint64_t writes, bytes, flushes, submitted, answered;
	uint64_t tried[FAIL_SECTOR]; /* requests by kind: enum in struct live_fail */
	bool watching, armed, cut;
	const struct blk_req *armed_by;
	uint64_t armed_at; /* of the writes */
	const char *by;                  /* who asked for the cut; NULL: its trigger */
	uint64_t at_answered, in_flight; /* at the cut */
	struct live_left left;
};

static struct live *live_of(struct disk_tap *t)
{
	return container_of(t, struct live, tap);
}

/* ---- the cut ---- */

static const char follows[] = "with another drive";
const char live_by_line[] = "by a line on the serial port", live_by_mark[] = "by a mark";

static void cut_now(struct live *l, const char *by)
{
	if (l->cut || !l->watching)
		return;
	l->cut = true;
	l->by = by;
	l->at_answered = l->answered;
	l->in_flight = l->submitted - l->answered;
	for (unsigned i = 0; i < l->n_caches; i++)
		wcache_die(l->cache[i]);
	if (l->on_cut)
		l->on_cut(l->arg);
}

void live_cut(struct live *l, const char *by)
{
	cut_now(l, by ? by : follows);
}

static void on_syncing(struct wcache_user *u)
{
	struct live *l = container_of(u, struct live, user);

	if (l->armed)
		cut_now(l, NULL);
}

void live_watch(struct live *l, bool on)
{
	l->watching = on;
}

bool live_is_cut(const struct live *l)
{
	return l->cut;
}

bool live_mark_cuts(const struct live *l, bool serial, const char *text, size_t len)
{
	char line[TEXT_MAX];

	if (l->c->trigger == LIVE_MARK)
		return !serial && strlen(l->c->text) == len && !memcmp(l->c->text, text, len);
	if (l->c->trigger != LIVE_SERIAL || !serial)
		return false;
	len = min_u64(len, sizeof(line) - 1);
	memcpy(line, text, len);
	line[len] = 0;
	return !regexec(&l->regex, line, 0, NULL, 0);
}

/* ---- the tap ---- */

static bool is_write(const struct blk_req *r)
{
	return r->op == BLK_WRITE || r->op == BLK_ZEROES;
}

static bool touches(const struct blk_req *r, uint64_t first, uint64_t last)
{
	return ranges_overlap(first * SECTOR, (last - first + 1) * SECTOR, r->off, r->len);
}

static bool fails(const struct live *l, const struct live_fail *f, const struct blk_req *r)
{
	switch (f->what) {
	case FAIL_READ:
		return r->op == BLK_READ && l->tried[FAIL_READ] == f->n;
	case FAIL_WRITE:
		return is_write(r) && l->tried[FAIL_WRITE] == f->n;
	case FAIL_FLUSH:
		return r->op == BLK_FLUSH && l->tried[FAIL_FLUSH] == f->n;
	case FAIL_SECTOR:
		return (r->op == BLK_READ || is_write(r)) && touches(r, f->n, f->last);
	}
	return false;
}

static int on_refuse(struct disk_tap *t, const struct blk_req *r)
{
	struct live *l = live_of(t);

	if (l->cut || !l->watching)
		return l->cut ? -ESHUTDOWN : 0;
	l->tried[FAIL_READ] += r->op == BLK_READ;
	l->tried[FAIL_WRITE] += is_write(r);
	l->tried[FAIL_FLUSH] += r->op == BLK_FLUSH;
	for (unsigned i = 0; i < l->c->n_fails; i++)
		if (fails(l, &l->c->fail[i], r))
			return -EIO;
	return 0;
}

/* r has just been counted. */
static bool arms(const struct live *l, const struct blk_req *r)
{
	const struct live_config *c = l->c;

	switch (c->trigger) {
	case LIVE_FLUSH:
		return r->op == BLK_FLUSH && l->flushes == c->n;
	case LIVE_WRITE:
		return is_write(r) && l->writes == c->n;
	case LIVE_BYTE:
		return is_write(r) && l->bytes >= c->n;
	case LIVE_SECTOR:
		return is_write(r) && touches(r, c->n, c->last);
	case LIVE_NEVER:
	case LIVE_AFTER:
	case LIVE_SERIAL:
	case LIVE_MARK:
	case LIVE_ASKED:
		break;
	}
	return false;
}

static void on_submit(struct disk_tap *t, struct blk_req *r, bool wce)
{
	struct live *l = live_of(t);

	if (l->next)
		l->next->submit(l->next, r, wce);
	r->tick = r->tick ? r->tick : 1; /* done() is wanted */
	l->submitted++;
	l->flushes += r->op == BLK_FLUSH;
	l->writes += is_write(r);
	l->bytes += is_write(r) ? r->len : 0;
	if (!l->armed && arms(l, r)) {
		l->armed = true;
		l->armed_by = r;
		l->armed_at = l->writes;
	}
}

static void on_done(struct disk_tap *t, struct blk_req *r, bool wce, int err)
{
	struct live *l = live_of(t);

	if (l->next)
		l->next->done(l->next, r, wce, err);
	l->answered++;
	if (l->armed ? l->armed_by == r
		     : l->c->trigger == LIVE_AFTER && l->answered == l->c->n)
		cut_now(l, NULL);
}

static void on_wce_submit(struct disk_tap *t, struct wce_change *c, bool wce)
{
	struct live *l = live_of(t);

	if (l->next)
		l->next->wce_submit(l->next, c, wce);
}

static void on_wce_done(struct disk_tap *t, struct wce_change *c, bool wce, int err)
{
	struct live *l = live_of(t);

	if (l->next)
		l->next->wce_done(l->next, c, wce, err);
}

static int on_file(
	struct disk_tap *t, struct file *host, bool data, struct file **f, struct why *why)
{
	struct live *l = live_of(t);
	const struct slow_delays *d = &l->c->delays;
	int err = 0;

	*f = host;
	if (disk_file_disk(host) && (l->c->trigger || l->c->has_room))
		return why_set(why, -ENOTSUP,
			"powercut= and full= need an image that is a file of the host's");
	if (l->c->trigger) {
		err = wcache_open(host, &l->user, f);
		if (!err)
			l->cache[l->n_caches++] = *f;
	}
	if (!err && l->c->has_room)
		err = full_open(*f, host, l->c->room, f);
	if (!err && (d->read || d->write || d->flush))
		err = slow_open(*f, d, f);
	if (!err && l->next)
		err = l->next->file(l->next, *f, data, f, why);
	return err;
}

/* ---- beginning and end ---- */

int live_new(const struct live_config *c, struct disk_tap *next, struct live **out, struct why *why)
{
	struct live *l = calloc(1, sizeof(*l));

	if (!l)
		return -ENOMEM;
	l->c = c;
	l->next = next;
	l->user.syncing = on_syncing;
	l->tap = (struct disk_tap){.refuse = on_refuse,
		.submit = on_submit,
		.done = on_done,
		.wce_submit = on_wce_submit,
		.wce_done = on_wce_done,
		.file = on_file};
	if (c->trigger == LIVE_SERIAL) {
		/* It was good when the words were read. */
		if (regcomp(&l->regex, c->text, REG_EXTENDED | REG_NOSUB)) {
			free(l);
			return why_set(why, -ENOMEM, "powercut=serial:%s", c->text);
		}
		l->has_regex = true;
	}
	*out = l;
	return 0;
}

void live_free(struct live *l)
{
	if (l && l->has_regex)
		regfree(&l->regex);
	free(l);
}

struct disk_tap *live_tap(struct live *l)
{
	return &l->tap;
}

void live_on_cut(struct live *l, void (*cut)(void *arg), void *arg)
{
	l->on_cut = cut;
	l->arg = arg;
}

static int leave(void *arg)
{
	struct live *l = arg;
	const struct live_config *c = l->c;
	int err = 0;

	for (unsigned i = 0; i < l->n_caches && !err; i++)
		err = wcache_cut(l->cache[i], c->policy, c->seed + i, c->unit, &l->left);
	return err;
}

struct live_left live_left(const struct live *l)
{
	return l->left;
}

/* Where the cut was, for the user. */
static void say_where(const struct live *l, char *out, size_t size)
{
	const struct live_config *c = l->c;

	if (l->by)
		snprintf(out, size, "%s", l->by);
	else if (c->trigger == LIVE_FLUSH)
		snprintf(out, size, "in flush %" PRIu64, c->n);
	else if (c->trigger == LIVE_AFTER)
		snprintf(out, size, "after request %" PRIu64, c->n);
	else
		snprintf(out, size, "in write %" PRIu64, l->armed_at);
}

/* Who asked is no part of what happened: the number of requests is, or the other drive's. */
static void say_again(const struct live *l, char *out, size_t size)
{
	struct live_config c = *l->c;
	char n[24] = "";

	if (l->by && l->by != live_by_line && l->by != live_by_mark) {
		c.trigger = LIVE_ASKED;
		c.text = n;
	}
	if (c.trigger == LIVE_ASKED && l->by != follows && l->at_answered) {
		c.trigger = LIVE_AFTER;
		snprintf(n, sizeof(n), "%" PRIu64, l->at_answered);
	}
	live_again(&c, out, size);
}

int live_leave(struct live *l, struct loop *loop, char *said, char *again)
{
	char where[LIVE_LINE / 2];
	int err = fiber_run(loop, leave, l);

	assert(l->cut);
	say_where(l, where, sizeof(where));
	snprintf(said, LIVE_LINE,
		"the power was cut %s: of %" PRIu64 " writes at risk %" PRIu64
		" are there, %" PRIu64 " lost, %" PRIu64 " torn",
		where, l->left.at_risk, l->left.kept, l->left.lost, l->left.torn);
	say_again(l, again, LIVE_LINE);
	if (l->by && l->by != follows && l->in_flight) {
		size_t n = strlen(again);

		snprintf(again + n, LIVE_LINE - n, " (nearly: %" PRIu64 " more in flight)",
			l->in_flight);
	}
	return err;
}

bool live_missed(const struct live *l, char *said)
{
	char again[LIVE_LINE / 2];

	if (l->cut || !l->c->trigger || l->c->trigger == LIVE_ASKED)
		return false;
	live_again(l->c, again, sizeof(again));
	snprintf(said, LIVE_LINE,
		"%s: that never came, the power was not cut; there were %" PRIu64
		" writes of %" PRIu64 " bytes, %" PRIu64 " flushes",
		again, l->writes, l->bytes, l->flushes);
	return true;
}
