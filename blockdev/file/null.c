/* SPDX-License-Identifier: MIT */
/*
 * null.c - see null.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/file/null.h"

struct null_file {
	struct file file;
	struct file_stats stats;
	uint64_t size;
};

static struct null_file *null_of(struct file *f)
{
	return container_of(f, struct null_file, file);
}

static void null_submit(struct file *f, struct file_req *r)
{
	struct null_file *n = null_of(f);

	if (r->op == FILE_READ)
		for (int i = 0; i < r->niov; i++)
			memset(r->iov[i].iov_base, 0, r->iov[i].iov_len);
	if (r->op == FILE_TRUNCATE)
		n->size = r->off;
	else if (r->op == FILE_EXTEND || r->op == FILE_WRITE)
		n->size = max_u64(n->size, r->off + r->len);
	file_finish(f, r, 0);
}

static uint64_t null_size(struct file *f)
{
	return null_of(f)->size;
}

static bool null_find_data(struct file *f, uint64_t off, uint64_t *len)
{
	*len = null_of(f)->size - off;
	return false;
}

static void null_close(struct file *f)
{
	free(null_of(f));
}

static const struct file_ops null_ops = {
	.name = "null",
	.submit = null_submit,
	.size = null_size,
	.find_data = null_find_data,
	.close = null_close,
};

int null_file_open(struct loop *l, uint64_t size, struct file **out)
{
	struct null_file *n = calloc(1, sizeof(*n));

	if (!n)
		return -ENOMEM;
	n->size = size;
	n->file = (struct file){
		.ops = &null_ops, .loop = l, .align_off = 1, .align_mem = 1, .stats = &n->stats};
	*out = &n->file;
	return 0;
}
