#!/bin/sh
# SPDX-License-Identifier: MIT
#
# bitmap.sh - dirty bitmaps beside QEMU's tools: the same words and statuses, bits that are the same
# after the same work, damaged directories, bitmaps that were not saved.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

result() { # NAME; the verdict is the last command's
	if [ $? -eq 0 ]; then
		echo "ok $1"
	else
		echo "FAIL $1"
		sed 's/^/  | /' why 2>/dev/null | head -40
		status=1
	fi
}

for tool in qemu-img qemu-io qemu-nbd python3; do
	if ! command -v $tool >/dev/null; then
		echo "skip bitmap: $tool is not installed (Debian: qemu-utils, python3)"
		exit 0
	fi
done
exec 2>&1

ours() { "$SLUICE" "$@"; }
theirs() {
	tool=qemu-$1
	shift
	"$tool" "$@"
}
# The peer ends one of its lines with nothing, and names nodes as it likes.
calm() {
	sed "s/qemu-i[mgo]*/PROGRAM/g; s/sluice i[mgo]*/PROGRAM/g; s/#block[0-9]*/NODE/
		s/to fix\.\(.\)/to fix.\n\1/; /disk size/d; /actual-size/d; /Image end offset/d"
}

# --- the same words --------------------------------------------------------------------------

long=$(printf 'x%.0s' $(seq 300))
sizes="a b c big"

bitmap_words() {
	cat <<-END

		a
		a b0
		--add a
		--add a b0
		--add a b0
		--add --remove a b1
		--remove a zz
		--clear a zz
		--enable a zz
		--disable a zz
		--merge zz a b0
		--merge b0 a zz
		--add --add a b5
		-g 64k --enable a b0
		--add -g 3k a b7
		--add -g 256 a b7
		--add -g 4G a b7
		--add -g 2G a b8
		--add -g foo a b7
		--add -g -1 a b7
		--add -g 0 a g0
		--add a ''
		--add a $long
		--add -f raw r b0
		--merge b0 -F qcow2 a b8
		--add -b r a b7
		--remove --enable a b0
		--enable --disable a b0
		--enable -F raw a b0
		--add nofile b0
		--add a b0 b1
		-x a b0
		--add -f foo a b
		--merge b0 -b r a b8
		--merge b0 -b r -F raw a b8
		--merge b0 -b nofile a b8
		--add --image-opts driver=qcow2,file.filename=a qq
		--add --image-opts -f qcow2 file.filename=a q
		--add v2 b0
		--add -g 512 big b0
		--add big b0
		--remove big b0
		--add b bb
		--merge bb -b b a b0
		--merge bb -b b -F qcow2 a b0
		--merge b0 a b0
		-g 64k -F raw -b x --enable a b0
		-F raw -b x --enable a b0
		--add -b
		--merge
		--granularity 64k --add a gg
		--source-file b --source-format qcow2 --merge bb a gg
		--object secret,id=x,data=y --add a oo
		--add --remove --remove --enable a nn
	END
}

convert_words() {
	cat <<-END
		--skip-broken-bitmaps -O qcow2 a c
		--bitmaps -O qcow2 a b c
		--bitmaps a c
		--bitmaps -f raw -O qcow2 a c
		--bitmaps -O qcow2 -o compat=0.10 a c
		--bitmaps -O qcow2 v2 c
		--bitmaps -O qcow2 a c
		-n --bitmaps -O qcow2 a c
		-n --bitmaps -O qcow2 a b
		-n --bitmaps -O qcow2 a v2
		-n --bitmaps -O raw a r
		--bitmaps -O qcow2 -o cluster_size=4k a c
	END
}

each() { # WHO COMMAND; words from standard input
	while read -r line; do
		echo "\$ $2 $line"
		eval "$1 img $2 $line" </dev/null
		echo "status $?"
	done
}

steps() { # WHO
	rm -f a r b v2 big c
	qemu-img create -q -f qcow2 a 10M
	qemu-img create -q -f raw r 10M
	qemu-img create -q -f qcow2 -o compat=0.10 v2 10M
	qemu-img create -q -f qcow2 big 64T
	qemu-img create -q -f qcow2 b 20M
	bitmap_words | each "$1" bitmap
	convert_words | each "$1" convert
	for f in $sizes; do
		"$1" img info $f
		"$1" img info --output=json $f
		"$1" img check $f
		"$1" img measure -O qcow2 $f
		"$1" img measure --output=json -O qcow2 -o cluster_size=2M $f
	done
	# Not saved: all that can be done is to remove them.
	"$1" io -c 'write 0 64k' -c 'sigraise 9' a >/dev/null 2>&1
	qemu-img check -q -r leaks a >/dev/null 2>&1
	"$1" img info a
	{
		for op in --clear --enable --disable --add '--merge b0' '--merge gg'; do
			echo "$op a b5"
		done
		echo '--add a good'
		echo '--merge b5 a good'
	} | each "$1" bitmap
	for op in 'resize a 30M' 'resize --shrink a 5M' 'snapshot -c s a' 'snapshot -a s a' \
		'snapshot -d s a' 'convert --bitmaps -O qcow2 a d' \
		'convert --bitmaps --skip-broken-bitmaps -O qcow2 a d'; do
		echo "\$ $op"
		# shellcheck disable=SC2086 # words
		"$1" img $op
		echo "status $?"
	done
	for b in b0 b5 b8 g0 gg oo qq $long; do
		echo "--remove a $b"
	done | each "$1" bitmap
	for op in 'resize a 30M' 'info a' 'check a'; do
		# shellcheck disable=SC2086 # words
		"$1" img $op
		echo "status $?"
	done
}
steps theirs 2>&1 | calm >q.out
steps ours 2>&1 | calm >s.out
diff -u q.out s.out >why
result "bitmap, convert, info, measure: the same words and statuses as qemu-img"

# --- the same bits ---------------------------------------------------------------------------

for seed in 1 2 3 4; do
	python3 "$SRC/tests/cli/bitmap.py" "$SLUICE" $seed 8 >why 2>&1
	result "the same work, the same bits: seed $seed, $(head -1 why)"
done

# What an image tool writes is noted too; what it only moves is not.
tools() { # WHO
	rm -f base top t
	qemu-img create -q -f qcow2 base 8M
	qemu-img create -q -f qcow2 -b base -F qcow2 top 8M
	qemu-img create -q -f qcow2 t 8M
	qemu-img bitmap --add base n && qemu-img bitmap --add top n && qemu-img bitmap --add t n
	"$1" io -c 'write 1M 256k' -c 'write -z 3M 64k' -c 'write -c 4M 64k' top >/dev/null
	"$1" io -c 'write -b 0 64k' -c 'write 6M 4k' -c 'reopen -r' -c 'reopen -w' \
		-c 'write 7M 4k' top >/dev/null
	"$1" io -C -c 'read 0 8M' top >/dev/null
	"$1" io -s -c 'write 2M 64k' top >/dev/null
	"$1" img commit -q top
	"$1" img bitmap --add --merge n -b top -F qcow2 base m # whose own base is written to
	"$1" img rebase -b '' top
	"$1" img convert -n -O qcow2 top t
	for f in base top t; do
		qemu-img check -q $f || echo "$f is damaged"
		python3 - "$SRC/tests/cli/bitmap.py" $f <<-'END'
			import sys
			script, image = sys.argv[1:]
			sys.argv = [script, 'sluice', '0', '0']
			names = {}
			exec(open(script).read(), names)
			print(image, names['bitmaps'](image))
		END
	done
}
tools theirs >q.out 2>&1
tools ours >s.out 2>&1
diff -u q.out s.out >why && grep -q '1048576, 262144' s.out
result "commit, rebase, convert and io: what they write is noted"

# --- a session that was not ended ------------------------------------------------------------

flags() { # IMAGE
	qemu-img info -U "$1" | sed -n 's/.*: \(in-use\|auto\)/\1/p' | tr '\n' ' '
}
unsaved() {
	rm -f a
	qemu-img create -q -f qcow2 a 8M && ours img bitmap --add a b || return 1
	[ "$(flags a)" = "auto " ] || return 1
	ours io -r -c 'read 0 1M' a >/dev/null && [ "$(flags a)" = "auto " ] || return 1
	ours io -c 'sigraise 9' a >/dev/null 2>&1
	[ "$(flags a)" = "in-use auto " ] || return 1
	ours io -c 'write 0 64k' a >/dev/null && [ "$(flags a)" = "in-use auto " ] &&
		ours img bitmap --remove --add a b && [ "$(flags a)" = "auto " ] &&
		ours img check -q a
}
unsaved >why
result "a killed writer leaves bitmaps that nobody believes"

# Version 2 has none: they go, and their clusters with them.
to_v2() {
	rm -f a
	qemu-img create -q -f qcow2 a 8M && ours img bitmap --add a b &&
		ours io -c 'write 0 1M' a >/dev/null && ours img amend -o compat=0.10 a &&
		ours img check a >out && grep -q 'No errors' out && qemu-img check -q a &&
		ours img amend -o compat=1.1 a && ours img bitmap --add a c && qemu-img check -q a
}
to_v2 >why
result "amend to version 2 gives bitmaps' clusters back"

# --- damage ----------------------------------------------------------------------------------

# EXTENSION DIRECTORY TABLE: where they lie in an image.
places() {
	python3 - "$1" <<-'END'
		import struct
		import sys
		d = open(sys.argv[1], 'rb').read()
		at = struct.unpack('>I', d[100:104])[0]
		while True:
		    kind, size = struct.unpack('>II', d[at:at + 8])
		    if kind == 0x23852875:
		        break
		    at += 8 + (size + 7) // 8 * 8
		directory = struct.unpack('>Q', d[at + 24:at + 32])[0]
		print(at + 8, directory, struct.unpack('>Q', d[directory:directory + 8])[0])
	END
}
poke() { # IMAGE OFFSET BYTES, as printf has them
	# shellcheck disable=SC2059 # a format
	printf "$3" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null
}
look() { # WHO
	for c in 'info' 'check' 'bitmap --remove' 'convert -O raw' 'measure -O qcow2'; do
		cp a a2
		echo "- $c"
		case $c in
		bitmap*) last=b0 ;;
		convert*) last=out.raw ;;
		*) last= ;;
		esac
		# shellcheck disable=SC2086 # words
		"$1" img $c a2 $last
		echo "status $?"
	done
}
damage() { # NAME OFFSET BYTES
	cp good a
	poke a "$2" "$3"
	echo "=== $1" | tee -a q.out >>s.out
	look theirs 2>&1 | calm >>q.out
	look ours 2>&1 | calm >>s.out
}
rm -f q.out s.out good
qemu-img create -q -f qcow2 good 10M && ours img bitmap --add good b0 &&
	ours io -c 'write 0 1M' good >/dev/null && ours img bitmap --add --disable good b1
# shellcheck disable=SC2046 # words
set -- $(places good)
damage 'more than there are' "$1" '\0\0\0\3'
damage 'fewer' "$1" '\0\0\0\1'
damage 'none' "$1" '\0\0\0\0'
damage 'too many' "$1" '\0\1\377\377'
damage 'reserved' $(($1 + 4)) '\0\0\0\1'
damage 'length of the extension' $(($1 - 4)) '\0\0\0\10'
damage 'no directory' $(($1 + 8)) '\0\0\0\0\0\0\0\0'
damage 'a huge directory' $(($1 + 8)) '\0\0\0\0\377\0\0\0'
damage 'a directory cut short' $(($1 + 15)) '\74'
damage 'a directory too long' $(($1 + 15)) '\110'
damage 'an unaligned directory' $(($1 + 22)) '\2'
damage 'a directory past the end' $(($1 + 20)) '\1'
damage 'an unaligned table' $(($2 + 6)) '\2'
damage 'no table' "$2" '\0\0\0\0\0\0\0\0'
damage 'an empty table' $(($2 + 8)) '\0\0\0\0'
damage 'a huge table' $(($2 + 8)) '\377'
damage 'flags' $(($2 + 15)) '\6'
damage 'type' $(($2 + 16)) '\2'
damage 'granularity' $(($2 + 17)) '\10'
damage 'granularity 2^32' $(($2 + 17)) '\40'
damage 'name' $(($2 + 18)) '\377\377'
damage 'extra data' $(($2 + 23)) '\10'
damage 'in use' $(($2 + 15)) '\3'
damage 'ones' "$3" '\0\0\0\0\0\0\0\1'
damage 'a program without bitmaps was here' 95 '\0'
diff -u q.out s.out >why
result "damaged bitmaps: the same words and statuses as qemu-img"

# A broken table: the disk can be read, nothing is written, check says what is wrong.
broken_table() { # ENTRY
	cp good a
	poke a "$3" "$2" && cp a a2
	ours img convert -O raw a out.raw && ours img info a >/dev/null || return 1
	ours img check a >/dev/null
	[ $? -eq 2 ] || return 1
	ours io -c 'write 0 64k' a >out 2>&1
	grep -q "Could not read bitmap_table table from image for bitmap 'b0'" out && cmp a a2
}
for entry in '\0\0\0\0\0\0\0\4' '\0\0\0\0\0\5\2\0' '\0\0\0\0\0\5\0\1'; do
	broken_table "$entry" "$entry" "$3" >why
	result "a broken table is not written by: $entry"
done

exit $status
