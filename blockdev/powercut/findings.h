/* SPDX-License-Identifier: MIT */
/*
 * findings.h - the promises that a disk broke: which ones, told once each.
 *
 * A state that fails in a guest's sector broke the promise of the flush, or of the write itself
 * (FUA, or without a cache), that made the sector's last durable write durable.  One that does not
 * open or check lost host writes that a flush had covered; or no flush had yet, then what broke is
 * an order that the image format needs.
 */
#ifndef POWERCUT_FINDINGS_H
#define POWERCUT_FINDINGS_H

#include "blockdev/crash/explorer.h"
#include "blockdev/powercut/recording.h"

#define FINDING_LOST 4 /* host writes that are named */

struct finding {
	uint64_t at, states; /* the first cut that shows it; how many do */
	char why[256];       /* what is wrong with the image then */
	uint64_t sector;     /* of the guest, or UINT64_MAX */
	uint32_t write;      /* into the guest's log: what was promised, or SEARCH_NONE */
	uint32_t flush;      /* what promised it, or SEARCH_NONE: the write itself, or none */
	struct {
		struct host_op op; /* without data */
		enum role role;
	} lost[FINDING_LOST]; /* of host writes, if no sector is named */
	uint32_t n_lost;
	bool shorter; /* a growth of the file is lost */
};

struct findings {
	const struct recording *r;
	struct finding *all;
	uint32_t n, max;       /* told apart at most */
	uint64_t failed, more; /* states; of which so many have no finding */
	uint64_t *failed_at;   /* ticks, ascending */
	uint64_t room;
};

void findings_init(struct findings *f, const struct recording *r, uint32_t max);
void findings_fini(struct findings *f);
/* The state in e's hand fails; it may become a smaller one. */
void findings_add(struct findings *f, struct explorer *e);
void findings_print(const struct findings *f, uint64_t states);
void findings_json(const struct findings *f, uint64_t states, const char *image);
/* The timeline.  0, or -errno with words. */
must_check int findings_draw(
	const struct findings *f, uint64_t states, const char *path, struct why *why);

#endif
