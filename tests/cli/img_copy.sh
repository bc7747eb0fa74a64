#!/bin/sh
# SPDX-License-Identifier: MIT
#
# img_copy.sh - sluice img map, compare, convert, dd, measure and bench beside qemu-img: the same
# words and exit status, and images that hold the same, whoever wrote and whoever reads them.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

result() { # NAME; the verdict is the last command's
	if [ $? -eq 0 ]; then
		echo "ok $1"
	else
		echo "FAIL $1"
		sed 's/^/  | /' why 2>/dev/null | head -20
		status=1
	fi
}

if ! command -v qemu-img >/dev/null || ! command -v qemu-io >/dev/null; then
	echo "skip img_copy: qemu-img or qemu-io is not installed (Debian: qemu-utils)"
	exit 0
fi

# words ARGUMENT...: both programs say the same and end the same.
words() {
	qemu-img "$@" >q.out 2>q.err
	echo $? >q.rc
	"$SLUICE" img "$@" >s.out 2>s.err
	echo $? >s.rc
	# Times differ, and the names of the programs.
	sed -i 's/qemu-img/PROGRAM/g; s/in [0-9.]* seconds/in T seconds/' q.out q.err
	sed -i 's/sluice img/PROGRAM/g; s/in [0-9.]* seconds/in T seconds/' s.out s.err
	: >why
	for what in rc out err; do
		diff -u "q.$what" "s.$what" >>why || return 1
	done
}

# --- images to look at ------------------------------------------------------------------------

io() { # FORMAT FILE COMMAND...
	f=$1 file=$2
	shift 2
	for c; do qemu-io -f "$f" -c "$c" "$file" >/dev/null || exit 1; done
}

make_images() {
	printf x >tiny.raw
	head -c 14000 /dev/urandom >odd.raw
	truncate -s 3M holes.raw
	io raw holes.raw 'write -P 1 0 64k' 'write -P 2 1M 4k' 'write -P 3 2500k 200k'
	: >empty.raw
	qemu-img create -q -f qcow2 empty.qcow2 3M
	qemu-img create -q -f qcow2 zero.qcow2 0
	for cluster in 512 4k 64k 2M; do
		qemu-img create -q -f qcow2 -o cluster_size=$cluster c$cluster.qcow2 3M
		io qcow2 c$cluster.qcow2 'write -P 1 0 64k' 'write -P 2 1M 4k' \
			'write -P 3 2500k 200k' 'write -z 128k 256k' 'write -P 0 2M 64k'
	done
	qemu-img create -q -f qcow2 -o compat=0.10 v2.qcow2 2000k
	io qcow2 v2.qcow2 'write -P 9 0 1M'
	qemu-img create -q -f qcow2 -b c64k.qcow2 -F qcow2 over.qcow2 4M
	io qcow2 over.qcow2 'write -P 7 512k 64k' 'write -z 0 64k' 'write -P 8 3500k 4k'
	qemu-img create -q -f qcow2 -b holes.raw -F raw shorter.qcow2 2M
	io qcow2 shorter.qcow2 'write -P 5 300k 1k'
}
(make_images) || exit 1
images="tiny.raw odd.raw holes.raw empty.raw empty.qcow2 zero.qcow2 c512.qcow2 c4k.qcow2 \
c64k.qcow2 c2M.qcow2 v2.qcow2 over.qcow2 shorter.qcow2"

# --- map and compare ----------------------------------------------------------------------------

maps() {
	for i in $images; do
		for o in "--output=human" "--output=json" "--output=json -s 1000 -l 2M"; do
			# shellcheck disable=SC2086
			words map $o $i || { echo "map $o $i" >>why && return 1; }
		done
	done
}
maps
result "map: 13 images, human, JSON and a part"

compares() {
	some="odd.raw holes.raw zero.qcow2 c4k.qcow2 c2M.qcow2 over.qcow2"
	for i in $some; do
		for k in $some; do
			for o in "" -s -p; do
				# How many steps it takes is no matter of compatibility.
				[ "$o" = -p ] && [ $i$k != c4k.qcow2c4k.qcow2 ] && continue
				# shellcheck disable=SC2086
				words compare $o $i $k ||
					{ echo "compare $o $i $k" >>why && return 1; }
			done
		done
	done
}
compares
result "compare: 6 images with each other, plainly and strictly, once with -p"

# --- convert ------------------------------------------------------------------------------------

# Every source into every shape, ours read by them and theirs by us.
one_convert() { # SOURCE OPTIONS
	src=$1
	shift
	rm -f q.img s.img
	qemu-img convert "$@" "$src" q.img >q.out 2>q.err || return 1
	"$SLUICE" img convert "$@" "$src" s.img >why 2>&1 || return 1
	qemu-img compare q.img s.img >>why 2>&1 || return 1
	"$SLUICE" img compare "$src" q.img >>why 2>&1 || return 1
	case " $* " in
	*" -O qcow2 "*)
		qemu-img check s.img >>why 2>&1 || return 1
		case " $* " in *" -W "*) return 0 ;; esac
		# The same clusters are taken, and lie in stretches as long.
		qemu-img map --output=json q.img | sed 's/, "offset.*}/}/' >q.map
		qemu-img map --output=json s.img | sed 's/, "offset.*}/}/' >s.map
		diff q.map s.map >>why
		;;
	esac
}

converts() {
	for i in $images; do
		for o in "-O raw" "-O qcow2" "-O qcow2 -o cluster_size=4k" \
			"-O qcow2 -o cluster_size=2M,lazy_refcounts=on -m 1" \
			"-O qcow2 -o compat=0.10,cluster_size=512 -W -m 16" \
			"-O qcow2 -S 1M -o cluster_size=4k"; do
			# shellcheck disable=SC2086
			one_convert $i $o || { echo "convert $o $i" >>why && return 1; }
		done
	done
}
converts
result "convert: 13 images, 6 shapes each: equal, clean, the same map"

# A raw target has the holes that theirs has; -S 0 leaves none.
holes() {
	for s in 4k 64k 0; do
		qemu-img convert -O raw -S $s c4k.qcow2 q.img &&
			"$SLUICE" img convert -O raw -S $s c4k.qcow2 s.img 2>why &&
			qemu-img map --output=json -f raw q.img >q.map &&
			qemu-img map --output=json -f raw s.img >s.map &&
			diff q.map s.map >>why || return 1
	done
}
holes
result "convert -S: the same holes in a raw file"

words convert -p -O qcow2 c64k.qcow2 s.img
result "convert -p"
three="c64k.qcow2 holes.raw over.qcow2"
# shellcheck disable=SC2086
qemu-img convert $three q.img && "$SLUICE" img convert $three s.img 2>why && cmp q.img s.img >>why
result "convert: three images into one"

into_old() { # -n: what the target held is gone, also where the source has a hole
	for f in raw qcow2; do
		qemu-img create -q -f $f s.img 3M && io $f s.img 'write -P 99 0 3M' &&
			"$SLUICE" img convert -n -O $f holes.raw s.img 2>why &&
			qemu-img compare -F $f holes.raw s.img >>why || return 1
	done
}
into_old
result "convert -n over an image that holds something else"
words convert -n -O qcow2 c64k.qcow2 zero.qcow2
result "convert -n into a smaller one"

unreadable() { # the tables of the source lie
	cp c64k.qcow2 bad.qcow2
	"$SLUICE" img convert -O raw -m 16 bad.qcow2 s.img 2>why || return 1
	# The first L2 entry: no cluster begins there.
	printf '\200\0\0\0\0\005\002\0' |
		dd of=bad.qcow2 bs=1 seek=$((4 * 65536)) conv=notrunc 2>/dev/null
	"$SLUICE" img convert -O raw -m 16 bad.qcow2 s.img 2>why
	[ $? -eq 1 ] && grep -q '^sluice img: error while reading' why
}
unreadable
result "convert of an image that cannot be read ends with words and status 1"

# --- words --------------------------------------------------------------------------------------

while read -r args; do
	# shellcheck disable=SC2086
	words $args
	result "$args"
done <<'END'
map a b
map -f foo odd.raw
map -f qcow2 odd.raw
map --output=x odd.raw
map -s 4x odd.raw
map -l 1y odd.raw
map -f
map --foo odd.raw
map .
map /nonexistent
map -s 10M --output=json odd.raw
compare odd.raw
compare odd.raw /nonexistent
compare -p odd.raw /nonexistent
compare -q odd.raw holes.raw
compare -T foo odd.raw odd.raw
compare -F qcow2 odd.raw odd.raw
compare --foo
convert
convert odd.raw
convert -f foo odd.raw s.img
convert -O foo odd.raw s.img
convert -c odd.raw s.img
convert -m x odd.raw s.img
convert -m 17 odd.raw s.img
convert -S 3 odd.raw s.img
convert -S x odd.raw s.img
convert -r x odd.raw s.img
convert -n odd.raw /nonexistent
convert -n -o a=b odd.raw s.img
convert -B odd.raw odd.raw s.img
convert -B odd.raw -F raw -O qcow2 odd.raw odd.raw s.img
convert -O qcow2 -B odd.raw odd.raw s.img
convert -F raw -O qcow2 odd.raw s.img
convert -O qcow2 -o foo=bar odd.raw s.img
convert -O qcow2 -o cluster_size=3 odd.raw s.img
convert -O qcow2 -o cluster_size=1k, odd.raw s.img
convert -O qcow2 -c -o preallocation=full odd.raw s.img
convert -C -c odd.raw s.img
convert -C -S 4k odd.raw s.img
convert -C --salvage odd.raw s.img
convert --target-is-zero odd.raw s.img
convert --target-image-opts odd.raw s.img
convert --image-opts -f raw driver=raw s.img
convert -T foo odd.raw s.img
convert -t foo odd.raw s.img
convert -p odd.raw /nonexistent/x
convert odd.raw .
convert -O qcow2 -o help
convert -l a odd.raw odd.raw s.img
dd
dd if=odd.raw
dd if=odd.raw of=s.img foo=3
dd if=odd.raw of=s.img foo
dd if=odd.raw of=s.img bs=0
dd if=odd.raw of=s.img bs=x
dd if=odd.raw of=s.img count=x
dd if=odd.raw of=s.img skip=-1
dd if=/nonexistent of=s.img
dd if=odd.raw of=/nonexistent/x
dd if=odd.raw of=s.img skip=999
dd -O foo if=odd.raw of=s.img
dd -f foo if=odd.raw of=s.img
dd -x
measure
measure odd.raw odd.raw
measure --size 1G odd.raw
measure --size x
measure --size 16E
measure --size 7E -O qcow2
measure --size 1G -f raw
measure --size 1G -l x
measure -O foo odd.raw
measure -f foo odd.raw
measure -O qcow2 -o foo=bar --size 1G
measure -O qcow2 -o refcount_bits=3 --size 1G
measure --output=x odd.raw
measure /nonexistent
bench
bench a b
bench -c x odd.raw
bench -c 0 odd.raw
bench -d -1 odd.raw
bench -s 4G odd.raw
bench -S x odd.raw
bench -o 1x odd.raw
bench -i foo odd.raw
bench -t foo odd.raw
bench --pattern=256 -w odd.raw
bench --flush-interval=6 odd.raw
bench -w --flush-interval=2 -d 4 odd.raw
bench -c 10 -o 20k -s 512 odd.raw
bench -c 100 -d 4 -s 512 odd.raw
bench -c 100 -d 4 -s 512 -f raw -w --pattern=7 --flush-interval=10 odd.raw
bench -c 100 -d 4 -s 512 -f raw -w --flush-interval=10 --no-drain odd.raw
bench -c 1 -w -s 512 odd.raw
END

# --- dd, measure ----------------------------------------------------------------------------------

dds() {
	for o in "bs=1000" "bs=512 count=5" "bs=4k skip=3" "bs=64k skip=2 count=40" \
		"bs=1M count=2"; do
		for f in raw qcow2; do
			rm -f q.img s.img
			# shellcheck disable=SC2086
			qemu-img dd -O $f $o if=c4k.qcow2 of=q.img &&
				"$SLUICE" img dd -O $f $o if=c4k.qcow2 of=s.img 2>why &&
				qemu-img compare q.img s.img >>why ||
				{ echo "dd -O $f $o" >>why && return 1; }
		done
	done
}
dds
result "dd: 5 stretches in 2 formats"

measures() {
	for i in $images; do
		for o in "-O raw" "-O qcow2 --output=json -o cluster_size=512" \
			"-O qcow2 -o cluster_size=2M,preallocation=falloc"; do
			# shellcheck disable=SC2086
			words measure $o $i || { echo "measure $o $i" >>why && return 1; }
		done
	done
	for s in 0 1 1G 123456789 3T; do
		for o in "" "-o cluster_size=4k,refcount_bits=1" "-o extended_l2=on"; do
			# shellcheck disable=SC2086
			words measure -O qcow2 $o --size $s ||
				{ echo "measure $o --size $s" >>why && return 1; }
		done
	done
}
measures
result "measure: 13 images and 5 sizes, as raw and as qcow2 of many shapes"

limited() {
	head -c 6291456 /dev/urandom >rate.raw
	start=$(date +%s%N)
	"$SLUICE" img convert -r 8M -f raw -O qcow2 rate.raw s.img 2>why || return 1
	took=$((($(date +%s%N) - start) / 1000000))
	qemu-img compare rate.raw s.img >>why || return 1
	# The first of three pieces may go at once.
	[ $took -ge 480 ] || { echo "took $took ms" >>why && return 1; }
}
limited
result "convert -r: no faster than it was told"

# --- helps ----------------------------------------------------------------------------------------

for c in map compare convert dd measure bench; do
	"$SLUICE" img $c --help >why 2>&1 && grep -q '^usage: sluice img' why &&
		grep -q "^  sluice img $c .*disk" why
	result "img $c --help"
done
exit $status
