#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh - tests the tests: takes out each ordering point of the block layer, one at a time,
# rebuilds, and shows that a test notices.  A point whose removal nobody notices is either a
# workload that is missing or a flush that is not needed.
#
# usage: tests/mutants.sh [--jobs N] [--list] [TEXT]
#
#   TEXT      only points with this text in their line of --list
#   --jobs    so many at once, each in a tree of its own (default 1)
#   --list    names the points and stops
#
# Works on copies of the sources in $TMPDIR.  A point is tried with what is expected to notice it: a
# row of the crash explorer, about as 'make check' runs it, the same with host failures
# (f:STEP:ROW) or with more states (s:STATES:ROW), or a unit test (u:NAME); if that does not, with
# all rows.  Prints a line per point: name, what noticed, states judged until then (a row is judged
# to its end).  Exit status 1 if one was not noticed, and if an edit no longer fits the source or
# does not build.

src=$(cd "$(dirname "$0")/.." && pwd) || exit 2
jobs=1 list='' text=''
while [ $# -gt 0 ]; do
	case $1 in
	--jobs) jobs=$2; shift ;;
	--list) list=1 ;;
	-*) sed -n 's/^# usage: /usage: /p' "$0" >&2; exit 2 ;;
	*) text=$1 ;;
	esac
	shift
done
[ "$jobs" -ge 1 ] 2>/dev/null || { echo "mutants.sh: --jobs wants a number" >&2; exit 2; }

# The points: NAME|FILE|NOTICED BY|PERL SUBSTITUTION; a line that begins with a tab goes on.
points() {
	perl -0pe 's/\n\t+/ /g' <<'END' | grep -v '^$'
R1 R2 R5: tables wait for their numbers|blockdev/qcow2/commit.c|64k|
	's/err = sync_to\(&q->fmt\.sync, st->need\);/err = 0;/'
R1 R2 R5: an L2 slice carries its number|blockdev/qcow2/commit.c|64k reopen|
	's/st->need = max_u64\(st->need, s->need\);//'
R1 R2 R5: a slice carries the highest of its numbers|blockdev/qcow2/cache.c|64k reuse|
	's/s->need = max_u64\(s->need, need\);/s->need = s->need ? s->need : need;/'
R1 R2 R5: an L1 sector carries its number|blockdev/qcow2/commit.c|512 tables|
	's/st->need = max_u64\(st->need, t->need\[i\]\);//'
R1 R5: a new run carries a number|blockdev/qcow2/refcount.c|64k|
	's/\.need = q->fmt\.sync\.writes,//'
R1 R5: joined runs carry the same number|blockdev/qcow2/alloc.c|512k runs|
	's/last->need == r->need \|\| !r->fresh/1/'
R1: counts of a new run are written|blockdev/qcow2/refcount.c|64k|
	's/if \(!err && !q->lazy\)\n\t\terr = qcow2_write_refs/if (!err && q->reftable.n_dirty)\n\t\terr = qcow2_write_refs/'
R1: counts of free clusters found are written|blockdev/qcow2/alloc.c|4k reuse|
	's/if \(!err && !q->lazy\)/if (0)/'
R1: a refcount block is durable before it is named|blockdev/qcow2/refcount.c|512 growth|
	's/(if \(!err && q->reftable\.n_dirty\)\n\t\terr = )sync_to\(.*?\);/${1}0;/'
R1: sectors of the refcount table in order|blockdev/qcow2/refcount.c|u:test_qcow2_cuts|
	's/(if \(!err && t->n_dirty > 1\)\n\t\t\terr = )sync_to\(.*?\);/${1}0;/'

R2: data of a reused cluster before its entry|blockdev/qcow2/write.c|64k reuse|
	's/need = qcow2_data_need\(q\);/need = r.fresh ? qcow2_data_need(q) : r.need;/'
R2: data of a subcluster before its bit|blockdev/qcow2/write.c|16k subclusters below|
	's/to, qcow2_data_need\(q\)/to, q->ext ? 0 : qcow2_data_need(q)/'
R2: data in a preallocated cluster before its entry|blockdev/qcow2/write.c|64k zeros|
	's/to, qcow2_data_need\(q\)/to, 0/'
R2: the rest of a reused cluster is written|blockdev/qcow2/write.c|64k reuse|
	's/if \(r\.fresh && !old\)/if ((r.fresh || w.m->kind == MAP_HOLE) && !old)/'
R2: data over a backing file before its entry|blockdev/qcow2/write.c|4k below|
	's/need = qcow2_data_need\(q\);/need = r.fresh ? r.need : qcow2_data_need(q);/'
R2: a reused L2 table is made empty|blockdev/qcow2/map.c|512 reuse|
	's/if \(!t->old && t->r\.fresh\)/if (!t->old)/'
R2: zeros of a reused L2 table before its entry|blockdev/qcow2/map.c|512 tables|
	's/t->r\.need = sync_note/sync_note/'
R2: used and never-used clusters are told apart|blockdev/qcow2/alloc.c|64k reuse|
	's/&& last->fresh == r->fresh/&& (last->fresh |= r->fresh, 1)/'
R2: after a failed write a cluster counts as used|blockdev/qcow2/data_file.c|f:89:512 64-bit counts|
	's/r->n, false, r->need/r->n, r->fresh, r->need/'
R2: what a failed growth wrote is no never-used space|blockdev/qcow2/refcount.c|u:test_qcow2_cuts|
	's/if \(q->fmt\.sync\.err \|\| file_size\(f\) <= /if (1 || file_size(f) <= /'
R2: data in a data file before any entry|blockdev/qcow2/commit.c|data file|
	's/if \(c == &q->l2\)\n\t\terr = qcow2_data_sync\(q\);//'
R2: the first write in a data file is one of whole clusters|blockdev/qcow2/data_file.c|data file|
	's/\.n = n\}/.n = n, .fresh = true}/'
R2: zeros in a raw data file before its entries|blockdev/qcow2/data_file.c|raw data file|
	's/\(q->raw_data \|\| /(/'
R2: a larger refcount table before the header|blockdev/qcow2/refcount.c|512 growth|
	's/(t->n \* 8ULL, t->host_off\);\n\tif \(!err\)\n\t\terr = )sync_to\(.*?\);/${1}0;/'
R2: a larger L1 table before the header|blockdev/qcow2/resize.c|512 resize|
	's/err = sync_to\(&q->fmt\.sync, q->fmt\.sync\.writes\);/err = 0;/'

R3 R6: what a flush freed waits until that is durable|blockdev/qcow2/open.c|s:6000:512 lazy discard|
	's/(err = qcow2_write_tables\(q\);)/$1\n\tif (!err)\n\t\terr = qcow2_freed_release(q, ticket);/'
R6: what is freed after a flush began waits for the next|blockdev/qcow2/free.c|4k discard|
	's/!f\.ticket \|\| f\.ticket > ticket \|\|/f.ticket > ticket ||/'
R6: requests in flight end before a cluster is free|blockdev/qcow2/free.c|u:test_qcow2_free|
	's/ \|\|\s*!format_epoch_over\(&q->fmt, f\.epoch\)//'
R7: zeros over a part are not zeros over what came beside|blockdev/qcow2/zero.c|u:test_qcow2_rw|
	's/zero = !map_has_data.*?;/zero = true;/'
R3: a block loses its name before the file ends|blockdev/qcow2/alloc.c|u:test_qcow2_cuts|
	's/(err = qcow2_reftable_write\(q\);\n\treturn err \? err : )sync_to\(.*?\);/${1}0;/'
R3: a close that failed leaves the end where it was|blockdev/qcow2/alloc.c|u:test_qcow2_cuts|
	's/if \(err\) [^\n]*\n\t\tq->end = end;/(void)end;/'
R3: the header before the old table is free|blockdev/qcow2/commit.c|512 table sectors|
	's/return err \? err : sync_to\(&q->fmt\.sync, q->fmt\.sync\.writes\);/return err;/'

R4: the dirty mark is written first|blockdev/qcow2/alloc.c|64k lazy|
	's/err = qcow2_header_put\(q\);/err = 0;/'
R4 R5: a lazy run carries a number|blockdev/qcow2/refcount.c|64k lazy|
	's/\.need = q->fmt\.sync\.writes,/.need = q->lazy ? 0 : q->fmt.sync.writes,/'
R4: the dirty mark before an L1 table is placed|blockdev/qcow2/alloc.c|512 lazy resize|
	's/err = qcow2_mark_dirty\(q\);(\n\tif \(!err\)\n\t\terr = qcow2_refs_grow\(q, n, n, true\);)/err = 0;$1/'
R4: the dirty mark is cleared last|blockdev/qcow2/open.c|64k lazy reopen|
	's/(qcow2_alloc_close\(q\);\n\tif \(!err\)\n\t\terr = )sync_to\(.*?\);/${1}0;/'
R4: a dirty image is repaired before use|blockdev/qcow2/open.c|64k lazy|
	's/if \(!\(h->incompatible & QCOW2_INCOMPAT_DIRTY\)\)/if (1)/'

R5: the file is extended|blockdev/qcow2/refcount.c|64k|
	's/err = file_extend\(.*?\);/err = 0;/'

R2: packed data before its entry|blockdev/qcow2/compress.c|512 packed|
	's/sync_note\(&q->fmt\.sync\)\)/(sync_note(&q->fmt.sync), 0))/'
R1: another packed cluster is counted before its entry|blockdev/qcow2/compress.c|4k packed|
	's/return err \|\| q->lazy \? err : qcow2_write_refs\(q\)/return err/'
R8: snapshots change counts and flags under the mark|blockdev/qcow2/snapshot.c|512 snapshots|
	's/int err = snapshot_mark_on\(q\);/int err = 0;/g'
R8: a longer header, step by step|blockdev/qcow2/header_rewrite.c|4k upkeep below|
	's/return err \? err : sync_to\(&r->q->fmt.*?;/return err;/'
R8: a longer header goes by a short one|blockdev/qcow2/header_rewrite.c|s:20000:4k upkeep below|
	's/if \(!memcmp\(r->old \+ SECTOR.*?\n.*?;/return put(r, r->next, 0, size);/'
R2: new counts before the header|blockdev/qcow2/refcount_width.c|s:3000:512 upkeep 1-bit|
	's/return err \? err : sync_to\(&q->fmt.*?;/return err;/'
R4: no zero clusters before version 2|blockdev/qcow2/amend.c|4k upkeep|
	's/err = expand_zeros\(q, .*?\);/err = 0;/'
R4: nor in a snapshot|blockdev/qcow2/amend.c|512 snapshots versions|
	's/err = snapshot_expand_zeros\(.*?\);/err = 0;/'
R2: a snapshot's zeros first|blockdev/qcow2/snapshot_expand.c|4k snapshots versions|
	's/err = sync_to\(.*?\);/err = 0;/'
R8: and under the mark|blockdev/qcow2/snapshot_expand.c|s:4000:4k snapshots versions|
	's/int err = snapshot_mark_on\(q\);/int err = 0;/'
R4: counts are written before version 2|blockdev/qcow2/amend.c|u:test_qcow2_cuts|
	's/\tif \(!err\)\n\t\terr = qcow2_write_refs\(q\);//'
R2: a new snapshot table before the header|blockdev/qcow2/amend.c|u:test_qcow2_cuts|
	's/(snapshot_table_write\(q, &new\);\n\tif \(!err\)\n\t\terr = )sync_to\(.*?;/${1}0;/'
R4: counts are durable before version 2|blockdev/qcow2/amend.c|u:test_qcow2_cuts|
	's/(err = qcow2_write_refs\(q\);\n\tif \(!err\)\n\t\terr = )sync_to\(.*?;/${1}0;/'
R8: all of a new snapshot before the header|blockdev/qcow2/snapshot.c|512 snapshots|
	's/\tif \(!err\)\n\t\terr = snapshot_write_out\(q\);\n\treturn sync_give_up/\treturn sync_give_up/'
R8: the table without a snapshot before the header|blockdev/qcow2/snapshot.c|512 snapshots|
	's/\tif \(!err\)\n\t\terr = snapshot_write_out\(q\);\n(\tif \(!err\) \{\n\t\tif \(q->h\.version)/$1/'

B1: bitmaps are marked in use at open|blockdev/qcow2/bitmap_save.c|4k bitmaps|
	's/return err \|\| !good \? err : mark_in_use\(q, why\);/b->in_use = good; return err;/'
B1: the mark is durable before the first write|blockdev/qcow2/bitmap_save.c|512 bitmaps|
	's/(OVERLAP_BITMAPS\);\n\tif \(!err\)\n\t\terr = )durable\(q\);(\n\tif \(err\)\n\t\treturn why_set\(why, err, "Can.t)/${1}0;$2/'
B1: writes are noted|blockdev/block.c|4k bitmaps|
	's/fmt->ops->note\(fmt, r->off, r->len\);/return;/'
B2: bits are durable before they are called good|blockdev/qcow2/bitmap_save.c|4k bitmaps|
	's/err = durable\(q\); \/\* B2 \*\//err = 0;/'
B3: counts and bits before a table that names them|blockdev/qcow2/bitmap_save.c|u:test_qcow2_cuts|
	's/if \(!err && any\)\n\t\terr = durable\(q\);//'
B3: a new directory before the header|blockdev/qcow2/bitmap_save.c|512 bitmaps|
	's/(bitmaps_bytes\);\n\tif \(!err\)\n\t\terr = )durable\(q\);/${1}0;/'
B3: a removed bitmap has no name before it is free|blockdev/qcow2/bitmap.c|u:test_qcow2_cuts|
	's/if \(m->table_offset\)\n\t\tb->renewed = true;//'

R8: repair marks the image dirty first|blockdev/qcow2/check.c|u:test_qcow2_check|
	's/(\|= QCOW2_INCOMPAT_DIRTY;\n\terr = qcow2_header_write.*?;\n\treturn err).*?;/$1;/'
R8: what a killed process left is durable first|blockdev/qcow2/check.c|u:test_qcow2_check|
	's/if \(!err && c->fix\)\n\t\terr = file_fdatasync\(c->file\);//'
R8: counts are raised before anything relies on them|blockdev/qcow2/repair.c|u:test_qcow2_check|
	's/raise \? want <= disk : want >= disk/want == disk/'
R8: drops and raised counts before others go down|blockdev/qcow2/repair.c|u:test_qcow2_check|
	's/(update_block\(c, b, raise\);\n\treturn) .*?;/$1 err;/'
R8: new blocks and table before the switch|blockdev/qcow2/repair.c|u:test_qcow2_check|
	's/(free\(t\);\n\treturn) .*?;/$1 err;/'
R8: a snapshot table before the switch to it|blockdev/qcow2/check_snap.c|u:test_qcow2_check|
	's/(free\(o\.buf\);\n\treturn) .*?;/$1 err;/'
R8: marks are cleared last|blockdev/qcow2/check.c|u:test_qcow2_check|
	's/(refcounts_rebuilt\) \{\n\t\terr = )file_fdatasync\(c->file\)/${1}0/'
R8: a repair is durable when it returns|blockdev/qcow2/check.c|u:test_qcow2_check|
	's/(&= ~marks;\n\terr = qcow2_header_write.*?;\n\treturn err).*?;/$1;/'
R8: unknown autoclear bits go first|blockdev/qcow2/check.c|u:test_qcow2_check|
	's/(autoclear = known;\n\terr = qcow2_header_write.*?;\n\treturn err).*?;/$1;/'
R4: autoclear bits go before the first write|blockdev/qcow2/open.c|u:test_qcow2_check|
	's/(q->h\.autoclear &= keep;\n\treturn) qcow2_header_commit\(q\);/$1 qcow2_header_put(q);/'

R9: a failed fdatasync is final|blockdev/sync.c|u:test_sync|
	's/s->err = err;/;/'
R9: writes after it fail|blockdev/block.c|u:test_block|
	's/r->op != BLK_READ && d->fmt->sync\.err/0/'
R9: the error stays for what was durable before|blockdev/sync.c|u:test_sync|
	's/\treturn s->err;\n\}/\treturn 0;\n}/'
R9: nothing counts as committed after it|blockdev/block.c|u:test_block|
	's/acked && !d->fmt->sync\.err;/acked;/'
R9: all who waited for it hear of it|blockdev/block.c|f:7:64k|
	's/acknowledge\(list_entry\(n, struct blk_req, link\), err\)/acknowledge(list_entry(n, struct blk_req, link), 0)/'
R9: the cache bit stays on|blockdev/block.c|u:test_block|
	's/wce_settle\(d, c, err\)/wce_settle(d, c, 0)/'
R9: a header that may name either refcount table|blockdev/qcow2/refcount.c|u:test_block|
	's/sync_give_up\(&q->fmt\.sync, (qcow2_header_commit\(q\))\)/$1/'
R9: a header that may name either L1 table|blockdev/qcow2/resize.c|u:test_block|
	's/sync_give_up\(&q->fmt\.sync, err\)/err/'
R9: a header that may have either size|blockdev/qcow2/resize.c|u:test_qcow2_resize|
	's/(q->h\.size = old;.*?return )sync_give_up\(&q->fmt\.sync, err\)/$1err/s'
R9: a failed fdatasync of a data file is final|blockdev/qcow2/data_file.c|u:test_qcow2_data_file|
	's/sync_give_up\(&q->fmt\.sync, err\)/err/'
R9: a header in doubt is not written over|blockdev/qcow2/commit.c|f:1:4k upkeep|
	's/int err = q->fmt\.sync\.err;/int err = 0;/'
R9: a table that was not written stays dirty|blockdev/qcow2/commit.c|f:5:512|
	's/err \? p->bits : 0/0/'
R9: an L1 sector that was not written stays dirty|blockdev/qcow2/commit.c|f:2:512 lazy|
	's/q->l1\.dirty\[at\] = 1;/;/; s/q->l1\.n_dirty \+= !q->l1\.dirty\[at\];//'

contract: a flush is carried out|blockdev/block.c|raw|
	's/if \(d->mode == CACHE_UNSAFE \|\| all_committed/if (1 || all_committed/'
contract: a flush writes the tables|blockdev/qcow2/open.c|64k|
	's/err = qcow2_write_tables\(q\);/err = 0;/'
contract: a flush ends with an fdatasync|blockdev/qcow2/open.c|64k|
	's/(data_sync\(q\);\n\t)if \(!err\)\n\t\terr = sync_to\(&fmt->sync, fmt->sync\.writes\);/$1/'
contract: a flush of raw is an fdatasync|blockdev/raw.c|raw|
	's/return sync_to\(&fmt->sync, fmt->sync\.writes\);/return 0;/'
contract: raw is longer before its disk is|blockdev/raw.c|u:test_block|
	's/err = sync_to\(&fmt->sync, sync_note\(&fmt->sync\)\);/err = 0;/'
contract: cache off: acknowledged means durable|blockdev/block.c|raw writethrough|
	's/return r->durable \|\| !disk_wce\(d\) \|\|/return r->durable ||/; s/\(r->flags & BLK_FUA\) \|\| !disk_wce\(d\)/(r->flags & BLK_FUA)/'
contract: off when submitted, on when completed|blockdev/block.c|64k flipping|
	's/\(r->flags & BLK_FUA\) \|\| !disk_wce\(d\)/(r->flags & BLK_FUA)/'
contract: on when submitted, off when completed|blockdev/block.c|64k flipping|
	's/return r->durable \|\| !disk_wce\(d\) \|\|/return r->durable ||/'
contract: FUA: acknowledged means durable|blockdev/block.c|64k|
	's/\(r->flags & BLK_FUA\) \|\| !disk_wce\(d\)/!disk_wce(d)/'
contract: cache going off: durable first|blockdev/block.c|64k flipping|
	's/if \(c->enable \|\| d->mode == CACHE_UNSAFE\)/if (1)/'
contract: writes that complete while it goes off|blockdev/block.c|512 cut|
	's/ \|\| !list_empty\(&d->wce_waiting\);/;/'
contract: off in the middle of a commit waits for the next|blockdev/block.c|64k flipping|
	's/if \(!c->in_round\)/if (0)/'
contract: a commit covers what was acknowledged before it|blockdev/block.c|64k flipping|
	's/d->committed = upto;/d->committed = d->acked;/'
contract: who comes during a commit waits for the next|blockdev/block.c|64k flipping|
	's/(err = commit_round\(d\);)/$1 list_splice_tail(&reqs, &d->waiting);/'
contract: an fdatasync covers what completed before it|blockdev/sync.c|64k|
	's/s->durable = covers;/s->durable = s->writes;/'
contract: the first flush covers what a killed process left|blockdev/sync.c|u:test_block|
	's/, \.writes = 1//'
contract: the first flush is carried out|blockdev/block.c|u:test_block|
	's/d->acked = d->readonly \? 0 : 1;//'
contract: a flush makes a data file durable|blockdev/qcow2/open.c|data file writethrough|
	's/(err = )qcow2_data_sync\(q\)/${1}0/'
contract: a clean close writes and syncs|blockdev/qcow2/open.c|64k reopen|
	's/err = fmt->sync\.err \? fmt->sync\.err : qcow2_flush\(fmt\);/err = 0;/'

number: a write in place, no fiber|blockdev/block.c|raw|
	's/if \(r->op == BLK_WRITE && !err\)\n\t\tformat_data_note/if (0)\n\t\tformat_data_note/'
number: a write in place, in a fiber|blockdev/qcow2/write.c|64k depth 1|
	's/(len,\n\t\tNOTHING_BESIDE\);\n\tif \()!err/${1}0/'
number: a write of whole clusters|blockdev/qcow2/write.c|512 tables|
	's/(if \()!err(\)\n\t\tformat_data_note\(&q->fmt\);\n\tif \(buf\))/${1}0$2/'
number: a write to a data file|blockdev/format.h|data file writethrough|
	's/fmt->data_file \? &fmt->data_sync : &fmt->sync/&fmt->sync/'
number: zeros in a data file|blockdev/qcow2/data_file.c|raw data file|
	's/if \(!err\)\n\t\tformat_data_note\(&q->fmt\);\n\treturn err;/return err;/'
number: tables|blockdev/qcow2/commit.c|64k depth 1|
	's/\tsync_note\(&q->fmt\.sync\);\n\treturn first;/\treturn first;/'
number: metadata written by itself|blockdev/qcow2/commit.c|512 growth|
	's/if \(!err\)\n\t\tsync_note\(&q->fmt\.sync\);\n\treturn err;\n\}\n\nint qcow2_header_put/return err;\n}\n\nint qcow2_header_put/'

order: an entry after its data|blockdev/qcow2/write.c|64k|
	's/(\tif \(r\.fresh && !old\) \{)/\terr = qcow2_l2_set(q, w.off - head, r.n, (r.first << q->h.cluster_bits) | QCOW2_OFLAG_COPIED, need);\n\tif (err)\n\t\treturn err;\n$1/; s/(need = q->fmt\.sync\.writes;\n\t\}\n)\tif \(err\)\n\t\treturn err;\n\treturn qcow2_l2_set\(.*?\);/$1\treturn err;/s'
order: two writes do not allocate one cluster|blockdev/qcow2/write.c|64k|
	's/if \(ranges_overlap\(a->first, a->n, first, n\)\)/if (0)/'
order: all clusters of one write are claimed|blockdev/qcow2/write.c|u:test_qcow2_free|
	's/p->n = to - p->first;/p->n = max_u64(p->n, 1);/'
order: one write ends where another is at work|blockdev/qcow2/write.c|u:test_qcow2_free|
	's/if \(pending_overlaps\(q, from, to - from\)\)/if (0)/'
order: the map is looked at again after waiting|blockdev/qcow2/write.c|u:test_qcow2_free|
	's/if \(qcow2_map_cached\(q, off, m->len, &now\).*?writable\)/(void)now;\n\t\tif (1)/s'
order: one L2 table for one L1 entry|blockdev/qcow2/map.c|64k reuse|
	's/if \(!err && t\.old && copied\)\n\t\tt\.old = 0;\n\telse if/if/'
order: a slice on its way to the file is not evicted|blockdev/qcow2/cache.c|512|
	's/ && !s->writing && !s->loading;/ && !s->loading;/'
order: no L2 table is made while L1 moves|blockdev/qcow2/resize.c|512 resize|
	's/fiber_(un)?lock\(&q->table_lock\);//g'
order: one round of table writes at a time|blockdev/qcow2/commit.c|64k|
	's/fiber_(un)?lock\(&q->commit_lock\);//g'
order: close waits for clusters being reserved|blockdev/qcow2/alloc.c|f:89:512 64-bit counts|
	's/while \(q->reserving && !err\)/while (0)/'

corrupt: the mark is durable before the refusal|blockdev/qcow2/corrupt.c|u:test_qcow2_overlap|
	's/err = qcow2_header_commit\(q\);/err = qcow2_header_put(q);/'
corrupt: nothing goes on after it|blockdev/qcow2/corrupt.c|u:test_qcow2_overlap|
	's/q->corrupt = true;//'
overlap: data in place is looked at|blockdev/qcow2/open.c|u:test_qcow2_overlap|
	's/!qcow2_overlap_none\(q, 0, m\.host_off, m\.len\)/0/'
overlap: tables are looked at|blockdev/qcow2/commit.c|u:test_qcow2_overlap|
	's/err = check_pieces\(q, st, c\);/;/'

live: an fdatasync writes what is in the cache|blockdev/live/wcache.c|u:test_wcache|
	's/return write_back\(c, c->log\.n_host, r\);/return write_back(c, c->log.n_host ? c->log.n_host - 1 : 0, r);/'
live: and makes it durable|blockdev/live/wcache.c|u:test_wcache|
	's/if \(!err && sync\)/if (0)/'
live: a read sees what is in the cache|blockdev/live/wcache.c|u:test_wcache|
	's/for \(uint64_t i = 0; i < t->n && !err; i\+\+\)\n\t\tlay_over/for (uint64_t i = 0; 0;)\n\t\tlay_over/'
live: the power fails before the fdatasync, not after|blockdev/live/wcache.c|u:test_live|
	's/c->user->syncing\(c->user\);/;/'
live: and before the request is answered|blockdev/live/live.c|u:test_live|
	's/l->armed_by == r/false/'
live: without power nothing is answered|blockdev/live/live.c|u:test_live|
	's/return l->cut \? -ESHUTDOWN : 0;/return 0;/'

create: the header comes last|blockdev/qcow2/create.c|u:test_qcow2_create|
	's/return err \? err : file_fdatasync\(f\);/return err;/'
create: an image is durable when it is there|blockdev/qcow2/create.c|u:test_qcow2_create|
	's/if \(!err\)\n\t\terr = file_fdatasync\(f\);\n\tfree\(buf\);/free(buf);/'
create: an old header on a device goes first|blockdev/qcow2/create.c|u:test_qcow2_create|
	's/if \(!err\)\n\t\t\terr = file_fdatasync\(f\);//'

overlay: what is below is durable, or there is none|blockdev/overlay.c|u:test_overlay|
	's/int err = fiber_run\(d->loop, flush_fiber, d\);/int err = 0;/'
overlay: nothing makes durable what is below|blockdev/overlay.c|raw overlay|
	's/int err = fiber_run\(d->loop, flush_fiber, d\);/int err = 0;/;
	s/\(void\)fiber_run\(d->loop, close_fiber, d\);/(void)close_fiber;/'
overlay: a failed flush is found out|blockdev/overlay.c|f:3:raw overlay|
	's/int err = fiber_run\(d->loop, flush_fiber, d\);/int err = 0;/'
overlay: it is durable before it is the disk|blockdev/qcow2/create.c|raw overlay depth 1|
	's/if \(!err\)\n\t\terr = file_fdatasync\(f\);\n\tfree\(buf\);/free(buf);/'
overlay: its name is durable too|blockdev/overlay.c|u:test_overlay|
	's/if \(!err && !nosync\)\n\t\terr = sync_directory\(path\);//'
overlay: what is in flight ends below|blockdev/hold.c|raw overlay|
	's/hold\(d\);\n\t(err = overlay_put\(.*?\);)\n\trelease\(d\);/$1/'
overlay: the first flush reaches one that was there|blockdev/overlay.c|u:test_overlay|
	's/d->committed = d->acked\+\+;/d->committed = d->acked;/'

online: nothing is on its way during a snapshot|blockdev/hold.c|s:4000:version 2 live snapshots|
	's/(static int standing_still.*?)\thold\(d\);\n(.*?)\trelease\(d\);\n/$1$2/s'
online: nor while the size changes|blockdev/hold.c|4k live resize|
	's/(static int standing_still.*?)\thold\(d\);\n(.*?)\trelease\(d\);\n/$1$2/s'
END
}

# crash ARGS...: the first row that fails, as "ROW|states judged".
crash() {
	timeout 900 build/crash --no-cases --jobs 1 --until-caught "$@" >out 2>&1
	code=$?
	[ $code -eq 0 ] && return 1
	[ $code -eq 124 ] && echo "FAIL no end after 900 s:" >>out
	awk -v code=$code '
	/^(ok|FAIL) .*: [0-9]+ distinct states/ { n = $0; sub(/^[^:]*: /, "", n); states += n }
	/^FAIL / {
		sub(/^FAIL /, "")
		sub(/: [0-9]+ distinct.*/, "")
		print $0 "|" states + 0
		said = 1
		exit
	}
	/^(crash|VIOLATION)/ && !why { why = $0; sub(/^[^ ]* /, "", why) }
	END { if (!said) print (why ? why : "exit status " code) "|" states + 0 }' out
}

noticed() {
	case $1 in
	u:*)
		if ! make -s WERROR= CI= "build/tests/unit/${1#u:}" >build.log 2>&1; then
			echo "${1#u:} does not build|-"
			return
		fi
		timeout 900 "build/tests/unit/${1#u:}" >out 2>&1 && return 1
		echo "${1#u:}: $(sed -n 's/^[^ ]*:[EF]:[^:]*:\([^:]*\):.*/\1/p' out | head -n 1)|-"
		;;
	f:*)
		how=${1#f:}
		crash --states 200 --faults "${how%%:*}" --row "${how#*:}" |
			sed 's/|/, host failures|/'
		;;
	s:*)
		how=${1#s:}
		crash --states "${how%%:*}" --seeds 4 --faults 0 --row "${how#*:}"
		;;
	*) crash --states 1000 --faults 0 --row "$1" ;;
	esac
}

try_point() { # NAME FILE BY EDIT
	cp "$2" saved
	perl -0pi -e "$4" "$2" 2>perl.log
	if cmp -s saved "$2"; then
		result="FAIL|the edit no longer fits the source|-"
	elif ! make -s WERROR= CI= build/crash >build.log 2>&1; then
		result="FAIL|does not build: $(grep -m 1 error build.log)|-"
	else
		by=$(noticed "$3")
		[ -n "$by" ] || by=$(crash)
		case $by in
		'') result="FAIL|not noticed|-" ;;
		*"no end"* | *"does not build"*) result="FAIL|$by" ;;
		*) result="ok|$by" ;;
		esac
	fi
	cp saved "$2"
	echo "$result" | (IFS='|' read -r ok who states
		printf '%-4s | %-62s | %-40s | %s\n' "$ok" "$1" "$who" "$states")
}

# The share of one tree: every jobs-th point, from the one numbered $1.
worker() {
	cd "$work/$1" || exit 2
	awk "NR % $jobs == $1 % $jobs" "$work/points" | while IFS='|' read -r name file by edit; do
		edit=${edit#*\'} edit=${edit%\'}
		try_point "$name" "$file" "$by" "$edit"
	done
}

points | grep -F -e "$text" >"${TMPDIR:-/tmp}/mutants.$$"
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-mutants.XXXXXX") || exit 2
mv "${TMPDIR:-/tmp}/mutants.$$" "$work/points"
trap 'rm -rf "$work"' EXIT
trap 'kill $pids 2>/dev/null; exit 130' INT TERM
if [ -n "$list" ]; then
	cut -d '|' -f 1-3 "$work/points"
	exit 0
fi
[ -s "$work/points" ] || { echo "mutants.sh: no point has '$text' in its line" >&2; exit 2; }

mkdir "$work/1" && cd "$src" && cp -r Makefile vmm blockdev devices guest tests "$work/1" || exit 2
make -s -C "$work/1" WERROR= CI= build/crash >/dev/null || exit 2
pids=''
i=2
while [ "$i" -le "$jobs" ]; do
	cp -rp "$work/1" "$work/$i" || exit 2
	i=$((i + 1))
done
i=1
while [ "$i" -le "$jobs" ]; do
	worker "$i" | tee "$work/result.$i" &
	i=$((i + 1))
done
wait
n=$(wc -l <"$work/points")
ok=$(cat "$work"/result.* | grep -c '^ok')
echo "$n points, $ok caught, $((n - ok)) not"
[ "$ok" -eq "$n" ]
