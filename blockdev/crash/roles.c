/* SPDX-License-Identifier: MIT */
/*
 * roles.c - see roles.h.
 */
#include <stdlib.h>
#include <string.h>
#include "blockdev/crash/roles.h"
#include "blockdev/qcow2/format.h"

const char *const role_names[N_ROLES] = {"data", "header", "l1", "l2", "reftable", "refblock"};

static void mark(struct roles *p, uint64_t off, uint64_t len, enum role role)
{
	uint64_t first = off >> p->cluster_bits;

	for (uint64_t i = first; len && i <= (off + len - 1) >> p->cluster_bits; i++)
		if (i < p->n)
			p->of[i] = (uint8_t)role;
}

static void from_header(struct roles *p, const void *sector)
{
	struct qcow2_disk_header h;
	uint64_t cluster = 1ULL << p->cluster_bits;

	memcpy(&h, sector, sizeof(h));
	mark(p, p->base, cluster, ROLE_HEADER);
	mark(p, p->base + be64_get(h.l1_offset), be32_get(h.l1_size) * 8ULL, ROLE_L1);
	mark(p, p->base + be64_get(h.reftable_offset), be32_get(h.reftable_clusters) * cluster,
		ROLE_REFTABLE);
}

/* Entries of an L1 table or of a refcount table, if that is what lies at off. */
static void from_table(struct roles *p, uint64_t off, const be64_t *entry, uint64_t n)
{
	uint64_t cluster = 1ULL << p->cluster_bits, i = off >> p->cluster_bits;
	enum role role;

	if (i >= p->n || (p->of[i] != ROLE_L1 && p->of[i] != ROLE_REFTABLE))
		return;
	role = p->of[i] == ROLE_L1 ? ROLE_L2 : ROLE_REFBLOCK;
	for (i = 0; i < n; i++)
		if (be64_get(entry[i]) & QCOW2_OFFSET_MASK)
			mark(p, p->base + (be64_get(entry[i]) & QCOW2_OFFSET_MASK), cluster, role);
}

void roles_init(struct roles *p, const struct crash_log *log, const struct mem_image *start,
	uint64_t base, uint32_t cluster_size)
{
	be64_t sector[SECTOR / 8];

	*p = (struct roles){.base = base};
	if (!cluster_size)
		return;
	p->cluster_bits = (uint32_t)__builtin_ctz(cluster_size);
	p->n = start->size >> p->cluster_bits;
	for (uint64_t i = 0; i < log->n_host; i++)
		p->n = max_u64(p->n, (log->host[i].off + log->host[i].len) >> p->cluster_bits);
	p->n++;
	p->of = calloc(p->n + 1, 1);
	if (!p->of)
		abort();
	mem_read(start, sector, SECTOR, base);
	from_header(p, sector);
	for (uint64_t i = 0; i < log->n_host; i++)
		if (log->host[i].op == FILE_WRITE && log->host[i].off == base &&
			log->host[i].len >= SECTOR)
			from_header(p, log->host[i].data);
	/* Tables that were there before, then those that were written. */
	for (uint64_t at = 0; at < start->size; at += SECTOR) {
		if (p->of[at >> p->cluster_bits] == ROLE_DATA)
			continue;
		mem_read(start, sector, SECTOR, at);
		from_table(p, at, sector, SECTOR / 8);
	}
	for (uint64_t i = 0; i < log->n_host; i++) {
		const struct host_op *o = &log->host[i];

		if (o->op == FILE_WRITE && o->off % 8 == 0)
			from_table(p, o->off, (const be64_t *)(const void *)o->data, o->len / 8);
	}
}

void roles_fini(struct roles *p)
{
	free(p->of);
	p->of = NULL;
}

enum role role_of(const struct roles *p, const struct host_op *o)
{
	uint64_t i = o->off >> p->cluster_bits;

	return p->of && i < p->n ? (enum role)p->of[i] : ROLE_DATA;
}
