#!/bin/sh
# SPDX-License-Identifier: MIT
#
# nbd.sh - sluice nbd as its users meet it: clients of other makes copy, read, flush and leave.

cd "${TMPDIR:?run me by tests/run.sh}" || exit 1
status=0
sock=$PWD/s
uri="nbd+unix:///?socket=$sock"

for tool in nbdkit:nbdkit nbdcopy:libnbd-bin qemu-img:qemu-utils; do
	command -v "${tool%:*}" >/dev/null && continue
	echo "${tool%:*} is not installed (Debian: ${tool#*:})"
	exit 77
done
if [ ! -e "$(dirname "$SLUICE")/nbdkit-sluice-plugin.so" ]; then
	echo "the plugin was not built (Debian: nbdkit-plugin-dev)"
	exit 77
fi

result() { # NAME; the verdict is the last command's
	if [ $? -eq 0 ]; then
		echo "ok $1"
	else
		echo "FAIL $1"
		tail -n 20 why err 2>/dev/null | sed 's/^/  | /'
		status=1
	fi
	: >why
	: >err
}

alive() { # PID; a zombie is not
	grep -q '^State:.[^ZX]' "/proc/$1/status" 2>/dev/null
}

# Ten seconds at most.
gone() { # PID
	for _ in $(seq 200); do
		alive "$1" || return 0
		sleep 0.05
	done
	echo "process $1 is still there" >>why
	return 1
}

# What a failed test left running.
end_server() {
	[ -z "$pid" ] || kill "$pid" 2>/dev/null
}
pid=
trap end_server EXIT

serve() { # ARGUMENT...: in the background; its process ID is in $pid
	end_server && gone "$pid"
	rm -f pid
	"$SLUICE" nbd -k "$sock" --fork --pid-file=pid "$@" 2>>err || return 1
	pid=$(cat pid)
}

# The same in the foreground, for its exit status; $pid is our child.
serve_here() { # ARGUMENT...
	"$SLUICE" nbd -k "$sock" "$@" 2>>err &
	pid=$!
	for _ in $(seq 200); do
		[ -S "$sock" ] && return 0
		sleep 0.05
	done
	echo "no socket" >>why
	return 1
}

# A client that writes and then neither flushes nor leaves; $client is its process ID.
stay() { # WRITES COMMAND...
	n=$1
	shift
	stdbuf -oL qemu-io -f raw -t writeback -c "$@" -c 'sleep 100000' "$uri" >said 2>&1 &
	client=$!
	for _ in $(seq 200); do
		[ "$(grep -c '^wrote' said)" -eq "$n" ] && return 0
		sleep 0.05
	done
	cat said >>why
}

stop() {
	kill "$pid" && gone "$pid"
}

new() { # FORMAT SIZE
	rm -f image
	qemu-img create -q -f "$1" image "$2"
}

{
	head -c 3000320 /dev/urandom
	head -c 20000256 /dev/zero
	head -c 1000448 /dev/urandom
} >data
size=$(stat -c %s data)

# Leaks are no errors.
no_errors() {
	qemu-img check image >>why 2>&1
	case $? in 0 | 3) ;; *) return 1 ;; esac
}

# --- copies -----------------------------------------------------------------------------------

copy() { # FORMAT OPTION...
	format=$1
	shift
	new "$format" "$size" && serve -t -e 0 -f "$format" "$@" image || return 1
	nbdcopy --flush data "$uri" 2>>why &&
		qemu-img compare -q -f raw -F raw data "$uri" >>why 2>&1 &&
		nbdcopy "$uri" back 2>>why && cmp data back >>why 2>&1
	copied=$?
	stop && [ $copied -eq 0 ] || return 1
	if [ -e "$sock" ]; then
		echo "the socket is still there" >>why
		return 1
	fi
	if [ "$format" = qcow2 ]; then
		qemu-img check -q image >>why 2>&1 || return 1
	fi
	qemu-img compare -q -f raw -F "$format" data image >>why 2>&1
}

for format in raw qcow2; do
	for cache in writeback none writethrough unsafe; do
		copy $format --cache=$cache
		result "copied in and out, $format, cache=$cache"
	done
done
copy qcow2 --aio=threads --discard=unmap
result "copied in and out, threads, discards free clusters"

# --- what is told of the image ----------------------------------------------------------------

maps_agree() { # FORMAT
	new "$1" 64M &&
		qemu-io -f "$1" -c 'write -P 1 1M 128k' -c 'write -P 2 40M 1M' image >>why &&
		serve -r -f "$1" image && nbdinfo --map "$uri" >ours 2>>why || return 1
	gone "$pid" || return 1
	rm -f pid
	qemu-nbd -r -k "$sock" --fork --pid-file="$PWD/pid" -f "$1" image &&
		nbdinfo --map "$uri" >theirs 2>>why && gone "$(cat pid)" &&
		[ "$(wc -l <ours)" -ge 5 ] && diff ours theirs >>why
}
for format in raw qcow2; do
	maps_agree $format
	result "the map of a sparse image is qemu-nbd's, $format"
done

new qcow2 64M
facts() {
	serve "$@" -f qcow2 image && nbdinfo "$uri" >facts 2>>why && cat facts >>why &&
		gone "$pid"
}
fact() { # WORD VALUE
	grep -q "$1: $2\$" facts
}
facts && fact can_flush true && fact can_fua true && fact can_trim true &&
	fact can_zero true && fact is_read_only false && fact can_multi_conn false
result "one client: flush, FUA, trim, zero; not for several connections"
facts -e 4 && fact can_multi_conn true
result "four clients may be one with several connections"
facts -r && fact is_read_only true
result "read-only is told"
serve -t -r -f qcow2 image &&
	! qemu-io -f raw -c 'write 0 4k' "$uri" >>why 2>&1 && stop
result "and kept"

serve -t -x some/name -D "a disk of mine" -f qcow2 image &&
	nbdinfo --list "$uri" >facts 2>>why && grep -q '^export="some/name"' facts &&
	grep -q 'a disk of mine' facts &&
	nbdinfo --size "nbd+unix:///some/name?socket=$sock" >>why &&
	! nbdinfo --size "$uri" >>why 2>&1
named=$?
stop && [ $named -eq 0 ]
result "an export has one name, and no other"

# --- requests ---------------------------------------------------------------------------------

if command -v qemu-io >/dev/null; then
	serve -f qcow2 --discard=unmap image &&
		qemu-io -f raw -d unmap -c 'write -P 5 0 8M' -c 'write -z 1M 1M' \
			-c 'write -z -u 2M 1M' -c 'discard 3M 1M' -c 'write -f -P 6 4M 12345' \
			-c 'flush' -c 'read -P 5 0 1M' -c 'read -P 0 1M 2M' \
			-c 'read -P 6 4M 12345' -c 'read -P 5 4206649 3M' "$uri" >out 2>>why &&
		! grep -i -e fail -e error out && gone "$pid" && qemu-img check -q image >>why &&
		qemu-io -f qcow2 -c 'read -P 0 1M 2M' -c 'read -P 6 4M 12345' image >out &&
		! grep -i fail out
	result "zeros, discards, FUA"
else
	echo "skip zeros, discards, FUA: qemu-io is not installed (Debian: qemu-utils)"
fi

if fio --enghelp 2>/dev/null | grep -q '[[:space:]]nbd'; then
	new qcow2 64M
	serve -t -e 0 -f qcow2 image &&
		fio --name=x --ioengine=nbd --uri="$uri" --rw=randrw --bsrange=512-256k \
			--iodepth=32 --size=64M --verify=crc32c --verify_fatal=1 \
			--output=out >>why 2>&1
	wrote=$?
	stop && [ $wrote -eq 0 ] && qemu-img check -q image >>why
	result "fio: mixed sizes at depth 32 read back"
else
	echo "skip fio: not installed, or without its nbd engine (Debian: fio)"
fi

# --- flushes are counted ----------------------------------------------------------------------

count() { # CACHE EXPECTED COMMAND...
	cache=$1 expected=$2
	shift 2
	set -- "$@" "$uri"
	new raw 1M
	serve -t -f raw --cache="$cache" --aio=threads image || return 1
	strace -f -qq -e trace=fdatasync -p "$pid" -o trace &
	tracer=$!
	sleep 1
	qemu-io -f raw -t writeback "$@" >>why 2>&1
	wrote=$?
	kill $tracer
	wait $tracer 2>/dev/null
	stop
	found=$(grep -c 'fdatasync(.* = 0\|fdatasync resumed.* = 0' trace)
	echo "$found fdatasyncs" >>why
	[ $wrote -eq 0 ] && [ "$found" -eq "$expected" ]
}
if ! command -v strace >/dev/null || ! command -v qemu-io >/dev/null; then
	echo "skip flushes: strace or qemu-io is not installed (Debian: strace, qemu-utils)"
elif ! strace -qq -o trace true 2>/dev/null; then
	echo "skip flushes: strace is not permitted here"
else
	set -- -c 'write 0 4k' -c 'write 4k 4k'
	count writeback 1 "$@" -c flush -c flush
	result "writeback: two writes and two flushes are one fdatasync"
	count writeback 3 -c flush "$@" -c flush -c 'write 0 4k'
	result "writeback: one for those before us, and one when the client leaves"
	count writeback 3 -c flush -c 'write -f 0 4k' -c 'write -f 4k 4k' -c flush
	result "writeback: each FUA write is one"
	count writethrough 2 "$@" -c flush -c flush
	result "writethrough: each write is one, flushes none"
	count unsafe 0 "$@" -c flush
	result "unsafe: none"
fi

# --- ends -------------------------------------------------------------------------------------

new qcow2 "$size"
serve_here -f qcow2 image && nbdcopy data "$uri" 2>>why && wait "$pid" &&
	qemu-img compare -q -f raw -F qcow2 data image >>why && [ ! -e "$sock" ]
result "ends with its last client, with status 0"

serve -t -f qcow2 image && nbdinfo "$uri" >>why && nbdinfo "$uri" >>why && alive "$pid" && stop
result "-t stays"

new qcow2 "$size"
serve -t -e 0 -f qcow2 image && nbdcopy --flush data "$uri" 2>>why && kill -9 "$pid" &&
	gone "$pid" && [ -S "$sock" ]
result "killed at once after a flush"
no_errors
result "its image has no errors"
serve -t -e 0 -f qcow2 image && qemu-img compare -q -f raw -F raw data "$uri" >>why 2>&1
result "and another server, at the socket left behind, has all of it"
"$SLUICE" nbd -k "$sock" -f qcow2 image 2>err
[ $? -eq 1 ] && grep -q 'Address already in use' err
result "a socket that is served at is not taken"
"$SLUICE" nbd -k "$sock.2" --fork -f qcow2 image 2>err
[ $? -eq 1 ] && grep -q "Could not open 'image'" err && [ ! -e "$sock.2" ]
result "an image that is served is not served twice"
stop
result "a signal ends it"
if command -v qemu-io >/dev/null; then
	new qcow2 64M
	serve -t -e 2 -f qcow2 image
	stay 1 'write -P 9 64k 64k'
	stop && kill $client && qemu-img check -q image >>why 2>&1 &&
		qemu-io -f qcow2 -c 'read -P 9 64k 64k' image >out && ! grep -i fail out
	result "also when a client does not leave"
fi

: >plain
"$SLUICE" nbd -k "$PWD/plain" -f qcow2 image 2>err
[ $? -eq 1 ] && [ -f plain ] && grep -q 'no socket' err
result "a file that is no socket stays"

# Whoever leaves without a flush leaves tables to write; then no write succeeds any more.
if command -v prlimit >/dev/null && command -v qemu-io >/dev/null; then
	new qcow2 64M
	mkfifo pipe # no file, which could not grow either
	cat pipe >told &
	reader=$!
	"$SLUICE" nbd -t -k "$sock" -f qcow2 image 2>pipe &
	pid=$!
	for _ in $(seq 200); do
		[ -S "$sock" ] && break
		sleep 0.05
	done
	stay 2 'write 0 1M' -c 'write 20M 1M'
	prlimit --pid "$pid" --fsize=0 2>>why
	kill -9 $client
	kill "$pid"
	wait "$pid"
	ended=$?
	wait "$reader"
	cat told >>why
	[ $ended -eq 1 ] && grep -q "'image' is not left clean: File too large" told
	result "an image that cannot be closed is told, with status 1"
	no_errors
	result "and has no errors"
else
	echo "skip a failed close: prlimit or qemu-io is missing (Debian: util-linux, qemu-utils)"
fi

# --- mistakes ---------------------------------------------------------------------------------

mistake() { # WORDS ARGUMENT...
	words=$1
	shift
	"$SLUICE" nbd "$@" >out 2>err
	if [ $? -ne 1 ] || [ -s out ] || ! grep -q "^sluice nbd: $words" err; then
		cat err >>why
		return 1
	fi
}
mistake "Could not open 'none': No such file" -k "$sock" -f qcow2 none && [ ! -e "$sock" ] &&
	mistake "Could not open 'none': No such file" -k "$sock" --fork -f qcow2 none &&
	mistake "Could not open 'image': .*'foo'" -k "$sock" -f foo image &&
	mistake "Invalid number of arguments" && mistake "Invalid number of arguments" a b &&
	mistake "Invalid cache mode .foo'" --cache=foo a &&
	mistake "Invalid discard mode .foo'" --discard=foo a &&
	mistake "Invalid aio mode .foo'" --aio=foo a &&
	mistake "Invalid port number '0'" -p 0 a &&
	mistake "Invalid shared device number '-1'" -e -1 a &&
	mistake "unrecognized option '--foo'" --foo a && mistake "unrecognized option '-Z'" -Z a &&
	mistake "option '-k' requires an argument" -k &&
	mistake "-k is a unix socket" -k "$sock" -p 1 a
result "mistakes are named, with status 1"
exit $status
