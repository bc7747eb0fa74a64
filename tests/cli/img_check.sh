#!/bin/sh
# SPDX-License-Identifier: MIT
#
# img_check.sh - sluice img check beside qemu-img's, on images that damage.py damaged.
#
# Both must say the same, in the same words, with the same status, without -r and with -r all,
# but for what is named in differs() and goes_further().  After our -r all, qemu-img must find
# nothing.  -r leaks must end with the same status.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
SRC=${SRC:-.}
status=0
for tool in qemu-img qemu-io python3; do
	if ! command -v $tool >/dev/null; then
		echo "skip img check: $tool is not installed"
		exit 0
	fi
done

fail() {
	echo "FAIL $1"
	sed 's/^/  | /' why | head -20
	status=1
}

# damage_base CLUSTER OPTIONS: one L2 table, guest clusters 0..3 and 16.
damage_base() {
	rm -f base.qcow2
	qemu-img create -q -f qcow2 -o "cluster_size=$1,$2" base.qcow2 64M &&
		qemu-io -f qcow2 -c "write -P 1 0 $(($1 * 4))" -c "write -P 2 $(($1 * 16)) $1" \
			base.qcow2 >/dev/null
}

both_check() { # ARGUMENT... on q.img and s.img
	timeout 60 qemu-img check -f qcow2 "$@" q.img >q.out 2>q.err
	q=$?
	timeout 60 "$SLUICE" img check -f qcow2 "$@" s.img >s.out 2>s.err
	s=$?
	sed -i 's/q\.img/IMAGE/g; s/qemu-img/PROGRAM/g' q.out q.err
	sed -i 's/s\.img/IMAGE/g; s/sluice img/PROGRAM/g; s/qemu-img/PROGRAM/g' s.out s.err
}

# Cases where the two differ, and why.
differs() {
	case $1 in
	# A table over the header would be written over it: refused, where qemu-img goes on.
	l1_at_header) return 0 ;;
	# qemu-img gives up on counts whose block it cannot read; to us they are zero.
	reftable_entry_unaligned | reftable_to_l1 | reftable_to_data) return 0 ;;
	# Counts above 32 bits are shown as the largest of 32 bits.
	count_max | counts_all_ones | reftable_entry_to_data) [ "$2" = 64 ] ;;
	*) return 1 ;;
	esac
}

# Where our -r all mends more than qemu-img's does, or leaves less in the way of the next writer.
goes_further() {
	case $1 in
	# Entries that no opener can use go.
	entry_far_past_end | entry_one_past_end | entry_top_of_range | entry_reserved* | \
		l1_reserved* | l1_unaligned | l1_entry_past_end | l1_entry_at_end | entry_at_end | \
		l1_entry_to_refblock | l1_entry_to_data | l2_garbage | truncated_* | \
		compressed_*) return 0 ;;
	# A refcount table that shares its cluster is moved away.
	entry_to_reftable) return 0 ;;
	ext_compressed_bitmap | ext_past_end | data_reserved | snap_too_many) return 0 ;;
	# Repaired here; qemu-img gives up half way.
	reftable_entry_unaligned | reftable_entry_reserved | reftable_to_* | l1_past_end | \
		l1_at_header | snapshots_past_end) return 0 ;;
	# Two users of a refcount block, which one bit cannot count.
	entry_to_refblock | reftable_entry_twice) [ "$2" = 1 ] ;;
	*) differs "$1" "$2" ;;
	esac
}

# Damage that has no right answer: two users of a cluster whose count cannot be 2, no L1 table.
unrepairable() {
	case $1 in
	l1_past_end | l1_at_header) return 0 ;;
	ext_both_bits | ext_unallocated* | ext_unaligned_data | data_unaligned | data_compressed | \
		snap_l1_unaligned | snap_l1_huge | snap_table_unaligned) return 0 ;;
	entry_unaligned) [ "$2" != 1 ] ;; # clusters of one sector know none
	same_cluster_twice* | entry_to_l1 | entry_to_own_l2 | compressed_copied | \
		compressed_over_data | truncated_tables) [ "$2" = 1 ] ;;
	*) return 1 ;;
	esac
}

one_case() { # NAME BITS LABEL
	cp base.qcow2 q.img
	python3 "$SRC/tests/cli/damage.py" "$1" q.img 2>why || {
		fail "$3: damage.py"
		return
	}
	cp q.img s.img
	cp q.img damaged.img
	both_check
	if ! differs "$1" "$2"; then
		{ echo "status $q, ours $s"; diff -u q.out s.out; diff -u q.err s.err; } >why &&
			[ $q -eq $s ] || { fail "$3: check"; return; }
	elif [ $q -eq 0 ] || [ $s -eq 0 ]; then
		echo "status $q, ours $s" >why
		fail "$3: check"
		return
	fi
	cmp s.img damaged.img >why || { fail "$3: check changed the image"; return; }
	both_check -r all
	if ! goes_further "$1" "$2"; then
		# Where new refcount blocks went is told by this line alone.
		sed -i '/^Image end offset/d' q.out s.out
		{ echo "status $q, ours $s"; diff -u q.out s.out; diff -u q.err s.err; } >why &&
			[ $q -eq $s ] || { fail "$3: check -r all"; return; }
	fi
	cat s.out s.err >why
	timeout 60 qemu-img check s.img >>why 2>&1
	q=$?
	if unrepairable "$1" "$2"; then
		[ $s -ne 0 ] && [ $q -ne 0 ] || {
			fail "$3: called repaired, $s, qemu-img says $q"
			return
		}
	else
		[ $s -eq 0 ] && [ $q -eq 0 ] || { fail "$3: -r all: $s, then qemu-img $q"; return; }
	fi
	# Again: nothing left to do, and nothing done.
	cp s.img again.img
	timeout 60 "$SLUICE" img check -q -r all s.img >why 2>&1
	cmp s.img again.img >>why || { fail "$3: a second -r all still changes the image"; return; }
	echo "ok $3"
}

for geometry in "65536 16" "512 1" "4096 64"; do
	# shellcheck disable=SC2086
	set -- $geometry
	damage_base "$1" "refcount_bits=$2" || {
		echo "cannot make the base image" >why
		fail "base $geometry"
		continue
	}
	for name in $(python3 "$SRC/tests/cli/damage.py" --list); do
		one_case "$name" "$2" "check $name, clusters of $1, counts of $2 bits"
	done
done

# Kinds of images that need more than one word to create.
kind_base() {
	rm -f base.qcow2 data.raw
	case $1 in
	ext) damage_base 65536 extended_l2=on ;;
	data) damage_base 65536 data_file=data.raw ;;
	snap) damage_base 65536 compat=1.1 && qemu-img snapshot -c one base.qcow2 &&
		qemu-io -c 'write -P 3 64k 64k' base.qcow2 >/dev/null &&
		qemu-img snapshot -c two base.qcow2 ;;
	esac
}
for kind in ext data snap; do
	kind_base $kind >why 2>&1 || fail "base $kind"
	for name in $(python3 "$SRC/tests/cli/damage.py" --list $kind); do
		one_case "$name" 16 "check $name"
	done
done

# Words on the command line, and files that are no image.
qemu-img create -q -f qcow2 q.img 1M
cp q.img s.img
echo junk >junk
words() { # ARGUMENT... : both must say the same
	timeout 60 qemu-img check "$@" >q.out 2>q.err
	q=$?
	timeout 60 "$SLUICE" img check "$@" >s.out 2>s.err
	s=$?
	sed -i 's/qemu-img/PROGRAM/g' q.out q.err
	sed -i 's/sluice img/PROGRAM/g; s/qemu-img/PROGRAM/g' s.out s.err
	{ echo "status $q, ours $s"; diff -u q.out s.out; diff -u q.err s.err; } >why &&
		[ $q -eq $s ] && echo "ok check $*" || fail "check $*"
}
words
words -z q.img
words --nonsense q.img
words -r
words -r half q.img
words --output x
words --output=x q.img
words --output=json q.img
words q.img s.img
words -f raw nowhere
words nowhere
words -f vmdk2 q.img
words -T half q.img
words -T none q.img
words -U q.img
words -U -r all q.img
words -q q.img
words -f qcow2 junk
words junk
words --output=json junk
words --image-opts driver=qcow2,file.filename=q.img
words --image-opts -f qcow2 q.img
words --object secret,id=s,data=a q.img

# -r leaks: same status as qemu-img where both can do it.
damage_base 65536 refcount_bits=16
for name in none leak_in_file count_two copied_missing same_cluster_twice entry_far_past_end \
	leak_reserved_ahead count_zero; do
	cp base.qcow2 q.img
	python3 "$SRC/tests/cli/damage.py" $name q.img
	cp q.img s.img
	both_check -r leaks
	{ echo "status $q, ours $s"; diff -u q.out s.out; diff -u q.err s.err; } >why &&
		[ $q -eq $s ] && echo "ok check -r leaks $name" || fail "check -r leaks $name"
done

# JSON says the same, repaired or not.
canon='import json, sys
d = json.load(sys.stdin); d.pop("filename"); print(json.dumps(d, sort_keys=True))'
for fix in "" "-r all"; do
	for name in none count_two same_cluster_twice; do
		cp base.qcow2 q.img
		python3 "$SRC/tests/cli/damage.py" $name q.img
		cp q.img s.img
		# shellcheck disable=SC2086
		both_check --output=json $fix
		python3 -c "$canon" <q.out >q.json
		python3 -c "$canon" <s.out >s.json
		diff q.json s.json >why && [ $q -eq $s ] &&
			echo "ok check --output=json $fix $name" ||
			fail "check --output=json $fix $name"
	done
done

# What the driver refuses to open is counted all the same.
qemu-img create -q -f qcow2 under.qcow2 64M
qemu-img create -q -f qcow2 -b under.qcow2 -F qcow2 q.img
qemu-io -c 'write -P 3 1M 300k' q.img >/dev/null
qemu-img snapshot -c one q.img
qemu-io -c 'write -P 4 1M 100k' q.img >/dev/null
qemu-img snapshot -c two q.img
qemu-img bitmap --add q.img b0
cp q.img s.img
both_check
diff -u q.out s.out >why && diff -u q.err s.err >>why && [ $q -eq 0 ] && [ $s -eq 0 ] &&
	echo "ok check counts snapshots, bitmaps and images over a backing file" ||
	fail "check counts snapshots, bitmaps and images over a backing file"
qemu-img convert -c -O qcow2 base.qcow2 q.img
cp q.img s.img
both_check
diff -u q.out s.out >why && [ $q -eq $s ] && grep -q '100.00% compressed' s.out &&
	echo "ok check counts compressed clusters" || fail "check counts compressed clusters"

# A long sparse file costs no memory: a counter for each cluster of 15 TiB would be 480 MiB.
cp base.qcow2 s.img
truncate -s 15T s.img
(ulimit -v 300000 && timeout 100 "$SLUICE" img check s.img) >why 2>&1
rc=$?
if grep -q 'ulimit\|AddressSanitizer' why; then
	echo "skip a sparse file of 15 TiB in little memory: address space cannot be limited here"
elif [ $rc -eq 0 ]; then
	echo "ok a sparse file of 15 TiB in little memory"
else
	fail "a sparse file of 15 TiB in little memory: $rc"
fi

"$SLUICE" img create -q raw.img 1M
"$SLUICE" img check raw.img >why 2>&1
[ $? -eq 63 ] && grep -q 'This image format does not support checks' why &&
	echo "ok raw images have no check" || fail "raw images have no check"
exit $status
