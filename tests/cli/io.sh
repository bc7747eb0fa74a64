#!/bin/sh
# SPDX-License-Identifier: MIT
#
# io.sh - sluice io beside qemu-io: same output to the byte, same exit status, same image after.
#
# Each line of the list below is the arguments of one run of each, on copies of the same
# images.  Times are filtered out, and the programs' names; nothing else is.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
SLUICE=${SLUICE:-build/sluice}
status=0

if ! command -v qemu-io >/dev/null; then
	echo "skip io: qemu-io is not installed (Debian: qemu-utils)"
	exit 0
fi

filter() {
	sed -E -e 's/^(qemu-io|sluice io): /P: /' -e 's/(qemu-io|sluice)> /P> /g' \
		-e 's/ops; .*/ops; T/' -e 's/^([0-9]+,1,).*/\1/'
}

# one NAME PROGRAM ARGUMENTS: results in NAME.out, NAME.err, and the image in NAME.img.
one() {
	cp base.qcow2 img.qcow2
	cp base.raw img.raw
	cp top.qcow2 over.qcow2
	cp dirty.qcow2 killed.qcow2
	eval "timeout 20 $2 $3" <in >out 2>err
	echo "status $?" >>out
	filter <out >"$1.out"
	filter <err >"$1.err"
	qemu-img convert -O raw img.qcow2 "$1.img" 2>/dev/null || : >"$1.img"
}

compare() { # NAME ARGUMENTS
	one q qemu-io "$2"
	one s "\"$SLUICE\" io" "$2"
	if diff q.out s.out >why && diff q.err s.err >>why && cmp q.img s.img >>why 2>&1; then
		return 0
	fi
	echo "  | $2"
	sed 's/^/  | /' why | head -20
	return 1
}

verdict() {
	if [ "$1" -eq 0 ]; then
		echo "ok $2"
	else
		echo "FAIL $2 ($1)"
		status=1
	fi
}

qemu-img create -q -f raw base.raw 1M
qemu-img create -q -f qcow2 base.qcow2 10M
qemu-io -c 'write -P 7 0 64k' base.qcow2 >/dev/null
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
qemu-img create -q -f qcow2 -o lazy_refcounts=on dirty.qcow2 10M
(qemu-io -c 'write -P 7 0 256k' -c 'sigraise 9' dirty.qcow2) >/dev/null 2>&1
printf '[inject-error]\nevent = "read_aio"\nerrno = "28"\n' >rules
printf '[inject-error]\nevent = "foo"\n' >rules.event
printf '[inject-error]\nfoo = "1"\n' >rules.key
printf '[bla]\nevent = "1"\n' >rules.section
printf '[inject-error]\nstate = "1"\n' >rules.none
: >in

# --- every run alike --------------------------------------------------------------------------

# The runs below name these.
# shellcheck disable=SC2034
{
	inner=driver=raw,file.driver=qcow2,file.file.filename=img.qcow2
	inner_json='json:{"driver":"raw","file":{"driver":"qcow2","file.filename":"img.qcow2"}}'
	compress=driver=compress,file.driver=qcow2,file.file.filename=img.qcow2
	open_above='open -o driver=blkdebug,image.driver=qcow2'
	open_cor='open -C -o driver=blkdebug,image.driver=qcow2'
	fault_at_2k=inject-error.0.event=none,inject-error.0.sector=4
}
n=0 bad=0
while IFS= read -r line; do
	case $line in '' | '#'*) continue ;; esac
	n=$((n + 1))
	compare run "$line" || bad=$((bad + 1))
done <<'CASES'
-c "read" img.qcow2
-c "read 0" img.qcow2
-c "read x 1" img.qcow2
-c "read -z 0 1" img.qcow2
-c "read -s x 0 1" img.qcow2
-c "read -l 512 0 1k" img.qcow2
-c "read -P 7 -l 512 0 1k" img.qcow2
-c "read -P 1 -s 512 0 1k" img.qcow2
-c "read -P 0 -s 512 -l 1024 0 1k" img.qcow2
-c "read -P 300 0 1k" img.qcow2
-c "read -v 0 48" -c "read -v 5 20" img.qcow2
-c "read -p 0 511" -c "read 3 511" -c "read -C 0 512" -c "read -q 0 512" img.qcow2
-c "read 20M 512" img.qcow2
-c "read 0 3G" -c "read -1 512" -c "read 0 -1" img.qcow2
-c "write -P 1 -z 0 1k" -c "write -u 0 1k" -c "write -b -z 0 1k" -c "write -c -f 0 1k" img.qcow2
-c "write -s nofile 0 1k" -c "write -n 0 1k" img.qcow2
-c "write 0 512 3" -c "write 0 0" -c "write -s /dev/null 0 1k" img.qcow2
-c "write -z -n 0 1k" -c "read -P 0 0 1k" -c "read -P 7 1k 63k" img.qcow2
-c "write -z -u 0 64k" -c "read -P 0 0 64k" -c map img.qcow2
-c "write -f 0 64k" -c "write -P 3 100 1000" -c "read -P 3 100 1000" img.qcow2
-c bogus -c "" -c length img.qcow2
-c "readv 0 512 1k" -c "readv 0 511" img.qcow2
-c "readv 0" -c "readv -P 1 0 1k 1k" -c "readv -v 0 16 16" img.qcow2
-c "writev -P 300 0 1k" -c "writev -f 0 1k 2k" img.qcow2
-c "writev 0 3G" -c "writev 0 1M 9M 1M" -c "readv 0 1500M 1500M" img.qcow2
-c "aio_read 0 1k 1k" -c aio_flush -c "aio_write -P 3 0 1k" -c aio_flush img.qcow2
-c "aio_read -P 1 0 1k 1k" -c aio_flush img.qcow2
-c "aio_read 11M 1k" img.qcow2
-c "aio_write 11M 1k" img.qcow2
-c "aio_write -z -P 1 0 1k" img.qcow2
-c "aio_write -u 0 1k" -c "aio_write -q 0 1k" -c aio_flush img.qcow2
-c "aio_write -z 0 1k 2k" -c "aio_write -i 0 1k" -c "aio_read -i 0 1k" img.qcow2
-c "aio_write -v 0 1k" -c "writev -z 0 1k" img.qcow2
-c flush -c "flush 1" -c "discard 0" -c "discard -C 0 1k" -c "discard 11M 1k" img.qcow2
-c "discard 0 3G" img.qcow2
-c "alloc" -c "alloc 0" -c "alloc 0 1M" -c "alloc 1M 64k" img.qcow2
-c "alloc 11M 64k" -c "alloc 1 1" -c "alloc 0 x" -c "alloc 0 3G" img.qcow2
-c map -c length -c info img.qcow2
-r -f raw -c map -c length -c info img.qcow2
-c "sleep 1" -c "sleep" -c "sleep x" -c "sleep -1" img.qcow2
-c "truncate 20M" -c length -c "truncate x" -c length img.qcow2
-c "truncate 1" -c "truncate -m bla 21M" -c length img.qcow2
-c "truncate -m full 21M" -c length img.qcow2
-c "reopen" img.qcow2
-c "reopen -r" -c "write 0 1k" -c "read 0 1k" -c "reopen -w" -c "write 0 1k" img.qcow2
-c "reopen -w -r" -c "reopen -c bla" img.qcow2
-c "reopen -o lazy-refcounts=on" -c "reopen -o foo=on" img.qcow2
-c "reopen -c writeback -w -o cache.direct=on,read-only=off" img.qcow2
-c "reopen -c writeback -o cache.direct=on" -c "reopen -o driver=raw" img.qcow2
-c "open img.qcow2" img.qcow2
-c "open -o driver=qcow2"
-c "open"
-c "close" -c "read 0 1k" img.qcow2
-c "read 0 1k"
-c "open nofile" -c "open -t foo img.qcow2" -c "open -d foo img.qcow2"
-c "open -n -s img.qcow2" -c "write -P 9 0 1k" -c "read -P 9 0 1k" -c length
-c "quit 1" img.qcow2
-c "quit" -c length img.qcow2
-r -c "read -P 7 0 256k" killed.qcow2
-c "read -P 7 0 256k" killed.qcow2
-c "help foo" img.qcow2
-c "help" img.qcow2
-c "break 1" -c "break l1_update A" -c "resume A" -c "remove_break A" img.qcow2
-c "sigraise" -c "sigraise x" -c "sigraise 0" -c "sigraise 10000000000" img.qcow2
nofile
-f foo img.qcow2
-t foo img.qcow2
-d foo img.qcow2
-i foo img.qcow2
-n -s -c length img.qcow2
-s -c "write -P 9 0 64k" -c "read -P 9 0 64k" -c "read -P 0 64k 1M" img.qcow2
-c length --image-opts driver=qcow2,file.filename=img.qcow2
-r -c "write 0 512" img.qcow2
--aio=threads --cache=writeback -c length img.qcow2
-f raw --image-opts -c length driver=qcow2,file.filename=img.qcow2
-c 'open -o driver=qcow2,file.driver=file,file.filename=img.qcow2' -c length
-c "open -o lazy-refcounts=on img.qcow2" -c info
-c "open -o foo=on img.qcow2" -c info
-c "open -o driver=foo img.qcow2"
-c "open -o file.foo=x img.qcow2"
-c "open -o l2-cache-size=1k img.qcow2"
img.raw -c length
-r img.raw -c length
-c "write -P 0x100 0 1" -c "write -P -1 0 1" -c "write -P 010 0 8" -c "read -v 0 8" img.qcow2
-c "read 9999999999999999999999 1k" -c "read 9223372036854775808 1" img.qcow2
-c "read 7E 1" -c "read 0 16E" -c "read 1.5k 1" img.qcow2
-c length 'json:{'
-c length 'json:[]'
-c length 'json:{}'
-c length 'json:{"driver":"qcow2"}'
-c length 'json:{"driver":"qcow2","file":{"driver":"file"}}'
-c length 'json:{"driver":"foo"}'
-c length 'json:{"driver":"qcow2","file":{"driver":"file","filename":"img.qcow2"},"foo":1}'
-c length 'json:{"driver":"qcow2","file":"xx"}'
-c info -c length 'json:{"file.filename":"img.qcow2"}'
-c info 'json:{"driver":"file","filename":"img.qcow2"}'
-c length 'json:{"filename":"img.qcow2"}'
-c info -c length 'json:{"driver":"null-co","size":65536}'
-c length 'json:{"driver":"qcow2","file":{"driver":"file","filename":"nofile"}}'
-c length 'json:{"driver":"qcow2","file":{"driver":"file","filename":"img.raw"}}'
-c info blkdebug::img.qcow2
-c info blkdebug:nofile:img.qcow2
-c info blkdebug:img.qcow2
-c info blkdebug::nofile
-c length file:img.qcow2
-c length foo:img.qcow2
-c length ./foo:img.qcow2
-c length 'json:{"driver":"raw","offset":512,"size":1024,"size":"x","file.filename":"img.qcow2"}'
-c length 'json:{"driver":"qcow2","file.filename":"img.qcow2","lazy-refcounts":"x"}'
-c info 'json:{"driver":"qcow2","file.filename":"img.qcow2","lazy-refcounts":true}'
-c length 'json:{"driver":"qcow2","file.filename":"img.qcow2","backing":"x"}'
-c info 'json:{"driver":"blkdebug","image.filename":"img.qcow2"}'
-c length 'json:{"driver":"qcow2","file.filename":"img.qcow2","l2-cache-size":"1x"}'
-c length "json:{'driver':'qcow2','file.filename':'img.qcow2'}"
-c length 'json:{"driver":"qcow2","file.filename":"img.qcow2","read-only":true}'
-c info 'json:{"driver":"copy-on-read","file":{"driver":"qcow2","file.filename":"img.qcow2"}}'
-c length 'json:{"driver":"qcow2","file.filename":"img.qcow2","discard":"x"}'
-c length 'json:{"driver":"qcow2","file.filename":"img.qcow2","detect-zeroes":"x"}'
-c length 'json:{"driver":"qcow2","file.filename":"img.qcow2","detect-zeroes":"unmap"}'
--image-opts -c length file.filename=img.qcow2
--image-opts -c length driver=raw,file=img.qcow2
--image-opts -c length driver=qcow2,file.filename=a,,b
--image-opts -c length driver=qcow2
--image-opts -c length driver=qcow2,file.filename=img.qcow2,cache.direct=x
--image-opts -c length filename=img.qcow2
-c "read 0 1k" -c "read 0 1k" blkdebug:rules:img.qcow2
-c length blkdebug:rules.event:img.qcow2
-c length blkdebug:rules.key:img.qcow2
-c length blkdebug:rules.section:img.qcow2
-c length blkdebug:rules.none:img.qcow2
-c 'break foo A' -c "resume A" -c "remove_break A" blkdebug::img.qcow2
-c 'break read_aio A' -c "remove_break A" -c "remove_break A" -c "read 0 1k" blkdebug::img.qcow2
# Images in the place of files.
-c "read -P 7 0 64k" -c "write -P 9 1000 70000" -c "read -P 9 1000 70000" -c map "$inner_json"
--image-opts -c "write -z 0 100k" -c "discard 200k 100k" -c "read -P 0 0 300k" -c map $inner
--image-opts -c "write -P 3 0 1M" -c "discard 64k 130k" -c "alloc 0 1M" $inner
--image-opts -c "truncate 15M" -c length $inner
-c "$open_above,$fault_at_2k img.qcow2" -c "read 0 1k" -c "read 2k 1k" -c "write -z 2k 1k"
-c "$open_above,opt-write-zero=1M img.qcow2" -c "write -P 5 0 4M" -c "write -z 100k 3M" -c map
--image-opts -c "write -P 4 1M 200k" -c "write -P 5 300k 1k" -c "read -P 4 1M 200k" $compress
--image-opts -c length driver=compress
--image-opts -c length driver=raw,file.driver=qcow2
--image-opts -c length driver=raw,file.driver=foo,file.filename=img.qcow2
# Reads that stay in the overlay.
-f qcow2 -c map over.qcow2
-f qcow2 -C -c "read -P 7 1k 1k" -c "read 300k 1" -c map -c "write -P 8 0 1k" over.qcow2
-c "open -o driver=copy-on-read,file.driver=qcow2 over.qcow2" -c "read 0 10M" -c map
-c "open -r -o driver=copy-on-read,file.driver=qcow2 over.qcow2"
-c "$open_cor,inject-error.0.event=cor_write over.qcow2" -c "read -P 7 0 64k" -c map
CASES
[ $n -gt 50 ] || bad=1
verdict $bad "$n runs print what qemu-io prints"

# --- errors injected where a new table or count is written ------------------------------------

# injected PROGRAM: what it says, and what of the image is wrong then but for leaks.
injected() {
	qemu-img create -q -f qcow2 -o cluster_size=1k fresh.qcow2 8M
	eval "timeout 20 $1 -c 'write 0 128k' -c 'read 0 128k' blkdebug:rules.here:fresh.qcow2" \
		>out 2>err
	filter <out
	filter <err
	qemu-img check fresh.qcow2 2>&1 | grep ^ERROR
}

bad=0 n=0
for event in l2_load l2_alloc_write write_aio refblock_load refblock_update_part \
	refblock_alloc cluster_alloc; do
	for once in on off; do
		printf '[inject-error]\nevent = "%s"\nonce = "%s"\n' $event $once >rules.here
		injected qemu-io >q.out
		injected "\"$SLUICE\" io" >s.out
		n=$((n + 1))
		diff q.out s.out >why || { bad=1; echo "  | $event $once"; sed 's/^/  | /' why; }
	done
done
verdict $bad "$n injected errors are heard of as the peer's are"

# --- killed after a write ---------------------------------------------------------------------

# killed PROGRAM OPTIONS: what a check finds then.
killed() {
	qemu-img create -q -f qcow2 -o "$2" dead.qcow2 10M
	(eval "$1 -c 'write -P 7 0 64k' -c 'sigraise 9' dead.qcow2") >/dev/null 2>&1
	qemu-img check dead.qcow2 2>&1
	echo "status $?"
}

bad=0
for options in lazy_refcounts=off lazy_refcounts=on; do
	killed qemu-io $options >q.out
	killed "\"$SLUICE\" io" $options >s.out
	diff q.out s.out >why || { bad=1; echo "  | $options"; sed 's/^/  | /' why; }
done
verdict $bad "killed after one write, it leaves what the peer leaves"

# --- zeros that are written and seen ----------------------------------------------------------

# kinds PROGRAM MODE: what the image holds where after writes of zeros.
kinds() {
	cp base.qcow2 img.qcow2
	eval "$1 -c 'write -P 0 0 32k' -c 'write -P 0 64k 64k' -c 'write -P 7 1M 128k' \
		-c 'write -P 0 1M 64k' -c 'write -P 1 3M 64k' -c 'write -P 0 2M 64k' \
		--image-opts driver=qcow2,file.filename=img.qcow2,$2" >/dev/null
	qemu-img map --output json img.qcow2 | sed 's/, "offset.*//'
}

bad=0
for mode in off on unmap,discard=unmap; do
	kinds qemu-io detect-zeroes=$mode >q.map
	kinds "\"$SLUICE\" io" detect-zeroes=$mode >s.map
	diff q.map s.map >why && cmp -s q.map last.map && echo "nothing detected" >why
	[ ! -s why ] || { bad=1; echo "  | $mode"; sed 's/^/  | /' why; }
	cp q.map last.map
done
verdict $bad "zeros are detected as the peer does"

# --- help: every command's, to the byte -------------------------------------------------------

bad=0
for c in read write readv writev aio_read aio_write aio_flush flush discard alloc map length info \
	sleep truncate reopen open close quit help sigraise break resume wait_break remove_break \
	abort r w o c q d i l f t rv; do
	compare help "-c 'help $c'" || bad=$((bad + 1))
done
verdict $bad "help is the peer's"

# --- standard input: prompts, words, end ------------------------------------------------------

printf "read 0 1k\nlength\n \nfoo\nread '0' 1k\nquit\nlength\n" >in
bad=0
compare input img.qcow2 || bad=1
printf 'length' >in
compare input img.qcow2 || bad=1
: >in
compare input img.qcow2 || bad=1
verdict $bad "commands from standard input"

exit $status
