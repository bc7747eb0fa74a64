#!/bin/sh
# SPDX-License-Identifier: MIT
#
# mutants.sh - tests the tests: takes out each ordering point of the block layer, one at a time,
# rebuilds, and shows that the crash explorer notices.  A point whose removal nobody notices is
# either a workload that is missing or a flush that is not needed.
#
# usage: tests/mutants.sh [NAME...]     all points, or those whose name contains one of the words
#
# Works on a copy of the sources in $TMPDIR.  Prints a line per point: which row caught it and after
# how many states.  Exit status 1 if one was not caught.

cd "$(dirname "$0")/.." || exit 2
work=$(mktemp -d "${TMPDIR:-/tmp}/sluice-mutants.XXXXXX") || exit 2
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
cp -r Makefile vmm blockdev devices guest tests "$work" || exit 2
cd "$work" || exit 2
make -s build/crash >/dev/null || exit 2
status=0

# point NAME FILE PERL-SUBSTITUTION [ARGUMENTS OF crash]: the substitution must change the file.
point() {
	name=$1 file=$2 edit=$3
	shift 3
	cp "$file" saved
	perl -0pi -e "$edit" "$file"
	if cmp -s saved "$file"; then
		echo "FAIL $name: the substitution changes nothing"
		status=1
	elif ! make -s build/crash >build.log 2>&1; then
		echo "FAIL $name: does not build"
		sed 's/^/  | /' build.log
		status=1
	elif timeout 300 build/crash --states 60000 --seeds 3 --until-caught "$@" >out 2>err; then
		echo "FAIL $name: not noticed ($(tail -n 1 out))"
		status=1
	else
		echo "ok $name: $(grep -m 1 '^FAIL' out || tail -n 1 err)"
	fi
	cp saved "$file"
}

wanted() {
	[ -z "$words" ] && return 0
	for w in $words; do
		case $1 in *"$w"*) return 0 ;; esac
	done
	return 1
}

words=$*
mutate() {
	wanted "$1" && point "$@"
}

q=blockdev/qcow2
sync='sync_to\(&q->fmt\.sync, q->fmt\.sync\.writes\)'
mutate "R1 R5: a table waits for the counts and the length its clusters need" $q/commit.c \
	's/err = sync_to\(&q->fmt\.sync, st->need\);/err = 0;/'
mutate "R1 R5: a new run carries a number" $q/refcount.c \
	's/r\.need = q->fmt\.sync\.writes;/r.need = 0;/'
mutate "R1: counts of a new run are written" $q/refcount.c \
	's/if \(!err && \(!q->lazy \|\| y->blocks\)\)/if (!err && y->blocks)/'
mutate "R1: counts of reused clusters carry a number" $q/alloc.c \
	's/r\.need = q->fmt\.sync\.writes;/r.need = 0;/' --row '4k reuse'
mutate "R1: a refcount block is durable before it is named" $q/refcount.c \
	's/(if \(!err && y->blocks\)\n\t\terr = )'"$sync"'/${1}0/'
mutate "R1: sectors of the refcount table one after the other" $q/refcount.c \
	's/(if \(!err && t->n_dirty > 1\)\n\t\t\terr = )'"$sync"'/${1}0/'
mutate "R2: data of a reused cluster before its entry" $q/write.c \
	's/r\.fresh \? r\.need : q->fmt\.sync\.writes/r.need/'
mutate "R2: the rest of a reused cluster is written" $q/write.c \
	's/if \(r\.fresh\)\n/if (r.fresh || !w.host_off)\n/'
mutate "R2: zeros of a reused L2 table before its entry" $q/map.c \
	's/r\.need = sync_note\(&q->fmt\.sync\);/sync_note(&q->fmt.sync);/' --row '512 reuse lazy'
mutate "R2: a larger refcount table before the header" $q/refcount.c \
	's/(t->n \* 8ULL, t->host_off\);\n\n\tif \(!err\)\n\t\terr = )'"$sync"'/${1}0/'
mutate "R2: a larger L1 table before the header" $q/resize.c \
	's/err = sync_to\(&q->fmt\.sync, q->fmt\.sync\.writes\);/err = 0;/' --row '512 resize'
mutate "R3: the header before the old table is free" $q/commit.c \
	's/return sync_to\((&q->fmt\.sync), sync_note\(&q->fmt\.sync\)\);/sync_note($1); return 0;/'
mutate "R4: the dirty mark first" $q/alloc.c \
	's/err = qcow2_header_commit\(q\);/err = 0;/'
mutate "R4: the dirty mark cleared last" $q/open.c \
	's/err = sync_to\(&fmt->sync, fmt->sync\.writes\);/err = 0;/'
mutate "an entry after its data" $q/write.c \
	's/(\tif \(r\.fresh\)\n.*?)(\tif \(!err\) \{.*?\n\t\}\n)(\tif \(err && )/${3}/s'
mutate "two writes do not allocate one cluster" $q/write.c \
	's/if \(ranges_overlap\(a->first, a->n, first, n\)\)/if (0)/'
mutate "a flush writes the tables" $q/open.c \
	's/int err = qcow2_write_tables\(q\);/int err = 0;/'
mutate "a flush ends with an fdatasync" $q/open.c \
	's/return err \? err : sync_to\(&fmt->sync, fmt->sync\.writes\);/return err;/'
mutate "an fdatasync covers what completed before it" blockdev/sync.c \
	's/s->durable = covers;/s->durable = s->writes;/'
mutate "a failed fdatasync is final" blockdev/sync.c \
	's/s->err = err;/;/' --faults 7
mutate "cache off: acknowledged means durable" blockdev/block.c \
	's/return r->durable \|\| !disk_wce\(d\) \|\|/return r->durable ||/;
	s/\(r->flags & BLK_FUA\) \|\| !disk_wce\(d\)/(r->flags & BLK_FUA)/'
mutate "FUA: acknowledged means durable" blockdev/block.c \
	's/\(r->flags & BLK_FUA\) \|\| !disk_wce\(d\)/!disk_wce(d)/'
mutate "cache going off: durable first" blockdev/block.c \
	's/if \(c->enable \|\| d->mode == CACHE_UNSAFE\)/if (1)/'
mutate "a commit covers what was acknowledged before it" blockdev/block.c \
	's/d->committed = upto;/d->committed = d->acked;/'
exit $status
