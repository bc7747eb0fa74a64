/* SPDX-License-Identifier: MIT */
/*
 * inject.c - see inject.h.
 *
 * An error rule is armed by its event, and the first that an event arms disarms those that
 * were armed before.  While armed it fails every operation that it matches; with once=on the
 * first, and is gone then.  A change of state takes effect after all rules of the event were
 * looked at, so that rules of one event see the same state.
 *
 * Not here: how rules are written (inject_rules.c).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "blockdev/file/inject_int.h"

/* A request held at a break point; on its fiber's stack. */
struct held {
	struct list link;
	struct fiber *fiber;
	char *tag;
};

static const char *const event_names[N_FILE_EVENTS] = {
	[EV_NONE] = "none",
	[EV_L1_UPDATE] = "l1_update",
	[EV_L1_GROW_ALLOC_TABLE] = "l1_grow_alloc_table",
	[EV_L1_GROW_WRITE_TABLE] = "l1_grow_write_table",
	[EV_L1_GROW_ACTIVATE_TABLE] = "l1_grow_activate_table",
	[EV_L2_LOAD] = "l2_load",
	[EV_L2_UPDATE] = "l2_update",
	[EV_L2_UPDATE_COMPRESSED] = "l2_update_compressed",
	[EV_L2_ALLOC_COW_READ] = "l2_alloc_cow_read",
	[EV_L2_ALLOC_WRITE] = "l2_alloc_write",
	[EV_READ_AIO] = "read_aio",
	[EV_READ_BACKING_AIO] = "read_backing_aio",
	[EV_READ_COMPRESSED] = "read_compressed",
	[EV_WRITE_AIO] = "write_aio",
	[EV_WRITE_COMPRESSED] = "write_compressed",
	[EV_VMSTATE_LOAD] = "vmstate_load",
	[EV_VMSTATE_SAVE] = "vmstate_save",
	[EV_COW_READ] = "cow_read",
	[EV_COW_WRITE] = "cow_write",
	[EV_REFTABLE_LOAD] = "reftable_load",
	[EV_REFTABLE_GROW] = "reftable_grow",
	[EV_REFTABLE_UPDATE] = "reftable_update",
	[EV_REFBLOCK_LOAD] = "refblock_load",
	[EV_REFBLOCK_UPDATE] = "refblock_update",
	[EV_REFBLOCK_UPDATE_PART] = "refblock_update_part",
	[EV_REFBLOCK_ALLOC] = "refblock_alloc",
	[EV_REFBLOCK_ALLOC_HOOKUP] = "refblock_alloc_hookup",
	[EV_REFBLOCK_ALLOC_WRITE] = "refblock_alloc_write",
	[EV_REFBLOCK_ALLOC_WRITE_BLOCKS] = "refblock_alloc_write_blocks",
	[EV_REFBLOCK_ALLOC_WRITE_TABLE] = "refblock_alloc_write_table",
	[EV_REFBLOCK_ALLOC_SWITCH_TABLE] = "refblock_alloc_switch_table",
	[EV_CLUSTER_ALLOC] = "cluster_alloc",
	[EV_CLUSTER_ALLOC_BYTES] = "cluster_alloc_bytes",
	[EV_CLUSTER_FREE] = "cluster_free",
	[EV_FLUSH_TO_OS] = "flush_to_os",
	[EV_FLUSH_TO_DISK] = "flush_to_disk",
	[EV_PWRITEV_RMW_HEAD] = "pwritev_rmw_head",
	[EV_PWRITEV_RMW_AFTER_HEAD] = "pwritev_rmw_after_head",
	[EV_PWRITEV_RMW_TAIL] = "pwritev_rmw_tail",
	[EV_PWRITEV_RMW_AFTER_TAIL] = "pwritev_rmw_after_tail",
	[EV_PWRITEV] = "pwritev",
	[EV_PWRITEV_ZERO] = "pwritev_zero",
	[EV_PWRITEV_DONE] = "pwritev_done",
	[EV_EMPTY_IMAGE_PREPARE] = "empty_image_prepare",
	[EV_L1_SHRINK_WRITE_TABLE] = "l1_shrink_write_table",
	[EV_L1_SHRINK_FREE_L2_CLUSTERS] = "l1_shrink_free_l2_clusters",
	[EV_COR_WRITE] = "cor_write",
	[EV_CLUSTER_ALLOC_SPACE] = "cluster_alloc_space",
};

enum file_event inject_event_named(const char *name)
{
	int e = 0;

	while (e < N_FILE_EVENTS && strcmp(event_names[e], name) != 0)
		e++;
	return (enum file_event)e;
}

struct inject *inject_of(struct file *f)
{
	return container_of(f, struct inject, file);
}

int inject_add(struct inject *in, const struct inject_rule *rule)
{
	struct inject_rule *r = malloc(sizeof(*r));

	if (!r)
		return -ENOMEM;
	*r = *rule;
	list_add_tail(&in->rules, &r->link);
	return 0;
}

static void rule_drop(struct inject_rule *r)
{
	list_del(&r->link);
	free(r->tag);
	free(r);
}

/* ---- events ---- */

static struct inject_rule *next_hold(struct inject *in, enum file_event event)
{
	list_for_each(n, &in->rules)
	{
		struct inject_rule *r = list_entry(n, struct inject_rule, link);

		if (r->act == INJECT_SUSPEND && r->event == event &&
			(!r->state || r->state == in->state))
			return r;
	}
	return NULL;
}

/* Holds the running fiber; the rule is used up. */
static void hold(struct inject *in, struct inject_rule *r)
{
	struct held h = {.fiber = fiber_self(), .tag = r->tag};

	r->tag = NULL;
	rule_drop(r);
	if (!h.fiber) { /* cannot wait here */
		free(h.tag);
		return;
	}
	list_add_tail(&in->held, &h.link);
	printf("blkdebug: Suspended request '%s'\n", h.tag);
	fiber_suspend();
	printf("blkdebug: Resuming request '%s'\n", h.tag);
	free(h.tag);
}

static void disarm_all(struct inject *in)
{
	list_for_each(n, &in->rules) list_entry(n, struct inject_rule, link)->active = false;
}

void inject_event(struct inject *in, enum file_event event)
{
	struct inject_rule *r;
	bool armed = false;

	in->new_state = in->state;
	list_for_each(n, &in->rules)
	{
		r = list_entry(n, struct inject_rule, link);
		if (r->event != event || (r->state && r->state != in->state))
			continue;
		if (r->act == INJECT_SET_STATE) {
			in->new_state = r->new_state;
		} else if (r->act == INJECT_ERROR) {
			if (!armed)
				disarm_all(in);
			armed = true;
			r->active = true;
		}
	}
	r = next_hold(in, event);
	in->state = in->new_state;
	for (; r; r = next_hold(in, event))
		hold(in, r);
}

/* ---- break points ---- */

int inject_break(struct inject *in, const char *event, const char *tag)
{
	struct inject_rule r = {.act = INJECT_SUSPEND, .event = inject_event_named(event)};
	int err;

	if (r.event == N_FILE_EVENTS)
		return -ENOENT;
	r.tag = strdup(tag);
	err = r.tag ? inject_add(in, &r) : -ENOMEM;
	if (err)
		free(r.tag);
	return err;
}

static struct held *held_by(const struct inject *in, const char *tag)
{
	list_for_each(n, &in->held)
	{
		struct held *h = list_entry(n, struct held, link);

		if (!strcmp(h->tag, tag))
			return h;
	}
	return NULL;
}

static bool release(struct inject *in, const char *tag)
{
	struct held *h = held_by(in, tag);

	if (!h)
		return false;
	list_del(&h->link);
	fiber_wake(h->fiber);
	return true;
}

int inject_resume(struct inject *in, const char *tag)
{
	return release(in, tag) ? 0 : -ENOENT;
}

int inject_unbreak(struct inject *in, const char *tag)
{
	struct list *next;
	bool found = false;

	for (struct list *n = in->rules.next; n != &in->rules; n = next) {
		struct inject_rule *r = list_entry(n, struct inject_rule, link);

		next = n->next;
		if (r->act != INJECT_SUSPEND || strcmp(r->tag, tag) != 0)
			continue;
		rule_drop(r);
		found = true;
	}
	while (release(in, tag))
		found = true;
	return found ? 0 : -ENOENT;
}

bool inject_held(const struct inject *in, const char *tag)
{
	return held_by(in, tag) != NULL;
}

/* ---- operations ---- */

static enum inject_io kind_of(const struct file_req *r)
{
	static const enum inject_io kinds[] = {[FILE_READ] = IO_READ,
		[FILE_WRITE] = IO_WRITE,
		[FILE_FDATASYNC] = IO_FLUSH,
		[FILE_EXTEND] = IO_ZEROES,
		[FILE_PUNCH] = IO_DISCARD,
		[FILE_TRUNCATE] = N_INJECT_IO};

	if (r->op == FILE_PUNCH && r->how == PUNCH_KEEP)
		return IO_ZEROES;
	return kinds[r->op];
}

static bool matches(const struct inject_rule *r, enum inject_io io, uint64_t off, uint64_t len)
{
	if (r->act != INJECT_ERROR || !r->active || !(r->io & 1u << io))
		return false;
	return r->anywhere || (len && r->off >= off && r->off - off < len);
}

/* 0, or what the first rule that matches makes of it; that is used up if it is for once. */
static int verdict(struct inject *in, enum inject_io io, uint64_t off, uint64_t len)
{
	struct inject_rule *hit = NULL;
	int err;

	list_for_each(n, &in->rules)
	{
		struct inject_rule *r = list_entry(n, struct inject_rule, link);

		if (!hit && matches(r, io, off, len))
			hit = r;
	}
	if (!hit || !hit->err)
		return 0;
	err = hit->err;
	if (hit->once)
		rule_drop(hit);
	return err;
}

int inject_status(struct inject *in, uint64_t off, uint64_t len)
{
	return verdict(in, IO_STATUS, off, len);
}

static void inject_submit(struct file *f, struct file_req *q)
{
	int err = verdict(inject_of(f), kind_of(q), q->off, q->len);

	if (err)
		file_finish(f, q, err);
	else
		file_submit(f->below, q);
}

static uint64_t inject_size(struct file *f)
{
	return file_size(f->below);
}

static void inject_close(struct file *f)
{
	struct inject *in = inject_of(f);

	while (!list_empty(&in->rules))
		rule_drop(list_first(&in->rules, struct inject_rule, link));
	free(in);
}

static const struct file_ops inject_ops = {
	.name = "inject",
	.submit = inject_submit,
	.size = inject_size,
	.close = inject_close,
};

int inject_open(struct file *below, struct file **out)
{
	struct inject *in = calloc(1, sizeof(*in));

	if (!in)
		return -ENOMEM;
	in->file = *below;
	in->file.ops = &inject_ops;
	in->file.below = below;
	in->file.inject = in;
	in->state = 1;
	list_init(&in->rules);
	list_init(&in->held);
	*out = &in->file;
	return 0;
}
