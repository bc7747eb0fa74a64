#!/bin/sh
# SPDX-License-Identifier: MIT
#
# differ.sh - sequences of commands, played by qemu-img and qemu-io in one folder and by ours in
# another: the same output and statuses, and in the end images that hold the same and are as clean.
# First the rows below, then what differ.pl makes up: DIFFER=N sequences (default 10) from the
# seed DIFFER_SEED (default 1) on.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
SRC=${SRC:?}
status=0

for tool in qemu-img qemu-io perl; do
	command -v $tool >/dev/null && continue
	echo "skip differ: $tool is not installed (Debian: qemu-utils, perl)"
	exit 0
done

# The commands of a sequence.
img() { if [ "$who" = q ]; then qemu-img "$@"; else "$SLUICE" img "$@"; fi; }
io() { if [ "$who" = q ]; then qemu-io "$@"; else "$SLUICE" io "$@"; fi; }

# Names, times and places differ; what --help says is our own.
calm() {
	sed 's,/usr/bin/qemu-,qemu-,; s/sluice img/qemu-img/g; s/sluice io/qemu-io/g
		/^[Uu]sage: /,/^== /{/^== /!d}
		s/ops; .*/ops/; s/in [0-9.]* seconds/in T seconds/; s/^disk size: .*/disk size/
		s/[0-9-]* [0-9:]\{8\}  /DATE  /; s/#block[0-9]*/#block/; s/ version .*/ version/
		/^Copyright/d; /^Image end offset/d; s/[0-9.]*% fragmented/fragmented/'
}

# Plays the file script in the folder q or s: of each command its status, errors and output.
play() {
	who=$1
	(
		cd "$who" || exit 1
		while IFS= read -r line <&3; do
			echo "== $line"
			eval "$line" >../out 2>../err </dev/null
			echo "status $?"
			cat ../err ../out
		done 3<../script
		echo "== files"
		ls
	) | calm >"$who.out"
}

# Both folders after a sequence: what QEMU says of theirs and of ours.
same_images() {
	for f in q/*; do
		f=${f#q/}
		[ -f "q/$f" ] || continue
		for who in q s; do
			qemu-img check -q "$who/$f" >/dev/null 2>&1
			echo "$f: check $?"
			qemu-img compare q/"$f" $who/"$f" 2>&1 | sed "s,[qs]/,,g"
		done >verdicts
		[ "$(sed -n 1,2p verdicts)" = "$(sed -n 3,4p verdicts)" ] && continue
		cat verdicts
		return 1
	done
}

differ() { # NAME; the sequence is in the file script
	play q
	play s
	if diff -u q.out s.out >why && same_images >>why; then
		echo "ok $1"
		return
	fi
	echo "FAIL $1"
	sed 's/^/  : /' script
	sed 's/^/  | /' why | head -40
	status=1
}

# --- what once differed ----------------------------------------------------------------------

mkdir rows
(
	cd rows || exit 1
	qemu-img create -q -f qcow2 a.qcow2 1M
	qemu-io -c 'write -P 1 0 64k' a.qcow2 >/dev/null
	qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 t.qcow2
	qemu-img create -q -f raw r.raw 1M
	qemu-img create -q -f qcow2 empty.qcow2 0
	mkdir dir
) || exit 1

cp -R rows q
cp -R rows s
cat >script <<'END'
img --version
img -V
img create -f raw '' 1
img create a b 1
img create -f raw new 0.023438M; img map --output=json new
img create -f raw new +1k
img create -f raw new ' 1k'
img create -f raw new 0x10k
img measure -O raw --size 1.99999999999k
img convert -O raw -o help a.qcow2
img convert -O raw -o help a.qcow2 new
img info ''
img info dir
img info --backing-chain none
img check file:a.qcow2
img check file:none
img check dir
img snapshot -c x dir
img snapshot -c s empty.qcow2; img snapshot -a s empty.qcow2; img resize empty.qcow2 1M
img rebase -b a.qcow2 -F qcow2 a.qcow2
img rebase -p -b '' none
img commit -p a.qcow2
img convert -O qcow2 a.qcow2 a.qcow2
io ''
io -x
io -f
io -r dir
io -k r.raw
io -n -k -f raw -c length r.raw
io -U -c length a.qcow2
io -s -U -c length a.qcow2
io -c 'write -b 1 512' a.qcow2
io -c 'read -b 0 3' a.qcow2
io -c 'write -c 0 3' a.qcow2
io -c 'write 0 1P' a.qcow2
io -c 'write +1k 512' a.qcow2
io -c 'truncate -m metadata 4k' a.qcow2
io -f raw -c 'truncate -m full 4k' r.raw
END
differ "what once differed"

# --- at random -------------------------------------------------------------------------------

seed=${DIFFER_SEED:-1}
last=$((seed + ${DIFFER:-10} - 1))
while [ "$seed" -le $last ]; do
	rm -rf q s
	mkdir q s
	perl "$SRC/tests/cli/differ.pl" "$seed" >script || exit 1
	differ "sequence $seed"
	seed=$((seed + 1))
done
exit $status
