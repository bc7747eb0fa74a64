/* SPDX-License-Identifier: MIT */
/*
 * fault.c - see fault.h.
 *
 * Every rule sees every operation that matches it and counts it, also when another
 * rule makes it fail; the first rule in order of adding that fails it decides how.
 * What does not fail passes through untouched.
 */
#include <stdlib.h>
#include "blockdev/file/fault.h"

struct fault {
	struct file file;
	struct list rules;
};

/* The beginning of a write that is going to fail. */
struct part {
	struct file_req req;
	struct file_req *whole;
	int err;
	int niov;
	struct iovec iov[];
};

static struct fault *fault_of(struct file *f)
{
	return container_of(f, struct fault, file);
}

static bool rule_matches(const struct fault_rule *rule, const struct file_req *r)
{
	if (!(rule->ops & FAULT_ON(r->op)))
		return false;
	if (!rule->len)
		return true;
	/* A flush or a cut touches everything, or everything behind. */
	if (r->op == FILE_FDATASYNC)
		return true;
	if (r->op == FILE_TRUNCATE)
		return r->off < rule->off + rule->len;
	return ranges_overlap(rule->off, rule->len, r->off, r->len);
}

static bool rule_fails(struct fault_rule *rule, const struct file_req *r)
{
	if (!rule_matches(rule, r))
		return false;
	rule->matched++;
	return rule->matched == rule->nth || (rule->and_all_after && rule->matched > rule->nth);
}

static void part_done(struct file_req *req, int err)
{
	struct part *p = container_of(req, struct part, req);
	struct file_req *whole = p->whole;

	err = err ? err : p->err;
	free(p);
	whole->done(whole, err);
}

static void write_partly(struct fault *f, struct file_req *r, uint64_t n, int err)
{
	struct part *p = malloc(sizeof(*p) + (size_t)r->niov * sizeof(p->iov[0]));
	uint64_t left = n;

	if (!p) {
		file_finish(&f->file, r, -ENOMEM);
		return;
	}
	p->whole = r;
	p->err = err;
	p->niov = 0;
	for (int i = 0; i < r->niov && left; i++) {
		struct iovec *v = &p->iov[p->niov++];

		*v = r->iov[i];
		v->iov_len = min_u64(v->iov_len, left);
		left -= v->iov_len;
	}
	p->req = (struct file_req){.done = part_done, .op = FILE_WRITE, .iov = p->iov,
		.niov = p->niov, .off = r->off, .len = n};
	file_submit(f->file.below, &p->req);
}

static void fault_submit(struct file *file, struct file_req *r)
{
	struct fault *f = fault_of(file);
	struct fault_rule *hit = NULL;

	list_for_each(n, &f->rules) {
		struct fault_rule *rule = list_entry(n, struct fault_rule, link);

		if (rule_fails(rule, r) && !hit)
			hit = rule;
	}
	if (!hit) {
		file_submit(file->below, r);
		return;
	}
	hit->failed++;
	if (r->op == FILE_WRITE && hit->partly)
		write_partly(f, r, min_u64(hit->partly, r->len), hit->err);
	else
		file_finish(file, r, hit->err);
}

static uint64_t fault_size(struct file *f)
{
	return file_size(f->below);
}

static void fault_close(struct file *f)
{
	struct list *n;

	while ((n = list_pop(&fault_of(f)->rules)))
		;
	free(fault_of(f));
}

static const struct file_ops fault_ops = {
	.name = "fault",
	.submit = fault_submit,
	.size = fault_size,
	.close = fault_close,
};

int fault_open(struct file *below, struct file **out)
{
	struct fault *f = calloc(1, sizeof(*f));

	if (!f)
		return -ENOMEM;
	f->file = *below;
	f->file.ops = &fault_ops;
	f->file.below = below;
	list_init(&f->rules);
	*out = &f->file;
	return 0;
}

void fault_add(struct file *f, struct fault_rule *rule)
{
	assert(f->ops == &fault_ops && rule->err < 0);
	rule->matched = rule->failed = 0;
	list_add_tail(&fault_of(f)->rules, &rule->link);
}

void fault_remove(struct fault_rule *rule)
{
	list_del(&rule->link);
}
